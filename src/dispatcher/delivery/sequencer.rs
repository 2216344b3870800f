//! The node's own position in a room: what it has delivered, and the one read that closes a hole.
//! Plain logic: messages and pages go in, deliveries and losses come out, in order, whatever the
//! subscription missed.
//!
//! ```text
//!    hole, other epoch,
//!   following, a minute over      next_read             following
//!  settled ──────────────▶ due ───────────▶ in flight ───────────▶ in flight and due
//!     ▲                     ▲                 │ │                      │
//!     │                     └── failed, hole ─┘ │   page, failed       │
//!     │                     └───────────────────┼──────────────────────┘
//!     └────────── page reaches the top ─────────┘
//! ```
//! The next message is delivered in every state; a message that is not above the position is a
//! duplicate and dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::epochs::{Ends, PositionStatus};
use crate::model::id::{Epoch, Position};
use crate::model::publication::{Page, Publication, Range};

/// Maximum number of messages of a room that wait for the read which closes the hole before them.
/// Beyond it, and beyond the bound in bytes for all rooms, the newest are dropped: they are in the
/// log, and another read returns them.
const AHEAD: usize = 1024;

/// Maximum number of messages in the read of a comparison. A guess: what a busy room misses while
/// its topic is subscribed again, and a sixteenth of the price of a page.
const COMPARISON: usize = 16;

/// What the members of the room must receive.
#[derive(Debug)]
pub(crate) enum Step {
    Deliver(u64, Arc<Publication>),
    /// The epoch has ended, and the rest of it was delivered. Members at its end or above continue
    /// at this position in the present epoch. Messages above it were lost.
    Ended(Position),
    /// The log no longer has the next message: all members continue at this position.
    Lost(Position),
}

impl Step {
    /// Its size in bytes, as [`Publication::weight`] estimates it.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Step::Deliver(_, publication) => publication.weight(),
            Step::Ended(_) | Step::Lost(_) => 0,
        }
    }
}

/// The node's own position in one room.
#[derive(Debug, Default)]
pub(crate) struct Sequencer {
    /// The last delivered position; `None` until the first read has returned.
    position: Option<Position>,
    /// The epochs that ended before the position's.
    ends: Ends,
    read: Reading,
    /// Messages received but not next, in the order received.
    ahead: VecDeque<(Epoch, u64, Arc<Publication>)>,
    ahead_weight: usize,
    /// How many messages were missing after the last page.
    missing: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    Settled,
    Due,
    InFlight,
    /// A read is in flight, and something has happened since that its reply may not cover.
    InFlightAndDue,
}

impl Sequencer {
    /// For a room whose log is delivered from its beginning, rather than from the top at the first
    /// read.
    pub(crate) fn from_the_beginning() -> Self {
        let position = Position {
            epoch: Epoch::UNKNOWN,
            offset: 0,
        };
        Self {
            position: Some(position),
            ..Self::default()
        }
    }

    /// The last delivered position, once it is known.
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Compares a position that a client names with the delivered one. A position above that is
    /// unknown, even if the log has it.
    pub(crate) fn status(&self, at: Position) -> PositionStatus {
        let Some(position) = self.position else {
            return PositionStatus::Unknown;
        };
        match self.ends.status(at, position) {
            PositionStatus::Valid if at.offset > position.offset => PositionStatus::Unknown,
            PositionStatus::AboveEnd(end) if end > position.offset => PositionStatus::Unknown,
            status => status,
        }
    }

    /// The offset at which an earlier epoch ended, if that is kept.
    pub(crate) fn end_of(&self, epoch: Epoch) -> Option<u64> {
        self.ends.end_of(epoch)
    }

    /// Whether a read is wanted and none is in flight.
    pub(crate) fn is_due(&self) -> bool {
        self.read == Reading::Due
    }

    /// Whether no message is known to be missing.
    pub(crate) fn is_settled(&self) -> bool {
        self.read == Reading::Settled
    }

    /// Makes a comparison with the log due: the topic was (re)subscribed, or the last comparison is
    /// too old.
    pub(crate) fn make_due(&mut self) {
        self.read = match self.read {
            Reading::Settled | Reading::Due => Reading::Due,
            Reading::InFlight | Reading::InFlightAndDue => Reading::InFlightAndDue,
        };
    }

