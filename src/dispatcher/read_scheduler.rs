//! Schedules reads of one kind, of the logs that the node follows or of the member lists that it
//! keeps: each key is queued once, sources take turns, a bounded number is in flight, and a read
//! that failed is queued again later.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::broker::Refused;
use crate::dispatcher::rooms::RoomKey;
use crate::model::control::ControlLog;
use crate::model::fair_queue::{FairItem, FairQueue, Place};
use crate::model::id::NumberMap;
use crate::model::source::Source;

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
    /// Keys that wait for a read. A key is queued once, also when its room was removed and the key
    /// reused, so there are no more keys than rooms.
    queue: FairQueue<QueuedKey<K>>,
    /// Keys that come before all others and are not subject to the limit.
    urgent: VecDeque<K>,
    /// The places of all these keys; `None`: it is urgent.
    queued: NumberMap<K, Option<Place>>,
    /// Keys whose read failed; they are queued again at the next tick, for the same source.
    retry: BTreeMap<K, Source>,
    /// Keys whose read returned a newer format, and when they may be read again.
    paused: BTreeMap<K, (Source, Instant)>,
}

/// A key, and for whom it is read.
#[derive(Clone, Copy, Debug)]
struct QueuedKey<K> {
    key: K,
    source: Source,
}

impl<K> FairItem for QueuedKey<K> {
    fn source(&self) -> Source {
        self.source
    }

    /// All alike: only the read itself has a price.
    fn cost(&self) -> usize {
        0
    }

    fn weight(&self) -> usize {
        0
    }
}

impl<K: Copy + Eq + Ord + Hash> ReadScheduler<K> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            in_flight: 0,
            queue: FairQueue::default(),
            urgent: VecDeque::new(),
            queued: NumberMap::default(),
            retry: BTreeMap::new(),
            paused: BTreeMap::new(),
        }
    }

    /// Queues a key for a source, once. A key that the node itself has queued takes the turn of a
    /// session that needs it too. A paused key is queued after its pause.
    pub(super) fn queue(&mut self, key: K, source: Source) {
        if self.paused.contains_key(&key) {
            return;
        }
        match self.queued.get(&key) {
            Some(None) => return,
            Some(Some(place)) => {
                let is_nodes = place.class() == Source::Node.class();
                if !is_nodes || source == Source::Node {
                    return;
                }
                self.queue.remove(*place);
            }
            None => {}
        }
        let queued = QueuedKey { key, source };
        let place = self.queue.enter(source, queued.cost());
        self.queue.insert(place, queued);
        self.queued.insert(key, Some(place));
    }

    /// Queues a key before all others and whatever is in flight, once. There must be few such keys.
    pub(super) fn queue_first(&mut self, key: K) {
        if !self.paused.contains_key(&key) && !self.queued.contains_key(&key) {
            self.queued.insert(key, None);
            self.urgent.push_back(key);
        }
    }

    /// Takes the next key, if another read may start, and for whom it is read. What it names may be
    /// gone.
    pub(super) fn next(&mut self) -> Option<(K, Source)> {
        let urgent = self.urgent.pop_front().map(|key| (key, Source::Node));
        let next = urgent.or_else(|| {
            let may_start = self.in_flight < self.limit;
            let queued = may_start.then(|| self.queue.pop()).flatten()?;
            Some((queued.key, queued.source))
        })?;
        self.queued.remove(&next.0);
        Some(next)
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
    pub(super) fn retry(&mut self, key: K, source: Source, why: Refused, now: Instant) {
        if why == Refused::Newer {
            self.paused.insert(key, (source, now + PAUSE));
        } else {
            self.retry.insert(key, source);
        }
    }

    /// Takes the keys that are to be queued again: those whose read failed, and those whose pause
    /// is over.
    pub(super) fn take_retries(&mut self, now: Instant) -> Vec<(K, Source)> {
        let mut keys: Vec<_> = std::mem::take(&mut self.retry).into_iter().collect();
        self.paused.retain(|key, (source, until)| {
            let is_over = *until <= now;
            if is_over {
                keys.push((*key, *source));
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
    use crate::model::id::SessionId;

    const ADA: Source = Source::Session(SessionId(1));
    const BOB: Source = Source::Session(SessionId(2));

    fn start(scheduler: &mut ReadScheduler<u64>) -> Option<u64> {
        let (key, _) = scheduler.next()?;
        scheduler.start();
        Some(key)
    }

    #[test]
    fn scheduler_starts_a_bounded_number_of_reads_in_order() {
        let mut scheduler = ReadScheduler::new(2);
        for key in [5, 3, 5, 4] {
            scheduler.queue(key, Source::Node);
        }
        scheduler.queue_first(9);
        let started: [_; 3] = std::array::from_fn(|_| start(&mut scheduler));
        assert_eq!(started, [Some(9), Some(5), None]);
        scheduler.finish();
        scheduler.queue_first(8);
        assert_eq!((start(&mut scheduler), scheduler.due()), (Some(8), 2));
        scheduler.finish();
        assert_eq!((start(&mut scheduler), scheduler.due()), (Some(3), 1));
    }

    #[test]
    fn join_of_one_session_does_not_wait_for_all_reads_of_another_or_of_the_node() {
        let mut scheduler = ReadScheduler::new(usize::MAX);
        (0..1000).for_each(|key| scheduler.queue(key, Source::Node));
        (1000..1100).for_each(|key| scheduler.queue(key, ADA));
        scheduler.queue(2000, BOB);
        let first: Vec<u64> = (0..20).filter_map(|_| start(&mut scheduler)).collect();
        assert!(first.contains(&2000), "{first:?}");
        assert!(first.iter().filter(|key| **key < 1000).count() >= 9);
    }

    #[test]
    fn session_that_needs_a_read_of_the_node_takes_its_own_turn_for_it() {
        let mut scheduler = ReadScheduler::new(usize::MAX);
        (0..1000).for_each(|key| scheduler.queue(key, Source::Node));
        scheduler.queue(999, ADA);
        scheduler.queue(999, BOB);
        scheduler.queue(999, Source::Node);
        assert_eq!(scheduler.due(), 1000);
        let all: Vec<_> = std::iter::from_fn(|| scheduler.next()).collect();
        assert_eq!(all.len(), 1000);
        assert!(all[..2].contains(&(999, ADA)));
    }

    #[test]
    fn failed_read_is_queued_again_and_a_newer_format_pauses_it() {
        let (mut scheduler, now) = (ReadScheduler::new(2), Instant::now());
        scheduler.retry(1, ADA, Refused::Unavailable, now);
        scheduler.retry(2, BOB, Refused::Newer, now);
        scheduler.queue(2, Source::Node);
        assert_eq!((scheduler.next(), scheduler.due()), (None, 2));
        assert_eq!(scheduler.take_retries(now), [(1, ADA)]);
        assert_eq!(scheduler.take_retries(now + PAUSE), [(2, BOB)]);
        scheduler.retry(2, BOB, Refused::Newer, now);
        scheduler.end_pause(2);
        scheduler.queue(2, Source::Node);
        assert_eq!(scheduler.next(), Some((2, Source::Node)));
    }
}
