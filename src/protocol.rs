//! The types that all client protocols share: commands, replies and pushes, and the error codes;
//! and the table of protocols. A [`Protocol`] is a [`Decoder`](decoder::Decoder) per connection and
//! an [`Encoder`] for all. The dispatcher uses these types and names no protocol.

pub mod decoder;
pub mod depth;
pub mod disconnect;
pub mod encoder;
pub mod frame;
pub mod json;
pub mod native;
mod request_id;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::model::cluster_query::{ClusterQuery, QueryResult};
use crate::model::control::ControlCommand;
use crate::model::id::{NameError, Position, RoomName, UserName};
use crate::model::identity::Credentials;
use crate::model::member::{Info, MemberIdentity, MemberPage, MembersQuery};
use crate::model::publication::{HistoryQuery, Publication, Publish, Refused};
use crate::model::rights::Denied;
use encoder::Encoder;
use native::NativeEncoder;
use serde::Serialize;

pub use request_id::RequestId;

/// The largest and the default `limit` of a `history` command.
pub(crate) const HISTORY_LIMIT: usize = 100;
pub(crate) const HISTORY_DEFAULT: usize = 50;

/// A request of a client. The reader verifies credentials; the dispatcher receives the resulting
/// identity, and commands unchanged.
#[derive(Debug)]
pub enum ClientRequest {
    /// Signs in.
    Auth(Credentials),
    Command(Command),
}

impl ClientRequest {
    /// The cost against the rate of the session, in commands. Verifying a signature costs more than
    /// a message, and signing in joins a room.
    pub fn cost(&self) -> u32 {
        match self {
            ClientRequest::Auth(_) => 4,
            ClientRequest::Command(command) => command.cost(),
        }
    }
}

/// The entries of a page that count as one more command: encoding them takes as long as a command.
const PAGE_PER_COMMAND: usize = 16;

/// The cost of the entries that a client is sent in one page, in commands. It is charged when they
/// are sent, in addition to the cost of the request: what a page holds is not known before.
pub(crate) fn cost_of_entries(entries: usize) -> u32 {
    u32::try_from(entries / PAGE_PER_COMMAND).unwrap_or(u32::MAX)
}

/// A request to the dispatcher: a client's command, a backend's API call, or a call of the
/// embedding program.
#[derive(Debug)]
pub enum Command {
    /// Join a room, and recover from a position, if there is one.
    Join {
        room: RoomName,
        since: Option<Position>,
        /// Under which the session counts as present in this room; `None`: under its own.
        identity: Option<Box<MemberIdentity>>,
    },
    Leave {
        room: RoomName,
    },
    /// Boxed, as the other large ones: most commands are smaller, and each event has space for one.
    Publish(Box<Publish>),
    History(HistoryQuery),
    Members(MembersQuery),
    Ping,
    /// A query that all nodes of the cluster answer. Backends and the embedding program send it.
    ClusterQuery(Box<ClusterQuery>),
    /// An action on a user's sessions, on every node. Backends and the embedding program send it.
    Control(Box<ControlCommand>),
}

impl Command {
    /// The cost against the rate of the session, in commands. A join may make the node
    /// subscribe, read a log and unsubscribe again, all in Redis; a page is read and encoded for
    /// one client alone, and its reply has a [cost](Reply::cost) of its own.
    pub fn cost(&self) -> u32 {
        match self {
            Command::Join { .. } | Command::History(_) | Command::Members(_) => 4,
            _ => 1,
        }
    }

    /// The room that a client's command makes the broker look up.
    pub(crate) fn room(&self) -> Option<&RoomName> {
        match self {
            Command::Join { room, .. } => Some(room),
            Command::Publish(publish) => Some(&publish.room),
            Command::History(query) => Some(&query.room),
            Command::Members(query) => Some(&query.room),
            _ => None,
        }
    }
}

/// The answer to one command.
#[derive(Debug)]
pub enum Reply<'a> {
    Authenticated(Authenticated<'a>),
    Joined(Joined<'a>),
    Left {
        room: &'a RoomName,
    },
    /// The position of the publication; `None` for an ephemeral one.
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
    /// The control command for the user is published to every node.
    CommandAccepted {
        user: &'a UserName,
        room: Option<&'a RoomName>,
    },
    Members {
        room: &'a RoomName,
        page: &'a MemberPage,
    },
    QueryResult(&'a QueryResult),
    Pong,
    Error(&'a CommandError),
}

impl Reply<'_> {
    /// The cost against the rate of the session that receives it, in commands: that of the entries
    /// of a page.
    pub fn cost(&self) -> u32 {
        match self {
            Reply::History { messages, .. } => cost_of_entries(messages.len()),
            Reply::Members { page, .. } => cost_of_entries(page.members.len()),
            _ => 0,
        }
    }
}

/// The identity of a session. Sent again, without a request, when the session's position in its
/// user's room became known late; and sent without a request to a client that signed in with a
/// token in the handshake.
#[derive(Debug)]
pub struct Authenticated<'a> {
    pub user: &'a UserName,
    /// The user's personal room, which the session is in.
    pub room: &'a RoomName,
    /// The session's position in that room, if it is known and new.
    pub position: Option<Position>,
    /// How long until another token is needed.
    pub expires: Option<Duration>,
}

/// The result of a join: the next message that the session receives is `position.offset + 1`.
#[derive(Debug)]
pub struct Joined<'a> {
    pub room: &'a RoomName,
    pub position: Position,
    /// The newest offset, when the session is behind it.
    pub top: u64,
    /// Whether everything after `since` follows; `None` when the client named no position.
    pub recovered: Option<bool>,
}

