//! What a node has to announce of who is in its rooms: what is wanted, what the others' store has
//! confirmed, and what is still to be said. Plain logic: a task takes [`Ask`]s from it and reports
//! how they ended.
//!
//! Two things are said of a room: that this node is in it ([`Ask::Enter`]), and who is
//! ([`Ask::Say`]). The first is confirmed before the second is asked, so whoever finds a dead
//! node's records finds all its members. An ask whose answer was lost may be done later than one
//! asked after it; so what it was about is said again at once, and once more when it can no longer
//! be done.

mod room;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use room::{Entry, Record, Room};

use crate::broker::{Change, Info, Sender, SetPresence};
use crate::model::id::{RoomName, UserName};

/// How many users one ask is about at most, so that none keeps the store busy for long.
const SAY: usize = 64;

/// Of whom something is said in a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// All connections without a user.
    Anonymous,
    User(UserName),
    /// One connection of the user whose personal room it is.
    Connection(Sender),
}

impl From<Option<UserName>> for Who {
    fn from(user: Option<UserName>) -> Self {
        user.map_or(Who::Anonymous, Who::User)
    }
}

/// How many connections, and what the user or the connection shows of itself.
#[derive(Clone, Debug)]
pub struct Said {
    pub who: Who,
    pub connections: u32,
    pub info: Option<Info>,
}

/// Something to be asked of the store. All may be asked twice.
#[derive(Clone, Debug)]
pub enum Ask {
    /// The node has members in the room. The number is greater than any before.
    Enter { number: u64, room: RoomName },
    /// It has none any more, unless it has entered again.
    Quit { number: u64 },
    /// So many connections each of these users has on this node from now on.
    Say { room: RoomName, said: Vec<Said> },
}

/// How an ask ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Done,
    /// Done; these were the versions of the room's list before and after it.
    Said {
        before: u64,
        after: u64,
    },
    /// Nothing was done and nothing will be.
    Refused,
    /// Nobody knows. If it is done at all, then before this moment of the store's clock.
    Lost {
        until: u64,
    },
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct PresenceReconciler {
    rooms: HashMap<RoomName, Room>,
    /// Rooms of which something is to be asked, each once.
    queue: VecDeque<RoomName>,
    /// Rooms whose anonymous connections may be counted again from then on.
    later: VecDeque<(Instant, RoomName)>,
    /// Records of rooms without members.
    over: VecDeque<u64>,
    /// Rooms with something in doubt.
    doubtful: HashSet<RoomName>,
    entered: u64,
}

impl PresenceReconciler {
    /// From now on this is wanted.
    pub fn here(&mut self, here: SetPresence) {
        let SetPresence {
            room,
            user,
            connections,
            info,
        } = here;
        self.want(room, user.into(), connections, info);
    }

    /// From now on this is wanted of someone: so many connections; 0: nothing.
    pub fn want(&mut self, name: RoomName, who: Who, connections: u32, info: Option<Info>) {
        let known = self.rooms.get(&name);
        if connections == 0 && known.is_none_or(|room| !room.users.contains_key(&who)) {
            return;
        }
        let room = self.rooms.entry(name.clone()).or_default();
        let entry = room.users.entry(who.clone()).or_insert(Entry {
            connections: 0,
            info: None,
            asked: false,
        });
        let same = entry.connections == connections && text(&entry.info) == text(&info);
        if same && entry.asked {
            return;
        }
        entry.connections = connections;
        entry.info = info.filter(|_| connections > 0);
        if connections == 0 && !entry.asked {
            room.users.remove(&who);
            room.unsaid.remove(&who);
            self.tidy(&name);
            return;
        }
        room.unsaid.insert(who);
        self.queue(&name);
    }

