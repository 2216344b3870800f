//! The dispatcher's turns, one at a time: events in, frames and requests out. The broker is played by hand; no task
//! runs and no time passes but what the test says.

mod census;
mod control;
mod identity;
#[path = "presence/tests.rs"]
mod presence;
mod reports;

use std::collections::HashMap;

use super::*;
use crate::broker::{Page, Publication, Range, Refused};
use crate::disconnect::Disconnect;
use crate::id::Epoch;
use crate::id::Ticket;
use crate::presence::PresenceSettings;
use crate::protocol::Publish;
use crate::rights::Rights;
use crate::session::{Chunk, OutboxLimits, OutboxReader, outbox};
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const OUTBOX: usize = 64 * 1024;
const EPOCH: u64 = 7;

/// A dispatcher, and the writers' ends of its sessions.
struct Bench {
    dispatcher: Dispatcher,
    now: Now,
    outboxes: HashMap<u64, OutboxReader>,
    /// What the broker was asked about presence, apart from all else.
    presence: Vec<Request>,
}

impl Bench {
    fn new() -> Self {
        let now = Now {
            instant: Instant::now(),
            unix_ms: 1_764_000_000_000,
        };
        let settings = Settings {
            incarnation: Incarnation(1),
            node: "test".into(),
            heartbeat: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            join_timeout: Duration::from_secs(5),
            rooms_per_session: 16,
            max_rooms: 3,
            rights: Rights::open(),
            retention: Retention::uniform(1000, Duration::from_secs(300)),
            token_lifetime: Duration::from_secs(86_400),
            recent_memory: 1 << 20,
            presence: PresenceSettings::default(),
            outbox_bytes: OUTBOX,
            seed: 1,
        };
        let dispatcher = Dispatcher::new(now, settings, Arc::default());
        Self {
            dispatcher,
            now,
            outboxes: HashMap::new(),
            presence: Vec::new(),
        }
    }

