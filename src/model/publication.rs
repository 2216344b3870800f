//! Publications, reads of a room's log, and the reasons of refusals: the types that the dispatcher,
//! the client protocols and the brokers share.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::model::epochs::Ends;
use crate::model::id::{Incarnation, Position, RoomName, SessionId, UserName};

/// One publication in a room, as its publisher sent it.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The publisher; `None` for an anonymous session.
    pub user: Option<UserName>,
    /// When the publisher's node received it: milliseconds since 1970, by that node's clock.
    pub time: u64,
    /// The session that does not receive it, because it published it with `others:true`.
    pub except: Option<Sender>,
    /// The name of its event, for protocols that have one.
    pub event: Option<Arc<str>>,
    pub data: Payload,
}

/// The data of a publication, forwarded unchanged.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Any JSON value.
    Json(Box<RawValue>),
    Binary(Bytes),
}

impl Payload {
    /// The text, if it is JSON.
    pub fn json(&self) -> Option<&str> {
        match self {
            Payload::Json(json) => Some(json.get()),
            Payload::Binary(_) => None,
        }
    }

    /// Its length, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Payload::Json(json) => json.get().len(),
            Payload::Binary(bytes) => bytes.len(),
        }
    }
}

/// Shows JSON as it is, and bytes in Base64.
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Json(json) => f.write_str(json.get()),
            Payload::Binary(bytes) => f.write_str(&BASE64_STANDARD.encode(bytes)),
        }
    }
}

impl From<Box<RawValue>> for Payload {
    fn from(json: Box<RawValue>) -> Self {
        Payload::Json(json)
    }
}

impl Publication {
    /// A publication with a number as its data and its time.
    #[cfg(test)]
    pub fn numbered(n: u64) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self {
            user: None,
            time: n,
            except: None,
            event: None,
            data: RawValue::from_string(n.to_string()).expect("JSON").into(),
        })
    }

    /// Distinguishes different data under the same key: half of the SHA-256 of what its publisher
    /// sent, without what the node adds.
    pub fn digest(&self) -> u128 {
        let event = self.event.as_deref().unwrap_or_default();
        let (kind, data) = match &self.data {
            Payload::Json(json) => (0, json.get().as_bytes()),
            Payload::Binary(bytes) => (1, &bytes[..]),
        };
        let mut hash = digest::Context::new(&SHA256);
        hash.update(&[kind, u8::from(self.event.is_some())]);
        hash.update(&event.len().to_be_bytes());
        hash.update(event.as_bytes());
        hash.update(data);
        let whole = hash.finish();
        let half = whole.as_ref().first_chunk().copied();
        u128::from_be_bytes(half.unwrap_or_default())
    }

    /// The approximate memory it takes, in bytes.
    pub fn weight(&self) -> usize {
        let event = self.event.as_ref().map_or(0, |name| name.len());
        size_of::<Self>() + self.data.size() + event + 64
    }
}

/// A publish into a room, from the decoder of a request to the broker.
#[derive(Clone, Debug)]
pub struct Publish {
    pub room: RoomName,
    /// Makes a retry idempotent: the same key of the same publisher in the same room returns the
    /// first position for [`KEY_TTL`]. With other data it is [`Refused::KeyReused`].
    pub key: Option<PublishKey>,
    /// The position that the room must have: compare-and-append. It does not apply to a retry whose
    /// key is known, nor to an ephemeral publish.
    pub condition: Option<Position>,
    /// Skips the log: no offset, at most once.
    pub ephemeral: bool,
    /// The session that publishes does not receive the data. The dispatcher sets
    /// [`Publication::except`] for it.
    pub others: bool,
    /// The rooms of one call share it.
    pub publication: Arc<Publication>,
}

impl Publish {
    /// Sets what a client may not choose: its user, the time, and the session to leave out.
    pub fn stamp(&mut self, user: Option<UserName>, time: u64, sender: Sender) {
        if let Some(key) = &mut self.key {
            key.publisher = Publisher::from(user.clone());
        }
        // A client's publication is not shared yet, so this copies nothing.
        let publication = Arc::make_mut(&mut self.publication);
        publication.user = user;
        publication.time = time;
        publication.except = self.others.then_some(sender);
    }
}

/// A request for a part of a room's log.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    pub room: RoomName,
    /// The newest messages below this offset; `None`: the newest of all.
    pub before: Option<u64>,
    /// The most messages in the page.
    pub limit: usize,
}

/// A session, named uniquely in the cluster. Shown as `INCARNATION-SESSION`, which its client
/// receives in `welcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sender {
    pub incarnation: Incarnation,
    pub session: SessionId,
}

impl Sender {
    /// Parses the text that `Display` shows; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (incarnation, session) = text.split_once('-')?;
        let sender = Self {
            incarnation: Incarnation(u64::from_str_radix(incarnation, 16).ok()?),
            session: SessionId(session.parse().ok()?),
        };
        // Each name has one spelling, so signs and further zeros are refused.
        (sender.to_string() == text).then_some(sender)
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.incarnation, self.session)
    }
}

