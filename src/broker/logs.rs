//! The first part of a broker: logs and publish/subscribe. It stores the publications of rooms and
//! the set of revocations, and delivers what is published in followed rooms.
//!
//! # Publishing
//!
//! - **Atomicity.** A publish is atomic per room: the broker looks up the key, takes the next
//!   offset, appends to the log and publishes on the topic, or does none of it. `Ok` means that the
//!   log has the publication, [`Refused::Unknown`] that it may or may not have it, and every other
//!   refusal that it does not.
//! - **Retries.** The same [`PublishKey`] in the same room returns the first position for
//!   [`KEY_TTL`], and appends nothing.
//! - **Order.** Publishes of one [source](PublishRequest::source) are done in the order of the
//!   requests, and take turns with those of other sources. All nodes receive a room's publications
//!   in the order of their offsets; the publisher's own node receives them by the topic too, not
//!   earlier.
//!
//! # Following a room
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
//! # Epochs
//!
//! - **An epoch ends when the end of its log may be lost; the entries stay.** A position needs an
//!   epoch because a log that has lost its offset 8 assigns it again: a client at the old 8 must
//!   not be answered that it missed nothing. The next epoch continues with the next offset, and the
//!   log stores where the last epochs [ended](crate::model::epochs). A publish or a read detects a
//!   new data set; only a read with a delivered position detects a log that is shorter than it was.
//!
//! # Revocations
//!
//! - Revocations are a set, not a log: for each user the greatest [`Cutoff`] that was written.
//!   Writes are idempotent.
//! - The set is *confirmed* if every live node has written its revocations since data could last
//!   have been lost.
//!
//! [`BrokerEvent::Following`]: crate::broker::BrokerEvent::Following
//! [`KEY_TTL`]: crate::broker::KEY_TTL
//! [`PublishKey`]: crate::broker::PublishKey
//! [`Refused::Unknown`]: crate::broker::Refused::Unknown
//! [`Refused::Newer`]: crate::broker::Refused::Newer

use std::sync::Arc;

use crate::model::id::{RoomName, Ticket, UserName};
use crate::model::publication::{Publish, Range};
use crate::model::revocations::Cutoff;
use crate::model::source::Source;

/// A request to the log.
#[derive(Debug)]
pub enum LogRequest {
    /// Follows the room's topic until [`LogRequest::Unfollow`]; answered by
    /// [`BrokerEvent::Following`](crate::broker::BrokerEvent::Following), again after every loss.
    Follow(RoomName),
    /// The last local member has left. The broker may linger before it unsubscribes.
    Unfollow(RoomName),
    Publish(PublishRequest),
    Read(Read),
    Revoke(Revoke),
    ReadRevocations(ReadRevocations),
}

/// A publish on its way to the log and to every node.
#[derive(Debug)]
pub struct PublishRequest {
    pub ticket: Ticket,
    pub source: Source,
    /// Answered with offset 0 if it is ephemeral.
    pub publish: Publish,
}

/// Reads a part of a room's log.
#[derive(Clone, Debug)]
pub struct Read {
    pub ticket: Ticket,
    pub source: Source,
    pub room: RoomName,
    pub range: Range,
    /// The most messages in the page; 0 reads the position alone.
    pub limit: usize,
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
    pub source: Source,
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
