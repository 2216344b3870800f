//! Queries of backends about the whole cluster. The broker answers them from what all nodes
//! publish, so no node is queried, and no reply waits for a node that has just died. Also publishes
//! this node's part: the connections of its users.

use super::Dispatcher;
use super::turn::{MembersQuery, Pending, ReplyTo};
use crate::broker::{Census, Connected, Refused, Request};
use crate::model::cluster_query::{ClusterQuery, Connection, QueryResult};
use crate::model::id::{RoomName, SessionId, Ticket, UserName};
use crate::protocol::{CommandError, Reply};

impl Dispatcher {
    /// Reads members from the broker, also where this node has the list: every node returns the
    /// same.
    pub(super) fn list_members(&mut self, query: MembersQuery) -> Result<(), CommandError> {
        let ticket = self.wait(&query.reply_to, Pending::Members(query.clone()))?;
        self.turn.requests.push(query.request(ticket));
        Ok(())
    }

    pub(super) fn cluster_query(
        &mut self,
        reply_to: &ReplyTo,
        question: ClusterQuery,
    ) -> Result<(), CommandError> {
        let ticket = self.wait(reply_to, Pending::Census(reply_to.clone()))?;
        let cluster_query = Census { ticket, question };
        self.turn.requests.push(Request::Census(cluster_query));
        Ok(())
    }

    pub(super) fn on_found(&mut self, ticket: Ticket, result: Result<QueryResult, Refused>) {
        let Some(Pending::Census(reply_to)) = self.turn.pending.remove(&ticket) else {
            return;
        };
        self.release(&reply_to);
        match (result, &reply_to) {
            (Ok(result), ReplyTo::Call(caller)) => caller.reply_query(&result),
            // Clients have no command for this.
            (Ok(_), ReplyTo::Session { .. }) => {}
            (Err(refused), reply_to) => self.reply(reply_to, &Reply::Error(&refused.into())),
        }
    }

    /// Publishes a connection when its session has joined its user's personal room, shows another
    /// `info` there, or has left it. In other rooms it does nothing.
    pub(super) fn publish_connection(&mut self, session: SessionId, room: &RoomName, live: bool) {
        let Some(user) = room.owner().and_then(|name| UserName::new(name).ok()) else {
            return;
        };
        let client = self.sessions.get(&session);
        let identity = client.and_then(|client| client.identity.as_ref());
        let connection = Connection {
            session: self.sender(session),
            node: self.turn.settings.node.clone(),
            info: identity.and_then(|identity| identity.info.clone()),
        };
        let connected = Connected {
            user,
            connection,
            live,
        };
        self.turn.requests.push(Request::Connected(connected));
    }
}
