//! The limits of what one session sends: commands and bytes by rate, frames of a message by number,
//! a message by time. The reader reports every read before the next one, and receives the verdict
//! to continue, to pause, or to end.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Bucket, Fragments, Rate};
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
///           bucket in debt                       still in debt after `rate_timeout`
///   within ───────────────▶ over (reads, pauses) ────────────────────────────────▶ ended
///      ▲                      │
///      └──────────────────────┘ everything the client has sent is read
/// ```
///
/// So a client that sends a burst, or that waits for each answer before it goes on, is only slowed
/// down, for any time; only a client whose data never runs out in spite of the pauses is
/// disconnected.
#[derive(Debug, Default)]
pub(crate) struct IngressMeter {
    commands: Bucket,
    bytes: Bucket,
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

    /// Charges the bytes read and the commands decoded from them.
    pub(crate) fn charge(
        &mut self,
        limits: &IngressLimits,
        commands: u32,
        bytes: u32,
        now: u64,
    ) -> IngressAction {
        if self.frames.is_under_way() && self.begun.at(now) >= limits.message_timeout {
            return IngressAction::End(Disconnect::Stalled);
        }
        let wait = |bucket: &mut Bucket, rate: &Option<Rate>, units| match rate {
            Some(rate) => bucket.take(rate, units, now),
            None => Duration::ZERO,
        };
        let wait = wait(&mut self.commands, &limits.commands, commands).max(wait(
            &mut self.bytes,
            &limits.bytes,
            bytes,
        ));
        if wait.is_zero() {
            return IngressAction::Go;
        }
        match limits.rate_timeout.saturating_sub(self.over.at(now)) {
            Duration::ZERO => IngressAction::End(Disconnect::TooFast),
            left => IngressAction::Pause(wait.min(left)),
        }
    }

    /// All bytes that the client has sent are read.
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

    /// A client whose data never runs out: when it is disconnected, and how much was read of it.
    fn flood(mut charge: impl FnMut(u64) -> IngressAction) -> (u64, u64) {
        let (mut now, mut turns) = (0, 0);
        loop {
            turns += 1;
            match charge(now) {
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
    fn sessions_over_their_rate_pause_and_end_after_the_timeout() {
        let limits = limits();
        let mut meter = IngressMeter::default();
        for second in 0..1000 {
            for tenth in 0..10 {
                let now = (second * 1000 + tenth * 100) * MILLI;
                assert_eq!(meter.charge(&limits, 10, 100, now), IngressAction::Go);
            }
        }
        let mut meter = IngressMeter::default();
        let (ended, turns) = flood(|now| meter.charge(&limits, 1, 1, now));
        // The burst lasts 0.2 s at one a millisecond, then come ten seconds at the rate.
        assert!((10_100..10_400).contains(&ended), "{ended} ms");
        assert!((1200..1260).contains(&turns), "{turns}");
        let mut meter = IngressMeter::default();
        let (ended, _) = flood(|now| meter.charge(&limits, 0, 1000, now));
        assert!((10_000..10_200).contains(&ended), "{ended} ms");
    }

    #[test]
    fn sessions_whose_data_runs_out_are_only_slowed_down() {
        let limits = limits();
        let mut meter = IngressMeter::default();
        let mut now = 0;
        let mut commands = 0;
        while now < 100_000 * MILLI {
            commands += 1;
            meter.caught_up();
            match meter.charge(&limits, 1, 1, now) {
                IngressAction::Go => now += MILLI,
                IngressAction::Pause(time) => now += time.as_nanos() as u64,
                end => panic!("{end:?}"),
            }
        }
        assert!((10_000..10_300).contains(&commands), "{commands}");
    }

    #[test]
    fn pauses_end_at_the_rate_timeout() {
        let limits = limits();
        let mut meter = IngressMeter::default();
        let pause = meter.charge(&limits, 1_000_000, 0, 0);
        assert_eq!(pause, IngressAction::Pause(Duration::from_secs(10)));
        let ended = meter.charge(&limits, 1, 0, 10_000 * MILLI);
        assert_eq!(ended, IngressAction::End(Disconnect::TooFast));
    }

    #[test]
    fn frames_and_time_are_limited_without_rates() {
        let limits = IngressLimits {
            commands: None,
            bytes: None,
            ..limits()
        };
        let mut meter = IngressMeter::default();
        assert_eq!(
            meter.charge(&limits, u32::MAX, u32::MAX, 0),
            IngressAction::Go
        );
        let [start, more] = [[0x01, 0x80, 0, 0, 0, 0], [0x00, 0x80, 0, 0, 0, 0]];
        for frame in [start, more, more] {
            assert_eq!(meter.follow(&limits, &frame), None);
        }
        let fourth = meter.follow(&limits, &more);
        assert_eq!(fourth, Some(Disconnect::Fragments));
    }

    #[test]
    fn slow_messages_time_out_each_for_itself() {
        let limits = limits();
        let mut meter = IngressMeter::default();
        let minute = 60_000 * MILLI;
        for tenth in 0..600 {
            meter.follow(&limits, if tenth == 0 { &[0x81] } else { &[] });
            assert_eq!(
                meter.charge(&limits, 0, 1, tenth * minute / 600),
                IngressAction::Go
            );
        }
        let late = meter.charge(&limits, 0, 1, minute);
        assert_eq!(late, IngressAction::End(Disconnect::Stalled));
        // Its end, and the beginning of the next one.
        meter.follow(&limits, &[0x80, 0, 0, 0, 0, 0x81]);
        assert_eq!(meter.charge(&limits, 0, 1, minute), IngressAction::Go);
    }

    #[test]
    fn state_is_small_because_every_connection_has_one() {
        assert!(
            size_of::<IngressMeter>() <= 40,
            "{}",
            size_of::<IngressMeter>()
        );
    }
}
