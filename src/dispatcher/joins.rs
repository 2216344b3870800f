//! Joins that wait for their reply. A join is answered when the session's position is known, when
//! another command overtakes it, or at its deadline. The join of a personal room is part of
//! authentication and is always answered as that.

use super::room::Room;
use super::turn::Turn;
use crate::model::id::SessionId;
use crate::protocol::{Code, CommandError, Reply, RequestId};

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
    /// it. The join of an authentication is answered without a position, which follows
    /// without a request id when it is known.
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
