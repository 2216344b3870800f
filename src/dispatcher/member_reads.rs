//! The lists of rooms' members, over all nodes: reading them, a bounded number at a time and within
//! one memory bound, keeping them true, and telling a room's members what has changed.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::room::Room;
use super::turn::{PAUSE, Pauses, Pending, Turn, take_over};
use super::{Dispatcher, Now};
use crate::broker::{Change, MemberPage, Members, Refused, Request};
use crate::dispatcher::rooms::RoomKey;
use crate::model::id::{NumberSet, RoomName, Ticket};
use crate::presence::{ListQuery, MemberChange, MemberList};
use crate::protocol::{Protocol, Push};

/// Lists that the node reads at once at most. Fewer than its reads of logs: nobody misses a message
/// for want of a list.
pub const ROLLS: usize = 16;

/// Bytes of changes, of all rooms together, that wait for the lists they change.
const AHEAD_MEMORY: usize = 16 << 20;

/// The part of the desk that concerns the lists of all rooms.
#[derive(Default)]
pub struct MemberReads {
    /// Rooms that want to read, and the same as a set: each key stands here once, also when its
    /// room has gone and another has come in its place.
    line: VecDeque<RoomKey>,
    queued: NumberSet<RoomKey>,
    /// How many reads are under way.
    pub under_way: usize,
    /// Rooms whose read failed; they line up again at the next tick.
    retry: BTreeSet<RoomKey>,
    /// Rooms whose read met a newer format, and when they may read again.
    pub paused: Pauses,
    /// Rooms where clients' questions wait for a read, looked through at each tick.
    pub waiting: BTreeSet<RoomKey>,
    /// Rooms whose waiting questions can be answered.
    pub ready: Vec<RoomKey>,
    /// Bytes of the lists of all rooms, and of the changes that wait for them.
    pub used: usize,
    ahead_used: usize,
}

impl MemberReads {
    /// Rooms that wait for a read.
    pub fn due(&self) -> usize {
        self.line.len() + self.retry.len() + self.paused.len()
    }

    fn queue_read(&mut self, room: RoomKey) {
        if !self.paused.contains_key(&room) && self.queued.insert(room) {
            self.line.push_back(room);
        }
    }

    /// The room that has waited longest, if another may read now. It may have gone.
    fn next_queued(&mut self) -> Option<RoomKey> {
        if self.under_way >= ROLLS {
            return None;
        }
        let room = self.line.pop_front()?;
        self.queued.remove(&room);
        Some(room)
    }

    /// A room is gone, and what it kept.
    pub fn forget(&mut self, roster: &MemberList) {
        self.used -= roster.weight();
        self.ahead_used -= roster.ahead_weight();
    }
}

/// What a room knows of its members over all nodes.
#[derive(Debug, Default)]
pub struct RoomPresence {
    pub roster: MemberList,
    /// The read under way.
    ticket: Option<Ticket>,
    /// Clients' questions that wait for it, and how long at most, oldest first.
    pub waiting: Vec<(Instant, Ticket)>,
}

impl Room {
    /// The room's topic was (re)subscribed: changes may have been missed.
    pub fn make_roll_due(&mut self, turn: &mut Turn) {
        if turn.settings.presence.has_events(&self.name) {
            self.state.roll.roster.make_due();
            self.line_up_roll(turn);
        }
    }

    /// Whether a question for the members can be answered from the list, now or soon.
    pub fn keeps_roll(&self, turn: &Turn) -> bool {
        let roster = &self.state.roll.roster;
        turn.settings.presence.has_events(&self.name) && (roster.has_list() || !roster.is_known())
    }

    /// Puts the room into the line of those that want to read their list, if it does.
    pub fn line_up_roll(&mut self, turn: &mut Turn) {
        if self.state.roll.roster.is_due() {
            turn.rolls.queue_read(self.key);
        }
    }

    fn ask_roll(&mut self, turn: &mut Turn) {
        let roll = &mut self.state.roll;
        if !roll.roster.is_due() {
            return;
        }
        let ListQuery { after, limit } = roll.roster.ask();
        let ticket = turn.ticket(Pending::MemberPage(self.key));
        turn.rolls.under_way += 1;
        self.state.roll.ticket = Some(ticket);
        let room = self.name.clone();
        turn.requests.push(Request::Members(Members {
            ticket,
            room,
            after,
            limit,
        }));
    }

