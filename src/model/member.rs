//! The members of a room, over all nodes: the types of presence that the dispatcher, the client
//! protocols and the brokers share.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::model::id::{RoomName, UserName};

/// The longest `info`, in bytes of JSON.
pub(crate) const INFO_BYTES: usize = 512;

/// The public data of a user (a name, an avatar): a JSON object of at most [`INFO_BYTES`].
pub type Info = Arc<RawValue>;

/// A user in a room.
#[derive(Clone, Debug)]
pub struct Member {
    pub user: UserName,
    /// The user's connections in the room, over all nodes; 1 or more.
    pub connections: u32,
    pub info: Option<Info>,
}

/// The user and the info of a membership, in protocols in which they belong to the room and not to
/// the connection.
#[derive(Clone, Debug)]
pub struct MemberIdentity {
    pub user: UserName,
    pub info: Option<Info>,
}

/// A part of the list of a room's members, at one version.
#[derive(Clone, Debug, Default)]
pub struct MemberPage {
    /// Raised with every change. It compares only with others of the same room: equal versions are
    /// equal lists.
    pub version: u64,
    /// In the order of names.
    pub members: Vec<Member>,
    /// All users in the room, those on other pages included.
    pub count: u64,
    /// Anonymous sessions in the room.
    pub anonymous: u64,
    /// Whether there are more members after these.
    pub more: bool,
}

/// A request for a part of the list of a room's members.
#[derive(Clone, Debug)]
pub struct MembersQuery {
    pub room: RoomName,
    /// The members after this name; `None`: from the first.
    pub after: Option<UserName>,
    /// The most members in the page; 0: only the version and the counts.
    pub limit: usize,
}

/// One change of a room's list.
#[derive(Clone, Debug)]
pub struct Change {
    /// The version that it changes, and the new one. A reader at another version than `from` has
    /// missed a change.
    pub from: u64,
    pub version: u64,
    pub user: UserName,
    /// The user's connections before, over all nodes; 0: the user was not in the room.
    pub was: u32,
    /// The user's connections now, over all nodes; 0: the user has left.
    pub connections: u32,
    pub info: Option<Info>,
}
