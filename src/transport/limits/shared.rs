//! What all sessions of a user share, and what all anonymous sessions of an address share: buckets
//! that outlive connections, so that a client gains nothing by connecting anew. They belong to one
//! node. Signed-in sessions do not count for their address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::addresses::Subscriber;
use super::quota::{Buckets, Charge};
use super::recent_rooms::RecentRooms;
use super::{Bucket, IngressLimits, Rate};
use crate::model::id::{RoomName, UserName};

/// The sessions at whose rate all sessions of a user are read together: some tabs and a phone.
const USER_SESSIONS: u32 = 4;

/// The same of the anonymous sessions of an address, which may be a school's.
const ADDRESS_SESSIONS: u32 = 20;

/// New anonymous connections of an address, per second.
const CONNECTIONS: usize = 200;

/// How many seconds' worth of new connections an address may have at once: about as many as it may
/// have open, for the reconnects after a node has stopped.
const CONNECTION_BURST: u64 = 5;

/// The parts of the rooms of a node that it may have because of one user, and of one address.
const USER_PART: usize = 50;
const ADDRESS_PART: usize = 10;

/// The most entries of the table. One takes 300 bytes, and with many recent rooms some kilobytes.
const ENTRIES: usize = 65_536;

/// Entries below which the table is not searched for full buckets.
const FEW: usize = 1024;

/// The users and addresses of a node whose buckets are not full, and those with sessions.
#[derive(Debug)]
pub struct SharedQuotas {
    limits: SharedLimits,
    table: Mutex<Table>,
}

/// The limits of users and addresses that follow from those of a node.
#[derive(Clone, Copy, Debug)]
pub struct SharedLimits {
    pub rooms_per_session: usize,
    pub max_rooms: usize,
}

#[derive(Debug)]
struct Table {
    entries: HashMap<Owner, Arc<SharedQuota>>,
    /// The number of entries at which those with full buckets are removed.
    sweep_at: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    User(UserName),
    Address(Subscriber),
}

impl Owner {
    fn sessions(&self) -> u32 {
        match self {
            Owner::User(_) => USER_SESSIONS,
            Owner::Address(_) => ADDRESS_SESSIONS,
        }
    }
}

/// The buckets of one user or address.
#[derive(Debug)]
pub(crate) struct SharedQuota {
    /// As many sessions' rates it has.
    sessions: u32,
    buckets: Buckets,
    connections: Bucket,
    recent_rooms: Mutex<RecentRooms>,
    /// How many rooms each of its sessions may have.
    rooms_per_session: usize,
    /// The rooms of the node that one of its sessions was the first to join.
    rooms: AtomicUsize,
    max_rooms: usize,
}

/// The permit of a room that the node has because of one user or address; dropping it returns the
/// permit.
#[derive(Debug)]
pub(crate) struct RoomPermit(Arc<SharedQuota>);

impl Drop for RoomPermit {
    fn drop(&mut self) {
        self.0.rooms.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SharedQuotas {
    pub fn new(limits: SharedLimits) -> Self {
        let table = Table {
            entries: HashMap::new(),
            sweep_at: FEW,
        };
        Self {
            limits,
            table: Mutex::new(table),
        }
    }

    pub(crate) fn of_user(&self, user: &UserName, now: u64) -> Arc<SharedQuota> {
        self.get(Owner::User(user.clone()), now)
    }

    pub(crate) fn of_address(&self, address: IpAddr, now: u64) -> Arc<SharedQuota> {
        self.get(Owner::Address(Subscriber::of(address)), now)
    }

    fn get(&self, owner: Owner, now: u64) -> Arc<SharedQuota> {
        let mut table = self.lock();
        if let Some(quota) = table.entries.get(&owner) {
            return quota.clone();
        }
        if table.entries.len() >= table.sweep_at {
            table.sweep(now);
        }
        let part = match owner {
            Owner::User(_) => USER_PART,
            Owner::Address(_) => ADDRESS_PART,
        };
        let SharedLimits {
            rooms_per_session,
            max_rooms,
        } = self.limits;
        let quota = Arc::new(SharedQuota {
            sessions: owner.sessions(),
            buckets: Buckets::default(),
            connections: Bucket::default(),
            recent_rooms: Mutex::default(),
            rooms_per_session,
            rooms: AtomicUsize::new(0),
            max_rooms: rooms_per_session.max(max_rooms / part),
        });
        table.entries.insert(owner, quota.clone());
        quota
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic of a holder leaves no inconsistent state.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Removes the entries that are as good as new ones. If the table is too large nevertheless,
    /// removes those without sessions that will be full first, down to a half: their clients gain
    /// the least. What sessions hold is bounded by the connections of the node.
    fn sweep(&mut self, now: u64) {
        let unused = |quota: &Arc<SharedQuota>| Arc::strong_count(quota) == 1;
        self.entries
            .retain(|_, quota| !unused(quota) || quota.full_at() > now);
        if self.entries.len() > ENTRIES / 2 {
            let idle = self.entries.values().filter(|quota| unused(quota));
            let mut times: Vec<u64> = idle.map(|quota| quota.full_at()).collect();
            let excess = (self.entries.len() - ENTRIES / 2).min(times.len());
            if let Some(last) = excess.checked_sub(1) {
                let limit = *times.select_nth_unstable(last).1;
                self.entries
                    .retain(|_, quota| !unused(quota) || quota.full_at() > limit);
            }
        }
        let len = self.entries.len();
        self.sweep_at = (2 * len).clamp(FEW, ENTRIES.max(len + FEW));
        if self.entries.capacity() > 4 * len + FEW {
            self.entries.shrink_to(2 * len);
        }
    }
}

impl SharedQuota {
    /// Charges commands and bytes, and returns how long none of its sessions must be read.
    pub(super) fn charge(&self, limits: &IngressLimits, what: Charge) -> Duration {
        self.buckets.charge(limits, self.sessions, what)
    }

    /// Counts a new connection. Returns whether it may be accepted.
    pub(crate) fn connect(&self, now: u64) -> bool {
        let rate = Rate::new(CONNECTIONS, CONNECTION_BURST);
        rate.is_none_or(|rate| self.connections.try_take(&rate, now))
    }

    /// Counts the use of a room. Returns whether it may be used: rooms used recently always may.
    pub(crate) fn use_room(&self, room: &RoomName, now: u64) -> bool {
        let recent = self.recent_rooms.lock();
        let mut recent = recent.unwrap_or_else(PoisonError::into_inner);
        recent.use_room(room, self.sessions, self.rooms_per_session, now)
    }

    /// Acquires a permit for a room that the node has not yet; `None` if it has its part of them.
    pub(crate) fn open_room(self: &Arc<Self>) -> Option<RoomPermit> {
        let more = |rooms: usize| (rooms < self.max_rooms).then_some(rooms + 1);
        let added = (self.rooms).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        added.ok().map(|_| RoomPermit(self.clone()))
    }

    /// When it will be as good as new. Room permits hold it besides.
    fn full_at(&self) -> u64 {
        let recent = self.recent_rooms.lock();
        let recent = recent.unwrap_or_else(PoisonError::into_inner);
        let buckets = self.buckets.full_at().max(self.connections.full_at());
        buckets.max(recent.full_at())
    }
}

#[cfg(test)]
mod tests;
