//! Recovery: holes are closed, rejoining clients receive what they missed, and few bounded reads do
//! both.

use super::*;
use crate::broker::LogRequest;

#[test]
fn hole_is_closed_by_one_read_before_newer_messages() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let requests = bench.turn([message("lobby", 13, "c"), message("lobby", 14, "d")]);
    let ticket = read_ticket(&requests);
    assert_eq!(requests.len(), 1);
    assert!(
        bench.turn([message("lobby", 15, "e")]).is_empty(),
        "one read is enough"
    );
    assert!(bench.offsets(1).is_empty());
    bench.turn([page(ticket, 14, 1, vec![11, 12, 13, 14])]);
    assert_eq!(bench.offsets(1), [11, 12, 13, 14, 15]);
}

#[test]
fn resubscription_reads_missed_messages_and_keeps_the_members() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let requests = bench.turn([following("lobby")]);
    let Request::Log(LogRequest::Read(read)) = &requests[0] else {
        panic!("{requests:?}")
    };
    let delivered = Position {
        epoch: Epoch::new(EPOCH),
        offset: 10,
    };
    assert_eq!(read.range, Range::After(delivered));
    bench.turn([page(read.ticket, 12, 1, vec![11, 12])]);
    assert_eq!(bench.offsets(1), [11, 12]);
}

#[test]
fn gap_is_sent_once_when_the_log_no_longer_reaches() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page(ticket, 30, 29, vec![29, 30])]);
    let received = bench.received(1);
    let epoch = Epoch::new(EPOCH).to_string();
    assert_eq!(
        received[0],
        json!({"type": "gap", "room": "lobby", "epoch": epoch, "offset": 28})
    );
    assert_eq!(received[1]["offset"], 29);
    assert_eq!(received.len(), 3);
}

#[test]
fn failed_read_is_repeated_at_the_next_tick() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    let failed = BrokerEvent::Page {
        ticket,
        result: Err(Refused::Unavailable),
    };
    assert!(bench.turn([Event::Broker(failed)]).is_empty());
    let ticket = read_ticket(&bench.turn([Event::Tick]));
    bench.turn([page(ticket, 11, 1, vec![11])]);
    assert_eq!(bench.offsets(1), [11]);
}

#[test]
fn rejoining_clients_share_one_read() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 500);
    for session in 2..=50 {
        bench.open(session);
    }
    let herd = (2..=50).map(|session| rejoin(session, "lobby", EPOCH, 400 + session));
    let requests = bench.turn(herd);
    assert_eq!(requests.len(), 1, "{requests:?}");
    let ticket = read_ticket(&requests);
    assert!(
        bench
            .turn([page(ticket, 500, 1, (403..=500).collect())])
            .is_empty()
    );
    for session in 2..=50 {
        let offsets = bench.offsets(session);
        let expected: Vec<u64> = (400 + session..=500).collect();
        assert_eq!(offsets, expected, "the reply, and then the missed messages");
    }
}

#[test]
fn position_ahead_of_this_node_is_resolved_by_a_read() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    bench.open(2);
    // The client received 11 and 12 from another node; this node has not received them yet.
    let ticket = read_ticket(&bench.turn([rejoin(2, "lobby", EPOCH, 12)]));
    assert!(bench.received(2).is_empty());
    bench.turn([page(ticket, 12, 1, vec![11, 12])]);
    assert_eq!(bench.received(2)[0]["recovered"], true);
    assert_eq!(bench.offsets(1), [11, 12]);
    bench.turn([message("lobby", 11, "late"), message("lobby", 13, "new")]);
    assert_eq!(bench.offsets(2), [13]);
}

#[test]
fn page_of_a_removed_room_does_not_change_its_successor() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.turn([join(1, "old")]);
    let ticket = read_ticket(&bench.turn([following("old")]));
    bench.turn([leave(1, "old"), join(1, "new")]);
    bench.received(1);
    bench.turn([page(ticket, 99, 1, vec![])]);
    assert!(
        bench.received(1).is_empty(),
        "the join of the new room waits for its own read"
    );
    let ticket = read_ticket(&bench.turn([following("new")]));
    bench.turn([page(ticket, 5, 6, vec![])]);
    assert_eq!(bench.offsets(1), [5]);
}

