//! A client that follows the rules of the SDK (`www/switchboard.js`): it reconnects with its
//! positions, retries a publish with the same key until it has a reply, has one pending per room,
//! and backs off with full jitter. Unlike the SDK it records every frame before it handles it, so
//! that the history also contains faults that the SDK would hide.

mod connection;
mod room;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use switchboard::runtime;

use crate::history::{Event, Kept, Position, Recorder};
use connection::Conn;
use room::{Entry, Room};

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: f64 = 0.5;
const BACKOFF_MOST: f64 = 20.0;
const STEADY_AFTER: Duration = Duration::from_secs(5);

/// Publishes that one room may queue.
const QUEUE: usize = 100;

/// Commands of the harness to a client.
#[derive(Debug)]
pub enum ControlCommand {
    Publish {
        room: String,
        seq: u64,
        key: String,
        size: usize,
    },
    /// Close the connection and stay away.
    Away,
    Return,
    /// Request the members of a room; the reply is in the glance.
    Members {
        room: String,
    },
    /// Read the whole history of a room; the reply is in the glance.
    History {
        room: String,
    },
    /// Record the positions, and end.
    End,
}

/// The members of a room, as a node lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub version: u64,
    /// Users and their connections.
    pub users: BTreeMap<String, u32>,
    pub anonymous: u32,
}

/// The state of a running client that the harness can read.
#[derive(Clone, Debug, Default)]
pub struct Glance {
    /// Its rooms and its position in each; `None` until the reply to the first join.
    pub positions: BTreeMap<String, Option<Position>>,
    /// It is in all its rooms.
    pub joined: bool,
    /// Publishes without a reply.
    pub unanswered: usize,
    /// The node that it is connected to.
    pub node: Option<String>,
    /// The last reply with the members of each room.
    pub members: BTreeMap<String, Members>,
    /// The last reply with the history of each room: its epoch, and its messages.
    pub histories: BTreeMap<String, (Option<String>, Vec<Kept>)>,
}

/// The harness's handle of a running client.
#[derive(Clone)]
pub struct Handle {
    pub number: usize,
    /// The user that it signs in as; `None` for a visitor.
    pub user: Option<String>,
    orders: flume::Sender<ControlCommand>,
    glance: Arc<Mutex<Glance>>,
    recorder: Recorder,
}

impl Handle {
    pub fn glance(&self) -> MutexGuard<'_, Glance> {
        self.glance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes `size` bytes, more or less, under the publisher's next number.
    pub fn publish(&self, room: &str, seq: u64, size: usize) {
        let (client, room) = (self.number, room.to_owned());
        let key = format!("{client}-{seq}");
        self.recorder.note(Event::Invoke {
            client,
            room: room.clone(),
            seq,
            key: key.clone(),
        });
        self.order(ControlCommand::Publish {
            room,
            seq,
            key,
            size,
        });
    }

    /// Publishes without a reply, including commands that are still queued.
    pub fn unanswered(&self) -> usize {
        self.orders.len() + self.glance().unanswered
    }

    /// Whether it has ended, with everything recorded.
    pub fn is_over(&self) -> bool {
        self.orders.is_disconnected()
    }

    pub fn order(&self, order: ControlCommand) {
        // A client ends only by a command; after that it gets no other.
        let _ = self.orders.send(order);
    }
}

/// Starts a client that joins these rooms. Only a user can publish.
pub fn start(
    number: usize,
    user: Option<String>,
    address: SocketAddr,
    rooms: &[String],
    recorder: &Recorder,
    seed: u64,
) -> Handle {
    let (orders, ordered) = flume::unbounded();
    let glance = Arc::new(Mutex::new(Glance::default()));
    let client = Client {
        number,
        user: user.clone(),
        address,
        rooms: rooms
            .iter()
            .map(|name| (name.clone(), Room::default()))
            .collect(),
        ordered,
        glance: glance.clone(),
        recorder: recorder.clone(),
        random: fastrand::Rng::with_seed(seed ^ (number as u64) << 20),
        attempt: 0,
    };
    client.show(None);
    runtime::spawn(client.live());
    Handle {
        number,
        user,
        orders,
        glance,
        recorder: recorder.clone(),
    }
}

