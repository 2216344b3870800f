//! The dispatcher alone: no socket, no task, no kernel. What it costs to put a publication into
//! every member's outbox, and to let a session join and leave. The outboxes are drained by the
//! bench itself, outside the time that counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use switchboard::broker::{BrokerEvent, LogRequest, Page, Publication, Request};
use switchboard::dispatcher::{Dispatcher, Event, Now, ReplyTo, Settings};
use switchboard::metrics::Metrics;
use switchboard::model::epochs::Ends;
use switchboard::model::id::{Epoch, Incarnation, Position, RoomName, SessionId};
use switchboard::model::retention::Retention;
use switchboard::model::rights::Rights;
use switchboard::outbox::{self, Chunk, OutboxLimits, OutboxReader};
use switchboard::presence::PresenceSettings;
use switchboard::protocol::{Command, Protocol};

use crate::support::table::Table;
use crate::support::{Outcome, machine, size};

const MEMBERS: [usize; 5] = [10, 100, 1000, 5000, 10_000];
const PER_TURN: [u64; 3] = [1, 16, 64];

/// Sessions that join and leave together.
const NEWCOMERS: usize = 100;

const LIMITS: OutboxLimits = OutboxLimits {
    bytes: 1 << 20,
    frames: 4096,
};

/// A dispatcher with one room, and the readers of its members' outboxes.
struct Fixture {
    dispatcher: Dispatcher,
    metrics: Arc<Metrics>,
    room: RoomName,
    epoch: Epoch,
    offset: u64,
    readers: Vec<OutboxReader>,
    data: Box<RawValue>,
}

pub fn run() -> Outcome {
    machine::pin(machine::Role::Load);
    let table = Table::begin(
        "The dispatcher alone: ns per delivery, and ns per join and leave in the full room",
        &[
            "members",
            "1 per turn",
            "16 per turn",
            "64 per turn",
            "join",
            "leave",
        ],
    );
    for members in MEMBERS {
        let mut fixture = Fixture::open()?;
        fixture.enter(members)?;
        let mut cells = vec![members.to_string()];
        for count in PER_TURN {
            let cost = fixture.publish(members, count)?;
            cells.push(format!("{cost:.1}"));
        }
        let (join, leave) = fixture.join_and_leave(members)?;
        cells.extend([format!("{join:.0}"), format!("{leave:.0}")]);
        table.row(&cells);
    }
    Ok(())
}

impl Fixture {
    fn open() -> Outcome<Self> {
        let settings = Settings {
            incarnation: Incarnation(1),
            node: "bench".into(),
            heartbeat: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            join_timeout: Duration::from_secs(5),
            max_message: 65_536,
            session_commands: 100,
            rooms_per_session: 128,
            max_rooms: 100_000,
            rights: Rights::open(),
            retention: Retention::uniform(1000, Duration::from_secs(300)),
            token_lifetime: Duration::from_secs(86_400),
            recent_memory: 64 << 20,
            presence: PresenceSettings::default(),
            outbox_bytes: LIMITS.bytes,
            hooks: Arc::default(),
            seed: 1,
        };
        let metrics = Arc::new(Metrics::default());
        let data = format!("\"{:126}\"", "x");
        Ok(Self {
            dispatcher: Dispatcher::new(Now::read(), settings, metrics.clone()),
            metrics,
            room: RoomName::new("room")?,
            epoch: Epoch::new(1),
            offset: 0,
            readers: Vec::new(),
            data: RawValue::from_string(data)?,
        })
    }

    /// Opens sessions and joins them to the room; this bench acts as the broker.
    fn enter(&mut self, count: usize) -> Outcome<Duration> {
        let first = self.readers.len();
        let opened: Vec<Event> = (first..first + count).map(|n| self.opened(n)).collect();
        self.turns(opened);
        let joins: Vec<Event> = (first..first + count)
            .map(|session| Event::Command {
                reply_to: ReplyTo::Session {
                    session: SessionId(session as u64),
                    id: None,
                },
                command: Command::Join {
                    room: self.room.clone(),
                    since: None,
                    identity: None,
                },
            })
            .collect();
        let time = self.turns(joins);
        self.answer();
        self.answer();
        for reader in &self.readers[first..] {
            let (chunks, _) = drain(reader);
            if chunks != 2 {
                return Err(format!("{chunks} answers instead of a welcome and an ok").into());
            }
        }
        Ok(time)
    }

