//! A client with the rules of `www/switchboard.js`: rooms that stay joined over connections, one
//! unanswered publish per room, retried with the same key, positions and no doubles. Plain logic:
//! it is told what happens and leaves in `acts` what it does. Times are milliseconds, and shorter
//! than a browser's.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use switchboard::model::id::{Position, RoomName, UserName};
use switchboard::protocol::{Command, Publish};

use super::oracle::{Kind, Oracle, Outcome};
use super::redis::Redis;
use super::view::View;

const CONNECT_DEADLINE: u64 = 3_000;
/// Longer than a node may take, so that no answer means a fault of the node.
pub const ANSWER_DEADLINE: u64 = 9_000;
const PONG_DEADLINE: u64 = 3_000;
const BACKOFF_FIRST: u64 = 100;
const BACKOFF_MOST: u64 = 2_000;
pub const STEADY_AFTER: u64 = 1_000;

/// The users there are; each client is one of them, or nobody.
pub const USERS: [&str; 2] = ["u0", "u1"];

/// What a client does.
#[derive(Debug)]
pub enum Act {
    Connect,
    /// The socket is closed from this end.
    Close,
    Send(u64, Command),
    SignIn(u64, UserName),
    Later(u64, Timer),
}

#[derive(Clone, Copy, Debug)]
pub enum Timer {
    Retry,
    Greeting,
    Steady,
    Answer(u64),
    Watch,
    Farewell,
    Join(usize),
    Pump(usize),
    /// The list with this number is asked for again.
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
    /// A room that was left and joined again is another one.
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

/// A connection, and where the node's frames say that one stands in each room.
#[derive(Debug, Default)]
pub struct Conn {
    pub open: bool,
    pub pending: HashMap<u64, Ask>,
    requests: u64,
    pub heartbeat: Option<u64>,
    pub heard: u64,
    pub pinged: Option<u64>,
    pub return_at: Option<u64>,
    pub wire: Vec<Option<Position>>,
    /// Ephemeral messages, which come at most once on a connection. They have no place, so whoever
    /// moves to a node that hears late may hear one there again.
    pub ephemerals: HashSet<u64>,
    /// It was stalled or black-holed: what is late is not the node's fault.
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
    pub acts: Vec<Act>,
}

/// What a client needs of the world around it.
pub struct Scene<'a> {
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
    /// The number of a request whose answer is waited for.
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
            acts: Vec::new(),
        }
    }

    pub fn connect(&mut self, scene: &mut Scene<'_>) {
        scene.oracle.figures.connections += 1;
        self.conn = Some(Conn {
            heard: scene.now,
            wire: vec![None; self.names.len()],
            ..Conn::default()
        });
        self.acts.push(Act::Connect);
        self.acts
            .push(Act::Later(CONNECT_DEADLINE, Timer::Greeting));
    }

    pub fn opened(&mut self, _: &mut Scene<'_>) {
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
        self.acts
            .push(Act::Later(ANSWER_DEADLINE, Timer::Answer(id)));
        self.acts.push(Act::Send(id, command));
    }

    // What the page does.

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

    /// Joins again though nothing asks for it, from where one stands.
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
                let publish = self.saying(room, value, false, false, true);
                self.request(Ask::Ephemeral(value), Command::Publish(publish));
            }
            return;
        }
        self.say(room, random.u8(..8) > 0, random.u8(..6) == 0, oracle);
    }

    /// Publishes to a room one is in.
    pub fn say(&mut self, room: usize, keyed: bool, others: bool, oracle: &mut Oracle) {
        let Some(speaking) = &mut self.rooms[room] else {
            return;
        };
        speaking.queue.push_back(Entry {
            value: oracle.attempt(self.id, room, false),
            keyed,
            others,
            sent: false,
            tries: 0,
        });
        self.pump(room);
    }

    /// Publishes many at once without waiting for answers, as no good client does.
    pub fn flood(&mut self, room: usize, count: usize, oracle: &mut Oracle) {
        // Its answers alone may be more than its outbox holds.
        self.disturb();
        for _ in 0..count {
            if self.is_open() {
                let value = oracle.attempt(self.id, room, false);
                let publish = self.saying(room, value, false, false, false);
                self.request(Ask::Publish(room, value), Command::Publish(publish));
            }
        }
    }

    pub fn ask_history(&mut self, room: usize, random: &mut fastrand::Rng) {
        if self.is_open() {
            let command = Command::History {
                room: self.names[room].clone(),
                before: random.bool().then(|| random.u64(1..20)),
                limit: random.usize(1..10),
            };
            self.request(Ask::History(room), command);
        }
    }

    pub fn saying(
        &self,
        room: usize,
        value: u64,
        keyed: bool,
        others: bool,
        ephemeral: bool,
    ) -> Publish {
        let pad = "x".repeat((value % 7 * 20) as usize);
        let data = serde_json::value::RawValue::from_string(format!("[{value},\"{pad}\"]"));
        Publish {
            room: self.names[room].clone(),
            key: keyed.then(|| value.to_string().into()),
            data: data.expect("JSON"),
            ephemeral,
            others,
        }
    }

    /// Whether nothing is asked and nothing is to be said.
    pub fn rests(&self) -> bool {
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

    /// Sends the first of a room's queue, unless it is on its way.
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
        let publish = self.saying(index, value, keyed, others, false);
        self.request(Ask::Publish(index, value), Command::Publish(publish));
    }

    // The connection.

    /// A timer of the present connection.
    pub fn timer(&mut self, timer: Timer, scene: &mut Scene<'_>) {
        let Some(conn) = &mut self.conn else {
            if matches!(timer, Timer::Retry) {
                self.connect(scene);
            }
            return;
        };
        match timer {
            Timer::Retry => {}
            Timer::Greeting if conn.heartbeat.is_none() => self.drop_connection(None, scene),
            Timer::Greeting => {}
            Timer::Steady => self.attempt = 0,
            Timer::Answer(id) if conn.pending.contains_key(&id) => {
                if !conn.disturbed {
                    let text = format!("client {}: no answer to {:?}", self.id, conn.pending[&id]);
                    scene.oracle.violate(Kind::Stuck, text);
                }
                self.drop_connection(None, scene);
            }
            Timer::Answer(_) => {}
            Timer::Watch => self.watch(scene),
            Timer::Farewell => self.drop_connection(Some(0), scene),
            Timer::Join(room) => {
                if self.rooms[room]
                    .as_ref()
                    .is_some_and(|room| room.state == RoomState::Joining)
                    && conn.open
                {
                    let asked = conn
                        .pending
                        .values()
                        .any(|ask| matches!(ask, Ask::Join { room: other, .. } if *other == room));
                    if !asked {
                        self.send_join(room);
                    }
                }
            }
            Timer::Pump(room) => self.pump(room),
            Timer::Members(room, number) => self.ask_members_again(room, number),
        }
    }

    pub fn watch(&mut self, scene: &mut Scene<'_>) {
        let Some(conn) = &mut self.conn else { return };
        let Some(heartbeat) = conn.heartbeat else {
            return;
        };
        if conn.pinged.is_none() && scene.now - conn.heard >= heartbeat {
            conn.pinged = Some(scene.now);
            self.request(Ask::Ping, Command::Ping);
        }
        let Some(conn) = &mut self.conn else { return };
        let due = conn
            .pinged
            .map_or(conn.heard + heartbeat, |pinged| pinged + PONG_DEADLINE);
        if due <= scene.now {
            return self.drop_connection(None, scene);
        }
        self.acts.push(Act::Later(due - scene.now, Timer::Watch));
    }

    pub fn drop_connection(&mut self, delay: Option<u64>, scene: &mut Scene<'_>) {
        self.acts.push(Act::Close);
        self.lost(None, delay, scene);
    }

    /// The connection is gone; with the code it was closed with, if it was.
    pub fn lost(&mut self, code: Option<u16>, delay: Option<u64>, scene: &mut Scene<'_>) {
        let Some(conn) = self.conn.take() else { return };
        if code == Some(3002) {
            scene.oracle.figures.slow += 1;
            if !conn.disturbed {
                scene.oracle.violate(
                    Kind::FalseSlow,
                    format!("client {} reads promptly", self.id),
                );
            }
        }
        for ask in conn.pending.values() {
            if let Ask::Ephemeral(value) = ask {
                scene.oracle.answered(*value, Outcome::Unknown);
            }
        }
        for room in self.rooms.iter_mut().flatten() {
            room.state = RoomState::Waiting;
            // What has no key is said once, whatever became of it.
            if let Some(entry) = room
                .queue
                .front()
                .filter(|entry| !entry.keyed && entry.sent)
            {
                scene.oracle.answered(entry.value, Outcome::Unknown);
                room.queue.pop_front();
            }
        }
        let farewell = conn.return_at.map(|at| at.saturating_sub(scene.now));
        let wait = delay
            .or(farewell)
            .unwrap_or_else(|| jitter(scene.random, self.attempt));
        self.attempt += 1;
        self.acts.push(Act::Later(wait, Timer::Retry));
    }
}
