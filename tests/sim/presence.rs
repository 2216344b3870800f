//! A minimal model of presence in the store: what a node announces of its sessions is valid while
//! its lease is, a node that has held its own lease for a whole term reaps lapsed ones, and each
//! change raises the room's version. Also the part of a node's broker that announces presence: it
//! remembers what it announced, and repeats all of it after a loss of the connection or the lease.

use std::collections::BTreeMap;

use switchboard::broker::{Change, Member, MemberPage, MembersQuery, SetPresence};
use switchboard::model::id::UserName;

use super::node::{PUBLISHES, Push};
use super::world::{SimEvent, World};

/// How long a lease lasts without renewal.
const LEASE: u64 = 3_000;

/// A node, its life, and the number of its lease in that life.
pub type Lease = (usize, u32, u32);

/// A room and a user in it; `None` stands for the anonymous sessions.
pub type MemberKey = (usize, Option<UserName>);

#[derive(Default)]
pub struct Presence {
    rooms: Vec<Listing>,
    /// When each lease ends.
    leases: BTreeMap<Lease, u64>,
    /// The number of the newest update of each life of a node, room and user.
    newest: BTreeMap<(usize, u32, MemberKey), u64>,
    /// Versions up to this one are from before the store lost its data. A late push of one of them
    /// may contradict a list that was read afterwards.
    pub lost_up_to: u64,
}

/// A node's update: how many sessions of a user it has in a room.
pub struct PresenceUpdate {
    member: MemberKey,
    connections: u32,
    lease: Lease,
    /// The connection, and the number of the update among the node's.
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

    /// The store loses its data.
    pub fn clear(&mut self, now: u64) {
        *self = Self {
            lost_up_to: now * 1000,
            ..Self::new(self.rooms.len())
        };
    }

    fn is_held(&self, lease: Lease, now: u64) -> bool {
        self.leases.get(&lease).is_some_and(|end| *end >= now)
    }

    /// Applies an update. One under an expired lease changes nothing, nor does one that a later
    /// update of its node has overtaken.
    fn set(&mut self, update: &PresenceUpdate, now: u64) -> Option<Change> {
        let PresenceUpdate { member, lease, .. } = update;
        let order = (lease.0, lease.1, member.clone());
        let newest = self.newest.entry(order).or_default();
        if *newest >= update.number || self.leases.get(lease).is_none_or(|end| *end < now) {
            return None;
        }
        *newest = update.number;
        self.rooms[member.0].change(&member.1, now, |parts| {
            parts.retain(|other, _| (other.0, other.1) != (lease.0, lease.1));
            if update.connections > 0 {
                parts.insert(*lease, update.connections);
            }
        })
    }

    /// Removes what was announced under expired leases.
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

    pub fn member_page(&self, room: usize, query: &MembersQuery) -> MemberPage {
        let listing = &self.rooms[room];
        let users = listing.users();
        let is_after = |user: &&UserName| query.after.as_ref().is_none_or(|after| *user > after);
        let rest: Vec<&UserName> = users.keys().filter(is_after).collect();
        let listed = |user: &&UserName| Member {
            user: (*user).clone(),
            connections: users[*user],
            info: None,
        };
        // Short pages, so that a list has several.
        let limit = query.limit.min(2);
        MemberPage {
            version: listing.version,
            members: rest.iter().take(limit).map(listed).collect(),
            count: users.len() as u64,
            anonymous: u64::from(listing.sum(&None)),
            more: rest.len() > limit,
        }
    }

    /// The users in the room, and the number of anonymous sessions.
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
        // It grows even if the store has lost the former versions.
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

/// The presence that a node's broker has announced.
#[derive(Default)]
pub struct PresenceAgent {
    announced: BTreeMap<MemberKey, u32>,
    number: u64,
    lease: u32,
    held_since: u64,
    /// The lease is no longer renewed.
    is_retired: bool,
}

impl World {
    pub fn set_presence(&mut self, index: usize, presence: SetPresence) {
        let member = (self.redis.index(&presence.room), presence.user);
        let node = &mut self.nodes[index];
        node.presence_agent
            .announced
            .insert(member.clone(), presence.connections);
        self.send_presence(index, member);
    }