    /// Returns the range to read, which the caller must start.
    pub(crate) fn next_read(&mut self) -> Range {
        self.read = Reading::InFlight;
        self.position.map_or(Range::Top, Range::After)
    }

    /// How many messages the next read asks for, at most `page`: all that are known to be missing.
    /// A comparison rarely finds any, so it asks for few, and is as cheap.
    pub(crate) fn next_limit(&self, page: usize) -> usize {
        let Some(position) = self.position else {
            return 0;
        };
        let mut ahead = self.ahead.iter();
        let first = ahead.find(|(epoch, ..)| *epoch == position.epoch);
        let before = first.map_or(0, |(_, offset, _)| {
            offset.saturating_sub(position.offset + 1)
        });
        let missing = usize::try_from(self.missing.max(before)).unwrap_or(page);
        missing.max(COMPARISON).min(page)
    }

    /// The read failed; it stays due.
    pub(crate) fn failed(&mut self) {
        self.read = Reading::Due;
    }

    /// Bytes of the messages that wait for a read, as [`Publication::weight`] estimates them.
    pub(crate) fn ahead_weight(&self) -> usize {
        self.ahead_weight
    }

    /// A message was received from the topic. Returns the step to deliver now. A message that is
    /// not next is kept if it fits into `memory` bytes.
    pub(crate) fn receive(
        &mut self,
        epoch: Epoch,
        offset: u64,
        publication: Arc<Publication>,
        memory: usize,
    ) -> Option<Step> {
        if let Some(position) = self
            .position
            .as_mut()
            .filter(|position| position.epoch == epoch)
        {
            if offset <= position.offset {
                return None;
            }
            if offset == position.offset + 1 {
                position.offset = offset;
                return Some(Step::Deliver(offset, publication));
            }
        }
        // A read in flight may close the hole; that is decided when it returns.
        let weight = publication.weight();
        let fits = self.ahead.len() < AHEAD && weight <= memory;
        if !fits || self.read == Reading::Settled {
            self.make_due();
        }
        if fits {
            self.ahead_weight += weight;
            self.ahead.push_back((epoch, offset, publication));
        }
        None
    }

    /// Handles the reply to a read and adds the resulting steps in order.
    pub(crate) fn on_page(&mut self, page: Page, steps: &mut Vec<Step>) {
        self.read = match self.read {
            Reading::InFlightAndDue => Reading::Due,
            _ => Reading::Settled,
        };
        let Page {
            top,
            first,
            ends,
            messages,
            ..
        } = page;
        // Where the position's epoch ended, while the rest of it is delivered.
        let mut end = None;
        let mut position = match self.position {
            // The first read: no member has a position yet, so nothing is missed.
            None => top,
            Some(position) => {
                let mut delivered = ends.page_begins_behind(position, top);
                if position.epoch != top.epoch
                    && let Some(known) = self.ends.end_of(top.epoch)
                {
                    // An epoch that had ended is the present one again: two servers were masters at
                    // once, and the one that lost has won. Up to its end all of it was delivered.
                    delivered = delivered.max(known);
                }
                end = ends
                    .end_of(position.epoch)
                    .filter(|_| position.epoch != top.epoch);
                if first > delivered + 1 || (end.is_none() && position.epoch != top.epoch) {
                    end = None;
                    let start = Position {
                        epoch: top.epoch,
                        offset: delivered.max(first.saturating_sub(1)),
                    };
                    steps.push(Step::Lost(start));
                    start
                } else {
                    position
                }
            }
        };
        let end_epoch = |position: &mut Position, end: &mut Option<u64>, steps: &mut Vec<Step>| {
            if let Some(offset) = end.take_if(|end| position.offset >= *end) {
                *position = Position {
                    epoch: top.epoch,
                    offset,
                };
                steps.push(Step::Ended(*position));
            }
        };
        end_epoch(&mut position, &mut end, steps);
        for (offset, publication) in messages {
            if offset == position.offset + 1 {
                position.offset = offset;
                steps.push(Step::Deliver(offset, publication));
                end_epoch(&mut position, &mut end, steps);
            }
        }
        if position.epoch == top.epoch {
            self.ends = ends;
        }
        self.position = Some(position);
        let complete = position.epoch == top.epoch && position.offset >= top.offset;
        self.missing = top.offset.saturating_sub(position.offset);
        if !complete {
            self.make_due();
        }
        self.catch_up(complete, steps);
    }

