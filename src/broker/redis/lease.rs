//! The lease of this node: while it is held, what the node says of its members stands. Plain logic;
//! the times of Redis are milliseconds of its own clock, which judges alone when a lease is over.
//!
//! **Why a late word of a dead lease changes nothing.** A lease is taken once; its end only moves
//! forward, and only by a script that finds it still held. So once the end is past, that lease is
//! over for ever, and its node takes another (the count in its name tells them apart). Every word
//! about members carries the end that the node knew when it sent it, which is not later than the
//! real one, and the script refuses it when that end is past. Others take out what a lease has said
//! a margin after its real end. So whatever comes after the taking out comes after the end it
//! carries. A shortened lease ends no earlier than words whose answers were lost
//! ([`Lease::retire`]). It is assumed that the clock of Redis goes forward, and on several servers
//! that their clocks differ by less than the margin; a clock that is set back ends all leases,
//! instead of prolonging them.
//!
//! **Why an outage empties no room.** Only a node takes out that has renewed its own lease for one
//! lease's time without a pause; after an outage of Redis nobody has, until everybody has come
//! back.

use std::fmt;
use std::time::{Duration, Instant};

use crate::broker::redis::wire::Format;
use crate::model::id::Incarnation;

/// How long a lease is: a node that is killed has left for everyone within this time, the margin
/// and a second.
pub const LEASE: Duration = Duration::from_secs(10);

/// The longest time that [`Lease::retire`] may ask for. Ends further ahead are from before the
/// clock was set back.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The name of a lease: the run of the node, and which of its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId {
    pub run: Incarnation,
    pub count: u32,
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run, self.count)
    }
}

/// A request for the lease, in the words of `lease.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    pub lease: LeaseId,
    /// It may be taken, not only renewed.
    pub take: bool,
    pub span: Duration,
    /// It ends no earlier than this.
    pub earliest: u64,
    /// How long a lease may be that is renewed so.
    pub usual: Duration,
}

/// What Redis says to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub state: Answered,
    pub clock: u64,
    pub replid: String,
    /// The lowest format of all leases that are not over.
    pub lowest_format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    Held { ends: u64, former: Option<u64> },
    Lapsed,
    Lost,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    None,
    /// What was said is said no longer: it must be said anew, under the next lease.
    Over,
}

/// See the head of this file.
///
/// ```text
///            held                  lapsed, lost, another data set
///   Wanted ────────▶ Held (renewed) ──────────────────────────────▶ Wanted (of the next count)
///                     └─ retire ─▶ Retiring (shortened, once) ─▶ Retired
/// ```
#[derive(Debug)]
pub struct Lease {
    id: LeaseId,
    span: Duration,
    state: State,
    /// The data set it was taken in.
    replid: String,
    /// When it is to be asked for.
    due: Instant,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Wanted,
    Held {
        ends: u64,
        /// Renewed since then without a pause.
        since: Instant,
    },
    Retiring {
        until: Instant,
    },
    Retired {
        ends: Option<u64>,
    },
}

impl Lease {
    pub fn new(run: Incarnation, span: Duration, now: Instant) -> Self {
        Self {
            id: LeaseId { run, count: 1 },
            span,
            state: State::Wanted,
            replid: String::new(),
            due: now,
        }
    }

    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// When it ends as far as is known; `None`: there is none at the moment, or it is being
    /// shortened and nothing may be said with a later end.
    pub fn ends(&self) -> Option<u64> {
        match self.state {
            State::Held { ends, .. } => Some(ends),
            State::Retired { ends } => ends,
            State::Wanted | State::Retiring { .. } => None,
        }
    }

    pub fn is_retiring(&self) -> bool {
        matches!(self.state, State::Retiring { .. } | State::Retired { .. })
    }

    /// Whether this node has renewed long enough without a pause to know that others who have not
    /// are gone.
    pub fn may_reap(&self, now: Instant) -> bool {
        matches!(self.state, State::Held { since, .. } if now >= since + self.span)
    }

    /// What is to be asked now. `doubt`: until when something may yet be done under this lease
    /// whose answer was lost.
    pub fn ask(&mut self, doubt: u64, now: Instant) -> Option<Renewal> {
        if now < self.due {
            return None;
        }
        self.due = now + self.span / 10;
        let renewal = |take, span, earliest, usual| Renewal {
            lease: self.id,
            take,
            span,
            earliest,
            usual,
        };
        match self.state {
            State::Wanted => Some(renewal(true, self.span, 0, self.span)),
            State::Held { .. } => Some(renewal(false, self.span, 0, self.span)),
            State::Retiring { until } => {
                let span = until.saturating_duration_since(now);
                Some(renewal(false, span, doubt, LONGEST))
            }
            State::Retired { .. } => None,
        }
    }

    /// What was asked was answered.
    pub fn answered(&mut self, asked: &Renewal, answer: &Answer, now: Instant) -> News {
        if asked.lease != self.id {
            return News::None;
        }
        match (self.state, answer.state) {
            (State::Retired { .. }, _) => News::None,
            (State::Retiring { .. }, state) => {
                // Unless it was renewed just before it was to be shortened.
                if asked.usual == LONGEST {
                    self.state = match state {
                        Answered::Held { ends, .. } => State::Retired { ends: Some(ends) },
                        Answered::Lapsed | Answered::Lost => State::Retired { ends: None },
                    };
                }
                News::None
            }
            (State::Wanted, Answered::Held { ends, .. }) => {
                self.replid.clone_from(&answer.replid);
                self.state = State::Held { ends, since: now };
                News::None
            }
            (State::Held { since, .. }, Answered::Held { ends, former })
                if self.replid == answer.replid =>
            {
                let since = match former.map(|former| ends.saturating_sub(former)) {
                    Some(pause) if u128::from(pause) <= self.longest_pause() => since,
                    _ => now,
                };
                self.state = State::Held { ends, since };
                News::None
            }
            (State::Wanted | State::Held { .. }, _) => {
                self.state = State::Wanted;
                self.id.count = self.id.count.wrapping_add(1);
                self.due = now;
                News::Over
            }
        }
    }

