//! Regressions that schedules found in the delivery to members that are behind: one dispatcher,
//! and a broker that each test scripts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};
use switchboard::broker::{
    BrokerEvent, LogRequest, Page, Publication, Range, Read, Refused, Request, Sender,
};
use switchboard::dispatcher::{Dispatcher, Event, Now, ReplyTo, Settings, TICK};
use switchboard::metrics::Metrics;
use switchboard::model::epochs::Ends;
use switchboard::model::id::{Epoch, Incarnation, Position, RoomName, SessionId, Ticket};
use switchboard::model::retention::Retention;
use switchboard::model::rights::Rights;
use switchboard::outbox::{Chunk, OutboxLimits, OutboxReader, outbox};
use switchboard::presence::PresenceSettings;
use switchboard::protocol::{Command, Protocol, RequestId};

use super::transport::{Frame, Transport};

const OUTBOX: usize = 4_096;
const INCARNATION: Incarnation = Incarnation(7);

/// A dispatcher, and the readers of its outboxes.
pub struct Harness {
    pub dispatcher: Dispatcher,
    pub now: Instant,
    pub clients: Vec<OutboxReader>,
}

pub fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn at(epoch: u64, offset: u64) -> Position {
    let epoch = Epoch::new(epoch);
    Position { epoch, offset }
}

pub fn publication(value: u64, except: Option<u64>) -> Arc<Publication> {
    let pad = "x".repeat(100);
    Arc::new(Publication {
        user: None,
        time: 0,
        except: except.map(|session| Sender {
            incarnation: INCARNATION,
            session: SessionId(session),
        }),
        event: None,
        data: RawValue::from_string(format!("[{value},\"{pad}\"]"))
            .unwrap()
            .into(),
    })
}

fn page(top: Position, first: u64, from: u64, to: u64) -> Page {
    let messages = (from..=to)
        .map(|offset| (offset, publication(offset, None)))
        .collect();
    Page {
        top,
        first,
        ends: Ends::default(),
        expires_in: std::time::Duration::from_secs(60),
        messages,
    }
}

impl Harness {
    pub fn new(clients: u64, recent_memory: usize) -> Self {
        let now = Instant::now();
        let settings = Settings {
            incarnation: INCARNATION,
            node: "a".into(),
            heartbeat: Duration::from_secs(3600),
            pong_timeout: Duration::from_secs(3600),
            close_timeout: Duration::from_secs(1),
            join_timeout: Duration::from_secs(3600),
            max_message: 65_536,
            session_commands: 100,
            rooms_per_session: 100,
            max_rooms: 100,
            rights: Rights::open(),
            retention: Retention::uniform(1000, Duration::from_secs(300)),
            token_lifetime: Duration::from_secs(86_400),
            recent_memory,
            presence: PresenceSettings::default(),
            outbox_bytes: OUTBOX,
            hooks: Arc::default(),
            seed: 1,
        };
        let clock = Now {
            instant: now,
            unix_ms: 0,
        };
        let mut harness = Self {
            dispatcher: Dispatcher::new(clock, settings, Arc::new(Metrics::default())),
            now,
            clients: Vec::new(),
        };
        for session in 0..clients {
            let limits = OutboxLimits {
                bytes: OUTBOX,
                frames: 100,
            };
            let (outbox, reader) = outbox(limits, || ());
            harness.clients.push(reader);
            harness.turn([Event::Opened {
                session: SessionId(session),
                protocol: Protocol::Native,
                identity: None,
                outbox,
            }]);
            harness.receive(session);
        }
        harness
    }

