//! Queries of backends about the whole cluster. The broker answers them from what all nodes
//! publish, so no node is queried, and no reply waits for a node that has just died. Also publishes
//! this node's part: the connections of its users.

use super::pending::PendingMembers;
use super::{Dispatcher, ReplyTo};
use crate::broker::{ClusterRequest, Connected, MembersQuery, MembersRequest, Refused, Request};
use crate::model::cluster_query::{ClusterQuery, Connection, QueryResult};
use crate::model::id::{RoomName, SessionId, Ticket, UserName};
use crate::protocol::{CommandError, Reply};

impl Dispatcher {
    /// Reads members from the broker.
    pub(super) fn read_members(
        &mut self,
        reply_to: &ReplyTo,
        query: MembersQuery,
    ) -> Result<(), CommandError> {
        self.admit(reply_to)?;
        let reply_to = reply_to.clone();
        let pending = PendingMembers::Query {
            reply_to,
            query: query.clone(),
        };
        let ticket = self.turn.pending.read_members(pending);
        self.turn
            .requests
            .push(Request::Members(MembersRequest { ticket, query }));
        Ok(())
    }

    pub(super) fn cluster_query(
        &mut self,
        reply_to: &ReplyTo,
        query: ClusterQuery,
    ) -> Result<(), CommandError> {
        Self::refuse_session(reply_to)?;
        self.admit(reply_to)?;
        let ticket = self.turn.pending.cluster_query(reply_to.clone());
        self.turn
            .requests
            .push(Request::ClusterQuery(ClusterRequest { ticket, query }));
        Ok(())
    }

    pub(super) fn on_query_result(&mut self, ticket: Ticket, result: Result<QueryResult, Refused>) {
        let Some(reply_to) = self.turn.pending.cluster_queries.remove(&ticket) else {
            return;
        };
        self.release(&reply_to);
        match result {
            Ok(result) => self.reply(&reply_to, &Reply::QueryResult(&result)),
            Err(refused) => self.reply(&reply_to, &Reply::Error(&refused.into())),
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
