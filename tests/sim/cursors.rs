//! What schedules have found out about members that are behind, told again as small stories: one
//! dispatcher, and a broker that is played by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};
use switchboard::broker::{BrokerEvent, Page, Publication, Range, Read, Refused, Request, Sender};
use switchboard::dispatcher::outbox::{Chunk, OutboxLimits, OutboxReader, outbox};
use switchboard::dispatcher::{Dispatcher, Event, Now, Settings, TICK};
use switchboard::metrics::Metrics;
use switchboard::model::epochs::Ends;
use switchboard::model::id::{Epoch, Incarnation, Position, RoomName, SessionId, Ticket};
use switchboard::model::retention::Retention;
use switchboard::model::rights::Rights;
use switchboard::presence::PresenceSettings;
use switchboard::protocol::{Command, Protocol, RequestId};

use super::transport::{Frame, Transport};

const OUTBOX: usize = 4_096;
const INCARNATION: Incarnation = Incarnation(7);

/// A dispatcher, and the clients' ends of its outboxes.
pub struct Turn {
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

pub fn said(value: u64, except: Option<u64>) -> Arc<Publication> {
    let pad = "x".repeat(100);
    Arc::new(Publication {
        user: None,
        time: 0,
        except: except.map(|session| Sender {
            incarnation: INCARNATION,
            session: SessionId(session),
        }),
        data: RawValue::from_string(format!("[{value},\"{pad}\"]")).unwrap(),
    })
}

fn page(top: Position, first: u64, from: u64, to: u64) -> Page {
    let messages = (from..=to)
        .map(|offset| (offset, said(offset, None)))
        .collect();
    Page {
        top,
        first,
        ends: Ends::default(),
        expires_in: std::time::Duration::from_secs(60),
        messages,
    }
}

impl Turn {
    pub fn new(clients: u64, recent_memory: usize) -> Self {
        let now = Instant::now();
        let settings = Settings {
            incarnation: INCARNATION,
            node: "a".into(),
            heartbeat: Duration::from_secs(3600),
            pong_timeout: Duration::from_secs(3600),
            close_timeout: Duration::from_secs(1),
            join_timeout: Duration::from_secs(3600),
            rooms_per_session: 100,
            max_rooms: 100,
            rights: Rights::open(),
            retention: Retention::uniform(1000, Duration::from_secs(300)),
            token_lifetime: Duration::from_secs(86_400),
            recent_memory,
            presence: PresenceSettings::default(),
            outbox_bytes: OUTBOX,
            seed: 1,
        };
        let clock = Now {
            instant: now,
            unix_ms: 0,
        };
        let mut desk = Self {
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
            desk.clients.push(reader);
            desk.turn([Event::Opened {
                session: SessionId(session),
                protocol: Protocol::Native,
                identity: None,
                outbox,
            }]);
            desk.hear(session);
        }
        desk
    }

