//! The names of keys and topics in Redis. Prefixes and the names of rooms have no braces, so the
//! braces around a room's name end it; users are encoded, without `@` and `$`; a publisher's key
//! is any text and is written in hexadecimal. So no two names are equal.
//!
//! ```text
//! PREFIX:{room}                      the topic of a room
//! PREFIX:{room}:log                  its log (a stream)
//! PREFIX:{room}:meta                 its epoch, offset, replication id, and publishers' keys
//! PREFIX:{room}:here                 its members, and their nodes
//! PREFIX:{room}:names                the names of its members, in order
//! PREFIX:{room}:key:PUBLISHER:HEX    a publisher's key, for nodes of former versions
//! PREFIX:{@user}:live                the connections of a user, in order
//!
//! PREFIX:node:INCARNATION            the topic of a node
//! PREFIX:nodes                       all leases, by their end
//! PREFIX:nodes:formats               the newest format that the node of each lease reads
//! PREFIX:node:LEASE:rooms            the rooms in which a lease has members
//!
//! PREFIX:rooms, :rooms:@, :rooms:$   the occupied rooms of each kind
//! PREFIX:hooks, PREFIX:hooks:lost    webhook events, and the count of dropped ones
//! PREFIX:revoked                     revocations, a set
//! PREFIX:revoked:confirmed           the nodes that have written all their revocations
//! ```
//!
//! The braces keep all of a room on one shard. Topics, unlike keys, are common to all databases of
//! a Redis; in database 3 they therefore begin with `PREFIX/3`.

use std::fmt::Write as _;

use crate::broker::PublishKey;
use crate::model::cluster_query::RoomKind;
use crate::model::id::{Incarnation, RoomName};

/// The names of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Names {
    keys: String,
    topics: String,
}

impl Names {
    /// The names under a prefix, in a database.
    pub(super) fn new(prefix: &str, db: u32) -> Self {
        let topics = match db {
            0 => prefix.to_owned(),
            db => format!("{prefix}/{db}"),
        };
        Self {
            keys: prefix.to_owned(),
            topics,
        }
    }

    /// What an access list must allow: the keys.
    pub(super) fn key_pattern(&self) -> String {
        format!("~{}:*", self.keys)
    }

    /// Likewise the topics.
    pub(super) fn topic_pattern(&self) -> String {
        format!("&{}:*", self.topics)
    }

    pub(super) fn topic(&self, room: &RoomName) -> String {
        format!("{}:{{{room}}}", self.topics)
    }

    /// The name of the room whose topic this is.
    pub(super) fn room_of<'a>(&self, topic: &'a [u8]) -> Option<&'a str> {
        let rest = topic.strip_prefix(self.topics.as_bytes())?;
        let name = rest.strip_prefix(b":{")?.strip_suffix(b"}")?;
        std::str::from_utf8(name).ok()
    }

    /// The topic of a node's own probes.
    pub(super) fn node_topic(&self, incarnation: Incarnation) -> String {
        format!("{}:node:{incarnation}", self.topics)
    }

    pub(super) fn log(&self, room: &RoomName) -> String {
        format!("{}:{{{room}}}:log", self.keys)
    }

    pub(super) fn meta(&self, room: &RoomName) -> String {
        format!("{}:{{{room}}}:meta", self.keys)
    }

    /// The stream of webhook events, and the count of dropped ones.
    pub(super) fn hooks(&self) -> [String; 2] {
        [
            format!("{}:hooks", self.keys),
            format!("{}:hooks:lost", self.keys),
        ]
    }

    /// The two keys of a room's members.
    pub(super) fn here(&self, room: &RoomName) -> [String; 2] {
        [
            format!("{}:{{{room}}}:here", self.keys),
            format!("{}:{{{room}}}:names", self.keys),
        ]
    }

    /// The text before and behind a room's name in those two.
    pub(super) fn around(&self) -> [String; 3] {
        let before = format!("{}:{{", self.keys);
        [before, "}:here".to_owned(), "}:names".to_owned()]
    }

    /// The connections of the user whose personal room it is, in order; empty for other rooms.
    pub(super) fn live(&self, room: &RoomName) -> String {
        format!("{}:{{{room}}}:live", self.keys)
    }

    /// The occupied rooms. Each kind has its own set, so that a page of one kind need not skip the
    /// others.
    pub(super) fn occupied(&self, kind: RoomKind) -> String {
        let rest = match kind {
            RoomKind::Chosen => "",
            RoomKind::Personal => ":@",
            RoomKind::Server => ":$",
        };
        format!("{}:rooms{rest}", self.keys)
    }

    /// All leases, by when they end.
    pub(super) fn nodes(&self) -> String {
        format!("{}:nodes", self.keys)
    }

    /// The newest format that the node of each lease reads.
    pub(super) fn formats(&self) -> String {
        format!("{}:nodes:formats", self.keys)
    }

    /// The set of revocations, and the nodes that have written all theirs.
    pub(super) fn revoked(&self) -> [String; 2] {
        [
            format!("{}:revoked", self.keys),
            format!("{}:revoked:confirmed", self.keys),
        ]
    }

    /// The rooms in which a lease has members.
    pub(super) fn rooms(&self, lease: &str) -> String {
        format!("{}:node:{lease}:rooms", self.keys)
    }

    /// The record of a publisher's key that nodes of former versions read and write.
    pub(super) fn key(&self, room: &RoomName, key: &PublishKey) -> String {
        format!("{}:{{{room}}}:key:{}", self.keys, key_in_room(key))
    }
}

