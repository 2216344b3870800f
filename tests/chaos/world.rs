//! A scenario's world: the cluster, the clients, the publications, and the history of it all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use switchboard::runtime;

use crate::client::{self, ControlCommand, Handle};
use crate::cluster::Cluster;
use crate::history::{Ends, Event, Loss, Recorder, Rooms};
use crate::presence;
use crate::run::Setting;
use crate::survivors;

/// The load of a run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub name: &'static str,
    pub clients: usize,
    pub rooms: usize,
    /// Publications per second, of all publishers together.
    pub rate: u32,
    /// Before the first fault.
    pub quiet: Duration,
    /// After the last one.
    pub after: Duration,
    /// Clients of a herd.
    pub herd: usize,
    /// A scenario's own times are multiplied by this, where faults.md asks for long ones.
    pub long: bool,
}

impl Load {
    pub const SMALL: Load = Load {
        name: "small",
        clients: 100,
        rooms: 10,
        rate: 100,
        quiet: Duration::from_secs(3),
        after: Duration::from_secs(4),
        herd: 1000,
        long: false,
    };

    pub const STANDARD: Load = Load {
        name: "standard",
        clients: 1000,
        rooms: 50,
        rate: 200,
        quiet: Duration::from_secs(20),
        after: Duration::from_secs(20),
        herd: 10_000,
        long: true,
    };
}

/// Clients that also publish, one publication after the other.
const PUBLISHERS: usize = 8;

/// Bytes of an ordinary publication.
const PAYLOAD: usize = 200;

/// How long clients may take to end: one may be waiting for a handshake.
const ENDED: Duration = Duration::from_secs(20);

pub struct World {
    pub cluster: Cluster,
    pub load: Load,
    pub recorder: Recorder,
    pub random: fastrand::Rng,
    pub clients: Vec<Handle>,
    /// How many frames the harness itself has mutated.
    pub changed: Arc<AtomicU64>,
    seed: u64,
    slack: u32,
    publishing: Arc<AtomicBool>,
    /// The last number of each publisher.
    numbers: Arc<Vec<AtomicU64>>,
}

impl World {
    pub fn new(
        cluster: Cluster,
        setting: &Setting,
        recorder: Recorder,
        changed: Arc<AtomicU64>,
    ) -> Self {
        Self {
            cluster,
            load: setting.load,
            recorder,
            random: fastrand::Rng::with_seed(setting.seed),
            clients: Vec::new(),
            changed,
            seed: setting.seed,
            slack: setting.slack,
            publishing: Arc::new(AtomicBool::new(false)),
            numbers: Arc::new((0..PUBLISHERS).map(|_| AtomicU64::new(0)).collect()),
        }
    }

    /// The names of the ordinary rooms.
    pub fn rooms(&self) -> Vec<String> {
        (0..self.load.rooms).map(|n| format!("room{n}")).collect()
    }

    /// Starts the clients of the load. Half of the publishers are in every room, half in none but
    /// publish to all; the others are in one room each: most of them users with two connections
    /// there, a fifth of them visitors.
    pub fn start_clients(&mut self) {
        let rooms = self.rooms();
        for number in 0..self.load.clients {
            let (room, layer) = (number % rooms.len(), number / rooms.len());
            match number {
                0..PUBLISHERS if number % 2 == 0 => self.start_user(format!("u{number}"), &rooms),
                0..PUBLISHERS => self.start_user(format!("u{number}"), &[]),
                _ if layer % 5 == 4 => self.start_client(&rooms[room..][..1]),
                _ => self.start_user(format!("r{room}-{}", layer / 2), &rooms[room..][..1]),
            }
        }
    }

    /// Starts one more client, a visitor.
    pub fn start_client(&mut self, rooms: &[String]) {
        self.start(None, rooms);
    }

    fn start_user(&mut self, user: String, rooms: &[String]) {
        self.start(Some(user), rooms);
    }

    fn start(&mut self, user: Option<String>, rooms: &[String]) {
        let (number, address) = (self.clients.len(), self.cluster.nginx.address);
        let client = client::start(number, user, address, rooms, &self.recorder, self.seed);
        self.clients.push(client);
    }

    /// Waits until these clients are in all their rooms; returns how long that took.
    pub async fn until_joined(
        &self,
        clients: std::ops::Range<usize>,
        limit: Duration,
    ) -> Option<Duration> {
        let start = Instant::now();
        while !self.clients[clients.clone()]
            .iter()
            .all(|client| client.glance().joined)
        {
            if start.elapsed() > limit {
                return None;
            }
            runtime::sleep(Duration::from_millis(20)).await;
        }
        Some(start.elapsed())
    }

