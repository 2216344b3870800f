//! What a backend may ask of the whole cluster at once, and how it is answered: how many are in a
//! room, which rooms there are, and which connections a user has. The words that the API, the
//! client's protocols and the brokers share.

use crate::model::id::{Position, RoomName, UserName};
use crate::model::member::Info;
use crate::model::publication::Sender;

/// How many members, rooms or connections one page may have, and how many it has when nothing is
/// said.
pub const PAGE_LIMIT: usize = 1000;
pub const PAGE_DEFAULT: usize = 100;

/// What is asked. Pages go by the order of names (bytes), behind `after`, which itself need not be
/// there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterQuery {
    /// How many are in a room, and where it stands.
    Room(RoomName),
    /// The rooms in which somebody is.
    Rooms {
        kind: Kind,
        /// What their names begin with.
        prefix: Option<RoomName>,
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
pub enum Kind {
    /// Those that clients choose.
    Chosen,
    /// Those that users have by their names.
    Personal,
    /// Those of the server, which nobody asks for.
    Server,
}

impl Kind {
    pub fn of(room: &RoomName) -> Self {
        match (room.is_the_servers(), room.owner()) {
            (true, _) => Kind::Server,
            (false, Some(_)) => Kind::Personal,
            (false, None) => Kind::Chosen,
        }
    }
}

/// The answer to a [`ClusterQuery`].
#[derive(Clone, Debug)]
pub enum QueryResult {
    Room(Count, Option<Position>),
    Rooms(Rooms),
    Connections(Connections),
}

/// How many are in a room, over all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    pub room: RoomName,
    /// Of users and without a name.
    pub connections: u64,
    pub users: u64,
    /// Connections without a name.
    pub anonymous: u64,
}

/// A page of rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rooms {
    pub rooms: Vec<Count>,
    /// Whether there are more behind these.
    pub more: bool,
}

/// A page of a user's connections.
#[derive(Clone, Debug)]
pub struct Connections {
    pub user: UserName,
    pub connections: Vec<Connection>,
    /// All of them, those on other pages included.
    pub count: u64,
    /// Whether there are more behind these.
    pub more: bool,
}

/// A connection of a user.
#[derive(Clone, Debug)]
pub struct Connection {
    /// As its `welcome` names it.
    pub session: Sender,
    /// The label of its node.
    pub node: String,
    /// What its client shows of itself.
    pub info: Option<Info>,
}
