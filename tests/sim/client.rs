//! A client with the rules of `www/switchboard.js`: rooms stay joined across connections, each room
//! has one unanswered publish, which is retried with the same key, and duplicates are dropped by
//! position. It does no I/O: methods take events, and leave their effects in `actions`. Times are
//! milliseconds, and shorter than a browser's.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use switchboard::model::id::{Position, RoomName, UserName};
use switchboard::model::publication::{HistoryQuery, Publication, Publish, PublishKey, Publisher};
use switchboard::protocol::Command;

use super::oracle::{Kind, Oracle, Outcome};
use super::redis::Redis;
use super::view::View;

const CONNECT_DEADLINE: u64 = 3_000;
/// Longer than a node may take, so that a missing reply is the node's fault.
pub const ANSWER_DEADLINE: u64 = 9_000;
const PONG_DEADLINE: u64 = 3_000;
const BACKOFF_FIRST: u64 = 100;
const BACKOFF_MOST: u64 = 2_000;
pub const STEADY_AFTER: u64 = 1_000;

/// The users; each client is one of them, or anonymous.
pub const USERS: [&str; 2] = ["u0", "u1"];

/// An effect of a client.
#[derive(Debug)]
pub enum Action {
    Connect,
    /// The client closes the socket.
    Close,
    Send(u64, Command),
    SignIn(u64, UserName),
    Later(u64, Timer),
}

#[derive(Clone, Copy, Debug)]
pub enum Timer {
    Retry,
    Welcome,
    Steady,
    Answer(u64),
    Watch,
    Bye,
    Join(usize),
    Pump(usize),
    /// Requests the list with this number again.
    Members(usize, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomState {
    Waiting,
    Joining,
    Joined,
}

#[derive(Debug)]
pub struct Entry {
    pub value: u64,
    pub keyed: bool,
    others: bool,
    sent: bool,
    pub tries: u32,
}

#[derive(Debug)]
pub struct Room {
    /// Counts joins: a reply to a former join is late.
    pub life: u64,
    pub state: RoomState,
    pub position: Option<Position>,
    pub queue: VecDeque<Entry>,
    pub tries: u32,
    pub hole: Option<u64>,
    pub view: View,
}

#[derive(Debug)]
pub enum Ask {
    Join {
        room: usize,
        life: u64,
        since: Option<Position>,
    },
    Leave(usize),
    Publish(usize, u64),
    Ephemeral(u64),
    History(usize),
    Members(usize, u64),
    Auth,
    Ping,
}

/// A connection, and the position in each room by the node's frames.
#[derive(Debug, Default)]
pub struct Conn {
    pub open: bool,
    pub pending: HashMap<u64, Ask>,
    requests: u64,
    pub heartbeat: Option<u64>,
    pub received_at: u64,
    pub pinged: Option<u64>,
    pub return_at: Option<u64>,
    pub wire: Vec<Option<Position>>,
    /// Ephemeral messages, which arrive at most once on a connection. They have no position, so a
    /// client that moves to a node that is behind may receive one there again.
    pub ephemerals: HashSet<u64>,
    /// It was stalled or black-holed: a late reply is not the node's fault.
    disturbed: bool,
}

#[derive(Debug)]
pub struct Client {
    pub id: usize,
    pub names: Vec<RoomName>,
    pub rooms: Vec<Option<Room>>,
    pub conn: Option<Conn>,
    attempt: u32,
    lives: u64,
    pub actions: Vec<Action>,
}

/// What a client uses of the world.
pub struct Context<'a> {
    pub now: u64,
    pub random: &'a mut fastrand::Rng,
    pub oracle: &'a mut Oracle,
    pub instant: Instant,
    pub redis: &'a mut Redis,
}

pub fn jitter(random: &mut fastrand::Rng, tries: u32) -> u64 {
    random.u64(..=BACKOFF_MOST.min(BACKOFF_FIRST << tries.min(8)))
}

impl Conn {
    /// Registers a request and returns its id.
    pub fn ask(&mut self, ask: Ask) -> u64 {
        self.requests += 1;
        self.pending.insert(self.requests, ask);
        self.requests
    }
}

impl Client {
    pub fn new(id: usize, names: &[RoomName]) -> Self {
        Self {
            id,
            names: names.to_vec(),
            rooms: names.iter().map(|_| None).collect(),
            conn: None,
            attempt: 0,
            lives: 0,
            actions: Vec::new(),
        }
    }

    pub fn connect(&mut self, context: &mut Context<'_>) {
        context.oracle.figures.connections += 1;
        self.conn = Some(Conn {
            received_at: context.now,
            wire: vec![None; self.names.len()],
            ..Conn::default()
        });
        self.actions.push(Action::Connect);
        self.actions
            .push(Action::Later(CONNECT_DEADLINE, Timer::Welcome));
    }

