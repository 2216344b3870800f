//! Presence in the store, in its simplest honest form: what each node says of its sessions stands
//! while its lease does, a lapsed lease is reaped by a node that has held its own unbroken, and
//! each change raises the room's version. And the part of a node's broker that says it: it
//! remembers what was announced, and says it all again when the connection or the lease was lost.

use std::collections::BTreeMap;

use switchboard::broker::{Change, Member, MemberPage, Members, SetPresence};
use switchboard::model::id::UserName;

use super::node::{PUBLISHES, Push};
use super::world::{Happening, World};

/// How long a lease lasts that is not renewed.
const LEASE: u64 = 3_000;

/// A node, its life, and the number of its lease in it.
pub type Lease = (usize, u32, u32);

/// A room and a user of it; `None` stands for the anonymous.
pub type Who = (usize, Option<UserName>);

#[derive(Default)]
pub struct Presence {
    rooms: Vec<Listing>,
    /// When each lease ends.
    leases: BTreeMap<Lease, u64>,
    /// The newest that each life of a node has said of someone.
    newest: BTreeMap<(usize, u32, Who), u64>,
    /// Versions up to this one are of before the store lost its memory. A push of one that is late
    /// contradicts the list that was read afterwards.
    pub lost_up_to: u64,
}

/// What a node says: how many sessions of someone it has.
pub struct Saying {
    who: Who,
    connections: u32,
    lease: Lease,
    /// On which connection, and in which place of all that the node says.
    link: u32,
    number: u64,
}

#[derive(Clone, Default)]
struct Listing {
    version: u64,
    parts: BTreeMap<Option<UserName>, BTreeMap<Lease, u32>>,
}

impl Presence {
    pub fn new(rooms: usize) -> Self {
        Self {
            rooms: vec![Listing::default(); rooms],
            leases: BTreeMap::new(),
            newest: BTreeMap::new(),
            lost_up_to: 0,
        }
    }

    /// The store lost its memory.
    pub fn clear(&mut self, now: u64) {
        *self = Self {
            lost_up_to: now * 1000,
            ..Self::new(self.rooms.len())
        };
    }

    fn is_held(&self, lease: Lease, now: u64) -> bool {
        self.leases.get(&lease).is_some_and(|end| *end >= now)
    }

    /// A late write under a lease that is over changes nothing, nor does one that a later one of
    /// its node has overtaken.
    fn set(&mut self, saying: &Saying, now: u64) -> Option<Change> {
        let Saying { who, lease, .. } = saying;
        let order = (lease.0, lease.1, who.clone());
        let newest = self.newest.entry(order).or_default();
        if *newest >= saying.number || self.leases.get(lease).is_none_or(|end| *end < now) {
            return None;
        }
        *newest = saying.number;
        self.rooms[who.0].change(&who.1, now, |parts| {
            parts.retain(|other, _| (other.0, other.1) != (lease.0, lease.1));
            if saying.connections > 0 {
                parts.insert(*lease, saying.connections);
            }
        })
    }

    /// Takes out whatever was said under leases that are over.
    fn reap(&mut self, now: u64) -> Vec<(usize, Change)> {
        let mut changes = Vec::new();
        let over = |lease: &Lease| self.leases.get(lease).is_none_or(|end| *end < now);
        for (index, room) in self.rooms.iter_mut().enumerate() {
            for user in room.parts.keys().cloned().collect::<Vec<_>>() {
                let change = room.change(&user, now, |parts| parts.retain(|lease, _| !over(lease)));
                changes.extend(change.map(|change| (index, change)));
            }
        }
        self.leases.retain(|_, end| *end >= now);
        changes
    }

    pub fn roll(&self, room: usize, members: &Members) -> MemberPage {
        let listing = &self.rooms[room];
        let users = listing.users();
        let behind = |user: &&UserName| members.after.as_ref().is_none_or(|after| *user > after);
        let rest: Vec<&UserName> = users.keys().filter(behind).collect();
        let member = |user: &&UserName| Member {
            user: (*user).clone(),
            connections: users[*user],
            info: None,
        };
        // Short pages, so that there are several.
        let limit = members.limit.min(2);
        MemberPage {
            version: listing.version,
            members: rest.iter().take(limit).map(member).collect(),
            count: users.len() as u64,
            anonymous: u64::from(listing.sum(&None)),
            more: rest.len() > limit,
        }
    }

    /// Who is in the room, and how many anonymous sessions.
    pub fn listed(&self, room: usize) -> (BTreeMap<String, u32>, u32) {
        let users = self.rooms[room].users().into_iter();
        let users = users.map(|(user, connections)| (user.to_string(), connections));
        (users.collect(), self.rooms[room].sum(&None))
    }
}

impl Listing {
    fn sum(&self, user: &Option<UserName>) -> u32 {
        self.parts.get(user).map_or(0, |parts| parts.values().sum())
    }

    fn users(&self) -> BTreeMap<UserName, u32> {
        let named = |user: &Option<UserName>| Some((user.clone()?, self.sum(user)));
        self.parts.keys().filter_map(named).collect()
    }

