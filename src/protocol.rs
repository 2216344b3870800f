//! What clients say and hear, whatever protocol they speak: commands, replies and pushes, and the
//! codes of errors. A [`Protocol`] is a codec between these and WebSocket frames; the dispatcher
//! knows the words here and no codec.

pub mod depth;
pub mod disconnect;
pub mod frame;
pub mod native;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use crate::model::id::{NameError, Position, RoomName, UserName};
use crate::model::identity::Credentials;
use crate::model::member::{Info, MemberPage};
use crate::model::publication::{Publication, Refused};
use crate::model::rights::Denied;

/// The client's number for a command, echoed in its reply: 0 to 2⁵³ − 1, so that every JSON reader
/// keeps it whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u64);

/// How many messages one `history` may ask for, and what it gets when it does not say.
pub const HISTORY_LIMIT: usize = 100;
pub const HISTORY_DEFAULT: usize = 50;

/// What a client asks. Who it is, is settled before the dispatcher hears of it; it hears all else
/// as it is.
#[derive(Debug)]
pub enum Asked {
    /// Says who one is.
    Auth(Credentials),
    Command(Command),
}

impl Asked {
    /// How many commands it counts as against the rate of its session. A signature costs more than
    /// a message, and signing in joins a room.
    pub fn cost(&self) -> u32 {
        match self {
            Asked::Auth(_) => 4,
            Asked::Command(command) => command.cost(),
        }
    }
}

/// What a page has for each command that it counts as besides: to write one down takes as long as a
/// command.
const PAGE_PER_COMMAND: usize = 16;

/// What a client asks of the dispatcher.
#[derive(Debug)]
pub enum Command {
    /// Join a room, from a position one already had, if any.
    Join {
        room: RoomName,
        since: Option<Position>,
    },
    Leave {
        room: RoomName,
    },
    Publish(Publish),
    /// The newest messages below `before` (none: the newest of all).
    History {
        room: RoomName,
        before: Option<u64>,
        limit: usize,
    },
    /// Who is in the room, by name, behind `after` (none: from the first).
    Members {
        room: RoomName,
        after: Option<UserName>,
        limit: usize,
    },
    Ping,
}

impl Command {
    /// How many commands it counts as against the rate of its session. A join may make the node
    /// subscribe, read a log and unsubscribe again, all in Redis; a page of history is read and
    /// encoded for one client alone.
    pub fn cost(&self) -> u32 {
        match self {
            Command::Join { .. } => 4,
            Command::History { limit, .. } | Command::Members { limit, .. } => {
                4 + u32::try_from(limit / PAGE_PER_COMMAND).unwrap_or(u32::MAX - 4)
            }
            _ => 1,
        }
    }
}

/// Something to be said in a room.
#[derive(Debug)]
pub struct Publish {
    pub room: RoomName,
    /// Makes a retry harmless; 1 to 64 bytes.
    pub key: Option<Arc<str>>,
    pub data: Box<RawValue>,
    /// Not kept in the log: no offset, at most once.
    pub ephemeral: bool,
    /// The sender's own session does not want the data back.
    pub others: bool,
}

/// The answer to one command.
#[derive(Debug)]
pub enum Reply<'a> {
    Authenticated(Authenticated<'a>),
    Joined(Joined<'a>),
    Left {
        room: &'a RoomName,
    },
    /// Where the publication stands; `None` for an ephemeral one.
    Published {
        room: &'a RoomName,
        position: Option<Position>,
    },
    History {
        room: &'a RoomName,
        position: Position,
        messages: &'a [(u64, Arc<Publication>)],
        more: bool,
    },
    /// Every node will hear what is to be done with the user.
    Ordered {
        user: &'a UserName,
        room: Option<&'a RoomName>,
    },
    Members {
        room: &'a RoomName,
        roll: &'a MemberPage,
    },
    Pong,
    Error(&'a CommandError),
}

/// Who a session now is. Said again, without being asked, when it took long to learn where the
/// session stands in its user's room; and said first in that way to who showed a token in the
/// handshake.
#[derive(Debug)]
pub struct Authenticated<'a> {
    pub user: &'a UserName,
    /// The user's personal room, which the session is in.
    pub room: &'a RoomName,
    /// Where it stands there, if that is known and new.
    pub position: Option<Position>,
    /// How long until another token is needed.
    pub expires: Option<Duration>,
}

/// Where a session stands after its join: the next message it gets is `position.offset + 1`.
#[derive(Debug)]
pub struct Joined<'a> {
    pub room: &'a RoomName,
    pub position: Position,
    /// The newest offset, when the session is behind it.
    pub top: u64,
    /// Whether everything after `since` follows; `None` when the client named no position.
    pub recovered: Option<bool>,
}

