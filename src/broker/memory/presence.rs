//! The members of the store's rooms: applies presence, answers queries, and sends changes.

use std::time::Instant;

use super::{StoreState, unix_millis};
use crate::broker::memory::list::RoomMembers;
use crate::broker::{BrokerEvent, Change, Connected, MemberPage, MembersQuery, SetPresence};
use crate::model::cluster_query::{ClusterQuery, ConnectionPage, QueryResult, RoomCount, RoomPage};
use crate::model::id::RoomName;
use crate::model::webhook_event;

impl StoreState {
    pub(super) fn set_presence(&mut self, node: usize, presence: SetPresence, now: Instant) {
        let SetPresence {
            room: name,
            user,
            connections,
            info,
        } = presence;
        if self.nodes[node].retired || (connections == 0 && !self.rooms.contains_key(&name)) {
            return;
        }
        let mut version = self.version;
        // A room with members has followers, so it exists.
        let Some((room, _)) = self.room(&name, now) else {
            return;
        };
        let was_empty = room.list.is_empty();
        let change = (room.list).set(node, user.as_ref(), connections, info, &mut version);
        let is_empty = room.list.is_empty();
        self.version = version;
        self.update_occupied(&name, was_empty, is_empty);
        self.send_changes(&name, change.into_iter().collect());
    }

    pub(super) fn member_page(&self, query: &MembersQuery) -> MemberPage {
        let room = self.rooms.get(&query.room);
        let after = query.after.as_ref();
        room.map_or_else(MemberPage::default, |room| {
            room.list.page(after, query.limit)
        })
    }

    pub(super) fn set_connection(&mut self, node: usize, connected: Connected, now: Instant) {
        let Connected {
            user,
            connection,
            live,
        } = connected;
        let name = user.room();
        if self.nodes[node].retired || (!live && !self.rooms.contains_key(&name)) {
            return;
        }
        // As above: the connection is a member of the room.
        let Some((room, _)) = self.room(&name, now) else {
            return;
        };
        let was_empty = room.list.is_empty();
        room.list.set_connection(node, connection, live);
        let is_empty = room.list.is_empty();
        self.update_occupied(&name, was_empty, is_empty);
    }

    pub(super) fn query(&self, query: &ClusterQuery) -> QueryResult {
        let room = |name: &RoomName| self.rooms.get(name);
        let count = |name: &RoomName| match room(name) {
            Some(room) => room.list.count(name.clone()),
            None => RoomMembers::<usize>::default().count(name.clone()),
        };
        match query {
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
                let rooms: Vec<RoomCount> = names.by_ref().take(*limit).map(count).collect();
                QueryResult::Rooms(RoomPage {
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
                QueryResult::Connections(ConnectionPage {
                    user: user.clone(),
                    connections,
                    count,
                    more,
                })
            }
        }
    }

    /// Sends changes to the followers of a room.
    fn send_changes(&self, name: &RoomName, changes: Vec<Change>) {
        let Some(room) = self.rooms.get(name) else {
            return;
        };
        for change in changes {
            for node in &room.followers {
                let (room, change) = (name.clone(), change.clone());
                self.send(*node, BrokerEvent::Changed { room, change });
            }
        }
    }

    pub(super) fn remove_members(&mut self, node: usize) {
        let mut changed = Vec::new();
        for (name, room) in &mut self.rooms {
            let was_empty = room.list.is_empty();
            let changes = room.list.remove_node(node, &mut self.version);
            let is_empty = room.list.is_empty();
            if !changes.is_empty() || was_empty != is_empty {
                changed.push((name.clone(), changes, was_empty, is_empty));
            }
        }
        for (name, changes, was_empty, is_empty) in changed {
            self.update_occupied(&name, was_empty, is_empty);
            self.send_changes(&name, changes);
        }
    }

    /// After all changes of a room: if it became occupied or empty, updates the list of occupied
    /// rooms and appends a webhook event.
    fn update_occupied(&mut self, room: &RoomName, was_empty: bool, is_empty: bool) {
        let change = match (was_empty, is_empty) {
            (true, false) => webhook_event::RoomChange::Occupied,
            (false, true) => webhook_event::RoomChange::Vacated,
            _ => return,
        };
        self.occupied.set(room, !is_empty);
        self.webhook_events.append(room, change, unix_millis());
    }
}
