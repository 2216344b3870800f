//! One connection of a client, from the open socket to its end.

mod frames;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::WebSocketConfig;
use async_tungstenite::tungstenite::{Error, Message};
use futures::{FutureExt, SinkExt, StreamExt, select_biased};
use serde_json::{Value, json};
use switchboard::runtime::{self, Socket};

use super::room::State;
use super::{Client, ControlCommand, Ended, STEADY_AFTER, jitter};
use crate::history::{Event, Kept, Position};

const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const PONG_DEADLINE: Duration = Duration::from_secs(10);

/// The greatest page of a history that a node returns.
const HISTORY_PAGE: usize = 100;

/// Messages handled before timers and commands are checked again.
const TURN: usize = 64;

/// An open connection without any traffic so far.
pub struct Conn {
    stream: WebSocketStream<Socket>,
    socket: Socket,
}

pub async fn open(address: SocketAddr) -> Result<Conn, Error> {
    let socket = runtime::connect(address, super::CONNECT_DEADLINE).await?;
    // A thousand clients share this process' memory.
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let url = format!("ws://{address}/ws");
    let shaken =
        async_tungstenite::client_async_with_config(url, socket.clone(), Some(config)).await;
    let (stream, _) = shaken?;
    Ok(Conn { stream, socket })
}

/// The HTTP status of a refused handshake.
pub fn status(failed: &Result<Conn, Error>) -> Option<u16> {
    match failed {
        Err(Error::Http(answer)) => Some(answer.status().as_u16()),
        _ => None,
    }
}

enum Pending {
    Auth,
    Join {
        room: String,
        since: Option<Position>,
    },
    Publish {
        room: String,
        seq: u64,
    },
    Members {
        room: String,
    },
    /// The page before those that are known.
    History {
        room: String,
        known: Vec<Kept>,
    },
    Ping,
}

#[derive(Clone, PartialEq)]
enum Timer {
    Greeting,
    Steady,
    Answer(u64),
    /// A `bye` announced when to reconnect.
    Leave,
    Watch,
    Authenticate,
    Join(String),
    Publish(String),
}

pub struct Serving<'a> {
    client: &'a mut Client,
    conn: Conn,
    pending: HashMap<u64, Pending>,
    requests: u64,
    timers: Vec<(Instant, Timer)>,
    outgoing: Vec<String>,
    node: Option<String>,
    /// The client does not publish before that.
    signed_in: bool,
    received_at: Instant,
    heartbeat: Duration,
    pinged: Option<Instant>,
    return_at: Option<Instant>,
    back: bool,
}

/// Why the connection ended, at either end: the code, the reason, and the delay of the reconnect,
/// if that is not the backoff's.
struct Lost {
    code: u16,
    reason: String,
    delay: Option<Duration>,
    meant: bool,
}

fn dropped(reason: &str) -> Lost {
    Lost {
        code: 1006,
        reason: reason.to_owned(),
        delay: None,
        meant: false,
    }
}

impl<'a> Serving<'a> {
    pub fn new(client: &'a mut Client, conn: Conn) -> Self {
        Self {
            client,
            conn,
            pending: HashMap::new(),
            requests: 0,
            timers: Vec::new(),
            outgoing: Vec::new(),
            node: None,
            signed_in: false,
            received_at: Instant::now(),
            heartbeat: Duration::from_secs(25),
            pinged: None,
            return_at: None,
            back: false,
        }
    }

    pub async fn run(mut self) -> Ended {
        self.after(super::CONNECT_DEADLINE, Timer::Greeting);
        self.authenticate();
        let rooms: Vec<String> = self.client.rooms.keys().cloned().collect();
        for room in &rooms {
            if self
                .client
                .rooms
                .get(room)
                .is_some_and(|room| room.wanted())
            {
                self.join(room);
            }
        }
        loop {
            let lost = match self.turn().await {
                Ok(None) => continue,
                Ok(Some(ended)) => {
                    self.ended(1000, "asked to", true);
                    return ended;
                }
                Err(lost) => lost,
            };
            self.ended(lost.code, &lost.reason, lost.meant);
            let announced = self
                .return_at
                .map(|time| time.saturating_duration_since(Instant::now()));
            let delay = announced.or(lost.delay).unwrap_or_else(|| {
                self.client.attempt += 1;
                jitter(&mut self.client.random, self.client.attempt - 1)
            });
            return Ended::Lost(delay);
        }
    }

    fn ended(&mut self, code: u16, reason: &str, meant: bool) {
        self.conn.socket.shutdown();
        let (client, reason) = (self.client.number, reason.to_owned());
        self.client.recorder.note(Event::Closed {
            client,
            code,
            reason,
            meant,
        });
    }

    /// Waits for a message, a command or a timer, and handles it.
    async fn turn(&mut self) -> Result<Option<Ended>, Lost> {
        self.flush().await?;
        let due = self.timers.iter().map(|(time, _)| *time).min();
        let left = due.map_or(Duration::from_secs(60), |time| {
            time.saturating_duration_since(Instant::now())
        });
        let first = select_biased! {
            message = self.conn.stream.next().fuse() => Some(message),
            command = self.client.ordered.recv_async().fuse() => {
                return Ok(self.execute(command.unwrap_or(ControlCommand::End)));
            }
            () = runtime::sleep(left).fuse() => None,
        };
        match first {
            Some(message) => {
                self.receive(message)?;
                for _ in 1..TURN {
                    match self.conn.stream.next().now_or_never() {
                        Some(message) => self.receive(message)?,
                        None => break,
                    }
                }
                let node = self.node.clone();
                self.client.show(node.as_deref());
                self.note_back();
            }
            None => self.on_time()?,
        }
        Ok(None)
    }

