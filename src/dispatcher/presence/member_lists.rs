//! The member lists of rooms, over all nodes: reads them, a bounded number at a time and within one
//! memory bound, keeps them current, and sends changes to the members of a room.

use bytes::{Bytes, BytesMut};

use crate::broker::{
    Change, MemberPage, MembersQuery, MembersRequest, PresenceRequest, Refused, Request,
};
use crate::dispatcher::delivery::room::Room;
use crate::dispatcher::pending::PendingMembers;
use crate::dispatcher::turn::Turn;
use crate::dispatcher::{Dispatcher, Now};
use crate::model::id::{RoomName, Ticket};
use crate::model::source::Source;
use crate::presence::{ListQuery, MemberChange, MemberList};
use crate::protocol::Push;
use crate::protocol::encoder::Encoder;

/// Maximum bytes of changes, of all rooms together, that wait for the lists they change.
const AHEAD_MEMORY: usize = 16 << 20;

impl Room {
    /// The room's topic was (re)subscribed: changes may have been missed.
    pub(crate) fn make_list_due(&mut self, turn: &mut Turn) {
        if turn.settings.presence.has_events(&self.name) {
            self.state.presence.list.make_due();
            self.queue_list_read(turn, Source::Node);
        }
    }

    /// Whether a members query can be answered from the list, now or after the read in flight.
    pub(crate) fn keeps_list(&self, turn: &Turn) -> bool {
        let list = &self.state.presence.list;
        turn.settings.presence.has_events(&self.name) && (list.has_list() || !list.is_known())
    }

    /// Queues the room for a list read, if one is due, for this source.
    pub(crate) fn queue_list_read(&mut self, turn: &mut Turn, source: Source) {
        if self.state.presence.list.is_due() {
            turn.list_reads.queue(self.key, source);
        }
    }

    fn read_list(&mut self, turn: &mut Turn, source: Source) {
        let presence = &mut self.state.presence;
        if !presence.list.is_due() {
            return;
        }
        let ListQuery { after, limit } = presence.list.next_read();
        let ticket = (turn.pending).read_members(PendingMembers::List(self.key, source));
        turn.list_reads.start();
        self.state.presence.ticket = Some(ticket);
        let room = self.name.clone();
        let query = MembersQuery { room, after, limit };
        turn.requests
            .push(Request::Presence(PresenceRequest::Members(
                MembersRequest {
                    ticket,
                    source,
                    query,
                },
            )));
    }

    /// Handles the reply to the room's own list read. A reply to an earlier read, or of a former
    /// room with the same key, is ignored.
    fn on_list_page(
        &mut self,
        turn: &mut Turn,
        ticket: Ticket,
        source: Source,
        result: Result<MemberPage, Refused>,
    ) {
        let presence = &mut self.state.presence;
        if presence
            .ticket
            .take_if(|expected| *expected == ticket)
            .is_none()
        {
            return;
        }
        let has_page = result.is_ok();
        match result {
            Ok(page) => {
                let others = turn.member_lists.used - presence.list.weight();
                let memory = turn.settings.presence.memory.saturating_sub(others);
                let mut changes = Vec::new();
                self.change_list(turn, |list| list.on_page(page, memory, &mut changes));
                self.push_changes(turn, &changes);
                self.queue_list_read(turn, source);
            }
            Err(why) => {
                presence.list.failed();
                turn.list_reads.retry(self.key, source, why, turn.now);
            }
        }
        if self.state.presence.list.is_known() || !has_page {
            turn.member_lists.ready.push(self.key);
        }
    }

    /// The number of a user's connections in the room has changed.
    pub(crate) fn receive_change(&mut self, turn: &mut Turn, change: Change) {
        if !turn.settings.presence.has_events(&self.name) {
            return;
        }
        let mut changes = Vec::new();
        let may_wait = turn.member_lists.ahead_used < AHEAD_MEMORY;
        self.change_list(turn, |list| list.receive(change, may_wait, &mut changes));
        if turn.member_lists.used > turn.settings.presence.memory {
            self.change_list(turn, MemberList::give_up);
        }
        self.push_changes(turn, &changes);
        self.queue_list_read(turn, Source::Node);
    }

    /// Changes the list and keeps the memory counters current.
    fn change_list(&mut self, turn: &mut Turn, change: impl FnOnce(&mut MemberList)) {
        let list = &mut self.state.presence.list;
        turn.member_lists.forget(list);
        change(list);
        turn.member_lists.used += list.weight();
        turn.member_lists.ahead_used += list.ahead_weight();
    }

    /// Sends joins and leaves to the members. If they exceed a quarter of an outbox, the members
    /// receive one push that asks them to query the list again.
    fn push_changes(&mut self, turn: &mut Turn, changes: &[MemberChange]) {
        let Some(last) = changes.last() else { return };
        let (name, quarter) = (self.name.clone(), turn.quarter());
        let anew = MemberChange::Anew {
            version: last.version(),
        };
        self.encode_event(turn, |encoder| {
            let mut frames = BytesMut::new();
            for one in changes {
                frames.extend_from_slice(&encode(encoder, &name, one));
                if frames.len() > quarter {
                    return encode(encoder, &name, &anew);
                }
            }
            frames.freeze()
        });
    }
}

fn encode(encoder: &dyn Encoder, room: &RoomName, change: &MemberChange) -> Bytes {
    encoder.push(&match change {
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
    pub(in crate::dispatcher) fn on_changed(&mut self, name: &RoomName, change: Change) {
        if let Some((room, turn)) = self.room_named(name) {
            room.receive_change(turn, change);
        }
    }

    pub(in crate::dispatcher) fn on_member_page(
        &mut self,
        ticket: Ticket,
        result: Result<MemberPage, Refused>,
    ) {
        match self.turn.pending.member_reads.remove(&ticket) {
            Some(PendingMembers::List(key, source)) => {
                self.turn.list_reads.finish();
                if let Some((room, turn)) = self.room(key) {
                    room.on_list_page(turn, ticket, source, result);
                }
            }
            Some(PendingMembers::Query { reply_to, query }) => {
                self.reply_members(&reply_to, &query.room, result);
            }
            None => {}
        }
    }

    /// Starts the list reads of queued rooms.
    pub(in crate::dispatcher) fn read_lists(&mut self) {
        while let Some((key, source)) = self.turn.list_reads.next() {
            if let Some((room, turn)) = self.room(key) {
                room.read_list(turn, source);
            }
        }
    }

    /// Queues failed reads again, and answers queries whose deadline has passed from what is known.
    pub(in crate::dispatcher) fn check_lists(&mut self, now: Now) {
        for (key, source) in self.turn.list_reads.take_retries(now.instant) {
            if let Some((room, turn)) = self.room(key) {
                room.queue_list_read(turn, source);
            }
        }
        for key in std::mem::take(&mut self.turn.member_lists.waiting) {
            let Some((room, turn)) = self.room(key) else {
                continue;
            };
            match room.state.presence.waiting.first() {
                Some((deadline, _)) if *deadline <= now.instant => self.answer_waiting(key),
                Some(_) => {
                    turn.member_lists.waiting.insert(key);
                }
                None => {}
            }
        }
    }
}
