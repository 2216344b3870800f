//! The rooms that a user or an address has used recently, and how many new ones it may use. A
//! publish makes the broker keep a room's position for an hour or longer, and a read costs it a
//! lookup, so names that are ever new cost more than rooms in use.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::{Bucket, Rate};
use crate::model::id::RoomName;

/// New rooms per second and session.
const NEW_ROOMS: usize = 1;

/// The least of the rooms that a session may have, for what follows from it. New rooms may be used
/// at once for twice as many seconds, for a client that reconnects to another node; and the older
/// rooms begin to be forgotten when a session has used as many.
const LEAST_ROOMS: usize = 128;

/// Two sets of hashes: when the newer one is full, it becomes the older one. Hashes of 32 bits
/// suffice: a room that is taken for another one costs nothing.
#[derive(Debug, Default)]
pub(super) struct RecentRooms {
    new: Bucket,
    newer: HashSet<u32>,
    older: HashSet<u32>,
    hasher: RandomState,
}

impl RecentRooms {
    /// Counts the use of a room at the rate of `sessions` sessions, each of which may have `rooms`.
    /// Returns whether it may be used.
    pub(super) fn use_room(
        &mut self,
        room: &RoomName,
        sessions: u32,
        rooms: usize,
        now: u64,
    ) -> bool {
        let rooms = rooms.max(LEAST_ROOMS);
        let hash = self.hasher.hash_one(room) as u32;
        if self.newer.contains(&hash) {
            return true;
        }
        let rate = Rate::new(NEW_ROOMS, 2 * rooms as u64).map(|rate| rate.times(sessions));
        let is_known = self.older.contains(&hash);
        if !is_known && rate.is_some_and(|rate| !self.new.try_take(&rate, now)) {
            return false;
        }
        if self.newer.len() >= rooms * sessions as usize {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(hash);
        true
    }

    /// When as many new rooms may be used as at first.
    pub(super) fn full_at(&self) -> u64 {
        self.new.full_at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn room(n: usize) -> RoomName {
        RoomName::new(&format!("room{n}")).unwrap()
    }

    #[test]
    fn new_rooms_are_bounded_by_burst_and_rate() {
        let mut rooms = RecentRooms::default();
        let mut used = |from: usize, now| {
            let used = (from..from + 5000).filter(|n| rooms.use_room(&room(*n), 4, 128, now));
            used.count()
        };
        // A few are taken for others.
        assert!((1024..1030).contains(&used(0, 0)));
        assert!((400..406).contains(&used(10_000, 100 * SECOND)));
    }

    #[test]
    fn recent_rooms_may_be_used_always() {
        let mut rooms = RecentRooms::default();
        for round in 0..1000 {
            for n in 0..100 {
                assert!(rooms.use_room(&room(n), 4, 128, 0), "{n} in round {round}");
            }
            rooms.use_room(&room(1000 + round), 4, 128, 0);
        }
    }
}
