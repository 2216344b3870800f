//! Identities of sessions: authentication, which joins the user's personal room; newer tokens,
//! which replace the rights of the former; and the end of a session whose token has expired.

use std::sync::Arc;
use std::time::Duration;

use crate::dispatcher::membership::cursor::{Join, SignIn};
use crate::dispatcher::{Dispatcher, Now, ReplyTo};
use crate::model::id::{RoomName, SessionId, UserName};
use crate::model::identity::{Action, Identity};
use crate::model::rights::Denied;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::{Code, CommandError, Removal, Reply, RequestId};

impl Dispatcher {
    /// A client has authenticated, in the handshake (without a request id) or later.
    pub(in crate::dispatcher) fn on_identified(
        &mut self,
        now: Now,
        session: SessionId,
        id: Option<RequestId>,
        identity: Arc<Identity>,
    ) {
        let Some(client) = self.sessions.get(&session) else {
            return;
        };
        if let Some(known) = &client.identity
            && known.user != identity.user
        {
            let reason = "a connection cannot change its user; open another one";
            let error = CommandError::new(Code::Forbidden, reason);
            return self.reply(&ReplyTo::Session { session, id }, &Reply::Error(&error));
        }
        if !self.check_revocation(now, &ReplyTo::Session { session, id }, &identity) {
            return;
        }
        let Some(client) = self.sessions.get_mut(&session) else {
            return;
        };
        let former = client.identity.replace(identity.clone());
        self.update_presence(session, &identity);
        if let Some(times) = former.as_ref().and_then(|former| former.times) {
            self.expiring.remove(&(times.ends, session));
        }
        if let Some(times) = identity.times {
            self.expiring.insert((times.ends, session));
        }
        let sign_in = SignIn {
            user: identity.user.clone(),
            expires: identity
                .times
                .map(|times| Duration::from_millis(times.expires.saturating_sub(now.unix_ms))),
        };
        let room = identity.user.room();
        if former.is_none() {
            let deadline = now.instant + self.turn.settings.join_timeout;
            let sign_in = Some(sign_in);
            let join = Join {
                id,
                deadline: Some(deadline),
                sign_in,
            };
            self.add_member(session, &room, None, None, join);
        } else {
            let authenticated = Reply::Authenticated(sign_in.authenticated(&room, None));
            self.reply(&ReplyTo::Session { session, id }, &authenticated);
        }
        self.leave_what_is_denied(session);
    }

    /// Whether the session may perform this action now.
    pub(in crate::dispatcher) fn authorize(
        &self,
        session: SessionId,
        action: Action,
        room: &RoomName,
    ) -> Result<(), Denied> {
        let client = self.sessions.get(&session);
        if client.is_some_and(|client| client.embedded) {
            return Ok(());
        }
        let who = client.and_then(|client| client.identity.as_deref());
        self.turn.settings.rights.check(who, action, room)
    }

    /// The rights have changed: removes the session from each room that it may no longer join.
    fn leave_what_is_denied(&mut self, session: SessionId) {
        for key in self.rooms.rooms_of(session) {
            let Some(name) = self.rooms.get(key).map(|room| room.name.clone()) else {
                continue;
            };
            let Err(denied) = self.authorize(session, Action::Join, &name) else {
                continue;
            };
            self.remove(session, &name, Removal::Rights, &denied.to_string());
        }
    }

    /// Ends the sessions whose tokens have expired.
    pub(in crate::dispatcher) fn expire(&mut self, now: Now) {
        while let Some((ends, session)) = self.expiring.first().copied()
            && ends <= now.unix_ms
        {
            self.expiring.pop_first();
            self.disconnect(now, session, Disconnect::Expired);
        }
    }

    /// The connections of a user on this node.
    pub(in crate::dispatcher) fn sessions_of(&self, user: &UserName) -> Vec<SessionId> {
        // Each connection of the user is in the personal room, so no other session needs to be
        // checked. A subscription of the embedding program may be there too.
        let room = self.rooms.find(&user.room());
        let room = room.and_then(|key| self.rooms.get(key));
        let members = room.into_iter().flat_map(|room| &room.members);
        let is_connection = |session: &SessionId| {
            let client = self.sessions.get(session);
            client.is_some_and(|client| !client.embedded)
        };
        let sessions = members.map(|member| member.session);
        let mut sessions: Vec<SessionId> = sessions.filter(is_connection).collect();
        // Sorted, because equal events must have equal effects.
        sessions.sort_unstable();
        sessions
    }
}
