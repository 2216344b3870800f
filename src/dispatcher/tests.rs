//! The dispatcher's turns, one at a time: events in, frames and requests out. The test takes the
//! part of the broker; no task runs, and the test sets the time.

mod bounds;
mod calls;
mod cluster_queries;
mod control;
mod delivery;
mod endings;
mod identity;
#[path = "presence/tests.rs"]
mod presence;
mod recovery;
mod reports;

use std::collections::HashMap;

use super::*;
use crate::broker::{LogRequest, Page, PresenceRequest, Publication, PublishKey, Range, Refused};
use crate::model::epochs::Ends;
use crate::model::id::Epoch;
use crate::model::id::Ticket;
use crate::model::identity::Identity;
use crate::model::publication::{HistoryQuery, Publish, Publisher};
use crate::model::rights::Rights;
use crate::model::source::{CallerId, Source};
use crate::outbox::{Chunk, OutboxLimits, OutboxReader, outbox};
use crate::presence::PresenceSettings;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::{Command, CommandError, Protocol, Reply, RequestId, json};
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const OUTBOX: usize = 64 * 1024;
const EPOCH: u64 = 7;

/// A dispatcher, and the writers' ends of its sessions' outboxes.
struct Bench {
    dispatcher: Dispatcher,
    now: Now,
    outboxes: HashMap<u64, OutboxReader>,
    /// The requests about presence, apart from all others.
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
            max_message: 65_536,
            session_commands: 100,
            rooms_per_session: 16,
            max_rooms: 3,
            rights: Rights::open(),
            retention: Retention::uniform(1000, Duration::from_secs(300)),
            token_lifetime: Duration::from_secs(86_400),
            recent_memory: 1 << 20,
            presence: PresenceSettings::default(),
            outbox_bytes: OUTBOX,
            hooks: Arc::default(),
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
                Request::Presence(PresenceRequest::SetPresence(_))
                    | Request::Presence(PresenceRequest::Connected(_))
                    | Request::Presence(PresenceRequest::Members(_))
                    | Request::Presence(PresenceRequest::Retire(_))
            )
        };
        let requests = self.dispatcher.take_requests();
        let (presence, others) = requests.partition(is_presence);
        self.presence.extend::<Vec<_>>(presence);
        others
    }

    /// Lets sessions be silent for this long. Before the first is opened.
    fn silence(&mut self, time: Duration) {
        self.dispatcher.heartbeats = Heartbeats::new(self.now.instant, time, time);
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
        assert_eq!(self.received(session.0).len(), 1, "the welcome");
    }

    /// Opens a session that is a live member of the room, which is at `offset`.
    fn member(&mut self, session: u64, room: &str, offset: u64) {
        self.open(session);
        let requests = self.turn([join(session, room)]);
        if requests
            .iter()
            .any(|request| matches!(request, Request::Log(LogRequest::Follow(_))))
        {
            let requests = self.turn([following(room)]);
            let ticket = read_ticket(&requests);
            self.turn([page(ticket, offset, offset + 1, vec![])]);
        }
        let received = self.received(session);
        assert_eq!(received[0]["offset"], offset, "{received:?}");
    }

    fn chunks(&mut self, session: u64) -> Vec<Bytes> {
        let reader = &self.outboxes[&session];
        let mut chunks = Vec::new();
        while let Some(chunk) = reader.try_recv() {
            match chunk {
                Chunk::Bytes(frames) => {
                    reader.written(frames.len(), 1);
                    chunks.push(frames);
                }
                Chunk::End(close) => chunks.push(close),
            }
        }
        chunks
    }

    fn received(&mut self, session: u64) -> Vec<Value> {
        self.chunks(session)
            .iter()
            .flat_map(|frames| messages(frames))
            .collect()
    }

    fn offsets(&mut self, session: u64) -> Vec<u64> {
        self.received(session)
            .iter()
            .filter_map(|frame| frame["offset"].as_u64())
            .collect()
    }
}

fn parsed(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
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
    let (session, id) = (SessionId(session), Some(RequestId::from(1)));
    Event::Command {
        reply_to: ReplyTo::Session { session, id },
        command,
    }
}

/// The answer to a caller: the JSON of a reply, or the text of a query result.
type Answer = Result<Bytes, CommandError>;

#[derive(Debug)]
struct AnswerSink(flume::Sender<Answer>);

impl ReplySink for AnswerSink {
    fn caller(&self) -> CallerId {
        CallerId::PROGRAM
    }

    fn reply(&self, reply: &Reply<'_>) {
        let answer = match reply {
            Reply::Error(error) => Err((*error).clone()),
            Reply::QueryResult(result) => Ok(format!("{result:?}").into()),
            reply => Ok(json::object(reply)),
        };
        let _ = self.0.try_send(answer);
    }
}

/// A caller's command, and the receiver of its answer.
fn call(command: Command) -> (Event, flume::Receiver<Answer>) {
    let (sender, answers) = flume::bounded(1);
    let reply_to = ReplyTo::Caller(Arc::new(AnswerSink(sender)));
    (Event::Command { reply_to, command }, answers)
}

fn publish(room: &str, key: Option<PublishKey>) -> Publish {
    Publish {
        room: name(room),
        key,
        condition: None,
        ephemeral: false,
        others: false,
        publication: publication("hi"),
    }
}

fn history(room: &str) -> Command {
    Command::History(HistoryQuery {
        room: name(room),
        before: None,
        limit: 1,
    })
}

fn join(session: u64, room: &str) -> Event {
    command(
        session,
        Command::Join {
            room: name(room),
            since: None,
            identity: None,
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
            identity: None,
        },
    )
}

fn leave(session: u64, room: &str) -> Event {
    command(session, Command::Leave { room: name(room) })
}

fn following(room: &str) -> Event {
    Event::Broker(BrokerEvent::Following(name(room)))
}

fn publication(text: &str) -> Arc<Publication> {
    let data = RawValue::from_string(json!(text).to_string()).unwrap();
    Arc::new(Publication {
        user: None,
        time: 1,
        except: None,
        event: None,
        data: data.into(),
    })
}

fn message(room: &str, offset: u64, text: &str) -> Event {
    let (room, epoch, publication) = (name(room), Epoch::new(EPOCH), publication(text));
    Event::Broker(BrokerEvent::Message {
        room,
        epoch,
        offset,
        publication,
        received_at: Instant::now(),
    })
}

fn page(ticket: Ticket, top: u64, first: u64, messages: Vec<u64>) -> Event {
    let top = Position {
        epoch: Epoch::new(EPOCH),
        offset: top,
    };
    let messages = messages
        .into_iter()
        .map(|offset| (offset, publication("old")))
        .collect();
    Event::Broker(BrokerEvent::Page {
        ticket,
        result: Ok(Page {
            top,
            first,
            ends: Ends::default(),
            expires_in: std::time::Duration::from_secs(60),
            messages,
        }),
    })
}

fn read_ticket(requests: &[Request]) -> Ticket {
    let read = requests.iter().find_map(|request| match request {
        Request::Log(LogRequest::Read(read)) => Some(read.ticket),
        _ => None,
    });
    read.unwrap_or_else(|| panic!("no read in {requests:?}"))
}
