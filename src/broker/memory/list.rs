//! The list of a room's members and their nodes in the memory broker. It follows the same rules as
//! the scripts in Redis. Plain logic.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::broker::{Change, Info, Member, MemberPage};
use crate::model::cluster_query::{Connection, RoomCount, RoomKind};
use crate::model::id::{RoomName, RoomPrefix, UserName};

/// The list of a room over nodes `N`.
#[derive(Debug)]
pub(super) struct RoomMembers<N> {
    version: u64,
    users: BTreeMap<UserName, Vec<Part<N>>>,
    anonymous: Vec<(N, u32)>,
    /// Connections of all users.
    connections: u64,
    /// In a personal room: the user's connections by their names, each with its node.
    live: BTreeMap<String, (N, Connection)>,
}

/// The connections of a user on one node.
#[derive(Clone, Debug)]
struct Part<N> {
    node: N,
    connections: u32,
    info: Option<Info>,
}

impl<N> Default for RoomMembers<N> {
    fn default() -> Self {
        Self {
            version: 0,
            users: BTreeMap::new(),
            anonymous: Vec::new(),
            connections: 0,
            live: BTreeMap::new(),
        }
    }
}

impl<N: Copy + PartialEq> RoomMembers<N> {
    /// Sets how many connections of a user a node has. A change gets the next version after `last`,
    /// which all lists share, so that no list repeats a version.
    pub(super) fn set(
        &mut self,
        node: N,
        user: Option<&UserName>,
        connections: u32,
        info: Option<Info>,
        last: &mut u64,
    ) -> Option<Change> {
        let Some(user) = user else {
            self.anonymous.retain(|(other, _)| *other != node);
            if connections > 0 {
                self.anonymous.push((node, connections));
            }
            return None;
        };
        let former = self.users.get(user).map_or(&[][..], Vec::as_slice);
        let mut parts = former.to_vec();
        let mine = Part {
            node,
            connections,
            info,
        };
        match parts.iter().position(|part| part.node == node) {
            // It keeps its place: an info that is repeated is not the newest.
            Some(at) if connections > 0 && text(&parts[at].info) == text(&mine.info) => {
                parts[at] = mine;
            }
            known => {
                known.map(|at| parts.remove(at));
                parts.extend((connections > 0).then_some(mine));
            }
        }
        let ((was, shown), (connections, info)) = (sum(former), sum(&parts));
        self.connections = self.connections - u64::from(was) + u64::from(connections);
        let same = was == connections && text(&shown) == text(&info);
        if parts.is_empty() {
            self.users.remove(user);
        } else {
            self.users.insert(user.clone(), parts);
        }
        if same {
            return None;
        }
        *last += 1;
        let from = std::mem::replace(&mut self.version, *last);
        Some(Change {
            from,
            version: self.version,
            user: user.clone(),
            was,
            connections,
            info,
        })
    }

    /// Adds or removes a connection of the user whose personal room it is.
    pub(super) fn set_connection(&mut self, node: N, connection: Connection, live: bool) {
        let name = connection.session.to_string();
        if live {
            self.live.insert(name, (node, connection));
        } else {
            self.live.remove(&name);
        }
    }

    /// Removes a node with all its members.
    pub(super) fn remove_node(&mut self, node: N, last: &mut u64) -> Vec<Change> {
        self.anonymous.retain(|(other, _)| *other != node);
        self.live.retain(|_, (other, _)| *other != node);
        let users = self.users.iter();
        let of_node = |parts: &[Part<N>]| parts.iter().any(|part| part.node == node);
        let users: Vec<UserName> = users
            .filter(|(_, parts)| of_node(parts))
            .map(|(user, _)| user.clone())
            .collect();
        let gone = |user| self.set(node, Some(user), 0, None, last);
        users.iter().filter_map(gone).collect()
    }

    /// A page of the list: at most `limit` members after a name.
    pub(super) fn page(&self, after: Option<&UserName>, limit: usize) -> MemberPage {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.users.range::<UserName, _>((from, Bound::Unbounded));
        let members = rest.by_ref().take(limit).map(|(user, parts)| {
            let (connections, info) = sum(parts);
            Member {
                user: user.clone(),
                connections,
                info,
            }
        });
        MemberPage {
            version: self.version,
            members: members.collect(),
            count: self.users.len() as u64,
            anonymous: self.anonymous_count(),
            more: rest.next().is_some(),
        }
    }

    fn anonymous_count(&self) -> u64 {
        self.anonymous.iter().map(|(_, it)| u64::from(*it)).sum()
    }

    /// The number of members and connections.
    pub(super) fn count(&self, room: RoomName) -> RoomCount {
        let anonymous = self.anonymous_count();
        RoomCount {
            room,
            connections: self.connections + anonymous,
            users: self.users.len() as u64,
            anonymous,
        }
    }

