//! The node's position in a log that it follows, of a room or of control commands, and the read
//! that brings it up to date.

use crate::broker::{Page, Refused};
use crate::dispatcher::delivery::sequencer::Sequencer;
use crate::dispatcher::pending::PendingRead;
use crate::dispatcher::read_scheduler::LogKey;
use crate::dispatcher::turn::Turn;
use crate::model::id::{RoomName, Ticket};
use crate::model::source::Source;

/// Maximum number of messages in one read.
pub(crate) const PAGE: usize = 256;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct LogFollower {
    pub sequencer: Sequencer,
    /// The read in flight.
    ticket: Option<Ticket>,
}

impl LogFollower {
    pub(crate) fn new(sequencer: Sequencer) -> Self {
        Self {
            sequencer,
            ticket: None,
        }
    }

    /// Makes a comparison with the log due, for this source.
    pub(crate) fn make_due(&mut self, turn: &mut Turn, key: LogKey, source: Source) {
        self.sequencer.make_due();
        self.queue_if_due(turn, key, source);
    }

    pub(crate) fn queue_if_due(&self, turn: &mut Turn, key: LogKey, source: Source) {
        if self.sequencer.is_due() {
            turn.queue_read(key, source);
        }
    }

    /// Starts the read, if one is due.
    pub(crate) fn read_if_due(
        &mut self,
        turn: &mut Turn,
        key: LogKey,
        source: Source,
        log: &RoomName,
    ) {
        if self.sequencer.is_due() {
            let limit = self.sequencer.next_limit(PAGE);
            let range = self.sequencer.next_read();
            let pending = PendingRead::Sequencer(key, source);
            self.ticket = Some(turn.read_log(pending, source, log, range, limit));
        }
    }

    /// Takes the reply to the read. `None` for a reply to an earlier read, or of a former room with
    /// the same key. A read that failed is repeated.
    pub(crate) fn take_reply(
        &mut self,
        turn: &mut Turn,
        key: LogKey,
        source: Source,
        ticket: Ticket,
        result: Result<Page, Refused>,
    ) -> Option<Result<Page, Refused>> {
        self.ticket.take_if(|expected| *expected == ticket)?;
        if let Err(why) = result {
            self.sequencer.failed();
            turn.log_reads.retry(key, source, why, turn.now);
        }
        Some(result)
    }
}
