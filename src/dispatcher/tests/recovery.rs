//! Holes are mended, those who come back get what they missed, and all of it by few bounded reads.

use super::*;

#[test]
fn a_hole_is_mended_by_one_read_before_anything_newer_is_delivered() {
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
fn after_a_lost_subscription_the_node_reads_what_it_missed_and_members_stay() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let requests = bench.turn([following("lobby")]);
    let Request::Read(read) = &requests[0] else {
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
fn members_are_told_once_where_they_stand_when_the_log_no_longer_reaches() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page(ticket, 30, 29, vec![29, 30])]);
    let heard = bench.heard(1);
    let epoch = Epoch::new(EPOCH).to_string();
    assert_eq!(
        heard[0],
        json!({"type": "gap", "room": "lobby", "epoch": epoch, "offset": 28})
    );
    assert_eq!(heard[1]["offset"], 29);
    assert_eq!(heard.len(), 3);
}

#[test]
fn a_read_that_fails_is_asked_again_at_the_next_tick() {
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
fn clients_that_return_together_share_one_read() {
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
        assert_eq!(offsets, expected, "the answer, and then what it missed");
    }
}

#[test]
fn a_position_ahead_of_this_node_is_judged_by_a_read_and_not_by_memory() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 10);
    bench.open(2);
    // The client heard 11 and 12 from another node; they have not come here yet.
    let ticket = read_ticket(&bench.turn([rejoin(2, "lobby", EPOCH, 12)]));
    assert!(bench.heard(2).is_empty());
    bench.turn([page(ticket, 12, 1, vec![11, 12])]);
    assert_eq!(bench.heard(2)[0]["recovered"], true);
    assert_eq!(bench.offsets(1), [11, 12]);
    bench.turn([message("lobby", 11, "late"), message("lobby", 13, "new")]);
    assert_eq!(bench.offsets(2), [13]);
}

#[test]
fn a_page_for_a_room_that_is_gone_changes_nothing_in_the_one_in_its_place() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.turn([join(1, "old")]);
    let ticket = read_ticket(&bench.turn([following("old")]));
    bench.turn([leave(1, "old"), join(1, "new")]);
    bench.heard(1);
    bench.turn([page(ticket, 99, 1, vec![])]);
    assert!(
        bench.heard(1).is_empty(),
        "the join of the new room waits for its own read"
    );
    let ticket = read_ticket(&bench.turn([following("new")]));
    bench.turn([page(ticket, 5, 6, vec![])]);
    assert_eq!(bench.offsets(1), [5]);
}

#[test]
fn a_resubscription_of_many_rooms_reads_a_bounded_number_at_a_time() {
    let mut bench = Bench::new();
    bench.dispatcher.desk.settings.max_rooms = 1000;
    bench.dispatcher.desk.settings.rooms_per_session = 1000;
    bench.open(1);
    let rooms: Vec<String> = (0..200).map(|n| format!("r{n}")).collect();
    bench.turn(rooms.iter().map(|room| join(1, room)));
    let mut asked = bench.turn(rooms.iter().map(|room| following(room)));
    assert_eq!(asked.len(), desk::READS);
    let mut answered = 0;
    while let Some(request) = asked.pop() {
        let Request::Read(read) = request else {
            panic!("{request:?}")
        };
        answered += 1;
        asked.extend(bench.turn([page(read.ticket, 0, 1, vec![])]));
        assert!(asked.len() <= desk::READS);
        bench.chunks(1);
    }
    assert_eq!(answered, 200);
}

#[test]
fn what_waits_behind_holes_is_bounded_in_bytes_and_comes_with_a_later_read() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    bench.member(1000, "other", 0);
    let text = "x".repeat(12 << 10);
    let mut ticket = None;
    for offset in 2..=1000 {
        let requests = bench.turn(["lobby", "other"].map(|room| message(room, offset, &text)));
        ticket = ticket.or_else(|| (!requests.is_empty()).then(|| read_ticket(&requests)));
        assert!(bench.dispatcher.desk.ahead_used <= desk::AHEAD_MEMORY);
    }
    let held = bench.dispatcher.desk.ahead_used;
    assert!(held > desk::AHEAD_MEMORY / 2, "{held}");
    let requests = bench.turn([page(ticket.unwrap(), 1000, 1, (1..=100).collect())]);
    let position = bench.dispatcher.position(&name("lobby")).unwrap();
    assert!((101..1000).contains(&position.offset), "{position:?}");
    assert!(bench.dispatcher.desk.ahead_used < held);
    let Some(Request::Read(read)) = requests.first() else {
        panic!("{requests:?}")
    };
    assert_eq!(read.range, Range::After(position));
    bench.turn([leave(1, "lobby"), leave(1000, "other")]);
    assert_eq!(bench.dispatcher.desk.ahead_used, 0);
}