#[test]
fn resubscription_of_many_rooms_bounds_its_reads() {
    let mut bench = Bench::new();
    bench.dispatcher.turn.settings.max_rooms = 1000;
    bench.dispatcher.turn.settings.rooms_per_session = 1000;
    bench.open(1);
    let rooms: Vec<String> = (0..200).map(|n| format!("r{n}")).collect();
    bench.turn(rooms.iter().map(|room| join(1, room)));
    let mut requests = bench.turn(rooms.iter().map(|room| following(room)));
    assert_eq!(requests.len(), turn::READS);
    let mut answered = 0;
    while let Some(request) = requests.pop() {
        let Request::Log(LogRequest::Read(read)) = request else {
            panic!("{request:?}")
        };
        answered += 1;
        requests.extend(bench.turn([page(read.ticket, 0, 1, vec![])]));
        assert!(requests.len() <= turn::READS);
        bench.chunks(1);
    }
    assert_eq!(answered, 200);
}

#[test]
fn messages_ahead_of_holes_are_bounded_in_bytes_and_read_later() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    bench.member(1000, "other", 0);
    let text = "x".repeat(12 << 10);
    let mut ticket = None;
    for offset in 2..=1000 {
        let requests = bench.turn(["lobby", "other"].map(|room| message(room, offset, &text)));
        ticket = ticket.or_else(|| (!requests.is_empty()).then(|| read_ticket(&requests)));
        assert!(bench.dispatcher.turn.ahead_used <= turn::AHEAD_MEMORY);
    }
    let held = bench.dispatcher.turn.ahead_used;
    assert!(held > turn::AHEAD_MEMORY / 2, "{held}");
    let requests = bench.turn([page(ticket.unwrap(), 1000, 1, (1..=100).collect())]);
    let position = bench.dispatcher.position(&name("lobby")).unwrap();
    assert!((101..1000).contains(&position.offset), "{position:?}");
    assert!(bench.dispatcher.turn.ahead_used < held);
    let Some(Request::Log(LogRequest::Read(read))) = requests.first() else {
        panic!("{requests:?}")
    };
    assert_eq!(read.range, Range::After(position));
    bench.turn([leave(1, "lobby"), leave(1000, "other")]);
    assert_eq!(bench.dispatcher.turn.ahead_used, 0);
}

/// The epoch that follows [`EPOCH`].
const NEXT: u64 = 8;

/// A page of a log whose epoch [`EPOCH`] ended at `end`.
fn page_after_end(ticket: Ticket, end: u64, top: u64, messages: Vec<u64>) -> Event {
    let Event::Broker(BrokerEvent::Page { result, .. }) = page(ticket, top, 1, messages) else {
        unreachable!("it makes a page")
    };
    let result = result.map(|mut page| {
        page.top.epoch = Epoch::new(NEXT);
        page.ends.push(Epoch::new(EPOCH), end);
        page
    });
    Event::Broker(BrokerEvent::Page { ticket, result })
}

/// The frames that a session receives, as text: offsets of messages, gaps and replies.
fn transcript(bench: &mut Bench, session: u64) -> Vec<String> {
    let text = |frame: &Value| {
        let offset = &frame["offset"];
        let epoch = frame["epoch"].as_str().map_or("", |epoch| &epoch[15..]);
        match frame["type"].as_str() {
            Some("message") => offset.to_string(),
            Some("gap") => format!("gap {epoch}:{offset}"),
            _ => format!("recovered {} {epoch}:{offset}", frame["recovered"]),
        }
    };
    bench.received(session).iter().map(text).collect()
}

/// A room with session 1 live at 12, and whose former epoch ended at 10.
fn bench_after_end() -> Bench {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page_after_end(ticket, 10, 12, vec![11, 12])]);
    assert_eq!(transcript(&mut bench, 1), ["gap 8:10", "11", "12"]);
    bench
}

#[test]
fn ended_epoch_sends_live_members_one_gap_and_no_duplicate() {
    let mut bench = bench_after_end();
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page_after_end(ticket, 10, 12, vec![])]);
    assert_eq!(transcript(&mut bench, 1), [""; 0]);
}