/// The name that a publisher gives to one publication (1 to 64 bytes, any text).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublishKey {
    pub publisher: Publisher,
    pub key: Arc<str>,
}

/// The owner of a key: keys of different publishers are never equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Publisher {
    User(UserName),
    /// All anonymous sessions together.
    Anonymous,
    /// All that hold a key of the HTTP API, together.
    Backend,
}

impl Publisher {
    /// Distinct for each: a user's encoded name is neither empty nor has it a `$`.
    pub fn encoded(&self) -> Cow<'_, str> {
        match self {
            Publisher::User(user) => user.encoded(),
            Publisher::Anonymous => Cow::Borrowed(""),
            Publisher::Backend => Cow::Borrowed("$"),
        }
    }
}

impl From<Option<UserName>> for Publisher {
    fn from(user: Option<UserName>) -> Self {
        user.map_or(Publisher::Anonymous, Publisher::User)
    }
}

/// The greatest offset: scripts and JSON count in doubles, which are exact up to here.
pub const MAX_OFFSET: u64 = 1 << 53;

/// The longest key of a publication, in bytes.
pub(crate) const KEY_BYTES: usize = 64;

/// The longest name of an event, in bytes: the longest that Pusher's protocol has.
pub(crate) const EVENT_BYTES: usize = 200;

impl PublishKey {
    /// The approximate memory that a remembered key takes, in bytes: it is stored in two places.
    pub fn weight(&self) -> usize {
        2 * size_of::<Self>() + self.key.len() + 128
    }
}

/// How long the key of a publication is remembered.
pub(crate) const KEY_TTL: Duration = Duration::from_secs(300);

/// The part of a log to read. Pages are always ascending and without holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// The position of the room, and no messages.
    Top,
    /// The messages after this position, oldest first. A page from an ended epoch continues across
    /// its end; see [`Ends::page_begins_behind`] for where it begins. If the log no longer reaches
    /// back so far, it begins at the oldest message of the log, which is [`Page::first`].
    ///
    /// The position is one that this node has *delivered*, so it is evidence: if the log of the
    /// same epoch has a top below it, the end of the log is lost and the broker ends the epoch,
    /// once, for the first node that reads. Positions from clients are never used here before the
    /// node has checked that they are at or below its own.
    After(Position),
    /// The newest messages below this offset (`None`: below the top + 1).
    Before(Option<u64>),
}

/// A part of a room's log.
#[derive(Clone, Debug)]
pub struct Page {
    /// Epoch and newest offset at the moment of reading.
    pub top: Position,
    /// The oldest offset the log still has; `top + 1` when it has none. Of a page [`Range::After`]
    /// a position: the oldest one behind the position, if entries right behind it are missing.
    pub first: u64,
    /// The epochs of the log that have ended.
    pub ends: Ends,
    /// How long the log is kept from the moment of reading, without another publish; zero if it has
    /// no messages.
    pub expires_in: Duration,
    /// Ascending, contiguous.
    pub messages: Vec<(u64, Arc<Publication>)>,
}

/// Why a publication or a read was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not done; a retry later may succeed.
    #[error("the room cannot be reached at the moment; try again")]
    Unavailable,
    /// Redis may have lost a part of the lists of members, and the nodes have not sent it again in
    /// time. A retry later may succeed.
    #[error("who is in which room is not completely known at the moment; try again")]
    Incomplete,
    /// No answer came in time: it is done or it is not. Retry with the same key.
    #[error("no answer came in time, so it may or may not have happened; retry with the same key")]
    Unknown,
    /// A node of a later version wrote the message. Not done, and a retry fails while the message
    /// is in the log.
    #[error("a message in this room is in a newer format than this node reads; use another node")]
    Newer,
    /// The publish had a condition, and the room is at another position. Not done.
    #[error("the room is at another position now; read what is new and try again")]
    Conflict,
    /// The key is remembered for a publication with other data. Not done.
    #[error("the key was used for other data; each publication needs its own")]
    KeyReused,
    /// The store refuses to grow (Redis out of memory). Not done.
    #[error("the store is full; try again later")]
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_has_one_name_and_reads_back() {
        let sender = Sender {
            incarnation: Incarnation(0xa1),
            session: SessionId(7),
        };
        assert_eq!(sender.to_string(), "00000000000000a1-7");
        assert_eq!(Sender::parse("00000000000000a1-7"), Some(sender));
        for other in [
            "",
            "-",
            "00000000000000a1",
            "a1-7",
            "00000000000000A1-7",
            "+0000000000000a1-7",
            "00000000000000a1-+7",
            "00000000000000a1-07",
            "00000000000000a1-7-7",
            "00000000000000a1:7",
            "00000000000000a1-18446744073709551616",
        ] {
            assert_eq!(Sender::parse(other), None, "{other}");
        }
    }
}