    /// The next asks: at most so many, about at most so many users. They count as asked.
    pub fn take(&mut self, mut asks: usize, mut users: usize, now: Instant) -> Vec<Ask> {
        let mut taken = Vec::new();
        while self.later.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, name)) = self.later.pop_front() {
                if let Some(room) = self.rooms.get_mut(&name) {
                    room.waits = false;
                }
                self.queue(&name);
            }
        }
        while asks > 0
            && users > 0
            && let Some(name) = self.queue.pop_front()
        {
            let Some(room) = self.rooms.get_mut(&name) else {
                continue;
            };
            room.queued = false;
            match room.record {
                Record::Off => {
                    self.entered += 1;
                    room.record = Record::Asked(self.entered);
                    taken.push(Ask::Enter {
                        number: self.entered,
                        room: name,
                    });
                    asks -= 1;
                }
                Record::Asked(_) => {}
                Record::On(_) => {
                    let said = room.say(users.min(SAY), now);
                    if let Some(due) = room.wait_for_count(now) {
                        self.later.push_back((due, name.clone()));
                    }
                    let more = room.unsaid.iter().any(|who| *who != Who::Anonymous);
                    if more || (!room.waits && !room.unsaid.is_empty()) {
                        self.queue(&name);
                    }
                    if !said.is_empty() {
                        asks -= 1;
                        users -= said.len();
                        taken.push(Ask::Say { room: name, said });
                    }
                }
            }
        }
        let over = self.over.len().min(asks);
        taken.extend(self.over.drain(..over).map(|number| Ask::Quit { number }));
        taken
    }

    /// An ask has ended so. Tells whether the room's list was lost before.
    pub fn ended(&mut self, ask: Ask, end: End) -> bool {
        match ask {
            Ask::Enter { number, room } => self.entered(number, room, end),
            Ask::Quit { number } => {
                if end != End::Done {
                    self.over.push_back(number);
                }
            }
            Ask::Say { room, said } => return self.said(&room, said, end),
        }
        false
    }

    /// The store has lost everything, or all was said in a name that no longer counts: everything
    /// is said anew.
    pub fn anew(&mut self) {
        self.over.clear();
        let names: Vec<RoomName> = self.rooms.keys().cloned().collect();
        for name in names {
            if let Some(room) = self.rooms.get_mut(&name) {
                room.record = Record::Off;
                room.unsaid = room.users.keys().cloned().collect();
            }
            self.queue(&name);
        }
    }

    /// The store has told of a change. What contradicts what was said is said again. Tells whether
    /// the list was lost: then a later change begins at an earlier version than one it has had.
    pub fn on_change(&mut self, name: &RoomName, change: &Change) -> bool {
        let Some(room) = self.rooms.get_mut(name) else {
            return false;
        };
        if change.version <= room.version {
            return false;
        }
        let is_lost = change.from < room.version;
        let who = Who::User(change.user.clone());
        if is_lost {
            room.unsaid = room.users.keys().cloned().collect();
        } else if (room.users.get(&who)).is_some_and(|it| it.connections > change.connections) {
            room.unsaid.insert(who);
        }
        self.queue(name);
        is_lost
    }

    /// The store's clock: what can no longer be done is said once more, and then it is certain.
    pub fn settle(&mut self, clock: u64) {
        let Self {
            doubtful, rooms, ..
        } = self;
        let over = doubtful.extract_if(|name| match rooms.get_mut(name) {
            Some(room) if room.until >= clock => false,
            Some(room) => {
                room.unsaid.append(&mut room.doubt);
                true
            }
            None => true,
        });
        let over: Vec<RoomName> = over.collect();
        for name in over {
            self.queue(&name);
        }
    }

    /// Until when anything may yet be done that was asked before its answer was lost; 0: nothing is
    /// in doubt.
    pub fn doubt(&self) -> u64 {
        let rooms = self.doubtful.iter();
        let untils = rooms.filter_map(|name| self.rooms.get(name));
        untils.map(|room| room.until).max().unwrap_or(0)
    }

    fn entered(&mut self, number: u64, name: RoomName, end: End) {
        let room = self.rooms.get_mut(&name);
        let asked = room.filter(|room| room.record == Record::Asked(number));
        match (asked, end) {
            (Some(room), End::Done | End::Said { .. }) => {
                room.record = Record::On(number);
                self.queue(&name);
            }
            (Some(room), End::Refused | End::Lost { .. }) => {
                room.record = Record::Off;
                self.over.push_back(number);
                self.queue(&name);
            }
            // The name it was asked in no longer counts.
            (None, _) => {}
        }
        self.tidy(&name);
    }

    fn said(&mut self, name: &RoomName, said: Vec<Said>, end: End) -> bool {
        let Some(room) = self.rooms.get_mut(name) else {
            return false;
        };
        let mut is_lost = false;
        if let End::Said { before, after } = end {
            is_lost = before < room.version;
            room.version = room.version.max(after);
        }
        for Said { who, .. } in said {
            match end {
                End::Done | End::Said { .. } => {
                    let gone = room.users.get(&who).is_some_and(|it| it.connections == 0);
                    if gone && !room.unsaid.contains(&who) && !room.doubt.contains(&who) {
                        room.users.remove(&who);
                    }
                }
                End::Refused => {
                    room.unsaid.insert(who);
                }
                End::Lost { until } => {
                    room.unsaid.insert(who.clone());
                    room.doubt.insert(who);
                    room.until = room.until.max(until);
                    self.doubtful.insert(name.clone());
                }
            }
        }
        if is_lost {
            room.unsaid = room.users.keys().cloned().collect();
        }
        self.queue(name);
        self.tidy(name);
        is_lost
    }

    fn queue(&mut self, name: &RoomName) {
        if let Some(room) = self.rooms.get_mut(name)
            && !room.queued
            && !room.unsaid.is_empty()
        {
            room.queued = true;
            self.queue.push_back(name.clone());
        }
    }

    /// Forgets a room of which nothing is wanted and nothing is known.
    fn tidy(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get(name) else {
            return;
        };
        if !room.users.is_empty() || !room.doubt.is_empty() {
            return;
        }
        match room.record {
            Record::Asked(_) => return,
            Record::On(number) => self.over.push_back(number),
            Record::Off => {}
        }
        self.rooms.remove(name);
        self.forget_stale();
    }

    /// Names of rooms that are gone stay in the queue until they outnumber the others.
    fn forget_stale(&mut self) {
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
