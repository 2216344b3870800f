//! The seam between a node and the others: what the dispatcher asks of a broker, what it is told,
//! and what a broker promises. Two brokers stand behind it, [`memory`] and [`redis`]; one suite of
//! scenarios runs over both.
//!
//! # What every broker promises
//!
//! - **Asking never waits.** [`Broker::ask`] puts the request into a queue. The dispatcher bounds
//!   what it has asked and not yet been answered; the broker adds no queue without a bound of its
//!   own.
//! - **Every [`Publish`] and every [`Read`] is answered exactly once**, with its ticket, within
//!   [`Settings::publish_timeout`] and a second, whatever happens to Redis.
//! - **Publishing is atomic per room**: key looked up, next offset taken, appended to the log, and
//!   sent to the topic, or nothing of it. `Ok` means that the broker has it; [`Refused::Unknown`]
//!   that it may or may not have happened; every other refusal, that it did not.
//! - **Publishes of one [source](Publish::source) are done in the order they were asked**, and in
//!   turn with those of others.
//! - **The publisher's node is not served first**: it hears its own publication by the topic like
//!   every other node, so that all see one order.
//! - **Following is at most once, and says so.** Messages of a followed room come in the order of
//!   their offsets, but a subscription can break. After each (re)subscription the broker says
//!   [`BrokerEvent::Following`]: whatever is published from then on is delivered, or another
//!   `Following` comes later. What lies between is read by the dispatcher with [`Range::After`]. A
//!   broker whose queue overflowed lets the rooms go through the same door: it says `Following`
//!   again.
//! - **No message in a newer format is skipped.** On a topic it leads to another `Following`, so
//!   that the log and the list are read. A page ends before it; a page that would begin with it,
//!   and any page of [`Range::Before`] with it, is [`Refused::Newer`]. Bytes that are no format at
//!   all are junk: counted, and `null` in a page.
//! - **Presence is what the nodes say, while they live.** A node's [`SetPresence`]s stand as long
//!   as its lease; each change over the whole cluster raises the room's version, once, and is told
//!   to whoever follows the room as [`BrokerEvent::Changed`], in order. A user who is in a room
//!   through several nodes is one member. What was missed shows in [`Change::from`], and is asked
//!   with [`Members`]. [`Members`] too is answered exactly once, and not while the list is known to
//!   be only a part; likewise [`Census`]. A room is among those that are listed exactly as long as
//!   somebody is in it.
//! - **Revocations are a set, not a log**: for each user the greatest [`Cutoff`] that was written.
//!   Beside it stands whether the set is *confirmed*: whether every node that lives has written
//!   what it knows since the data could last have been lost. Each [`Revoke`] and each
//!   [`ReadRevocations`] is answered exactly once.
//! - **An epoch ends when the end of its log may be lost; what was kept stays.** Why an offset
//!   needs an epoch: a log that lost its offset 8 gives it away anew, and a member that stands at
//!   the old 8 must not be answered that nothing was missed. The next epoch goes on with the next
//!   offset, and the log remembers where the last ones [ended](crate::model::epochs). A publish and
//!   a read find another data set; only a read with a delivered position finds a log that is
//!   shorter than it was.

pub mod memory;
pub mod redis;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::cluster_query::{ClusterQuery, Connection, QueryResult};
use crate::model::id::{Epoch, Incarnation, Position, RoomName, SessionId, Ticket, UserName};
pub use crate::model::member::{Change, Info, Member, MemberPage};
pub use crate::model::publication::{
    KEY_TTL, Page, Publication, PublishKey, Publisher, Range, Refused, Sender,
};
use crate::model::retention::Retention;
use crate::model::revocations::Cutoff;
use crate::model::webhook_event::Wanted;
use crate::model::wire_format::Format;

/// What the dispatcher asks.
#[derive(Debug)]
pub enum Request {
    /// Follow the room's topic until [`Request::Unfollow`]; answered by [`BrokerEvent::Following`],
    /// again after every loss.
    Follow(RoomName),
    /// The last local member has left. The broker may linger before it unsubscribes.
    Unfollow(RoomName),
    Publish(Publish),
    Read(Read),
    SetPresence(SetPresence),
    Connected(Connected),
    Members(Members),
    Census(Census),
    Revoke(Revoke),
    ReadRevocations(ReadRevocations),
    /// The node drains: what it has announced as here stands for this long and no longer, unless
    /// other nodes announce it too.
    Retire(Duration),
}

/// A publication on its way to the log and to every node.
#[derive(Debug)]
pub struct Publish {
    pub ticket: Ticket,
    /// Whose it is, for a fair share of the broker's time: of two sessions neither waits for all
    /// that the other has to say.
    pub source: Option<SessionId>,
    pub room: RoomName,
    /// Makes a retry harmless: the same key of the same publisher in the same room answers the
    /// first position for 5 minutes.
    pub key: Option<PublishKey>,
    /// Skips the log: no offset, at most once, answered with offset 0.
    pub ephemeral: bool,
    pub publication: Arc<Publication>,
}

