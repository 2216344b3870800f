//! The lease of this node. The members that a node writes stay in Redis while its lease is held.
//! Plain logic; times of Redis are milliseconds of its own clock, which alone decides when a lease
//! is over.
//!
//! **Why a late update under an ended lease changes nothing.** A lease is taken once; its end only
//! moves forward, and only by a script that finds it still held. So once the end is past, that
//! lease is over for ever, and its node takes another (the count in the name distinguishes them).
//! Every update of members carries the latest end that the node knows, which is not later than the
//! real one, and the script refuses the update when that end is past. Other nodes remove the
//! members of a lease a margin after its real end. So every update that arrives after the removal
//! also arrives after the end it carries, and is refused. A shortened lease ends no earlier than
//! the updates whose answers were lost ([`Lease::retire`]). Two assumptions: the clock of Redis
//! goes forward, and the clocks of several servers differ by less than the margin. A clock that is
//! set back ends all leases instead of prolonging them.
//!
//! **Why an outage empties no room.** A node reaps only if it has renewed its own lease without a
//! pause for the length of a lease. After an outage of Redis no node has, until all have had the
//! time to come back.

use std::fmt;
use std::time::{Duration, Instant};

use crate::broker::redis::wire::Format;
use crate::model::id::Incarnation;

/// The length of a lease. The members of a killed node are removed within this time, the margin and
/// a second.
pub const LEASE: Duration = Duration::from_secs(10);

/// The longest time that [`Lease::retire`] may ask for: the longest `--presence-grace`. Ends
/// further ahead are from before the clock was set back.
pub(crate) const LONGEST: Duration = Duration::from_secs(5 * 60);

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

/// A request for the lease; the arguments of `lease.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    pub lease: LeaseId,
    /// It may be taken, not only renewed.
    pub take: bool,
    pub span: Duration,
    /// It ends no earlier than this.
    pub earliest: u64,
    /// The longest that a lease renewed so can be.
    pub usual: Duration,
}

/// The answer of `lease.lua`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseAnswer {
    pub state: LeaseStatus,
    pub clock: u64,
    pub replid: String,
    /// The lowest format of all leases that are not over.
    pub lowest_format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStatus {
    Held { ends: u64, former: Option<u64> },
    Lapsed,
    Lost,
}

/// What an answer changes for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseChange {
    None,
    /// The lease is over: all members must be sent again, under the next one.
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
pub(crate) struct Lease {
    id: LeaseId,
    span: Duration,
    state: LeaseState,
    /// The data set it was taken in.
    replid: String,
    /// When the next renewal is due.
    due: Instant,
}

#[derive(Clone, Copy, Debug)]
enum LeaseState {
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
    pub(crate) fn new(run: Incarnation, span: Duration, now: Instant) -> Self {
        Self {
            id: LeaseId { run, count: 1 },
            span,
            state: LeaseState::Wanted,
            replid: String::new(),
            due: now,
        }
    }

    pub(crate) fn id(&self) -> LeaseId {
        self.id
    }

    /// The latest known end; `None`: there is no lease at the moment, or it is being shortened, and
    /// no update may be sent with a later end.
    pub(crate) fn ends(&self) -> Option<u64> {
        match self.state {
            LeaseState::Held { ends, .. } => Some(ends),
            LeaseState::Retired { ends } => ends,
            LeaseState::Wanted | LeaseState::Retiring { .. } => None,
        }
    }

    pub(crate) fn is_retiring(&self) -> bool {
        matches!(
            self.state,
            LeaseState::Retiring { .. } | LeaseState::Retired { .. }
        )
    }

    /// Whether this node has renewed without a pause for so long that nodes whose leases are over
    /// must be gone.
    pub(crate) fn may_reap(&self, now: Instant) -> bool {
        matches!(self.state, LeaseState::Held { since, .. } if now >= since + self.span)
    }

