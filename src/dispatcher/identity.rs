//! Who sessions are: signing in, with which comes the user's personal room; newer tokens, which replace the rights of the
//! former; and the end of a session whose token has expired.

use std::sync::Arc;
use std::time::Duration;

use super::desk::Asker;
use super::joins::{Join, SignIn};
use super::{Dispatcher, Now};
use crate::disconnect::Disconnect;
use crate::id::{RoomName, SessionId, UserName};
use crate::identity::{Action, Identity};
use crate::protocol::{Code, CommandError, Push, Reply, RequestId};
use crate::rights::Denied;

impl Dispatcher {
    /// A client has shown who it is, in the handshake (without a request) or later.
    pub(super) fn on_identified(
        &mut self,
        now: Now,
        session: SessionId,
        id: Option<RequestId>,
        identity: Arc<Identity>,
    ) {
        let Some(speaker) = self.sessions.get_mut(&session) else {
            return;
        };
        if let Some(known) = &speaker.identity
            && known.user != identity.user
        {
            let reason = "the user of a connection never changes; open another one";
            let error = CommandError::new(Code::Forbidden, reason);
            return self.reply(&Asker::Session { session, id }, &Reply::Error(&error));
        }
        let former = speaker.identity.replace(identity.clone());
        self.count_as(session, &identity);
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
            let deadline = now.instant + self.desk.settings.join_timeout;
            let sign_in = Some(sign_in);
            let join = Join {
                id,
                deadline,
                sign_in,
            };
            self.admit(session, &room, None, join);
        } else {
            let told = Reply::Authenticated(sign_in.told(&room, None));
            self.reply(&Asker::Session { session, id }, &told);
        }
        self.leave_what_is_denied(session);
    }

    /// Whether the session may do this now.
    pub(super) fn judge(
        &self,
        session: SessionId,
        action: Action,
        room: &RoomName,
    ) -> Result<(), Denied> {
        let speaker = self.sessions.get(&session);
        let who = speaker.and_then(|speaker| speaker.identity.as_deref());
        self.desk.settings.rights.judge(who, action, room)
    }

    /// Rights have changed: the session is taken out of each room that it may no longer join.
    fn leave_what_is_denied(&mut self, session: SessionId) {
        for key in self.rooms.rooms_of(session) {
            let Some(name) = self.rooms.get(key).map(|room| room.name.clone()) else {
                continue;
            };
            let Err(denied) = self.judge(session, Action::Join, &name) else {
                continue;
            };
            self.on_leave(session, &name);
            if let Some(speaker) = self.sessions.get(&session) {
                let removed = Push::Removed {
                    room: &name,
                    reason: &denied.to_string(),
                };
                let frames = speaker.protocol.push(&removed);
                self.desk.say(session, &speaker.outbox, frames);
            }
        }
    }

    /// Ends the sessions whose tokens are over.
    pub(super) fn expire(&mut self, now: Now) {
        while let Some((ends, session)) = self.expiring.first().copied()
            && ends <= now.unix_ms
        {
            self.expiring.pop_first();
            self.disconnect(now, session, Disconnect::Expired);
        }
    }

    /// Ends the sessions of a user on this node, all of them or those whose tokens were issued before a time, in milliseconds
    /// since 1970; a token that does not say when counts as old. How many there were.
    pub fn disconnect_user(
        &mut self,
        now: Now,
        user: &UserName,
        issued_before: Option<u64>,
        why: Disconnect,
    ) -> usize {
        // Each session of the user is in its room, so the others need not be looked at.
        let Some(room) = self
            .rooms
            .find(&user.room())
            .and_then(|key| self.rooms.get(key))
        else {
            return 0;
        };
        let meant = |session: &SessionId| {
            let identity = self
                .sessions
                .get(session)
                .and_then(|is| is.identity.as_ref());
            let issued = identity.and_then(|identity| identity.times?.issued);
            issued_before.is_none_or(|time| issued.is_none_or(|issued| issued < time))
        };
        let members = room.members.iter().map(|member| member.session);
        let meant: Vec<SessionId> = members.filter(meant).collect();
        for session in &meant {
            self.disconnect(now, *session, why);
        }
        meant.len()
    }
}
