//! Joins that wait for their answers: it is known where the session stands, or another command
//! comes first, or the time is over. A join of a personal room comes with signing in and is
//! answered as that, in every case.

use std::time::{Duration, Instant};

use super::recovery::Cursor;
use super::room::Room;
use super::turn::Turn;
use crate::model::id::{Position, RoomName, SessionId, UserName};
use crate::protocol::{Authenticated, Code, CommandError, Joined, Reply, RequestId};

/// A join that waits for its answer.
#[derive(Clone, Debug)]
pub struct Join {
    pub id: Option<RequestId>,
    /// `None`: nobody asked for it, so nobody waits.
    pub deadline: Option<Instant>,
    /// It is the join of a personal room, which comes with signing in and is answered as that.
    pub sign_in: Option<SignIn>,
}

/// What is told of signing in besides where one stands.
#[derive(Clone, Debug)]
pub struct SignIn {
    pub user: UserName,
    /// How long the token is good.
    pub expires: Option<Duration>,
}

impl SignIn {
    /// As its client is told.
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
    /// When the join that waits here must be answered at the latest. A sign-in in the handshake
    /// asked for no answer.
    pub fn due(&self) -> Option<Instant> {
        let join = self.join.as_ref()?;
        let asked = join.sign_in.is_none() || join.id.is_some();
        join.deadline.filter(|_| asked)
    }

    /// Answers a join with the place where the session now stands.
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
    /// A join that another join or a leave of its session overtakes is refused: every join is
    /// answered.
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
                let reason =
                    "another join or leave of this room came before the answer; join again";
                let error = CommandError::new(Code::Unavailable, reason);
                turn.metrics.errors_total.count(error.code);
                cursor.send(turn, session, join.id, &Reply::Error(&error));
            }
        }
    }

    /// A join whose time is over is to be refused (its request comes back). One that came with
    /// signing in is answered without a place, which follows, unasked, when it is known.
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
