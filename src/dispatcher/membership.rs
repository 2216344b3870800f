//! Membership: joins, which wait until the session's position is known, and leaves. A join is
//! answered when the position is known, when another command overtakes it, or at its deadline. The
//! join of a personal room is part of authentication and is always answered as that.

pub(super) mod cursor;
mod recovery;

use super::read_scheduler::LogKey;
use super::turn::Turn;
use super::{Dispatcher, Now, ReplyTo};
use crate::broker::{LogRequest, Refused, Request};
use crate::dispatcher::delivery::room::{Room, RoomState};
use crate::dispatcher::membership::cursor::{Cursor, Join, LogCheck, Membership, Present};
use crate::dispatcher::rooms::{Joined, Left, RoomKey};
use crate::model::id::{Position, RoomName, SessionId};
use crate::model::identity::Action;
use crate::model::member::MemberIdentity;
use crate::outbox::{Permit, TooManyRooms};
use crate::protocol::{Code, CommandError, Reply, RequestId};

impl Dispatcher {
    pub(super) fn on_join(
        &mut self,
        now: Now,
        reply_to: &ReplyTo,
        name: &RoomName,
        since: Option<Position>,
        identity: Option<Box<MemberIdentity>>,
    ) -> Result<(), CommandError> {
        let (session, id) = Self::session_of(reply_to)?;
        self.authorize_request(reply_to, Action::Join, name)?;
        self.check_bounds(session, name)?;
        let permit = self.permit_for(session, name)?;
        let deadline = now.instant + self.turn.settings.join_timeout;
        let join = Join {
            id,
            deadline: Some(deadline),
            sign_in: None,
        };
        self.add_member(session, name, since, identity, join);
        if let Some(permit) = permit
            && let Some(key) = self.rooms.find(name)
            && let Some((room, _)) = self.room(key)
        {
            room.state.permit = Some(permit);
        }
        Ok(())
    }

    /// The permit for a room that the node has not yet.
    fn permit_for(
        &self,
        session: SessionId,
        name: &RoomName,
    ) -> Result<Option<Permit>, CommandError> {
        let client = self.sessions.get(&session);
        match client {
            Some(client) if self.rooms.find(name).is_none() => client.outbox.open_room(),
            _ => Ok(None),
        }
        .map_err(|TooManyRooms| {
            let reason = "your user or address has its part of this node's rooms; leave one first";
            CommandError::new(Code::Limit, reason)
        })
    }

    /// Makes the session a member, whatever the bounds. The join is answered when the position of
    /// the room is known.
    pub(super) fn add_member(
        &mut self,
        session: SessionId,
        name: &RoomName,
        since: Option<Position>,
        identity: Option<Box<MemberIdentity>>,
        join: Join,
    ) {
        let Some(client) = self.sessions.get(&session) else {
            return;
        };
        let member = Membership {
            outbox: client.outbox.clone(),
            protocol: client.protocol,
            present: Present::NotYet(None),
        };
        let key = self.rooms.find_or_add(name, RoomState::default);
        let joined = self.rooms.join(key, session, member.clone());
        if joined == Joined::First {
            self.personal += usize::from(name.is_personal());
            self.turn
                .requests
                .push(Request::Log(LogRequest::Follow(name.clone())));
        }
        if let Some(identity) = identity {
            self.set_member_identity(key, session, identity);
        }
        let Some((room, turn)) = self.room(key) else {
            return;
        };
        if joined == Joined::Already {
            // Rejoin: flush the batch, then reset this session's cursor, because the client may
            // have lost its position.
            room.flush(turn);
            room.supersede(turn, session);
        } else {
            room.state.members_by_protocol[member.protocol.index()] += 1;
        }
        let cursor = Cursor::new(member, since, join);
        room.state.cursors.insert(session, cursor);
        room.settle(turn, session, LogCheck::Pending);
        if room.state.cursors.contains_key(&session) {
            self.joins.insert(key);
        }
    }

