//! The requests of one connection that have no result yet: which to send next (each session in
//! turn), which were sent together, which to send again after the connection is lost, and which
//! have timed out. Plain logic, with simulated clocks in its tests.
//!
//! ```text
//!  push ─▶ waiting ─ take ─▶ sent, in batches ─ answered ─▶ the pipeline
//!             ▲  send_directly ─▶ │                            │
//!             └────── lost ───────┴────────── requeue ─────────┘
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::fair_queue::FairQueue;
use super::request::{Completion, RedisRequest};
use crate::broker::Refused;

/// The most waiting requests. A guess: three seconds of a busy node's publishes, so that a short
/// outage of Redis causes no refusal.
const MAX_REQUESTS: usize = 16_384;

/// The most bytes in them.
const MAX_BYTES: usize = 32 << 20;

/// A request and its place in the queue.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    pub request: RedisRequest,
    /// Its round in the fair queue, and its place in it: the order of arrival.
    place: (u64, u64),
    deadline: Instant,
    /// It was sent on a connection that was lost, and may have been done there.
    in_doubt: bool,
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
    waiting: BTreeMap<(u64, u64), QueuedRequest>,
    /// The batches in flight, oldest first.
    sent: VecDeque<SentBatch>,
    fair: FairQueue,
    /// The number of requests so far.
    count: u64,
    /// The weight of the waiting requests.
    bytes: usize,
    timeout: Duration,
}