/// What a client hears unasked, besides messages.
#[derive(Debug)]
pub enum Push<'a> {
    /// The first thing said on a connection.
    Welcome {
        session: &'a str,
        node: &'a str,
        user: Option<&'a UserName>,
        heartbeat: Duration,
    },
    /// Messages of the room are lost to this session; it now stands here.
    Gap {
        room: &'a RoomName,
        position: Position,
    },
    /// A user's first connection in the room, over all nodes.
    Joined {
        room: &'a RoomName,
        user: &'a UserName,
        info: Option<&'a Info>,
        version: u64,
    },
    /// After a user's last connection in the room.
    Left {
        room: &'a RoomName,
        user: &'a UserName,
        version: u64,
    },
    /// Who is in the room has changed in ways that cannot be told one by one: whoever wants to know
    /// asks anew.
    Members { room: &'a RoomName, version: u64 },
    /// The session is no longer in the room, though it did not ask to leave.
    Removed { room: &'a RoomName, reason: &'a str },
    /// The node ends the connection in a moment; come back after `retry`, to another one.
    Bye { reason: &'a str, retry: Duration },
}

/// What a session sees of a publication.
#[derive(Debug)]
pub struct Message<'a> {
    pub room: &'a RoomName,
    /// `None` for an ephemeral publication.
    pub offset: Option<u64>,
    pub publication: &'a Publication,
}

/// The stable names of what can go wrong with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The command is not understood; sending it again is useless.
    BadRequest,
    /// Who one is could not be established.
    Unauthorized,
    /// The same, because the token has expired: get a new one.
    Expired,
    /// One may not do this.
    Forbidden,
    /// A documented limit is reached.
    Limit,
    /// The room cannot be reached now and nothing has happened; try again.
    Unavailable,
    /// No answer in time: it happened or it did not. Retry with the same key.
    Unknown,
    /// The store is full and nothing has happened.
    Full,
}

impl Code {
    pub const ALL: [Code; 8] = [
        Code::BadRequest,
        Code::Unauthorized,
        Code::Expired,
        Code::Forbidden,
        Code::Limit,
        Code::Unavailable,
        Code::Unknown,
        Code::Full,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::Unauthorized => "unauthorized",
            Code::Expired => "expired",
            Code::Forbidden => "forbidden",
            Code::Limit => "limit",
            Code::Unavailable => "unavailable",
            Code::Unknown => "unknown",
            Code::Full => "full",
        }
    }
}

/// A command that was refused: a code for programs and a sentence for people. The session goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    pub code: Code,
    pub reason: Cow<'static, str>,
}

impl CommandError {
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }
}

impl From<NameError> for CommandError {
    fn from(error: NameError) -> Self {
        Self::new(Code::BadRequest, error.to_string())
    }
}

impl From<Denied> for CommandError {
    fn from(denied: Denied) -> Self {
        Self::new(Code::Forbidden, denied.to_string())
    }
}

impl From<Refused> for CommandError {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::Unavailable | Refused::Newer => Code::Unavailable,
            Refused::Unknown => Code::Unknown,
            Refused::Full => Code::Full,
        };
        Self::new(code, refused.to_string())
    }
}

/// What a frame turned out to hold. One frame may hold several commands in some protocols.
#[derive(Debug)]
pub struct Incoming {
    pub id: Option<RequestId>,
    pub asked: Result<Asked, CommandError>,
}

/// The protocols that clients speak, one codec each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Native,
}

impl Protocol {
    /// How many there are; [`index`](Self::index) is below.
    pub const COUNT: usize = 1;
    pub const ALL: [Protocol; Self::COUNT] = [Protocol::Native];

    pub fn index(self) -> usize {
        self as usize
    }

    /// Reads a text frame's payload; what it holds is put behind `incoming`. What is nested more
    /// than `depth` deep is not understood.
    pub fn decode(self, text: &str, depth: usize, incoming: &mut Vec<Incoming>) {
        match self {
            Protocol::Native if depth::is_deeper(text, depth) => {
                incoming.push(native::too_deep(text, depth));
            }
            Protocol::Native => incoming.push(native::decode(text)),
        }
    }

    /// The reply as one whole frame.
    pub fn reply(self, id: Option<RequestId>, reply: &Reply<'_>) -> Bytes {
        match self {
            Protocol::Native => native::reply(id, reply),
        }
    }

    /// The push as one whole frame.
    pub fn push(self, push: &Push<'_>) -> Bytes {
        match self {
            Protocol::Native => native::push(push),
        }
    }

    /// Appends the message as one frame. This is the hot path: it is called once for all members
    /// that speak the protocol.
    pub fn message(self, message: &Message<'_>, frames: &mut BytesMut) {
        match self {
            Protocol::Native => native::message(message, frames),
        }
    }

    /// Appends what the sender sees of a message it did not want back: its place, without the data.
    pub fn own_message(self, room: &RoomName, offset: Option<u64>, frames: &mut BytesMut) {
        match self {
            Protocol::Native => native::own_message(room, offset, frames),
        }
    }
}
