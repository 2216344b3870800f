//! A token bucket that is one number: the moment at which it will be full again. What is taken
//! moves that moment on; what lies further ahead than a whole burst is a debt, and the time until
//! it is paid is the time to wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// How much may be taken in the long run, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: u64,
    /// What a full bucket holds, in nanoseconds of refilling.
    burst: u64,
}

impl Rate {
    /// So many units a second, and at once as many as come together in `seconds`. `None`, which is
    /// no limit, for zero units.
    pub fn new(per_second: usize, seconds: u64) -> Option<Self> {
        (per_second > 0).then_some(Self {
            per_second: per_second as u64,
            burst: seconds * SECOND,
        })
    }

    /// The rate of `count` sessions together.
    pub(crate) fn times(&self, count: u32) -> Self {
        Self {
            per_second: self.per_second * u64::from(count),
            burst: self.burst,
        }
    }
}

/// A bucket, which begins full. Several tasks may take from it, without a lock. Times are
/// nanoseconds of any clock that never goes back.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    full_at: AtomicU64,
}

impl Bucket {
    /// Takes `units`, always, and returns the pause before more may be taken: zero, unless the
    /// bucket is now in debt.
    pub(crate) fn take(&self, rate: &Rate, units: u32, now: u64) -> Duration {
        let time = u64::from(units) * SECOND / rate.per_second;
        let taken = |full_at: u64| full_at.max(now).saturating_add(time);
        // The order of two takers does not matter: the sum of what they take is the same.
        let update = |full_at| Some(taken(full_at));
        let (Ok(former) | Err(former)) =
            (self.full_at).fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        Duration::from_nanos((taken(former) - now).saturating_sub(rate.burst))
    }

    /// Takes one unit, unless the bucket would be in debt then. Returns whether it did.
    pub(crate) fn try_take(&self, rate: &Rate, now: u64) -> bool {
        let time = SECOND / rate.per_second;
        let update = |full_at: u64| {
            let taken = full_at.max(now).saturating_add(time);
            (taken - now <= rate.burst).then_some(taken)
        };
        let taken = (self.full_at).fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        taken.is_ok()
    }

    /// When it will be full.
    pub(crate) fn full_at(&self) -> u64 {
        self.full_at.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_bucket_allows_its_burst_and_then_its_rate() {
        let rate = Rate::new(100, 2).unwrap();
        let bucket = Bucket::default();
        for _ in 0..200 {
            assert_eq!(bucket.take(&rate, 1, 5), Duration::ZERO);
        }
        assert_eq!(bucket.take(&rate, 1, 5), Duration::from_millis(10));
        assert_eq!(bucket.take(&rate, 9, 5), Duration::from_millis(100));
        // What was waited for is paid.
        let later = 5 + SECOND / 10;
        assert_eq!(bucket.take(&rate, 1, later), Duration::from_millis(10));
    }

    #[test]
    fn idle_bucket_refills_up_to_its_burst() {
        let rate = Rate::new(10, 2).unwrap();
        let bucket = Bucket::default();
        bucket.take(&rate, 20, 0);
        let later = 3600 * SECOND;
        assert_eq!(bucket.take(&rate, 20, later), Duration::ZERO);
        assert!(bucket.take(&rate, 1, later) > Duration::ZERO);
    }

    #[test]
    fn units_per_hour_are_bounded_by_rate_and_burst() {
        let mut random = fastrand::Rng::with_seed(7);
        for (per_second, seconds) in [(1, 2), (100, 2), (262_144, 4), (1 << 30, 4)] {
            let rate = Rate::new(per_second, seconds).unwrap();
            let (bucket, mut now, mut taken, mut last) = (Bucket::default(), 0, 0_u64, 0);
            while now < 3600 * SECOND {
                last = random.u32(1..=(per_second as u32).min(1 << 20));
                taken += u64::from(last);
                let wait = bucket.take(&rate, last, now).as_nanos() as u64;
                now += wait + random.u64(0..SECOND);
            }
            let most = (now / SECOND + 1 + seconds) * per_second as u64 + u64::from(last);
            assert!(taken <= most, "{taken} of {most} at {per_second}/s");
        }
    }

    #[test]
    fn try_take_refuses_without_a_debt() {
        let (rate, bucket) = (Rate::new(10, 2).unwrap(), Bucket::default());
        let taken = |now| (0..1000).filter(|_| bucket.try_take(&rate, now)).count();
        assert_eq!(taken(0), 20);
        assert_eq!(taken(SECOND), 10);
        assert_eq!(taken(3600 * SECOND), 20);
    }

    #[test]
    fn zero_rate_means_no_limit() {
        assert_eq!(Rate::new(0, 2), None);
    }
}
