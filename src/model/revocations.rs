//! Revoked tokens: for each user a [`Cutoff`], up to which its tokens are revoked. A cutoff is kept
//! for the longest lifetime of a token; by then every token that it covers has expired. Times are
//! in milliseconds since 1970.

use std::collections::{BTreeSet, HashMap};

use crate::model::id::UserName;
use crate::model::identity::LEEWAY;

/// The most users that a node keeps: some megabytes.
pub const MOST: usize = 10_000;

/// The tokens of one user that are revoked: those issued up to `through`. Of two cutoffs the
/// greater one covers what the lesser one covers, so the greater one alone is kept.
///
/// A token names the time of its issue by the clock of its issuer. A revocation "from now on" names
/// a moment of a node's clock, and the issuer's may be ahead by [`LEEWAY`]: such a revocation
/// reaches that much further, and a token in between may be older or newer than it. A revocation of
/// what was "issued before" a time of the issuer's own clock is exact.
///
/// ```text
///            moment        moment + LEEWAY = through
///   revoked ───┤ doubtful ────────┤ valid                   Cutoff::at(moment)
///   revoked ───┤ valid                                      Cutoff::issued_before(time)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cutoff {
    through: u64,
    exact: bool,
}

/// The result of checking a token against a cutoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    /// It is refused, but may be newer than the revocation: its user may return with another one.
    Doubtful,
    Revoked,
}

impl Cutoff {
    /// Revokes what was issued up to a moment of this node's clock, or may have been.
    pub fn at(moment: u64) -> Self {
        Self {
            through: moment.saturating_add(LEEWAY),
            exact: false,
        }
    }

    /// Revokes what was issued before a time of the issuer's clock.
    pub fn issued_before(time: u64) -> Self {
        Self {
            through: time.saturating_sub(1),
            exact: true,
        }
    }

    /// One that was stored.
    pub fn new(through: u64, exact: bool) -> Self {
        Self { through, exact }
    }

    /// The last time of issue that is revoked.
    pub fn through(self) -> u64 {
        self.through
    }

    pub fn is_exact(self) -> bool {
        self.exact
    }

    /// Judges a token by its time of issue. One without it counts as the oldest.
    pub fn verdict(self, issued: Option<u64>) -> Verdict {
        let Some(issued) = issued else {
            return Verdict::Revoked;
        };
        if issued > self.through {
            Verdict::Valid
        } else if !self.exact && issued > self.through.saturating_sub(LEEWAY) {
            Verdict::Doubtful
        } else {
            Verdict::Revoked
        }
    }
}

/// The result of [`Revocations::add`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Added {
    /// More is revoked than before.
    pub is_new: bool,
    /// The user whose cutoff was evicted.
    pub forgotten: Option<UserName>,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Revocations {
    users: HashMap<UserName, Cutoff>,
    /// The same, the oldest first.
    oldest: BTreeSet<(Cutoff, UserName)>,
    /// The lifetime of a token, and the difference of clocks.
    lifetime: u64,
    most: usize,
}

impl Revocations {
    /// An empty set. Each cutoff is kept for `lifetime` milliseconds, and no more than `most` at
    /// once.
    pub(crate) fn new(lifetime: u64, most: usize) -> Self {
        Self {
            users: HashMap::new(),
            oldest: BTreeSet::new(),
            lifetime,
            most,
        }
    }

    /// Revokes tokens of a user. Above the bound the oldest cutoff is evicted: the one that would
    /// expire first.
    pub(crate) fn add(&mut self, user: UserName, cutoff: Cutoff, now: u64) -> Added {
        self.tidy(now);
        let former = self.users.get(&user).copied();
        if self.is_over(cutoff, now) || former.is_some_and(|former| former >= cutoff) {
            return Added::default();
        }
        if let Some(former) = former {
            self.oldest.remove(&(former, user.clone()));
        }
        self.users.insert(user.clone(), cutoff);
        self.oldest.insert((cutoff, user.clone()));
        let mut forgotten = None;
        if self.users.len() > self.most
            && let Some((_, oldest)) = self.oldest.pop_first()
        {
            self.users.remove(&oldest);
            forgotten = Some(oldest);
        }
        Added {
            is_new: forgotten.as_ref() != Some(&user),
            forgotten,
        }
    }

    /// Judges a token of a user by its time of issue.
    pub(crate) fn verdict(&self, user: &UserName, issued: Option<u64>, now: u64) -> Verdict {
        match self.cutoff(user, now) {
            Some(cutoff) => cutoff.verdict(issued),
            None => Verdict::Valid,
        }
    }

    /// The cutoff of a user, if there is one and it has not expired.
    pub(crate) fn cutoff(&self, user: &UserName, now: u64) -> Option<Cutoff> {
        let cutoff = self.users.get(user).copied();
        cutoff.filter(|cutoff| !self.is_over(*cutoff, now))
    }

    /// All that have not expired, the oldest first.
    pub(crate) fn iter(&self, now: u64) -> impl Iterator<Item = (&UserName, Cutoff)> {
        let all = self.oldest.iter().map(|(cutoff, user)| (user, *cutoff));
        all.filter(move |(_, cutoff)| !self.is_over(*cutoff, now))
    }

    fn is_over(&self, cutoff: Cutoff, now: u64) -> bool {
        cutoff.through.saturating_add(self.lifetime) < now
    }

