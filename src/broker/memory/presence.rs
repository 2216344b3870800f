//! Who is in the rooms of the store: what nodes say of it, and what is told and answered.

use std::time::Instant;

use super::{Shared, unix_millis};
use crate::broker::memory::list::List;
use crate::broker::{BrokerEvent, Change, Connected, MemberPage, Members, SetPresence};
use crate::model::cluster_query::{ClusterQuery, Connections, Count, QueryResult, Rooms};
use crate::model::id::RoomName;
use crate::model::webhook_event;

impl Shared {
    pub(super) fn here(&mut self, node: usize, here: SetPresence, now: Instant) {
        let SetPresence {
            room: name,
            user,
            connections,
            info,
        } = here;
        if self.nodes[node].retired || (connections == 0 && !self.rooms.contains_key(&name)) {
            return;
        }
        let mut version = self.version;
        // A room with members is followed, so it is there.
        let Some((room, _)) = self.room(&name, now) else {
            return;
        };
        let was_empty = room.list.is_empty();
        let change = (room.list).set(node, user.as_ref(), connections, info, &mut version);
        let is_empty = room.list.is_empty();
        self.version = version;
        self.settled(&name, was_empty, is_empty);
        self.changed(&name, change.into_iter().collect());
    }

    pub(super) fn roll(&self, members: &Members) -> MemberPage {
        let room = self.rooms.get(&members.room);
        let after = members.after.as_ref();
        room.map_or_else(MemberPage::default, |room| {
            room.list.roll(after, members.limit)
        })
    }

    pub(super) fn connected(&mut self, node: usize, connected: Connected, now: Instant) {
        let Connected {
            user,
            connection,
            live,
        } = connected;
        let name = user.room();
        if self.nodes[node].retired || (!live && !self.rooms.contains_key(&name)) {
            return;
        }
        // As above: the connection is a member of it.
        let Some((room, _)) = self.room(&name, now) else {
            return;
        };
        let was_empty = room.list.is_empty();
        room.list.set_connection(node, connection, live);
        let is_empty = room.list.is_empty();
        self.settled(&name, was_empty, is_empty);
    }

    pub(super) fn find(&self, question: &ClusterQuery) -> QueryResult {
        let room = |name: &RoomName| self.rooms.get(name);
        let count = |name: &RoomName| match room(name) {
            Some(room) => room.list.census(name.clone()),
            None => List::<usize>::default().census(name.clone()),
        };
        match question {
            ClusterQuery::Room(name) => {
                QueryResult::Room(count(name), room(name).map(|room| room.log.top()))
            }
            ClusterQuery::Rooms {
                kind,
                prefix,
                after,
                limit,
            } => {
                let rooms = self.occupied.page(*kind, prefix.as_ref(), after.as_ref());
                let mut names = rooms.take(limit.saturating_add(1));
                let rooms: Vec<Count> = names.by_ref().take(*limit).map(count).collect();
                QueryResult::Rooms(Rooms {
                    rooms,
                    more: names.next().is_some(),
                })
            }
            ClusterQuery::Connections { user, after, limit } => {
                let after = after.map(|session| session.to_string());
                let list = room(&user.room()).map(|room| &room.list);
                let (connections, count, more) = list.map_or_else(Default::default, |list| {
                    list.connections(after.as_deref(), *limit)
                });
                QueryResult::Connections(Connections {
                    user: user.clone(),
                    connections,
                    count,
                    more,
                })
            }
        }
    }

    /// Tells the followers of a room.
    fn changed(&self, name: &RoomName, changes: Vec<Change>) {
        let Some(room) = self.rooms.get(name) else {
            return;
        };
        for change in changes {
            for node in &room.followers {
                let (room, change) = (name.clone(), change.clone());
                self.tell(*node, BrokerEvent::Changed { room, change });
            }
        }
    }

    pub(super) fn forget_members(&mut self, node: usize) {
        let mut changed = Vec::new();
        for (name, room) in &mut self.rooms {
            let was_empty = room.list.is_empty();
            let changes = room.list.forget(node, &mut self.version);
            let is_empty = room.list.is_empty();
            if !changes.is_empty() || was_empty != is_empty {
                changed.push((name.clone(), changes, was_empty, is_empty));
            }
        }
        for (name, changes, was_empty, is_empty) in changed {
            self.settled(&name, was_empty, is_empty);
            self.changed(&name, changes);
        }
    }

    /// After all changes of a room: whoever wants to know whether anybody is in it is told when
    /// that is no longer as it was.
    fn settled(&mut self, room: &RoomName, was_empty: bool, is_empty: bool) {
        let change = match (was_empty, is_empty) {
            (true, false) => webhook_event::Change::Occupied,
            (false, true) => webhook_event::Change::Vacated,
            _ => return,
        };
        self.occupied.set(room, !is_empty);
        self.notices.append(room, change, unix_millis());
    }
}
