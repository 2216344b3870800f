//! Detects whether messages pass through Redis: once a second the node publishes a probe to its own
//! topic, and its subscription must receive it. Plain logic; the shard passes it events and
//! carries out its verdicts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a probe is sent.
const INTERVAL: Duration = Duration::from_secs(1);

/// Three probes without an echo: a connection is dead, even if its socket looks alive.
const MISSED: Duration = Duration::from_secs(3);

/// The most probes in flight whose times are kept: more than there can be before both connections
/// are replaced.
const SENT: usize = 8;

/// How long a connection may be down before the node reports itself as not ready; clients do not
/// notice a shorter absence.
const ABSENCE: Duration = Duration::from_secs(1);

/// An event that the subscription's task reports to the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LivenessSignal {
    /// Connected, and subscribed to the node's own topic.
    Up,
    Down,
    /// The probe came back.
    ProbeReceived,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Liveness {
    /// Send a probe.
    pub probe: bool,
    /// Probes come back.
    pub ready: bool,
    /// Both connections are up, but no probe comes back: replace both.
    pub reconnect: bool,
}

/// One connection: up or down, and since when.
#[derive(Clone, Copy, Debug)]
struct Side {
    up: bool,
    since: Instant,
}

impl Side {
    fn is_away(self, now: Instant) -> bool {
        !self.up && now.duration_since(self.since) > ABSENCE
    }
}

/// The state of the two connections and of the probes between them.
#[derive(Debug)]
pub(super) struct LivenessProbe {
    publishes: Side,
    subscription: Side,
    received_at: Option<Instant>,
    probed: Option<Instant>,
    /// When the probes in flight were sent, oldest first: they come back in order.
    sent: VecDeque<Instant>,
    /// The round trip of the last probe that came back.
    took: Option<Duration>,
}

impl LivenessProbe {
    pub(super) fn new(now: Instant) -> Self {
        let down = Side {
            up: false,
            since: now,
        };
        Self {
            publishes: down,
            subscription: down,
            received_at: None,
            probed: None,
            sent: VecDeque::with_capacity(SENT),
            took: None,
        }
    }

    /// The connection for publishes is up or down.
    pub(super) fn publishes(&mut self, up: bool, now: Instant) {
        if up || self.publishes.up {
            self.publishes = Side { up, since: now };
            self.forget_probes();
        }
    }

    /// The subscription's task reports an event.
    pub(super) fn signal(&mut self, signal: LivenessSignal, now: Instant) {
        match signal {
            LivenessSignal::ProbeReceived => {
                self.received_at = Some(now);
                if let Some(sent) = self.sent.pop_front() {
                    self.took = Some(now.duration_since(sent));
                }
            }
            LivenessSignal::Up | LivenessSignal::Down => {
                let up = signal == LivenessSignal::Up;
                self.subscription = Side { up, since: now };
                self.forget_probes();
            }
        }
    }

    /// The probes in flight are lost, or can no longer be matched.
    fn forget_probes(&mut self) {
        self.probed = None;
        self.sent.clear();
    }

    /// The present round trip: that of the last probe, or the wait for the next if it is longer.
    /// `None` while the node is not ready.
    pub(super) fn round_trip(&self, now: Instant) -> Option<Duration> {
        let awaited = self.sent.front().map(|sent| now.duration_since(*sent));
        self.took.max(awaited).filter(|_| self.is_ready(now))
    }

    fn is_ready(&self, now: Instant) -> bool {
        !is_due(self.received_at, MISSED, now)
            && !self.publishes.is_away(now)
            && !self.subscription.is_away(now)
    }

    pub(super) fn verdict(&mut self, now: Instant) -> Liveness {
        let both = self.publishes.up && self.subscription.up;
        let probe = both && is_due(self.probed, INTERVAL, now);
        if probe {
            self.probed = Some(now);
            if self.sent.len() == SENT {
                self.sent.clear();
            }
            self.sent.push_back(now);
        }
        let since = self.publishes.since.max(self.subscription.since);
        Liveness {
            probe,
            ready: self.is_ready(now),
            reconnect: both
                && is_due(self.received_at, MISSED, now)
                && now.duration_since(since) >= MISSED,
        }
    }
}