    pub fn opened(&mut self, _: &mut Context<'_>) {
        let Some(conn) = &mut self.conn else { return };
        conn.open = true;
        let is_early = self.id.is_multiple_of(2);
        if is_early {
            self.authenticate();
        }
        for room in 0..self.rooms.len() {
            self.send_join(room);
        }
        if !is_early {
            self.authenticate();
        }
        for room in 0..self.rooms.len() {
            self.pump(room);
        }
    }

    pub fn is_connected(&self) -> bool {
        self.conn.is_some()
    }

    pub fn disturb(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.disturbed = true;
        }
    }

    pub fn is_open(&self) -> bool {
        self.conn.as_ref().is_some_and(|conn| conn.open)
    }

    pub fn request(&mut self, ask: Ask, command: Command) {
        let Some(conn) = &mut self.conn else { return };
        let id = conn.ask(ask);
        self.actions
            .push(Action::Later(ANSWER_DEADLINE, Timer::Answer(id)));
        self.actions.push(Action::Send(id, command));
    }

    // Calls of the application.

    pub fn join(&mut self, room: usize) {
        if self.rooms[room].is_none() {
            self.lives += 1;
            self.rooms[room] = Some(Room {
                life: self.lives,
                state: RoomState::Waiting,
                position: None,
                queue: VecDeque::new(),
                tries: 0,
                hole: None,
                view: View::of_stay(self.lives),
            });
            if self.is_open() {
                self.send_join(room);
            }
        }
    }

    /// Joins again, without need, from the present position.
    pub fn rejoin(&mut self, room: usize) {
        let joined = |room: &Room| room.state == RoomState::Joined;
        if self.is_open() && self.rooms[room].as_ref().is_some_and(joined) {
            self.send_join(room);
        }
    }

    pub fn leave(&mut self, room: usize, oracle: &mut Oracle) {
        let Some(left) = self.rooms[room].take() else {
            return;
        };
        for entry in left.queue.iter().filter(|entry| entry.sent) {
            oracle.answered(entry.value, Outcome::Unknown);
        }
        if self.is_open() {
            let name = self.names[room].clone();
            self.request(Ask::Leave(room), Command::Leave { room: name });
        }
    }

    pub fn publish(&mut self, room: usize, random: &mut fastrand::Rng, oracle: &mut Oracle) {
        if random.u8(..20) == 0 {
            if self.is_open() {
                let value = oracle.attempt(self.id, room, true);
                let publish = self.publish_of(room, value, false, false, true);
                self.request(Ask::Ephemeral(value), Command::Publish(Box::new(publish)));
            }
            return;
        }
        self.enqueue(room, random.u8(..8) > 0, random.u8(..6) == 0, oracle);
    }

    /// Publishes to a joined room.
    pub fn enqueue(&mut self, room: usize, keyed: bool, others: bool, oracle: &mut Oracle) {
        let Some(joined) = &mut self.rooms[room] else {
            return;
        };
        joined.queue.push_back(Entry {
            value: oracle.attempt(self.id, room, false),
            keyed,
            others,
            sent: false,
            tries: 0,
        });
        self.pump(room);
    }

    /// Publishes many at once without waiting for replies, as the SDK never does.
    pub fn flood(&mut self, room: usize, count: usize, oracle: &mut Oracle) {
        // The replies alone may overflow its outbox.
        self.disturb();
        for _ in 0..count {
            if self.is_open() {
                let value = oracle.attempt(self.id, room, false);
                let publish = self.publish_of(room, value, false, false, false);
                self.request(
                    Ask::Publish(room, value),
                    Command::Publish(Box::new(publish)),
                );
            }
        }
    }

    pub fn ask_history(&mut self, room: usize, random: &mut fastrand::Rng) {
        if self.is_open() {
            let command = Command::History(HistoryQuery {
                room: self.names[room].clone(),
                before: random.bool().then(|| random.u64(1..20)),
                limit: random.usize(1..10),
            });
            self.request(Ask::History(room), command);
        }
    }

    fn publish_of(
        &self,
        room: usize,
        value: u64,
        keyed: bool,
        others: bool,
        ephemeral: bool,
    ) -> Publish {
        let pad = "x".repeat((value % 7 * 20) as usize);
        let data = serde_json::value::RawValue::from_string(format!("[{value},\"{pad}\"]"));
        let publication = Publication {
            user: None,
            time: 0,
            except: None,
            event: None,
            data: data.expect("JSON").into(),
        };
        Publish {
            room: self.names[room].clone(),
            key: keyed.then(|| PublishKey {
                publisher: Publisher::Anonymous,
                key: value.to_string().into(),
            }),
            condition: None,
            ephemeral,
            others,
            publication: Arc::new(publication),
        }
    }

    /// Whether no request is pending and no publish is queued.
    pub fn is_settled(&self) -> bool {
        self.is_open()
            && self.conn.as_ref().is_some_and(|conn| {
                conn.pending.is_empty() && conn.heartbeat.is_some() && conn.return_at.is_none()
            })
            && self
                .rooms
                .iter()
                .flatten()
                .all(|room| room.queue.is_empty() && room.state == RoomState::Joined)
    }

