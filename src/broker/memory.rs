//! The embedded broker: the logs and the members of all rooms, in this process's memory. A single
//! node needs no other; in tests several nodes share one [`Store`], as they would share a Redis.

mod list;
mod presence;
mod webhook_queue;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::{Either, select};

use super::{
    Broker, BrokerEvent, LogRequest, Page, PresenceRequest, Publish, Read, Refused, Request,
    Revoke, Settings, StoredRevocations,
};
use crate::model::history::{Log, Weight};
use crate::model::id::{Epoch, Position, RoomName, UserName};
use crate::model::readiness::Readiness;
use crate::model::retention::Retention;
use crate::model::revocations::{Cutoff, MOST};
use crate::model::webhook_event::WebhookPoll;
use crate::runtime;
use list::{Occupied, RoomMembers};
use webhook_queue::WebhookQueue;

/// The least time between two cleanups of the store. One takes a few milliseconds for 100,000
/// rooms.
const TIDY: Duration = Duration::from_secs(5);

/// The rooms' logs, members and followers; clones share one store.
#[derive(Clone)]
pub struct Store(Arc<Mutex<StoreState>>);

struct StoreState {
    retention: Retention,
    max_rooms: usize,
    rooms: HashMap<RoomName, StoreRoom>,
    /// The rooms that have members.
    occupied: Occupied,
    /// The most bytes that all logs may take, and the bytes that they take.
    memory: usize,
    used: Weight,
    /// The source of epochs.
    random: fastrand::Rng,
    /// The nodes and their event queues. A queue holds at most the answers to the unanswered
    /// requests, which the dispatchers bound.
    nodes: Vec<StoreNode>,
    /// The last version of any list of members.
    version: u64,
    tidied: Option<Instant>,
    /// The events for webhooks.
    webhook_events: WebhookQueue,
    /// The revocations. The set lives as long as its nodes, so it is always confirmed.
    revoked: HashMap<UserName, Cutoff>,
}

struct StoreNode {
    events: flume::Sender<BrokerEvent>,
    /// It drains: it sets no more presence, and a timer removes its members.
    retired: bool,
}

struct StoreRoom {
    log: Log,
    /// The members, through nodes as indices into `nodes`.
    list: RoomMembers<usize>,
    /// Indices into `nodes`.
    followers: Vec<usize>,
}

impl StoreRoom {
    /// Changes the log, and updates the bytes that all logs take.
    fn change<T>(&mut self, used: &mut Weight, change: impl FnOnce(&mut Log) -> T) -> T {
        let before = self.log.weight();
        let result = change(&mut self.log);
        let after = self.log.weight();
        used.messages = used.messages - before.messages + after.messages;
        used.keys = used.keys - before.keys + after.keys;
        result
    }

    /// Whether it has followers, members or messages that have not expired.
    fn is_needed(&self, now: Instant) -> bool {
        !self.followers.is_empty() || !self.list.is_empty() || self.log.expires() > now
    }

    /// Empties the log before the room is removed, so that the counts are right.
    fn clear(&mut self, used: &mut Weight, now: Instant) {
        self.change(used, |log| *log = Log::new(log.epoch(), now));
    }
}

impl Store {
    /// An empty store. Equal seeds make equal epochs, so a node uses a random seed.
    pub fn new(settings: &Settings, seed: u64) -> Self {
        let store = Self(Arc::new(Mutex::new(StoreState {
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
            webhook_events: WebhookQueue::new(settings.webhooks.clone()),
            revoked: HashMap::new(),
        })));
        if let Some(wanted) = &settings.webhooks {
            runtime::spawn(store.clone().answer_webhooks(wanted.polls.clone()));
        }
        store
    }

    /// Answers the deliverer of webhook events until it ends.
    async fn answer_webhooks(self, polls: flume::Receiver<WebhookPoll>) {
        while let Ok(poll) = polls.recv_async().await {
            let turn = self.lock().webhook_events.turn(&poll, unix_millis());
            // The deliverer may have ended.
            let _ = poll.answer.try_send(turn);
        }
    }

