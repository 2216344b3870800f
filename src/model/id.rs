//! Names and ids: rooms, users, sessions, runs of a node, and the position in a room (epoch and
//! offset). All are checked when they are made, so that other layers never see an invalid one.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A map whose keys are numbers that the node assigns itself. No client can choose them to collide,
/// so the hash needs no protection against that, and costs a fifth of SipHash's instructions.
pub type NumberMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// As [`NumberMap`].
pub type NumberSet<K> = HashSet<K, foldhash::fast::RandomState>;

/// The longest room name, in bytes.
pub const ROOM_NAME_BYTES: usize = 128;

/// The longest user name, in bytes; with the `@` of the personal room it still is a room name.
pub const USER_NAME_BYTES: usize = 64;

/// The beginning of the names of rooms that only the nodes themselves use.
const NODES_ROOM: &str = "$control";

/// The room in which each node publishes its metrics.
const REPORTS_ROOM: &str = "$nodes";

/// A name that breaks the rules; the message states what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a room name is 1 to 128 of A-Z a-z 0-9 _ . : @ - and nothing else")]
    Room,
    #[error("a user name is 1 to 64 of A-Z a-z 0-9 _ . : - and nothing else")]
    User,
}

/// A room's name: 1 to 128 bytes of `A-Z a-z 0-9 _ . : @ $ -`.
///
/// The alphabet has no braces, blanks, quotes, globs or control characters: a name can stand in a
/// Redis key, in JSON and in a log line as it is. A leading `$` or `@` marks the server's own
/// rooms: see [`is_reserved`](Self::is_reserved).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

impl RoomName {
    pub fn new(name: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@$-".contains(&byte);
        if (1..=ROOM_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(NameError::Room)
        }
    }

    /// A room of the nodes' own: see [`is_the_nodes`](Self::is_the_nodes).
    pub fn of_the_nodes(suffix: &str) -> Self {
        Self(format!("{NODES_ROOM}{suffix}").into())
    }

    /// The room `$nodes`, in which each node publishes its metrics.
    pub fn of_reports() -> Self {
        Self(REPORTS_ROOM.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is [`of_reports`](Self::of_reports).
    pub fn is_of_reports(&self) -> bool {
        *self.0 == *REPORTS_ROOM
    }

    /// Whether the room belongs to the server (`$nodes`) or to one user (`@ada`).
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(['$', '@'])
    }

    /// Whether the room belongs to the server: it alone publishes there.
    pub fn is_the_servers(&self) -> bool {
        self.0.starts_with('$')
    }

    /// Whether only the nodes themselves may use the room, for their commands to each other.
    pub fn is_the_nodes(&self) -> bool {
        let rest = self.0.strip_prefix(NODES_ROOM);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The user whose personal room it is, if it is one.
    pub fn owner(&self) -> Option<&str> {
        self.0.strip_prefix('@')
    }
}

/// Finds a room in a map by its text, without making a name of it.
impl Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user's name: 1 to 64 bytes of `A-Z a-z 0-9 _ . : -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

impl UserName {
    pub fn new(name: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
        if (1..=USER_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(NameError::User)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user's personal room: its publications reach each connection of the user and no other
    /// client.
    pub fn room(&self) -> RoomName {
        RoomName(format!("@{}", self.0).into())
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of a room's log, made at random with the log: an offset means something only within its
/// epoch.
///
/// Shown as 16 hexadecimal digits. Text that is no epoch reads as [`Epoch::UNKNOWN`], which no log
/// ever has: a client that returns with it receives the answer that its position is lost, rather
/// than a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    pub const UNKNOWN: Epoch = Epoch(0);

    /// A new epoch from 64 random bits.
    pub fn new(random: u64) -> Self {
        Self(random.max(1))
    }

    pub fn parse(text: &str) -> Self {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        Self(
            digits
                .then(|| u64::from_str_radix(text, 16).ok())
                .flatten()
                .unwrap_or(0),
        )
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Ok(Self::parse(&text))
    }
}

/// A position in a room: a client at offset 41 receives 42 next. Offset 0 is before the first
/// message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    pub epoch: Epoch,
    pub offset: u64,
}

/// One run of a node, made at random when the process starts: a restarted node is another
/// incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One session of this node; never used twice within an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The id of a request to the broker; its answer carries the same ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// 64 bits from the operating system's generator, for epochs and incarnations.
///
/// # Errors
/// Only where the system has no generator; no unique id can be made then.
pub fn random() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_reach_a_foreign_key_or_line_are_refused() {
        let long = "x".repeat(ROOM_NAME_BYTES + 1);
        for bad in [
            "",
            "a}:meta",
            "*",
            "[a-z]",
            "\r\nFLUSHALL\r\n",
            "a b",
            "a\0",
            "ä",
            "\u{202e}x",
            "a\"b",
            &long,
        ] {
            assert_eq!(RoomName::new(bad), Err(NameError::Room), "{bad:?}");
            assert_eq!(UserName::new(bad), Err(NameError::User), "{bad:?}");
        }
        assert!(RoomName::new(&"x".repeat(ROOM_NAME_BYTES)).is_ok());
        assert!(UserName::new(&"x".repeat(USER_NAME_BYTES + 1)).is_err());
        assert!(UserName::new("@ada").is_err());
        assert!(RoomName::new("@ada").unwrap().is_reserved());
        assert!(!RoomName::new("lobby").unwrap().is_reserved());
    }

    #[test]
    fn epoch_reads_back_and_other_text_is_unknown() {
        let epoch = Epoch::new(0x2a);
        assert_eq!(Epoch::parse(&epoch.to_string()), epoch);
        for other in [
            "",
            "2a",
            "x7Qd",
            "+00000000000002a",
            "00000000000000000000002a",
        ] {
            assert_eq!(Epoch::parse(other), Epoch::UNKNOWN, "{other:?}");
        }
        assert_ne!(Epoch::new(0), Epoch::UNKNOWN);
    }
}
