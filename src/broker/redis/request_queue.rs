//! The unanswered requests of one connection: which to send next (each session in turn), which to
//! send again after the connection is lost, and which have timed out. Plain logic, with simulated
//! clocks in its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::fair_queue::FairQueue;
use crate::broker::{
    BrokerEvent, ClusterRequest, MembersRequest, PublishRequest, Read, ReadRevocations, Refused,
    Revoke,
};
use crate::model::cluster_query::ClusterQuery;
use crate::model::id::{RoomName, SessionId};

/// The most unanswered requests. A guess: three seconds of a busy node's publishes, so that a short
/// outage of Redis causes no refusal.
const MAX_REQUESTS: usize = 16_384;

/// The most bytes in them.
const MAX_BYTES: usize = 32 << 20;

/// The cost of reading the largest set of revocations, in entries of a page. An entry is far
/// smaller than a message.
const ENTRIES_OF_REVOCATIONS: usize = 256;

/// A request to Redis.
#[derive(Debug)]
pub enum RedisRequest {
    Publish(PublishRequest),
    Read(Read),
    Members(MembersRequest),
    ClusterQuery(ClusterRequest),
    Revoke(Revoke),
    ReadRevocations(ReadRevocations),
    /// A message to the node's own topic, to check that publishing and the subscription work. Its
    /// answer produces no event.
    Probe,
}

impl RedisRequest {
    /// Whether it is idempotent.
    fn may_repeat(&self) -> bool {
        match self {
            RedisRequest::Publish(PublishRequest { publish, .. }) => {
                publish.key.is_some() && !publish.ephemeral
            }
            RedisRequest::Revoke(_) => true,
            request if request.is_read() => true,
            _ => false,
        }
    }

    /// The room it reads or writes; `None` if it concerns no single one.
    pub fn room(&self) -> Option<&RoomName> {
        match self {
            RedisRequest::Publish(publish) => Some(&publish.publish.room),
            RedisRequest::Read(read) => Some(&read.room),
            RedisRequest::Members(members) => Some(&members.query.room),
            RedisRequest::ClusterQuery(_)
            | RedisRequest::Revoke(_)
            | RedisRequest::ReadRevocations(_)
            | RedisRequest::Probe => None,
        }
    }

    /// Whether it only reads.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            RedisRequest::Read(_)
                | RedisRequest::Members(_)
                | RedisRequest::ClusterQuery(_)
                | RedisRequest::ReadRevocations(_)
        )
    }

    /// The source whose share of the queue it takes.
    fn source(&self) -> Option<SessionId> {
        match self {
            RedisRequest::Publish(publish) => publish.source,
            _ => None,
        }
    }

    /// The approximate memory it takes, in bytes.
    fn weight(&self) -> usize {
        match self {
            RedisRequest::Publish(publish) => publish.publish.publication.weight() + 256,
            RedisRequest::Revoke(revoke) => revoke.cutoffs.len() * 96 + 256,
            _ => 256,
        }
    }

    /// The cost for Redis, as bytes on the wire, of the request or its answer. An entry of a page
    /// counts as a KiB, though most are smaller: Redis handles all requests that arrived on one
    /// connection before it turns to the next, and 100 entries take 40 µs, in which it serves no
    /// other client.
    fn cost(&self) -> usize {
        let entries = match self {
            RedisRequest::Read(Read { limit, .. }) => *limit,
            RedisRequest::Members(members) => members.query.limit,
            RedisRequest::ClusterQuery(ClusterRequest { query, .. }) => match query {
                ClusterQuery::Rooms { limit, .. } | ClusterQuery::Connections { limit, .. } => {
                    *limit
                }
                ClusterQuery::Room(_) => 0,
            },
            RedisRequest::ReadRevocations(_) => ENTRIES_OF_REVOCATIONS,
            RedisRequest::Publish(_) | RedisRequest::Revoke(_) | RedisRequest::Probe => 0,
        };
        self.weight().saturating_add(entries.saturating_mul(1024))
    }

    /// The event that reports the refusal, if the request has one.
    pub fn refuse(&self, why: Refused) -> Option<BrokerEvent> {
        match self {
            RedisRequest::Publish(publish) => Some(BrokerEvent::Published {
                ticket: publish.ticket,
                result: Err(why),
            }),
            RedisRequest::Read(read) => Some(BrokerEvent::Page {
                ticket: read.ticket,
                result: Err(unless_unknown(why)),
            }),
            RedisRequest::Members(members) => Some(BrokerEvent::MemberPage {
                ticket: members.ticket,
                result: Err(unless_unknown(why)),
            }),
            RedisRequest::ClusterQuery(request) => Some(BrokerEvent::QueryResult {
                ticket: request.ticket,
                result: Err(unless_unknown(why)),
            }),
            RedisRequest::Revoke(revoke) => Some(BrokerEvent::Revoked {
                ticket: revoke.ticket,
                result: Err(why),
            }),
            RedisRequest::ReadRevocations(read) => Some(BrokerEvent::Revocations {
                ticket: read.ticket,
                result: Err(unless_unknown(why)),
            }),
            RedisRequest::Probe => None,
        }
    }
}

