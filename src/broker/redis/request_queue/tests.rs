//! Tests of the queue with simulated clocks: order, turns, batches, parking and timeouts.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::*;
use crate::broker::redis::presence::agent::{PresenceCommand, PresenceReply};
use crate::broker::redis::presence::reaper::ReapStep;
use crate::broker::{
    BrokerEvent, MembersQuery, MembersRequest, Publication, Publish, PublishKey, PublishRequest,
    Publisher, Range, Read,
};
use crate::model::id::{Epoch, Position, RoomName, SessionId, Ticket};
use crate::model::source::CallerId;

fn publish(ticket: u64, key: Option<&str>) -> RedisRequest {
    RedisRequest::Publish(PublishRequest {
        ticket: Ticket(ticket),
        source: Source::Session(SessionId(0)),
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
    assert!(queue.waiting.is_empty());
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
        request.source = Source::Session(SessionId(session));
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

fn read(ticket: u64, session: u64, range: Range, limit: usize) -> RedisRequest {
    RedisRequest::Read(Read {
        ticket: Ticket(ticket),
        source: Source::Session(SessionId(session)),
        room: RoomName::new("r").unwrap(),
        range,
        limit,
    })
}

fn members(ticket: u64) -> RedisRequest {
    RedisRequest::Members(MembersRequest {
        ticket: Ticket(ticket),
        source: Source::Session(SessionId(ticket)),
        query: MembersQuery {
            room: RoomName::new("r").unwrap(),
            after: None,
            limit: 10,
        },
    })
}

#[test]
fn batch_of_pages_is_bounded_by_cost() {
    let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
    for ticket in 0..9 {
        let read = read(ticket, 1, Range::Before(None), 100);
        assert!(queue.push(read, now).is_none());
    }
    assert_eq!(take(&mut queue, 64, 256 << 10), [0, 1, 2]);
}

#[test]
fn batch_has_many_positions_and_comparisons_whatever_a_page_could_hold() {
    let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
    for ticket in 0..64 {
        queue.push(read(ticket, ticket, Range::Top, 256), now);
    }
    assert_eq!(take(&mut queue, 64, 256 << 10).len(), 64);
    let after = Range::After(Position {
        epoch: Epoch::new(1),
        offset: 4,
    });
    (0..64).for_each(|ticket| _ = queue.push(read(ticket, ticket, after, 16), now));
    assert_eq!(take(&mut queue, 64, 256 << 10).len(), 16);
    // No page is larger than this, however many messages are asked for.
    let cost = read(0, 0, after, 100_000).cost();
    assert_eq!(cost, (512 << 10) + 256);
}

#[test]
fn read_of_one_session_waits_for_no_more_than_a_turn_of_the_others() {
    let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
    let page = Range::Before(None);
    for ticket in 0..1000 {
        queue.push(read(ticket, ticket % 50, page, 100), now);
    }
    // All fifty have had some pages.
    take(&mut queue, 200, usize::MAX);
    queue.push(read(5000, 99, Range::Top, 0), now);
    let next = take(&mut queue, 64, 256 << 10);
    assert!(next.contains(&5000), "{next:?}");
}

#[test]
fn node_and_callers_have_their_shares_beside_many_sessions() {
    let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
    for ticket in 0..1000 {
        queue.push(read(ticket, ticket, Range::Top, 0), now);
    }
    for (first, source) in [
        (2000, Source::Node),
        (3000, Source::Caller(CallerId::PROGRAM)),
    ] {
        for ticket in first..first + 10 {
            let RedisRequest::Read(mut request) = read(ticket, 0, Range::Top, 0) else {
                unreachable!()
            };
            request.source = source;
            queue.push(RedisRequest::Read(request), now);
        }
    }
    let next = take(&mut queue, 30, usize::MAX);
    let of = |range: std::ops::Range<u64>| next.iter().filter(|it| range.contains(it)).count();
    assert_eq!((of(2000..2010), of(3000..3010)), (10, 10), "{next:?}");
}

#[test]
fn parked_read_holds_up_no_other_and_has_its_own_deadline() {
    let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
    queue.push(members(1), now);
    assert!(queue.take(9, usize::MAX));
    let early = answered(&mut queue, 1).pop().unwrap();
    assert!(queue.park(early).is_none());
    let later = now + TIMEOUT / 2;
    queue.push(members(2), later);
    queue.push(read(3, 3, Range::Top, 0), later);
    assert!(queue.take(9, usize::MAX));
    assert_eq!(queue.newest_batch().count(), 2, "both others are sent");
    let late = answered(&mut queue, 2).swap_remove(0);
    assert!(queue.park(late).is_none());
    assert_eq!((queue.parked(), queue.unanswered()), (2, 0));
    assert!(queue.lost().is_empty(), "they were not sent");
    let refused: Vec<_> = queue.expire(now + TIMEOUT).into_iter().collect();
    let [refused] = <[Completion; 1]>::try_from(refused).unwrap();
    let Some(BrokerEvent::MemberPage {
        ticket: Ticket(1),
        result: Err(Refused::Incomplete),
    }) = refused.event()
    else {
        panic!("the first alone")
    };
    queue.unpark();
    assert!(queue.take(9, usize::MAX));
    assert_eq!((queue.newest_batch().count(), queue.parked()), (1, 0));
}

#[test]
fn unparked_reads_take_turns_with_what_arrived_meanwhile() {
    let (mut queue, now) = (RequestQueue::new(TIMEOUT), Instant::now());
    (0..500).for_each(|ticket| _ = queue.push(members(ticket), now));
    assert!(queue.take(500, usize::MAX));
    for queued in answered(&mut queue, 500) {
        assert!(queue.park(queued).is_none());
    }
    queue.push(read(1000, 1000, Range::Top, 0), now);
    queue.unpark();
    assert!(queue.take(1, usize::MAX));
    assert!(matches!(
        queue.newest_batch().next(),
        Some(RedisRequest::Read(_))
    ));
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
    let push = |queue: &mut RequestQueue, session| {
        let RedisRequest::Publish(mut request) = publish(0, None) else {
            unreachable!()
        };
        request.source = Source::Session(SessionId(session));
        queue.push(RedisRequest::Publish(request), now)
    };
    let all = (0..MOST.items).filter_map(|_| push(&mut queue, 0));
    assert_eq!(all.count(), 0);
    let refused = push(&mut queue, 0).map(refusal);
    assert_eq!(refused, Some((0, Refused::Unavailable)));
    // Another session finds a place, at the expense of the one that fills the queue.
    let RedisRequest::Publish(mut request) = publish(1, None) else {
        unreachable!()
    };
    request.source = Source::Session(SessionId(1));
    let refused = queue.push(RedisRequest::Publish(request), now);
    assert_eq!(refusal(refused.unwrap()), (0, Refused::Unavailable));
    assert_eq!(queue.waiting.len(), MOST.items);
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
