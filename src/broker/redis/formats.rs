//! The format in which this node writes: the newest one that every live node reads. And the rooms
//! in which it met a format that it does not read itself. Plain logic; `lease.lua` finds the lowest
//! format of all leases.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::broker::redis::wire::Format;
use crate::model::id::RoomName;

/// Decides the format to write.
///
/// A lease that is over does not prove that its node is gone: after an outage of Redis all leases
/// are over, and the first node to return would find only its own. So a format above the first
/// needs the same condition as reaping ([`may_reap`]): this node has renewed its lease without a
/// pause for the length of a lease. An answer is valid only for the longest pause, because a node
/// that was stopped meanwhile may have missed the start of an older one.
///
/// [`may_reap`]: super::presence::lease::Lease::may_reap
#[derive(Debug)]
pub(super) struct WriteFormat {
    newest: Format,
    /// How long an answer is valid.
    valid: Duration,
    agreed: Option<(Format, Instant)>,
}

impl WriteFormat {
    /// For a node that reads up to `newest`, and leases of this length.
    pub(super) fn new(newest: Format, lease: Duration) -> Self {
        Self {
            newest,
            valid: lease * 3 / 10,
            agreed: None,
        }
    }

    /// The newest format that this node reads, which its lease announces.
    pub(super) fn newest(&self) -> Format {
        self.newest
    }

    /// The lease was answered. `steady`: it was renewed for one lease's time without a pause.
    pub(super) fn answered(&mut self, lowest: Format, steady: bool, now: Instant) {
        self.agreed = steady.then_some((lowest, now));
    }

    /// The lease was not answered, or it is over.
    pub(super) fn reset(&mut self) {
        self.agreed = None;
    }

    /// The format to write now.
    pub(super) fn at(&self, now: Instant) -> Format {
        match self.agreed {
            Some((lowest, answered)) if now < answered + self.valid => lowest.min(self.newest),
            _ => Format::FIRST,
        }
    }
}

/// How long a room counts as unreadable after a read met the newer format. While members of the
/// room wait for it, the room is read about once a second.
const MEMORY: Duration = Duration::from_secs(5);

/// The most rooms that are stored; with more of them the node is not ready either.
const MOST: usize = 1024;

/// The rooms in which reads met a newer format, and when last. Clones share the rooms, for the
/// tasks of the broker.
#[derive(Clone, Debug, Default)]
pub(super) struct UnreadableRooms(Arc<Mutex<BTreeMap<RoomName, Instant>>>);

impl UnreadableRooms {
    /// A read of this room met a newer format. Returns whether the room is new.
    pub(super) fn met(&self, room: &RoomName, now: Instant) -> bool {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(met) = rooms.get_mut(room) {
            *met = now;
            return false;
        }
        let is_new = rooms.len() < MOST;
        if is_new {
            rooms.insert(room.clone(), now);
        }
        is_new
    }

    /// Removes the rooms that were read since, or that are read no more. Returns whether any is
    /// left.
    pub(super) fn any(&self, now: Instant) -> bool {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.retain(|_, met| now < *met + MEMORY);
        !rooms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn format(number: u8) -> Format {
        Format::new(number).unwrap()
    }

    #[test]
    fn write_format_is_the_lowest_of_all_leases_capped_by_its_own() {
        let now = Instant::now();
        for (newest, lowest, expected) in [(1, 1, 1), (2, 1, 1), (2, 2, 2), (3, 2, 2), (2, 3, 2)] {
            let mut rule = WriteFormat::new(format(newest), LEASE);
            rule.answered(format(lowest), true, now);
            assert_eq!(rule.at(now), format(expected), "{newest} {lowest}");
        }
    }

    #[test]
    fn write_format_is_the_first_until_the_lease_is_answered_and_steady() {
        let now = Instant::now();
        let mut rule = WriteFormat::new(format(2), LEASE);
        assert_eq!(rule.at(now), Format::FIRST);
        rule.answered(format(2), false, now);
        assert_eq!(
            rule.at(now),
            Format::FIRST,
            "other nodes may only be disconnected"
        );
        rule.answered(format(2), true, now);
        assert_eq!(rule.at(now), format(2));
        rule.reset();
        assert_eq!(rule.at(now), Format::FIRST);
    }

    #[test]
    fn write_format_falls_back_when_the_answer_is_old() {
        let now = Instant::now();
        let mut rule = WriteFormat::new(format(2), LEASE);
        rule.answered(format(2), true, now);
        assert_eq!(rule.at(now + Duration::from_millis(2999)), format(2));
        assert_eq!(rule.at(now + Duration::from_secs(3)), Format::FIRST);
    }

    #[test]
    fn unreadable_rooms_are_new_once_and_expire_when_no_read_meets_them() {
        let (rooms, now) = (UnreadableRooms::default(), Instant::now());
        let room = RoomName::new("r").unwrap();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(!rooms.any(now));
        assert!(rooms.met(&room, now));
        assert!(!rooms.met(&room, after(1)));
        assert!(rooms.any(after(5)));
        assert!(!rooms.any(after(6)));
        assert!(rooms.met(&room, after(7)));
    }
}
