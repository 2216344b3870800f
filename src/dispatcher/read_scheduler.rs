//! Schedules the node's own reads of one kind, of logs or of member lists: each key is queued once,
//! a bounded number is in flight, and a read that failed is queued again later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::broker::Refused;
use crate::dispatcher::rooms::RoomKey;
use crate::model::control::ControlLog;
use crate::model::id::NumberSet;

/// How long a log or a list is not read after a read that returned a newer format: only an upgrade
/// of this node or the end of the entry can help.
const PAUSE: Duration = Duration::from_secs(1);

/// A log that the node follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum LogKey {
    Control(ControlLog),
    Room(RoomKey),
}

/// Which keys are read next.
///
/// ```text
///          queue                next                  finish
///  idle ──────────▶ queued ──────────────▶ in flight ─────────▶ idle
///                     ▲                        │ fail
///                     └─ the next tick, or the end of a pause
/// ```
#[derive(Debug)]
pub(super) struct ReadScheduler<K> {
    /// The most reads in flight.
    limit: usize,
    in_flight: usize,
    /// Keys that wait for a read, in order, and the same keys as a set. A key is queued once, also
    /// when its room was removed and the key reused, so there are no more keys than rooms.
    queue: VecDeque<K>,
    /// Keys that come before all others and are not subject to the limit.
    urgent: VecDeque<K>,
    queued: NumberSet<K>,
    /// Keys whose read failed; they are queued again at the next tick.
    retry: BTreeSet<K>,
    /// Keys whose read returned a newer format, and when they may be read again.
    paused: BTreeMap<K, Instant>,
}

impl<K: Copy + Eq + Ord + Hash> ReadScheduler<K> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            in_flight: 0,
            queue: VecDeque::new(),
            urgent: VecDeque::new(),
            queued: NumberSet::default(),
            retry: BTreeSet::new(),
            paused: BTreeMap::new(),
        }
    }

    /// Queues a key behind all others, once. A paused key is queued after its pause.
    pub(super) fn queue(&mut self, key: K) {
        if !self.paused.contains_key(&key) && self.queued.insert(key) {
            self.queue.push_back(key);
        }
    }

    /// Queues a key before all others and whatever is in flight, once. There must be few such keys.
    pub(super) fn queue_first(&mut self, key: K) {
        if !self.paused.contains_key(&key) && self.queued.insert(key) {
            self.urgent.push_back(key);
        }
    }

    /// Takes the key that has waited longest, if another read may start. What it names may be gone.
    pub(super) fn next(&mut self) -> Option<K> {
        let next = match self.urgent.pop_front() {
            None if self.in_flight < self.limit => self.queue.pop_front(),
            urgent => urgent,
        };
        let key = next?;
        self.queued.remove(&key);
        Some(key)
    }

    /// A read was sent.
    pub(super) fn start(&mut self) {
        self.in_flight += 1;
    }

    /// A read was answered.
    pub(super) fn finish(&mut self) {
        self.in_flight -= 1;
    }

    /// The read of this key failed.
    pub(super) fn retry(&mut self, key: K, why: Refused, now: Instant) {
        if why == Refused::Newer {
            self.paused.insert(key, now + PAUSE);
        } else {
            self.retry.insert(key);
        }
    }

    /// Takes the keys that are to be queued again: those whose read failed, and those whose pause
    /// is over.
    pub(super) fn take_retries(&mut self, now: Instant) -> Vec<K> {
        let mut keys: Vec<K> = std::mem::take(&mut self.retry).into_iter().collect();
        self.paused.retain(|key, until| {
            let is_over = *until <= now;
            if is_over {
                keys.push(*key);
            }
            !is_over
        });
        keys
    }

    /// What the key names is gone, and the key may be reused for something that may be read.
    pub(super) fn end_pause(&mut self, key: K) {
        self.paused.remove(&key);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Keys that wait for a read.
    pub(super) fn due(&self) -> usize {
        self.queue.len() + self.urgent.len() + self.retry.len() + self.paused.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheduler_starts_a_bounded_number_of_reads_in_order() {
        let mut scheduler = ReadScheduler::new(2);
        for key in [5, 3, 5, 4] {
            scheduler.queue(key);
        }
        scheduler.queue_first(9);
        let mut started = || {
            let key = scheduler.next();
            key.inspect(|_| scheduler.start())
        };
        assert_eq!([started(), started(), started()], [Some(9), Some(5), None]);
        scheduler.finish();
        scheduler.queue_first(8);
        assert_eq!((scheduler.next(), scheduler.due()), (Some(8), 2));
        assert_eq!((scheduler.next(), scheduler.due()), (Some(3), 1));
    }

    #[test]
    fn failed_read_is_queued_again_and_a_newer_format_pauses_it() {
        let (mut scheduler, now) = (ReadScheduler::new(2), Instant::now());
        scheduler.retry(1, Refused::Unavailable, now);
        scheduler.retry(2, Refused::Newer, now);
        scheduler.queue(2);
        assert_eq!((scheduler.next(), scheduler.due()), (None, 2));
        assert_eq!(scheduler.take_retries(now), [1]);
        assert_eq!(scheduler.take_retries(now + PAUSE), [2]);
        scheduler.retry(2, Refused::Newer, now);
        scheduler.end_pause(2);
        scheduler.queue(2);
        assert_eq!(scheduler.next(), Some(2));
    }
}
