//! Delivery: messages of topics enter their rooms, batches are flushed, and the node reads logs for
//! its own positions and for members that are behind, a bounded number at a time. Recent messages,
//! which save reads, are kept within one memory bound.

mod batch;
pub(super) mod follower;
pub(super) mod room;
pub(super) mod sequencer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pending::PendingRead;
use super::read_scheduler::LogKey;
use super::turn::Turn;
use super::{Dispatcher, Now, TICK};
use crate::broker::{Page, Publication, Refused};
use crate::dispatcher::delivery::room::Room;
use crate::dispatcher::membership::cursor::LogCheck;
use crate::dispatcher::rooms::RoomKey;
use crate::model::id::{Position, RoomName, SessionId, Ticket};
use crate::model::source::Source;

/// Every room is compared with its log once in this time, even if it has no messages.
pub(super) const COMPARE_EVERY: Duration = Duration::from_secs(60);

impl Dispatcher {
    pub(super) fn on_following(&mut self, name: &RoomName) {
        if let Some((room, turn)) = self.room_named(name) {
            let source = room.waiting_source();
            room.make_due(turn, source);
            room.make_list_due(turn);
        }
    }

    pub(super) fn on_message(
        &mut self,
        name: &RoomName,
        at: Position,
        publication: Arc<Publication>,
        received_at: Instant,
    ) {
        if let Some((room, turn)) = self.room_named(name) {
            room.receive(turn, at, publication, received_at);
        }
    }

    pub(super) fn on_ephemeral(
        &mut self,
        name: &RoomName,
        publication: &Publication,
        received_at: Instant,
    ) {
        if let Some((room, turn)) = self.room_named(name) {
            turn.received_at.push(received_at);
            room.encode(turn, None, publication);
        }
    }

    /// A member's outbox has been written: it receives its next page in each room where it is
    /// behind.
    pub(super) fn on_drained(&mut self, session: SessionId) {
        for key in self.rooms.rooms_of(session) {
            if let Some((room, turn)) = self.room(key) {
                room.settle(turn, session, LogCheck::Pending);
            }
        }
    }

    pub(super) fn flush_all(&mut self) {
        for key in std::mem::take(&mut self.turn.unflushed) {
            if let Some((room, turn)) = self.room(key) {
                room.flush(turn);
            }
        }
    }

    /// A room, and the turn that collects its effects. Queues may hold the keys of removed rooms,
    /// so there may be none.
    pub(super) fn room(&mut self, key: RoomKey) -> Option<(&mut Room, &mut Turn)> {
        let room = self.rooms.get_mut(key)?;
        Some((room, &mut self.turn))
    }

    pub(super) fn room_named(&mut self, name: &RoomName) -> Option<(&mut Room, &mut Turn)> {
        self.rooms.find(name).and_then(|key| self.room(key))
    }

    /// Starts the reads of queued rooms.
    pub(super) fn start_reads(&mut self) {
        while let Some((key, source)) = self.turn.log_reads.next() {
            match key {
                LogKey::Control(log) => self.control.read_if_due(&mut self.turn, log),
                LogKey::Room(key) => {
                    if let Some((room, turn)) = self.room(key) {
                        room.start_reads(turn, source);
                    }
                }
            }
        }
    }

    pub(super) fn retry_reads(&mut self) {
        for (key, source) in self.turn.log_reads.take_retries(self.turn.now) {
            self.turn.queue_read(key, source);
        }
    }

    pub(super) fn on_page(&mut self, now: Now, ticket: Ticket, result: Result<Page, Refused>) {
        let Some(pending) = self.turn.pending.reads.remove(&ticket) else {
            return;
        };
        if !matches!(pending, PendingRead::History { .. }) {
            self.turn.log_reads.finish();
        }
        match pending {
            PendingRead::History { reply_to, room } => {
                self.release(&reply_to);
                self.reply_history(&reply_to, &room, result);
            }
            PendingRead::Sequencer(LogKey::Control(log), _) => {
                self.on_control_page(now, log, ticket, result);
            }
            PendingRead::Sequencer(LogKey::Room(key), source) => {
                if let Some((room, turn)) = self.room(key) {
                    room.on_page(turn, ticket, source, result);
                }
            }
            PendingRead::Seek(key, source) => {
                if let Some((room, turn)) = self.room(key) {
                    room.on_seek_page(turn, ticket, source, result);
                }
            }
        }
    }

    /// Makes rooms due for a comparison with their logs, evenly over time. However many rooms there
    /// are, each has its turn within [`COMPARE_EVERY`]; the scheduler bounds the reads in flight.
    pub(super) fn compare_rooms(&mut self) {
        let share = TICK.as_secs_f64() / COMPARE_EVERY.as_secs_f64();
        self.compare_owed += self.rooms.len() as f64 * share;
        while self.compare_owed >= 1.0 {
            self.compare_owed -= 1.0;
            let Some((key, next)) = self.rooms.next_key(self.next_compare) else {
                return;
            };
            self.next_compare = next;
            if let Some((room, turn)) = self.room(key) {
                room.expire_recent(turn);
                if room.state.follower.sequencer.position().is_some()
                    && room.state.follower.sequencer.is_settled()
                {
                    room.make_due(turn, Source::Node);
                }
            }
        }
    }

    /// Keeps the recent messages of all rooms within their memory: rooms drop their older half in
    /// turn.
    pub(super) fn shrink_recent(&mut self) {
        while self.turn.recent_used > self.turn.settings.recent_memory {
            let Some((key, next)) = self.rooms.next_key(self.next_recent) else {
                return;
            };
            self.next_recent = next;
            if let Some((room, turn)) = self.room(key) {
                room.change_recent(turn, |recent| recent.shrink());
            }
        }
    }
}