struct Client {
    number: usize,
    user: Option<String>,
    address: SocketAddr,
    rooms: BTreeMap<String, Room>,
    ordered: flume::Receiver<ControlCommand>,
    glance: Arc<Mutex<Glance>>,
    recorder: Recorder,
    random: fastrand::Rng,
    /// Consecutive connections that were not stable.
    attempt: u32,
}

/// How a connection ended, and what follows.
enum Ended {
    /// Return after this time.
    Lost(Duration),
    Away,
    Over,
}

impl Client {
    async fn live(mut self) {
        loop {
            let ended =
                match runtime::timeout(CONNECT_DEADLINE, connection::open(self.address)).await {
                    Ok(Ok(conn)) => self.serve(conn).await,
                    failed => {
                        let status = failed.ok().and_then(|failed| connection::status(&failed));
                        let client = self.number;
                        self.recorder.note(Event::Refused { client, status });
                        self.attempt += 1;
                        Ended::Lost(jitter(&mut self.random, self.attempt - 1))
                    }
                };
            let next = match ended {
                Ended::Lost(delay) => self.wait(Some(Instant::now() + delay)).await,
                Ended::Away => self.wait(None).await,
                Ended::Over => Next::End,
            };
            match next {
                Next::Connect => {}
                Next::End => return self.over(),
            }
        }
    }

    /// Waits for the time to reconnect, or for the command to.
    async fn wait(&mut self, until: Option<Instant>) -> Next {
        for room in self.rooms.values_mut() {
            room.lost();
        }
        self.show(None);
        let mut until = until;
        loop {
            let order = match until {
                None => self.ordered.recv_async().await,
                Some(time) => {
                    let left = time.saturating_duration_since(Instant::now());
                    match runtime::timeout(left, self.ordered.recv_async()).await {
                        Ok(order) => order,
                        Err(_) => return Next::Connect,
                    }
                }
            };
            match order {
                Ok(ControlCommand::Return) if until.is_none() => return Next::Connect,
                Ok(ControlCommand::Return) => {}
                Ok(ControlCommand::Away) => until = None,
                Ok(ControlCommand::End) | Err(_) => return Next::End,
                // The harness repeats the request.
                Ok(ControlCommand::Members { .. } | ControlCommand::History { .. }) => {}
                Ok(publish) => self.enqueue(publish),
            }
        }
    }

    fn enqueue(&mut self, order: ControlCommand) {
        let ControlCommand::Publish {
            room,
            seq,
            key,
            size,
        } = order
        else {
            return;
        };
        let entry = self.rooms.entry(room.clone());
        let queue = &mut entry.or_insert_with(Room::foreign).queue;
        if queue.len() >= QUEUE {
            self.fail(room, seq, "queue_full");
            return;
        }
        queue.push_back(Entry::new(seq, key, size));
        self.glance().unanswered += 1;
    }

    fn fail(&self, room: String, seq: u64, code: &str) {
        let (client, code) = (self.number, code.to_owned());
        self.recorder.note(Event::Fail {
            client,
            room,
            seq,
            code,
        });
    }

    fn glance(&self) -> MutexGuard<'_, Glance> {
        self.glance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Updates the state that the harness reads.
    fn show(&self, node: Option<&str>) {
        let members = || self.rooms.iter().filter(|(_, room)| room.wanted());
        let mut glance = self.glance();
        glance.positions = members()
            .map(|(name, room)| (name.clone(), room.position.clone()))
            .collect();
        glance.joined = node.is_some() && members().all(|(_, room)| room.is_joined());
        glance.node = node.map(str::to_owned);
    }

    fn over(&mut self) {
        for (name, room) in &mut self.rooms {
            let client = self.number;
            for entry in room.queue.drain(..) {
                let room = name.clone();
                self.recorder.note(Event::Unknown {
                    client,
                    room,
                    seq: entry.seq,
                });
            }
            if room.wanted() {
                self.recorder.note(Event::End {
                    client,
                    room: name.clone(),
                    position: room.position.clone(),
                });
            }
        }
    }

    async fn serve(&mut self, conn: Conn) -> Ended {
        connection::Serving::new(self, conn).run().await
    }
}

enum Next {
    Connect,
    End,
}

/// Full jitter, in the SDK's bounds.
fn jitter(random: &mut fastrand::Rng, tries: u32) -> Duration {
    let bound = (BACKOFF_FIRST * f64::from(1 << tries.min(16))).min(BACKOFF_MOST);
    Duration::from_secs_f64(random.f64() * bound)
}
