//! How long a client waits before it connects again: a random part of a bound that doubles from
//! attempt to attempt, so that the clients of a node that was killed do not return in step.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(20);

/// Where the waits of a client begin that sent more than its rate: up to eight seconds.
const TOO_FAST: u32 = 4;

/// The close code of a client that sends more than its rate allows.
const TOO_FAST_CODE: u16 = 3004;

/// The connections in a row that did not last.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// A connection lasted: the next wait is short again.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// A connection was closed with this code.
    pub(super) fn closed(&mut self, code: u16) {
        if code == TOO_FAST_CODE {
            self.attempts = self.attempts.max(TOO_FAST);
        }
    }

    /// The wait before the next attempt; `part` is random, 0 to 1.
    pub(super) fn next(&mut self, part: f64) -> Duration {
        let bound = FIRST
            .saturating_mul(1 << self.attempts.min(10))
            .min(LONGEST);
        self.attempts += 1;
        bound.mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_twenty_seconds_until_a_connection_lasts() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..7).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 20_000]);
        backoff.reset();
        assert_eq!(backoff.next(1.0), FIRST);
        assert_eq!(backoff.next(0.0), Duration::ZERO);
        backoff.closed(1001);
        assert_eq!(backoff.next(1.0).as_secs(), 2);
        backoff.reset();
        backoff.closed(TOO_FAST_CODE);
        assert_eq!(backoff.next(1.0).as_secs(), 8);
    }
}