impl RequestQueue {
    /// A queue that refuses a request after this timeout.
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            waiting: BTreeMap::new(),
            sent: VecDeque::new(),
            fair: FairQueue::default(),
            count: 0,
            bytes: 0,
            timeout,
        }
    }

    /// Adds a request, or returns its refusal if too many are waiting.
    pub(super) fn push(&mut self, request: RedisRequest, now: Instant) -> Option<Completion> {
        let weight = request.weight();
        if self.waiting.len() >= MAX_REQUESTS || self.bytes + weight > MAX_BYTES {
            return request.refuse(Refused::Unavailable);
        }
        let queued = self.place(request, now);
        self.bytes += weight;
        self.waiting.insert(queued.place, queued);
        None
    }

    fn place(&mut self, request: RedisRequest, now: Instant) -> QueuedRequest {
        let place = (self.fair.enter(request.source()), self.count);
        self.count += 1;
        QueuedRequest {
            request,
            place,
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
            && let Some((_, queued)) = self.waiting.pop_first()
        {
            self.fair.serve(queued.request.source(), queued.place.0);
            self.bytes -= queued.request.weight();
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
        self.fair.enter_again(queued.request.source());
        self.bytes += queued.request.weight();
        self.waiting.insert(queued.place, queued);
    }

    /// The connection is lost, and with it all batches.
    pub(super) fn lost(&mut self) -> Vec<Completion> {
        let mut results = Vec::new();
        for batch in std::mem::take(&mut self.sent) {
            let requests = batch.requests.into_iter().flatten();
            results.extend(requests.filter_map(|queued| self.repeat(queued)));
        }
        let unsent = self.remove(|queued| queued.request.ends_with_connection());
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
        let unsent = self.remove(|queued| queued.deadline <= now);
        results.extend(unsent.filter_map(|queued| queued.refuse(Refused::Unavailable)));
        results
    }

    /// Removes waiting requests.
    fn remove(
        &mut self,
        is_removed: impl Fn(&QueuedRequest) -> bool,
    ) -> impl Iterator<Item = QueuedRequest> {
        let all = self.waiting.values();
        let places: Vec<_> = all
            .filter(|queued| is_removed(queued))
            .map(|queued| queued.place)
            .collect();
        places.into_iter().filter_map(|place| {
            let queued = self.waiting.remove(&place)?;
            self.fair.leave(queued.request.source());
            self.bytes -= queued.request.weight();
            Some(queued)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::value::RawValue;

    use super::*;
    use crate::broker::redis::presence::agent::{PresenceCommand, PresenceReply};
    use crate::broker::redis::presence::reaper::ReapStep;
    use crate::broker::{
        BrokerEvent, Publication, Publish, PublishKey, PublishRequest, Publisher, Range, Read,
    };
    use crate::model::id::{RoomName, SessionId, Ticket};

    fn publish(ticket: u64, key: Option<&str>) -> RedisRequest {
        RedisRequest::Publish(PublishRequest {
            ticket: Ticket(ticket),
            source: None,
            publish: Publish {
                room: RoomName::new("r").unwrap(),
                key: key.map(|key| PublishKey {
                    publisher: Publisher::Anonymous,
                    key: key.into(),
                }),
                condition: None,
                ephemeral: false,
                others: false,
                publication: Arc::new(Publication {
                    user: None,
                    time: 0,
                    except: None,
                    event: None,
                    data: RawValue::NULL.to_owned().into(),
                }),
            },
        })
    }

    fn presence() -> RedisRequest {
        let lease = "2a.1".to_owned();
        RedisRequest::Presence(PresenceCommand::Reap(ReapStep::Rooms { lease }))
    }

    fn refusal(result: Completion) -> (u64, Refused) {
        match result.event() {
            Some(BrokerEvent::Published {
                ticket: Ticket(ticket),
                result: Err(why),
            }) => (ticket, why),
            other => panic!("{other:?}"),
        }
    }

    fn refusals(results: Vec<Completion>) -> Vec<(u64, Refused)> {
        results.into_iter().map(refusal).collect()
    }

    /// Takes a batch; returns the tickets of its requests.
    fn take(queue: &mut RequestQueue, max: usize, bytes: usize) -> Vec<u64> {
        if !queue.take(max, bytes) {
            return Vec::new();
        }
        let ticket = |request: &RedisRequest| match request {
            RedisRequest::Publish(publish) => publish.ticket.0,
            RedisRequest::Read(read) => read.ticket.0,
            other => panic!("{other:?}"),
        };
        queue.newest_batch().map(ticket).collect()
    }

    /// The oldest batch is answered.
    fn answered(queue: &mut RequestQueue, count: usize) -> Vec<QueuedRequest> {
        let requests = queue.answered(count).expect("a batch of this length");
        requests.into_iter().flatten().collect()
    }

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[test]
    fn timed_out_request_is_refused_by_whether_it_may_have_been_done() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        for (ticket, key) in [(0, None), (1, Some("k")), (2, None), (3, None)] {
            assert!(queue.push(publish(ticket, key), now).is_none());
        }
        assert_eq!(take(&mut queue, 3, usize::MAX), [0, 1, 2]);
        let [first, keyed, third] = answered(&mut queue, 3).try_into().unwrap();
        let refused = queue.repeat(first).unwrap();
        assert_eq!(refusal(refused), (0, Refused::Unknown), "at once");
        assert!(queue.repeat(keyed).is_none(), "a key may be repeated");
        queue.requeue(third);
        assert!(queue.expire(now + TIMEOUT / 2).is_empty());
        let refused = refusals(queue.expire(now + TIMEOUT));
        assert_eq!(
            refused,
            [
                (1, Refused::Unknown),
                (2, Refused::Unavailable),
                (3, Refused::Unavailable)
            ]
        );
        assert_eq!(take(&mut queue, 9, usize::MAX), Vec::<u64>::new());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn sent_request_that_times_out_is_unknown_and_its_answer_is_ignored() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        queue.push(publish(0, None), now);
        queue.push(publish(1, None), now + Duration::from_secs(1));
        assert_eq!(take(&mut queue, 9, usize::MAX), [0, 1]);
        let refused = refusals(queue.expire(now + TIMEOUT));
        assert_eq!(refused, [(0, Refused::Unknown)]);
        assert!(queue.answered(1).is_none(), "it still has two answers");
        let left = answered(&mut queue, 2);
        assert_eq!(left.len(), 1);
        assert_eq!(queue.batches(), 0);
    }

    #[test]
    fn requeued_request_precedes_later_ones() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        for ticket in 0..5 {
            queue.push(publish(ticket, None), now);
        }
        assert_eq!(take(&mut queue, 3, usize::MAX), [0, 1, 2]);
        let [_, second, third] = answered(&mut queue, 3).try_into().unwrap();
        queue.requeue(third);
        queue.requeue(second);
        assert!(queue.answered(3).is_none(), "answered once");
        assert_eq!(take(&mut queue, 9, usize::MAX), [1, 2, 3, 4]);
    }

    #[test]
    fn session_with_few_publishes_does_not_wait_for_all_of_another() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        let mut push = |ticket, session| {
            let RedisRequest::Publish(mut request) = publish(ticket, None) else {
                unreachable!()
            };
            request.source = Some(SessionId(session));
            assert!(queue.push(RedisRequest::Publish(request), now).is_none());
        };
        (0..100).for_each(|ticket| push(ticket, 1));
        (100..106).for_each(|ticket| push(ticket, 2));
        assert_eq!(take(&mut queue, 5, usize::MAX), [0, 1, 2, 3, 100]);
        let last = answered(&mut queue, 5).pop().unwrap();
        queue.requeue(last);
        assert_eq!(take(&mut queue, 5, usize::MAX), [100, 101, 102, 103, 4]);
        let rest = take(&mut queue, 200, usize::MAX);
        assert_eq!(rest[..6], [5, 6, 7, 104, 105, 8]);
        assert_eq!(rest[6..], (9..100).collect::<Vec<u64>>());
    }

    #[test]
    fn batch_of_pages_is_bounded_by_cost() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        for ticket in 0..9 {
            let read = RedisRequest::Read(Read {
                ticket: Ticket(ticket),
                room: RoomName::new("r").unwrap(),
                range: Range::Top,
                limit: 100,
            });
            assert!(queue.push(read, now).is_none());
        }
        assert_eq!(take(&mut queue, 64, 256 << 10), [0, 1, 2]);
    }

    #[test]
    fn batch_is_bounded_by_bytes_and_never_empty() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        for ticket in 0..3 {
            queue.push(publish(ticket, None), now);
        }
        assert_eq!(take(&mut queue, 9, 1), [0]);
    }

    #[test]
    fn waiting_requests_are_bounded() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        let refused = (0..MAX_REQUESTS as u64 + 1)
            .filter_map(|ticket| queue.push(publish(ticket, None), now))
            .map(refusal)
            .collect::<Vec<_>>();
        assert_eq!(refused, [(MAX_REQUESTS as u64, Refused::Unavailable)]);
    }

    #[test]
    fn refusal_after_an_attempt_in_doubt_is_unknown() {
        let now = Instant::now();
        let mut queue = RequestQueue::new(Duration::from_secs(5));
        assert!(queue.push(publish(1, Some("k")), now).is_none());
        assert_eq!(take(&mut queue, 1, usize::MAX), [1]);
        assert!(queue.lost().is_empty(), "it has a key and is sent again");
        assert_eq!(take(&mut queue, 1, usize::MAX), [1]);
        let queued = answered(&mut queue, 1).pop().unwrap();
        let refused = refusal(queued.refuse(Refused::Full).unwrap());
        assert_eq!(refused, (1, Refused::Unknown));
    }

    #[test]
    fn direct_batch_waits_for_no_request_and_ends_with_the_connection() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        queue.push(publish(1, Some("k")), now);
        queue.send_directly(vec![presence(), presence()], now);
        assert_eq!((queue.newest_batch().count(), queue.batches()), (2, 0));
        let requeued = answered(&mut queue, 2).pop().unwrap();
        queue.requeue(requeued);
        queue.send_directly(vec![presence()], now);
        let replies = queue.lost().into_iter().map(|result| match result {
            Completion::Presence(_, reply) => format!("{reply:?}"),
            other => panic!("{other:?}"),
        });
        let expected = [PresenceReply::Unanswered, PresenceReply::Refused];
        let expected = expected.map(|reply| format!("{reply:?}"));
        assert_eq!(replies.collect::<Vec<_>>(), expected, "sent, and not sent");
        assert_eq!(take(&mut queue, 9, usize::MAX), [1]);
    }

    #[test]
    fn direct_batch_does_not_time_out() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        queue.send_directly(vec![presence()], now);
        assert!(queue.expire(now + 2 * TIMEOUT).is_empty());
        assert_eq!(answered(&mut queue, 1).len(), 1);
    }
}
