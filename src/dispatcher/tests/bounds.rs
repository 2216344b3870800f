//! Queues are bounded, and a client that exceeds a bound receives an error.

use super::*;
use crate::broker::LogRequest;

#[test]
fn join_is_refused_at_its_deadline_without_the_broker() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.turn([join(1, "lobby")]);
    bench.now.instant += Duration::from_secs(6);
    let requests = bench.turn([Event::Tick]);
    assert!(
        matches!(&requests[..], [Request::Log(LogRequest::Unfollow(_))]),
        "{requests:?}"
    );
    assert_eq!(bench.received(1)[0]["code"], "unavailable");
}

#[test]
fn node_rooms_are_bounded() {
    let mut bench = Bench::new();
    bench.open(1);
    let requests = bench.turn((1..=4).map(|n| join(1, &format!("r{n}"))));
    assert_eq!(requests.len(), 3);
    assert_eq!(bench.received(1)[0]["code"], "limit");
}

#[test]
fn commands_that_wait_for_the_broker_are_bounded_per_session_and_in_all() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    let publish = |session| command(session, Command::Publish(Box::new(publish("lobby", None))));
    let mut sent = 0;
    for _ in 0..2 {
        sent += bench.turn((0..600).map(|_| publish(1))).len();
    }
    assert_eq!(sent, 1024);
    let refused = bench.received(1);
    assert!(
        refused.iter().all(|frame| frame["code"] == "limit"),
        "{refused:?}"
    );
    assert_eq!(
        bench.turn([publish(2)]).len(),
        1,
        "no other session is affected"
    );
    for other in 3..=66 {
        bench.open(other);
        for _ in 0..2 {
            sent += bench.turn((0..512).map(|_| publish(other))).len();
        }
    }
    bench.open(67);
    let taken = bench.turn((0..9).map(|_| publish(67))).len();
    assert_eq!(taken, 9, "some dozens leave room for others");
    let mut newcomer = 67;
    loop {
        newcomer += 1;
        bench.open(newcomer);
        let taken = bench.turn((0..512).map(|_| publish(newcomer))).len();
        if taken == 0 {
            break;
        }
        sent += taken;
    }
    assert_eq!(sent + 10, 65_536, "the bound of all sessions together");
    assert!(newcomer > 90, "{newcomer}");
    let refused = bench.received(newcomer);
    assert_eq!(refused.last().unwrap()["code"], "unavailable");
}

/// The room and the source of each read.
fn reads(requests: &[Request]) -> Vec<(&str, Source)> {
    let reads = requests.iter().filter_map(|request| match request {
        Request::Log(LogRequest::Read(read)) => Some((read.room.as_str(), read.source)),
        _ => None,
    });
    reads.collect()
}

#[test]
fn first_join_of_a_session_does_not_wait_for_the_reads_of_others() {
    let mut bench = Bench::new();
    bench.dispatcher.turn.settings.max_rooms = 1000;
    bench.dispatcher.turn.settings.rooms_per_session = 1000;
    bench.open(1);
    bench.open(2);
    let rooms: Vec<String> = (0..500).map(|n| format!("r{n}")).collect();
    bench.turn(rooms.iter().map(|room| join(1, room)));
    let started = bench.turn(rooms.iter().map(|room| following(room)));
    assert_eq!(reads(&started).len(), turn::READS);
    assert_eq!(reads(&started)[0].1, Source::Session(SessionId(1)));
    bench.turn([join(2, "quiet"), following("quiet")]);
    // A turn of the first session, then one of the second.
    let pages = started[..5].chunks(1);
    let pages: Vec<Event> = pages
        .map(|read| page(read_ticket(read), 0, 1, vec![]))
        .collect();
    let next = bench.turn(pages);
    let quiet = ("quiet", Source::Session(SessionId(2)));
    assert!(reads(&next).contains(&quiet), "{:?}", reads(&next));
}

#[test]
fn comparisons_and_repairs_are_the_nodes_own_and_ask_for_what_is_missing() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 4);
    let asked = |requests: &[Request]| match requests {
        [Request::Log(LogRequest::Read(read))] => (read.ticket, read.source, read.limit),
        other => panic!("{other:?}"),
    };
    // The topic was subscribed again: perhaps nothing is missing.
    let (ticket, source, limit) = asked(&bench.turn([following("lobby")]));
    assert_eq!((source, limit), (Source::Node, 16));
    let requests = bench.turn([page(ticket, 124, 1, (5..=20).collect())]);
    let (ticket, source, limit) = asked(&requests);
    assert_eq!((source, limit), (Source::Node, 104));
    bench.turn([page(ticket, 124, 1, (21..=124).collect())]);
    // A hole of forty messages.
    let (_, source, limit) = asked(&bench.turn([message("lobby", 165, "hi")]));
    assert_eq!((source, limit), (Source::Node, 40));
}

#[test]
fn broker_events_are_not_delayed_by_a_flood_of_commands() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    let (send, send_broker_event, inbox) = inbox(2000);
    (0..2000).for_each(|_| send.send(command(1, Command::Ping)).unwrap());
    for offset in 1..=100 {
        let Event::Broker(message) = message("lobby", offset, "hi") else {
            unreachable!()
        };
        send_broker_event.send(message).unwrap();
    }
    // Events that are in the inbox are still handled.
    drop((send, send_broker_event));
    let dispatcher = std::mem::replace(&mut bench.dispatcher, Bench::new().dispatcher);
    let (sender, _requests) = flume::unbounded();
    runtime::block_on(run(
        dispatcher,
        inbox,
        Broker::new(sender),
        Readiness::default(),
    ));
    let received = bench.received(1);
    let last = received
        .iter()
        .position(|frame| frame["offset"] == 100)
        .unwrap();
    let pongs = received[..last]
        .iter()
        .filter(|frame| frame["type"] == "pong");
    // A turn's messages are offered at its end; all hundred are in the first.
    assert!(
        last >= 99 && received.len() == 2100,
        "{last} of {}",
        received.len()
    );
    assert!(pongs.count() <= TURN, "the last came after {last} others");
}

#[test]
fn read_queue_does_not_grow_with_joins_and_leaves() {
    let mut bench = Bench::new();
    bench.dispatcher.turn.settings.max_rooms = 1000;
    bench.dispatcher.turn.settings.rooms_per_session = 1000;
    bench.open(1);
    let rooms: Vec<String> = (0..turn::READS).map(|n| format!("r{n}")).collect();
    bench.turn(rooms.iter().map(|room| join(1, room)));
    let requests = bench.turn(rooms.iter().map(|room| following(room)));
    assert_eq!(requests.len(), turn::READS, "no further read may start");
    for _ in 0..100 {
        bench.turn([join(1, "again"), following("again"), leave(1, "again")]);
        bench.received(1);
    }
    assert_eq!(bench.dispatcher.turn.log_reads.due(), 1);
    assert_eq!(bench.dispatcher.joins.len(), turn::READS + 1);
}