    /// Adds a node; its events go to `inbox`, in order. Ends when the handle is dropped.
    pub fn start(&self, readiness: Readiness, inbox: flume::Sender<BrokerEvent>) -> Broker {
        let (requests_to, requests) = flume::unbounded();
        let (events_to, events) = flume::unbounded();
        let node = {
            let mut shared = self.lock();
            shared.nodes.push(StoreNode {
                events: events_to,
                retired: false,
            });
            shared.nodes.len() - 1
        };
        readiness.set_broker(true);
        let store = self.clone();
        runtime::spawn(async move {
            store.serve(node, &requests, &events, &inbox).await;
        });
        Broker::new(requests_to)
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
        self.lock().remove_node(node);
    }

    fn apply(&self, node: usize, requests: impl Iterator<Item = Request>) {
        let now = Instant::now();
        let mut shared = self.lock();
        shared.tidy(now);
        for request in requests {
            match request {
                Request::Presence(PresenceRequest::Retire(span)) => {
                    self.retire(node, span, &mut shared)
                }
                Request::Presence(request) => shared.apply_to_presence(node, request, now),
                Request::Log(request) => shared.apply_to_logs(node, request, now),
            }
        }
    }

    /// Removes the node's members after this time, even if the node has ended by then.
    fn retire(&self, node: usize, span: Duration, shared: &mut StoreState) {
        if std::mem::replace(&mut shared.nodes[node].retired, true) {
            return;
        }
        let store = self.clone();
        runtime::spawn(async move {
            runtime::sleep(span).await;
            store.lock().remove_members(node);
        });
    }

    fn lock(&self) -> MutexGuard<'_, StoreState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoreState {
    fn apply_to_logs(&mut self, node: usize, request: LogRequest, now: Instant) {
        match request {
            LogRequest::Follow(name) => {
                if let Some((room, _)) = self.room(&name, now) {
                    if !room.followers.contains(&node) {
                        room.followers.push(node);
                    }
                    self.send(node, BrokerEvent::Following(name));
                }
            }
            LogRequest::Unfollow(name) => {
                let crowded = self.is_crowded();
                if let Some(room) = self.rooms.get_mut(&name) {
                    room.followers.retain(|follower| *follower != node);
                    if crowded && !room.is_needed(now) {
                        // At once: the next request may need the place.
                        room.clear(&mut self.used, now);
                        self.rooms.remove(&name);
                    }
                }
            }
            LogRequest::Publish(request) => {
                let (ticket, result) = (request.ticket, self.publish(request.publish, now));
                self.send(node, BrokerEvent::Published { ticket, result });
            }
            LogRequest::Read(read) => {
                let ticket = read.ticket;
                let result = self.read(&read, now);
                self.send(node, BrokerEvent::Page { ticket, result });
            }
            LogRequest::Revoke(revoke) => {
                let (ticket, result) = (revoke.ticket, Ok(self.revoke(revoke)));
                self.send(node, BrokerEvent::Revoked { ticket, result });
            }
            LogRequest::ReadRevocations(read) => {
                let all = self.revoked.iter();
                let stored = StoredRevocations {
                    cutoffs: all.map(|(user, cutoff)| (user.clone(), *cutoff)).collect(),
                    data_set: "memory".into(),
                    is_confirmed: true,
                    awaited: 0,
                };
                let (ticket, result) = (read.ticket, Ok(stored));
                self.send(node, BrokerEvent::Revocations { ticket, result });
            }
        }
    }

    fn apply_to_presence(&mut self, node: usize, request: PresenceRequest, now: Instant) {
        match request {
            PresenceRequest::SetPresence(presence) => self.set_presence(node, presence, now),
            PresenceRequest::Connected(connected) => self.set_connection(node, connected, now),
            PresenceRequest::Members(request) => {
                let (ticket, result) = (request.ticket, Ok(self.member_page(&request.query)));
                self.send(node, BrokerEvent::MemberPage { ticket, result });
            }
            PresenceRequest::ClusterQuery(request) => {
                let (ticket, result) = (request.ticket, Ok(self.query(&request.query)));
                self.send(node, BrokerEvent::QueryResult { ticket, result });
            }
            // `Store::apply` handles it, because it takes time.
            PresenceRequest::Retire(_) => {}
        }
    }