    /// A page of the connections of the user whose personal room it is: at most `limit` after a
    /// name, the number of all, and whether there are more.
    pub(super) fn connections(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> (Vec<Connection>, u64, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.live.range::<str, _>((from, Bound::Unbounded));
        let page = rest.by_ref().take(limit);
        let page = page.map(|(_, (_, connection))| connection.clone());
        (
            page.collect(),
            self.live.len() as u64,
            rest.next().is_some(),
        )
    }

    /// Whether it has no members.
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.anonymous.is_empty() && self.live.is_empty()
    }
}

/// The rooms that have members.
#[derive(Debug, Default)]
pub(super) struct Occupied(BTreeMap<RoomKind, BTreeSet<RoomName>>);

impl Occupied {
    /// Adds or removes a room.
    pub(super) fn set(&mut self, room: &RoomName, occupied: bool) {
        let rooms = self.0.entry(RoomKind::of(room)).or_default();
        if occupied {
            rooms.insert(room.clone());
        } else {
            rooms.remove(room);
        }
    }

    /// The rooms of a kind whose names begin with `prefix`, after `after`, in order.
    pub(super) fn page<'a>(
        &'a self,
        kind: RoomKind,
        prefix: Option<&'a RoomPrefix>,
        after: Option<&'a RoomName>,
    ) -> impl Iterator<Item = &'a RoomName> {
        let prefix = prefix.map_or("", RoomPrefix::as_str);
        let from = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let rooms = self.0.get(&kind).into_iter();
        let rest = rooms.flat_map(move |rooms| rooms.range::<str, _>((from, Bound::Unbounded)));
        rest.take_while(move |room| room.as_str().starts_with(prefix))
    }
}

/// The public sum of the parts: all connections, and the newest info.
fn sum<N>(parts: &[Part<N>]) -> (u32, Option<Info>) {
    let connections = parts.iter().map(|part| part.connections);
    let info = parts.iter().rev().find_map(|part| part.info.clone());
    (connections.fold(0, u32::saturating_add), info)
}

fn text(info: &Option<Info>) -> Option<&str> {
    info.as_deref().map(serde_json::value::RawValue::get)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn name(user: &str) -> UserName {
        UserName::new(user).unwrap()
    }

    fn info(text: &str) -> Option<Info> {
        (!text.is_empty()).then(|| RawValue::from_string(text.to_owned()).unwrap().into())
    }

    #[test]
    fn user_is_one_member_over_all_nodes_and_shows_the_newest_info() {
        let (mut list, mut last) = (RoomMembers::default(), 0);
        let mut seen = Vec::new();
        for (node, connections, shown) in [
            (1, 1, r#"{"n":1}"#),
            (2, 1, ""),
            (2, 1, ""),
            (2, 1, r#"{"n":2}"#),
            (1, 2, r#"{"n":1}"#),
            (2, 0, ""),
            (1, 0, ""),
            (1, 0, ""),
        ] {
            let change = list.set(
                node,
                Some(&name("ada")),
                connections,
                info(shown),
                &mut last,
            );
            seen.extend(change.map(|it| {
                let shown = text(&it.info).unwrap_or_default().to_owned();
                (it.from, it.version, it.was, it.connections, shown)
            }));
        }
        let one = || r#"{"n":1}"#.to_owned();
        let two = || r#"{"n":2}"#.to_owned();
        assert_eq!(
            seen,
            [
                (0, 1, 0, 1, one()),
                (1, 2, 1, 2, one()),
                (2, 3, 2, 2, two()),
                (3, 4, 2, 3, two()),
                (4, 5, 3, 2, one()),
                (5, 6, 2, 0, String::new()),
            ]
        );
        assert!(list.is_empty());
    }

    #[test]
    fn removed_node_takes_its_members_along_and_no_others() {
        let (mut list, mut last) = (RoomMembers::default(), 0);
        for (node, user) in [(1, "ada"), (1, "bob"), (2, "bob"), (2, "cy")] {
            list.set(node, Some(&name(user)), 1, None, &mut last);
        }
        list.set(1, None, 3, None, &mut last);
        list.set(2, None, 1, None, &mut last);
        let gone = list.remove_node(1, &mut last);
        let gone: Vec<_> = gone.iter().map(|it| it.connections).collect();
        assert_eq!(gone, [0, 1], "ada has left, bob has one connection less");
        let page = list.page(None, 1);
        assert_eq!((page.count, page.anonymous, page.more), (2, 1, true));
        let page = list.page(Some(&name("bob")), 1);
        assert_eq!(page.members[0].user, name("cy"));
        assert!(!page.more);
    }
}
