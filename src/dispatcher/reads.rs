//! The node's reads of logs, for its own positions and for members that are behind, a bounded
//! number at a time. Recent messages, which save reads, are kept within one memory bound.

use std::time::Duration;

use super::pending::PendingRead;
use super::read_scheduler::LogKey;
use super::turn::READS;
use super::{Dispatcher, Now, TICK};
use crate::broker::{Page, Refused};
use crate::model::id::Ticket;

/// Every room is compared with its log once in this time, even if it has no messages.
const COMPARE_EVERY: Duration = Duration::from_secs(60);

impl Dispatcher {
    /// Starts the reads of queued rooms.
    pub(super) fn start_reads(&mut self) {
        while let Some(key) = self.turn.log_reads.next() {
            match key {
                LogKey::Control(log) => self.control.read_if_due(&mut self.turn, log),
                LogKey::Room(key) => {
                    if let Some((room, turn)) = self.room(key) {
                        room.start_reads(turn);
                    }
                }
            }
        }
    }

    pub(super) fn retry_reads(&mut self) {
        for key in self.turn.log_reads.take_retries(self.turn.now) {
            self.turn.queue_read(key);
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
            PendingRead::Sequencer(LogKey::Control(log)) => {
                self.on_control_page(now, log, ticket, result);
            }
            PendingRead::Sequencer(LogKey::Room(key)) => {
                if let Some((room, turn)) = self.room(key) {
                    room.on_page(turn, ticket, result);
                }
            }
            PendingRead::Seek(key) => {
                if let Some((room, turn)) = self.room(key) {
                    room.on_seek_page(turn, ticket, result);
                }
            }
        }
    }

    /// Makes rooms due for a comparison with their logs, evenly over time.
    pub(super) fn compare_rooms(&mut self) {
        let share = TICK.as_secs_f64() / COMPARE_EVERY.as_secs_f64();
        self.compare_owed = (self.compare_owed + self.rooms.len() as f64 * share).min(READS as f64);
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
                    room.make_due(turn);
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