#[test]
fn epoch_that_ended_below_a_live_member_moves_it_to_the_end() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    // 9 and 10 were lost, and their offsets are used again.
    bench.turn([page_after_end(ticket, 8, 11, vec![9, 10, 11])]);
    assert_eq!(transcript(&mut bench, 1), ["gap 8:8", "9", "10", "11"]);
    bench.open(2);
    bench.turn([rejoin(2, "lobby", EPOCH, 10)]);
    let expected = ["recovered false 8:8", "9", "10", "11"];
    assert_eq!(
        transcript(&mut bench, 2),
        expected,
        "from memory, not what was lost"
    );
}

#[test]
fn positions_in_an_ended_epoch_recover_up_to_its_end_with_one_gap() {
    let mut bench = bench_after_end();
    (2..=6).for_each(|session| bench.open(session));
    let requests = bench.turn([rejoin(2, "lobby", EPOCH, 7)]);
    let Request::Log(LogRequest::Read(read)) = &requests[0] else {
        panic!("{requests:?}")
    };
    let since = Position {
        epoch: Epoch::new(EPOCH),
        offset: 7,
    };
    assert_eq!(read.range, Range::After(since));
    bench.turn([page_after_end(read.ticket, 10, 12, vec![8, 9, 10, 11, 12])]);
    let expected = ["recovered true 7:7", "8", "9", "10", "gap 8:10", "11", "12"];
    bench.turn([Event::Drained(SessionId(2))]);
    assert_eq!(transcript(&mut bench, 2), expected);
    for (session, epoch, offset, expected) in [
        (
            3,
            EPOCH,
            10,
            ["recovered true 7:10", "gap 8:10", "11", "12"].as_slice(),
        ),
        (4, EPOCH, 11, &["recovered false 8:10", "11", "12"]),
        (5, EPOCH, u64::MAX, &["recovered false 8:10", "11", "12"]),
        (6, NEXT, 11, &["recovered true 8:11", "12"]),
    ] {
        let requests = bench.turn([rejoin(session, "lobby", epoch, offset)]);
        assert!(requests.is_empty(), "{requests:?}");
        bench.turn([Event::Drained(SessionId(session))]);
        assert_eq!(transcript(&mut bench, session), expected);
    }
    bench.turn([leave(2, "lobby")]);
    bench.received(2);
    // No node has this epoch: the node's own read decides.
    let ticket = read_ticket(&bench.turn([rejoin(2, "lobby", 99, 11)]));
    bench.turn([page_after_end(ticket, 10, 12, vec![])]);
    assert_eq!(transcript(&mut bench, 2), ["recovered false 8:12"]);
}

#[test]
fn epoch_that_ends_while_members_are_behind_is_sent_to_its_end_first() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    bench.open(2);
    let requests = bench.turn([rejoin(2, "lobby", EPOCH, 5)]);
    let seek = read_ticket(&requests);
    let own = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page_after_end(own, 10, 12, vec![11, 12])]);
    // The page that was read for it is from before the end; it is read again.
    let requests = bench.turn([page(seek, 10, 1, vec![6, 7, 8, 9, 10])]);
    let reads = requests.iter().filter_map(|request| match request {
        Request::Log(LogRequest::Read(read)) => Some((read.ticket, read.range)),
        _ => None,
    });
    let mut reads: Vec<_> = reads.collect();
    for _ in 0..3 {
        for (ticket, range) in std::mem::take(&mut reads) {
            let messages = match range {
                Range::After(at) if at.epoch == Epoch::new(EPOCH) => (at.offset + 1..=12).collect(),
                _ => vec![],
            };
            let requests = bench.turn([page_after_end(ticket, 10, 12, messages)]);
            reads.extend(requests.iter().filter_map(|request| match request {
                Request::Log(LogRequest::Read(read)) => Some((read.ticket, read.range)),
                _ => None,
            }));
        }
    }
    bench.turn([Event::Drained(SessionId(2))]);
    let expected = [
        "recovered true 7:5",
        "6",
        "7",
        "8",
        "9",
        "10",
        "gap 8:10",
        "11",
        "12",
    ];
    assert_eq!(transcript(&mut bench, 2), expected);
}

