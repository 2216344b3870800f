//! One connection of a client, from the open socket to its end.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::WebSocketConfig;
use async_tungstenite::tungstenite::{Error, Message};
use futures::{FutureExt, SinkExt, StreamExt, select_biased};
use serde::Deserialize;
use serde_json::{Value, json};
use switchboard::runtime::{self, Socket};

use super::room::State;
use super::{Client, Ended, Order, STEADY_AFTER, jitter};
use crate::history::{Event, Fate, Position};

const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const PONG_DEADLINE: Duration = Duration::from_secs(10);

/// Messages handled before timers and orders are looked at again.
const TURN: usize = 64;

/// An open connection that nothing has been said on.
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

/// What a server says; which fields there are depends on the type.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<u64>,
    #[serde(borrow)]
    room: Option<Cow<'a, str>>,
    #[serde(borrow)]
    epoch: Option<Cow<'a, str>>,
    offset: Option<u64>,
    top: Option<u64>,
    recovered: Option<bool>,
    data: Option<Data>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    retry: Option<u64>,
    #[serde(borrow)]
    node: Option<Cow<'a, str>>,
    heartbeat: Option<u64>,
}

impl Said<'_> {
    fn position(&self) -> Option<Position> {
        Some(Position {
            epoch: self.epoch.as_deref()?.to_owned(),
            offset: self.offset?,
        })
    }
}

/// Who published a message, and which of its publications it is.
#[derive(Clone, Copy, Deserialize)]
struct Data {
    p: usize,
    n: u64,
}

enum Asked {
    Auth,
    Join {
        room: String,
        since: Option<Position>,
    },
    Publish {
        room: String,
        seq: u64,
    },
    Ping,
}

#[derive(Clone, PartialEq)]
enum Timer {
    Greeting,
    Steady,
    Answer(u64),
    /// A farewell said when to return.
    Leave,
    Watch,
    Authenticate,
    Join(String),
    Publish(String),
}

pub struct Serving<'a> {
    client: &'a mut Client,
    conn: Conn,
    asked: HashMap<u64, Asked>,
    requests: u64,
    timers: Vec<(Instant, Timer)>,
    outgoing: Vec<String>,
    node: Option<String>,
    authenticated: bool,
    heard: Instant,
    heartbeat: Duration,
    pinged: Option<Instant>,
    return_at: Option<Instant>,
    back: bool,
}