    fn send_presence(&mut self, index: usize, member: MemberKey) {
        let (now, node) = (self.now, &mut self.nodes[index]);
        node.presence_agent.number += 1;
        let pipeline = &mut node.pipelines[PUBLISHES];
        if !pipeline.up {
            return;
        }
        pipeline.sent_at = pipeline
            .sent_at
            .max(now + self.random.u64(..=pipeline.delay));
        let at = pipeline.sent_at;
        let update = PresenceUpdate {
            connections: node.presence_agent.announced[&member],
            member,
            lease: (index, node.life, node.presence_agent.lease),
            link: pipeline.link,
            number: node.presence_agent.number,
        };
        self.at(at, SimEvent::SetPresence(update));
    }

    /// Announces everything again, because some of it may not have arrived.
    pub fn announce_all(&mut self, index: usize) {
        let announced: Vec<MemberKey> = self.nodes[index]
            .presence_agent
            .announced
            .keys()
            .cloned()
            .collect();
        for member in announced {
            self.send_presence(index, member);
        }
    }

    pub fn receive_presence(&mut self, update: PresenceUpdate) {
        if self.redis.frozen_until > self.now {
            let at = self.redis.frozen_until;
            return self.at(at, SimEvent::SetPresence(update));
        }
        let node = &self.nodes[update.lease.0];
        let pipeline = &node.pipelines[PUBLISHES];
        let is_current = node.life == update.lease.1 && pipeline.link == update.link;
        // An update on a connection that has been cut may still arrive, but not after those of the
        // next one.
        let is_last = node.life != update.lease.1 || !pipeline.up;
        if is_current || (is_last && self.random.bool()) {
            let change = self.redis.presence.set(&update, self.now);
            self.broadcast_changes(change.map(|change| (update.member.0, change)));
        }
    }

    fn broadcast_changes(&mut self, changes: impl IntoIterator<Item = (usize, Change)>) {
        for (room, change) in changes {
            let name = self.redis.rooms[room].name.clone();
            self.note(|| format!("store: {name} {change:?}"));
            self.broadcast(room, |_| Push::Changed(name.clone(), change.clone()));
        }
    }

    pub fn retire(&mut self, index: usize, time: u64) {
        let node = &mut self.nodes[index];
        node.presence_agent.is_retired = true;
        let lease = (index, node.life, node.presence_agent.lease);
        if let Some(end) = self.redis.presence.leases.get_mut(&lease) {
            *end = self.now + time;
        }
    }

    /// Renews the node's lease, or takes a new one and announces everything again. Reaps expired
    /// leases, if it has held its own for a whole term.
    pub fn tend_lease(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        if !node.pipelines[PUBLISHES].up
            || self.redis.frozen_until > now
            || node.presence_agent.is_retired
        {
            return;
        }
        let lease = (index, node.life, node.presence_agent.lease);
        if !self.redis.presence.is_held(lease, now) {
            node.presence_agent.lease += 1;
            node.presence_agent.held_since = now;
            let lease = (index, node.life, node.presence_agent.lease);
            self.redis.presence.leases.insert(lease, now + LEASE);
            return self.announce_all(index);
        }
        self.redis.presence.leases.insert(lease, now + LEASE);
        if node.presence_agent.held_since + LEASE <= now {
            let changes = self.redis.presence.reap(now);
            self.broadcast_changes(changes);
        }
    }

    /// Whether the lists of the store and of every client are true.
    pub fn presence_is_settled(&self) -> bool {
        (0..self.names.len()).all(|room| {
            let (users, anonymous) = self.actual_members(room);
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

    /// The members of the room by the state of the clients: the reference.
    pub fn actual_members(&self, room: usize) -> (BTreeMap<String, u32>, u32) {
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
