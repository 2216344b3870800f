//! A client that reconnects as the SDK does: it rejoins with its position, repeats a publish with
//! the same key until it is acknowledged, and fails the test when a message is missing, duplicated
//! or out of order.

use std::net::SocketAddr;
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::Message;
use futures::StreamExt;
use serde_json::{Value, json};
use switchboard::runtime::{self, Socket};

use super::{DEADLINE, within};

/// How long it waits before it tries again.
const RETRY: Duration = Duration::from_millis(20);

/// The id of the join command.
const JOIN: u64 = 2;

/// A member of one room.
pub struct ReturningClient {
    /// It tries them in turn, beginning with the first.
    addresses: Vec<SocketAddr>,
    attempts: usize,
    user: String,
    room: String,
    stream: Option<WebSocketStream<Socket>>,
    position: Option<(Value, u64)>,
    last_id: u64,
    /// All messages of the room since it first joined, in order.
    pub seen: Vec<Value>,
    /// The node of each connection it had.
    pub nodes: Vec<String>,
}

/// The result of the next read of the connection.
enum Next {
    Message(Value),
    /// A new connection: unanswered commands of the former one must be sent again.
    Returned,
}

impl ReturningClient {
    /// Joins the room, at the end of its log.
    pub async fn join(address: SocketAddr, user: &str, room: &str) -> Self {
        Self::join_one_of(&[address], user, room).await
    }

    /// The same with several nodes, or ways to them.
    pub async fn join_one_of(addresses: &[SocketAddr], user: &str, room: &str) -> Self {
        let mut client = Self {
            addresses: addresses.into(),
            attempts: 0,
            user: user.to_owned(),
            room: room.to_owned(),
            stream: None,
            position: None,
            // Of the commands with which each connection begins.
            last_id: JOIN,
            seen: Vec::new(),
            nodes: Vec::new(),
        };
        client.next().await;
        client
    }

    /// Publishes until it is acknowledged, and returns the offset.
    pub async fn publish(&mut self, key: &str, data: Value) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let publish =
            json!({"type": "publish", "id": id, "room": self.room, "key": key, "data": data});
        let publishing = async {
            self.send(&publish).await;
            loop {
                match self.next().await {
                    Next::Message(message) if message["id"] != id => {}
                    Next::Message(message) if message["type"] == "ok" => return offset(&message),
                    Next::Message(_) => {
                        runtime::sleep(RETRY).await;
                        self.send(&publish).await;
                    }
                    Next::Returned => self.send(&publish).await,
                }
            }
        };
        within("the publish is acknowledged", publishing).await
    }

    /// Reads until it has received everything up to this offset.
    pub async fn catch_up(&mut self, top: u64) {
        let listening = async {
            while self.stands() < top {
                self.next().await;
            }
        };
        within("everything is seen", listening).await;
    }

    fn stands(&self) -> u64 {
        self.position.as_ref().map_or(0, |(_, offset)| *offset)
    }

    async fn send(&mut self, command: &Value) {
        if let Some(stream) = &mut self.stream {
            // What could not be sent is sent again on the next connection.
            let _ = stream.send(Message::text(command.to_string())).await;
        }
    }

    async fn next(&mut self) -> Next {
        let Some(stream) = &mut self.stream else {
            within("a node takes the client back", self.come_back()).await;
            return Next::Returned;
        };
        match stream.next().await {
            Some(Ok(Message::Text(text))) => {
                let message = serde_json::from_str(&text).expect("JSON");
                self.record(&message);
                Next::Message(message)
            }
            Some(Ok(_)) => Next::Message(Value::Null),
            Some(Err(_)) | None => {
                self.stream = None;
                Next::Message(Value::Null)
            }
        }
    }

    fn record(&mut self, message: &Value) {
        assert_ne!(message["type"], "gap", "nothing was lost: {message}");
        if message["type"] != "message" {
            return;
        }
        let (_, stands) = self.position.as_mut().expect("it has joined");
        *stands += 1;
        assert_eq!(
            offset(message),
            *stands,
            "the next message of {}",
            self.user
        );
        self.seen.push(message["data"].clone());
    }

    async fn come_back(&mut self) {
        while self.stream.is_none() {
            match self.connect().await {
                Some(stream) => self.stream = Some(stream),
                None => {
                    self.attempts += 1;
                    runtime::sleep(RETRY).await;
                }
            }
        }
    }

    /// One attempt; `None` if the node closed the connection or has no Redis.
    async fn connect(&mut self) -> Option<WebSocketStream<Socket>> {
        let address = self.addresses[self.attempts % self.addresses.len()];
        let socket = runtime::connect(address, DEADLINE).await.ok()?;
        let url = format!("ws://{address}/ws");
        let (mut stream, _) = async_tungstenite::client_async(url, socket).await.ok()?;
        let welcome = read_json(&mut stream).await?;
        let auth = json!({"type": "auth", "id": 1, "user": self.user});
        let mut join = json!({"type": "join", "id": JOIN, "room": self.room});
        if let Some((epoch, offset)) = &self.position {
            join["since"] = json!({"epoch": epoch, "offset": offset});
        }
        for command in [auth, join] {
            stream.send(Message::text(command.to_string())).await.ok()?;
        }
        let joined = loop {
            let message = read_json(&mut stream).await?;
            match message["id"].as_u64() {
                Some(JOIN) if message["type"] == "ok" => break message,
                Some(JOIN) => return None,
                _ => {}
            }
        };
        if let Some((_, stood)) = &self.position {
            let user = &self.user;
            assert_eq!(
                joined["recovered"], true,
                "{user} stood at {stood}: {joined}"
            );
            assert_eq!(offset(&joined), *stood, "{joined}");
        }
        self.position = Some((joined["epoch"].clone(), offset(&joined)));
        self.nodes.push(welcome["node"].as_str()?.to_owned());
        Some(stream)
    }
}

async fn read_json(stream: &mut WebSocketStream<Socket>) -> Option<Value> {
    loop {
        match stream.next().await?.ok()? {
            Message::Text(text) => return serde_json::from_str(&text).ok(),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

fn offset(message: &Value) -> u64 {
    message["offset"]
        .as_u64()
        .unwrap_or_else(|| panic!("no offset: {message}"))
}
