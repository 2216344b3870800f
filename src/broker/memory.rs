//! The embedded broker: the logs of all rooms in this process's memory, and who is in them. One
//! node needs nothing else; in tests several nodes share one [`Store`], which is then what Redis is
//! to a cluster.

mod list;
mod presence;
mod webhook_queue;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::{Either, select};

use super::{
    Broker, BrokerEvent, Page, Publish, Read, Refused, Request, Revoke, Settings, StoredRevocations,
};
use crate::model::history::{Log, Weight};
use crate::model::id::{Epoch, Position, RoomName, UserName};
use crate::model::readiness::Readiness;
use crate::model::retention::Retention;
use crate::model::revocations::{Cutoff, MOST};
use crate::model::webhook_event::Ask;
use crate::runtime;
use list::{List, Occupied};
use webhook_queue::WebhookQueue;

/// How often the store is tidied at most. It takes a few milliseconds for 100,000 rooms.
const TIDY: Duration = Duration::from_secs(5);

/// The rooms' logs and who follows them; clones are the same store.
#[derive(Clone)]
pub struct Store(Arc<Mutex<Shared>>);

struct Shared {
    retention: Retention,
    max_rooms: usize,
    rooms: HashMap<RoomName, Room>,
    /// Those in which somebody is.
    occupied: Occupied,
    /// What all logs may take in bytes, and what they take.
    memory: usize,
    used: Weight,
    /// Makes the epochs.
    random: fastrand::Rng,
    /// What each node is to be told. A node's queue holds at most what the nodes have asked and was
    /// not yet answered, which the dispatchers bound.
    nodes: Vec<Node>,
    /// The last version of any list of members.
    version: u64,
    tidied: Option<Instant>,
    /// What webhooks are to tell.
    notices: WebhookQueue,
    /// Whose tokens are revoked. It lives as long as its nodes, so it is always confirmed.
    revoked: HashMap<UserName, Cutoff>,
}

struct Node {
    events: flume::Sender<BrokerEvent>,
    /// It drains: it says no more who is here, and somebody else forgets what it has said.
    retired: bool,
}

struct Room {
    log: Log,
    /// Who is here, by indices into `nodes`.
    list: List<usize>,
    /// Indices into `nodes`.
    followers: Vec<usize>,
}

impl Room {
    /// Does something to the log, and keeps count of what all logs take.
    fn change<T>(&mut self, used: &mut Weight, change: impl FnOnce(&mut Log) -> T) -> T {
        let before = self.log.weight();
        let done = change(&mut self.log);
        let after = self.log.weight();
        used.messages = used.messages - before.messages + after.messages;
        used.keys = used.keys - before.keys + after.keys;
        done
    }

    /// Whether somebody follows it, or its log has something to tell.
    fn is_needed(&self, now: Instant) -> bool {
        !self.followers.is_empty() || !self.list.is_empty() || self.log.expires() > now
    }

    /// Gives up all that is counted, before the room goes.
    fn clear(&mut self, used: &mut Weight, now: Instant) {
        self.change(used, |log| *log = Log::new(log.epoch(), now));
    }
}

impl Store {
    /// An empty store. Equal seeds make equal epochs, so a node takes its seed at random.
    pub fn new(settings: &Settings, seed: u64) -> Self {
        let store = Self(Arc::new(Mutex::new(Shared {
            retention: settings.retention.clone(),
            max_rooms: settings.max_rooms,
            rooms: HashMap::new(),
            occupied: Occupied::default(),
            memory: settings.history_memory,
            used: Weight::default(),
            random: fastrand::Rng::with_seed(seed),
            nodes: Vec::new(),
            version: 0,
            tidied: None,
            notices: WebhookQueue::new(settings.webhooks.clone()),
            revoked: HashMap::new(),
        })));
        if let Some(wanted) = &settings.webhooks {
            runtime::spawn(store.clone().hand_out(wanted.asks.clone()));
        }
        store
    }

    /// Answers the deliverer until it ends.
    async fn hand_out(self, asks: flume::Receiver<Ask>) {
        while let Ok(ask) = asks.recv_async().await {
            let turn = self.lock().notices.turn(&ask, unix_millis());
            // The deliverer may have ended.
            let _ = ask.answer.try_send(turn);
        }
    }

    /// Lets a node take part; its events go to `inbox`, in order. Ends when the handle is dropped.
    pub fn start(&self, readiness: Readiness, inbox: flume::Sender<BrokerEvent>) -> Broker {
        let (asking, requests) = flume::unbounded();
        let (telling, events) = flume::unbounded();
        let node = {
            let mut shared = self.lock();
            shared.nodes.push(Node {
                events: telling,
                retired: false,
            });
            shared.nodes.len() - 1
        };
        readiness.set_broker(true);
        let store = self.clone();
        runtime::spawn(async move {
            store.serve(node, &requests, &events, &inbox).await;
        });
        Broker::new(asking)
    }