    fn tidy(&mut self, now: u64) {
        while let Some((cutoff, _)) = self.oldest.first()
            && self.is_over(*cutoff, now)
        {
            if let Some((_, user)) = self.oldest.pop_first() {
                self.users.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFETIME: u64 = 20_000;

    fn user(n: u8) -> UserName {
        UserName::new(&format!("u{n}")).unwrap()
    }

    /// The naive model: everything ever revoked, as (user, plain moment or time of the issuer,
    /// whether exact).
    fn is_refused(all: &[(u8, u64, bool)], who: u8, issued: Option<u64>, now: u64) -> bool {
        all.iter().any(|(user, time, exact)| {
            // Before the issuer's time, or up to the moment plus the difference of the clocks.
            let covers = |issued: u64| {
                if *exact {
                    issued < *time
                } else {
                    issued <= time + LEEWAY
                }
            };
            let last = if *exact { time - 1 } else { time + LEEWAY };
            *user == who && now <= last + LIFETIME && issued.is_none_or(covers)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn revocations_agree_with_a_naive_model(
            steps in prop::collection::vec(
                (0u8..4, 0u64..2_000, 0u64..16_000, any::<bool>()),
                1..30,
            ),
        ) {
            let mut revocations = Revocations::new(LIFETIME, MOST);
            let (mut all, mut now) = (Vec::new(), 100_000);
            for (who, passed, back, exact) in steps {
                now += passed;
                // Times arrive late and out of order: another node's clock, an outage, the set read
                // again.
                let time = now - back;
                let cutoff = if exact {
                    Cutoff::issued_before(time)
                } else {
                    Cutoff::at(time)
                };
                let added = revocations.add(user(who), cutoff, now);
                prop_assert_eq!(added.forgotten, None);
                all.push((who, time, exact));
                for who in 0..4 {
                    let near = all.iter().flat_map(|(_, time, _)| {
                        [time - 1, *time, time + 1, time + LEEWAY, time + LEEWAY + 1]
                    });
                    for issued in near.map(Some).chain([None]) {
                        for later in [now, now + LIFETIME / 2, now + LIFETIME, now + LIFETIME + 1] {
                            let verdict = revocations.verdict(&user(who), issued, later);
                            prop_assert_eq!(
                                verdict != Verdict::Valid,
                                is_refused(&all, who, issued, later),
                                "{} {:?} {}", who, issued, later
                            );
                        }
                    }
                }
                prop_assert!(revocations.users.len() == revocations.oldest.len());
                prop_assert!(revocations.users.len() <= 4);
            }
        }
    }

    #[test]
    fn cutoff_distinguishes_older_doubtful_and_newer_tokens() {
        use Verdict::{Doubtful, Revoked, Valid};
        let plain = Cutoff::at(10_000);
        let exact = Cutoff::issued_before(10_000);
        for (issued, by_plain, by_exact) in [
            (None, Revoked, Revoked),
            (Some(0), Revoked, Revoked),
            (Some(9_999), Revoked, Revoked),
            (Some(10_000), Revoked, Valid),
            (Some(10_001), Doubtful, Valid),
            (Some(10_000 + LEEWAY), Doubtful, Valid),
            (Some(10_001 + LEEWAY), Valid, Valid),
        ] {
            assert_eq!(plain.verdict(issued), by_plain, "{issued:?}");
            assert_eq!(exact.verdict(issued), by_exact, "{issued:?}");
        }
        assert!(Cutoff::issued_before(10_000 + LEEWAY) < plain);
        assert!(
            Cutoff::issued_before(10_001 + LEEWAY) > plain,
            "the same, and exact"
        );
    }

    #[test]
    fn oldest_revocation_above_the_bound_is_evicted_and_reported() {
        let mut revocations = Revocations::new(LIFETIME, 3);
        let mut add = |n, time: u64| {
            let now = 100_105;
            let added = revocations.add(user(n), Cutoff::issued_before(100_000 + time), now);
            (added.is_new, added.forgotten)
        };
        for (n, time) in [(0, 103), (1, 101), (2, 102)] {
            assert_eq!(add(n, time), (true, None));
        }
        assert_eq!(add(3, 104), (true, Some(user(1))));
        assert_eq!(add(2, 105), (true, None), "the user is not new");
        assert_eq!(add(4, 100), (false, Some(user(4))));
        assert_eq!(add(2, 104), (false, None), "nothing new");
        let left = revocations
            .iter(100_105)
            .map(|(_, cutoff)| cutoff.through());
        assert_eq!(left.collect::<Vec<_>>(), [100_102, 100_103, 100_104]);
        assert_eq!(revocations.verdict(&user(1), None, 100_105), Verdict::Valid);
    }

    #[test]
    fn expired_revocations_take_no_place() {
        let mut revocations = Revocations::new(LIFETIME, 2);
        revocations.add(user(0), Cutoff::at(100), 100);
        revocations.add(user(1), Cutoff::at(101), 101);
        let now = 102 + LEEWAY + LIFETIME;
        assert_eq!(revocations.iter(now).count(), 0);
        assert!(revocations.add(user(2), Cutoff::at(now), now).is_new);
        assert_eq!(revocations.users.len(), 1);
        assert!(
            !revocations.add(user(3), Cutoff::at(7), now).is_new,
            "long over"
        );
        assert_eq!(revocations.cutoff(&user(3), now), None);
    }
}
