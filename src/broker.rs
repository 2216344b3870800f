//! The interface between a node and the other nodes: the dispatcher's requests, the broker's
//! events, and the contract of both. There are two brokers, [`memory`] and [`redis`]; one suite of
//! scenarios runs over both.
//!
//! # The contract
//!
//! ## Requests
//!
//! - **A request never blocks.** [`Broker::send`] appends it to a queue. The dispatcher bounds its
//!   unanswered requests, so the broker adds no unbounded queue of its own.
//! - **Each [`PublishRequest`], [`Read`], [`MembersRequest`], [`ClusterRequest`], [`Revoke`] and [`ReadRevocations`] is
//!   answered exactly once**, with its ticket, within [`Settings::publish_timeout`] and a second,
//!   whatever the state of Redis. [`SetPresence`] and [`Connected`] have no answer: the broker
//!   keeps the state and writes it again until the store has it.
//!
//! ## Publishing
//!
//! - **Atomicity.** A publish is atomic per room: the broker looks up the key, takes the next
//!   offset, appends to the log and publishes on the topic, or does none of it. `Ok` means that the
//!   log has the publication, [`Refused::Unknown`] that it may or may not have it, and every other
//!   refusal that it does not.
//! - **Retries.** The same [`PublishKey`] in the same room returns the first position for
//!   [`KEY_TTL`], and appends nothing.
//! - **Order.** Publishes of one [source](PublishRequest::source) are done in the order of the requests,
//!   and take turns with those of other sources. All nodes receive a room's publications in the
//!   order of their offsets; the publisher's own node receives them by the topic too, not earlier.
//!
//! ## Following a room
//!
//! - **Delivery class.** Events of a followed room are delivered at most once, in the order of
//!   their offsets. Every possible loss is reported: see the next point. Ephemeral publications
//!   have no log, so a lost one is not recovered.
//! - **After a reconnect.** After each (re)subscription the broker emits
//!   [`BrokerEvent::Following`]. Everything published after it is delivered, or another `Following`
//!   comes later. The dispatcher reads what lies between with [`Range::After`]. A full queue of the
//!   broker has the same effect: the rooms that lost messages get another `Following`.
//! - **Newer formats.** A message in a newer format is never skipped. On a topic it causes another
//!   `Following`, so that the log and the list are read. A page ends before it. A page that would
//!   begin with it, and any page of [`Range::Before`] with it, is [`Refused::Newer`]. Bytes in no
//!   known format are junk: counted, and `null` in a page.
//!
//! ## Presence
//!
//! - **Lifetime.** The [`SetPresence`]s of a node are valid as long as its lease, which it renews
//!   while it lives.
//! - **Order and atomicity.** Each change over the whole cluster raises the room's version once,
//!   and nodes that follow the room receive it as [`BrokerEvent::Changed`], in order. A user with
//!   connections on several nodes is one member. A room is listed exactly while it has members.
//! - **After a loss.** A change whose [`Change::from`] is not the last version shows a loss; the
//!   dispatcher reads the list with [`MembersRequest`]. While the list is known to be incomplete,
//!   [`MembersRequest`] and [`ClusterRequest`] wait, up to their timeout.
//!
//! ## Revocations
//!
//! - Revocations are a set, not a log: for each user the greatest [`Cutoff`] that was written.
//!   Writes are idempotent.
//! - The set is *confirmed* if every live node has written its revocations since data could last
//!   have been lost.
//!
//! ## Epochs
//!
//! - **An epoch ends when the end of its log may be lost; the entries stay.** A position needs an
//!   epoch because a log that has lost its offset 8 assigns it again: a client at the old 8 must
//!   not be answered that it missed nothing. The next epoch continues with the next offset, and the
//!   log stores where the last epochs [ended](crate::model::epochs). A publish or a read detects a
//!   new data set; only a read with a delivered position detects a log that is shorter than it was.

pub mod memory;
pub mod redis;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::cluster_query::{ClusterQuery, Connection, QueryResult};
use crate::model::id::{Epoch, Incarnation, Position, RoomName, SessionId, Ticket, UserName};
pub use crate::model::member::{Change, Info, Member, MemberPage, MembersQuery};
pub use crate::model::publication::{
    KEY_TTL, Page, Payload, Publication, Publish, PublishKey, Publisher, Range, Refused, Sender,
};
use crate::model::retention::Retention;
use crate::model::revocations::Cutoff;
use crate::model::webhook_event::WebhookSubscription;
use crate::model::wire_format::Format;

/// A request of the dispatcher.
#[derive(Debug)]
pub enum Request {
    /// Follows the room's topic until [`Request::Unfollow`]; answered by
    /// [`BrokerEvent::Following`], again after every loss.
    Follow(RoomName),
    /// The last local member has left. The broker may linger before it unsubscribes.
    Unfollow(RoomName),
    Publish(PublishRequest),
    Read(Read),
    SetPresence(SetPresence),
    Connected(Connected),
    Members(MembersRequest),
    ClusterQuery(ClusterRequest),
    Revoke(Revoke),
    ReadRevocations(ReadRevocations),
    /// The node drains: its presence stays valid for this long and no longer.
    Retire(Duration),
}

/// A publish on its way to the log and to every node.
#[derive(Debug)]
pub struct PublishRequest {
    pub ticket: Ticket,
    /// The session that publishes. Sources take turns, so that no session waits for all publishes
    /// of another.
    pub source: Option<SessionId>,
    /// Answered with offset 0 if it is ephemeral.
    pub publish: Publish,
}

