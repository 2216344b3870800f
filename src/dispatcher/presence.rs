//! Who is here: which sessions count as present in which rooms, what of it is announced to the
//! other nodes, and clients' questions for the members of a room.

use super::member_reads::RoomPresence;
use super::room::Present;
use super::turn::{Pending, ReplyTo};
use super::{Dispatcher, Now};
use crate::broker::{MemberPage, Members, Refused, Request};
use crate::dispatcher::rooms::RoomKey;
use crate::model::id::{RoomName, SessionId, Ticket, UserName};
use crate::model::identity::{Action, Identity};
use crate::presence::fit;
use crate::protocol::{CommandError, Reply};

/// A client's question for the members of a room.
#[derive(Clone, Debug)]
pub struct MembersQuery {
    pub reply_to: ReplyTo,
    pub room: RoomName,
    pub after: Option<UserName>,
    pub limit: usize,
}

impl MembersQuery {
    pub fn request(self, ticket: Ticket) -> Request {
        Request::Members(Members {
            ticket,
            room: self.room,
            after: self.after,
            limit: self.limit,
        })
    }
}

impl Dispatcher {
    /// A session has said who it is, or so again: in the rooms it was in before it counts as that
    /// user from now on.
    pub(super) fn count_as(&mut self, session: SessionId, identity: &Identity) {
        let (user, info) = (&identity.user, identity.info.as_ref());
        let mut informed = None;
        for key in self.rooms.rooms_of(session) {
            let Some(name) = self.rooms.get(key).map(|room| room.name.clone()) else {
                continue;
            };
            let Some(member) = self.rooms.member_mut(key, session) else {
                continue;
            };
            let Present::As(former) = &mut member.present else {
                continue;
            };
            if former.as_ref() == Some(user) {
                self.attendance.inform(&name, user, info);
                informed = name.owner().is_some().then_some(name).or(informed);
            } else {
                self.attendance.hand_over(&name, former.as_ref());
                self.attendance.arrive(&name, Some(user), info);
                *former = Some(user.clone());
            }
        }
        if let Some(room) = informed {
            self.tell_connection(session, &room, true);
        }
    }

    /// Sees to what an event has left behind: members whose joins are answered, questions that can
    /// be.
    pub(super) fn settle_presence(&mut self) {
        while let Some((key, session)) = self.turn.arrived.pop() {
            let (Some(speaker), Some(room)) = (self.sessions.get(&session), self.rooms.get(key))
            else {
                continue;
            };
            let name = room.name.clone();
            if let Some(member) = self.rooms.member_mut(key, session)
                && matches!(member.present, Present::NotYet)
            {
                let identity = speaker.identity.as_deref();
                let user = identity.map(|identity| &identity.user);
                let info = identity.and_then(|identity| identity.info.as_ref());
                member.present = Present::As(user.cloned());
                self.attendance.arrive(&name, user, info);
                self.tell_connection(session, &name, true);
            }
        }
        while let Some(key) = self.turn.rolls.ready.pop() {
            self.answer_waiting(key);
        }
    }

    /// A member has left a room, or its session has ended.
    pub(super) fn absent(&mut self, session: SessionId, room: &RoomName, present: &Present) {
        if let Present::As(user) = present {
            self.tell_connection(session, room, false);
            self.attendance.leave(self.turn.now, room, user.as_ref());
        }
    }

    /// Tells the broker what the other nodes must hear of who is here.
    pub(super) fn announce(&mut self) {
        let requests = &mut self.turn.requests;
        self.attendance
            .announce(|here| requests.push(Request::SetPresence(here)));
    }

    pub(super) fn on_members(
        &mut self,
        now: Now,
        session: SessionId,
        asked: MembersQuery,
    ) -> Result<(), CommandError> {
        self.judge(session, Action::Members, &asked.room)?;
        let ticket = self.wait(&asked.reply_to, Pending::Members(asked.clone()))?;
        let deadline = now.instant + self.turn.settings.join_timeout;
        let key = self.rooms.find(&asked.room);
        // Whoever is not told what changes is told what is.
        let key = key.filter(|key| self.rooms.has(*key, session));
        let Some((room, turn)) = key.and_then(|key| self.room(key)) else {
            self.turn.requests.push(asked.request(ticket));
            return Ok(());
        };
        if !room.keeps_roll(turn) {
            turn.requests.push(asked.request(ticket));
            return Ok(());
        }
        let key = room.key;
        let roll = &mut room.state.roll;
        roll.waiting.push((deadline, ticket));
        if asked.after.is_some() && roll.roster.has_list() {
            turn.rolls.ready.push(key);
            return Ok(());
        }
        // The list is here, or about to be; the number of the anonymous only a read knows.
        if roll.roster.is_known() {
            roll.roster.want_counts();
        }
        turn.rolls.waiting.insert(key);
        room.line_up_roll(turn);
        Ok(())
    }

    /// Answers the questions that wait in a room: from its list, or by the broker if that is not
    /// kept.
    pub(super) fn answer_waiting(&mut self, key: RoomKey) {
        let Some((room, _)) = self.room(key) else {
            return;
        };
        for (_, ticket) in std::mem::take(&mut room.state.roll.waiting) {
            let Some(Pending::Members(asked)) = self.turn.pending.get(&ticket) else {
                continue;
            };
            let Some(room) = self.rooms.get(key) else {
                return;
            };
            let roster = &room.state.roll.roster;
            let page = roster.page(asked.after.as_ref(), asked.limit, self.turn.quarter());
            if page.is_none() && roster.is_known() {
                let request = asked.clone().request(ticket);
                self.turn.requests.push(request);
                continue;
            }
            self.on_roll(ticket, page.ok_or(Refused::Unavailable));
        }
    }

    /// A room is gone, and with it its list: the questions that waited for it are those of former
    /// members.
    pub(super) fn forget_roll(&mut self, roll: RoomPresence) {
        self.turn.rolls.forget(&roll.roster);
        for (_, ticket) in roll.waiting {
            self.on_roll(ticket, Err(Refused::Unavailable));
        }
    }

    pub(super) fn reply_members(
        &mut self,
        asked: &MembersQuery,
        result: Result<MemberPage, Refused>,
    ) {
        self.answered(&asked.reply_to);
        let mut roll = match result {
            Ok(roll) => roll,
            Err(refused) => {
                return self.reply(&asked.reply_to, &Reply::Error(&refused.into()));
            }
        };
        fit(&mut roll, self.turn.quarter());
        // What was told before lies before the answer.
        if let Some((room, turn)) = self.room_named(&asked.room) {
            room.flush(turn);
        }
        let room = &asked.room;
        let reply = Reply::Members { room, roll: &roll };
        self.reply(&asked.reply_to, &reply);
    }
}
