//! The requests of one connection that have no result yet: which to send next (each source in
//! turn), which were sent together, which to send again after the connection is lost, which wait
//! for presence, and which have timed out. Plain logic, with simulated clocks in its tests.
//!
//! ```text
//!  push ─▶ waiting ─ take ─▶ sent, in batches ─ answered ─▶ the pipeline
//!            ▲ ▲  send_directly ─▶ │                           │  │
//!            │ └────── lost ───────┴───────── requeue ─────────┘  │
//!            └── unpark ───────────── parked ◀─────── park ───────┘
//! ```

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::request::{Completion, RedisRequest};
use crate::broker::{Refused, Source};
use crate::model::fair_queue::{Backlog, FairItem, FairQueue, Place};

/// The most requests that wait: of all sessions, of all callers, and of the node. A guess: three
/// seconds of a busy node's publishes, so that a short outage of Redis causes no refusal. As many
/// may be parked besides.
const MOST: Backlog = Backlog {
    items: 16_384,
    bytes: 32 << 20,
};

/// A request and its place in the queue.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    pub request: RedisRequest,
    place: Place,
    deadline: Instant,
    /// It was sent on a connection that was lost, and may have been done there.
    in_doubt: bool,
}

impl FairItem for QueuedRequest {
    fn source(&self) -> Source {
        self.request.source()
    }

    fn cost(&self) -> usize {
        self.request.cost()
    }

    fn weight(&self) -> usize {
        self.request.weight()
    }
}

impl QueuedRequest {
    /// The result of a request that Redis has refused. If an earlier attempt may have succeeded, it
    /// is unknown.
    pub(super) fn refuse(self, why: Refused) -> Option<Completion> {
        let why = if self.in_doubt { Refused::Unknown } else { why };
        self.request.refuse(why)
    }
}

/// Requests that were sent together. A request that has timed out leaves `None` in its place.
#[derive(Debug)]
struct SentBatch {
    requests: Vec<Option<QueuedRequest>>,
    is_direct: bool,
}

/// All requests of one connection.
#[derive(Debug)]
pub(super) struct RequestQueue {
    waiting: FairQueue<QueuedRequest>,
    /// Requests that wait for something else than their turn; they hold up no other.
    parked: FairQueue<QueuedRequest>,
    /// The batches in flight, oldest first.
    sent: VecDeque<SentBatch>,
    timeout: Duration,
}

