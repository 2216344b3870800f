//! The limits of what one session sends: commands and bytes by rate, frames of a message by number,
//! a message by time. The reader reports every read before the next one, and receives the verdict
//! to continue, to pause, or to end.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Debt, Fragments, Rate};
use crate::protocol::disconnect::Disconnect;

/// The limits that all sessions of a node have in common.
#[derive(Clone, Debug)]
pub struct IngressLimits {
    /// Commands and control frames; `None` for no limit.
    pub commands: Option<Rate>,
    pub bytes: Option<Rate>,
    /// How long a session may stay over its rate.
    pub rate_timeout: Duration,
    /// Frames of one message.
    pub fragments: u32,
    /// From the first byte of a message to its last.
    pub message_timeout: Duration,
}

/// The next step of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IngressAction {
    Go,
    /// Read nothing for so long.
    Pause(Duration),
    End(Disconnect),
}

/// The state of one session. Times are nanoseconds of one clock for all sessions.
///
/// ```text
///           in debt, and a backlog              in debt, and a backlog after `rate_timeout`
///   within ───────────────▶ over (reads, pauses) ────────────────────────────────▶ ended
///      ▲                      │
///      └──────────────────────┘ the backlog is read
/// ```
///
/// A pause makes what the client sends wait in the kernel. A client that waits for answers has no
/// more there than it has in flight, however often it is paused; what waits for one that does not
/// adapt grows until the receive buffer is full. Only the latter has a *backlog*: a considerable
/// part of that buffer. So clients that wait for answers are only slowed down, for any time.
#[derive(Debug, Default)]
pub(crate) struct IngressMeter {
    /// Since when the session exceeds its rate.
    over: Since,
    /// The start of the current message.
    begun: Since,
    frames: Fragments,
}

impl IngressMeter {
    /// Follows the bytes read from the socket. Returns the reason to disconnect, if there is one.
    pub(crate) fn follow(&mut self, limits: &IngressLimits, bytes: &[u8]) -> Option<Disconnect> {
        let seen = self.frames.follow(bytes);
        if seen.ended {
            self.begun = Since::default();
        }
        (seen.most > limits.fragments).then_some(Disconnect::Fragments)
    }

    /// Whether a message or a control frame has begun and not ended.
    pub(crate) fn is_under_way(&self) -> bool {
        self.frames.is_under_way()
    }

    /// The next step of a session with this debt. `has_backlog` is called only for a session in
    /// debt by its own buckets: none is ended for what others of its user or address send.
    pub(crate) fn step(
        &mut self,
        limits: &IngressLimits,
        debt: Debt,
        now: u64,
        has_backlog: impl FnOnce() -> bool,
    ) -> IngressAction {
        if self.frames.is_under_way() && self.begun.at(now) >= limits.message_timeout {
            return IngressAction::End(Disconnect::Stalled);
        }
        let wait = debt.wait();
        if wait.is_zero() {
            return IngressAction::Go;
        }
        if !debt.shared.is_zero() {
            // What waits for others does not stall.
            self.begun = Since::default();
        }
        if debt.own.is_zero() || !has_backlog() {
            self.caught_up();
            return IngressAction::Pause(wait.min(limits.rate_timeout));
        }
        match limits.rate_timeout.saturating_sub(self.over.at(now)) {
            Duration::ZERO => IngressAction::End(Disconnect::TooFast),
            left => IngressAction::Pause(wait.min(left)),
        }
    }

    /// There is no backlog any more.
    pub(crate) fn caught_up(&mut self) {
        self.over = Since::default();
    }
}

/// A moment, or none, to the tenth of a second: every connection keeps two, and most keep them for
/// nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Since(Option<NonZeroU32>);

impl Since {
    const TENTH: u64 = 100_000_000;

