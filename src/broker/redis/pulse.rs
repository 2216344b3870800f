//! Whether this node reaches everyone: once a second it publishes a word to its own topic, and the subscription must hear
//! it. Plain logic; the publishing task asks it what to do and tells it what happened.

use std::time::{Duration, Instant};

/// How often a word is sent.
const INTERVAL: Duration = Duration::from_secs(1);

/// Three words without an echo: something is dead, however alive its socket looks.
const MISSED: Duration = Duration::from_secs(3);

/// How long a connection may be away before the node says so; a shorter absence is healed without anyone noticing.
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
pub struct Verdict {
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
pub struct Pulse {
    publishes: Side,
    subscription: Side,
    heard: Option<Instant>,
    probed: Option<Instant>,
}

impl Pulse {
    pub fn new(now: Instant) -> Self {
        let down = Side {
            up: false,
            since: now,
        };
        Self {
            publishes: down,
            subscription: down,
            heard: None,
            probed: None,
        }
    }

    /// The connection for publishes came, or is not there.
    pub fn publishes(&mut self, up: bool, now: Instant) {
        if up || self.publishes.up {
            self.publishes = Side { up, since: now };
            self.probed = None;
        }
    }

    /// The subscription's task has something to tell.
    pub fn signal(&mut self, signal: Signal, now: Instant) {
        match signal {
            Signal::Heard => self.heard = Some(now),
            Signal::Up | Signal::Down => {
                let up = signal == Signal::Up;
                self.subscription = Side { up, since: now };
                self.probed = None;
            }
        }
    }

    pub fn verdict(&mut self, now: Instant) -> Verdict {
        let both = self.publishes.up && self.subscription.up;
        let due = |last: Option<Instant>, time| last.is_none_or(|last| now - last >= time);
        let probe = both && due(self.probed, INTERVAL);
        if probe {
            self.probed = Some(now);
        }
        let patient_since = self.publishes.since.max(self.subscription.since);
        Verdict {
            probe,
            ready: !due(self.heard, MISSED)
                && !self.publishes.is_away(now)
                && !self.subscription.is_away(now),
            remake: both && due(self.heard, MISSED) && now.duration_since(patient_since) >= MISSED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(probe: bool, ready: bool, remake: bool) -> Verdict {
        Verdict {
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
        let mut pulse = Pulse::new(start);
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
        let mut pulse = Pulse::new(start);
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
        let mut pulse = Pulse::new(start);
        pulse.publishes(true, start);
        pulse.signal(Signal::Up, start);
        pulse.signal(Signal::Heard, start);
        pulse.publishes(false, after(0.5, start));
        assert!(pulse.verdict(after(1.4, start)).ready);
        assert!(!pulse.verdict(after(1.6, start)).ready);
        pulse.publishes(true, after(1.7, start));
        assert_eq!(pulse.verdict(after(1.7, start)), verdict(true, true, false));
    }
}