/// A read has no effect, so its outcome is never unknown.
fn unless_unknown(why: Refused) -> Refused {
    match why {
        Refused::Unknown => Refused::Unavailable,
        other => other,
    }
}

#[derive(Debug)]
struct Entry {
    request: RedisRequest,
    /// Its round in the fair queue; requests of one round are sent in the order of arrival.
    round: u64,
    deadline: Instant,
    /// It was sent on the present connection.
    sent: bool,
    /// It was sent on a connection that was lost, and may have been done there.
    in_doubt: bool,
}

/// All requests of one connection, numbered in the order of arrival.
#[derive(Debug)]
pub struct RequestQueue {
    entries: BTreeMap<u64, Entry>,
    /// The requests to send, by round and number.
    unsent: BTreeSet<(u64, u64)>,
    shares: FairQueue,
    next: u64,
    bytes: usize,
    timeout: Duration,
}

impl RequestQueue {
    /// A queue that refuses a request after this timeout.
    pub fn new(timeout: Duration) -> Self {
        Self {
            entries: BTreeMap::new(),
            unsent: BTreeSet::new(),
            shares: FairQueue::default(),
            next: 0,
            bytes: 0,
            timeout,
        }
    }

    /// Adds a request, or returns its refusal if too many are waiting.
    pub fn push(&mut self, request: RedisRequest, now: Instant) -> Option<BrokerEvent> {
        let weight = request.weight();
        if self.entries.len() >= MAX_REQUESTS || self.bytes + weight > MAX_BYTES {
            return request.refuse(Refused::Unavailable);
        }
        let round = self.shares.enter(request.source());
        let entry = Entry {
            request,
            round,
            deadline: now + self.timeout,
            sent: false,
            in_doubt: false,
        };
        self.bytes += weight;
        self.entries.insert(self.next, entry);
        self.unsent.insert((round, self.next));
        self.next += 1;
        None
    }

    /// The numbers of the next requests to send, at most `max` and about `bytes` on the wire. They
    /// count as sent.
    pub fn take(&mut self, max: usize, bytes: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut taken = 0;
        while numbers.len() < max
            && taken < bytes
            && let Some((round, number)) = self.unsent.pop_first()
        {
            if let Some(entry) = self.entries.get_mut(&number) {
                self.shares.serve(entry.request.source(), round);
                entry.sent = true;
                taken = taken.saturating_add(entry.request.cost());
                numbers.push(number);
            }
        }
        numbers
    }

    pub fn request(&self, number: u64) -> Option<&RedisRequest> {
        self.entries.get(&number).map(|entry| &entry.request)
    }

    /// Redis has refused the request. If an earlier attempt may have succeeded, the outcome is
    /// unknown.
    pub fn refused(&mut self, number: u64, why: Refused) -> Option<BrokerEvent> {
        let in_doubt = self.entries.get(&number)?.in_doubt;
        let why = if in_doubt { Refused::Unknown } else { why };
        self.done(number)?.refuse(why)
    }

    /// Removes a request that has its answer. `None`: it was removed before.
    pub fn done(&mut self, number: u64) -> Option<RedisRequest> {
        let entry = self.entries.remove(&number)?;
        if self.unsent.remove(&(entry.round, number)) {
            self.shares.leave(entry.request.source());
        }
        self.bytes -= entry.request.weight();
        Some(entry.request)
    }

