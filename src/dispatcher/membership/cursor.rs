//! Memberships, and the cursors of members that are behind. A cursor holds the position from which
//! its member continues and the join that waits for its reply.

use std::time::{Duration, Instant};

use crate::dispatcher::turn::Turn;
use crate::model::id::{Position, RoomName, SessionId, UserName};
use crate::model::member::MemberIdentity;
use crate::outbox::Outbox;
use crate::protocol::{Authenticated, Joined, Protocol, Reply, RequestId};

/// The node's state of a membership: enough to deliver without looking up the session.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    pub outbox: Outbox,
    pub protocol: Protocol,
    pub present: Present,
}

/// Whether and as which user a member counts as present.
#[derive(Clone, Debug)]
pub(crate) enum Present {
    /// Its join has not been answered. The identity is that of the membership, if it has its own.
    NotYet(Option<Box<MemberIdentity>>),
    /// As the user of its session; `None`: as an anonymous session.
    As(Option<UserName>),
    /// As the user of its membership, whatever the session's is.
    AsOwn(UserName),
}

/// A join that waits for its reply.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub id: Option<RequestId>,
    /// `None`: no client requested the join, so none waits for a reply.
    pub deadline: Option<Instant>,
    /// Set for the join of a personal room, which is part of authentication and answered as that.
    pub sign_in: Option<SignIn>,
}

/// The part of the authentication reply besides the position.
#[derive(Clone, Debug)]
pub(crate) struct SignIn {
    pub user: UserName,
    /// The remaining lifetime of the token.
    pub expires: Option<Duration>,
}

impl SignIn {
    /// The reply, with the position in the personal room if it is known.
    pub(crate) fn authenticated<'a>(
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

/// A member that is behind.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub member: Membership,
    pub want: Want,
    /// The join that has not been answered yet.
    pub join: Option<Join>,
    /// What the reply to the join reports: no message after the position that the client named is
    /// lost.
    pub recovered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Become live at the position of the room.
    Now,
    /// Continue from here, if the log has it: not checked yet.
    Since(Position),
    /// Receive what follows this position, which is not above what the node has delivered. In an
    /// ended epoch: the rest of it up to its end, a gap there, and what follows.
    After(Position),
}

/// Whether the node's own read has just confirmed that it has every message, so that a position
/// that it cannot place is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogCheck {
    Complete,
    Pending,
}

impl Cursor {
    pub(crate) fn new(member: Membership, since: Option<Position>, join: Join) -> Self {
        let want = since.map_or(Want::Now, Want::Since);
        Self {
            member,
            want,
            join: Some(join),
            recovered: true,
        }
    }

    /// Whether its join has been answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.join.is_none()
    }

    /// Whether the cursor remains after the room has lost messages: only if a join waits, whose
    /// position is then checked again.
    pub(crate) fn survives_loss(&mut self) -> bool {
        if let Want::After(at) = self.want {
            self.want = Want::Since(at);
        }
        self.join.is_some()
    }

    /// The node's epoch has ended at this position. Returns whether the member must receive the gap
    /// now, because it is above the end. If a join waits, its position is checked again instead.
    pub(crate) fn is_above_end(&mut self, end: Position) -> bool {
        match self.want {
            Want::After(at) if at.offset > end.offset && self.join.is_some() => {
                self.want = Want::Since(at);
                false
            }
            Want::After(at) if at.offset > end.offset => {
                self.want = Want::After(end);
                true
            }
            _ => false,
        }
    }

    /// Whether another page fits into the outbox. If not, asks its writer for a notification when
    /// it has drained.
    pub(crate) fn has_room(&self, quarter: usize) -> bool {
        let fits = || self.member.outbox.waiting() <= quarter as u64;
        if fits() {
            return true;
        }
        // Asked before the second check: the writer may have finished between the two.
        self.member.outbox.want_drained();
        fits()
    }

    pub(crate) fn send(
        &self,
        turn: &mut Turn,
        session: SessionId,
        id: Option<RequestId>,
        reply: &Reply<'_>,
    ) {
        turn.send(
            session,
            &self.member.outbox,
            self.member.protocol.encoder().reply(id, reply),
        );
    }

    /// The deadline of the waiting join. An authentication in the handshake has no request to
    /// answer, so it has no deadline.
    pub(crate) fn due(&self) -> Option<Instant> {
        let join = self.join.as_ref()?;
        let has_request = join.sign_in.is_none() || join.id.is_some();
        join.deadline.filter(|_| has_request)
    }

    /// Answers a join with the position of the session.
    pub(crate) fn answer_join(
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
