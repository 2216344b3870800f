//! The requests of one connection that have no answer yet: which are to be sent next (each session
//! in turn), which may be sent again when the connection is lost, and which have waited too long.
//! Plain logic, with invented clocks in its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::fair_queue::FairQueue;
use crate::broker::{
    BrokerEvent, Census, Members, Publish, Read, ReadRevocations, Refused, Revoke,
};
use crate::model::cluster_query::ClusterQuery;
use crate::model::id::{RoomName, SessionId};

/// How many requests may wait for their answers. A guess: three seconds of a busy node's publishes,
/// so that a short absence of Redis costs nothing.
const MAX_JOBS: usize = 16_384;

/// How many bytes they may hold.
const MAX_BYTES: usize = 32 << 20;

/// What reading all revocations costs, in entries of a page, when there are as many as there may
/// be: an entry is far smaller than a message.
const ENTRIES_OF_REVOCATIONS: usize = 256;

/// Something to be done by Redis.
#[derive(Debug)]
pub enum RedisRequest {
    Publish(Publish),
    Read(Read),
    Members(Members),
    Census(Census),
    Revoke(Revoke),
    ReadRevocations(ReadRevocations),
    /// A word to the node itself, to hear whether publishing and the subscription work. Nobody
    /// waits for its answer.
    Probe,
}

impl RedisRequest {
    /// Whether doing it twice is the same as doing it once.
    fn may_repeat(&self) -> bool {
        match self {
            RedisRequest::Publish(publish) => publish.key.is_some() && !publish.ephemeral,
            RedisRequest::Revoke(_) => true,
            job if job.is_read() => true,
            _ => false,
        }
    }

    /// The room it reads or writes; `None` if it concerns no single one.
    pub fn room(&self) -> Option<&RoomName> {
        match self {
            RedisRequest::Publish(publish) => Some(&publish.room),
            RedisRequest::Read(read) => Some(&read.room),
            RedisRequest::Members(members) => Some(&members.room),
            RedisRequest::Census(_)
            | RedisRequest::Revoke(_)
            | RedisRequest::ReadRevocations(_)
            | RedisRequest::Probe => None,
        }
    }