    /// Redis has not done the request: it waits again, before all later ones of its source.
    pub fn requeue(&mut self, number: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.sent = false;
            if self.unsent.insert((entry.round, number)) {
                self.shares.enter_again(entry.request.source());
            }
        }
    }

    /// The connection was lost before the answer: an idempotent request waits again, any other is
    /// refused as unknown.
    pub fn lost(&mut self, number: u64) -> Option<BrokerEvent> {
        let entry = self.entries.get_mut(&number)?;
        if entry.request.may_repeat() {
            entry.in_doubt = true;
            self.requeue(number);
            return None;
        }
        self.done(number)?.refuse(Refused::Unknown)
    }

    /// Refuses the requests that have timed out. All have the same timeout, so the oldest come
    /// first.
    pub fn expire(&mut self, now: Instant) -> Vec<BrokerEvent> {
        let mut refusals = Vec::new();
        while let Some((&number, entry)) = self.entries.first_key_value()
            && entry.deadline <= now
        {
            let why = match entry.sent || entry.in_doubt {
                true => Refused::Unknown,
                false => Refused::Unavailable,
            };
            refusals.extend(self.done(number).and_then(|job| job.refuse(why)));
        }
        refusals
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::value::RawValue;

    use super::*;
    use crate::broker::{Publication, Publish, PublishKey, Publisher, Range};
    use crate::model::id::{RoomName, Ticket};

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
                ephemeral: false,
                others: false,
                publication: Arc::new(Publication {
                    user: None,
                    time: 0,
                    except: None,
                    data: RawValue::NULL.to_owned(),
                }),
            },
        })
    }

    fn refusal(event: &BrokerEvent) -> (u64, Refused) {
        match event {
            BrokerEvent::Published {
                ticket: Ticket(ticket),
                result: Err(why),
            } => (*ticket, *why),
            other => panic!("{other:?}"),
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[test]
    fn timed_out_request_is_refused_by_whether_it_may_have_been_done() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        for (ticket, key) in [(0, None), (1, Some("k")), (2, None), (3, None)] {
            assert!(queue.push(publish(ticket, key), now).is_none());
        }
        let sent = queue.take(3, usize::MAX);
        assert_eq!(sent, [0, 1, 2]);
        let refused = queue.lost(0).unwrap();
        assert_eq!(refusal(&refused), (0, Refused::Unknown), "at once");
        assert!(queue.lost(1).is_none(), "a key may be repeated");
        queue.requeue(2);
        assert!(queue.expire(now + TIMEOUT / 2).is_empty());
        let refused: Vec<_> = queue.expire(now + TIMEOUT).iter().map(refusal).collect();
        assert_eq!(
            refused,
            [
                (1, Refused::Unknown),
                (2, Refused::Unavailable),
                (3, Refused::Unavailable)
            ]
        );
        assert_eq!(queue.take(9, usize::MAX), Vec::<u64>::new());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn requeued_request_precedes_later_ones() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        for ticket in 0..5 {
            queue.push(publish(ticket, None), now);
        }
        assert_eq!(queue.take(3, usize::MAX), [0, 1, 2]);
        queue.requeue(2);
        queue.requeue(1);
        assert!(queue.done(0).is_some());
        assert!(queue.done(0).is_none(), "answered once");
        assert_eq!(queue.take(9, usize::MAX), [1, 2, 3, 4]);
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
        assert_eq!(queue.take(5, usize::MAX), [0, 1, 2, 3, 100]);
        queue.requeue(100);
        assert_eq!(queue.take(5, usize::MAX), [100, 101, 102, 103, 4]);
        let rest = queue.take(200, usize::MAX);
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
        assert_eq!(queue.take(64, 256 << 10), [0, 1, 2]);
    }

    #[test]
    fn batch_is_bounded_by_bytes_and_never_empty() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        for ticket in 0..3 {
            queue.push(publish(ticket, None), now);
        }
        assert_eq!(queue.take(9, 1), [0]);
    }

    #[test]
    fn waiting_requests_are_bounded() {
        let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
        let refused = (0..MAX_REQUESTS as u64 + 1)
            .filter_map(|ticket| queue.push(publish(ticket, None), now))
            .map(|event| refusal(&event))
            .collect::<Vec<_>>();
        assert_eq!(refused, [(MAX_REQUESTS as u64, Refused::Unavailable)]);
    }

    #[test]
    fn refusal_after_an_attempt_in_doubt_is_unknown() {
        let now = Instant::now();
        let mut queue = RequestQueue::new(Duration::from_secs(5));
        assert!(queue.push(publish(1, Some("k")), now).is_none());
        assert_eq!(queue.take(1, usize::MAX), [0]);
        assert!(queue.lost(0).is_none(), "it has a key and is sent again");
        assert_eq!(queue.take(1, usize::MAX), [0]);
        let refusal = queue.refused(0, Refused::Full);
        let Some(BrokerEvent::Published { result, .. }) = refusal else {
            panic!("{refusal:?}")
        };
        assert_eq!(result, Err(Refused::Unknown));
    }
}