impl RequestQueue {
    /// A queue that refuses a request after this timeout.
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            waiting: FairQueue::default(),
            parked: FairQueue::default(),
            sent: VecDeque::new(),
            timeout,
        }
    }

    /// Adds a request. If too many wait, returns the refusal of one: the last of the source that
    /// has most of them.
    pub(super) fn push(&mut self, request: RedisRequest, now: Instant) -> Option<Completion> {
        let queued = self.place(request, now);
        let class = queued.place.class();
        self.waiting.insert(queued.place, queued);
        let excess = self.waiting.take_excess(class, MOST)?;
        excess.refuse(Refused::Unavailable)
    }

    fn place(&mut self, request: RedisRequest, now: Instant) -> QueuedRequest {
        QueuedRequest {
            place: self.waiting.enter(request.source(), request.cost()),
            request,
            deadline: now + self.timeout,
            in_doubt: false,
        }
    }

    /// Makes a batch of the next requests, at most `max` and about `bytes` on the wire; they count
    /// as sent. Returns whether there are any.
    pub(super) fn take(&mut self, max: usize, bytes: usize) -> bool {
        let mut requests = Vec::new();
        let mut taken = 0;
        while requests.len() < max
            && taken < bytes
            && let Some(queued) = self.waiting.pop()
        {
            taken = taken.saturating_add(queued.request.cost());
            requests.push(Some(queued));
        }
        let any = !requests.is_empty();
        if any {
            self.sent.push_back(SentBatch {
                requests,
                is_direct: false,
            });
        }
        any
    }

    /// Makes a batch of these requests, which do not wait for others. It has no timeout of its own,
    /// but ends with the connection at the latest.
    pub(super) fn send_directly(&mut self, requests: Vec<RedisRequest>, now: Instant) {
        let requests = requests.into_iter().map(|it| Some(self.place(it, now)));
        let batch = SentBatch {
            requests: requests.collect(),
            is_direct: true,
        };
        self.sent.push_back(batch);
    }

    /// The requests of the newest batch.
    pub(super) fn newest_batch(&self) -> impl Iterator<Item = &RedisRequest> {
        let newest = self.sent.back().into_iter();
        newest.flat_map(|batch| batch.requests.iter().flatten().map(|it| &it.request))
    }

    /// The number of batches in flight that were made by [`RequestQueue::take`].
    pub(super) fn batches(&self) -> usize {
        self.sent.iter().filter(|batch| !batch.is_direct).count()
    }

    /// The oldest batch has as many answers: returns its requests. `None` if it has another number
    /// of requests.
    pub(super) fn answered(&mut self, answers: usize) -> Option<Vec<Option<QueuedRequest>>> {
        let oldest = self.sent.front()?;
        if oldest.requests.len() != answers {
            return None;
        }
        self.sent.pop_front().map(|batch| batch.requests)
    }

    /// Redis has not done the request: it waits again, before all later ones of its source.
    pub(super) fn requeue(&mut self, queued: QueuedRequest) {
        self.waiting.insert(queued.place, queued);
    }

    /// The request can be done only later: it is put aside until [`RequestQueue::unpark`] or its
    /// deadline. If too many are, returns the refusal of one, as [`RequestQueue::push`] does.
    pub(super) fn park(&mut self, queued: QueuedRequest) -> Option<Completion> {
        let class = queued.place.class();
        self.parked.insert(queued.place, queued);
        let excess = self.parked.take_excess(class, MOST)?;
        excess.refuse(Refused::Incomplete)
    }

    /// The parked requests can be done: they wait for their turns anew, so that many of them do not
    /// hold up what arrived meanwhile.
    pub(super) fn unpark(&mut self) {
        while let Some(mut queued) = self.parked.pop() {
            queued.place = self.waiting.enter(queued.source(), queued.cost());
            self.requeue(queued);
        }
    }

    /// The number of parked requests.
    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// The number of requests that wait or were sent, without direct and parked ones.
    pub(super) fn unanswered(&self) -> usize {
        let batches = self.sent.iter().filter(|batch| !batch.is_direct);
        let sent: usize = batches.map(|it| it.requests.iter().flatten().count()).sum();
        self.waiting.len() + sent
    }

    /// The connection is lost, and with it all batches.
    pub(super) fn lost(&mut self) -> Vec<Completion> {
        let mut results = Vec::new();
        for batch in std::mem::take(&mut self.sent) {
            let requests = batch.requests.into_iter().flatten();
            results.extend(requests.filter_map(|queued| self.repeat(queued)));
        }
        let unsent = (self.waiting).take_if(|queued| queued.request.ends_with_connection());
        let unsent = unsent.into_iter();
        results.extend(unsent.filter_map(|queued| queued.refuse(Refused::Unavailable)));
        results
    }

    /// The connection was lost before the answer: an idempotent request waits again, any other is
    /// refused as unknown.
    fn repeat(&mut self, mut queued: QueuedRequest) -> Option<Completion> {
        if queued.request.may_repeat() {
            queued.in_doubt = true;
            self.requeue(queued);
            None
        } else {
            queued.refuse(Refused::Unknown)
        }
    }

    /// Refuses the requests that have timed out.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Completion> {
        let batches = self.sent.iter_mut().filter(|batch| !batch.is_direct);
        let sent = batches.flat_map(|batch| &mut batch.requests);
        let expired = sent.filter_map(|queued| queued.take_if(|it| it.deadline <= now));
        let mut results: Vec<Completion> = expired
            .filter_map(|queued| queued.refuse(Refused::Unknown))
            .collect();
        let unsent = self.waiting.take_if(|queued| queued.deadline <= now);
        let unsent = unsent.into_iter();
        results.extend(unsent.filter_map(|queued| queued.refuse(Refused::Unavailable)));
        let parked = self.parked.take_if(|queued| queued.deadline <= now);
        let parked = parked.into_iter();
        results.extend(parked.filter_map(|queued| queued.refuse(Refused::Incomplete)));
        results
    }
}