    fn turn(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Request> {
        self.dispatcher.turn(self.now, events);
        let is_presence = |request: &Request| {
            matches!(
                request,
                Request::Here(_) | Request::Connected(_) | Request::Members(_) | Request::Retire(_)
            )
        };
        let requests = self.dispatcher.take_requests();
        let (presence, others) = requests.partition(is_presence);
        self.presence.extend::<Vec<_>>(presence);
        others
    }

    fn open(&mut self, session: u64) {
        let limits = OutboxLimits {
            bytes: OUTBOX,
            frames: 4096,
        };
        let (outbox, reader) = outbox(limits, || ());
        self.outboxes.insert(session, reader);
        let (session, protocol) = (SessionId(session), Protocol::Native);
        self.turn([Event::Opened {
            session,
            protocol,
            identity: None,
            outbox,
        }]);
        assert_eq!(self.heard(session.0).len(), 1, "the welcome");
    }

    /// Opens a session that is a live member of the room, which stands at `offset`.
    fn member(&mut self, session: u64, room: &str, offset: u64) {
        self.open(session);
        let requests = self.turn([join(session, room)]);
        if requests
            .iter()
            .any(|request| matches!(request, Request::Follow(_)))
        {
            let requests = self.turn([following(room)]);
            let ticket = read_ticket(&requests);
            self.turn([page(ticket, offset, offset + 1, vec![])]);
        }
        let heard = self.heard(session);
        assert_eq!(heard[0]["offset"], offset, "{heard:?}");
    }

    fn chunks(&mut self, session: u64) -> Vec<Bytes> {
        let reader = &self.outboxes[&session];
        let mut chunks = Vec::new();
        while let Some(chunk) = reader.try_recv() {
            match chunk {
                Chunk::Frames(frames) => {
                    reader.written(frames.len(), 1);
                    chunks.push(frames);
                }
                Chunk::End(farewell) => chunks.push(farewell),
            }
        }
        chunks
    }

    fn heard(&mut self, session: u64) -> Vec<Value> {
        self.chunks(session)
            .iter()
            .flat_map(|frames| messages(frames))
            .collect()
    }

    fn offsets(&mut self, session: u64) -> Vec<u64> {
        self.heard(session)
            .iter()
            .filter_map(|said| said["offset"].as_u64())
            .collect()
    }
}

/// The JSON of the text frames in a buffer.
fn messages(mut frames: &[u8]) -> Vec<Value> {
    let mut messages = Vec::new();
    while let [opcode, length, rest @ ..] = frames {
        let (length, rest) = match (length, rest) {
            (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (length, rest) => (usize::from(*length), rest),
        };
        if *opcode == 0x81 {
            messages.push(serde_json::from_slice(&rest[..length]).unwrap());
        }
        frames = &rest[length..];
    }
    messages
}

fn name(room: &str) -> RoomName {
    RoomName::new(room).unwrap()
}

fn command(session: u64, command: Command) -> Event {
    Event::Command {
        session: SessionId(session),
        id: Some(RequestId(1)),
        command,
    }
}

fn join(session: u64, room: &str) -> Event {
    command(
        session,
        Command::Join {
            room: name(room),
            since: None,
        },
    )
}

fn rejoin(session: u64, room: &str, epoch: u64, offset: u64) -> Event {
    let since = Some(Position {
        epoch: Epoch::new(epoch),
        offset,
    });
    command(
        session,
        Command::Join {
            room: name(room),
            since,
        },
    )
}

fn leave(session: u64, room: &str) -> Event {
    command(session, Command::Leave { room: name(room) })
}

fn following(room: &str) -> Event {
    Event::Broker(BrokerEvent::Following(name(room)))
}

fn said(text: &str) -> Arc<Publication> {
    let data = RawValue::from_string(json!(text).to_string()).unwrap();
    Arc::new(Publication {
        user: None,
        time: 1,
        except: None,
        data,
    })
}

fn message(room: &str, offset: u64, text: &str) -> Event {
    let (room, epoch, publication) = (name(room), Epoch::new(EPOCH), said(text));
    Event::Broker(BrokerEvent::Message {
        room,
        epoch,
        offset,
        publication,
        heard: Instant::now(),
    })
}

fn page(ticket: Ticket, top: u64, first: u64, messages: Vec<u64>) -> Event {
    let top = Position {
        epoch: Epoch::new(EPOCH),
        offset: top,
    };
    let messages = messages
        .into_iter()
        .map(|offset| (offset, said("old")))
        .collect();
    Event::Broker(BrokerEvent::Page {
        ticket,
        result: Ok(Page {
            top,
            first,
            messages,
        }),
    })
}

fn read_ticket(requests: &[Request]) -> Ticket {
    let read = requests.iter().find_map(|request| match request {
        Request::Read(read) => Some(read.ticket),
        _ => None,
    });
    read.unwrap_or_else(|| panic!("no read in {requests:?}"))
}

#[test]
fn a_publication_is_encoded_once_and_shared_by_every_outbox() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    bench.member(2, "lobby", 0);
    bench.turn((1..=16).map(|offset| message("lobby", offset, "hi")));
    let (ada, bob) = (bench.chunks(1), bench.chunks(2));
    assert_eq!(ada.len(), 1, "what is said in one turn is one buffer");
    assert_eq!(ada[0].as_ptr(), bob[0].as_ptr());
    assert_eq!(messages(&ada[0]).len(), 16);
}

#[test]
fn a_node_follows_with_the_first_local_member_and_unfollows_after_the_last() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    let requests = bench.turn([join(1, "lobby"), join(2, "lobby"), join(1, "lobby")]);
    assert!(
        matches!(&requests[..], [Request::Follow(room)] if *room == name("lobby")),
        "{requests:?}"
    );
    assert!(
        bench
            .turn([leave(1, "lobby"), leave(1, "lobby")])
            .is_empty()
    );
    let closed = Event::Closed {
        session: SessionId(2),
        farewell: None,
    };
    let requests = bench.turn([closed]);
    assert!(
        matches!(&requests[..], [Request::Unfollow(_)]),
        "{requests:?}"
    );
    assert!(matches!(
        &bench.turn([join(1, "lobby")])[..],
        [Request::Follow(_)]
    ));
}

