//! The store that all nodes share, as Redis is to a cluster: each room's log, the subscribers of
//! its topic, and every position that was ever assigned, which is the oracle's reference.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use switchboard::broker::{Page, Publish, Range, Read, Refused, Revoke, StoredRevocations};
use switchboard::model::epochs::PositionStatus;
use switchboard::model::history::Log;
use switchboard::model::id::{Epoch, Position, RoomName, UserName};
use switchboard::model::retention::LogLimits;
use switchboard::model::revocations::Cutoff;

use super::client::USERS;
use super::node::Sizes;
use super::presence::Presence;

/// What is left of a log whose epoch ends.
#[derive(Clone, Copy, Debug)]
pub enum Remains {
    /// Restarted, or failed over to a replica that had everything.
    All,
    /// Restored from a snapshot, or failed over to a replica that lagged.
    Older,
    /// Emptied.
    Nothing,
}

/// A connection that is subscribed: the node, its life, and the life of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    pub node: usize,
    pub life: u32,
    pub link: u32,
}

pub struct Room {
    pub name: RoomName,
    pub log: Log,
    pub subscribers: Vec<Subscriber>,
    /// The log has lost its tail and no node has detected it; until one has, publishes are refused.
    pub tail_lost: bool,
    /// Epochs that have lost a tail: a client with a position in one may receive a gap.
    pub torn: Vec<Epoch>,
    /// Older states of the log, to be restored.
    old: Vec<Log>,
    pub truth: Truth,
}

/// Every position ever assigned.
#[derive(Default)]
pub struct Truth {
    pub values: HashMap<(Epoch, u64), u64>,
    /// The end of the epoch before each epoch, unless that began with an empty log.
    began: HashMap<Epoch, Position>,
}

impl Truth {
    /// The value at a position; below the beginning of its epoch, that of an earlier epoch.
    pub fn at(&self, mut at: Position) -> Option<u64> {
        while let Some(former) = self.began.get(&at.epoch)
            && at.offset <= former.offset
        {
            at.epoch = former.epoch;
        }
        self.values.get(&(at.epoch, at.offset)).copied()
    }
}

/// The outcome of a publish.
pub struct Published {
    pub result: Result<Position, Refused>,
    /// It was added to the log, and is pushed to the subscribers.
    pub is_new: bool,
}

pub struct Redis {
    pub rooms: Vec<Room>,
    pub presence: Presence,
    /// Frozen until then, in milliseconds.
    pub frozen_until: u64,
    limits: LogLimits,
    page: usize,
    epochs: u64,
    /// The cutoffs of revoked users.
    revoked: BTreeMap<UserName, Cutoff>,
    /// A position that was assigned to two values, or a key that was published twice.
    pub reused: Option<String>,
}

impl Redis {
    /// Creates rooms of these names, followed by the personal room of each user.
    pub fn new(names: &[RoomName], sizes: &Sizes, now: Instant) -> Self {
        let personal = USERS.map(|user| UserName::new(user).expect("a name").room());
        let names: Vec<&RoomName> = names.iter().chain(&personal).collect();
        let limits = LogLimits {
            size: sizes.history_size,
            age: Duration::from_secs(3600),
        };
        let mut redis = Self {
            rooms: Vec::new(),
            presence: Presence::new(names.len()),
            frozen_until: 0,
            limits,
            page: sizes.page,
            epochs: 0,
            revoked: BTreeMap::new(),
            reused: None,
        };
        for name in names {
            let log = redis.fresh(now);
            redis.rooms.push(Room {
                name: name.clone(),
                log,
                subscribers: Vec::new(),
                tail_lost: false,
                torn: Vec::new(),
                old: Vec::new(),
                truth: Truth::default(),
            });
        }
        redis
    }

    pub fn index(&self, name: &RoomName) -> usize {
        let found = self.rooms.iter().position(|room| room.name == *name);
        found.expect("rooms are made with the schedule")
    }

    fn fresh(&mut self, now: Instant) -> Log {
        self.epochs += 1;
        Log::new(Epoch::new(self.epochs), now)
    }

