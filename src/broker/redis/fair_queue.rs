//! Fair shares of a queue (start-time fair queuing): a source with one request waits for about one
//! turn of each other source, however many requests these have. Plain logic.
//!
//! A turn is a few requests, not one, because publishes of a room in one batch are delivered
//! together: in 200 rooms of 10 over two nodes, with four messages in flight, a delivery took 11.2
//! µs of processor time with turns of one and 3.65 with turns of four (`make bench-peers`).

use std::collections::HashMap;

use crate::model::id::SessionId;

/// Requests of one source in one round.
const TURN: u32 = 4;

/// The sources that have requests in the queue, and the round that is served.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    round: u64,
    waiting: HashMap<SessionId, Share>,
}

#[derive(Debug, Default)]
struct Share {
    /// The round of its next request.
    next: u64,
    /// The number of its requests in that round.
    taken: u32,
    requests: usize,
}

impl FairQueue {
    /// The round in which a new request is served. The rounds of one source never decrease; a
    /// request without a source is served in the present round.
    pub(super) fn enter(&mut self, source: Option<SessionId>) -> u64 {
        let Some(source) = source else {
            return self.round;
        };
        let share = self.waiting.entry(source).or_default();
        if share.next < self.round {
            (share.next, share.taken) = (self.round, 0);
        }
        let round = share.next;
        share.taken += 1;
        if share.taken == TURN {
            (share.next, share.taken) = (round + 1, 0);
        }
        share.requests += 1;
        round
    }

    /// A request that was served waits again, in its old round. Later ones of its source are not in
    /// an earlier round.
    pub(super) fn enter_again(&mut self, source: Option<SessionId>) {
        if let Some(source) = source {
            self.waiting.entry(source).or_default().requests += 1;
        }
    }

    /// A request of this round leaves the queue and is served.
    pub(super) fn serve(&mut self, source: Option<SessionId>, round: u64) {
        self.round = self.round.max(round);
        self.leave(source);
    }

    /// A request leaves the queue.
    pub(super) fn leave(&mut self, source: Option<SessionId>) {
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
    fn late_source_with_few_requests_is_served_in_the_present_round() {
        let mut shares = FairQueue::default();
        let turn = u64::from(TURN);
        let crowd: Vec<u64> = (0..100).map(|_| shares.enter(ADA)).collect();
        assert_eq!(crowd, (0..100).map(|n| n / turn).collect::<Vec<u64>>());
        crowd[..40]
            .iter()
            .for_each(|round| shares.serve(ADA, *round));
        let late: Vec<u64> = (0..=turn).map(|_| shares.enter(BOB)).collect();
        assert!(late[..TURN as usize].iter().all(|round| *round == 9));
        assert_eq!(late[TURN as usize], 10, "more than a turn takes two rounds");
        assert_eq!(shares.enter(None), 9);
        assert_eq!(shares.enter(ADA), 100 / turn);
    }

    #[test]
    fn sources_without_requests_are_forgotten() {
        let mut shares = FairQueue::default();
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