    /// Whether it leaves nothing behind that anybody could miss.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            RedisRequest::Read(_)
                | RedisRequest::Members(_)
                | RedisRequest::Census(_)
                | RedisRequest::ReadRevocations(_)
        )
    }

    /// Whose share of the line it takes.
    fn source(&self) -> Option<SessionId> {
        match self {
            RedisRequest::Publish(publish) => publish.source,
            _ => None,
        }
    }

    /// What it occupies, in bytes, near enough.
    fn weight(&self) -> usize {
        match self {
            RedisRequest::Publish(publish) => publish.publication.weight() + 256,
            RedisRequest::Revoke(revoke) => revoke.cutoffs.len() * 96 + 256,
            _ => 256,
        }
    }

    /// What it costs Redis, as bytes on the wire, there or back. An entry of a page counts as a
    /// KiB, though most are smaller: Redis works off what came on one connection before it turns to
    /// the next, and 100 entries take it 40 µs, in which it hears nobody else.
    fn cost(&self) -> usize {
        let entries = match self {
            RedisRequest::Read(Read { limit, .. })
            | RedisRequest::Members(Members { limit, .. }) => *limit,
            RedisRequest::Census(Census { question, .. }) => match question {
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

    /// The answer to whoever asked, if there is anyone.
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
            RedisRequest::Census(census) => Some(BrokerEvent::Found {
                ticket: census.ticket,
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

/// A read leaves no trace, so it is never in doubt.
fn unless_unknown(why: Refused) -> Refused {
    match why {
        Refused::Unknown => Refused::Unavailable,
        other => other,
    }
}

#[derive(Debug)]
struct Entry {
    job: RedisRequest,
    /// When its turn is; those of one round go in the order they came.
    round: u64,
    deadline: Instant,
    /// It is on the connection, and no answer has come.
    sent: bool,
    /// It was on a connection that was lost, and may have been done there.
    in_doubt: bool,
}

/// All requests of one connection, numbered in the order they came.
#[derive(Debug)]
pub struct RequestQueue {
    entries: BTreeMap<u64, Entry>,
    /// Those to be sent, by round and number.
    unsent: BTreeSet<(u64, u64)>,
    shares: FairQueue,
    next: u64,
    bytes: usize,
    patience: Duration,
}

impl RequestQueue {
    /// A queue in which a request waits for its answer so long.
    pub fn new(patience: Duration) -> Self {
        Self {
            entries: BTreeMap::new(),
            unsent: BTreeSet::new(),
            shares: FairQueue::default(),
            next: 0,
            bytes: 0,
            patience,
        }
    }

    /// Takes a request, or gives back its refusal when too many wait.
    pub fn push(&mut self, job: RedisRequest, now: Instant) -> Option<BrokerEvent> {
        let weight = job.weight();
        if self.entries.len() >= MAX_JOBS || self.bytes + weight > MAX_BYTES {
            return job.refuse(Refused::Unavailable);
        }
        let round = self.shares.enter(job.source());
        let entry = Entry {
            job,
            round,
            deadline: now + self.patience,
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
                self.shares.serve(entry.job.source(), round);
                entry.sent = true;
                taken = taken.saturating_add(entry.job.cost());
                numbers.push(number);
            }
        }
        numbers
    }

    pub fn job(&self, number: u64) -> Option<&RedisRequest> {
        self.entries.get(&number).map(|entry| &entry.job)
    }

    /// Redis has refused the request at last. If an earlier attempt may have succeeded, nobody
    /// knows what has happened.
    pub fn refused(&mut self, number: u64, why: Refused) -> Option<BrokerEvent> {
        let in_doubt = self.entries.get(&number)?.in_doubt;
        let why = if in_doubt { Refused::Unknown } else { why };
        self.done(number)?.refuse(why)
    }

    /// The request has its answer. `None`: it was given up before.
    pub fn done(&mut self, number: u64) -> Option<RedisRequest> {
        let entry = self.entries.remove(&number)?;
        if self.unsent.remove(&(entry.round, number)) {
            self.shares.leave(entry.job.source());
        }
        self.bytes -= entry.job.weight();
        Some(entry.job)
    }

    /// Redis has not touched the request: it waits again, before all later ones of its source.
    pub fn untouched(&mut self, number: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.sent = false;
            if self.unsent.insert((entry.round, number)) {
                self.shares.enter_again(entry.job.source());
            }
        }
    }

    /// The connection was lost before the answer: what may be repeated waits again, anything else
    /// is refused as unknown.
    pub fn lost(&mut self, number: u64) -> Option<BrokerEvent> {
        let entry = self.entries.get_mut(&number)?;
        if entry.job.may_repeat() {
            entry.in_doubt = true;
            self.untouched(number);
            return None;
        }
        self.done(number)?.refuse(Refused::Unknown)
    }

    /// Refuses what has waited too long. Requests have equal patience, so the oldest are the first.
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
    use crate::broker::{Publication, PublishKey, Publisher, Range};
    use crate::model::id::{RoomName, Ticket};

    fn publish(ticket: u64, key: Option<&str>) -> RedisRequest {
        RedisRequest::Publish(Publish {
            ticket: Ticket(ticket),
            source: None,
            room: RoomName::new("r").unwrap(),
            key: key.map(|key| PublishKey {
                publisher: Publisher::Anonymous,
                key: key.into(),
            }),
            ephemeral: false,
            publication: Arc::new(Publication {
                user: None,
                time: 0,
                except: None,
                data: RawValue::NULL.to_owned(),
            }),
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

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn what_waits_too_long_is_refused_by_what_may_have_happened() {
        let (mut queue, now) = (RequestQueue::new(PATIENCE), Instant::now());
        for (ticket, key) in [(0, None), (1, Some("k")), (2, None), (3, None)] {
            assert!(queue.push(publish(ticket, key), now).is_none());
        }
        let sent = queue.take(3, usize::MAX);
        assert_eq!(sent, [0, 1, 2]);
        let refused = queue.lost(0).unwrap();
        assert_eq!(refusal(&refused), (0, Refused::Unknown), "at once");
        assert!(queue.lost(1).is_none(), "a key may be repeated");
        queue.untouched(2);
        assert!(queue.expire(now + PATIENCE / 2).is_empty());
        let refused: Vec<_> = queue.expire(now + PATIENCE).iter().map(refusal).collect();
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
    fn what_goes_back_stands_before_what_came_later() {
        let (mut queue, now) = (RequestQueue::new(PATIENCE), Instant::now());
        for ticket in 0..5 {
            queue.push(publish(ticket, None), now);
        }
        assert_eq!(queue.take(3, usize::MAX), [0, 1, 2]);
        queue.untouched(2);
        queue.untouched(1);
        assert!(queue.done(0).is_some());
        assert!(queue.done(0).is_none(), "answered once");
        assert_eq!(queue.take(9, usize::MAX), [1, 2, 3, 4]);
    }

    #[test]
    fn whoever_says_little_does_not_wait_for_all_that_another_says() {
        let (mut queue, now) = (RequestQueue::new(PATIENCE), Instant::now());
        let mut push = |ticket, session| {
            let RedisRequest::Publish(mut said) = publish(ticket, None) else {
                unreachable!()
            };
            said.source = Some(SessionId(session));
            assert!(queue.push(RedisRequest::Publish(said), now).is_none());
        };
        (0..100).for_each(|ticket| push(ticket, 1));
        (100..106).for_each(|ticket| push(ticket, 2));
        assert_eq!(queue.take(5, usize::MAX), [0, 1, 2, 3, 100]);
        queue.untouched(100);
        assert_eq!(queue.take(5, usize::MAX), [100, 101, 102, 103, 4]);
        let rest = queue.take(200, usize::MAX);
        assert_eq!(rest[..6], [5, 6, 7, 104, 105, 8]);
        assert_eq!(rest[6..], (9..100).collect::<Vec<u64>>());
    }

    #[test]
    fn pages_that_are_read_together_are_few() {
        let (mut queue, now) = (RequestQueue::new(PATIENCE), Instant::now());
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
    fn a_batch_is_bounded_by_bytes_and_never_empty() {
        let (mut queue, now) = (RequestQueue::new(PATIENCE), Instant::now());
        for ticket in 0..3 {
            queue.push(publish(ticket, None), now);
        }
        assert_eq!(queue.take(9, 1), [0]);
    }

    #[test]
    fn the_waiting_are_bounded() {
        let (mut queue, now) = (RequestQueue::new(PATIENCE), Instant::now());
        let refused = (0..MAX_JOBS as u64 + 1)
            .filter_map(|ticket| queue.push(publish(ticket, None), now))
            .map(|event| refusal(&event))
            .collect::<Vec<_>>();
        assert_eq!(refused, [(MAX_JOBS as u64, Refused::Unavailable)]);
    }

    #[test]
    fn a_refusal_after_an_attempt_in_doubt_is_unknown() {
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