#[test]
fn everyone_sees_inbox_order_although_a_turn_is_one_buffer() {
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
    assert_eq!(bench.offsets(1), [1, 2], "and then the answer to leave");
    let heard = bench.heard(2);
    assert_eq!(heard[0]["type"], "ok");
    assert_eq!(
        heard
            .iter()
            .map(|said| said["offset"].clone())
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

#[test]
fn a_turn_ends_when_a_room_has_filled_a_quarter_of_an_outbox() {
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
        "and nobody is slow"
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
    let farewell = chunks.last().unwrap();
    assert_eq!(farewell[2..4], Disconnect::Slow.code().to_be_bytes());
    assert_eq!(bench.dispatcher.sessions.len(), 1);
}

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
fn a_join_that_the_broker_does_not_answer_is_refused_in_time() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.turn([join(1, "lobby")]);
    bench.now.instant += Duration::from_secs(6);
    let requests = bench.turn([Event::Tick]);
    assert!(
        matches!(&requests[..], [Request::Unfollow(_)]),
        "{requests:?}"
    );
    assert_eq!(bench.heard(1)[0]["code"], "unavailable");
}

#[test]
fn a_node_has_no_more_rooms_than_it_may() {
    let mut bench = Bench::new();
    bench.open(1);
    let requests = bench.turn((1..=4).map(|n| join(1, &format!("r{n}"))));
    assert_eq!(requests.len(), 3);
    assert_eq!(bench.heard(1)[0]["code"], "limit");
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
                bench.heard(1);
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
fn one_who_does_not_read_does_not_decide_what_the_others_wait_for() {
    let mut bench = Bench::new();
    bench.dispatcher.desk.settings.recent_memory = 0;
    bench.member(1, "lobby", 500);
    bench.open(2);
    bench.open(3);
    let ticket = read_ticket(&bench.turn([rejoin(2, "lobby", EPOCH, 0)]));
    // Two takes its first page and reads nothing of it.
    let large = "x".repeat(1024);
    let messages = (1..=100).map(|offset| (offset, said(&large))).collect();
    let top = Position {
        epoch: Epoch::new(EPOCH),
        offset: 500,
    };
    let page = BrokerEvent::Page {
        ticket,
        result: Ok(Page {
            top,
            first: 1,
            messages,
        }),
    };
    bench.turn([Event::Broker(page)]);
    let requests = bench.turn([rejoin(3, "lobby", EPOCH, 400)]);
    let Some(Request::Read(read)) = requests.first() else {
        panic!("{requests:?}")
    };
    let Range::After(from) = read.range else {
        panic!("{read:?}")
    };
    assert_eq!(from.offset, 400, "the read begins where somebody can go on");
}

#[test]
fn a_session_that_opens_during_the_drain_is_told_to_come_back_too() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.turn([Event::Drain(Duration::from_secs(10))]);
    let (outbox, reader) = outbox(
        OutboxLimits {
            bytes: OUTBOX,
            frames: 100,
        },
        || (),
    );
    bench.outboxes.insert(2, reader);
    let (session, protocol) = (SessionId(2), Protocol::Native);
    bench.turn([Event::Opened {
        session,
        protocol,
        identity: None,
        outbox,
    }]);
    let heard: Vec<Value> = bench.heard(2);
    assert_eq!(heard[1]["type"], "bye", "{heard:?}");
}

#[test]
fn a_connection_whose_writer_does_not_end_is_hung_up_on() {
    let mut bench = Bench::new();
    let hung_up = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = hung_up.clone();
    let limits = OutboxLimits {
        bytes: OUTBOX,
        frames: 100,
    };
    let (outbox, _reader) = outbox(limits, move || {
        flag.store(true, std::sync::atomic::Ordering::Relaxed)
    });
    let (session, protocol) = (SessionId(1), Protocol::Native);
    bench.turn([Event::Opened {
        session,
        protocol,
        identity: None,
        outbox,
    }]);
    bench.turn([Event::Closed {
        session,
        farewell: None,
    }]);
    bench.turn([Event::Tick]);
    assert!(!hung_up.load(std::sync::atomic::Ordering::Relaxed));
    bench.now.instant += Duration::from_secs(6);
    bench.turn([Event::Tick]);
    assert!(hung_up.load(std::sync::atomic::Ordering::Relaxed));
    assert!(bench.dispatcher.load().is_idle());
}

#[test]
fn commands_that_wait_for_the_broker_are_bounded_per_session_and_in_all() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    let publish = |session| {
        let data = RawValue::from_string("1".into()).unwrap();
        let (room, key) = (name("lobby"), None);
        let (ephemeral, others) = (false, false);
        let publish = Publish {
            room,
            key,
            data,
            ephemeral,
            others,
        };
        command(session, Command::Publish(publish))
    };
    let mut asked = 0;
    for _ in 0..2 {
        asked += bench.turn((0..600).map(|_| publish(1))).len();
    }
    assert_eq!(asked, 1024);
    let refused = bench.heard(1);
    assert!(
        refused.iter().all(|said| said["code"] == "limit"),
        "{refused:?}"
    );
    assert_eq!(bench.turn([publish(2)]).len(), 1, "nobody else notices");
    for other in 3..=66 {
        bench.open(other);
        for _ in 0..2 {
            asked += bench.turn((0..512).map(|_| publish(other))).len();
        }
    }
    assert_eq!(
        asked + 1,
        65_536,
        "what all sessions together may have under way"
    );
    assert_eq!(bench.heard(66).last().unwrap()["code"], "unavailable");
}