/// Reads a part of a room's log.
#[derive(Clone, Debug)]
pub struct Read {
    pub ticket: Ticket,
    pub room: RoomName,
    pub range: Range,
    /// The most messages in the page; 0 reads the position alone.
    pub limit: usize,
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

/// A backend's query about the whole cluster, answered from the presence of all nodes.
#[derive(Clone, Debug)]
pub struct ClusterRequest {
    pub ticket: Ticket,
    pub query: ClusterQuery,
}

/// Reads a part of the list of a room's members.
#[derive(Clone, Debug)]
pub struct MembersRequest {
    pub ticket: Ticket,
    pub query: MembersQuery,
}

/// How long revocations are kept in the set.
#[derive(Clone, Copy, Debug)]
pub struct RevocationRetention {
    /// The time of the node's clock, in milliseconds since 1970.
    pub now: u64,
    /// How many milliseconds a cutoff is kept after its last time of issue. It is removed when that
    /// is over by the clocks of the node and of Redis: one clock that is ahead removes nothing.
    pub lifetime: u64,
}

/// Writes revocations into the set. A cutoff that is less than the stored one changes nothing, so a
/// retry is safe.
#[derive(Clone, Debug)]
pub struct Revoke {
    pub ticket: Ticket,
    pub cutoffs: Vec<(UserName, Cutoff)>,
    /// With these cutoffs the node has written all its revocations.
    pub confirm: Option<Confirm>,
    pub retention: RevocationRetention,
}

/// Records that a node has written all its revocations.
#[derive(Clone, Debug)]
pub struct Confirm {
    /// The data set that has them; in another one it confirms nothing.
    pub data_set: Arc<str>,
    /// The set becomes confirmed even if other nodes have not confirmed.
    pub force: bool,
}

/// Reads the set of revocations.
#[derive(Clone, Debug)]
pub struct ReadRevocations {
    pub ticket: Ticket,
    /// This node has just started: it has no revocations that others could wait for.
    pub is_starting: bool,
    pub retention: RevocationRetention,
}

/// The whole set of revocations.
#[derive(Clone, Debug)]
pub struct StoredRevocations {
    pub cutoffs: Vec<(UserName, Cutoff)>,
    /// Names the data set; it changes when data may have been lost.
    pub data_set: Arc<str>,
    pub is_confirmed: bool,
    /// How many other live nodes have not confirmed yet.
    pub awaited: u64,
}

/// An event that a broker sends to the dispatcher.
#[derive(Debug)]
pub enum BrokerEvent {
    /// The topic of the room is subscribed from here on; see the contract above.
    Following(RoomName),
    /// A message of a followed room.
    Message {
        room: RoomName,
        epoch: Epoch,
        offset: u64,
        publication: Arc<Publication>,
        /// When the broker received it.
        received_at: Instant,
    },
    /// An ephemeral publication in a followed room.
    Ephemeral {
        room: RoomName,
        publication: Arc<Publication>,
        received_at: Instant,
    },
    /// The answer to a [`PublishRequest`]: the position of the publication.
    Published {
        ticket: Ticket,
        result: Result<Position, Refused>,
    },
    /// The answer to a [`Read`].
    Page {
        ticket: Ticket,
        result: Result<Page, Refused>,
    },
    /// A user has more or fewer connections in a followed room; in order with the messages of the
    /// room.
    Changed { room: RoomName, change: Change },
    /// The answer to a [`MembersRequest`].
    MemberPage {
        ticket: Ticket,
        result: Result<MemberPage, Refused>,
    },
    /// The answer to a [`ClusterRequest`].
    QueryResult {
        ticket: Ticket,
        result: Result<QueryResult, Refused>,
    },
    /// The answer to a [`Revoke`]: the users for whom the set had no cutoff, or a lesser one.
    Revoked {
        ticket: Ticket,
        result: Result<Vec<UserName>, Refused>,
    },
    /// The answer to a [`ReadRevocations`].
    Revocations {
        ticket: Ticket,
        result: Result<StoredRevocations, Refused>,
    },
    /// Redis may have lost data.
    DataSetChanged,
}

/// The settings of a broker.
#[derive(Clone, Debug)]
pub struct Settings {
    pub incarnation: Incarnation,
    /// How much is kept of each room.
    pub retention: Retention,
    /// The timeout of an answered request.
    pub publish_timeout: Duration,
    /// How long a topic stays subscribed after the last local member left.
    pub topic_linger: Duration,
    /// The newest format that this node reads and writes. It reads all earlier ones too.
    pub newest_format: Format,
    /// The most rooms whose logs or positions the memory broker keeps.
    pub max_rooms: usize,
    /// The most bytes that all logs of the memory broker take together.
    pub history_memory: usize,
    /// The events that are kept for webhooks; `None`: there are no webhooks.
    pub webhooks: Option<WebhookSubscription>,
}

/// How long a room's epoch and offset outlive its last use.
pub const META_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// The dispatcher's end of the queue to a broker.
#[derive(Clone, Debug)]
pub struct Broker(flume::Sender<Request>);

impl Broker {
    pub fn new(requests: flume::Sender<Request>) -> Self {
        Self(requests)
    }

    /// Sends a request without waiting. `false`: the broker has ended, and with it the node.
    pub fn send(&self, request: Request) -> bool {
        self.0.send(request).is_ok()
    }
}