/// A question about a room's log.
#[derive(Clone, Debug)]
pub struct Read {
    pub ticket: Ticket,
    pub room: RoomName,
    pub range: Range,
    /// At most so many messages come in the page; 0 asks for the position alone.
    pub limit: usize,
}

/// How many connections of a user (`None`: anonymous ones) this node has in a room, from now on; 0:
/// none any more. It is not answered: the broker remembers it and announces it again whenever the
/// others may have lost it.
#[derive(Clone, Debug)]
pub struct SetPresence {
    pub room: RoomName,
    pub user: Option<UserName>,
    pub connections: u32,
    pub info: Option<Info>,
}

/// One of a user's connections on this node is there from now on, or no more. Like [`SetPresence`]
/// it is not answered, and stands as long as the node's lease. The user's personal room is where it
/// is kept.
#[derive(Clone, Debug)]
pub struct Connected {
    pub user: UserName,
    pub connection: Connection,
    pub live: bool,
}

/// A backend's question about the whole cluster, answered from what all nodes have said.
#[derive(Clone, Debug)]
pub struct Census {
    pub ticket: Ticket,
    pub question: ClusterQuery,
}

/// A question for a part of the list of a room's members.
#[derive(Clone, Debug)]
pub struct Members {
    pub ticket: Ticket,
    pub room: RoomName,
    /// The members behind this name; `None`: from the first.
    pub after: Option<UserName>,
    /// At most so many; 0: only the version and the counts.
    pub limit: usize,
}

/// How long revocations are kept in the set.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// The time of the node's clock, in milliseconds since 1970.
    pub now: u64,
    /// A cutoff is kept for so many milliseconds after its last time of issue. Redis removes it
    /// when that is over by its own clock too: one clock that is ahead removes nothing.
    pub lifetime: u64,
}

/// Writes revocations into the set. A cutoff that is less than the one there changes nothing, so a
/// retry is safe.
#[derive(Clone, Debug)]
pub struct Revoke {
    pub ticket: Ticket,
    pub cutoffs: Vec<(UserName, Cutoff)>,
    /// This node has now written all that it knows.
    pub confirm: Option<Confirm>,
    pub kept: Kept,
}

/// That a node has written all revocations it knows.
#[derive(Clone, Debug)]
pub struct Confirm {
    /// Into this data set; into another one it confirms nothing.
    pub data_set: Arc<str>,
    /// The set counts as confirmed from now on, although other nodes have not confirmed.
    pub force: bool,
}

/// Reads the set of revocations.
#[derive(Clone, Debug)]
pub struct ReadRevocations {
    pub ticket: Ticket,
    /// This node has just started: it knows nothing that others could wait for.
    pub is_starting: bool,
    pub kept: Kept,
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

/// What a broker tells the dispatcher.
#[derive(Debug)]
pub enum BrokerEvent {
    /// The topic of the room is subscribed from here on; see the promises above.
    Following(RoomName),
    /// A message of a followed room.
    Message {
        room: RoomName,
        epoch: Epoch,
        offset: u64,
        publication: Arc<Publication>,
        /// When the broker had it in hand.
        received_at: Instant,
    },
    /// An ephemeral publication in a followed room.
    Ephemeral {
        room: RoomName,
        publication: Arc<Publication>,
        received_at: Instant,
    },
    /// The answer to a [`Publish`]: where the publication stands.
    Published {
        ticket: Ticket,
        result: Result<Position, Refused>,
    },
    /// The answer to a [`Read`].
    Page {
        ticket: Ticket,
        result: Result<Page, Refused>,
    },
    /// Somebody's connections in a followed room are more or fewer; in order with the messages of
    /// the room.
    Changed { room: RoomName, change: Change },
    /// The answer to a [`Members`].
    MemberPage {
        ticket: Ticket,
        result: Result<MemberPage, Refused>,
    },
    /// The answer to a [`Census`].
    Found {
        ticket: Ticket,
        result: Result<QueryResult, Refused>,
    },
    /// The answer to a [`Revoke`]: the users of whom the set had no cutoff, or a lesser one.
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

/// What a broker needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    pub incarnation: Incarnation,
    /// How much is kept of each room.
    pub retention: Retention,
    /// How long a publication waits for its answer.
    pub publish_timeout: Duration,
    /// How long a topic stays subscribed after the last local member left.
    pub topic_linger: Duration,
    /// The newest format this node reads and writes. All before it are read too.
    pub newest_format: Format,
    /// Rooms whose logs or positions the memory broker keeps at most.
    pub max_rooms: usize,
    /// Bytes that the logs of the memory broker may take, all together.
    pub history_memory: usize,
    /// What is kept for webhooks, and for whom; `None`: nothing, because there are none.
    pub webhooks: Option<Wanted>,
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

    /// Asks without waiting. `false`: the broker has ended, and with it the node.
    pub fn ask(&self, request: Request) -> bool {
        self.0.send(request).is_ok()
    }
}
