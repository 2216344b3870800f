//! Names and ids: rooms, users, sessions, runs of a node, and the position in a room (epoch and
//! offset). All are checked when they are made, so that other layers never see an invalid one.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::percent;

/// A map whose keys are numbers that the node assigns itself. No client can choose them to collide,
/// so the hash needs no protection against that, and costs a fifth of SipHash's instructions.
pub type NumberMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// As [`NumberMap`].
pub type NumberSet<K> = HashSet<K, foldhash::fast::RandomState>;

/// The longest name of a room that clients choose, in bytes.
pub const ROOM_NAME_BYTES: usize = 255;

/// The longest name of a user, in bytes.
pub const USER_NAME_BYTES: usize = 255;

/// The longest name of a personal room, in bytes: `@`, and three for each of the user's.
pub const PERSONAL_ROOM_BYTES: usize = 1 + 3 * USER_NAME_BYTES;

/// The beginning of the names of rooms that only the nodes themselves use.
const NODES_ROOM: &str = "$control";

/// The room in which each node publishes its metrics.
const REPORTS_ROOM: &str = "$nodes";

/// A name that breaks the rules; the message states what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "a room name is 1 to 255 bytes of printable ASCII without blanks and without {{ }} * \" \\"
    )]
    Room,
    #[error(
        "a personal room is @ and the user's name, in which every byte but A-Z a-z 0-9 _ . : - is \
         written as %XX, like @ada%40example.com"
    )]
    PersonalRoom,
    #[error(
        "a user name is 1 to 255 bytes of UTF-8 without control characters, also those that turn \
         the direction of text"
    )]
    User,
}

/// A room's name: 1 to 255 bytes of printable ASCII except the blank and `{ } * " \`; `.` and `..`
/// are none, as HTTP paths cannot name them.
///
/// It can stand in a Redis key, in JSON, in a pattern and in a log line as it is. A leading `$` or
/// `@` marks the server's own rooms: see [`is_reserved`](Self::is_reserved). The personal room of a
/// user is `@` and the user's name with `%XX` for other bytes than `A-Z a-z 0-9 _ . : -`, at most
/// 766 bytes; no other text that begins with `@` is a name, so that each user has one room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

/// Whether a room's name may have this byte.
pub(crate) fn is_room_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"{}*\"\\".contains(&byte)
}

