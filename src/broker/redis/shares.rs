//! Fair shares of a line (start-time fair queuing): whoever has one request waiting waits for about one of everybody else's,
//! however many these have. Plain logic.

use std::collections::HashMap;

use crate::id::SessionId;

/// The sources that have something in the line, and the round that is served.
#[derive(Debug, Default)]
pub struct Shares {
    round: u64,
    waiting: HashMap<SessionId, Share>,
}

#[derive(Debug, Default)]
struct Share {
    /// The round of its next request.
    next: u64,
    requests: usize,
}

impl Shares {
    /// The round in which a new request is served. Those of one source come in rounds that rise; what is nobody's (`None`)
    /// belongs to the present one.
    pub fn enter(&mut self, source: Option<SessionId>) -> u64 {
        let Some(source) = source else {
            return self.round;
        };
        let share = self.waiting.entry(source).or_default();
        let round = self.round.max(share.next);
        share.next = round + 1;
        share.requests += 1;
        round
    }

    /// A request that was served waits again, in its old round: later ones of its source are in no earlier one.
    pub fn enter_again(&mut self, source: Option<SessionId>) {
        if let Some(source) = source {
            self.waiting.entry(source).or_default().requests += 1;
        }
    }

    /// A request of this round has left the line to be served.
    pub fn serve(&mut self, source: Option<SessionId>, round: u64) {
        self.round = self.round.max(round);
        self.leave(source);
    }

    /// A request waits no more.
    pub fn leave(&mut self, source: Option<SessionId>) {
        if let Some(source) = source
            && let Some(share) = self.waiting.get_mut(&source)
        {
            share.requests -= 1;
            if share.requests == 0 {
                self.waiting.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: Option<SessionId> = Some(SessionId(1));
    const BOB: Option<SessionId> = Some(SessionId(2));

    #[test]
    fn whoever_comes_late_with_little_is_served_in_the_present_round() {
        let mut shares = Shares::default();
        let crowd: Vec<u64> = (0..100).map(|_| shares.enter(ADA)).collect();
        assert_eq!(crowd, (0..100).collect::<Vec<u64>>());
        crowd[..10]
            .iter()
            .for_each(|round| shares.serve(ADA, *round));
        assert_eq!(shares.enter(BOB), 9);
        assert_eq!(shares.enter(BOB), 10, "two are served in two rounds");
        assert_eq!(shares.enter(None), 9);
        assert_eq!(shares.enter(ADA), 100);
    }

    #[test]
    fn only_those_who_wait_are_remembered() {
        let mut shares = Shares::default();
        for source in [ADA, ADA, BOB] {
            shares.enter(source);
        }
        shares.serve(ADA, 0);
        shares.serve(BOB, 0);
        assert_eq!(shares.waiting.len(), 1);
        shares.enter_again(BOB);
        shares.leave(BOB);
        shares.leave(ADA);
        shares.serve(None, 7);
        assert!(shares.waiting.is_empty());
    }
}