/// The field of a publisher's key in the room's meta.
pub(super) fn key_field(key: &PublishKey) -> String {
    format!("#{}", key_in_room(key))
}

fn key_in_room(key: &PublishKey) -> String {
    let mut name = format!("{}:", key.publisher.encoded());
    for byte in key.key.bytes() {
        // Writing into a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Publisher;
    use crate::model::id::UserName;

    #[test]
    fn topic_names_its_room_and_no_other_name_does() {
        let names = Names::new("sb", 0);
        let room = RoomName::new("a.b:c").unwrap();
        assert_eq!(names.topic(&room), "sb:{a.b:c}");
        assert_eq!(names.room_of(b"sb:{a.b:c}"), Some("a.b:c"));
        let others = ["sb2:{a}", "sb:node:00", "sb:{a}:log", "sb/3:{a}", "sb:{a"];
        for other in others {
            assert_eq!(names.room_of(other.as_bytes()), None, "{other}");
        }
        let third = Names::new("sb", 3);
        assert_eq!(third.topic(&room), "sb/3:{a.b:c}");
        assert_eq!(third.log(&room), names.log(&room));
    }

    #[test]
    fn list_of_rooms_finds_the_keys_of_each() {
        let names = Names::new("sb", 0);
        let room = RoomName::new("a.b").unwrap();
        let [before, here, list] = names.around();
        let made = [here, list].map(|behind| format!("{before}{room}{behind}"));
        assert_eq!(made, names.here(&room));
    }

    #[test]
    fn keys_of_strangers_cannot_meet() {
        let names = Names::new("sb", 0);
        let room = RoomName::new("r").unwrap();
        let named = |publisher: Publisher, key: &str| {
            names.key(
                &room,
                &PublishKey {
                    publisher,
                    key: key.into(),
                },
            )
        };
        let key = |user: Option<&str>, key: &str| {
            let user = user.map(|user| UserName::new(user).unwrap());
            named(user.into(), key)
        };
        assert_eq!(key(Some("ada"), "k1"), "sb:{r}:key:ada:6b31");
        let all = [
            key(None, "a"),
            key(Some("a"), "b"),
            key(Some("a:b"), "c"),
            key(Some("a"), "b:c"),
            key(Some("a:62"), "c"),
            key(Some("a"), "}:meta"),
            key(None, "a:b"),
            named(Publisher::Backend, "a"),
            named(Publisher::Backend, "b"),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    /// Two rooms, publishers or keys that differ have different names, whatever their signs.
    fn expect_apart(one: [&str; 3], other: [&str; 3]) {
        let names = Names::new("sb", 0);
        let made = |[room, user, key]: [&str; 3]| {
            let (room, user) = (RoomName::new(room).ok()?, UserName::new(user).ok()?);
            let publisher = Some(user.clone()).into();
            let key = PublishKey {
                publisher,
                key: key.into(),
            };
            let rooms = [&room, &user.room()].map(|room| names.topic(room));
            Some((names.key(&room, &key), rooms, user.encoded().into_owned()))
        };
        let (Some(first), Some(second)) = (made(one), made(other)) else {
            return;
        };
        assert_eq!(first.0 == second.0, one == other, "{one:?} {other:?}");
        assert_eq!(
            first.1[0] == second.1[0],
            one[0] == other[0],
            "{one:?} {other:?}"
        );
        assert_eq!(
            first.1[1] == second.1[1],
            one[1] == other[1],
            "{one:?} {other:?}"
        );
        assert_eq!(first.2 == second.2, one[1] == other[1], "{one:?} {other:?}");
        assert!(!first.2.starts_with(['@', '$']), "a field of ours");
    }

    proptest::proptest! {
        #[test]
        fn names_of_any_two_differ(
            rooms in ["[!-~]{1,4}", "[!-~]{1,4}"],
            users in ["[ -~é:%]{1,3}", "[ -~é:%]{1,3}"],
            keys in ["[a:6]{1,2}", "[a:6]{1,2}"],
        ) {
            let one = [&*rooms[0], &*users[0], &*keys[0]];
            for other in [
                [&*rooms[1], &*users[1], &*keys[1]],
                [&*rooms[0], &*users[1], &*keys[0]],
                [&*rooms[1], &*users[0], &*keys[0]],
                [&*rooms[0], &*users[0], &*keys[1]],
            ] {
                expect_apart(one, other);
            }
        }
    }
}
