//! The second part of a broker: presence. It stores which users have connections in which rooms,
//! over all nodes, and reports changes in followed rooms. It needs nothing of the log.
//!
//! # Presence
//!
//! - **Lifetime.** The [`SetPresence`]s of a node are valid as long as its lease, which it renews
//!   while it lives.
//! - **Order and atomicity.** Each change over the whole cluster raises the room's version once,
//!   and nodes that follow the room receive it as [`BrokerEvent::Changed`], in order. A user with
//!   connections on several nodes is one member. A room is listed exactly while it has members.
//! - **After a loss.** A change whose [`Change::from`] is not the last version shows a loss; the
//!   dispatcher reads the list with [`MembersRequest`]. While the list is known to be incomplete,
//!   [`MembersRequest`] and [`ClusterRequest`] wait, up to their timeout; then they are
//!   [`Refused::Incomplete`](crate::broker::Refused::Incomplete). No other request waits for them.
//!
//! [`BrokerEvent::Changed`]: crate::broker::BrokerEvent::Changed
//! [`Change::from`]: crate::broker::Change::from

use std::time::Duration;

use crate::model::cluster_query::{ClusterQuery, Connection};
use crate::model::id::{RoomName, Ticket, UserName};
use crate::model::member::{Info, MembersQuery};
use crate::model::source::Source;

/// A request to the presence part.
#[derive(Debug)]
pub enum PresenceRequest {
    SetPresence(SetPresence),
    Connected(Connected),
    Members(MembersRequest),
    ClusterQuery(ClusterRequest),
    /// The node drains: its presence stays valid for this long and no longer.
    Retire(Duration),
}

/// Sets how many connections of a user (`None`: anonymous ones) this node has in a room; 0 removes
/// the user. It has no answer: the broker keeps it and writes it again whenever the store may have
/// lost it.
#[derive(Clone, Debug)]
pub struct SetPresence {
    pub room: RoomName,
    pub user: Option<UserName>,
    pub connections: u32,
    pub info: Option<Info>,
}

/// Adds or removes one connection of a user on this node. Like [`SetPresence`] it has no answer,
/// and is valid as long as the node's lease. It is stored in the user's personal room.
#[derive(Clone, Debug)]
pub struct Connected {
    pub user: UserName,
    pub connection: Connection,
    pub live: bool,
}

/// Reads a part of the list of a room's members.
#[derive(Clone, Debug)]
pub struct MembersRequest {
    pub ticket: Ticket,
    pub source: Source,
    pub query: MembersQuery,
}

/// A backend's query about the whole cluster, answered from the presence of all nodes.
#[derive(Clone, Debug)]
pub struct ClusterRequest {
    pub ticket: Ticket,
    pub source: Source,
    pub query: ClusterQuery,
}