    /// Begins to publish, at an even rate and to random rooms.
    pub fn publish(&self) {
        self.recorder.note(Event::Load { on: true });
        self.publishing.store(true, Ordering::Relaxed);
        let interval = Duration::from_secs(1) * PUBLISHERS as u32 / self.load.rate;
        for (index, client) in self.clients.iter().take(PUBLISHERS).cloned().enumerate() {
            let (publishing, numbers) = (self.publishing.clone(), self.numbers.clone());
            let rooms = self.rooms();
            let mut random = fastrand::Rng::with_seed(self.seed.wrapping_add(index as u64));
            let mut next = Instant::now() + interval.mul_f64(random.f64());
            runtime::spawn(async move {
                while publishing.load(Ordering::Relaxed) {
                    runtime::sleep(next.saturating_duration_since(Instant::now())).await;
                    next += interval;
                    let room = &rooms[random.usize(..rooms.len())];
                    let seq = numbers[index].fetch_add(1, Ordering::Relaxed) + 1;
                    client.publish(room, seq, PAYLOAD);
                }
            });
        }
    }

    /// Publishes one message of `size` bytes, by one of the publishers.
    pub fn publish_one(&self, publisher: usize, room: &str, size: usize) {
        let seq = self.numbers[publisher].fetch_add(1, Ordering::Relaxed) + 1;
        self.clients[publisher].publish(room, seq, size);
    }

    pub fn stop_publishing(&self) {
        if self.publishing.swap(false, Ordering::Relaxed) {
            self.recorder.note(Event::Load { on: false });
        }
    }

    pub fn fault(&self, what: impl Into<String>) {
        self.note_fault(what.into(), None);
    }

    /// Records a fault that ends the epoch of these rooms, and what it may lose.
    pub fn ending_fault(&self, what: impl Into<String>, rooms: Rooms, loss: Loss) {
        self.note_fault(what.into(), Some(Ends { rooms, loss }));
    }

    fn note_fault(&self, what: String, ends: Option<Ends>) {
        self.recorder.note(Event::Fault { what, ends });
    }

    /// Records that everything acknowledged so far survives the loss of a tail. Call it before the
    /// snapshot is taken, so that nothing acknowledged later counts.
    pub fn saved(&self) {
        self.recorder.note(Event::Saved);
    }

    /// Records that Redis is down from here on, or up again.
    pub fn absent(&self, on: bool) {
        self.recorder.note(Event::Absent { on });
    }

    pub fn healed(&self) {
        self.recorder.note(Event::Healed);
    }

    pub async fn sleep(&self, seconds: f64) {
        runtime::sleep(Duration::from_secs_f64(seconds)).await;
    }

    /// Records whether something happened within its threshold.
    pub fn within(&self, what: &str, took: Option<Duration>, bar: Duration) {
        let bar = bar * self.slack;
        let held = took.is_some_and(|took| took <= bar);
        let found = took.map_or("never".into(), |took| {
            format!("{:.2} s", took.as_secs_f64())
        });
        let what = format!("{what} within {:.1} s", bar.as_secs_f64());
        self.recorder.check(&what, held, found);
    }

    /// The number of clients on this node.
    pub fn clients_on(&self, label: &str) -> usize {
        let on = |client: &&Handle| client.glance().node.as_deref() == Some(label);
        self.clients.iter().filter(on).count()
    }

    /// Waits until every publish has a reply and all members of a room are at one position, or
    /// until `timeout`; then every client records its positions.
    pub async fn end(&mut self, timeout: Duration) {
        self.stop_publishing();
        let start = Instant::now();
        let mut calm_since = None;
        while start.elapsed() < timeout {
            match (self.is_calm(), calm_since) {
                (false, _) => calm_since = None,
                (true, None) => calm_since = Some(Instant::now()),
                (true, Some(since)) if since.elapsed() > Duration::from_millis(500) => break,
                (true, Some(_)) => {}
            }
            runtime::sleep(Duration::from_millis(50)).await;
        }
        let rest = format!("{:.1} s", start.elapsed().as_secs_f64());
        self.recorder.figure("came to rest in", rest);
        presence::ask(&self.clients, &self.recorder, timeout).await;
        survivors::ask(&self.clients, &self.recorder, timeout).await;
        for client in &self.clients {
            client.order(ControlCommand::End);
        }
        let start = Instant::now();
        while !self.clients.iter().all(Handle::is_over) && start.elapsed() < ENDED {
            runtime::sleep(Duration::from_millis(20)).await;
        }
    }

    fn is_calm(&self) -> bool {
        let mut places = BTreeMap::new();
        self.clients.iter().all(|client| {
            let glance = client.glance();
            glance.joined
                && glance.unanswered == 0
                && (glance.positions.iter()).all(|(room, position)| {
                    position.is_some()
                        && places
                            .entry(room.clone())
                            .or_insert_with(|| position.clone())
                            == position
                })
        })
    }
}