impl RoomName {
    pub fn new(name: &str) -> Result<Self, NameError> {
        if let Some(owner) = name.strip_prefix('@') {
            let owner = UserName::decode(owner).ok_or(NameError::PersonalRoom)?;
            return Ok(owner.room());
        }
        let is_dots = matches!(name, "." | "..");
        let fits = (1..=ROOM_NAME_BYTES).contains(&name.len());
        if fits && !is_dots && name.bytes().all(is_room_byte) {
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

    /// Whether it is the personal room of a user.
    pub fn is_personal(&self) -> bool {
        self.0.starts_with('@')
    }

    /// The user whose personal room it is, if it is one.
    pub fn owner(&self) -> Option<UserName> {
        UserName::decode(self.0.strip_prefix('@')?)
    }

    /// Whether it is the personal room of this user.
    pub fn is_of(&self, user: &UserName) -> bool {
        self.0.strip_prefix('@') == Some(&*user.encoded())
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

/// The beginning of the names of some rooms: the characters that room names have. Behind an `@`
/// the characters of a user's name may stand as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomPrefix(Arc<str>);

impl RoomPrefix {
    pub fn new(text: &str) -> Result<Self, NameError> {
        if let Some(owner) = text.strip_prefix('@') {
            let owner = percent::normalize(owner).ok_or(NameError::PersonalRoom)?;
            return match owner.len() {
                0..PERSONAL_ROOM_BYTES => Ok(Self(format!("@{owner}").into())),
                _ => Err(NameError::PersonalRoom),
            };
        }
        let fits = (1..=ROOM_NAME_BYTES).contains(&text.len());
        if !fits || !text.bytes().all(is_room_byte) {
            return Err(NameError::Room);
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A user's name: 1 to 255 bytes of UTF-8 without control characters (C0, DEL, C1, and those that
/// turn the direction of text), compared as bytes.
///
/// Where only some characters may stand, it is [encoded](Self::encoded); the order of names is the
/// order of those texts, which is how Redis sorts them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserName(Arc<str>);

/// Whether a user's name may have this character. The others would change how a line with the name
/// is read or displayed (Unicode Standard Annex 9 section 2 lists those of direction).
pub(crate) fn is_user_char(char: char) -> bool {
    let turns = matches!(char,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !char.is_control() && !turns
}

impl UserName {
    pub fn new(name: &str) -> Result<Self, NameError> {
        if (1..=USER_NAME_BYTES).contains(&name.len()) && name.chars().all(is_user_char) {
            Ok(Self(name.into()))
        } else {
            Err(NameError::User)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with every byte outside `A-Z a-z 0-9 _ . : -` as `%XX`.
    pub fn encoded(&self) -> Cow<'_, str> {
        percent::encode(&self.0)
    }

    /// The user with this [`encoded`](Self::encoded) name.
    pub fn decode(encoded: &str) -> Option<Self> {
        Self::new(&percent::decode(encoded)?).ok()
    }

    /// The user's personal room: its publications reach each connection of the user and no other
    /// client.
    pub fn room(&self) -> RoomName {
        RoomName(format!("@{}", self.encoded()).into())
    }
}

/// As the encoded names: a byte that is escaped comes before all others, because `%` does.
impl Ord for UserName {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |byte| (percent::is_plain(byte), byte);
        self.0.bytes().map(rank).cmp(other.0.bytes().map(rank))
    }
}

impl PartialOrd for UserName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_issuers_and_applications_use_are_accepted() {
        for user in [
            "auth0|5f7c8ec7",
            "google-oauth2|1127",
            "ada@example.com",
            "Ада Лавлейс",
            "愛田",
            "O'Neil \"the\" \\ 100% <b>*{x}",
            "@version",
            "$nodes",
            "😀",
            &"x".repeat(255),
        ] {
            let name = UserName::new(user).unwrap();
            let room = name.room();
            assert_eq!(RoomName::new(room.as_str()), Ok(room.clone()), "{user}");
            assert_eq!(room.owner(), Some(name.clone()), "{user}");
            assert!(room.is_of(&name) && room.as_str().len() <= PERSONAL_ROOM_BYTES);
        }
        let rooms = [
            "team/1",
            "a=b",
            "user#1",
            "a,b",
            "x?y&z",
            "[a]",
            "a%2Fb",
            "~!^|'`<>;+",
        ];
        for room in rooms.into_iter().chain([&*"x".repeat(255)]) {
            assert_eq!(RoomName::new(room).unwrap().as_str(), room);
        }
        let longest = UserName::new(&"é".repeat(127)).unwrap();
        assert_eq!(longest.room().as_str().len(), 1 + 3 * 254);
    }

    #[test]
    fn names_of_former_versions_keep_their_rooms_and_texts() {
        let name = UserName::new("Ada_1.b:c-d").unwrap();
        assert_eq!(name.encoded(), "Ada_1.b:c-d");
        assert_eq!(name.room().as_str(), "@Ada_1.b:c-d");
    }

    #[test]
    fn names_that_could_reach_a_foreign_key_or_line_are_refused() {
        let long = "x".repeat(ROOM_NAME_BYTES + 1);
        for bad in ["", "a\0", "a\x1f", "\r\nFLUSHALL\r\n", "a\x7f", &long] {
            assert_eq!(RoomName::new(bad), Err(NameError::Room), "{bad:?}");
            assert_eq!(UserName::new(bad), Err(NameError::User), "{bad:?}");
        }
        for bad in [".", "..", "a}:meta", "{a", "*", "a b", "a\"b", "a\\b", "ä"] {
            assert_eq!(RoomName::new(bad), Err(NameError::Room), "{bad:?}");
        }
        for bad in ["a\u{85}", "\u{202e}x", "\u{2066}", "\u{200f}", "\u{61c}"] {
            assert_eq!(UserName::new(bad), Err(NameError::User), "{bad:?}");
        }
        assert!(UserName::new(&"é".repeat(128)).is_err(), "256 bytes");
        assert!(RoomName::new("@ada").unwrap().is_reserved());
        assert!(!RoomName::new("lobby").unwrap().is_reserved());
    }

    #[test]
    fn personal_room_has_one_name() {
        for bad in [
            "@",
            "@a@b",
            "@a%7c",
            "@%61da",
            "@a%",
            "@a|b",
            "@%FF",
            "@%00",
            "@%E2%80%AE",
        ] {
            assert_eq!(RoomName::new(bad), Err(NameError::PersonalRoom), "{bad:?}");
        }
        let long = format!("@{}", "x".repeat(256));
        assert_eq!(RoomName::new(&long), Err(NameError::PersonalRoom));
    }

    #[test]
    fn prefix_of_personal_rooms_takes_a_name_either_way() {
        for (text, prefix) in [
            ("@", "@"),
            ("@a|", "@a%7C"),
            ("@a%7C", "@a%7C"),
            ("te", "te"),
        ] {
            assert_eq!(RoomPrefix::new(text).unwrap().as_str(), prefix);
        }
        for bad in ["", "a b", "{", &format!("@{}", "|".repeat(256))] {
            assert!(RoomPrefix::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn order_of_users_is_that_of_their_encoded_names(one: String, other: String) {
            if let (Ok(one), Ok(other)) = (UserName::new(&one), UserName::new(&other)) {
                prop_assert_eq!(one.cmp(&other), one.encoded().cmp(&other.encoded()));
            }
        }
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