    fn publish(&mut self, publish: Publish, now: Instant) -> Result<Position, Refused> {
        let Publish {
            room: name,
            publication,
            key,
            condition,
            ephemeral,
            others: _,
        } = publish;
        if ephemeral {
            // It is not stored, so it needs no room: a room that does not exist has no followers.
            let room = self.rooms.get(&name);
            let followers = room.map_or(&[][..], |room| &room.followers);
            for node in followers {
                let (room, publication) = (name.clone(), publication.clone());
                let event = BrokerEvent::Ephemeral {
                    room,
                    publication,
                    received_at: now,
                };
                self.send(*node, event);
            }
            let epoch = Epoch::UNKNOWN;
            return Ok(Position { epoch, offset: 0 });
        }
        let limits = self.retention.of(&name);
        let memory = self.memory;
        let (room, used) = self.room(&name, now).ok_or(Refused::Full)?;
        if let Some(key) = &key {
            let known = room.change(used, |log| log.position_of(key, &publication, now))?;
            if let Some(position) = known {
                return Ok(position);
            }
            // A key must be kept for some minutes, so it is not evicted as messages are.
            if used.keys + key.weight() > memory / 2 {
                return Err(Refused::Full);
            }
        }
        if condition.is_some_and(|at| at != room.log.top()) {
            return Err(Refused::Conflict);
        }
        let appended = publication.clone();
        let at = room.change(used, |log| log.append(appended, key, limits, now));
        for node in room.followers.clone() {
            let (room, publication) = (name.clone(), publication.clone());
            let Position { epoch, offset } = at;
            self.send(
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

    /// Writes cutoffs, and returns the users whose cutoff has become greater.
    fn revoke(&mut self, revoke: Revoke) -> Vec<UserName> {
        let Revoke {
            cutoffs, retention, ..
        } = revoke;
        let mut changed = Vec::new();
        for (user, cutoff) in cutoffs {
            let former = self.revoked.get(&user);
            if former.is_none_or(|former| *former < cutoff) {
                self.revoked.insert(user.clone(), cutoff);
                changed.push(user);
            }
        }
        let over = retention.now.saturating_sub(retention.lifetime);
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

    /// Keeps all logs within their memory: each room that holds more than half of the average drops
    /// some of its oldest messages. Such rooms hold at least half of all bytes, so one pass over
    /// all rooms frees a sixteenth of them: passes are rare, and small rooms lose nothing to large
    /// ones.
    fn make_room(&mut self) {
        while self.used.messages + self.used.keys > self.memory && self.used.messages > 0 {
            let half = self.used.messages / self.rooms.len() / 2;
            for room in self.rooms.values_mut() {
                if room.log.weight().messages > half {
                    room.change(&mut self.used, Log::drop_oldest);
                }
            }
        }
    }

    /// The room, created if it is new, and the bytes that all logs take. `None`: the store is full
    /// of rooms that are needed.
    fn room(&mut self, name: &RoomName, now: Instant) -> Option<(&mut StoreRoom, &mut Weight)> {
        if !self.rooms.contains_key(name) {
            if self.rooms.len() >= self.max_rooms {
                return None;
            }
            let log = Log::new(Epoch::new(self.random.u64(..)), now);
            self.rooms.insert(
                name.clone(),
                StoreRoom {
                    log,
                    list: RoomMembers::default(),
                    followers: Vec::new(),
                },
            );
        }
        Some((self.rooms.get_mut(name)?, &mut self.used))
    }

    /// Removes expired messages and keys, every [`TIDY`]; and if the store is crowded, also the
    /// positions of rooms without followers.
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

    /// Whether the store has half of the most rooms or more.
    fn is_crowded(&self) -> bool {
        self.rooms.len() >= self.max_rooms / 2
    }

    /// Sends an event to a node, unless it has ended.
    fn send(&self, node: usize, event: BrokerEvent) {
        let _ = self.nodes[node].events.send(event);
    }

    fn remove_node(&mut self, node: usize) {
        for room in self.rooms.values_mut() {
            room.followers.retain(|follower| *follower != node);
        }
        if !self.nodes[node].retired {
            self.remove_members(node);
        }
    }
}

/// Milliseconds since 1970; 0 for a clock before that.
fn unix_millis() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