    pub fn send_join(&mut self, index: usize) {
        let Some(room) = &mut self.rooms[index] else {
            return;
        };
        room.state = RoomState::Joining;
        let (life, since) = (room.life, room.position);
        let command = Command::Join {
            room: self.names[index].clone(),
            since,
            identity: None,
        };
        self.request(
            Ask::Join {
                room: index,
                life,
                since,
            },
            command,
        );
    }

    /// Sends the first publish of a room's queue, unless it is pending.
    pub fn pump(&mut self, index: usize) {
        let open = self.is_open();
        let Some(room) = &mut self.rooms[index] else {
            return;
        };
        let Some(entry) = room.queue.front_mut() else {
            return;
        };
        let value = entry.value;
        let (keyed, others) = (entry.keyed, entry.others);
        let under_way = self.conn.as_ref().is_some_and(|conn| {
            conn.pending
                .values()
                .any(|ask| matches!(ask, Ask::Publish(_, sent) if *sent == value))
        });
        if !open || under_way {
            return;
        }
        entry.sent = true;
        let publish = self.publish_of(index, value, keyed, others, false);
        self.request(
            Ask::Publish(index, value),
            Command::Publish(Box::new(publish)),
        );
    }

    // The connection.

    /// Handles a timer of the present connection.
    pub fn timer(&mut self, timer: Timer, context: &mut Context<'_>) {
        let Some(conn) = &mut self.conn else {
            if matches!(timer, Timer::Retry) {
                self.connect(context);
            }
            return;
        };
        match timer {
            Timer::Retry => {}
            Timer::Welcome if conn.heartbeat.is_none() => self.drop_connection(None, context),
            Timer::Welcome => {}
            Timer::Steady => self.attempt = 0,
            Timer::Answer(id) if conn.pending.contains_key(&id) => {
                if !conn.disturbed {
                    let text = format!("client {}: no answer to {:?}", self.id, conn.pending[&id]);
                    context.oracle.violate(Kind::Stuck, text);
                }
                self.drop_connection(None, context);
            }
            Timer::Answer(_) => {}
            Timer::Watch => self.watch(context),
            Timer::Bye => self.drop_connection(Some(0), context),
            Timer::Join(room) => {
                if self.rooms[room]
                    .as_ref()
                    .is_some_and(|room| room.state == RoomState::Joining)
                    && conn.open
                {
                    let is_pending = conn
                        .pending
                        .values()
                        .any(|ask| matches!(ask, Ask::Join { room: other, .. } if *other == room));
                    if !is_pending {
                        self.send_join(room);
                    }
                }
            }
            Timer::Pump(room) => self.pump(room),
            Timer::Members(room, number) => self.ask_members_again(room, number),
        }
    }

    pub fn watch(&mut self, context: &mut Context<'_>) {
        let Some(conn) = &mut self.conn else { return };
        let Some(heartbeat) = conn.heartbeat else {
            return;
        };
        if conn.pinged.is_none() && context.now - conn.received_at >= heartbeat {
            conn.pinged = Some(context.now);
            self.request(Ask::Ping, Command::Ping);
        }
        let Some(conn) = &mut self.conn else { return };
        let due = conn.pinged.map_or(conn.received_at + heartbeat, |pinged| {
            pinged + PONG_DEADLINE
        });
        if due <= context.now {
            return self.drop_connection(None, context);
        }
        self.actions
            .push(Action::Later(due - context.now, Timer::Watch));
    }

    pub fn drop_connection(&mut self, delay: Option<u64>, context: &mut Context<'_>) {
        self.actions.push(Action::Close);
        self.lost(None, delay, context);
    }

    /// The connection is lost; `code` is that of its close frame, if one came.
    pub fn lost(&mut self, code: Option<u16>, delay: Option<u64>, context: &mut Context<'_>) {
        let Some(conn) = self.conn.take() else { return };
        if code == Some(3002) {
            context.oracle.figures.slow += 1;
            if !conn.disturbed {
                context.oracle.violate(
                    Kind::FalseSlow,
                    format!("client {} reads promptly", self.id),
                );
            }
        }
        for ask in conn.pending.values() {
            if let Ask::Ephemeral(value) = ask {
                context.oracle.answered(*value, Outcome::Unknown);
            }
        }
        for room in self.rooms.iter_mut().flatten() {
            room.state = RoomState::Waiting;
            // A publish without a key is sent once, whatever its outcome.
            if let Some(entry) = room
                .queue
                .front()
                .filter(|entry| !entry.keyed && entry.sent)
            {
                context.oracle.answered(entry.value, Outcome::Unknown);
                room.queue.pop_front();
            }
        }
        let announced = conn.return_at.map(|at| at.saturating_sub(context.now));
        let wait = delay
            .or(announced)
            .unwrap_or_else(|| jitter(context.random, self.attempt));
        self.attempt += 1;
        self.actions.push(Action::Later(wait, Timer::Retry));
    }
}
