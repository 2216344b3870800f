//! What backends ask about the whole cluster: the broker knows it from what all nodes say, so no
//! node is asked, and none that has just died is waited for. And what this node says for it: which
//! connections its users have.

use super::Dispatcher;
use super::presence::MembersQuery;
use super::turn::{Pending, ReplyTo};
use crate::broker::{Census, Connected, Refused, Request};
use crate::model::cluster_query::{ClusterQuery, Connection, QueryResult};
use crate::model::id::{RoomName, SessionId, Ticket, UserName};
use crate::protocol::{CommandError, Reply};

impl Dispatcher {
    /// Asks for members as the broker knows them, whatever this node keeps: every node answers the
    /// same.
    pub(super) fn list_members(&mut self, query: MembersQuery) -> Result<(), CommandError> {
        let ticket = self.wait(&query.reply_to, Pending::Members(query.clone()))?;
        self.turn.requests.push(query.request(ticket));
        Ok(())
    }

    pub(super) fn census(
        &mut self,
        reply_to: &ReplyTo,
        question: ClusterQuery,
    ) -> Result<(), CommandError> {
        let ticket = self.wait(reply_to, Pending::Census(reply_to.clone()))?;
        let census = Census { ticket, question };
        self.turn.requests.push(Request::Census(census));
        Ok(())
    }

    pub(super) fn on_found(&mut self, ticket: Ticket, result: Result<QueryResult, Refused>) {
        let Some(Pending::Census(reply_to)) = self.turn.pending.remove(&ticket) else {
            return;
        };
        self.answered(&reply_to);
        match (result, &reply_to) {
            (Ok(finding), ReplyTo::Call(caller)) => caller.tell_found(&finding),
            // No client can ask.
            (Ok(_), ReplyTo::Session { .. }) => {}
            (Err(refused), reply_to) => self.reply(reply_to, &Reply::Error(&refused.into())),
        }
    }

    /// A session is in a room from now on, shows something else there, or has left it: if it is its
    /// user's own, all nodes hear of the connection.
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