    pub fn publish(&mut self, publish: &Publish, value: u64, now: Instant) -> Published {
        let (index, limits) = (self.index(&publish.room), self.limits);
        let room = &mut self.rooms[index];
        let nothing = |result| Published {
            result,
            is_new: false,
        };
        if room.tail_lost {
            return nothing(Err(Refused::Unavailable));
        }
        let known = publish.key.as_ref();
        let known = known.map(|key| room.log.position_of(key, &publish.publication, now));
        match known.unwrap_or(Ok(None)) {
            Ok(None) => {}
            Ok(Some(position)) => return nothing(Ok(position)),
            Err(refused) => return nothing(Err(refused)),
        }
        let mut positions = room
            .truth
            .values
            .iter()
            .filter(|(_, stored)| **stored == value);
        let is_kept = |position: (Epoch, u64)| {
            let (epoch, offset) = position;
            room.log.status(Position { epoch, offset }) == PositionStatus::Valid
        };
        if publish.key.is_some()
            && let Some((position, _)) = positions.find(|(position, _)| is_kept(**position))
        {
            self.reused = Some(format!(
                "{value} is at {position:?} and was published again"
            ));
        }
        room.old.push(room.log.clone());
        if room.old.len() > 4 {
            room.old.remove(0);
        }
        let publication = publish.publication.clone();
        let at = room
            .log
            .append(publication, publish.key.clone(), limits, now);
        let former = room.truth.values.insert((at.epoch, at.offset), value);
        if let Some(former) = former.filter(|former| *former != value) {
            self.reused = Some(format!("{at:?} was {former} and is {value}"));
        }
        Published {
            result: Ok(at),
            is_new: true,
        }
    }

    pub fn read(&mut self, read: &Read, now: Instant) -> Page {
        let index = self.index(&read.room);
        let limit = read.limit.min(self.page);
        self.epochs += 1;
        let room = &mut self.rooms[index];
        let former = room.log.top();
        let page = room
            .log
            .read(read.range, limit, Epoch::new(self.epochs), now);
        if room.log.epoch() != former.epoch {
            room.tail_lost = false;
            room.truth.began.insert(room.log.epoch(), former);
        }
        page
    }

    /// Writes cutoffs, and returns the users whose cutoff became greater.
    pub fn revoke(&mut self, revoke: &Revoke) -> Vec<UserName> {
        let mut changed = Vec::new();
        for (user, cutoff) in &revoke.cutoffs {
            if self.revoked.get(user) < Some(cutoff) {
                self.revoked.insert(user.clone(), *cutoff);
                changed.push(user.clone());
            }
        }
        changed
    }

    pub fn revocations(&self) -> StoredRevocations {
        let all = self.revoked.iter();
        StoredRevocations {
            cutoffs: all.map(|(user, cutoff)| (user.clone(), *cutoff)).collect(),
            data_set: "simulated".into(),
            is_confirmed: true,
            awaited: 0,
        }
    }

    /// The room's top, and the oldest offset that it still has.
    pub fn bounds(&mut self, room: usize, now: Instant) -> (Position, u64) {
        let page = self.rooms[room].log.page(Range::Top, 0, now);
        (page.top, page.first)
    }

    /// Whether the message after `at` is lost, or the position itself.
    pub fn has_lost(&mut self, room: usize, at: Position, now: Instant) -> bool {
        let (top, first) = self.bounds(room, now);
        top.epoch != at.epoch || first > at.offset + 1 || self.rooms[room].torn.contains(&at.epoch)
    }

    /// Whether the message at this position is gone, for another reason than its age.
    pub fn is_lost(&self, room: usize, at: Position) -> bool {
        self.rooms[room].log.status(at) != PositionStatus::Valid
    }

    /// The position of the gap that a client in an ended epoch must receive, if that is certain:
    /// the log has everything from its beginning and remembers the epoch.
    pub fn gap_at(&mut self, room: usize, former: Position, now: Instant) -> Option<Position> {
        let page = self.rooms[room].log.page(Range::Top, 0, now);
        let end = page.ends.end_of(former.epoch);
        let offset = end.filter(|_| page.first == 1 && former.epoch != page.top.epoch)?;
        Some(Position { offset, ..page.top })
    }

    /// Ends the room's epoch, as emptying, a restart, a restore or a failover does: the next read
    /// finds a new one.
    pub fn end_epoch(&mut self, room: usize, left: Remains, now: Instant) {
        let fresh = self.fresh(now);
        let room = &mut self.rooms[room];
        room.tail_lost = false;
        match left {
            Remains::All => {}
            Remains::Older => {
                if let Some(old) = room.old.first().cloned() {
                    room.log = old;
                }
                room.old.clear();
            }
            Remains::Nothing => {
                room.log = fresh;
                room.old.clear();
                return;
            }
        }
        room.truth.began.insert(fresh.epoch(), room.log.top());
        room.log.end_epoch(fresh.epoch());
    }

    /// The log loses its newest entries and keeps its epoch.
    pub fn lose_tail(&mut self, room: usize) -> bool {
        let room = &mut self.rooms[room];
        // Only a state of the same epoch: an older one has another epoch.
        let epoch = room.log.epoch();
        let mut old = room.old.iter().filter(|old| old.epoch() == epoch);
        let Some(old) = old.next().cloned() else {
            return false;
        };
        room.torn.push(old.epoch());
        room.log = old;
        room.old.clear();
        room.tail_lost = true;
        true
    }
}
