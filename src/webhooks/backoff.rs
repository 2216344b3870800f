//! How long a node waits after a receiver did not accept a batch: a random part of a bound that
//! doubles from attempt to attempt ("full jitter"), so that a receiver is not flooded and senders
//! do not retry in step.

use std::time::Duration;

/// The bound after the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// The greatest bound: a receiver that is reachable again gets a request within a minute.
const LAST: Duration = Duration::from_secs(60);

/// The wait that follows a number of failures in a row (1 or more): a part (0 to 1) of their bound,
/// and never nothing at all.
pub(crate) fn wait(failures: u32, part: f64) -> Duration {
    let bound = FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(LAST);
    Duration::from_millis(50) + bound.mul_f64(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_a_second_to_a_minute() {
        let longest: Vec<u64> = (1..9).map(|n| wait(n, 1.0).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(wait(u32::MAX, 1.0), Duration::from_millis(60_050));
        assert!(wait(1, 0.0) > Duration::ZERO);
    }
}
