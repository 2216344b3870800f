//! A queue in which sources take turns (self-clocked fair queuing). Its classes (the node, all
//! sessions, all callers) have equal shares, and within a class its sources have. A share is
//! measured by what the requests cost, so a source with one small request waits for about one turn
//! of each other source, however many or large requests these have. Plain logic.
//!
//! ```text
//!            ┌ node ───── its requests ─────┐
//!  enter ──▶ ├ sessions ┬ of session 1      ├──▶ pop: the class that had least,
//!            │          └ of session 2      │    and the earliest round in it
//!            └ callers ── of each caller ───┘
//! ```

use std::collections::BTreeMap;

use crate::model::id::NumberMap;
use crate::model::source::{Source, SourceClass};

/// The unit of costs, in bytes. A smaller request counts as one.
const UNIT: usize = 1024;

/// Units of one source in one round. Not one, because publishes of a room in one batch are
/// delivered together: in 200 rooms of 10 over two nodes, with four messages in flight, a delivery
/// took 11.2 µs of processor time with turns of one and 3.65 with turns of four (`make
/// bench-peers`).
const TURN: u64 = 4;

/// What stands in a queue.
pub trait FairItem {
    fn source(&self) -> Source;
    /// What serving it costs, in bytes.
    fn cost(&self) -> usize;
    /// The memory it takes, in bytes.
    fn weight(&self) -> usize;
}

/// Where an item stands. The places of one source are in the order in which they were entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    class: SourceClass,
    /// What its source has entered up to and with this item, in units, on the clock of its class.
    finish: u64,
    /// The order of arrival.
    number: u64,
}

impl Place {
    pub fn class(self) -> SourceClass {
        self.class
    }

    /// Its key in the queue: items of one round are served in the order of arrival.
    fn key(self) -> (u64, u64) {
        ((self.finish - 1) / TURN, self.number)
    }
}

/// What waits, of one source or of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub items: usize,
    /// Their weights.
    pub bytes: usize,
}

/// See the head of this file.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// By `SourceClass as usize`.
    classes: [Class<T>; SourceClass::COUNT],
    /// What the class that is served had before, in units.
    served: u64,
    /// The number of places so far.
    count: u64,
}

#[derive(Debug)]
struct Class<T> {
    items: BTreeMap<(u64, u64), (Place, T)>,
    shares: NumberMap<Source, Share>,
    backlog: Backlog,
    /// The clock: the greatest `finish` that was served.
    now: u64,
    /// What was served of it, in units; at least as much as the other classes had when it last
    /// became busy.
    served: u64,
    /// With so many shares, those that no longer matter are removed.
    most_shares: usize,
}

#[derive(Debug, Default)]
struct Share {
    /// The `finish` of its last item: the next one follows it, or the clock if that is later.
    finish: u64,
    backlog: Backlog,
}

impl Backlog {
    fn add(&mut self, weight: usize) {
        self.items += 1;
        self.bytes += weight;
    }

    fn sub(&mut self, weight: usize) {
        self.items -= 1;
        self.bytes -= weight;
    }
}

impl<T> Default for Class<T> {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            shares: NumberMap::default(),
            backlog: Backlog::default(),
            now: 0,
            served: 0,
            most_shares: 0,
        }
    }
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            classes: Default::default(),
            served: 0,
            count: 0,
        }
    }
}

impl<T: FairItem> FairQueue<T> {
    /// Takes a place for an item of this source and cost, behind all former ones of the source.
    pub fn enter(&mut self, source: Source, cost: usize) -> Place {
        self.count += 1;
        let number = self.count;
        let class = self.class_mut(source.class());
        class.tidy();
        let share = class.shares.entry(source).or_default();
        share.finish = share.finish.max(class.now) + units(cost);
        Place {
            class: source.class(),
            finish: share.finish,
            number,
        }
    }

    /// Adds an item at its place; one that was served before returns to its old place.
    pub fn insert(&mut self, place: Place, item: T) {
        let served = self.served;
        let class = self.class_mut(place.class);
        if class.items.is_empty() {
            // What it did not use while it had no items is not kept for it.
            class.served = class.served.max(served);
        }
        class.backlog.add(item.weight());
        let share = class.shares.entry(item.source()).or_default();
        share.backlog.add(item.weight());
        class.items.insert(place.key(), (place, item));
        class.tidy();
    }

    /// Takes the item that is served next.
    pub fn pop(&mut self) -> Option<T> {
        let busy = self.classes.iter_mut().filter(|it| !it.items.is_empty());
        let class = busy.min_by_key(|class| class.served)?;
        let (_, (place, item)) = class.items.pop_first()?;
        self.served = class.served;
        class.served += units(item.cost());
        class.now = class.now.max(place.finish);
        class.left(&item);
        Some(item)
    }