    /// How long ago it was, at least; it begins with the first question.
    fn at(&mut self, now: u64) -> Duration {
        let tenths = u32::try_from(now.div_ceil(Self::TENTH)).unwrap_or(u32::MAX);
        let since = *self.0.get_or_insert(NonZeroU32::MIN.saturating_add(tenths));
        Duration::from_nanos(now.saturating_sub((u64::from(since.get()) - 1) * Self::TENTH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::limits::{Charge, Quota};

    const MILLI: u64 = 1_000_000;

    fn limits() -> IngressLimits {
        IngressLimits {
            commands: Rate::new(100, 2),
            bytes: Rate::new(1000, 4),
            rate_timeout: Duration::from_secs(10),
            fragments: 3,
            message_timeout: Duration::from_secs(60),
        }
    }

    /// Charges what was read at a time, and returns the next step.
    fn step(
        (meter, limits, quota): (&mut IngressMeter, &IngressLimits, &Quota),
        (commands, bytes, now): (u32, u32, u64),
        has_backlog: impl FnOnce() -> bool,
    ) -> IngressAction {
        let charge = Charge {
            commands,
            bytes,
            now,
        };
        meter.step(limits, quota.charge(limits, charge), now, has_backlog)
    }

    /// A client with a backlog that pauses do not reduce: when it is disconnected, and how much was
    /// read of it.
    fn flood(commands: u32, bytes: u32) -> (u64, u64) {
        let (limits, quota) = (limits(), Quota::default());
        let mut meter = IngressMeter::default();
        let (mut now, mut turns) = (0, 0);
        loop {
            turns += 1;
            match step(
                (&mut meter, &limits, &quota),
                (commands, bytes, now),
                || true,
            ) {
                IngressAction::Go => now += MILLI,
                IngressAction::Pause(time) => now += time.as_nanos() as u64,
                IngressAction::End(why) => {
                    assert_eq!(why, Disconnect::TooFast);
                    return (now / MILLI, turns);
                }
            }
        }
    }

    #[test]
    fn sessions_within_their_rate_are_never_paused() {
        let (limits, quota) = (limits(), Quota::default());
        let mut meter = IngressMeter::default();
        for tenth in 0..10_000 {
            let read = (10, 100, tenth * 100 * MILLI);
            let action = step((&mut meter, &limits, &quota), read, || unreachable!());
            assert_eq!(action, IngressAction::Go);
        }
    }

    #[test]
    fn sessions_with_a_backlog_pause_and_end_after_the_timeout() {
        let (ended, turns) = flood(1, 1);
        // The burst lasts 0.2 s at one a millisecond, then come ten seconds at the rate.
        assert!((10_100..10_400).contains(&ended), "{ended} ms");
        assert!((1200..1260).contains(&turns), "{turns}");
        let (ended, _) = flood(0, 1000);
        assert!((10_000..10_200).contains(&ended), "{ended} ms");
    }

    #[test]
    fn backlog_that_is_read_ends_the_time_over_the_rate() {
        let (limits, quota) = (limits(), Quota::default());
        let mut meter = IngressMeter::default();
        let mut now = 0;
        for turn in 0..1000 {
            let read = (100, 1, now);
            match step((&mut meter, &limits, &quota), read, || turn % 10 > 0) {
                IngressAction::Go => {}
                IngressAction::Pause(time) => now += time.as_nanos() as u64,
                end => panic!("{end:?} in turn {turn}"),
            }
        }
    }

    #[test]
    fn pauses_last_at_most_the_rate_timeout() {
        let (limits, quota) = (limits(), Quota::default());
        for backlog in [false, true] {
            let mut meter = IngressMeter::default();
            let much = (1_000_000, 0, 0);
            let pause = step((&mut meter, &limits, &quota), much, || backlog);
            assert_eq!(pause, IngressAction::Pause(Duration::from_secs(10)));
            let later = (1, 0, 10_000 * MILLI);
            let next = step((&mut meter, &limits, &quota), later, || backlog);
            let is_end = next == IngressAction::End(Disconnect::TooFast);
            assert_eq!(is_end, backlog, "{next:?}");
        }
    }

    #[test]
    fn sessions_are_never_ended_for_a_debt_of_others() {
        let limits = limits();
        let mut meter = IngressMeter::default();
        meter.follow(&limits, &[0x81]);
        let debt = Debt {
            own: Duration::ZERO,
            shared: Duration::from_secs(600),
        };
        for second in 0..600 {
            let action = meter.step(&limits, debt, second * 1000 * MILLI, || true);
            assert_eq!(action, IngressAction::Pause(Duration::from_secs(10)));
        }
    }

    #[test]
    fn frames_and_time_are_limited_without_rates() {
        let limits = IngressLimits {
            commands: None,
            bytes: None,
            ..limits()
        };
        let mut meter = IngressMeter::default();
        let (quota, much) = (Quota::default(), (u32::MAX, u32::MAX, 0));
        let action = step((&mut meter, &limits, &quota), much, || true);
        assert_eq!(action, IngressAction::Go);
        let [start, more] = [[0x01, 0x80, 0, 0, 0, 0], [0x00, 0x80, 0, 0, 0, 0]];
        for frame in [start, more, more] {
            assert_eq!(meter.follow(&limits, &frame), None);
        }
        let fourth = meter.follow(&limits, &more);
        assert_eq!(fourth, Some(Disconnect::Fragments));
    }

    #[test]
    fn slow_messages_time_out_each_for_itself() {
        let (limits, quota) = (limits(), Quota::default());
        let mut meter = IngressMeter::default();
        let minute = 60_000 * MILLI;
        let byte =
            |meter: &mut IngressMeter, now| step((meter, &limits, &quota), (0, 1, now), || false);
        for tenth in 0..600 {
            meter.follow(&limits, if tenth == 0 { &[0x81] } else { &[] });
            assert_eq!(byte(&mut meter, tenth * minute / 600), IngressAction::Go);
        }
        let late = byte(&mut meter, minute);
        assert_eq!(late, IngressAction::End(Disconnect::Stalled));
        // Its end, and the beginning of the next one.
        meter.follow(&limits, &[0x80, 0, 0, 0, 0, 0x81]);
        assert_eq!(byte(&mut meter, minute), IngressAction::Go);
    }

    #[test]
    fn state_is_small_because_every_connection_has_one() {
        assert!(
            size_of::<IngressMeter>() <= 24,
            "{}",
            size_of::<IngressMeter>()
        );
    }
}
