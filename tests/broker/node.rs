//! A broker without a dispatcher: the test sends requests and reads the queue of events.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::value::RawValue;
use switchboard::broker::memory::Store;
use switchboard::broker::redis::{RedisSettings, wire};
use switchboard::broker::{
    Broker, BrokerEvent, LogRequest, Page, Payload, Publication, Publish, PublishKey,
    PublishRequest, Range, Read, Refused, Request, Settings, Source, redis,
};
use switchboard::metrics::Metrics;
use switchboard::model::id::{self, Epoch, Incarnation, Position, RoomName, Ticket, UserName};
use switchboard::model::readiness::{Readiness, ReadinessState};
use switchboard::model::retention::Retention;

use crate::support::DEADLINE;
use crate::support::redis_server::RedisServer;

/// Short, so that a test observes the time before and after it.
pub const LINGER: Duration = Duration::from_millis(300);

/// Short enough to wait for, and long enough for a busy machine.
pub const SHORT_LEASE: Duration = Duration::from_secs(3);

/// The broker that the nodes of a scenario share.
pub enum World {
    /// Made with the settings of the first node.
    Memory(OnceCell<Store>),
    Redis(RedisServer),
}

impl World {
    pub fn memory() -> Self {
        World::Memory(OnceCell::new())
    }

    pub fn redis() -> Self {
        World::Redis(RedisServer::start())
    }

    pub fn node(&self) -> BrokerNode {
        self.node_with(|_| {})
    }

    /// A node whose settings are changed first.
    pub fn node_with(&self, change: impl FnOnce(&mut Settings)) -> BrokerNode {
        match self {
            World::Redis(server) => BrokerNode::on_with(server, change),
            World::Memory(store) => {
                let mut settings = settings();
                change(&mut settings);
                let store = store.get_or_init(|| Store::new(&settings, fastrand::u64(..)));
                BrokerNode::made(|readiness, _, events| store.start(readiness, events)).ready()
            }
        }
    }
}

/// Defaults that fit a test.
pub fn settings() -> Settings {
    Settings {
        incarnation: Incarnation(id::random().expect("random bits")),
        retention: Retention::uniform(100, Duration::from_secs(60)),
        publish_timeout: Duration::from_secs(5),
        topic_linger: LINGER,
        newest_format: wire::Format::NEWEST,
        max_rooms: 1000,
        history_memory: 1 << 20,
        webhooks: None,
    }
}

/// A message in a test: its offset and its text.
pub type Entry = (u64, String);

pub struct BrokerNode {
    pub broker: Broker,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    pub events: flume::Receiver<BrokerEvent>,
    /// Events that arrived before the awaited one.
    kept: VecDeque<BrokerEvent>,
    next: u64,
}

impl BrokerNode {
    /// A node on a server, ready.
    pub fn on(server: &RedisServer) -> Self {
        Self::on_with(server, |_| {})
    }

    /// A node on a server whose settings are changed first, ready.
    pub fn on_with(server: &RedisServer, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self::redis(&[&server.url()], settings).ready()
    }

    /// A node that uses these addresses; it need not be ready.
    pub fn redis(urls: &[&str], settings: Settings) -> Self {
        let redis = RedisSettings {
            addresses: urls.iter().map(|url| url.parse().expect(url)).collect(),
            prefix: "sb".into(),
            authorities: None,
            allow_eviction: false,
            lease: SHORT_LEASE,
        };
        Self::with(redis, settings)
    }

    pub fn with(redis: RedisSettings, settings: Settings) -> Self {
        Self::made(|readiness, metrics, events| {
            redis::start(redis, settings, readiness, metrics, events).expect("the broker starts")
        })
    }

    fn made(
        start: impl FnOnce(Readiness, Arc<Metrics>, flume::Sender<BrokerEvent>) -> Broker,
    ) -> Self {
        let (sender, events) = flume::bounded(1024);
        let (readiness, metrics) = (Readiness::default(), Arc::new(Metrics::default()));
        Self {
            broker: start(readiness.clone(), metrics.clone(), sender),
            readiness,
            metrics,
            events,
            kept: VecDeque::new(),
            next: 0,
        }
    }

    pub fn ready(self) -> Self {
        self.until_ready(true);
        self
    }

