//! Keeps the presence store equal to this node's presence: holds the wanted state, the confirmed
//! state and the pending difference. Plain logic: a task takes [`PresenceUpdate`]s from it, sends
//! them, and reports their results.
//!
//! The store has two kinds of data for a room: a record that this node has members in it
//! ([`PresenceUpdate::AddRoom`]), and the members ([`PresenceUpdate::SetMembers`]). The record is
//! confirmed before the first member is sent, so the node that removes a dead node's records finds
//! all its members. An update whose answer was lost may be applied after a later one; so its
//! members are sent again at once, and once more when the lost update can no longer be applied.

mod room;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use room::{ReconciledRoom, Record, WantedState};

use crate::broker::{Change, Info, Sender, SetPresence};
use crate::model::id::{RoomName, UserName};

/// The most members in one update, so that none blocks the store for long.
const MAX_MEMBERS: usize = 64;

/// What the store counts separately in a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberKey {
    /// All connections without a user.
    Anonymous,
    User(UserName),
    /// One connection of the user whose personal room it is.
    Connection(Sender),
}

impl From<Option<UserName>> for MemberKey {
    fn from(user: Option<UserName>) -> Self {
        user.map_or(MemberKey::Anonymous, MemberKey::User)
    }
}

/// The connections on this node, and the info of the user or the connection.
#[derive(Clone, Debug)]
pub struct MemberState {
    pub key: MemberKey,
    pub connections: u32,
    pub info: Option<Info>,
}

/// A write to the store. Each is idempotent.
#[derive(Clone, Debug)]
pub enum PresenceUpdate {
    /// Records that the node has members in the room. The number is greater than any before.
    AddRoom { number: u64, room: RoomName },
    /// Removes the record with this number. A record that was added again has a greater one.
    RemoveRoom { number: u64 },
    /// Sets the connections of each of these members on this node.
    SetMembers {
        room: RoomName,
        members: Vec<MemberState>,
    },
}

/// The result of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpdateResult {
    Done,
    /// Done; the versions of the room's list before and after it.
    Applied {
        before: u64,
        after: u64,
    },
    /// Not applied, and it will not be.
    Refused,
    /// Not known. If it is applied, then before this time of the store's clock.
    Unanswered {
        until: u64,
    },
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct PresenceReconciler {
    rooms: HashMap<RoomName, ReconciledRoom>,
    /// Rooms with pending updates, each once.
    queue: VecDeque<RoomName>,
    /// Rooms whose count of anonymous connections is sent from that time on.
    delayed: VecDeque<(Instant, RoomName)>,
    /// Records of rooms without members, to be removed.
    stale_records: VecDeque<u64>,
    /// Rooms with unconfirmed members.
    unconfirmed: HashSet<RoomName>,
    last_number: u64,
}

impl PresenceReconciler {
    /// Sets the wanted state of a user.
    pub(crate) fn set_presence(&mut self, presence: SetPresence) {
        let SetPresence {
            room,
            user,
            connections,
            info,
        } = presence;
        self.set(room, user.into(), connections, info);
    }

    /// Sets the wanted connections of a member; 0 removes it.
    pub(crate) fn set(
        &mut self,
        name: RoomName,
        key: MemberKey,
        connections: u32,
        info: Option<Info>,
    ) {
        let known = self.rooms.get(&name);
        if connections == 0 && known.is_none_or(|room| !room.users.contains_key(&key)) {
            return;
        }
        let room = self.rooms.entry(name.clone()).or_default();
        let entry = room.users.entry(key.clone()).or_insert(WantedState {
            connections: 0,
            info: None,
            sent: false,
        });
        let same = entry.connections == connections && text(&entry.info) == text(&info);
        if same && entry.sent {
            return;
        }
        entry.connections = connections;
        entry.info = info.filter(|_| connections > 0);
        if connections == 0 && !entry.sent {
            room.users.remove(&key);
            room.pending.remove(&key);
            self.tidy(&name);
            return;
        }
        room.pending.insert(key);
        self.queue(&name);
    }

