//! Publications reach the outboxes once and in order, and a client that does not read harms no
//! other.

use std::collections::{HashSet, VecDeque};

use super::*;
use crate::broker::LogRequest;
use crate::dispatcher::delivery::COMPARE_EVERY;

#[test]
fn publication_is_encoded_once_and_shared_by_every_outbox() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    bench.member(2, "lobby", 0);
    bench.turn((1..=16).map(|offset| message("lobby", offset, "hi")));
    let (ada, bob) = (bench.chunks(1), bench.chunks(2));
    assert_eq!(ada.len(), 1, "one turn is one buffer");
    assert_eq!(ada[0].as_ptr(), bob[0].as_ptr());
    assert_eq!(messages(&ada[0]).len(), 16);
}

#[test]
fn topic_is_followed_from_the_first_local_member_to_the_last() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    let requests = bench.turn([join(1, "lobby"), join(2, "lobby"), join(1, "lobby")]);
    assert!(
        matches!(&requests[..], [Request::Log(LogRequest::Follow(room))] if *room == name("lobby")),
        "{requests:?}"
    );
    assert!(
        bench
            .turn([leave(1, "lobby"), leave(1, "lobby")])
            .is_empty()
    );
    let closed = Event::Closed {
        session: SessionId(2),
        close_reason: None,
    };
    let requests = bench.turn([closed]);
    assert!(
        matches!(&requests[..], [Request::Log(LogRequest::Unfollow(_))]),
        "{requests:?}"
    );
    assert!(matches!(
        &bench.turn([join(1, "lobby")])[..],
        [Request::Log(LogRequest::Follow(_))]
    ));
}

#[test]
fn members_receive_inbox_order_although_a_turn_is_one_buffer() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    bench.open(2);
    let events = [
        message("lobby", 1, "before"),
        join(2, "lobby"),
        message("lobby", 2, "between"),
        leave(1, "lobby"),
        message("lobby", 3, "after"),
    ];
    bench.turn(events);
    assert_eq!(bench.offsets(1), [1, 2], "and then the reply to leave");
    let received = bench.received(2);
    assert_eq!(received[0]["type"], "ok");
    assert_eq!(
        received
            .iter()
            .map(|frame| frame["offset"].clone())
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

#[test]
fn turn_ends_when_a_room_has_filled_a_quarter_of_an_outbox() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    let text = "x".repeat(1024);
    let mut events = (1..=1000).map(|offset| message("lobby", offset, &text));
    let mut turns = 0;
    while turns < 2000 {
        bench.dispatcher.turn(bench.now, &mut events);
        turns += 1;
        let chunks = bench.chunks(1);
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        assert!(bytes <= OUTBOX / 4 + 2048, "{bytes}");
        if chunks.is_empty() {
            break;
        }
    }
    assert!(
        turns > 50,
        "a burst of a megabyte takes many turns, not {turns}"
    );
    assert!(
        bench.dispatcher.sessions.contains_key(&SessionId(1)),
        "the session is not slow"
    );
}

#[test]
fn a_full_outbox_ends_that_session_alone() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    bench.member(2, "lobby", 0);
    let text = "x".repeat(1024);
    for offset in 1..=100 {
        bench.turn([message("lobby", offset, &text)]);
        assert_eq!(bench.offsets(2), [offset]);
    }
    let chunks = bench.chunks(1);
    let close = chunks.last().unwrap();
    assert_eq!(close[2..4], Disconnect::Slow.code().to_be_bytes());
    assert_eq!(bench.dispatcher.sessions.len(), 1);
}

#[test]
fn rooms_share_the_quarter_of_an_outbox_that_ends_a_turn() {
    let mut bench = Bench::new();
    for room in ["one", "two", "three"] {
        let events = if room == "one" {
            None
        } else {
            Some(join(1, room))
        };
        match events {
            None => bench.member(1, room, 0),
            Some(join) => {
                bench.turn([join]);
                let ticket = read_ticket(&bench.turn([following(room)]));
                bench.turn([page(ticket, 0, 1, vec![])]);
                bench.received(1);
            }
        }
    }
    let text = "x".repeat(1024);
    let events =
        (1..=100).flat_map(|n| ["one", "two", "three"].map(|room| message(room, n, &text)));
    bench.turn(events);
    let bytes: usize = bench.chunks(1).iter().map(Bytes::len).sum();
    assert!(bytes <= OUTBOX / 4 + 2048, "{bytes}");
    assert_eq!(bench.dispatcher.sessions.len(), 1);
}

#[test]
fn slow_reader_does_not_set_the_range_of_the_shared_read() {
    let mut bench = Bench::new();
    bench.dispatcher.turn.settings.recent_memory = 0;
    bench.member(1, "lobby", 500);
    bench.open(2);
    bench.open(3);
    let ticket = read_ticket(&bench.turn([rejoin(2, "lobby", EPOCH, 0)]));
    // Session 2 receives its first page and reads nothing of it.
    let large = "x".repeat(1024);
    let messages = (1..=100)
        .map(|offset| (offset, publication(&large)))
        .collect();
    let top = Position {
        epoch: Epoch::new(EPOCH),
        offset: 500,
    };
    let page = BrokerEvent::Page {
        ticket,
        result: Ok(Page {
            top,
            first: 1,
            ends: Ends::default(),
            expires_in: std::time::Duration::from_secs(60),
            messages,
        }),
    };
    bench.turn([Event::Broker(page)]);
    let requests = bench.turn([rejoin(3, "lobby", EPOCH, 400)]);
    let Some(Request::Log(LogRequest::Read(read))) = requests.first() else {
        panic!("{requests:?}")
    };
    let Range::After(from) = read.range else {
        panic!("{read:?}")
    };
    assert_eq!(
        from.offset, 400,
        "the read begins at a cursor that can receive"
    );
}
use crate::model::epochs::Ends;

#[test]
fn every_room_is_compared_with_its_log_within_a_minute_however_many_there_are() {
    const ROOMS: usize = 20_000;
    const SESSIONS: usize = 100;
    let mut bench = Bench::new();
    bench.silence(2 * COMPARE_EVERY);
    bench.dispatcher.turn.settings.max_rooms = ROOMS;
    bench.dispatcher.turn.settings.rooms_per_session = ROOMS;
    for session in 1..=SESSIONS as u64 {
        bench.open(session);
        for room in 0..ROOMS / SESSIONS {
            let room = format!("room-{session}-{room}");
            bench.turn([join(session, &room)]);
            let ticket = read_ticket(&bench.turn([following(&room)]));
            bench.turn([page(ticket, 0, 1, vec![])]);
            bench.chunks(session);
        }
    }
    let mut compared = HashSet::new();
    // A tick more, for the last part of a room.
    for _ in 0..=COMPARE_EVERY.as_millis() / TICK.as_millis() {
        bench.now.instant += TICK;
        // One event a turn, because a long turn leaves events for the next.
        let mut events = VecDeque::from([Event::Tick]);
        while let Some(event) = events.pop_front() {
            for request in bench.turn([event]) {
                if let Request::Log(LogRequest::Read(read)) = request {
                    events.push_back(page(read.ticket, 0, 1, vec![]));
                    compared.insert(read.room);
                }
            }
            assert!(bench.dispatcher.turn.log_reads.in_flight() <= turn::READS);
        }
    }
    let compared = compared
        .iter()
        .filter(|room| room.as_str().starts_with("room-"));
    assert_eq!(compared.count(), ROOMS);
}