    /// Waits until the node is ready, or not ready.
    pub fn until_ready(&self, wanted: bool) {
        let start = Instant::now();
        while (self.readiness.state() == ReadinessState::Ready) != wanted {
            assert!(
                start.elapsed() < DEADLINE,
                "ready is not {wanted} after {DEADLINE:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn ask(&mut self, request: impl FnOnce(Ticket) -> Request) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        assert!(self.broker.send(request(ticket)), "the broker has ended");
        ticket
    }

    /// The first event for which `wanted` has an answer; earlier others are kept for later.
    pub fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(&BrokerEvent) -> Option<T>) -> T {
        let found = self.kept.iter().enumerate();
        let found = found.map(|(at, event)| (at, wanted(event)));
        if let Some((at, Some(answer))) = found.into_iter().find(|(_, answer)| answer.is_some()) {
            self.kept.remove(at);
            return answer;
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            let Ok(event) = self.events.recv_deadline(deadline) else {
                panic!("no {what}; what came: {:?}", self.kept);
            };
            if let Some(answer) = wanted(&event) {
                return answer;
            }
            self.kept.push_back(event);
        }
    }

    /// Every event that arrived and was not taken.
    pub fn rest(&mut self) -> Vec<BrokerEvent> {
        self.kept.extend(self.events.try_iter());
        self.kept.drain(..).collect()
    }

    pub fn follow(&mut self, room: &str) {
        assert!(
            self.broker
                .send(Request::Log(LogRequest::Follow(name(room))))
        );
        self.following(room);
    }

    pub fn following(&mut self, room: &str) {
        self.wait("Following", |event| match event {
            BrokerEvent::Following(it) if it.as_str() == room => Some(()),
            _ => None,
        });
    }

    pub fn unfollow(&self, room: &str) {
        assert!(
            self.broker
                .send(Request::Log(LogRequest::Unfollow(name(room))))
        );
    }

    /// Publishes a text without waiting for the answer.
    pub fn send_publish(&mut self, room: &str, text: &str, form: Form<'_>) -> Ticket {
        let publication = Arc::new(Publication {
            user: form.user.map(|user| UserName::new(user).expect(user)),
            time: 1,
            except: None,
            event: form.binary.map(|_| text.into()),
            data: match form.binary {
                Some(bytes) => Payload::Binary(Bytes::from_static(bytes)),
                None => RawValue::from_string(format!("{text:?}"))
                    .expect("JSON")
                    .into(),
            },
        });
        let key = form.key.map(|key| PublishKey {
            publisher: publication.user.clone().into(),
            key: key.into(),
        });
        self.ask(|ticket| {
            Request::Log(LogRequest::Publish(PublishRequest {
                ticket,
                source: Source::Node,
                publish: Publish {
                    room: name(room),
                    key,
                    condition: form.condition,
                    ephemeral: form.ephemeral,
                    others: false,
                    publication,
                },
            }))
        })
    }

    /// The answer to a publish.
    pub fn answer(&mut self, to: Ticket) -> Result<Position, Refused> {
        self.wait("answer to the publish", |event| match event {
            BrokerEvent::Published { ticket, result } if *ticket == to => Some(*result),
            _ => None,
        })
    }

    pub fn try_publish(
        &mut self,
        room: &str,
        text: &str,
        form: Form<'_>,
    ) -> Result<Position, Refused> {
        let ticket = self.send_publish(room, text, form);
        self.answer(ticket)
    }

    pub fn publish(&mut self, room: &str, text: &str) -> Position {
        self.try_publish(room, text, Form::default()).expect(text)
    }

    pub fn try_read(&mut self, room: &str, range: Range, limit: usize) -> Result<Page, Refused> {
        let asked = self.ask(|ticket| {
            Request::Log(LogRequest::Read(Read {
                ticket,
                source: Source::Node,
                room: name(room),
                range,
                limit,
            }))
        });
        self.wait("page", |event| match event {
            BrokerEvent::Page { ticket, result } if *ticket == asked => Some(result.clone()),
            _ => None,
        })
    }

    pub fn read(&mut self, room: &str, range: Range, limit: usize) -> Page {
        self.try_read(room, range, limit).expect("a page")
    }

    pub fn top(&mut self, room: &str) -> Position {
        self.read(room, Range::Top, 0).top
    }

    /// The next message of a room.
    pub fn message(&mut self, room: &str) -> (Epoch, Entry) {
        self.wait("message", |event| match event {
            BrokerEvent::Message {
                room: it,
                epoch,
                offset,
                publication,
                ..
            } if it.as_str() == room => Some((*epoch, (*offset, text(publication)))),
            _ => None,
        })
    }

    /// Returns the message of a room with this text; others are skipped.
    pub fn wait_for_text(&mut self, room: &str, wanted: &str) -> (Epoch, Entry) {
        loop {
            let message = self.message(room);
            if message.1.1 == wanted {
                return message;
            }
        }
    }

    /// Waits until a publish is known not to have been sent: until then one that was is answered at
    /// once.
    pub fn until_link_lost(&mut self) {
        self.until_ready(false);
    }

    pub fn ephemeral(&mut self, room: &str) -> String {
        self.wait("ephemeral message", |event| match event {
            BrokerEvent::Ephemeral {
                room: it,
                publication,
                ..
            } if it.as_str() == room => Some(text(publication)),
            _ => None,
        })
    }
}

/// The options of a publish.
#[derive(Clone, Copy, Default)]
pub struct Form<'a> {
    pub user: Option<&'a str>,
    pub key: Option<&'a str>,
    pub ephemeral: bool,
    /// The position that the room must have.
    pub condition: Option<Position>,
    /// Binary data with the name of an event, in place of the text.
    pub binary: Option<&'static [u8]>,
}

impl<'a> Form<'a> {
    pub fn keyed(user: &'a str, key: &'a str) -> Self {
        Self {
            user: Some(user),
            key: Some(key),
            ..Self::default()
        }
    }
}

pub fn name(room: &str) -> RoomName {
    RoomName::new(room).expect(room)
}

pub fn text(publication: &Publication) -> String {
    match &publication.data {
        Payload::Json(json) => {
            serde_json::from_str(json.get()).unwrap_or_else(|_| json.get().to_owned())
        }
        Payload::Binary(bytes) => format!("{:?} {bytes:?}", publication.event),
    }
}

/// The messages of a page, as offsets and texts.
pub fn entries(page: &Page) -> Vec<Entry> {
    let messages = page.messages.iter();
    messages.map(|(offset, it)| (*offset, text(it))).collect()
}

pub fn offsets(page: &Page) -> Vec<u64> {
    page.messages.iter().map(|(offset, _)| *offset).collect()
}