    /// Executes a command; returns how the connection ends, if it does.
    fn execute(&mut self, order: ControlCommand) -> Option<Ended> {
        match order {
            ControlCommand::Away => Some(Ended::Away),
            ControlCommand::End => Some(Ended::Over),
            ControlCommand::Return => None,
            ControlCommand::Members { room } => {
                let command = json!({"type": "members", "room": room, "limit": 1000});
                self.ask(command, Pending::Members { room });
                None
            }
            ControlCommand::History { room } => {
                self.ask_history(room, Vec::new());
                None
            }
            ControlCommand::Publish { ref room, .. } => {
                let room = room.clone();
                self.client.enqueue(order);
                self.pump(&room);
                None
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Lost> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let frames = std::mem::take(&mut self.outgoing);
        let stream = &mut self.conn.stream;
        let sending = async move {
            for frame in frames {
                stream.feed(Message::text(frame)).await?;
            }
            SinkExt::<Message>::flush(stream).await
        };
        match runtime::timeout(ANSWER_DEADLINE, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(dropped(&error.to_string())),
            Err(_) => Err(dropped("the server does not read")),
        }
    }

    fn receive(&mut self, message: Option<Result<Message, Error>>) -> Result<(), Lost> {
        self.received_at = Instant::now();
        self.pinged = None;
        match message {
            Some(Ok(Message::Text(text))) => self.receive_text(&text),
            Some(Ok(Message::Close(frame))) => {
                let close = frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
                let (code, reason) = close.unwrap_or((1005, String::new()));
                Err(Lost {
                    code,
                    reason,
                    delay: None,
                    meant: self.return_at.is_some(),
                })
            }
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(dropped(&error.to_string())),
            None => Err(dropped("the connection ended")),
        }
    }

    fn ask(&mut self, mut command: Value, pending: Pending) {
        self.requests += 1;
        command["id"] = json!(self.requests);
        self.outgoing.push(command.to_string());
        self.after(ANSWER_DEADLINE, Timer::Answer(self.requests));
        self.pending.insert(self.requests, pending);
    }

    /// Requests the page of a room's history before those that are known.
    fn ask_history(&mut self, room: String, known: Vec<Kept>) {
        let mut command = json!({"type": "history", "room": room, "limit": HISTORY_PAGE});
        if let Some(first) = known.first() {
            command["before"] = json!(first.offset);
        }
        self.ask(command, Pending::History { room, known });
    }

    fn authenticate(&mut self) {
        if let Some(user) = &self.client.user {
            self.ask(json!({"type": "auth", "user": user}), Pending::Auth);
        }
    }

    fn join(&mut self, name: &str) {
        let Some(room) = self.client.rooms.get_mut(name) else {
            return;
        };
        room.state = State::Joining;
        let (since, room) = (room.position.clone(), name.to_owned());
        let mut command = json!({"type": "join", "room": name});
        if let Some(since) = &since {
            command["since"] = json!(since);
        }
        self.ask(command, Pending::Join { room, since });
    }

    /// Sends the first publish of a room, unless it is pending.
    fn pump(&mut self, name: &str) {
        let Some(room) = self.client.rooms.get_mut(name) else {
            return;
        };
        let first = room.queue.front_mut().filter(|entry| !entry.sent);
        let Some(entry) = first.filter(|_| self.signed_in) else {
            return;
        };
        entry.sent = true;
        let pad = "x".repeat(entry.size);
        let data = json!({"p": self.client.number, "n": entry.seq, "pad": pad});
        let command = json!({"type": "publish", "room": name, "key": entry.key, "data": data});
        let (room, seq) = (name.to_owned(), entry.seq);
        self.ask(command, Pending::Publish { room, seq });
    }

    fn note_back(&mut self) {
        let whole = self.node.is_some()
            && (self.client.rooms.values()).all(|room| !room.wanted() || room.is_joined());
        if whole && !std::mem::replace(&mut self.back, true) {
            let client = self.client.number;
            self.client.recorder.note(Event::Back { client });
        }
    }

    fn after(&mut self, time: Duration, timer: Timer) {
        self.timers.push((Instant::now() + time, timer));
    }

    fn on_time(&mut self) -> Result<(), Lost> {
        let now = Instant::now();
        let (due, later) = (self.timers.drain(..)).partition(|(time, _)| *time <= now);
        self.timers = later;
        let due: Vec<(Instant, Timer)> = due;
        for (_, timer) in due {
            match timer {
                Timer::Greeting => return Err(dropped("no welcome in time")),
                Timer::Answer(_) => return Err(dropped("no answer in time")),
                Timer::Steady => self.client.attempt = 0,
                Timer::Leave => {
                    return Err(Lost {
                        delay: Some(Duration::ZERO),
                        meant: true,
                        ..dropped("a bye asked for it")
                    });
                }
                Timer::Watch => self.watch(now)?,
                Timer::Authenticate => self.authenticate(),
                Timer::Join(room) => self.join(&room),
                Timer::Publish(name) => {
                    let first = self.client.rooms.get_mut(&name);
                    if let Some(entry) = first.and_then(|room| room.queue.front_mut()) {
                        entry.sent = false;
                    }
                    self.pump(&name);
                }
            }
        }
        Ok(())
    }

    fn watch(&mut self, now: Instant) -> Result<(), Lost> {
        if self.pinged.is_none() && now - self.received_at >= self.heartbeat {
            self.pinged = Some(now);
            self.ask(json!({"type": "ping"}), Pending::Ping);
        }
        let due = self
            .pinged
            .map_or(self.received_at + self.heartbeat, |time| {
                time + PONG_DEADLINE
            });
        if due <= now {
            return Err(dropped("the server is silent"));
        }
        self.after(due - now, Timer::Watch);
        Ok(())
    }
}