    fn change(
        &mut self,
        user: &Option<UserName>,
        now: u64,
        change: impl FnOnce(&mut BTreeMap<Lease, u32>),
    ) -> Option<Change> {
        let was = self.sum(user);
        change(self.parts.entry(user.clone()).or_default());
        self.parts.retain(|_, parts| !parts.is_empty());
        let connections = self.sum(user);
        let user = user.clone().filter(|_| was != connections)?;
        let from = self.version;
        // It grows even if the store has forgotten the former ones.
        self.version = (from + 1).max(now * 1000);
        Some(Change {
            from,
            version: self.version,
            user,
            was,
            connections,
            info: None,
        })
    }
}

/// What a node's broker remembers of presence.
#[derive(Default)]
pub struct PresenceAgent {
    said: BTreeMap<Who, u32>,
    number: u64,
    lease: u32,
    held_since: u64,
    /// The lease is renewed no more.
    is_retired: bool,
}

impl World {
    pub fn say_here(&mut self, index: usize, here: SetPresence) {
        let who = (self.redis.index(&here.room), here.user);
        let node = &mut self.nodes[index];
        node.announcer.said.insert(who.clone(), here.connections);
        self.send_here(index, who);
    }

    fn send_here(&mut self, index: usize, who: Who) {
        let (now, node) = (self.now, &mut self.nodes[index]);
        node.announcer.number += 1;
        let lane = &mut node.lanes[PUBLISHES];
        if !lane.up {
            return;
        }
        lane.asked_at = lane.asked_at.max(now + self.random.u64(..=lane.delay));
        let at = lane.asked_at;
        let saying = Saying {
            connections: node.announcer.said[&who],
            who,
            lease: (index, node.life, node.announcer.lease),
            link: lane.link,
            number: node.announcer.number,
        };
        self.at(at, Happening::SetPresence(saying));
    }

    /// Says again all that was said, because some of it may not have been heard.
    pub fn say_all(&mut self, index: usize) {
        let said: Vec<Who> = self.nodes[index].announcer.said.keys().cloned().collect();
        for who in said {
            self.send_here(index, who);
        }
    }

    pub fn hear_here(&mut self, saying: Saying) {
        if self.redis.frozen_until > self.now {
            let at = self.redis.frozen_until;
            return self.at(at, Happening::SetPresence(saying));
        }
        let node = &self.nodes[saying.lease.0];
        let lane = &node.lanes[PUBLISHES];
        let is_current = node.life == saying.lease.1 && lane.link == saying.link;
        // What was on a connection that has been cut may have reached the store, but not behind the
        // next one.
        let is_last = node.life != saying.lease.1 || !lane.up;
        if is_current || (is_last && self.random.bool()) {
            let change = self.redis.presence.set(&saying, self.now);
            self.tell_changes(change.map(|change| (saying.who.0, change)));
        }
    }

    fn tell_changes(&mut self, changes: impl IntoIterator<Item = (usize, Change)>) {
        for (room, change) in changes {
            let name = self.redis.rooms[room].name.clone();
            self.note(|| format!("store: {name} {change:?}"));
            self.broadcast(room, |_| Push::Changed(name.clone(), change.clone()));
        }
    }

    pub fn retire(&mut self, index: usize, time: u64) {
        let node = &mut self.nodes[index];
        node.announcer.is_retired = true;
        let lease = (index, node.life, node.announcer.lease);
        if let Some(end) = self.redis.presence.leases.get_mut(&lease) {
            *end = self.now + time;
        }
    }

    /// Renews the node's lease, or takes a new one and says all anew; and reaps, if it has held its
    /// own long enough.
    pub fn tend_lease(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        if !node.lanes[PUBLISHES].up || self.redis.frozen_until > now || node.announcer.is_retired {
            return;
        }
        let lease = (index, node.life, node.announcer.lease);
        if !self.redis.presence.is_held(lease, now) {
            node.announcer.lease += 1;
            node.announcer.held_since = now;
            let lease = (index, node.life, node.announcer.lease);
            self.redis.presence.leases.insert(lease, now + LEASE);
            return self.say_all(index);
        }
        self.redis.presence.leases.insert(lease, now + LEASE);
        if node.announcer.held_since + LEASE <= now {
            let changes = self.redis.presence.reap(now);
            self.tell_changes(changes);
        }
    }

    /// Whether the store and every client know who is here.
    pub fn presence_rests(&self) -> bool {
        (0..self.names.len()).all(|room| {
            let (users, anonymous) = self.truly_here(room);
            let known = |client: &super::client::Client| {
                let here = client.rooms[room].as_ref();
                here.is_none_or(|here| {
                    here.view
                        .users()
                        .is_some_and(|known| known.eq(users.keys()))
                })
            };
            self.redis.presence.listed(room) == (users.clone(), anonymous)
                && self.clients.iter().all(known)
        })
    }

    /// Who is in the room by what the clients are: the truth.
    pub fn truly_here(&self, room: usize) -> (BTreeMap<String, u32>, u32) {
        let (mut users, mut anonymous) = (BTreeMap::new(), 0);
        for client in self
            .clients
            .iter()
            .filter(|client| client.rooms[room].is_some())
        {
            match client.user() {
                Some(user) => *users.entry(user.to_string()).or_default() += 1,
                None => anonymous += 1,
            }
        }
        (users, anonymous)
    }
}