    /// Runs a turn and returns its requests to the broker.
    pub fn turn(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Request> {
        let clock = Now {
            instant: self.now,
            unix_ms: 0,
        };
        self.dispatcher.turn(clock, events);
        self.dispatcher.take_requests().collect()
    }

    /// Handles an event of the broker and returns the reads that it causes.
    fn broker_event(&mut self, event: BrokerEvent) -> Vec<Read> {
        reads(self.turn([Event::Broker(event)]))
    }

    fn answer(&mut self, ticket: Ticket, page: Page) -> Vec<Read> {
        self.broker_event(BrokerEvent::Page {
            ticket,
            result: Ok(page),
        })
    }

    fn join(&mut self, session: u64, name: &str, since: Option<Position>) -> Vec<Read> {
        let command = Command::Join {
            room: room(name),
            since,
            identity: None,
        };
        reads(self.turn([command_of(session, command)]))
    }

    /// Confirms the subscription of the room and answers the read of its top.
    fn settle(&mut self, name: &str, page: Page) {
        let sent = self.broker_event(BrokerEvent::Following(room(name)));
        self.answer(sent[0].ticket, page);
    }

    /// Drains a client's outbox and returns the frames that it receives.
    fn receive(&mut self, session: u64) -> Vec<Value> {
        let mut received = Vec::new();
        while let Some(chunk) = self.clients[session as usize].try_recv() {
            let reader = &self.clients[session as usize];
            match chunk {
                Chunk::Bytes(frames) => {
                    reader.written(frames.len(), 1);
                    let frames = Transport::default().frames(0, 0, &[frames]);
                    received.extend(frames.into_iter().map(|frame| match frame {
                        Frame::Text(text) => serde_json::from_str(&text).unwrap(),
                        Frame::Ping => json!("ping"),
                    }));
                }
                Chunk::End(_) => received.push(json!("end")),
            }
            if reader.take_drained_wanted() {
                self.turn([Event::Drained(SessionId(session))]);
            }
        }
        received
    }

    fn offsets(&mut self, session: u64) -> Vec<u64> {
        let received = self.receive(session);
        let messages = received.iter().filter(|frame| frame["type"] == "message");
        messages
            .map(|message| message["offset"].as_u64().unwrap())
            .collect()
    }
}

pub fn command_of(session: u64, command: Command) -> Event {
    let (session, id) = (SessionId(session), Some(RequestId::from(1)));
    Event::Command {
        reply_to: ReplyTo::Session { session, id },
        command,
    }
}

fn reads(requests: Vec<Request>) -> Vec<Read> {
    let read = |request| match request {
        Request::Log(LogRequest::Read(read)) => Some(read),
        _ => None,
    };
    requests.into_iter().filter_map(read).collect()
}

#[test]
fn join_overtaken_by_a_leave_is_answered() {
    let mut harness = Harness::new(1, 1 << 20);
    harness.join(0, "r", None);
    harness.turn([command_of(0, Command::Leave { room: room("r") })]);
    let kinds: Vec<Value> = harness
        .receive(0)
        .iter()
        .map(|frame| frame["type"].clone())
        .collect();
    assert_eq!(kinds, [json!("error"), json!("ok")]);
}

#[test]
fn slow_read_is_sent_once_for_all_sessions() {
    let mut harness = Harness::new(10, 0);
    harness.join(0, "r", None);
    harness.settle("r", page(at(1, 50), 1, 1, 0));
    let sent: usize = (1..10)
        .map(|session| harness.join(session, "r", Some(at(1, 5))).len())
        .sum();
    for _ in 0..20 {
        harness.now += TICK;
        assert!(reads(harness.turn([Event::Tick])).is_empty());
        assert!(
            harness.dispatcher.load().due <= 1,
            "{:?}",
            harness.dispatcher.load()
        );
    }
    assert_eq!(sent, 1);
}

#[test]
fn refused_read_is_retried() {
    let mut harness = Harness::new(2, 0);
    harness.join(0, "r", None);
    harness.settle("r", page(at(1, 10), 1, 1, 0));
    let sent = harness.join(1, "r", Some(at(1, 9)));
    let refused = BrokerEvent::Page {
        ticket: sent[0].ticket,
        result: Err(Refused::Unavailable),
    };
    assert!(harness.broker_event(refused).is_empty());
    let again = reads(harness.turn([Event::Tick]));
    assert_eq!(again[0].range, Range::After(at(1, 9)));
    harness.answer(again[0].ticket, page(at(1, 10), 1, 10, 10));
    assert_eq!(harness.offsets(1), [10]);
}

#[test]
fn page_ahead_of_the_node_leaves_no_session_behind() {
    let mut harness = Harness::new(2, 0);
    harness.join(0, "r", None);
    harness.settle("r", page(at(1, 10), 1, 1, 0));
    let sent = harness.join(1, "r", Some(at(1, 8)));
    harness.answer(sent[0].ticket, page(at(1, 12), 1, 9, 12));
    for offset in 11..=13 {
        harness.broker_event(BrokerEvent::Message {
            room: room("r"),
            epoch: Epoch::new(1),
            offset,
            publication: publication(offset, None),
            received_at: Instant::now(),
        });
    }
    assert_eq!(harness.offsets(1), [9, 10, 11, 12, 13]);
}

#[test]
fn recovery_does_not_continue_into_another_epoch() {
    let mut harness = Harness::new(2, 0);
    harness.join(0, "r", None);
    harness.settle("r", page(at(1, 10), 1, 1, 0));
    harness.join(1, "r", Some(at(1, 3)));
    harness.settle("r", page(at(2, 5), 1, 1, 5));
    let sent = reads(harness.turn([Event::Tick]));
    for read in sent {
        harness.answer(read.ticket, page(at(2, 5), 1, 1, 5));
    }
    let received = harness.receive(1);
    assert_eq!(received[0]["recovered"], false, "{received:?}");
    assert_eq!(
        (&received[0]["offset"], received.len()),
        (&json!(5), 1),
        "{received:?}"
    );
}

#[test]
fn rejoin_of_many_rooms_overflows_no_outbox() {
    let mut harness = Harness::new(2, 1 << 20);
    let names: Vec<String> = (0..8).map(|n| format!("r{n}")).collect();
    for name in &names {
        harness.join(0, name, None);
        harness.settle(name, page(at(1, 0), 1, 1, 0));
        for offset in 1..=20 {
            harness.broker_event(BrokerEvent::Message {
                room: room(name),
                epoch: Epoch::new(1),
                offset,
                publication: publication(offset, None),
                received_at: Instant::now(),
            });
            harness.receive(0);
        }
    }
    for name in &names {
        harness.join(1, name, Some(at(1, 0)));
    }
    let received = harness.receive(1);
    let messages = received
        .iter()
        .filter(|frame| frame["type"] == "message")
        .count();
    assert_eq!((messages, received.len()), (160, 168), "{received:?}");
}

#[test]
fn repair_larger_than_an_outbox_closes_no_session() {
    let mut harness = Harness::new(1, 1 << 20);
    harness.join(0, "r", None);
    harness.settle("r", page(at(1, 0), 1, 1, 0));
    harness.receive(0);
    harness.settle("r", page(at(1, 100), 1, 1, 100));
    assert_eq!(harness.offsets(0), (1..=100).collect::<Vec<_>>());
}

#[test]
fn recovery_omits_the_data_of_own_messages_like_live_delivery() {
    let mut harness = Harness::new(1, 1 << 20);
    harness.join(0, "r", None);
    harness.settle("r", page(at(1, 0), 1, 1, 0));
    harness.broker_event(BrokerEvent::Message {
        room: room("r"),
        epoch: Epoch::new(1),
        offset: 1,
        publication: publication(1, Some(0)),
        received_at: Instant::now(),
    });
    harness.receive(0);
    harness.join(0, "r", Some(at(1, 0)));
    let received = harness.receive(0);
    assert_eq!(
        (&received[1]["own"], &received[1]["data"]),
        (&json!(true), &Value::Null),
        "{received:?}"
    );
}