    pub(super) fn check_bounds(
        &self,
        session: SessionId,
        name: &RoomName,
    ) -> Result<(), CommandError> {
        let limit = |reason| Err(CommandError::new(Code::Limit, reason));
        let known = self.rooms.find(name);
        let chosen = self.rooms.len() - self.personal;
        if known.is_none() && chosen >= self.turn.settings.max_rooms {
            return limit("this node has its maximum of rooms; leave one, or try another node");
        }
        let again = known.is_some_and(|key| self.rooms.has(key, session));
        // The client did not choose its personal room, so that does not count.
        let client = self.sessions.get(&session);
        let personal = client.is_some_and(|client| client.identity.is_some());
        let count = self
            .rooms
            .count_of(session)
            .saturating_sub(usize::from(personal));
        if !again && count >= self.turn.settings.rooms_per_session {
            return limit("you are in the maximum number of rooms; leave one first");
        }
        Ok(())
    }

    pub(super) fn on_leave(
        &mut self,
        reply_to: &ReplyTo,
        room: &RoomName,
    ) -> Result<(), CommandError> {
        let (session, _) = Self::session_of(reply_to)?;
        let client = self.sessions.get(&session);
        if client.is_some_and(|client| client.is_personal_room(room)) {
            let reason = "you cannot leave your personal room";
            return Err(CommandError::new(Code::Forbidden, reason));
        }
        self.remove_member(session, room);
        self.reply(reply_to, &Reply::Left { room });
        Ok(())
    }

    pub(super) fn remove_member(&mut self, session: SessionId, name: &RoomName) {
        let Some(key) = self.rooms.find(name) else {
            return;
        };
        if let Some((room, turn)) = self.room(key) {
            room.supersede(turn, session);
        }
        self.leave(key, session);
    }

    /// Removes an ended session from all its rooms.
    pub(super) fn leave_all(&mut self, session: SessionId) {
        for key in self.rooms.rooms_of(session) {
            self.leave(key, session);
        }
    }

    fn leave(&mut self, key: RoomKey, session: SessionId) {
        if let Some((room, turn)) = self.room(key) {
            room.flush(turn);
        }
        let (left, member) = self.rooms.leave(key, session);
        let (Some(member), Some((room, _))) = (member, self.room(key)) else {
            return;
        };
        room.state.cursors.remove(&session);
        room.state.members_by_protocol[member.protocol.index()] -= 1;
        let name = room.name.clone();
        self.end_presence(session, &name, &member.present);
        if left == Left::Last
            && let Some(room) = self.rooms.remove(key)
        {
            self.personal -= usize::from(room.name.is_personal());
            self.turn.recent_used -= room.state.recent.weight();
            self.turn.ahead_used -= room.state.follower.sequencer.ahead_weight();
            self.forget_list(room.state.presence);
            self.turn.log_reads.end_pause(LogKey::Room(key));
            self.turn.list_reads.end_pause(key);
            self.turn
                .requests
                .push(Request::Log(LogRequest::Unfollow(room.name)));
        }
    }

    /// Refuses joins that the broker has not let the node answer in time.
    pub(super) fn expire_joins(&mut self, now: Now) {
        for key in std::mem::take(&mut self.joins) {
            let Some((room, _)) = self.room(key) else {
                continue;
            };
            let waiting = room.state.cursors.iter();
            let waiting = waiting.filter_map(|(session, cursor)| Some((*session, cursor.due()?)));
            let (mut late, in_time): (Vec<_>, Vec<_>) =
                waiting.partition(|(_, deadline)| *deadline <= now.instant);
            // Sorted, because equal events must have equal effects.
            late.sort_unstable();
            if !in_time.is_empty() {
                self.joins.insert(key);
            }
            for (session, _) in late {
                let Some((room, turn)) = self.room(key) else {
                    break;
                };
                let Some(id) = room.give_up_join(turn, session) else {
                    continue;
                };
                self.leave(key, session);
                let reply_to = ReplyTo::Session { session, id };
                self.reply(&reply_to, &Reply::Error(&Refused::Unavailable.into()));
            }
        }
    }
}

impl Room {
    /// Answers a join that another join or a leave of its session overtakes: every join is
    /// answered. A join of its own is refused; one of an authentication is answered without a
    /// position.
    pub(super) fn supersede(&mut self, turn: &mut Turn, session: SessionId) {
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
    pub(super) fn give_up_join(
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