/// A backend's publish, and where its answer comes.
fn call(room: &str) -> (Event, flume::Receiver<(usize, api::Answer)>) {
    let (telling, answers) = flume::bounded(1);
    let publish = api::Publish {
        room: name(room),
        key: Some("k".into()),
        ephemeral: false,
        publication: said("hi"),
    };
    let event = Event::Call {
        caller: api::Caller::new(0, telling),
        command: api::Command::Publish(publish),
    };
    (event, answers)
}

fn published(ticket: Ticket, offset: u64) -> Event {
    let epoch = Epoch::new(EPOCH);
    let result = Ok(Position { epoch, offset });
    Event::Broker(BrokerEvent::Published { ticket, result })
}

fn publish_ticket(requests: &[Request]) -> Ticket {
    match requests {
        [Request::Publish(publish)] => publish.ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_is_answered_by_the_broker_and_its_keys_are_no_clients() {
    let mut bench = Bench::new();
    let (event, answers) = call("@ada");
    let requests = bench.turn([event]);
    let [Request::Publish(publish)] = &requests[..] else {
        panic!("{requests:?}")
    };
    let publisher = &publish.key.as_ref().unwrap().publisher;
    assert_eq!(*publisher, crate::publication::Publisher::Backend);
    assert!(answers.is_empty());
    bench.turn([published(publish.ticket, 4)]);
    let (place, answer) = answers.try_recv().unwrap();
    let answer: Value = serde_json::from_slice(&answer.unwrap()).unwrap();
    assert_eq!((place, &answer["offset"]), (0, &json!(4)));
    assert!(answers.is_disconnected() && bench.dispatcher.load().is_idle());
}

#[test]
fn a_caller_that_hung_up_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let (event, answers) = call("lobby");
    let ticket = publish_ticket(&bench.turn([event]));
    drop(answers);
    bench.turn([published(ticket, 1)]);
    assert!(bench.dispatcher.load().is_idle());
}

#[test]
fn calls_that_wait_for_the_broker_are_bounded_and_leave_room_for_clients() {
    let mut bench = Bench::new();
    bench.open(1);
    let (mut asked, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..17 {
        let (events, answers): (Vec<_>, Vec<_>) = (0..1024).map(|_| call("lobby")).unzip();
        asked.extend(bench.turn(events));
        waiting.extend(answers);
    }
    assert_eq!(asked.len(), 16_384);
    let (_, refused) = waiting.last().unwrap().try_recv().unwrap();
    assert_eq!(
        refused.unwrap_err().code,
        crate::protocol::Code::Unavailable
    );
    let history = Command::History {
        room: name("lobby"),
        before: None,
        limit: 1,
    };
    assert_eq!(bench.turn([command(1, history)]).len(), 1, "clients go on");
    let ticket = publish_ticket(&asked[..1]);
    bench.turn([published(ticket, 1)]);
    assert_eq!(
        bench.turn([call("lobby").0]).len(),
        1,
        "as does the next call"
    );
}

#[test]
fn a_drain_waits_for_calls_and_not_for_ever() {
    let (mut bench, mut deaf) = (Bench::new(), Bench::new());
    let (event, _answers) = call("lobby");
    let ticket = publish_ticket(&bench.turn([event]));
    let drain = || Event::Drain(Duration::from_secs(10));
    assert_eq!(bench.dispatcher.turn(bench.now, [drain()]), Flow::On);
    assert_eq!(
        bench.dispatcher.turn(bench.now, [published(ticket, 1)]),
        Flow::Ended
    );

    deaf.turn([call("lobby").0]);
    assert_eq!(deaf.dispatcher.turn(deaf.now, [drain()]), Flow::On);
    deaf.now.instant += Duration::from_secs(5);
    assert_eq!(deaf.dispatcher.turn(deaf.now, [Event::Tick]), Flow::Ended);
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
fn readers_that_flood_do_not_delay_what_the_broker_brings() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    let (say, tell, inbox) = inbox(2000);
    (0..2000).for_each(|_| say.send(command(1, Command::Ping)).unwrap());
    for offset in 1..=100 {
        let Event::Broker(message) = message("lobby", offset, "hi") else {
            unreachable!()
        };
        tell.send(message).unwrap();
    }
    // Whatever is in the inbox is handled still.
    drop((say, tell));
    let dispatcher = std::mem::replace(&mut bench.dispatcher, Bench::new().dispatcher);
    let (asked, _requests) = flume::unbounded();
    runtime::block_on(run(
        dispatcher,
        inbox,
        Broker::new(asked),
        Readiness::default(),
    ));
    let heard = bench.heard(1);
    let last = heard.iter().position(|said| said["offset"] == 100).unwrap();
    let pongs = heard[..last].iter().filter(|said| said["type"] == "pong");
    // A turn's messages are offered at its end; all hundred are in the first.
    assert!(
        last >= 99 && heard.len() == 2100,
        "{last} of {}",
        heard.len()
    );
    assert!(pongs.count() <= TURN, "the last came after {last} others");
}

#[test]
fn whoever_joins_and_leaves_for_ever_makes_no_line_longer() {
    let mut bench = Bench::new();
    bench.dispatcher.desk.settings.max_rooms = 1000;
    bench.dispatcher.desk.settings.rooms_per_session = 1000;
    bench.open(1);
    let rooms: Vec<String> = (0..desk::READS).map(|n| format!("r{n}")).collect();
    bench.turn(rooms.iter().map(|room| join(1, room)));
    let asked = bench.turn(rooms.iter().map(|room| following(room)));
    assert_eq!(asked.len(), desk::READS, "no further read may be asked");
    for _ in 0..100 {
        bench.turn([join(1, "again"), following("again"), leave(1, "again")]);
        bench.heard(1);
    }
    assert_eq!(bench.dispatcher.desk.due(), 1);
    assert_eq!(bench.dispatcher.joins.len(), desk::READS + 1);
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