    /// What was asked was not answered. It may have been done, so this lease is not taken twice:
    /// others may know it as over.
    pub fn unanswered(&mut self, asked: &Renewal, now: Instant) {
        if asked.take && asked.lease == self.id {
            self.id.count = self.id.count.wrapping_add(1);
        }
        self.due = now;
    }

    /// Ask at once: the connection is new, or a word was refused as too late.
    pub fn hurry(&mut self, now: Instant) {
        self.due = now;
    }

    /// From now on it is shortened instead of renewed.
    pub fn retire(&mut self, span: Duration, now: Instant) {
        if self.is_retiring() {
            return;
        }
        self.state = match self.state {
            State::Held { .. } => State::Retiring {
                until: now + span.min(LONGEST),
            },
            _ => State::Retired { ends: None },
        };
        self.due = now;
    }

    /// Three renewals without an answer are a pause. In milliseconds.
    fn longest_pause(&self) -> u128 {
        (self.span * 3 / 10).as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = LEASE;

    fn held(ends: u64, former: Option<u64>) -> Answer {
        answer(Answered::Held { ends, former }, "a")
    }

    fn answer(state: Answered, replid: &str) -> Answer {
        Answer {
            state,
            clock: 0,
            replid: replid.to_owned(),
            lowest_format: Format::FIRST,
        }
    }

    fn after(seconds: u64, start: Instant) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// A lease taken at 0 that ends at 10,000.
    fn taken(start: Instant) -> Lease {
        let mut lease = Lease::new(Incarnation(1), SPAN, start);
        let ask = lease.ask(0, start).unwrap();
        assert!(ask.take);
        assert_eq!(lease.answered(&ask, &held(10_000, None), start), News::None);
        lease
    }

    fn renew(lease: &mut Lease, answer: &Answer, now: Instant) -> News {
        let ask = lease.ask(0, now).expect("it is due");
        assert!(!ask.take);
        lease.answered(&ask, answer, now)
    }

    #[test]
    fn a_node_may_reap_when_it_has_renewed_for_a_lease_without_a_pause() {
        let start = Instant::now();
        let mut lease = taken(start);
        for second in 1..=10 {
            assert!(!lease.may_reap(after(second, start) - Duration::from_millis(1)));
            let ends = 10_000 + second * 1000;
            let answer = held(ends, Some(ends - 1000));
            renew(&mut lease, &answer, after(second, start));
        }
        assert!(lease.may_reap(after(10, start)));
        // Redis was away for eight seconds: others that are a little older are over, and nobody is
        // dead.
        renew(&mut lease, &held(28_000, Some(20_000)), after(18, start));
        assert!(!lease.may_reap(after(18, start)));
        assert!(!lease.may_reap(after(27, start)));
    }

    #[test]
    fn whatever_ends_a_lease_makes_the_next_one_and_everything_is_said_anew() {
        for ended in [
            answer(Answered::Lapsed, "a"),
            answer(Answered::Lost, "a"),
            answer(
                Answered::Held {
                    ends: 11_000,
                    former: Some(10_000),
                },
                "another data set",
            ),
        ] {
            let start = Instant::now();
            let mut lease = taken(start);
            let news = renew(&mut lease, &ended, after(1, start));
            assert_eq!(news, News::Over, "{ended:?}");
            assert_eq!(lease.ends(), None, "nothing may be said");
            let ask = lease.ask(0, after(1, start)).expect("at once");
            assert_eq!((ask.take, ask.lease.count), (true, 2));
        }
    }

    #[test]
    fn a_lease_whose_taking_was_not_answered_is_not_taken_again() {
        let start = Instant::now();
        let mut lease = Lease::new(Incarnation(1), SPAN, start);
        let first = lease.ask(0, start).unwrap();
        lease.unanswered(&first, start);
        let second = lease.ask(0, start).expect("at once");
        assert_ne!(second.lease, first.lease);
        lease.answered(&first, &held(9000, None), start);
        assert_eq!(lease.ends(), None, "too late");
        lease.answered(&second, &held(10_000, None), start);
        assert_eq!(lease.ends(), Some(10_000));
        let renewal = lease.ask(0, after(1, start)).unwrap();
        lease.unanswered(&renewal, after(1, start));
        assert_eq!(lease.id(), second.lease, "one that is held is asked about");
    }

    #[test]
    fn a_retired_lease_is_shortened_once_but_not_below_what_is_in_doubt() {
        let start = Instant::now();
        let mut lease = taken(start);
        let late = lease.ask(0, after(1, start)).unwrap();
        lease.retire(Duration::from_secs(5), after(1, start));
        let now = after(2, start);
        lease.answered(&late, &held(11_000, Some(10_000)), now);
        let ask = lease.ask(7000, now).expect("at once");
        assert_eq!((ask.span, ask.earliest), (Duration::from_secs(4), 7000));
        lease.answered(&ask, &held(7000, Some(11_000)), now);
        assert_eq!(lease.ask(0, after(60, start)), None, "no more");
        assert!(!lease.may_reap(after(60, start)));
    }
}