    /// Takes the item at a place.
    pub fn remove(&mut self, place: Place) -> Option<T> {
        let class = self.class_mut(place.class);
        class.remove(place.key())
    }

    /// Takes all items for which `is_taken` holds; those of one source are in order.
    pub fn take_if(&mut self, is_taken: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for class in &mut self.classes {
            let keys = class.items.iter().filter(|(_, (_, item))| is_taken(item));
            let keys: Vec<_> = keys.map(|(key, _)| *key).collect();
            taken.extend(keys.into_iter().filter_map(|key| class.remove(key)));
        }
        taken
    }

    /// If more waits of a class than `most`, takes the last item of the source that has most of it:
    /// a full queue is at the expense of those who fill it.
    pub fn take_excess(&mut self, class: SourceClass, most: Backlog) -> Option<T> {
        let class = self.class_mut(class);
        let by_bytes = class.backlog.bytes > most.bytes;
        if class.backlog.items <= most.items && !by_bytes {
            return None;
        }
        let size = |backlog: Backlog| {
            if by_bytes {
                backlog.bytes
            } else {
                backlog.items
            }
        };
        let largest = class
            .shares
            .values()
            .map(|share| size(share.backlog))
            .max()?;
        // Among equals it is the one whose turn is last.
        let last = class.items.iter().rev().find(|(_, (_, item))| {
            let share = class.shares.get(&item.source());
            share.is_some_and(|share| size(share.backlog) == largest)
        });
        let key = *last?.0;
        class.remove(key)
    }

    pub fn len(&self) -> usize {
        self.classes.iter().map(|class| class.items.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.items.is_empty())
    }

    fn class_mut(&mut self, class: SourceClass) -> &mut Class<T> {
        &mut self.classes[class as usize]
    }
}

impl<T: FairItem> Class<T> {
    fn remove(&mut self, key: (u64, u64)) -> Option<T> {
        let (_, item) = self.items.remove(&key)?;
        self.left(&item);
        Some(item)
    }

    fn left(&mut self, item: &T) {
        self.backlog.sub(item.weight());
        if let Some(share) = self.shares.get_mut(&item.source()) {
            share.backlog.sub(item.weight());
        }
    }

    /// Removes the shares of sources that have no items and have used no more than others.
    fn tidy(&mut self) {
        if self.shares.len() > self.most_shares {
            let now = self.now;
            self.shares
                .retain(|_, share| share.backlog.items > 0 || share.finish > now);
            self.most_shares = 2 * self.shares.len() + 64;
        }
    }
}