#[test]
fn recent_messages_expire_with_the_log() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    bench.turn([message("lobby", 11, "a"), message("lobby", 12, "b")]);
    let history = || command(1, history("lobby"));
    assert!(bench.turn([history()]).is_empty(), "answered from memory");
    bench.now.instant += Duration::from_secs(299);
    assert!(bench.turn([history()]).is_empty());
    bench.open(2);
    assert!(bench.turn([rejoin(2, "lobby", EPOCH, 11)]).is_empty());
    bench.now.instant += Duration::from_secs(2);
    let requests = bench.turn([history()]);
    let [Request::Log(LogRequest::Read(read))] = &requests[..] else {
        panic!("the log is read: {requests:?}")
    };
    assert_eq!(read.range, Range::Before(None));
    bench.open(3);
    let ticket = read_ticket(&bench.turn([rejoin(3, "lobby", EPOCH, 11)]));
    bench.turn([page(ticket, 12, 13, vec![])]);
    assert_eq!(transcript(&mut bench, 3), ["recovered false 7:12"]);
}

#[test]
fn recent_messages_that_were_read_expire_with_their_page() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 12);
    bench.open(2);
    let ticket = read_ticket(&bench.turn([rejoin(2, "lobby", EPOCH, 9)]));
    // The log is kept for another minute.
    bench.turn([page(ticket, 12, 1, vec![10, 11, 12])]);
    bench.now.instant += Duration::from_secs(59);
    bench.open(3);
    assert!(bench.turn([rejoin(3, "lobby", EPOCH, 9)]).is_empty());
    bench.now.instant += Duration::from_secs(2);
    bench.open(4);
    let requests = bench.turn([rejoin(4, "lobby", EPOCH, 9)]);
    assert!(
        matches!(requests[..], [Request::Log(LogRequest::Read(_))]),
        "{requests:?}"
    );
}

fn newer(ticket: Ticket) -> Event {
    Event::Broker(BrokerEvent::Page {
        ticket,
        result: Err(Refused::Newer),
    })
}

fn codes(bench: &mut Bench, session: u64) -> Vec<u16> {
    let chunks = bench.chunks(session);
    let closes = chunks.iter().filter(|chunk| chunk[0] == 0x88);
    closes
        .map(|chunk| u16::from_be_bytes([chunk[2], chunk[3]]))
        .collect()
}

#[test]
fn members_of_a_room_with_a_newer_format_are_disconnected() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    bench.member(2, "other", 10);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([newer(ticket)]);
    assert_eq!(codes(&mut bench, 1), [3009]);
    assert!(codes(&mut bench, 2).is_empty());
}

#[test]
fn room_with_a_newer_format_is_read_again_once_a_second() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    // A join that needs the message keeps the room.
    bench.open(2);
    let mut requests = bench.turn([rejoin(2, "lobby", EPOCH, 12)]);
    let mut reads = 0;
    // Ends between two reads.
    let ticks = 2750 / TICK.as_millis() as u64;
    for tick in 0..ticks {
        if requests
            .iter()
            .any(|it| matches!(it, Request::Log(LogRequest::Read(_))))
        {
            reads += 1;
            let ticket = read_ticket(&requests);
            requests = bench.turn([newer(ticket), message("lobby", 20 + tick, "later")]);
            assert!(requests.is_empty(), "{requests:?}");
        }
        bench.now.instant += TICK;
        requests = bench.turn([Event::Tick, message("lobby", 100 + tick, "later")]);
    }
    assert!((2..=4).contains(&reads), "{reads} in three seconds");
    assert_eq!(bench.dispatcher.load().due, 1, "it stays due");
    let received = bench.received(2);
    assert!(received.is_empty(), "the join waits: {received:?}");
    bench.turn([leave(2, "lobby")]);
    assert_eq!(bench.dispatcher.load().due, 0, "no join waits any more");
}

