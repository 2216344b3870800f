//! The protocols within WebSocket messages: a node's own, which the limit uses too, and those of
//! the peers that have one.

use super::message;

/// A protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialogue {
    /// A node's.
    #[default]
    Native,
    /// Engine.io 4 and socket.io 5: a digit or two, then JSON.
    SocketIo,
    /// A room is a path, and each message is forwarded unchanged.
    Nchan,
    /// The JSON protocol of Centrifugo.
    Centrifugo,
}

/// The kind of a connection.
#[derive(Clone, Debug)]
pub enum ConnectionKind {
    /// It only connects.
    Guest,
    /// It receives the messages of a room.
    Member(String),
    /// It publishes to a room.
    Publisher(String),
}

/// What a client has received.
#[derive(Clone, Copy, Debug)]
pub enum Received<'a> {
    /// The connection is ready.
    Welcome,
    /// The reply to a command.
    Done,
    /// A message, by its number.
    Message(u32),
    /// An event that no client waits for.
    Ignored,
    /// A message that the client must answer with this text.
    Reply(&'static str),
    /// An unknown message, probably an error.
    Unexpected(&'a [u8]),
}

impl Dialogue {
    /// The path of the upgrade.
    pub fn path(self, kind: &ConnectionKind) -> String {
        match (self, kind) {
            (Dialogue::Native, _) => "/ws".into(),
            (Dialogue::SocketIo, _) => "/socket.io/?EIO=4&transport=websocket".into(),
            (Dialogue::Centrifugo, _) => "/connection/websocket".into(),
            (Dialogue::Nchan, ConnectionKind::Member(room)) => format!("/sub/{room}"),
            (Dialogue::Nchan, ConnectionKind::Publisher(room)) => format!("/pub/{room}"),
            (Dialogue::Nchan, ConnectionKind::Guest) => "/".into(),
        }
    }

    /// What the completed upgrade means to a client.
    pub fn upgraded(self) -> Received<'static> {
        match self {
            Dialogue::Native | Dialogue::SocketIo => Received::Ignored,
            Dialogue::Nchan => Received::Welcome,
            Dialogue::Centrifugo => Received::Reply(r#"{"id":1,"connect":{}}"#),
        }
    }

    /// The command that joins a room; `None` if connecting has joined it.
    pub fn join(self, room: &str) -> Option<String> {
        match self {
            Dialogue::Native => Some(format!(r#"{{"type":"join","id":1,"room":"{room}"}}"#)),
            Dialogue::SocketIo => Some(format!(r#"421["join","{room}"]"#)),
            Dialogue::Centrifugo => {
                Some(format!(r#"{{"id":2,"subscribe":{{"channel":"{room}"}}}}"#))
            }
            Dialogue::Nchan => None,
        }
    }

    /// The command that publishes message `number`.
    pub fn publish(self, room: &str, number: u32) -> String {
        let data = message::data(number);
        let id = u64::from(number) + 3;
        match self {
            Dialogue::Native => {
                format!(r#"{{"type":"publish","id":{id},"room":"{room}","data":"{data}"}}"#)
            }
            Dialogue::SocketIo => format!(r#"42{id}["publish","{room}","{data}"]"#),
            // As long as a node's message, because members receive exactly this.
            Dialogue::Nchan => format!(
                "{{\"type\":\"message\",\"room\":\"{room}\",\"offset\":{id},\
                 \"time\":1764000000123,\"data\":\"{data}\"}}"
            ),
            Dialogue::Centrifugo => {
                format!(r#"{{"id":{id},"publish":{{"channel":"{room}","data":"{data}"}}}}"#)
            }
        }
    }

    /// The texts in one message of the server.
    pub fn texts(self, payload: &[u8]) -> impl Iterator<Item = &[u8]> {
        let many = self == Dialogue::Centrifugo;
        let texts = payload.split(move |byte| many && *byte == b'\n');
        texts.filter(|text| !text.is_empty())
    }

    /// Parses a text.
    pub fn parse(self, text: &[u8]) -> Received<'_> {
        // The most frequent messages are checked first.
        let meaning = match self {
            Dialogue::Native => native(text),
            Dialogue::SocketIo => socket_io(text),
            Dialogue::Nchan => nchan(text),
            Dialogue::Centrifugo => centrifugo(text),
        };
        meaning.unwrap_or(Received::Unexpected(text))
    }
}

fn native(text: &[u8]) -> Option<Received<'_>> {
    let meaning = match text.get(9..12)? {
        b"mes" => Received::Message(message::number(text, br#""}"#)?),
        b"ok\"" => Received::Done,
        b"wel" => Received::Welcome,
        // Presence events of other members.
        b"joi" | b"lef" => Received::Ignored,
        _ => return None,
    };
    Some(meaning)
}

fn socket_io(text: &[u8]) -> Option<Received<'_>> {
    let meaning = match text {
        [b'4', b'2', ..] => Received::Message(message::number(text, br#""}]"#)?),
        [b'4', b'3', ..] => Received::Done,
        [b'4', b'0', ..] => Received::Welcome,
        [b'0', ..] => Received::Reply("40"),
        [b'2'] => Received::Reply("3"),
        _ => return None,
    };
    Some(meaning)
}

fn nchan(text: &[u8]) -> Option<Received<'_>> {
    if text.starts_with(br#"{"type""#) {
        return Some(Received::Message(message::number(text, br#""}"#)?));
    }
    // The reply to a publisher.
    let replies = [&b"queued messages:"[..], br#"{"messages""#];
    let done = replies.iter().any(|begin| text.starts_with(begin));
    done.then_some(Received::Done)
}

fn centrifugo(text: &[u8]) -> Option<Received<'_>> {
    if text.starts_with(br#"{"push""#) {
        // The offset comes after the data.
        let data = br#""data":""#;
        let start = text.windows(data.len()).position(|at| at == data)? + data.len();
        return Some(Received::Message(message::digits(text.get(start..)?)?));
    }
    let is = |begin: &[u8]| text.starts_with(begin);
    let meaning = match text {
        b"{}" => Received::Reply("{}"),
        _ if is(br#"{"id":1,"connect""#) => Received::Welcome,
        _ if is(br#"{"id":"#) && !text.windows(8).any(|at| at == br#""error":"#) => Received::Done,
        _ => return None,
    };
    Some(meaning)
}