    /// The next updates: at most `updates`, with at most `members` in all. They count as sent.
    pub(crate) fn take(
        &mut self,
        mut updates: usize,
        mut members: usize,
        now: Instant,
    ) -> Vec<PresenceUpdate> {
        let mut taken = Vec::new();
        while self.delayed.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, name)) = self.delayed.pop_front() {
                if let Some(room) = self.rooms.get_mut(&name) {
                    room.is_delayed = false;
                }
                self.queue(&name);
            }
        }
        while updates > 0
            && members > 0
            && let Some(name) = self.queue.pop_front()
        {
            let Some(room) = self.rooms.get_mut(&name) else {
                continue;
            };
            room.queued = false;
            match room.record {
                Record::Absent => {
                    self.last_number += 1;
                    room.record = Record::Sent(self.last_number);
                    taken.push(PresenceUpdate::AddRoom {
                        number: self.last_number,
                        room: name,
                    });
                    updates -= 1;
                }
                Record::Sent(_) => {}
                Record::Present(_) => {
                    let batch = room.take(members.min(MAX_MEMBERS), now);
                    if let Some(due) = room.wait_for_count(now) {
                        self.delayed.push_back((due, name.clone()));
                    }
                    let more = room.pending.iter().any(|key| *key != MemberKey::Anonymous);
                    if more || (!room.is_delayed && !room.pending.is_empty()) {
                        self.queue(&name);
                    }
                    if !batch.is_empty() {
                        updates -= 1;
                        members -= batch.len();
                        taken.push(PresenceUpdate::SetMembers {
                            room: name,
                            members: batch,
                        });
                    }
                }
            }
        }
        let stale = self.stale_records.len().min(updates);
        let stale = self.stale_records.drain(..stale);
        taken.extend(stale.map(|number| PresenceUpdate::RemoveRoom { number }));
        taken
    }

    /// An update has this result. Returns whether the store had lost the room's list before.
    pub(crate) fn finished(&mut self, update: PresenceUpdate, result: UpdateResult) -> bool {
        match update {
            PresenceUpdate::AddRoom { number, room } => self.room_added(number, room, result),
            PresenceUpdate::RemoveRoom { number } => {
                if result != UpdateResult::Done {
                    self.stale_records.push_back(number);
                }
            }
            PresenceUpdate::SetMembers { room, members } => {
                return self.members_set(&room, members, result);
            }
        }
        false
    }

    /// The store has lost all data, or the lease under which it was written is over: everything is
    /// sent again.
    pub(crate) fn resend_all(&mut self) {
        self.stale_records.clear();
        let names: Vec<RoomName> = self.rooms.keys().cloned().collect();
        for name in names {
            if let Some(room) = self.rooms.get_mut(&name) {
                room.record = Record::Absent;
                room.pending = room.users.keys().cloned().collect();
            }
            self.queue(&name);
        }
    }

    /// The store has published a change. A member that contradicts the wanted state is sent again.
    /// Returns whether the list was lost: then a change begins at a version before the last one.
    pub(crate) fn on_change(&mut self, name: &RoomName, change: &Change) -> bool {
        let Some(room) = self.rooms.get_mut(name) else {
            return false;
        };
        // This node's own write may be answered before the change that shows the loss arrives. A
        // list without users has no version; then the change without a user shows it.
        let is_lost = change.from < room.pushed
            || change.from < room.version && room.version < change.version
            || change.from == 0 && change.connections == 0;
        room.pushed = change.version;
        if change.version <= room.version && !is_lost {
            return false;
        }
        let key = MemberKey::User(change.user.clone());
        if is_lost {
            room.pending = room.users.keys().cloned().collect();
        } else if (room.users.get(&key)).is_some_and(|it| it.connections > change.connections) {
            room.pending.insert(key);
        }
        self.queue(name);
        is_lost
    }

    /// The store's clock. Members of updates that can no longer be applied are sent once more;
    /// after that the store is known to have them.
    pub(crate) fn set_clock(&mut self, clock: u64) {
        let Self {
            unconfirmed, rooms, ..
        } = self;
        let settled = unconfirmed.extract_if(|name| match rooms.get_mut(name) {
            Some(room) if room.until >= clock => false,
            Some(room) => {
                room.pending.append(&mut room.unconfirmed);
                true
            }
            None => true,
        });
        let settled: Vec<RoomName> = settled.collect();
        for name in settled {
            self.queue(&name);
        }
    }

    /// Until when an update whose answer was lost may still be applied; 0: there is none.
    pub(crate) fn unconfirmed_until(&self) -> u64 {
        let rooms = self.unconfirmed.iter();
        let untils = rooms.filter_map(|name| self.rooms.get(name));
        untils.map(|room| room.until).max().unwrap_or(0)
    }

    fn room_added(&mut self, number: u64, name: RoomName, result: UpdateResult) {
        let room = self.rooms.get_mut(&name);
        let sent = room.filter(|room| room.record == Record::Sent(number));
        match (sent, result) {
            (Some(room), UpdateResult::Done | UpdateResult::Applied { .. }) => {
                room.record = Record::Present(number);
                self.queue(&name);
            }
            (Some(room), UpdateResult::Refused | UpdateResult::Unanswered { .. }) => {
                room.record = Record::Absent;
                self.stale_records.push_back(number);
                self.queue(&name);
            }
            // The lease under which it was sent is over.
            (None, _) => {}
        }
        self.tidy(&name);
    }

    fn members_set(
        &mut self,
        name: &RoomName,
        members: Vec<MemberState>,
        result: UpdateResult,
    ) -> bool {
        let Some(room) = self.rooms.get_mut(name) else {
            return false;
        };
        let mut is_lost = false;
        if let UpdateResult::Applied { before, after } = result {
            is_lost = before < room.version;
            room.version = room.version.max(after);
        }
        for MemberState { key, .. } in members {
            match result {
                UpdateResult::Done | UpdateResult::Applied { .. } => {
                    let gone = room.users.get(&key).is_some_and(|it| it.connections == 0);
                    if gone && !room.pending.contains(&key) && !room.unconfirmed.contains(&key) {
                        room.users.remove(&key);
                    }
                }
                UpdateResult::Refused => {
                    room.pending.insert(key);
                }
                UpdateResult::Unanswered { until } => {
                    room.pending.insert(key.clone());
                    room.unconfirmed.insert(key);
                    room.until = room.until.max(until);
                    self.unconfirmed.insert(name.clone());
                }
            }
        }
        if is_lost {
            room.pending = room.users.keys().cloned().collect();
        }
        self.queue(name);
        self.tidy(name);
        is_lost
    }

    fn queue(&mut self, name: &RoomName) {
        if let Some(room) = self.rooms.get_mut(name)
            && !room.queued
            && !room.pending.is_empty()
        {
            room.queued = true;
            self.queue.push_back(name.clone());
        }
    }

    /// Removes a room without wanted and unconfirmed members.
    fn tidy(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get(name) else {
            return;
        };
        if !room.users.is_empty() || !room.unconfirmed.is_empty() {
            return;
        }
        match room.record {
            Record::Sent(_) => return,
            Record::Present(number) => self.stale_records.push_back(number),
            Record::Absent => {}
        }
        self.rooms.remove(name);
        self.drop_stale();
    }

    /// Names of removed rooms stay in the queue until they outnumber the others.
    fn drop_stale(&mut self) {
        if self.queue.len() > 2 * self.rooms.len() + 64 {
            let (mut seen, rooms) = (HashSet::new(), &self.rooms);
            self.queue.retain(|name| {
                rooms.get(name).is_some_and(|room| room.queued) && seen.insert(name.clone())
            });
        }
    }
}

fn text(info: &Option<Info>) -> Option<&str> {
    info.as_deref().map(serde_json::value::RawValue::get)
}

#[cfg(test)]
mod tests;
