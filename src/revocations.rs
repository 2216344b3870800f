//! Whose tokens count no more: for each user the moment up to which they were revoked. A moment is remembered for as long as a
//! token may live; by then whatever was issued before it has expired. Times are in milliseconds since 1970.

use std::collections::{BTreeSet, HashMap};

use crate::id::UserName;

/// Users that a node remembers at most: some megabytes.
pub const MOST: usize = 10_000;

/// See the head of this file.
#[derive(Debug)]
pub struct Revocations {
    /// Up to when each user's tokens are revoked.
    users: HashMap<UserName, u64>,
    /// The same, the oldest first.
    moments: BTreeSet<(u64, UserName)>,
    /// How long a token may live, and clocks may differ.
    lifetime: u64,
    most: usize,
}

impl Revocations {
    /// None yet. Each is remembered for `lifetime` milliseconds, and no more than `most` at once.
    pub fn new(lifetime: u64, most: usize) -> Self {
        Self {
            users: HashMap::new(),
            moments: BTreeSet::new(),
            lifetime,
            most,
        }
    }

    /// Revokes what was issued to the user up to this moment. Where that is one too many, the oldest goes, and is told:
    /// the one that would have ended first.
    pub fn add(&mut self, user: UserName, moment: u64, now: u64) -> Option<UserName> {
        self.tidy(now);
        let former = self.users.get(&user).copied();
        if self.is_over(moment, now) || former.is_some_and(|former| former >= moment) {
            return None;
        }
        if let Some(former) = former {
            self.moments.remove(&(former, user.clone()));
        }
        self.users.insert(user.clone(), moment);
        self.moments.insert((moment, user));
        if self.users.len() <= self.most {
            return None;
        }
        let (_, oldest) = self.moments.pop_first()?;
        self.users.remove(&oldest);
        Some(oldest)
    }

    /// Whether a token counts no more. One that does not say when it was issued counts as the oldest.
    pub fn has(&self, user: &UserName, issued: Option<u64>, now: u64) -> bool {
        self.users.get(user).is_some_and(|moment| {
            !self.is_over(*moment, now) && issued.is_none_or(|issued| issued <= *moment)
        })
    }

    /// Up to when the user's tokens are revoked, if they are.
    pub fn moment(&self, user: &UserName) -> Option<u64> {
        self.users.get(user).copied()
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &(u64, UserName)> {
        self.moments.iter()
    }

    fn is_over(&self, moment: u64, now: u64) -> bool {
        moment.saturating_add(self.lifetime) < now
    }

    fn tidy(&mut self, now: u64) {
        while let Some((moment, _)) = self.moments.first()
            && self.is_over(*moment, now)
        {
            if let Some((_, user)) = self.moments.pop_first() {
                self.users.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFETIME: u64 = 50;

    fn user(n: u8) -> UserName {
        UserName::new(&format!("u{n}")).unwrap()
    }

    /// The naive model: everything ever revoked.
    fn naive(all: &[(u8, u64)], who: u8, issued: Option<u64>, now: u64) -> bool {
        all.iter().any(|(user, moment)| {
            *user == who
                && now <= moment + LIFETIME
                && issued.is_none_or(|issued| issued <= *moment)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn revocations_agree_with_a_naive_model(
            steps in prop::collection::vec((0u8..4, 0u64..5, 0u64..40), 1..30),
        ) {
            let mut revocations = Revocations::new(LIFETIME, MOST);
            let (mut all, mut now) = (Vec::new(), 1000);
            for (who, passed, back) in steps {
                now += passed;
                // Moments come late and out of order: another node's clock, a cut, a renewal.
                prop_assert_eq!(revocations.add(user(who), now - back, now), None);
                all.push((who, now - back));
                for who in 0..4 {
                    let near = all.iter().flat_map(|(_, moment)| [*moment, moment + 1]);
                    for issued in near.map(Some).chain([None]) {
                        for later in [now, now + LIFETIME / 2, now + LIFETIME, now + LIFETIME + 1] {
                            prop_assert_eq!(
                                revocations.has(&user(who), issued, later),
                                naive(&all, who, issued, later),
                                "{} {:?} {}", who, issued, later
                            );
                        }
                    }
                }
                prop_assert!(revocations.users.len() == revocations.moments.len());
                prop_assert!(revocations.users.len() <= 4);
            }
        }
    }

    #[test]
    fn over_the_bound_the_oldest_revocation_goes_and_is_told() {
        let mut revocations = Revocations::new(LIFETIME, 3);
        for (n, moment) in [(0, 103), (1, 101), (2, 102)] {
            assert_eq!(revocations.add(user(n), moment, 103), None);
        }
        assert_eq!(revocations.add(user(3), 104, 104), Some(user(1)));
        assert_eq!(revocations.add(user(2), 105, 105), None, "no newcomer");
        assert_eq!(revocations.add(user(4), 100, 105), Some(user(4)));
        let left: Vec<_> = revocations.iter().map(|(moment, _)| *moment).collect();
        assert_eq!(left, [103, 104, 105]);
        assert!(!revocations.has(&user(1), None, 105));
    }

    #[test]
    fn what_is_over_takes_no_place() {
        let mut revocations = Revocations::new(LIFETIME, 2);
        revocations.add(user(0), 100, 100);
        revocations.add(user(1), 101, 101);
        let now = 102 + LIFETIME;
        assert_eq!(revocations.add(user(2), now, now), None);
        assert_eq!(revocations.iter().count(), 1);
        assert_eq!(revocations.add(user(3), 7, now), None, "long over");
        assert_eq!(revocations.moment(&user(3)), None);
    }
}