/// The limits that concern one client. It receives them first, so that it can reject what the
/// server would refuse, or would end the connection for, before it sends it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClientLimits {
    /// Bytes of a message, which is the whole text of one command.
    pub message: usize,
    /// Bytes of a room's name.
    pub room: usize,
    /// Bytes of a user's name.
    pub user: usize,
    /// Bytes of the key of a publish.
    pub key: usize,
    /// Bytes of a token.
    pub token: usize,
    /// Bytes of the `info` in `auth`.
    pub info: usize,
    /// Rooms of a session, beside the personal one.
    pub rooms: usize,
    /// Commands of a session per second; 0 for no limit.
    pub rate: usize,
}

/// A push to a client, other than a message.
#[derive(Debug)]
pub enum Push<'a> {
    /// The first push of a connection.
    Welcome {
        session: &'a str,
        node: &'a str,
        user: Option<&'a UserName>,
        heartbeat: Duration,
        limits: ClientLimits,
    },
    /// Messages of the room are lost to this session, which continues at `position`.
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
    /// The members of the room have changed in ways that are not sent one by one: a client that
    /// needs them sends `members` again.
    Members { room: &'a RoomName, version: u64 },
    /// The server has removed the session from the room.
    Removed {
        room: &'a RoomName,
        why: Removal,
        reason: &'a str,
    },
    /// The node is about to close the connection; reconnect after `retry`, to another node.
    Bye { reason: &'a str, retry: Duration },
}

/// Why the server removes a session from a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A backend asked for it: the client does not join again by itself.
    Operator,
    /// A newer token does not let the session join; another token may.
    Rights,
}

impl Removal {
    pub fn as_str(self) -> &'static str {
        match self {
            Removal::Operator => "removed",
            Removal::Rights => "forbidden",
        }
    }
}

/// A publication as a session receives it.
#[derive(Debug)]
pub struct Message<'a> {
    pub room: &'a RoomName,
    /// `None` for an ephemeral publication.
    pub offset: Option<u64>,
    pub publication: &'a Publication,
}

/// The stable codes of command errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The command is invalid; sending it again is useless.
    BadRequest,
    /// The client could not be authenticated.
    Unauthorized,
    /// The same, because the token has expired: get a new one.
    Expired,
    /// The client has no right to do this.
    Forbidden,
    /// A documented limit is reached.
    Limit,
    /// The room cannot be reached now and nothing has happened; try again.
    Unavailable,
    /// No answer in time: the command may have taken effect or not. Retry with the same key.
    Unknown,
    /// The publish had a condition that does not hold; nothing has happened.
    Conflict,
    /// The key of the publish was used for other data; nothing has happened.
    KeyReused,
    /// The store is full and nothing has happened.
    Full,
}

impl Code {
    pub const ALL: [Code; 10] = [
        Code::BadRequest,
        Code::Unauthorized,
        Code::Expired,
        Code::Forbidden,
        Code::Limit,
        Code::Unavailable,
        Code::Unknown,
        Code::Conflict,
        Code::KeyReused,
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
            Code::Conflict => "conflict",
            Code::KeyReused => "key_reused",
            Code::Full => "full",
        }
    }
}

/// A command that was refused: a code for programs and a sentence for people. The session goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", code.as_str())]
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
            Refused::Unavailable | Refused::Incomplete | Refused::Newer => Code::Unavailable,
            Refused::Unknown => Code::Unknown,
            Refused::Conflict => Code::Conflict,
            Refused::KeyReused => Code::KeyReused,
            Refused::Full => Code::Full,
        };
        Self::new(code, refused.to_string())
    }
}

/// The client protocols. A new one is a module here, a row in each table below, and a path and a
/// new decoder in `transport/routes.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Native,
}

impl Protocol {
    /// The number of protocols; [`index`](Self::index) is below it.
    pub const COUNT: usize = 1;
    pub const ALL: [Protocol; Self::COUNT] = [Protocol::Native];

    pub fn index(self) -> usize {
        self as usize
    }

    /// The encoder that all sessions of this protocol share.
    pub fn encoder(self) -> &'static dyn Encoder {
        match self {
            Protocol::Native => &NativeEncoder,
        }
    }
}