#[test]
fn cursors_read_past_a_newer_format_that_they_do_not_need() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page(ticket, 12, 1, vec![11, 12])]);
    bench.open(2);
    let ticket = read_ticket(&bench.turn([rejoin(2, "lobby", EPOCH, 5)]));
    let again = read_ticket(&bench.turn([newer(ticket)]));
    bench.turn([page(again, 12, 1, vec![6, 7, 8, 9, 10])]);
    assert_eq!(bench.offsets(2), [5, 6, 7, 8, 9, 10, 11, 12]);
    assert!(codes(&mut bench, 1).is_empty());
}

/// Messages that are too long for a page of an outbox.
fn long_messages(event: Event) -> Event {
    let Event::Broker(BrokerEvent::Page { ticket, result }) = event else {
        unreachable!("it makes a page")
    };
    let result = result.map(|mut page| {
        for (_, message) in &mut page.messages {
            *message = publication(&"x".repeat(1000));
        }
        page
    });
    Event::Broker(BrokerEvent::Page { ticket, result })
}

/// What a session receives until its outbox stays empty.
fn whole_transcript(bench: &mut Bench, session: u64) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..50 {
        all.extend(transcript(bench, session));
        bench.turn([Event::Drained(SessionId(session))]);
    }
    all
}

fn numbers(offsets: std::ops::RangeInclusive<u64>) -> Vec<String> {
    offsets.map(|offset| offset.to_string()).collect()
}

#[test]
fn a_join_that_waits_when_its_epoch_ends_below_it_is_judged_anew() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    bench.open(2);
    bench.turn([rejoin(2, "lobby", EPOCH, 9)]);
    let own = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page_after_end(own, 8, 9, vec![9])]);
    assert_eq!(transcript(&mut bench, 1), ["gap 8:8", "9"]);
    assert_eq!(transcript(&mut bench, 2), ["recovered false 8:8", "9"]);
}

#[test]
fn a_member_that_is_behind_and_above_the_end_gets_one_gap() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([long_messages(page(ticket, 60, 1, (11..=60).collect()))]);
    let first = transcript(&mut bench, 1);
    assert!((6..50).contains(&first.len()), "a page: {first:?}");
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page_after_end(ticket, 12, 13, vec![13])]);
    assert_eq!(whole_transcript(&mut bench, 1), ["gap 8:12", "13"]);
}

#[test]
fn what_was_lost_is_not_given_from_memory() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 8);
    bench.turn([message("lobby", 9, "lost"), message("lobby", 10, "lost")]);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page_after_end(ticket, 8, 9, vec![9])]);
    bench.open(2);
    bench.turn([rejoin(2, "lobby", EPOCH, 8)]);
    let received = bench.received(2);
    let last = received.last().expect("the message");
    assert_eq!((&last["offset"], &last["data"]), (&json!(9), &json!("old")));
}

#[test]
fn a_long_page_across_the_end_of_an_epoch_gives_one_gap() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    let page = page_after_end(ticket, 20, 60, (11..=60).collect());
    bench.turn([long_messages(page)]);
    let gap = vec!["gap 8:20".to_owned()];
    let expected = [numbers(11..=20), gap, numbers(21..=60)].concat();
    assert_eq!(whole_transcript(&mut bench, 1), expected);
}

#[test]
fn a_long_page_behind_the_end_of_an_epoch_gives_one_gap() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    let page = page_after_end(ticket, 10, 60, (11..=60).collect());
    bench.turn([long_messages(page)]);
    let expected = [vec!["gap 8:10".to_owned()], numbers(11..=60)].concat();
    assert_eq!(whole_transcript(&mut bench, 1), expected);
}

#[test]
fn recent_messages_that_closed_a_hole_expire_when_the_page_says() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page(ticket, 12, 1, vec![11, 12])]);
    bench.now.instant += Duration::from_secs(59);
    bench.open(2);
    assert!(bench.turn([rejoin(2, "lobby", EPOCH, 10)]).is_empty());
    bench.now.instant += Duration::from_secs(2);
    bench.open(3);
    let requests = bench.turn([rejoin(3, "lobby", EPOCH, 10)]);
    assert!(
        matches!(requests[..], [Request::Log(LogRequest::Read(_))]),
        "{requests:?}"
    );
}