    fn opened(&mut self, session: usize) -> Event {
        let (outbox, reader) = outbox::outbox(LIMITS, || ());
        self.readers.push(reader);
        Event::Opened {
            session: SessionId(session as u64),
            protocol: Protocol::Native,
            identity: None,
            outbox,
        }
    }

    /// Answers the dispatcher's requests as a broker does.
    fn answer(&mut self) {
        let requests: Vec<Request> = self.dispatcher.take_requests().collect();
        let answers = requests.into_iter().filter_map(|request| match request {
            Request::Log(LogRequest::Follow(room)) => Some(BrokerEvent::Following(room)),
            Request::Log(LogRequest::Read(read)) => Some(BrokerEvent::Page {
                ticket: read.ticket,
                result: Ok(Page {
                    top: Position {
                        epoch: self.epoch,
                        offset: self.offset,
                    },
                    first: self.offset + 1,
                    ends: Ends::default(),
                    expires_in: std::time::Duration::from_secs(60),
                    messages: Vec::new(),
                }),
            }),
            _ => None,
        });
        let answers: Vec<Event> = answers.map(Event::Broker).collect();
        self.turns(answers);
    }

    /// As many turns as the events need.
    fn turns(&mut self, events: Vec<Event>) -> Duration {
        let now = Now::read();
        let mut events = events.into_iter();
        let start = Instant::now();
        while events.len() > 0 {
            self.dispatcher.turn(now, events.by_ref());
        }
        start.elapsed()
    }

    /// Nanoseconds per delivery in the median turn, with so many publications in each. The
    /// median, because a turn in which the kernel ran something else does not measure the
    /// dispatcher.
    fn publish(&mut self, members: usize, count: u64) -> Outcome<f64> {
        let mut turns = Vec::new();
        let delivered = self.metrics.delivered_total.get();
        let end = Instant::now() + Duration::from_millis(size(300, 3000));
        while Instant::now() < end || turns.len() < 16 {
            let events: Vec<Event> = (0..count).map(|_| self.publication()).collect();
            turns.push(self.turns(events));
            let expected = drain(&self.readers[0]);
            for reader in &self.readers[1..members] {
                if drain(reader) != expected || expected.0 == 0 {
                    return Err("the members did not all receive the same".into());
                }
            }
        }
        let deliveries = self.metrics.delivered_total.get() - delivered;
        if deliveries != turns.len() as u64 * count * members as u64 {
            let turns = turns.len();
            return Err(format!("{deliveries} deliveries in {turns} turns").into());
        }
        Ok(median(turns) / (count * members as u64) as f64)
    }

    fn publication(&mut self) -> Event {
        self.offset += 1;
        Event::Broker(BrokerEvent::Message {
            room: self.room.clone(),
            epoch: self.epoch,
            offset: self.offset,
            publication: Arc::new(Publication {
                user: None,
                time: 1_764_000_000_123,
                except: None,
                event: None,
                data: self.data.clone().into(),
            }),
            received_at: Instant::now(),
        })
    }

    /// Nanoseconds for one more to join a room of so many, and to leave it: as many as a turn
    /// takes, again and again.
    fn join_and_leave(&mut self, members: usize) -> Outcome<(f64, f64)> {
        let (mut joins, mut leaves) = (Vec::new(), Vec::new());
        for _ in 0..size(15, 50) {
            let first = self.readers.len();
            joins.push(self.enter(NEWCOMERS)?);
            let leaving = (first..first + NEWCOMERS).map(|session| Event::Command {
                reply_to: ReplyTo::Session {
                    session: SessionId(session as u64),
                    id: None,
                },
                command: Command::Leave {
                    room: self.room.clone(),
                },
            });
            leaves.push(self.turns(leaving.collect()));
            for session in first..first + NEWCOMERS {
                let session = SessionId(session as u64);
                self.turns(vec![Event::Closed {
                    session,
                    close_reason: None,
                }]);
            }
            self.readers.truncate(first);
        }
        if self.readers.len() != members {
            return Err("a session has not left".into());
        }
        let each = |times| median(times) / NEWCOMERS as f64;
        Ok((each(joins), each(leaves)))
    }
}

/// The median duration, in nanoseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64
}

/// Drains an outbox; returns the number of chunks and bytes.
fn drain(reader: &OutboxReader) -> (usize, usize) {
    let (mut chunks, mut bytes) = (0, 0);
    while let Some(Chunk::Bytes(frames)) = reader.try_recv() {
        chunks += 1;
        bytes += frames.len();
    }
    reader.written(bytes, chunks);
    (chunks, bytes)
}