    async fn serve(
        &self,
        node: usize,
        requests: &flume::Receiver<Request>,
        events: &flume::Receiver<BrokerEvent>,
        inbox: &flume::Sender<BrokerEvent>,
    ) {
        loop {
            let event = match select(requests.recv_async(), events.recv_async()).await {
                Either::Left((Ok(request), _)) => {
                    self.apply(node, std::iter::once(request).chain(requests.try_iter()));
                    None
                }
                Either::Right((Ok(event), _)) => Some(event),
                Either::Left((Err(_), _)) | Either::Right((Err(_), _)) => break,
            };
            for event in event.into_iter().chain(events.try_iter()) {
                if inbox.send_async(event).await.is_err() {
                    return;
                }
            }
        }
        self.lock().ended(node);
    }

    fn apply(&self, node: usize, requests: impl Iterator<Item = Request>) {
        let now = Instant::now();
        let mut shared = self.lock();
        shared.tidy(now);
        for request in requests {
            match request {
                Request::Retire(span) => self.retire(node, span, &mut shared),
                request => shared.apply(node, request, now),
            }
        }
    }

    /// What the node has said of its members stands for this long, even when the node has ended by
    /// then.
    fn retire(&self, node: usize, span: Duration, shared: &mut Shared) {
        if std::mem::replace(&mut shared.nodes[node].retired, true) {
            return;
        }
        let store = self.clone();
        runtime::spawn(async move {
            runtime::sleep(span).await;
            store.lock().forget_members(node);
        });
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn apply(&mut self, node: usize, request: Request, now: Instant) {
        match request {
            Request::Follow(name) => {
                if let Some((room, _)) = self.room(&name, now) {
                    if !room.followers.contains(&node) {
                        room.followers.push(node);
                    }
                    self.tell(node, BrokerEvent::Following(name));
                }
            }
            Request::Unfollow(name) => {
                let crowded = self.is_crowded();
                if let Some(room) = self.rooms.get_mut(&name) {
                    room.followers.retain(|follower| *follower != node);
                    if crowded && !room.is_needed(now) {
                        // At once: the room that comes instead may be followed next.
                        room.clear(&mut self.used, now);
                        self.rooms.remove(&name);
                    }
                }
            }
            Request::Publish(publish) => {
                let ticket = publish.ticket;
                let result = self.publish(publish, now);
                self.tell(node, BrokerEvent::Published { ticket, result });
            }
            Request::Read(read) => {
                let ticket = read.ticket;
                let result = self.read(&read, now);
                self.tell(node, BrokerEvent::Page { ticket, result });
            }
            Request::SetPresence(here) => self.here(node, here, now),
            Request::Connected(connected) => self.connected(node, connected, now),
            Request::Members(members) => {
                let ticket = members.ticket;
                let result = Ok(self.roll(&members));
                self.tell(node, BrokerEvent::MemberPage { ticket, result });
            }
            Request::Census(census) => {
                let (ticket, result) = (census.ticket, Ok(self.find(&census.question)));
                self.tell(node, BrokerEvent::Found { ticket, result });
            }
            Request::Revoke(revoke) => {
                let (ticket, result) = (revoke.ticket, Ok(self.revoke(revoke)));
                self.tell(node, BrokerEvent::Revoked { ticket, result });
            }
            Request::ReadRevocations(read) => {
                let all = self.revoked.iter();
                let stored = StoredRevocations {
                    cutoffs: all.map(|(user, cutoff)| (user.clone(), *cutoff)).collect(),
                    data_set: "memory".into(),
                    is_confirmed: true,
                    awaited: 0,
                };
                let (ticket, result) = (read.ticket, Ok(stored));
                self.tell(node, BrokerEvent::Revocations { ticket, result });
            }
            // The store's, because it takes time.
            Request::Retire(_) => {}
        }
    }

    fn publish(&mut self, publish: Publish, now: Instant) -> Result<Position, Refused> {
        let Publish {
            room: name,
            publication,
            key,
            ephemeral,
            ..
        } = publish;
        if ephemeral {
            // It leaves no trace, so there need not be a room for it: nobody follows one that is
            // not there.
            let room = self.rooms.get(&name);
            let followers = room.map_or(&[][..], |room| &room.followers);
            for node in followers {
                let (room, publication) = (name.clone(), publication.clone());
                let received_at = BrokerEvent::Ephemeral {
                    room,
                    publication,
                    received_at: now,
                };
                self.tell(*node, received_at);
            }
            let epoch = Epoch::UNKNOWN;
            return Ok(Position { epoch, offset: 0 });
        }
        let limits = self.retention.of(&name);
        let memory = self.memory;
        let (room, used) = self.room(&name, now).ok_or(Refused::Full)?;
        if let Some(key) = &key {
            let known = room.change(used, |log| log.position_of(key, now));
            if let Some(position) = known {
                return Ok(position);
            }
            // A key is a promise for some minutes, so it does not give way as messages do.
            if used.keys + key.weight() > memory / 2 {
                return Err(Refused::Full);
            }
        }
        let said = publication.clone();
        let at = room.change(used, |log| log.append(said, key, limits, now));
        for node in room.followers.clone() {
            let (room, publication) = (name.clone(), publication.clone());
            let Position { epoch, offset } = at;
            self.tell(
                node,
                BrokerEvent::Message {
                    room,
                    epoch,
                    offset,
                    publication,
                    received_at: now,
                },
            );
        }
        self.make_room();
        Ok(at)
    }

    fn read(&mut self, read: &Read, now: Instant) -> Result<Page, Refused> {
        let fresh = Epoch::new(self.random.u64(..));
        let (room, used) = self.room(&read.room, now).ok_or(Refused::Full)?;
        Ok(room.change(used, |log| log.read(read.range, read.limit, fresh, now)))
    }

    /// Writes cutoffs, and returns the users whose cutoff is a greater one now.
    fn revoke(&mut self, revoke: Revoke) -> Vec<UserName> {
        let Revoke { cutoffs, kept, .. } = revoke;
        let mut changed = Vec::new();
        for (user, cutoff) in cutoffs {
            let former = self.revoked.get(&user);
            if former.is_none_or(|former| *former < cutoff) {
                self.revoked.insert(user.clone(), cutoff);
                changed.push(user);
            }
        }
        let over = kept.now.saturating_sub(kept.lifetime);
        self.revoked.retain(|_, cutoff| cutoff.through() >= over);
        while self.revoked.len() > MOST {
            let oldest = self.revoked.iter().min_by_key(|(_, cutoff)| **cutoff);
            if let Some(user) = oldest.map(|(user, _)| user.clone()) {
                self.revoked.remove(&user);
            }
        }
        changed.retain(|user| self.revoked.contains_key(user));
        changed
    }

    /// Keeps all logs within their memory: each room that holds more than half of the average gives
    /// up some of its oldest messages. Such rooms hold at least half of everything, so one look at
    /// all rooms frees a sixteenth of it: looks are rare, and small rooms do not pay for large
    /// ones.
    fn make_room(&mut self) {
        while self.used.messages + self.used.keys > self.memory && self.used.messages > 0 {
            let half = self.used.messages / self.rooms.len() / 2;
            for room in self.rooms.values_mut() {
                if room.log.weight().messages > half {
                    room.change(&mut self.used, Log::give_up_some);
                }
            }
        }
    }

    /// The room, made when it is new, and what all logs take. `None`: the store has as many rooms
    /// as it may, and all are needed.
    fn room(&mut self, name: &RoomName, now: Instant) -> Option<(&mut Room, &mut Weight)> {
        if !self.rooms.contains_key(name) {
            if self.rooms.len() >= self.max_rooms {
                return None;
            }
            let log = Log::new(Epoch::new(self.random.u64(..)), now);
            self.rooms.insert(
                name.clone(),
                Room {
                    log,
                    list: List::default(),
                    followers: Vec::new(),
                },
            );
        }
        Some((self.rooms.get_mut(name)?, &mut self.used))
    }

    /// Gives up messages and keys that are too old, now and then; and when it is crowded, also the
    /// positions of rooms that nobody follows.
    fn tidy(&mut self, now: Instant) {
        if self.tidied.is_some_and(|last| now < last + TIDY) {
            return;
        }
        self.tidied = Some(now);
        let crowded = self.is_crowded();
        self.rooms.retain(|_, room| {
            room.change(&mut self.used, |log| log.tidy(now));
            let kept = !crowded || room.is_needed(now);
            if !kept {
                room.clear(&mut self.used, now);
            }
            kept
        });
    }

    /// Whether half of all rooms that there may be are there.
    fn is_crowded(&self) -> bool {
        self.rooms.len() >= self.max_rooms / 2
    }

    /// A node that has ended hears nothing any more.
    fn tell(&self, node: usize, event: BrokerEvent) {
        let _ = self.nodes[node].events.send(event);
    }

    fn ended(&mut self, node: usize) {
        for room in self.rooms.values_mut() {
            room.followers.retain(|follower| *follower != node);
        }
        if !self.nodes[node].retired {
            self.forget_members(node);
        }
    }
}

/// Milliseconds since 1970. A clock that stands before is wrong anyway.
fn unix_millis() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
