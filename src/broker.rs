//! The interface between a node and the other nodes: the dispatcher's requests, the broker's
//! events, and the contract of both. It has two parts, [`logs`] (with publish/subscribe) and
//! [`presence`], which can be provided separately: neither uses the other, and each file has the
//! contract of its part. There are two brokers, [`memory`] and [`redis`]; one suite of scenarios
//! runs over both.
//!
//! # Requests
//!
//! - **A request never blocks.** [`Broker::send`] appends it to a queue. The dispatcher bounds its
//!   unanswered requests, so the broker adds no unbounded queue of its own.
//! - **Each [`PublishRequest`], [`Read`], [`MembersRequest`], [`ClusterRequest`], [`Revoke`] and
//!   [`ReadRevocations`] is answered exactly once**, with its ticket, within
//!   [`Settings::publish_timeout`] and a second, whatever the state of Redis. [`SetPresence`] and
//!   [`Connected`] have no answer: the broker keeps the state and writes it again until the store
//!   has it.
//! - **Each answered request has a [`Source`], and sources take turns**: the node itself, all
//!   sessions together and all callers together have equal shares of the broker, and so have the
//!   sessions, and the callers, among themselves. A share is measured by what requests ask for.
//!   Requests of one source are sent in their order.

pub mod logs;
pub mod memory;
pub mod presence;
pub mod redis;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use logs::{
    Confirm, LogRequest, PublishRequest, Read, ReadRevocations, RevocationRetention, Revoke,
    StoredRevocations,
};
pub use presence::{ClusterRequest, Connected, MembersRequest, PresenceRequest, SetPresence};

use crate::model::cluster_query::QueryResult;
use crate::model::id::{Epoch, Incarnation, Position, RoomName, Ticket, UserName};
pub use crate::model::member::{Change, Info, Member, MemberPage, MembersQuery};
pub(crate) use crate::model::publication::KEY_TTL;
pub use crate::model::publication::{
    Page, Payload, Publication, Publish, PublishKey, Publisher, Range, Refused, Sender,
};
use crate::model::retention::Retention;
pub use crate::model::source::Source;
use crate::model::webhook_event::WebhookSubscription;
use crate::model::wire_format::Format;

/// A request of the dispatcher, to one part of the broker.
#[derive(Debug)]
pub enum Request {
    Log(LogRequest),
    Presence(PresenceRequest),
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
