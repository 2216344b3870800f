//! Whether this node reaches everyone: once a second it publishes a word to its own topic, and the
//! subscription must hear it. Plain logic; the publishing task asks it what to do and tells it what
//! happened.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a word is sent.
const INTERVAL: Duration = Duration::from_secs(1);

/// Three words without an echo: something is dead, however alive its socket looks.
const MISSED: Duration = Duration::from_secs(3);

/// Words on their way of which the times are kept: more than there can be before both connections
/// are made anew.
const SENT: usize = 8;

/// How long a connection may be away before the node says so; a shorter absence is healed without
/// anyone noticing.
const ABSENCE: Duration = Duration::from_secs(1);

/// What the subscription's task tells the publishing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Connected, and listening to the node's own topic.
    Up,
    Down,
    /// The word came back.
    Heard,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// Send a word.
    pub probe: bool,
    /// What is published comes back.
    pub ready: bool,
    /// Both connections say that they are alive, but no word comes through: make both anew.
    pub remake: bool,
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

/// The state of the two connections and of the word between them.
#[derive(Debug)]
pub struct LivenessProbe {
    publishes: Side,
    subscription: Side,
    received_at: Option<Instant>,
    probed: Option<Instant>,
    /// When the words were sent that have not come back, the oldest first: they come in order.
    sent: VecDeque<Instant>,
    /// How long the last one took that has.
    took: Option<Duration>,
}

impl LivenessProbe {
    pub fn new(now: Instant) -> Self {
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

    /// The connection for publishes came, or is not there.
    pub fn publishes(&mut self, up: bool, now: Instant) {
        if up || self.publishes.up {
            self.publishes = Side { up, since: now };
            self.begin_anew();
        }
    }

    /// The subscription's task has something to tell.
    pub fn signal(&mut self, signal: Signal, now: Instant) {
        match signal {
            Signal::Heard => {
                self.received_at = Some(now);
                if let Some(sent) = self.sent.pop_front() {
                    self.took = Some(now.duration_since(sent));
                }
            }
            Signal::Up | Signal::Down => {
                let up = signal == Signal::Up;
                self.subscription = Side { up, since: now };
                self.begin_anew();
            }
        }
    }

    /// What was on its way is lost, or will not be known for what it is.
    fn begin_anew(&mut self) {
        self.probed = None;
        self.sent.clear();
    }

    /// How long a word takes at present: as long as the last one did, or as one has not come back
    /// for. `None` while the node is not ready.
    pub fn round_trip(&self, now: Instant) -> Option<Duration> {
        let awaited = self.sent.front().map(|sent| now.duration_since(*sent));
        self.took.max(awaited).filter(|_| self.is_ready(now))
    }

    fn is_ready(&self, now: Instant) -> bool {
        !is_due(self.received_at, MISSED, now)
            && !self.publishes.is_away(now)
            && !self.subscription.is_away(now)
    }

    pub fn verdict(&mut self, now: Instant) -> Liveness {
        let both = self.publishes.up && self.subscription.up;
        let probe = both && is_due(self.probed, INTERVAL, now);
        if probe {
            self.probed = Some(now);
            if self.sent.len() == SENT {
                self.sent.clear();
            }
            self.sent.push_back(now);
        }
        let patient_since = self.publishes.since.max(self.subscription.since);
        Liveness {
            probe,
            ready: self.is_ready(now),
            remake: both
                && is_due(self.received_at, MISSED, now)
                && now.duration_since(patient_since) >= MISSED,
        }
    }
}

fn is_due(last: Option<Instant>, time: Duration, now: Instant) -> bool {
    last.is_none_or(|last| now - last >= time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(probe: bool, ready: bool, remake: bool) -> Liveness {
        Liveness {
            probe,
            ready,
            remake,
        }
    }

    fn after(seconds: f64, start: Instant) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_node_is_ready_when_its_word_comes_back() {
        let start = Instant::now();
        let mut pulse = LivenessProbe::new(start);
        assert_eq!(pulse.verdict(start), verdict(false, false, false));
        pulse.publishes(true, start);
        assert_eq!(pulse.verdict(start), verdict(false, false, false));
        pulse.signal(Signal::Up, start);
        assert_eq!(pulse.verdict(start), verdict(true, false, false));
        pulse.signal(Signal::Heard, start);
        assert_eq!(
            pulse.verdict(after(0.5, start)),
            verdict(false, true, false)
        );
        assert_eq!(pulse.verdict(after(1.0, start)), verdict(true, true, false));
    }

    #[test]
    fn three_missed_words_remake_both_connections_once() {
        let start = Instant::now();
        let mut pulse = LivenessProbe::new(start);
        pulse.publishes(true, start);
        pulse.signal(Signal::Up, start);
        pulse.signal(Signal::Heard, after(1.0, start));
        assert!(!pulse.verdict(after(3.9, start)).remake);
        assert_eq!(
            pulse.verdict(after(4.0, start)),
            verdict(false, false, true)
        );
        pulse.publishes(true, after(4.1, start));
        pulse.signal(Signal::Up, after(4.1, start));
        let soon = pulse.verdict(after(4.2, start));
        assert_eq!(soon, verdict(true, false, false), "they get their time");
    }

    #[test]
    fn a_short_absence_is_not_told() {
        let start = Instant::now();
        let mut pulse = LivenessProbe::new(start);
        pulse.publishes(true, start);
        pulse.signal(Signal::Up, start);
        pulse.signal(Signal::Heard, start);
        pulse.publishes(false, after(0.5, start));
        assert!(pulse.verdict(after(1.4, start)).ready);
        assert!(!pulse.verdict(after(1.6, start)).ready);
        pulse.publishes(true, after(1.7, start));
        assert_eq!(pulse.verdict(after(1.7, start)), verdict(true, true, false));
    }

    #[test]
    fn the_round_trip_is_that_of_the_last_word_or_the_wait_for_the_next() {
        let start = Instant::now();
        let mut pulse = LivenessProbe::new(start);
        pulse.publishes(true, start);
        pulse.signal(Signal::Up, start);
        assert_eq!(pulse.round_trip(start), None);
        assert!(pulse.verdict(start).probe);
        pulse.signal(Signal::Heard, after(0.25, start));
        let told = |pulse: &LivenessProbe, seconds| {
            let time = pulse.round_trip(after(seconds, start));
            time.map(|time| time.as_secs_f64())
        };
        assert_eq!(told(&pulse, 0.9), Some(0.25));
        for second in [1.0, 2.0, 3.0] {
            assert!(pulse.verdict(after(second, start)).probe);
        }
        assert_eq!(told(&pulse, 1.125), Some(0.25));
        assert_eq!(
            told(&pulse, 2.5),
            Some(1.5),
            "it has not come back for so long"
        );
        pulse.signal(Signal::Heard, after(3.0, start));
        assert_eq!(told(&pulse, 3.0), Some(2.0), "the one that was sent first");
        assert_eq!(told(&pulse, 6.5), None, "nothing comes back");
        pulse.signal(Signal::Down, after(7.0, start));
        pulse.signal(Signal::Up, after(7.5, start));
        assert!(pulse.verdict(after(7.5, start)).probe);
        pulse.signal(Signal::Heard, after(8.0, start));
        assert_eq!(told(&pulse, 8.0), Some(0.5), "what was lost is forgotten");
    }
}
