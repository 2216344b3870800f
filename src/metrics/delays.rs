//! A histogram of delivery times. Each bucket is at most an eighth as wide as its values, so that a
//! percentile has that precision. Counting one is two additions; the difference of two readings
//! covers the time between them.

use std::time::Duration;

use super::Metric;

/// Buckets per doubling.
const PARTS: u64 = 8;

/// Doublings of a microsecond with buckets of their own: up to 134 s.
const DOUBLINGS: u64 = 27;

/// The first buckets are a microsecond wide each, up to the first doubling that has eight of them.
const BUCKETS: usize = (PARTS * (DOUBLINGS - PARTS.ilog2() as u64 + 1)) as usize;

/// The number of doublings between the bounds that [`Delays::read`] returns; the first bound is
/// 16 µs.
const COARSE: usize = 2;

/// The histogram; see the head of this file.
#[derive(Debug)]
pub struct Delays {
    buckets: Box<[Metric]>,
    nanoseconds: Metric,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Metric::default()).collect(),
            nanoseconds: Metric::default(),
        }
    }
}

impl Delays {
    /// Counts one delivery.
    pub fn observe(&self, time: Duration) {
        let nanoseconds = time.as_nanos() as u64;
        self.buckets[bucket(nanoseconds / 1000)].add(1);
        self.nanoseconds.add(nanoseconds);
    }

    /// The current counts of all buckets, for a comparison with later ones.
    pub fn counts(&self) -> Counts {
        Counts(self.buckets.iter().map(Metric::get).collect())
    }

    /// The counts between coarser bounds, each with its upper bound; the last has none.
    pub fn read(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let chunks = self.buckets.chunks(COARSE * PARTS as usize);
        let last = chunks.len() - 1;
        chunks.enumerate().map(move |(index, chunk)| {
            let bound = Duration::from_micros(16 << (COARSE * index));
            let count = chunk.iter().map(Metric::get).sum();
            ((index < last).then_some(bound), count)
        })
    }

    /// The sum of all times.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.get())
    }
}

/// The buckets at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(Box<[u64]>);

impl Counts {
    /// The percentile `part` (0 to 1) of the times counted after `former`, at most an eighth too
    /// long; `None` if nothing was counted.
    pub fn percentile_since(&self, former: &Self, part: f64) -> Option<Duration> {
        let counts = || self.0.iter().zip(&former.0).map(|(now, then)| now - then);
        let all: u64 = counts().sum();
        let wanted = (all as f64 * part).ceil() as u64;
        let mut seen = 0;
        let index = counts().position(|count| {
            seen += count;
            count > 0 && seen >= wanted
        })?;
        Some(Duration::from_micros(end(index as u64)))
    }
}

/// The bucket of a number of whole microseconds.
fn bucket(microseconds: u64) -> usize {
    let doubling = u64::from(microseconds.max(1).ilog2());
    let first = u64::from(PARTS.ilog2());
    let index = match doubling.checked_sub(first) {
        None => microseconds,
        Some(above) => PARTS * (above + 1) + ((microseconds >> above) & (PARTS - 1)),
    };
    (index as usize).min(BUCKETS - 1)
}

/// The first number of microseconds that lies above a bucket.
fn end(index: u64) -> u64 {
    match (index / PARTS).checked_sub(1) {
        None => index + 1,
        Some(above) => (PARTS + index % PARTS + 1) << above,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_contain_their_times() {
        let mut last = 0;
        for microseconds in (0..100_000).chain((17..27).map(|doubling| (1 << doubling) + 12_345)) {
            let index = bucket(microseconds);
            assert!(microseconds < end(index as u64), "{microseconds}");
            assert!(
                index == 0 || microseconds >= end(index as u64 - 1),
                "{microseconds}"
            );
            assert!(
                index - last <= 1 || microseconds >= 100_000,
                "{microseconds}"
            );
            let width = end(index as u64) - if index == 0 { 0 } else { end(index as u64 - 1) };
            assert!(
                width <= 1 || width * PARTS <= microseconds,
                "{microseconds}"
            );
            last = index;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket((1 << DOUBLINGS) - 1), BUCKETS - 1);
        assert_eq!(end(BUCKETS as u64 - 1), 1 << DOUBLINGS);
    }

    #[test]
    fn percentiles_cover_the_times_since_the_earlier_reading() {
        let delays = Delays::default();
        delays.observe(Duration::from_secs(5));
        let former = delays.counts();
        assert_eq!(delays.counts().percentile_since(&former, 0.99), None);
        for _ in 0..99 {
            delays.observe(Duration::from_micros(100));
        }
        delays.observe(Duration::from_millis(40));
        let now = delays.counts();
        let of = |part| now.percentile_since(&former, part).unwrap();
        assert_eq!(of(0.99), Duration::from_micros(104));
        let longest = of(1.0);
        assert!((40..45).contains(&longest.as_millis()), "{longest:?}");
    }

    #[test]
    fn coarse_bounds_contain_the_counted_times() {
        let delays = Delays::default();
        for micros in [
            0,
            15,
            16,
            63,
            64,
            4_194_303,
            4_194_304,
            90_000_000,
            900_000_000,
        ] {
            delays.observe(Duration::from_micros(micros));
        }
        let read: Vec<_> = delays.read().collect();
        assert_eq!(read.iter().map(|(_, count)| count).sum::<u64>(), 9);
        for (bound, expected) in [(16, 2), (64, 2), (256, 1), (4_194_304, 1), (16_777_216, 1)] {
            let bound = Some(Duration::from_micros(bound));
            let found = read.iter().find(|(other, _)| *other == bound);
            assert_eq!(found.unwrap().1, expected, "{bound:?}");
        }
        let open = read.iter().filter(|(bound, _)| bound.is_none());
        assert_eq!(open.map(|(_, count)| count).collect::<Vec<_>>(), [&2]);
    }
}