    /// The answer to the room's own question. One to a question of a room that was here before
    /// changes nothing.
    fn answer_roll(
        &mut self,
        turn: &mut Turn,
        ticket: Ticket,
        result: Result<MemberPage, Refused>,
    ) {
        let roll = &mut self.state.roll;
        if roll.ticket.take_if(|asked| *asked == ticket).is_none() {
            return;
        }
        let answered = result.is_ok();
        match result {
            Ok(answer) => {
                let others = turn.rolls.used - roll.roster.weight();
                let memory = turn.settings.presence.memory.saturating_sub(others);
                let mut told = Vec::new();
                self.change_roster(turn, |roster| roster.answer(answer, memory, &mut told));
                self.tell(turn, &told);
                self.line_up_roll(turn);
            }
            Err(why) => {
                roll.roster.failed();
                if why == Refused::Newer {
                    turn.rolls.paused.insert(self.key, turn.now + PAUSE);
                } else {
                    turn.rolls.retry.insert(self.key);
                }
            }
        }
        if self.state.roll.roster.is_known() || !answered {
            turn.rolls.ready.push(self.key);
        }
    }

    /// Somebody's connections in the room are more or fewer.
    pub fn hear_change(&mut self, turn: &mut Turn, change: Change) {
        if !turn.settings.presence.has_events(&self.name) {
            return;
        }
        let mut told = Vec::new();
        let may_wait = turn.rolls.ahead_used < AHEAD_MEMORY;
        self.change_roster(turn, |roster| roster.receive(change, may_wait, &mut told));
        if turn.rolls.used > turn.settings.presence.memory {
            self.change_roster(turn, MemberList::give_up);
        }
        self.tell(turn, &told);
        self.line_up_roll(turn);
    }

    /// Keeps count of the memory that lists take.
    fn change_roster(&mut self, turn: &mut Turn, change: impl FnOnce(&mut MemberList)) {
        let roster = &mut self.state.roll.roster;
        turn.rolls.forget(roster);
        change(roster);
        turn.rolls.used += roster.weight();
        turn.rolls.ahead_used += roster.ahead_weight();
    }

    /// Tells the members who has joined and left. More than an outbox takes at once is not told one
    /// by one.
    fn tell(&mut self, turn: &mut Turn, told: &[MemberChange]) {
        let Some(last) = told.last() else { return };
        let (name, quarter) = (self.name.clone(), turn.quarter());
        let anew = MemberChange::Anew {
            version: last.version(),
        };
        self.notice(turn, |protocol| {
            let mut frames = BytesMut::new();
            for one in told {
                frames.extend_from_slice(&encode(protocol, &name, one));
                if frames.len() > quarter {
                    return encode(protocol, &name, &anew);
                }
            }
            frames.freeze()
        });
    }
}

fn encode(protocol: Protocol, room: &RoomName, told: &MemberChange) -> Bytes {
    protocol.push(&match told {
        MemberChange::Joined {
            user,
            info,
            version,
        } => Push::Joined {
            room,
            user,
            info: info.as_ref(),
            version: *version,
        },
        MemberChange::Left { user, version } => Push::Left {
            room,
            user,
            version: *version,
        },
        MemberChange::Anew { version } => Push::Members {
            room,
            version: *version,
        },
    })
}

impl Dispatcher {
    pub(super) fn on_changed(&mut self, name: &RoomName, change: Change) {
        if let Some((room, turn)) = self.room_named(name) {
            room.hear_change(turn, change);
        }
    }

    pub(super) fn on_roll(&mut self, ticket: Ticket, result: Result<MemberPage, Refused>) {
        match self.turn.pending.remove(&ticket) {
            Some(Pending::MemberPage(key)) => {
                self.turn.rolls.under_way -= 1;
                if let Some((room, turn)) = self.room(key) {
                    room.answer_roll(turn, ticket, result);
                }
            }
            Some(Pending::Members(asked)) => self.reply_members(&asked, result),
            _ => {}
        }
    }

    /// Asks the broker for the lists of the rooms in line.
    pub(super) fn ask_rolls(&mut self) {
        while let Some(key) = self.turn.rolls.next_queued() {
            if let Some((room, turn)) = self.room(key) {
                room.ask_roll(turn);
            }
        }
    }

    /// Reads that failed are asked again, and questions that wait too long are answered as well as
    /// can be.
    pub(super) fn tend_rolls(&mut self, now: Now) {
        let rolls = &mut self.turn.rolls;
        let over = take_over(&mut rolls.paused, now.instant);
        for key in std::mem::take(&mut rolls.retry).into_iter().chain(over) {
            if let Some((room, turn)) = self.room(key) {
                room.line_up_roll(turn);
            }
        }
        for key in std::mem::take(&mut self.turn.rolls.waiting) {
            let Some((room, turn)) = self.room(key) else {
                continue;
            };
            match room.state.roll.waiting.first() {
                Some((deadline, _)) if *deadline <= now.instant => self.answer_waiting(key),
                Some(_) => {
                    turn.rolls.waiting.insert(key);
                }
                None => {}
            }
        }
    }
}
