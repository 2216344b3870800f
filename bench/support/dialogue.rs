//! What clients and servers say to each other within WebSocket's messages: a node's own dialogue,
//! which the limit speaks too, and those of the peers that have one.

use super::message;

/// Which dialogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialogue {
    /// A node's.
    #[default]
    Native,
    /// Engine.io 4 and socket.io 5: a digit or two, then JSON.
    SocketIo,
    /// A room is a path, and whatever is said there is passed on as it is.
    Nchan,
    /// The JSON protocol of Centrifugo.
    Centrifugo,
}

/// What a client wants on a connection.
#[derive(Clone, Debug)]
pub enum Seat {
    /// To be welcomed, and nothing yet.
    Guest,
    /// To hear a room.
    Member(String),
    /// To speak in a room.
    Publisher(String),
}

/// What a client has heard.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    /// It may speak.
    Welcome,
    /// What it asked for is done.
    Done,
    /// A message, by its number.
    Message(u32),
    /// Something nobody waits for.
    Aside,
    /// It must say this, and has heard nothing else.
    Reply(&'static str),
    /// What it does not understand, an error probably.
    Strange(&'a [u8]),
}

impl Dialogue {
    /// Where a client connects.
    pub fn path(self, seat: &Seat) -> String {
        match (self, seat) {
            (Dialogue::Native, _) => "/ws".into(),
            (Dialogue::SocketIo, _) => "/socket.io/?EIO=4&transport=websocket".into(),
            (Dialogue::Centrifugo, _) => "/connection/websocket".into(),
            (Dialogue::Nchan, Seat::Member(room)) => format!("/sub/{room}"),
            (Dialogue::Nchan, Seat::Publisher(room)) => format!("/pub/{room}"),
            (Dialogue::Nchan, Seat::Guest) => "/".into(),
        }
    }

    /// What a client hears when the upgrade itself is done.
    pub fn upgraded(self) -> Heard<'static> {
        match self {
            Dialogue::Native | Dialogue::SocketIo => Heard::Aside,
            Dialogue::Nchan => Heard::Welcome,
            Dialogue::Centrifugo => Heard::Reply(r#"{"id":1,"connect":{}}"#),
        }
    }

    /// How a client that was welcomed joins a room; nothing, if it has by connecting.
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

    /// How a client publishes message `number`.
    pub fn publish(self, room: &str, number: u32) -> String {
        let data = message::data(number);
        let id = u64::from(number) + 3;
        match self {
            Dialogue::Native => {
                format!(r#"{{"type":"publish","id":{id},"room":"{room}","data":"{data}"}}"#)
            }
            Dialogue::SocketIo => format!(r#"42{id}["publish","{room}","{data}"]"#),
            // As long as a node's message, since members get just this.
            Dialogue::Nchan => format!(
                r#"{{"type":"message","room":"{room}","offset":{id},"time":1764000000123,"data":"{data}"}}"#
            ),
            Dialogue::Centrifugo => {
                format!(r#"{{"id":{id},"publish":{{"channel":"{room}","data":"{data}"}}}}"#)
            }
        }
    }

    /// The texts that one message of the server holds.
    pub fn texts(self, payload: &[u8]) -> impl Iterator<Item = &[u8]> {
        let many = self == Dialogue::Centrifugo;
        let texts = payload.split(move |byte| many && *byte == b'\n');
        texts.filter(|text| !text.is_empty())
    }

    /// What a text means.
    pub fn hear(self, text: &[u8]) -> Heard<'_> {
        // What comes most often is asked first.
        let meaning = match self {
            Dialogue::Native => native(text),
            Dialogue::SocketIo => socket_io(text),
            Dialogue::Nchan => nchan(text),
            Dialogue::Centrifugo => centrifugo(text),
        };
        meaning.unwrap_or(Heard::Strange(text))
    }
}

fn native(text: &[u8]) -> Option<Heard<'_>> {
    let meaning = match text.get(9..12)? {
        b"mes" => Heard::Message(message::number(text, br#""}"#)?),
        b"ok\"" => Heard::Done,
        b"wel" => Heard::Welcome,
        // Whoever shares a room with others is told that they come and go.
        b"joi" | b"lef" => Heard::Aside,
        _ => return None,
    };
    Some(meaning)
}

fn socket_io(text: &[u8]) -> Option<Heard<'_>> {
    let meaning = match text {
        [b'4', b'2', ..] => Heard::Message(message::number(text, br#""}]"#)?),
        [b'4', b'3', ..] => Heard::Done,
        [b'4', b'0', ..] => Heard::Welcome,
        [b'0', ..] => Heard::Reply("40"),
        [b'2'] => Heard::Reply("3"),
        _ => return None,
    };
    Some(meaning)
}

fn nchan(text: &[u8]) -> Option<Heard<'_>> {
    if text.starts_with(br#"{"type""#) {
        return Some(Heard::Message(message::number(text, br#""}"#)?));
    }
    // What a publisher is told of its room.
    let told = [&b"queued messages:"[..], br#"{"messages""#];
    let done = told.iter().any(|begin| text.starts_with(begin));
    done.then_some(Heard::Done)
}

fn centrifugo(text: &[u8]) -> Option<Heard<'_>> {
    if text.starts_with(br#"{"push""#) {
        // Behind the data comes the offset.
        let data = br#""data":""#;
        let start = text.windows(data.len()).position(|at| at == data)? + data.len();
        return Some(Heard::Message(message::digits(text.get(start..)?)?));
    }
    let is = |begin: &[u8]| text.starts_with(begin);
    let meaning = match text {
        b"{}" => Heard::Reply("{}"),
        _ if is(br#"{"id":1,"connect""#) => Heard::Welcome,
        _ if is(br#"{"id":"#) && !text.windows(8).any(|at| at == br#""error":"#) => Heard::Done,
        _ => return None,
    };
    Some(meaning)
}
