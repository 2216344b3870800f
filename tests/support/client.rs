//! A client of the native protocol. It keeps the messages that a test does not wait for, and prints
//! them when an expected one does not arrive.

use std::collections::VecDeque;
use std::net::SocketAddr;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::{Error, Message};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use switchboard::runtime::{self, Socket};

use super::{DEADLINE, within};

pub struct TestClient {
    stream: WebSocketStream<Socket>,
    /// Received while another message was awaited.
    received: VecDeque<Value>,
    last_id: u64,
    pub welcome: Value,
    /// The subprotocol that the server chose.
    pub subprotocol: Option<String>,
}

impl TestClient {
    /// Connects to a node (or a proxy) at `/ws` and reads the welcome.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address)
            .await
            .expect("the handshake succeeds")
    }

    pub async fn try_connect(address: SocketAddr) -> Result<Self, Error> {
        Self::with(address, "", &[]).await
    }

    /// Connects with a query (`?a=b`) and header fields.
    pub async fn with(
        address: SocketAddr,
        query: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<Self, Error> {
        let socket = runtime::connect(address, DEADLINE).await?;
        let mut request = format!("ws://{address}/ws{query}").into_client_request()?;
        for (name, value) in fields {
            let value = value.parse().expect("a header's value");
            request.headers_mut().insert(*name, value);
        }
        let shaking = async_tungstenite::client_async(request, socket);
        let (stream, response) = within("the handshake", shaking).await?;
        let mut client = Self {
            stream,
            received: VecDeque::new(),
            last_id: 0,
            welcome: Value::Null,
            subprotocol: response
                .headers()
                .get("sec-websocket-protocol")
                .map(|chosen| chosen.to_str().expect("text").to_owned()),
        };
        client.welcome = client.push("welcome").await;
        Ok(client)
    }

    pub async fn send(&mut self, message: Value) {
        self.send_raw(Message::text(message.to_string())).await;
    }

    pub async fn send_raw(&mut self, message: Message) {
        within(
            "the message is sent",
            SinkExt::send(&mut self.stream, message),
        )
        .await
        .expect("the socket takes it");
    }

    /// Sends a command without waiting for its reply, and returns its id.
    pub async fn ask(&mut self, mut command: Value) -> u64 {
        self.last_id += 1;
        command["id"] = json!(self.last_id);
        self.send(command).await;
        self.last_id
    }

    /// Sends a command and returns its reply, which may be an error.
    pub async fn call(&mut self, command: Value) -> Value {
        let id = self.ask(command).await;
        self.reply(id).await
    }

    /// The reply to the command with this id.
    pub async fn reply(&mut self, id: u64) -> Value {
        self.take(&format!("the reply {id}"), |message| {
            message["id"] == json!(id)
        })
        .await
    }

    pub async fn auth(&mut self, user: &str) {
        let reply = self.call(json!({"type": "auth", "user": user})).await;
        assert_eq!(reply["type"], "ok", "{reply}");
    }

    /// Signs in with a token and returns the reply, which may be an error.
    pub async fn sign_in(&mut self, token: &str) -> Value {
        self.call(json!({"type": "auth", "token": token})).await
    }

    /// Joins a room and returns the reply.
    pub async fn join(&mut self, room: &str) -> Value {
        let reply = self.call(json!({"type": "join", "room": room})).await;
        assert_eq!(reply["type"], "ok", "{reply}");
        reply
    }

    /// Joins a room with a position.
    pub async fn rejoin(&mut self, room: &str, epoch: &Value, offset: u64) -> Value {
        let since = json!({"epoch": epoch, "offset": offset});
        self.call(json!({"type": "join", "room": room, "since": since}))
            .await
    }

    /// Publishes and returns the offset.
    pub async fn publish(&mut self, room: &str, data: Value) -> u64 {
        let reply = self
            .call(json!({"type": "publish", "room": room, "data": data}))
            .await;
        reply["offset"]
            .as_u64()
            .unwrap_or_else(|| panic!("not published: {reply}"))
    }

    /// The next message of a room.
    pub async fn message(&mut self, room: &str) -> Value {
        let what = format!("a message of {room}");
        self.take(&what, |message| {
            message["type"] == "message" && message["room"] == room
        })
        .await
    }

    /// The next message or gap of a room, in the order in which they came.
    pub async fn message_or_gap(&mut self, room: &str) -> Value {
        let what = format!("a message or gap of {room}");
        self.take(&what, |message| {
            (message["type"] == "message" || message["type"] == "gap") && message["room"] == room
        })
        .await
    }

    /// The next push of this type.
    pub async fn push(&mut self, kind: &str) -> Value {
        self.take(&format!("a {kind}"), |message| {
            message["type"] == kind && message["id"].is_null()
        })
        .await
    }

    /// Checks that only the pong arrives: messages in flight have been handled before it.
    pub async fn expect_silence(&mut self) {
        self.call(json!({"type": "ping"})).await;
        // Joins and leaves have tests of their own.
        self.received
            .retain(|message| message["type"] != "joined" && message["type"] != "left");
        assert!(self.received.is_empty(), "received {:?}", self.received);
    }

    /// Reads to the end and returns the close code and reason, if the server sent any.
    pub async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            match within("the close", self.stream.next()).await {
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame?;
                    // The library sends its own close frame with the next flush.
                    let _ = self.stream.flush().await;
                    return Some((frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(Message::Text(text))) => {
                    self.received
                        .push_back(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Received and not yet taken by a test.
    pub fn received(&self) -> impl Iterator<Item = &Value> {
        self.received.iter()
    }

    pub fn stream(&mut self) -> &mut WebSocketStream<Socket> {
        &mut self.stream
    }

    /// Takes the first message that fits, of those received and those to come.
    async fn take(&mut self, what: &str, mut fits: impl FnMut(&Value) -> bool) -> Value {
        if let Some(index) = self.received.iter().position(&mut fits) {
            return self.received.remove(index).expect("it is there");
        }
        loop {
            let next = runtime::timeout(DEADLINE, self.stream.next()).await;
            let message: Value = match next {
                Ok(Some(Ok(Message::Text(text)))) => serde_json::from_str(&text).expect("JSON"),
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
                other => panic!(
                    "expected {what}, got {other:?}; before: {:?}",
                    self.received
                ),
            };
            if fits(&message) {
                return message;
            }
            self.received.push_back(message);
        }
    }
}
