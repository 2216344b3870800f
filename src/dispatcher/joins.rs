//! Joins that wait for their reply. A join is answered when the session's position is known, when
//! another command overtakes it, or at its deadline. The join of a personal room is part of
//! authentication and is always answered as that.

use std::time::{Duration, Instant};

use super::recovery::Cursor;
use super::room::Room;
use super::turn::Turn;
use crate::model::id::{Position, RoomName, SessionId, UserName};
use crate::protocol::{Authenticated, Code, CommandError, Joined, Reply, RequestId};

/// A join that waits for its reply.
#[derive(Clone, Debug)]
pub struct Join {
    pub id: Option<RequestId>,
    /// `None`: no client requested the join, so none waits for a reply.
    pub deadline: Option<Instant>,
    /// Set for the join of a personal room, which is part of authentication and answered as that.
    pub sign_in: Option<SignIn>,
}

/// The part of the authentication reply besides the position.
#[derive(Clone, Debug)]
pub struct SignIn {
    pub user: UserName,
    /// The remaining lifetime of the token.
    pub expires: Option<Duration>,
}

impl SignIn {
    /// The reply, with the position in the personal room if it is known.
    pub fn authenticated<'a>(
        &'a self,
        room: &'a RoomName,
        position: Option<Position>,
    ) -> Authenticated<'a> {
        Authenticated {
            user: &self.user,
            room,
            position,
            expires: self.expires,
        }
    }
}

impl Cursor {
    /// The deadline of the waiting join. An authentication in the handshake has no request to
    /// answer, so it has no deadline.
    pub fn due(&self) -> Option<Instant> {
        let join = self.join.as_ref()?;
        let has_request = join.sign_in.is_none() || join.id.is_some();
        join.deadline.filter(|_| has_request)
    }

    /// Answers a join with the position of the session.
    pub fn answer_join(
        &self,
        turn: &mut Turn,
        session: SessionId,
        join: &Join,
        joined: Joined<'_>,
    ) {
        let reply = match &join.sign_in {
            Some(sign_in) => {
                Reply::Authenticated(sign_in.authenticated(joined.room, Some(joined.position)))
            }
            None => Reply::Joined(joined),
        };
        self.send(turn, session, join.id, &reply);
    }
}

impl Room {
    /// Answers a join that another join or a leave of its session overtakes: every join is
    /// answered. A join of its own is refused; one of an authentication is answered without a
    /// position.
    pub fn supersede(&mut self, turn: &mut Turn, session: SessionId) {
        let Some(cursor) = self.state.cursors.get_mut(&session) else {
            return;
        };
        let Some(join) = cursor.join.take() else {
            return;
        };
        match join.sign_in {
            Some(_) if join.id.is_none() => {}
            Some(sign_in) => {
                let authenticated = Reply::Authenticated(sign_in.authenticated(&self.name, None));
                cursor.send(turn, session, join.id, &authenticated);
            }
            None if join.deadline.is_none() => {}
            None => {
                let reason = "another join or leave of this room overtook this join; join again";
                let error = CommandError::new(Code::Unavailable, reason);
                turn.metrics.errors_total.count(error.code);
                cursor.send(turn, session, join.id, &Reply::Error(&error));
            }
        }
    }

    /// Handles a join whose deadline has passed: returns its request id, for the caller to refuse
    /// it. The join of an authentication is answered without a position, which follows as a push
    /// when it is known.
    pub fn give_up_join(
        &mut self,
        turn: &mut Turn,
        session: SessionId,
    ) -> Option<Option<RequestId>> {
        let cursor = self.state.cursors.get_mut(&session)?;
        let join = cursor.join.as_mut()?;
        let id = join.id.take();
        let Some(sign_in) = join.sign_in.clone() else {
            return Some(id);
        };
        let authenticated = Reply::Authenticated(sign_in.authenticated(&self.name, None));
        cursor.send(turn, session, id, &authenticated);
        None
    }
}