fn units(cost: usize) -> u64 {
    cost.div_ceil(UNIT).max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::SessionId;
    use crate::model::source::CallerId;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Job {
        source: Source,
        number: u64,
        cost: usize,
    }

    impl FairItem for Job {
        fn source(&self) -> Source {
            self.source
        }

        fn cost(&self) -> usize {
            self.cost
        }

        fn weight(&self) -> usize {
            100
        }
    }

    const ADA: Source = Source::Session(SessionId(1));
    const BOB: Source = Source::Session(SessionId(2));
    const BACKEND: Source = Source::Caller(CallerId::PROGRAM);

    fn push(queue: &mut FairQueue<Job>, source: Source, number: u64, cost: usize) -> Place {
        let place = queue.enter(source, cost);
        queue.insert(
            place,
            Job {
                source,
                number,
                cost,
            },
        );
        place
    }

    fn sources(queue: &mut FairQueue<Job>, count: usize) -> Vec<Source> {
        let next = (0..count).map_while(|_| queue.pop());
        next.map(|job| job.source).collect()
    }

    fn count(served: &[Source], source: Source) -> usize {
        served.iter().filter(|it| **it == source).count()
    }

    #[test]
    fn late_source_with_few_items_is_served_in_the_present_round() {
        let mut queue = FairQueue::default();
        (0..100).for_each(|n| _ = push(&mut queue, ADA, n, 1));
        assert_eq!(count(&sources(&mut queue, 40), ADA), 40);
        (0..=TURN).for_each(|n| _ = push(&mut queue, BOB, n, 1));
        let served = sources(&mut queue, 13);
        assert_eq!(served[..4], [ADA; 4], "the present turn");
        assert_eq!(served[4..8], [BOB; 4]);
        assert_eq!(served[8..12], [ADA; 4]);
        assert_eq!(served[12], BOB, "one more than a turn");
    }

    #[test]
    fn source_with_large_items_does_not_delay_one_with_small_items() {
        let mut queue = FairQueue::default();
        (0..50).for_each(|n| _ = push(&mut queue, ADA, n, 100 << 10));
        (0..50).for_each(|n| _ = push(&mut queue, BOB, n, 1));
        let served = sources(&mut queue, 52);
        assert_eq!(count(&served, BOB), 50, "{served:?}");
    }

    #[test]
    fn source_that_waits_for_each_answer_has_no_more_than_its_share() {
        let mut queue = FairQueue::default();
        push(&mut queue, ADA, 0, 100 << 10);
        (0..100).for_each(|n| _ = push(&mut queue, BOB, n, 1));
        let mut served = Vec::new();
        for n in 1..100 {
            let job = queue.pop().unwrap();
            served.push(job.source);
            if job.source == ADA {
                push(&mut queue, ADA, n, 100 << 10);
            }
        }
        assert_eq!(count(&served, ADA), 1, "a page costs as much as the rest");
    }

    #[test]
    fn node_sessions_and_callers_have_equal_shares_however_many_they_are() {
        let mut queue = FairQueue::default();
        for n in 0..1000 {
            push(&mut queue, Source::Session(SessionId(n)), n, 1);
            push(&mut queue, BACKEND, n, 1);
        }
        (0..20).for_each(|n| _ = push(&mut queue, Source::Node, n, 1));
        let served = sources(&mut queue, 60);
        assert_eq!(count(&served, Source::Node), 20, "{served:?}");
        assert_eq!(count(&served, BACKEND), 20, "{served:?}");
        let served = sources(&mut queue, 100);
        assert_eq!(count(&served, BACKEND), 50, "{served:?}");
        // What the node did not use is not kept for it.
        (0..100).for_each(|n| _ = push(&mut queue, Source::Node, n, 1));
        let served = sources(&mut queue, 30);
        let of_node = count(&served, Source::Node);
        assert!((10..=11).contains(&of_node), "{served:?}");
    }

    #[test]
    fn item_returns_to_its_old_place() {
        let mut queue = FairQueue::default();
        let places: Vec<Place> = (0..9).map(|n| push(&mut queue, ADA, n, 1)).collect();
        let first = queue.pop().unwrap();
        assert_eq!(queue.pop().unwrap().number, 1);
        queue.insert(places[0], first);
        assert_eq!(queue.remove(places[4]).unwrap().number, 4);
        assert_eq!(queue.remove(places[4]), None);
        assert_eq!(queue.take_if(|job| job.number == 5).len(), 1);
        let left: Vec<u64> = std::iter::from_fn(|| queue.pop())
            .map(|job| job.number)
            .collect();
        assert_eq!(left, [0, 2, 3, 6, 7, 8]);
        assert!(queue.is_empty());
    }

    #[test]
    fn stream_of_ever_new_sources_does_not_starve_the_others() {
        let mut queue = FairQueue::default();
        push(&mut queue, ADA, 0, 100 << 10);
        for n in 0..200 {
            push(&mut queue, Source::Session(SessionId(100 + n)), n, 1);
            if queue.pop().is_some_and(|job| job.source == ADA) {
                return;
            }
        }
        panic!("a page is worth a hundred small requests");
    }

    #[test]
    fn excess_is_taken_from_the_source_that_has_most() {
        let mut queue = FairQueue::default();
        let most = Backlog {
            items: 10,
            bytes: 1500,
        };
        let class = SourceClass::Sessions;
        (0..9).for_each(|n| _ = push(&mut queue, ADA, n, 1));
        push(&mut queue, BOB, 0, 1);
        (0..50).for_each(|n| _ = push(&mut queue, BACKEND, n, 1));
        assert_eq!(queue.take_excess(class, most), None);
        push(&mut queue, BOB, 1, 1);
        let taken = queue.take_excess(class, most).unwrap();
        assert_eq!((taken.source, taken.number), (ADA, 8));
        // When all have as many, it is the last one's.
        for n in 10..20 {
            push(&mut queue, Source::Session(SessionId(n)), n, 1);
            let taken = queue.take_excess(class, most).unwrap();
            let expected = if n < 16 { ADA } else { taken.source };
            assert_eq!(taken.source, expected, "{n}");
        }
        let bytes = Backlog {
            items: 100,
            bytes: 999,
        };
        assert!(queue.take_excess(class, bytes).is_some());
        assert_eq!(queue.take_excess(class, bytes), None);
    }

    #[test]
    fn sources_without_items_are_forgotten() {
        let mut queue = FairQueue::default();
        for n in 0..10_000 {
            push(&mut queue, Source::Session(SessionId(n)), n, 1);
            queue.pop();
        }
        let shares = queue.classes[1].shares.len();
        assert!(shares <= 1000, "{shares}");
    }
}
