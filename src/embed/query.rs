//! Queries of the embedding program: messages and members of a room, rooms, connections of a user.

use super::{Handle, bad_request, room_name};
use crate::model::cluster_query::{
    ClusterQuery, ConnectionPage, PAGE_LIMIT, QueryResult, RoomCount, RoomKind, RoomPage,
};
use crate::model::id::{Position, RoomPrefix, UserName};
use crate::model::member::{MemberPage, MembersQuery};
use crate::model::publication::{HistoryQuery, Refused, Sender};
use crate::model::room_event::Delivery;
use crate::protocol::{Command, CommandError, HISTORY_LIMIT, Reply};

/// A part of the messages that a room has stored.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// The newest position of the room.
    pub position: Position,
    /// In the order of offsets, without holes.
    pub messages: Vec<Delivery>,
    /// Whether the room has older messages than these.
    pub more: bool,
}

impl Handle {
    /// The newest messages of a room below the offset `before`, or the newest of all. `limit` is 1
    /// to 100; a page of long messages has fewer. For the page before, give the offset of the first
    /// message of this one.
    ///
    /// # Errors
    /// Those of [`Handle`].
    pub async fn history(
        &self,
        room: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<HistoryPage, CommandError> {
        let query = HistoryQuery {
            room: room_name(room)?,
            before,
            limit: limited(limit, HISTORY_LIMIT)?,
        };
        let command = Command::History(query);
        self.call(command, Refused::Unavailable, read_history).await
    }

    /// The users in a room, over all nodes, in the order of their names, after the name `after`.
    /// `limit` is 1 to 1,000.
    ///
    /// # Errors
    /// Those of [`Handle`].
    pub async fn members(
        &self,
        room: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<MemberPage, CommandError> {
        let query = MembersQuery {
            room: room_name(room)?,
            after: after.map(UserName::new).transpose()?,
            limit: limited(limit, PAGE_LIMIT)?,
        };
        let read = |reply: &Reply<'_>| match reply {
            Reply::Members { page, .. } => Some((*page).clone()),
            _ => None,
        };
        let command = Command::Members(query);
        self.call(command, Refused::Unavailable, read).await
    }

    /// How many users and connections a room has, over all nodes.
    ///
    /// # Errors
    /// Those of [`Handle`].
    pub async fn count(&self, room: &str) -> Result<RoomCount, CommandError> {
        let query = ClusterQuery::Room(room_name(room)?);
        self.query(query, |result| match result {
            QueryResult::Room(count, _) => Some(count.clone()),
            _ => None,
        })
        .await
    }

    /// The rooms that have members, over all nodes, in the order of their names, after the name
    /// `after`. `prefix` is the beginning of their names; personal rooms are listed only with a
    /// prefix that begins with `@`. `limit` is 1 to 1,000.
    ///
    /// # Errors
    /// Those of [`Handle`].
    pub async fn rooms(
        &self,
        prefix: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<RoomPage, CommandError> {
        let prefix = prefix.map(RoomPrefix::new).transpose()?;
        let query = ClusterQuery::Rooms {
            kind: RoomKind::beginning_with(prefix.as_ref().map_or("", RoomPrefix::as_str)),
            prefix,
            after: after.map(room_name).transpose()?,
            limit: limited(limit, PAGE_LIMIT)?,
        };
        self.query(query, |result| match result {
            QueryResult::Rooms(rooms) => Some(rooms.clone()),
            _ => None,
        })
        .await
    }

    /// The connections that a user has at this moment, over all nodes, after the session `after`.
    /// `limit` is 1 to 1,000.
    ///
    /// # Errors
    /// Those of [`Handle`].
    pub async fn connections(
        &self,
        user: &str,
        after: Option<Sender>,
        limit: usize,
    ) -> Result<ConnectionPage, CommandError> {
        let query = ClusterQuery::Connections {
            user: UserName::new(user)?,
            after,
            limit: limited(limit, PAGE_LIMIT)?,
        };
        self.query(query, |result| match result {
            QueryResult::Connections(connections) => Some(connections.clone()),
            _ => None,
        })
        .await
    }

    async fn query<T: Send + 'static>(
        &self,
        query: ClusterQuery,
        read: fn(&QueryResult) -> Option<T>,
    ) -> Result<T, CommandError> {
        let command = Command::ClusterQuery(Box::new(query));
        let read_reply = |reply: &Reply<'_>| match reply {
            Reply::QueryResult(result) => Some((*result).clone()),
            _ => None,
        };
        let result = self.call(command, Refused::Unavailable, read_reply).await?;
        read(&result).ok_or_else(|| Refused::Unavailable.into())
    }
}

fn read_history(reply: &Reply<'_>) -> Option<HistoryPage> {
    let Reply::History {
        position,
        messages,
        more,
        ..
    } = reply
    else {
        return None;
    };
    let messages = messages.iter();
    let messages = messages.map(|(offset, publication)| Delivery::stored(*offset, publication));
    Some(HistoryPage {
        position: *position,
        messages: messages.collect(),
        more: *more,
    })
}

fn limited(limit: usize, most: usize) -> Result<usize, CommandError> {
    if !(1..=most).contains(&limit) {
        return Err(bad_request(format!(
            "the limit must lie between 1 and {most}"
        )));
    }
    Ok(limit)
}