fn is_due(last: Option<Instant>, time: Duration, now: Instant) -> bool {
    last.is_none_or(|last| now - last >= time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(probe: bool, ready: bool, reconnect: bool) -> Liveness {
        Liveness {
            probe,
            ready,
            reconnect,
        }
    }

    fn after(seconds: f64, start: Instant) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn node_is_ready_when_its_probe_comes_back() {
        let start = Instant::now();
        let mut liveness = LivenessProbe::new(start);
        assert_eq!(liveness.verdict(start), verdict(false, false, false));
        liveness.publishes(true, start);
        assert_eq!(liveness.verdict(start), verdict(false, false, false));
        liveness.signal(LivenessSignal::Up, start);
        assert_eq!(liveness.verdict(start), verdict(true, false, false));
        liveness.signal(LivenessSignal::ProbeReceived, start);
        assert_eq!(
            liveness.verdict(after(0.5, start)),
            verdict(false, true, false)
        );
        assert_eq!(
            liveness.verdict(after(1.0, start)),
            verdict(true, true, false)
        );
    }

    #[test]
    fn three_missed_probes_replace_both_connections_once() {
        let start = Instant::now();
        let mut liveness = LivenessProbe::new(start);
        liveness.publishes(true, start);
        liveness.signal(LivenessSignal::Up, start);
        liveness.signal(LivenessSignal::ProbeReceived, after(1.0, start));
        assert!(!liveness.verdict(after(3.9, start)).reconnect);
        assert_eq!(
            liveness.verdict(after(4.0, start)),
            verdict(false, false, true)
        );
        liveness.publishes(true, after(4.1, start));
        liveness.signal(LivenessSignal::Up, after(4.1, start));
        let soon = liveness.verdict(after(4.2, start));
        assert_eq!(
            soon,
            verdict(true, false, false),
            "the new connections get their time"
        );
    }

    #[test]
    fn short_absence_does_not_change_readiness() {
        let start = Instant::now();
        let mut liveness = LivenessProbe::new(start);
        liveness.publishes(true, start);
        liveness.signal(LivenessSignal::Up, start);
        liveness.signal(LivenessSignal::ProbeReceived, start);
        liveness.publishes(false, after(0.5, start));
        assert!(liveness.verdict(after(1.4, start)).ready);
        assert!(!liveness.verdict(after(1.6, start)).ready);
        liveness.publishes(true, after(1.7, start));
        assert_eq!(
            liveness.verdict(after(1.7, start)),
            verdict(true, true, false)
        );
    }

    #[test]
    fn round_trip_is_that_of_the_last_probe_or_the_wait_for_the_next() {
        let start = Instant::now();
        let mut liveness = LivenessProbe::new(start);
        liveness.publishes(true, start);
        liveness.signal(LivenessSignal::Up, start);
        assert_eq!(liveness.round_trip(start), None);
        assert!(liveness.verdict(start).probe);
        liveness.signal(LivenessSignal::ProbeReceived, after(0.25, start));
        let seconds_at = |liveness: &LivenessProbe, seconds| {
            let time = liveness.round_trip(after(seconds, start));
            time.map(|time| time.as_secs_f64())
        };
        assert_eq!(seconds_at(&liveness, 0.9), Some(0.25));
        for second in [1.0, 2.0, 3.0] {
            assert!(liveness.verdict(after(second, start)).probe);
        }
        assert_eq!(seconds_at(&liveness, 1.125), Some(0.25));
        assert_eq!(
            seconds_at(&liveness, 2.5),
            Some(1.5),
            "it has not come back for so long"
        );
        liveness.signal(LivenessSignal::ProbeReceived, after(3.0, start));
        assert_eq!(
            seconds_at(&liveness, 3.0),
            Some(2.0),
            "the one that was sent first"
        );
        assert_eq!(seconds_at(&liveness, 6.5), None, "nothing comes back");
        liveness.signal(LivenessSignal::Down, after(7.0, start));
        liveness.signal(LivenessSignal::Up, after(7.5, start));
        assert!(liveness.verdict(after(7.5, start)).probe);
        liveness.signal(LivenessSignal::ProbeReceived, after(8.0, start));
        assert_eq!(
            seconds_at(&liveness, 8.0),
            Some(0.5),
            "lost probes are forgotten"
        );
    }
}