    /// A turn; what the broker is asked in it.
    pub fn turn(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Request> {
        let clock = Now {
            instant: self.now,
            unix_ms: 0,
        };
        self.dispatcher.turn(clock, events);
        self.dispatcher.take_requests().collect()
    }

    /// The reads that a broker's word leads to.
    fn told(&mut self, event: BrokerEvent) -> Vec<Read> {
        reads(self.turn([Event::Broker(event)]))
    }

    fn answer(&mut self, ticket: Ticket, page: Page) -> Vec<Read> {
        self.told(BrokerEvent::Page {
            ticket,
            result: Ok(page),
        })
    }

    fn join(&mut self, session: u64, name: &str, since: Option<Position>) -> Vec<Read> {
        let command = Command::Join {
            room: room(name),
            since,
        };
        reads(self.turn([command_of(session, command)]))
    }

    /// The room is followed, and stands here.
    fn settle(&mut self, name: &str, page: Page) {
        let asked = self.told(BrokerEvent::Following(room(name)));
        self.answer(asked[0].ticket, page);
    }

    /// Writes all that is queued for a client: what it hears, until nothing more comes.
    fn hear(&mut self, session: u64) -> Vec<Value> {
        let mut heard = Vec::new();
        while let Some(chunk) = self.clients[session as usize].try_recv() {
            let reader = &self.clients[session as usize];
            match chunk {
                Chunk::Frames(frames) => {
                    reader.written(frames.len(), 1);
                    let frames = Transport::default().frames(0, 0, &[frames]);
                    heard.extend(frames.into_iter().map(|frame| match frame {
                        Frame::Text(text) => serde_json::from_str(&text).unwrap(),
                        Frame::Ping => json!("ping"),
                    }));
                }
                Chunk::End(_) => heard.push(json!("end")),
            }
            if reader.take_drained_wanted() {
                self.turn([Event::Drained(SessionId(session))]);
            }
        }
        heard
    }

    fn offsets(&mut self, session: u64) -> Vec<u64> {
        let heard = self.hear(session);
        let messages = heard.iter().filter(|heard| heard["type"] == "message");
        messages
            .map(|message| message["offset"].as_u64().unwrap())
            .collect()
    }
}

pub fn command_of(session: u64, command: Command) -> Event {
    Event::Command {
        session: SessionId(session),
        id: Some(RequestId(1)),
        command,
    }
}

fn reads(requests: Vec<Request>) -> Vec<Read> {
    let read = |request| match request {
        Request::Read(read) => Some(read),
        _ => None,
    };
    requests.into_iter().filter_map(read).collect()
}

#[test]
fn a_join_that_a_leave_overtakes_is_answered() {
    let mut desk = Turn::new(1, 1 << 20);
    desk.join(0, "r", None);
    desk.turn([command_of(0, Command::Leave { room: room("r") })]);
    let kinds: Vec<Value> = desk
        .hear(0)
        .iter()
        .map(|heard| heard["type"].clone())
        .collect();
    assert_eq!(kinds, [json!("error"), json!("ok")]);
}

#[test]
fn a_read_that_takes_long_is_asked_once_however_many_wait() {
    let mut desk = Turn::new(10, 0);
    desk.join(0, "r", None);
    desk.settle("r", page(at(1, 50), 1, 1, 0));
    let asked: usize = (1..10)
        .map(|session| desk.join(session, "r", Some(at(1, 5))).len())
        .sum();
    for _ in 0..20 {
        desk.now += TICK;
        assert!(reads(desk.turn([Event::Tick])).is_empty());
        assert!(
            desk.dispatcher.load().due <= 1,
            "{:?}",
            desk.dispatcher.load()
        );
    }
    assert_eq!(asked, 1);
}

#[test]
fn a_refused_read_is_asked_again() {
    let mut desk = Turn::new(2, 0);
    desk.join(0, "r", None);
    desk.settle("r", page(at(1, 10), 1, 1, 0));
    let asked = desk.join(1, "r", Some(at(1, 9)));
    let refused = BrokerEvent::Page {
        ticket: asked[0].ticket,
        result: Err(Refused::Unavailable),
    };
    assert!(desk.told(refused).is_empty());
    let again = reads(desk.turn([Event::Tick]));
    assert_eq!(again[0].range, Range::After(at(1, 9)));
    desk.answer(again[0].ticket, page(at(1, 10), 1, 10, 10));
    assert_eq!(desk.offsets(1), [10]);
}

#[test]
fn a_page_that_knows_more_than_the_node_leaves_nobody_behind() {
    let mut desk = Turn::new(2, 0);
    desk.join(0, "r", None);
    desk.settle("r", page(at(1, 10), 1, 1, 0));
    let asked = desk.join(1, "r", Some(at(1, 8)));
    desk.answer(asked[0].ticket, page(at(1, 12), 1, 9, 12));
    for offset in 11..=13 {
        desk.told(BrokerEvent::Message {
            room: room("r"),
            epoch: Epoch::new(1),
            offset,
            publication: said(offset, None),
            received_at: Instant::now(),
        });
    }
    assert_eq!(desk.offsets(1), [9, 10, 11, 12, 13]);
}

#[test]
fn a_recovery_under_way_does_not_pass_into_another_epoch() {
    let mut desk = Turn::new(2, 0);
    desk.join(0, "r", None);
    desk.settle("r", page(at(1, 10), 1, 1, 0));
    desk.join(1, "r", Some(at(1, 3)));
    desk.settle("r", page(at(2, 5), 1, 1, 5));
    let asked = reads(desk.turn([Event::Tick]));
    for read in asked {
        desk.answer(read.ticket, page(at(2, 5), 1, 1, 5));
    }
    let heard = desk.hear(1);
    assert_eq!(heard[0]["recovered"], false, "{heard:?}");
    assert_eq!(
        (&heard[0]["offset"], heard.len()),
        (&json!(5), 1),
        "{heard:?}"
    );
}

#[test]
fn coming_back_to_many_rooms_at_once_overflows_no_outbox() {
    let mut desk = Turn::new(2, 1 << 20);
    let names: Vec<String> = (0..8).map(|n| format!("r{n}")).collect();
    for name in &names {
        desk.join(0, name, None);
        desk.settle(name, page(at(1, 0), 1, 1, 0));
        for offset in 1..=20 {
            desk.told(BrokerEvent::Message {
                room: room(name),
                epoch: Epoch::new(1),
                offset,
                publication: said(offset, None),
                received_at: Instant::now(),
            });
            desk.hear(0);
        }
    }
    for name in &names {
        desk.join(1, name, Some(at(1, 0)));
    }
    let heard = desk.hear(1);
    let messages = heard
        .iter()
        .filter(|heard| heard["type"] == "message")
        .count();
    assert_eq!((messages, heard.len()), (160, 168), "{heard:?}");
}

#[test]
fn a_repair_of_more_than_an_outbox_closes_nobody() {
    let mut desk = Turn::new(1, 1 << 20);
    desk.join(0, "r", None);
    desk.settle("r", page(at(1, 0), 1, 1, 0));
    desk.hear(0);
    desk.settle("r", page(at(1, 100), 1, 1, 100));
    assert_eq!(desk.offsets(0), (1..=100).collect::<Vec<_>>());
}

#[test]
fn recovery_spares_a_session_its_own_words_as_live_delivery_does() {
    let mut desk = Turn::new(1, 1 << 20);
    desk.join(0, "r", None);
    desk.settle("r", page(at(1, 0), 1, 1, 0));
    desk.told(BrokerEvent::Message {
        room: room("r"),
        epoch: Epoch::new(1),
        offset: 1,
        publication: said(1, Some(0)),
        received_at: Instant::now(),
    });
    desk.hear(0);
    desk.join(0, "r", Some(at(1, 0)));
    let heard = desk.hear(0);
    assert_eq!(
        (&heard[1]["own"], &heard[1]["data"]),
        (&json!(true), &Value::Null),
        "{heard:?}"
    );
}
