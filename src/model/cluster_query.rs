//! A backend's queries about the whole cluster, and their results: the counts of a room, the
//! occupied rooms, and the connections of a user. The API, the client protocols and the brokers
//! share these types.

use crate::model::id::{Position, RoomName, RoomPrefix, UserName};
use crate::model::member::Info;
use crate::model::publication::Sender;

/// The most members, rooms or connections in a page, and the default.
pub(crate) const PAGE_LIMIT: usize = 1000;
pub(crate) const PAGE_DEFAULT: usize = 100;

/// A query. Pages are in the order of names (bytes, users encoded), after `after`, which itself may
/// be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterQuery {
    /// The counts of a room, and its position.
    Room(RoomName),
    /// The rooms that have members.
    Rooms {
        kind: RoomKind,
        /// The beginning of their names.
        prefix: Option<RoomPrefix>,
        after: Option<RoomName>,
        limit: usize,
    },
    /// The connections that a user has at this moment.
    Connections {
        user: UserName,
        after: Option<Sender>,
        limit: usize,
    },
}

/// Rooms that are listed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoomKind {
    /// Rooms whose names clients choose.
    Chosen,
    /// Personal rooms of users.
    Personal,
    /// Rooms of the server.
    Server,
}

impl RoomKind {
    pub fn of(room: &RoomName) -> Self {
        Self::beginning_with(room.as_str())
    }

    /// The rooms whose names begin with this text.
    pub fn beginning_with(text: &str) -> Self {
        match text.as_bytes().first() {
            Some(b'$') => RoomKind::Server,
            Some(b'@') => RoomKind::Personal,
            _ => RoomKind::Chosen,
        }
    }
}

/// The answer to a [`ClusterQuery`].
#[derive(Clone, Debug)]
pub enum QueryResult {
    Room(RoomCount, Option<Position>),
    Rooms(RoomPage),
    Connections(ConnectionPage),
}

/// The counts of a room, over all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomCount {
    pub room: RoomName,
    /// Of users and anonymous ones.
    pub connections: u64,
    pub users: u64,
    /// Anonymous connections.
    pub anonymous: u64,
}

/// A page of rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomPage {
    pub rooms: Vec<RoomCount>,
    /// Whether there are more after these.
    pub more: bool,
}

/// A page of a user's connections.
#[derive(Clone, Debug)]
pub struct ConnectionPage {
    pub user: UserName,
    pub connections: Vec<Connection>,
    /// All of them, those on other pages included.
    pub count: u64,
    /// Whether there are more after these.
    pub more: bool,
}

/// A connection of a user.
#[derive(Clone, Debug)]
pub struct Connection {
    /// As its `welcome` names it.
    pub session: Sender,
    /// The label of its node.
    pub node: String,
    /// The public data of its client.
    pub info: Option<Info>,
}