    /// Delivers the waiting messages up to the first hole. `complete`: the page reached the top.
    fn catch_up(&mut self, complete: bool, steps: &mut Vec<Step>) {
        let Some(position) = self.position.as_mut() else {
            return;
        };
        let mut missing = false;
        while let Some((epoch, offset, _)) = self.ahead.front() {
            let same_epoch = *epoch == position.epoch;
            if same_epoch && *offset > position.offset + 1 {
                missing = true;
                break;
            }
            missing |= !same_epoch;
            let next = same_epoch && *offset == position.offset + 1;
            if let Some((_, offset, publication)) = self.ahead.pop_front() {
                self.ahead_weight -= publication.weight();
                if next {
                    position.offset = offset;
                    steps.push(Step::Deliver(offset, publication));
                }
            }
        }
        if missing && complete {
            // If these messages are in the log, the next read returns them. Keeping them could
            // repeat the read for ever, if the log has lost its tail and no longer has them.
            self.ahead.clear();
            self.ahead_weight = 0;
        }
        if missing {
            self.make_due();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::history::Log;
    use crate::model::retention::LogLimits;
    use std::time::{Duration, Instant};

    const LIMITS: LogLimits = LogLimits {
        size: 20,
        age: Duration::from_secs(3600),
    };

    /// A member of the room, which checks each step it receives.
    #[derive(Default)]
    struct Member {
        at: Option<Position>,
        got: Vec<u64>,
        ended: usize,
        lost: usize,
    }

    impl Member {
        fn take(&mut self, sequencer: &Sequencer, steps: Vec<Step>) {
            for step in steps {
                match step {
                    Step::Deliver(offset, publication) => {
                        if let Some(at) = &mut self.at {
                            assert_eq!(offset, at.offset + 1, "a hole or a duplicate");
                            at.offset = offset;
                        }
                        self.got.push(publication.time);
                    }
                    Step::Ended(position) => {
                        let is_new = self.at.is_none_or(|at| at.epoch != position.epoch);
                        assert!(is_new, "the end of an epoch is reported once");
                        self.at = Some(position);
                        self.ended += 1;
                    }
                    Step::Lost(position) => {
                        self.at = Some(position);
                        self.lost += 1;
                    }
                }
            }
            self.at = self.at.or(sequencer.position());
        }
    }

    /// What happens to the log.
    #[derive(Clone, Copy, PartialEq)]
    enum Fate {
        /// The epoch ends and nothing is lost.
        Restarted,
        /// The epoch ends and the newest messages are lost.
        Restored,
        /// The newest messages are lost, and only a delivered position proves it.
        Torn,
        Emptied,
    }

    /// Messages are published while the subscription drops some, replies are late, and the log is
    /// trimmed, ended, restored or emptied. The member must receive no hole and no duplicate, lose
    /// only with a gap, receive each end at most once, and end at the top.
    #[test]
    fn sequencer_delivers_each_message_once_in_order_or_reports_a_loss() {
        let now = Instant::now();
        for seed in 0..4000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut log = Log::new(Epoch::new(1), now);
            let mut snapshot = log.clone();
            let (mut sequencer, mut member) = (Sequencer::default(), Member::default());
            let mut answers: VecDeque<Page> = VecDeque::new();
            let (mut in_flight, mut number, mut epochs) = (VecDeque::new(), 0, 1);
            let (cuts, ends) = (random.bool(), random.bool());
            let (mut fates, mut is_torn) = (Vec::new(), false);
            // Enough for everything, or for nothing.
            let memory = if random.bool() { 1 << 20 } else { 0 };
            sequencer.make_due();
            for round in 0..200 {
                let calm = round > 150;
                match random.u8(..8) {
                    // Redis changes its replication id whenever it may have lost something, so a
                    // publish to a log that has lost its end without a sign of it cannot occur.
                    0..3 if !calm && !is_torn => {
                        number += 1;
                        let at = log.append(Publication::numbered(number), None, LIMITS, now);
                        if !cuts || random.u8(..4) > 0 {
                            in_flight.push_back((at, Publication::numbered(number)));
                        }
                        if random.u8(..6) == 0 {
                            snapshot = log.clone();
                        }
                    }
                    3 if !calm && ends && !is_torn && random.u8(..10) == 0 => {
                        let delivered = sequencer.position();
                        let is_evident = |log: &Log| {
                            let above = |at: Position| at.offset > log.top().offset;
                            delivered.is_some_and(|at| at.epoch == log.epoch() && above(at))
                        };
                        let fate = match random.u8(..4) {
                            0 => Fate::Restarted,
                            1 => Fate::Restored,
                            2 if is_evident(&snapshot) => Fate::Torn,
                            _ => Fate::Emptied,
                        };
                        if matches!(fate, Fate::Restored | Fate::Torn) {
                            log = snapshot.clone();
                        }
                        epochs += 1;
                        match fate {
                            Fate::Restarted | Fate::Restored => log.end_epoch(Epoch::new(epochs)),
                            Fate::Torn => is_torn = true,
                            Fate::Emptied => log = Log::new(Epoch::new(epochs), now),
                        }
                        if fate == Fate::Emptied {
                            snapshot = log.clone();
                        }
                        // The connection was lost with it: messages in flight do not arrive.
                        in_flight.clear();
                        fates.push(fate);
                        sequencer.make_due();
                    }
                    4..6 => {
                        if let Some((at, publication)) = in_flight.pop_front() {
                            let step = sequencer.receive(at.epoch, at.offset, publication, memory);
                            member.take(&sequencer, step.into_iter().collect());
                        }
                    }
                    6 => {
                        if sequencer.is_due() {
                            epochs += 1;
                            answers.push_back(log.read(
                                sequencer.next_read(),
                                5,
                                Epoch::new(epochs),
                                now,
                            ));
                            is_torn = false;
                        }
                    }
                    _ => {
                        if let Some(page) = answers.pop_front() {
                            let mut steps = Vec::new();
                            if random.u8(..5) == 0 {
                                sequencer.failed();
                            } else {
                                sequencer.on_page(page, &mut steps);
                            }
                            member.take(&sequencer, steps);
                        }
                    }
                }
            }
            while let Some((at, publication)) = in_flight.pop_front() {
                let step = sequencer.receive(at.epoch, at.offset, publication, memory);
                member.take(&sequencer, step.into_iter().collect());
            }
            sequencer.make_due();
            for _ in 0..100 {
                if !answers.is_empty() || sequencer.is_due() {
                    epochs += 1;
                    let page = answers.pop_front().unwrap_or_else(|| {
                        log.read(sequencer.next_read(), 5, Epoch::new(epochs), now)
                    });
                    let mut steps = Vec::new();
                    sequencer.on_page(page, &mut steps);
                    member.take(&sequencer, steps);
                }
            }
            let top = log.page(Range::Top, 0, now).top;
            assert!(sequencer.is_settled(), "seed {seed}");
            assert_eq!(sequencer.position(), Some(top), "seed {seed}");
            assert_eq!(member.at, Some(top), "seed {seed}");
            assert!(
                member.got.windows(2).all(|pair| pair[0] < pair[1]),
                "seed {seed}: a message was delivered twice: {:?}",
                member.got
            );
            assert!(member.ended <= fates.len(), "seed {seed}");
            // A message that is not kept may be trimmed from the log before it is read.
            let emptied = fates.iter().filter(|fate| **fate == Fate::Emptied).count();
            if !cuts && memory > 0 && fates.is_empty() {
                assert_eq!(
                    member.lost + member.ended,
                    0,
                    "seed {seed}: no loss is reported"
                );
            }
            if !cuts && memory > 0 && emptied == fates.len() {
                assert_eq!(
                    member.ended, 0,
                    "seed {seed}: nothing of the epoch was left"
                );
            }
        }
    }

    #[test]
    fn sequencer_reports_one_end_of_an_epoch_and_delivers_nothing_twice() {
        let now = Instant::now();
        let publish = |log: &mut Log| {
            let next = log.top().offset + 1;
            log.append(Publication::numbered(next), None, LIMITS, now)
        };
        let mut log = Log::new(Epoch::new(1), now);
        for _ in 0..3 {
            publish(&mut log);
        }
        let behind = log.clone();
        let mut sequencer = Sequencer::default();
        sequencer.make_due();
        let range = sequencer.next_read();
        sequencer.on_page(log.page(range, 10, now), &mut Vec::new());
        for _ in 0..2 {
            publish(&mut log);
        }
        log.end_epoch(Epoch::new(2));
        publish(&mut log);
        log.end_epoch(Epoch::new(3));
        publish(&mut log);
        let delivered = |sequencer: &mut Sequencer, log: &Log| {
            sequencer.make_due();
            let mut steps = Vec::new();
            while sequencer.is_due() {
                let range = sequencer.next_read();
                sequencer.on_page(log.clone().page(range, 2, now), &mut steps);
            }
            let text = |step: &Step| match step {
                Step::Deliver(offset, _) => format!("{offset}"),
                Step::Ended(at) => format!("ended at {}:{}", at.epoch, at.offset),
                Step::Lost(at) => format!("lost at {}:{}", at.epoch, at.offset),
            };
            steps.iter().map(text).collect::<Vec<_>>()
        };
        // Behind the end, through two ends: one gap.
        let ended = "ended at 0000000000000003:5";
        assert_eq!(delivered(&mut sequencer, &log), ["4", "5", ended, "6", "7"]);
        assert_eq!(delivered(&mut sequencer, &log), [""; 0]);
        // The data is older than what was delivered.
        let mut log = behind;
        log.end_epoch(Epoch::new(4));
        publish(&mut log);
        assert_eq!(
            delivered(&mut sequencer, &log),
            ["lost at 0000000000000004:3", "4"]
        );
        log.end_epoch(Epoch::new(5));
        assert_eq!(
            delivered(&mut sequencer, &log),
            ["ended at 0000000000000005:4"]
        );
    }

    #[test]
    fn sequencer_does_not_deliver_an_ended_epoch_again() {
        let now = Instant::now();
        let mut log = Log::new(Epoch::new(1), now);
        log.append(Publication::numbered(1), None, LIMITS, now);
        let mut loser = log.clone();
        let mut sequencer = Sequencer::default();
        let mut steps = Vec::new();
        sequencer.make_due();
        let range = sequencer.next_read();
        sequencer.on_page(log.page(range, 10, now), &mut steps);
        log.end_epoch(Epoch::new(2));
        log.append(Publication::numbered(2), None, LIMITS, now);
        sequencer.make_due();
        let range = sequencer.next_read();
        sequencer.on_page(log.page(range, 10, now), &mut steps);
        loser.append(Publication::numbered(3), None, LIMITS, now);
        sequencer.make_due();
        let range = sequencer.next_read();
        steps.clear();
        sequencer.on_page(loser.page(range, 10, now), &mut steps);
        let back = Position {
            epoch: Epoch::new(1),
            offset: 1,
        };
        assert!(
            matches!(steps[..], [Step::Lost(at), Step::Deliver(2, _)] if at == back),
            "{steps:?}"
        );
    }

    #[test]
    fn sequencer_delivers_a_message_ahead_of_the_first_read_after_it() {
        let now = Instant::now();
        let mut log = Log::new(Epoch::new(1), now);
        log.append(Publication::numbered(1), None, LIMITS, now);
        let mut sequencer = Sequencer::default();
        sequencer.make_due();
        let range = sequencer.next_read();
        let page = log.page(range, 10, now);
        let at = log.append(Publication::numbered(2), None, LIMITS, now);
        assert!(
            sequencer
                .receive(at.epoch, at.offset, Publication::numbered(2), 1 << 20)
                .is_none()
        );
        let mut steps = Vec::new();
        sequencer.on_page(page, &mut steps);
        assert!(matches!(steps[..], [Step::Deliver(2, _)]), "{steps:?}");
        assert!(sequencer.is_settled());
    }

    #[test]
    fn sequencer_stops_reading_after_a_log_lost_its_tail() {
        let now = Instant::now();
        let mut log = Log::new(Epoch::new(1), now);
        log.append(Publication::numbered(1), None, LIMITS, now);
        let mut sequencer = Sequencer::default();
        sequencer.make_due();
        let range = sequencer.next_read();
        sequencer.on_page(log.page(range, 10, now), &mut Vec::new());
        assert!(
            sequencer
                .receive(Epoch::new(1), 9, Publication::numbered(9), 1 << 20)
                .is_none()
        );
        for _ in 0..2 {
            assert!(sequencer.is_due());
            let range = sequencer.next_read();
            sequencer.on_page(log.page(range, 10, now), &mut Vec::new());
        }
        assert!(sequencer.is_settled());
    }
}