/// Why the connection is ended from this side or the other: the code, the reason, and the time to return, if it is not the
/// jitter's to say.
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
            asked: HashMap::new(),
            requests: 0,
            timers: Vec::new(),
            outgoing: Vec::new(),
            node: None,
            authenticated: false,
            heard: Instant::now(),
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
            let told = self
                .return_at
                .map(|time| time.saturating_duration_since(Instant::now()));
            let delay = told.or(lost.delay).unwrap_or_else(|| {
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

    /// Waits for one thing to happen, and does what follows from it.
    async fn turn(&mut self) -> Result<Option<Ended>, Lost> {
        self.flush().await?;
        let due = self.timers.iter().map(|(time, _)| *time).min();
        let left = due.map_or(Duration::from_secs(60), |time| {
            time.saturating_duration_since(Instant::now())
        });
        let first = select_biased! {
            said = self.conn.stream.next().fuse() => Some(said),
            order = self.client.ordered.recv_async().fuse() => {
                return Ok(self.obey(order.unwrap_or(Order::End)));
            }
            () = runtime::sleep(left).fuse() => None,
        };
        match first {
            Some(said) => {
                self.hear(said)?;
                for _ in 1..TURN {
                    match self.conn.stream.next().now_or_never() {
                        Some(said) => self.hear(said)?,
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

    /// What it means for the connection, if anything.
    fn obey(&mut self, order: Order) -> Option<Ended> {
        match order {
            Order::Away => Some(Ended::Away),
            Order::End => Some(Ended::Over),
            Order::Return => None,
            Order::Publish { ref room, .. } => {
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

    fn hear(&mut self, said: Option<Result<Message, Error>>) -> Result<(), Lost> {
        self.heard = Instant::now();
        self.pinged = None;
        match said {
            Some(Ok(Message::Text(text))) => self.said(&text),
            Some(Ok(Message::Close(frame))) => {
                let told = frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
                let (code, reason) = told.unwrap_or((1005, String::new()));
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

    fn said(&mut self, text: &str) -> Result<(), Lost> {
        let Ok(said) = serde_json::from_str::<Said<'_>>(text) else {
            self.strange(text);
            return Ok(());
        };
        if let Some(id) = said.id {
            match self.asked.remove(&id) {
                Some(asked) => {
                    self.timers.retain(|(_, timer)| *timer != Timer::Answer(id));
                    self.answered(asked, &said, text);
                }
                None => self.strange(text),
            }
            return Ok(());
        }
        match &*said.kind {
            "welcome" => self.welcomed(&said),
            "message" => return self.message(&said, text),
            "gap" => self.gap(&said, text),
            "bye" => {
                let wait = Duration::from_millis(said.retry.unwrap_or(0));
                self.return_at = Some(Instant::now() + wait);
                self.after(wait, Timer::Leave);
            }
            "joined" | "left" => {}
            _ => self.strange(text),
        }
        Ok(())
    }

    fn strange(&mut self, text: &str) {
        let (client, said) = (self.client.number, text.chars().take(300).collect());
        self.client.recorder.note(Event::Strange { client, said });
    }

    fn welcomed(&mut self, said: &Said<'_>) {
        let node = said.node.as_deref().unwrap_or_default().to_owned();
        self.timers.retain(|(_, timer)| *timer != Timer::Greeting);
        self.heartbeat = Duration::from_secs(said.heartbeat.unwrap_or(25));
        self.after(STEADY_AFTER, Timer::Steady);
        self.after(self.heartbeat, Timer::Watch);
        self.node = Some(node.clone());
        let client = self.client.number;
        self.client.recorder.note(Event::Open { client, node });
    }

    fn message(&mut self, said: &Said<'_>, text: &str) -> Result<(), Lost> {
        let (Some(name), Some(offset), Some(data)) = (said.room.as_deref(), said.offset, said.data)
        else {
            self.strange(text);
            return Ok(());
        };
        let Some(room) = self.client.rooms.get_mut(name) else {
            self.strange(text);
            return Ok(());
        };
        let position = room.position.clone();
        let fate = room.take(offset);
        let repeated = fate == Fate::Beyond && {
            let at = position.as_ref().map(|position| position.offset);
            std::mem::replace(&mut room.hole, at) == at
        };
        self.client.recorder.note(Event::Receive {
            client: self.client.number,
            room: name.to_owned(),
            epoch: position.map(|position| position.epoch).unwrap_or_default(),
            offset,
            publisher: data.p,
            seq: data.n,
            fate,
        });
        if repeated {
            return Err(dropped("the same hole twice"));
        }
        if fate == Fate::Beyond {
            self.join(name);
        }
        Ok(())
    }

    fn gap(&mut self, said: &Said<'_>, text: &str) {
        let (Some(name), Some(position)) = (said.room.as_deref(), said.position()) else {
            return self.strange(text);
        };
        let Some(room) = self.client.rooms.get_mut(name) else {
            return self.strange(text);
        };
        // While a join is on its way, its answer is what counts.
        if !room.is_joined() {
            return;
        }
        room.position = Some(position.clone());
        self.client.recorder.note(Event::Gap {
            client: self.client.number,
            room: name.to_owned(),
            epoch: position.epoch,
            offset: position.offset,
        });
    }

    fn ask(&mut self, mut command: Value, asked: Asked) {
        self.requests += 1;
        command["id"] = json!(self.requests);
        self.outgoing.push(command.to_string());
        self.after(ANSWER_DEADLINE, Timer::Answer(self.requests));
        self.asked.insert(self.requests, asked);
    }

    fn authenticate(&mut self) {
        let user = format!("u{}", self.client.number);
        self.ask(json!({"type": "auth", "user": user}), Asked::Auth);
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
        self.ask(command, Asked::Join { room, since });
    }

    /// Sends the first publish of a room, unless it is on its way.
    fn pump(&mut self, name: &str) {
        if !self.authenticated {
            return;
        }
        let Some(room) = self.client.rooms.get_mut(name) else {
            return;
        };
        let Some(entry) = room.queue.front_mut().filter(|entry| !entry.sent) else {
            return;
        };
        entry.sent = true;
        let pad = "x".repeat(entry.size);
        let data = json!({"p": self.client.number, "n": entry.seq, "pad": pad});
        let command = json!({"type": "publish", "room": name, "key": entry.key, "data": data});
        let (room, seq) = (name.to_owned(), entry.seq);
        self.ask(command, Asked::Publish { room, seq });
    }

    fn answered(&mut self, asked: Asked, said: &Said<'_>, text: &str) {
        let error = (said.kind == "error").then(|| said.code.as_deref().unwrap_or("error"));
        let passing = matches!(error, Some("unknown" | "unavailable" | "rate"));
        match asked {
            Asked::Ping => {}
            Asked::Auth if passing => {
                let wait = jitter(&mut self.client.random, 0);
                self.after(wait, Timer::Authenticate);
            }
            Asked::Auth => {
                if error.is_some() {
                    return self.strange(text);
                }
                self.authenticated = true;
                let rooms: Vec<String> = self.client.rooms.keys().cloned().collect();
                rooms.iter().for_each(|room| self.pump(room));
            }
            Asked::Join { room, .. } if passing => {
                let tries = self.client.rooms.get_mut(&room).map_or(0, |room| {
                    room.tries += 1;
                    room.tries - 1
                });
                let wait = jitter(&mut self.client.random, tries);
                self.after(wait, Timer::Join(room));
            }
            Asked::Join { room, since } => match said.position().filter(|_| error.is_none()) {
                Some(answer) => self.joined(room, since, answer, said),
                None => self.strange(text),
            },
            Asked::Publish { room, seq } => self.published(room, seq, said, error),
        }
    }

    fn joined(&mut self, name: String, since: Option<Position>, answer: Position, said: &Said<'_>) {
        if let Some(room) = self.client.rooms.get_mut(&name) {
            room.joined(answer.clone(), since.as_ref(), said.recovered == Some(true));
        }
        self.client.recorder.note(Event::Joined {
            client: self.client.number,
            room: name,
            top: said.top.unwrap_or(answer.offset),
            epoch: answer.epoch,
            offset: answer.offset,
            since,
            recovered: said.recovered,
        });
    }

    fn published(&mut self, name: String, seq: u64, said: &Said<'_>, error: Option<&str>) {
        let Some(room) = self.client.rooms.get_mut(&name) else {
            return;
        };
        let Some(entry) = room.queue.front_mut().filter(|entry| entry.seq == seq) else {
            return;
        };
        if matches!(error, Some("unknown" | "unavailable" | "rate")) {
            entry.tries += 1;
            let tries = entry.tries - 1;
            let wait = jitter(&mut self.client.random, tries);
            return self.after(wait, Timer::Publish(name));
        }
        room.queue.pop_front();
        self.client.glance().unanswered -= 1;
        match (error, said.position()) {
            (None, Some(at)) => self.client.recorder.note(Event::Ok {
                client: self.client.number,
                room: name.clone(),
                seq,
                epoch: at.epoch,
                offset: at.offset,
            }),
            (code, _) => self
                .client
                .fail(name.clone(), seq, code.unwrap_or("no position")),
        }
        self.pump(&name);
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
                        ..dropped("a farewell asked for it")
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
        if self.pinged.is_none() && now - self.heard >= self.heartbeat {
            self.pinged = Some(now);
            self.ask(json!({"type": "ping"}), Asked::Ping);
        }
        let due = self
            .pinged
            .map_or(self.heard + self.heartbeat, |time| time + PONG_DEADLINE);
        if due <= now {
            return Err(dropped("the server is silent"));
        }
        self.after(due - now, Timer::Watch);
        Ok(())
    }
}