    /// The renewal that is due now. `unconfirmed_until`: until when an update under this lease
    /// whose answer was lost may still be applied.
    pub(crate) fn next_renewal(&mut self, unconfirmed_until: u64, now: Instant) -> Option<Renewal> {
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
            LeaseState::Wanted => Some(renewal(true, self.span, 0, self.span)),
            LeaseState::Held { .. } => Some(renewal(false, self.span, 0, self.span)),
            LeaseState::Retiring { until } => {
                let span = until.saturating_duration_since(now);
                Some(renewal(false, span, unconfirmed_until, LONGEST))
            }
            LeaseState::Retired { .. } => None,
        }
    }

    /// A renewal was answered.
    pub(crate) fn answered(
        &mut self,
        sent: &Renewal,
        answer: &LeaseAnswer,
        now: Instant,
    ) -> LeaseChange {
        if sent.lease != self.id {
            return LeaseChange::None;
        }
        match (self.state, answer.state) {
            (LeaseState::Retired { .. }, _) => LeaseChange::None,
            (LeaseState::Retiring { .. }, state) => {
                // Unless it was renewed just before it was to be shortened.
                if sent.usual == LONGEST {
                    self.state = match state {
                        LeaseStatus::Held { ends, .. } => LeaseState::Retired { ends: Some(ends) },
                        LeaseStatus::Lapsed | LeaseStatus::Lost => {
                            LeaseState::Retired { ends: None }
                        }
                    };
                }
                LeaseChange::None
            }
            (LeaseState::Wanted, LeaseStatus::Held { ends, .. }) => {
                self.replid.clone_from(&answer.replid);
                self.state = LeaseState::Held { ends, since: now };
                LeaseChange::None
            }
            (LeaseState::Held { since, .. }, LeaseStatus::Held { ends, former })
                if self.replid == answer.replid =>
            {
                let since = match former.map(|former| ends.saturating_sub(former)) {
                    Some(pause) if u128::from(pause) <= self.longest_pause() => since,
                    _ => now,
                };
                self.state = LeaseState::Held { ends, since };
                LeaseChange::None
            }
            (LeaseState::Wanted | LeaseState::Held { .. }, _) => {
                self.state = LeaseState::Wanted;
                self.id.count = self.id.count.wrapping_add(1);
                self.due = now;
                LeaseChange::Over
            }
        }
    }

    /// A renewal was not answered. It may have been done, so this lease is not taken twice: it may
    /// be over for other nodes.
    pub(crate) fn unanswered(&mut self, sent: &Renewal, now: Instant) {
        if sent.take && sent.lease == self.id {
            self.id.count = self.id.count.wrapping_add(1);
        }
        self.due = now;
    }

    /// Makes a renewal due: the connection is new, or an update was refused as too late.
    pub(crate) fn renew_now(&mut self, now: Instant) {
        self.due = now;
    }

    /// Shortens the lease once to `span`, instead of renewing it.
    pub(crate) fn retire(&mut self, span: Duration, now: Instant) {
        if self.is_retiring() {
            return;
        }
        self.state = match self.state {
            LeaseState::Held { .. } => LeaseState::Retiring {
                until: now + span.min(LONGEST),
            },
            _ => LeaseState::Retired { ends: None },
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

    fn held(ends: u64, former: Option<u64>) -> LeaseAnswer {
        answer(LeaseStatus::Held { ends, former }, "a")
    }

    fn answer(state: LeaseStatus, replid: &str) -> LeaseAnswer {
        LeaseAnswer {
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
        let renewal = lease.next_renewal(0, start).unwrap();
        assert!(renewal.take);
        assert_eq!(
            lease.answered(&renewal, &held(10_000, None), start),
            LeaseChange::None
        );
        lease
    }

    fn renew(lease: &mut Lease, answer: &LeaseAnswer, now: Instant) -> LeaseChange {
        let renewal = lease.next_renewal(0, now).expect("it is due");
        assert!(!renewal.take);
        lease.answered(&renewal, answer, now)
    }

    #[test]
    fn node_may_reap_when_it_has_renewed_for_a_lease_without_a_pause() {
        let start = Instant::now();
        let mut lease = taken(start);
        for second in 1..=10 {
            assert!(!lease.may_reap(after(second, start) - Duration::from_millis(1)));
            let ends = 10_000 + second * 1000;
            let answer = held(ends, Some(ends - 1000));
            renew(&mut lease, &answer, after(second, start));
        }
        assert!(lease.may_reap(after(10, start)));
        // Redis was away for eight seconds: slightly older leases are over, but no node is dead.
        renew(&mut lease, &held(28_000, Some(20_000)), after(18, start));
        assert!(!lease.may_reap(after(18, start)));
        assert!(!lease.may_reap(after(27, start)));
    }

    #[test]
    fn lease_that_ends_for_any_reason_is_replaced_and_members_are_sent_again() {
        for ended in [
            answer(LeaseStatus::Lapsed, "a"),
            answer(LeaseStatus::Lost, "a"),
            answer(
                LeaseStatus::Held {
                    ends: 11_000,
                    former: Some(10_000),
                },
                "another data set",
            ),
        ] {
            let start = Instant::now();
            let mut lease = taken(start);
            let change = renew(&mut lease, &ended, after(1, start));
            assert_eq!(change, LeaseChange::Over, "{ended:?}");
            assert_eq!(lease.ends(), None, "no update may be sent");
            let renewal = lease.next_renewal(0, after(1, start)).expect("at once");
            assert_eq!((renewal.take, renewal.lease.count), (true, 2));
        }
    }

    #[test]
    fn lease_whose_taking_was_not_answered_is_not_taken_again() {
        let start = Instant::now();
        let mut lease = Lease::new(Incarnation(1), SPAN, start);
        let first = lease.next_renewal(0, start).unwrap();
        lease.unanswered(&first, start);
        let second = lease.next_renewal(0, start).expect("at once");
        assert_ne!(second.lease, first.lease);
        lease.answered(&first, &held(9000, None), start);
        assert_eq!(lease.ends(), None, "too late");
        lease.answered(&second, &held(10_000, None), start);
        assert_eq!(lease.ends(), Some(10_000));
        let renewal = lease.next_renewal(0, after(1, start)).unwrap();
        lease.unanswered(&renewal, after(1, start));
        assert_eq!(
            lease.id(),
            second.lease,
            "a held lease is renewed, not replaced"
        );
    }

    #[test]
    fn retired_lease_is_shortened_once_but_not_below_unconfirmed_updates() {
        let start = Instant::now();
        let mut lease = taken(start);
        let late = lease.next_renewal(0, after(1, start)).unwrap();
        lease.retire(Duration::from_secs(5), after(1, start));
        let now = after(2, start);
        lease.answered(&late, &held(11_000, Some(10_000)), now);
        let renewal = lease.next_renewal(7000, now).expect("at once");
        assert_eq!(
            (renewal.span, renewal.earliest),
            (Duration::from_secs(4), 7000)
        );
        lease.answered(&renewal, &held(7000, Some(11_000)), now);
        assert_eq!(lease.next_renewal(0, after(60, start)), None, "no more");
        assert!(!lease.may_reap(after(60, start)));
    }
}
