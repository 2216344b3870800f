//! The ended epochs of a room's log. A log is one sequence of offsets. When its end
//! may have been lost, its epoch ends; the entries stay, and the next epoch continues with the next
//! offset:
//!
//! ```text
//! offset     1  2  3  4  5  6  7  8  9 10
//! epoch      a  a  a  a  a  b  b  b  c  c          ends: a at 5, b at 8; c is the present one
//! ```
//!
//! A position up to the end of its epoch is *valid*: nothing up to it was lost, and what comes
//! after it follows in the log. A position above the end of its epoch names a message that was
//! lost.

use crate::model::id::{Epoch, Position};

/// How many ended epochs a room remembers. A position in an older one counts as unknown.
pub const MAX_ENDS: usize = 8;

/// The ended epochs of a log, each with the offset at which it ended, oldest first. One that is
/// [`Epoch::UNKNOWN`] stands for entries whose epoch was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends(Vec<(Epoch, u64)>);

/// What a position means to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositionStatus {
    /// Nothing up to it was lost.
    Valid,
    /// Its epoch ended at this offset, which is below it.
    AboveEnd(u64),
    /// It is above the newest offset of the present epoch, or its epoch is not remembered.
    Unknown,
}

impl Ends {
    /// Adds an epoch that ended at an offset; drops the oldest if there are too many.
    pub fn push(&mut self, epoch: Epoch, offset: u64) {
        if self.0.len() == MAX_ENDS {
            self.0.remove(0);
        }
        self.0.push((epoch, offset));
    }

    /// The offset at which an epoch ended, if it is remembered.
    pub fn end_of(&self, epoch: Epoch) -> Option<u64> {
        let known = self.0.iter().rev().find(|(ended, _)| *ended == epoch);
        known
            .filter(|_| epoch != Epoch::UNKNOWN)
            .map(|(_, end)| *end)
    }

    /// The offset after which the present epoch began.
    pub fn start(&self) -> u64 {
        self.0.last().map_or(0, |(_, end)| *end)
    }

    /// What a position means to a log whose newest position is `top`.
    pub fn status(&self, at: Position, top: Position) -> PositionStatus {
        if at.epoch == top.epoch && at.epoch != Epoch::UNKNOWN {
            return if at.offset <= top.offset {
                PositionStatus::Valid
            } else {
                PositionStatus::Unknown
            };
        }
        match self.end_of(at.epoch) {
            Some(end) if at.offset <= end => PositionStatus::Valid,
            Some(end) => PositionStatus::AboveEnd(end),
            None => PositionStatus::Unknown,
        }
    }

    /// The offset after which a page from a delivered position begins. If the epoch is not
    /// remembered, the page begins with the present epoch, of which a node at another epoch has
    /// delivered nothing.
    pub fn page_begins_behind(&self, delivered: Position, top: Position) -> u64 {
        if delivered.epoch == top.epoch {
            return delivered.offset;
        }
        if delivered.epoch == Epoch::UNKNOWN {
            return 0;
        }
        let end = self.end_of(delivered.epoch);
        end.map_or(self.start(), |end| delivered.offset.min(end))
    }
}

impl FromIterator<(Epoch, u64)> for Ends {
    fn from_iter<T: IntoIterator<Item = (Epoch, u64)>>(all: T) -> Self {
        Self(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, offset: u64) -> Position {
        Position {
            epoch: Epoch::new(epoch),
            offset,
        }
    }

    /// Epoch 1 ended at 5, epoch 2 at 8, epoch 3 is at 10.
    fn ends() -> (Ends, Position) {
        let ends = [(Epoch::new(1), 5), (Epoch::new(2), 8)];
        (ends.into_iter().collect(), at(3, 10))
    }

    #[test]
    fn positions_are_valid_up_to_the_end_of_their_epoch() {
        let (ends, top) = ends();
        for (position, expected) in [
            (at(1, 0), PositionStatus::Valid),
            (at(1, 5), PositionStatus::Valid),
            (at(1, 6), PositionStatus::AboveEnd(5)),
            (at(2, 3), PositionStatus::Valid),
            (at(2, 8), PositionStatus::Valid),
            (at(2, u64::MAX), PositionStatus::AboveEnd(8)),
            (at(3, 2), PositionStatus::Valid),
            (at(3, 10), PositionStatus::Valid),
            (at(3, 11), PositionStatus::Unknown),
            (at(4, 1), PositionStatus::Unknown),
        ] {
            assert_eq!(ends.status(position, top), expected, "{position:?}");
        }
        let unknown = Position {
            epoch: Epoch::UNKNOWN,
            offset: 0,
        };
        assert_eq!(ends.status(unknown, top), PositionStatus::Unknown);
    }

    #[test]
    fn pages_begin_behind_the_position_or_the_end_or_with_the_present_epoch() {
        let (ends, top) = ends();
        for (position, expected) in [
            (at(1, 3), 3),
            (at(1, 7), 5),
            (at(2, 8), 8),
            (at(3, 9), 9),
            (at(4, 1), 8),
        ] {
            let begins = ends.page_begins_behind(position, top);
            assert_eq!(begins, expected, "{position:?}");
        }
    }

    #[test]
    fn ends_of_unknown_epochs_are_never_found_and_the_oldest_is_forgotten() {
        let mut ends = Ends::default();
        assert_eq!(ends.start(), 0);
        ends.push(Epoch::UNKNOWN, 4);
        assert_eq!((ends.end_of(Epoch::UNKNOWN), ends.start()), (None, 4));
        for n in 1..=MAX_ENDS as u64 {
            ends.push(Epoch::new(n), 4 + n);
        }
        assert_eq!(ends.end_of(Epoch::new(1)), Some(5));
        ends.push(Epoch::new(99), 20);
        assert_eq!(ends.end_of(Epoch::new(1)), None);
        assert_eq!(ends.end_of(Epoch::new(2)), Some(6));
    }
}
