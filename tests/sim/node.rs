//! A node: a real dispatcher, and a model of the tasks around it. The broker's tasks keep three
//! connections to the store; each keeps order, but there is none between them. The writers drain
//! real outboxes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use switchboard::broker::redis::topics::Topics;
use switchboard::broker::{
    BrokerEvent, Change, MemberPage, MembersRequest, PublishRequest, Read, ReadRevocations,
    Refused, Revoke, StoredRevocations,
};
use switchboard::dispatcher::{Dispatcher, Event, Now, Settings};
use switchboard::metrics::Metrics;
use switchboard::model::id::{Epoch, Incarnation, Position, RoomName, SessionId, UserName};
use switchboard::model::publication::{Page, Publication};
use switchboard::model::retention::Retention;
use switchboard::model::rights::Rights;
use switchboard::outbox::{Chunk, Outbox, OutboxLimits, OutboxReader, outbox};
use switchboard::presence::PresenceSettings;
use switchboard::protocol::{Command, Protocol};

use super::presence::PresenceAgent;

/// Buffers of one write, as in the real writer.
const BATCH: usize = 64;

/// An input to a node.
pub enum Input {
    Accept {
        client: usize,
        conn: u32,
    },
    Command {
        client: usize,
        conn: u32,
        id: u64,
        command: Command,
    },
    SignIn {
        client: usize,
        conn: u32,
        id: u64,
        user: UserName,
    },
    Pong {
        client: usize,
        conn: u32,
    },
    Closed {
        client: usize,
        conn: u32,
    },
    Drain(Duration),
    Tick,
    Answer {
        link: u32,
        number: u64,
        answer: Answer,
    },
    Push {
        link: u32,
        push: Push,
    },
    Deadline {
        pipeline: usize,
        number: u64,
    },
    PipelineUp {
        pipeline: usize,
        link: u32,
    },
    SubUp {
        link: u32,
    },
    OverflowOver,
}

pub enum Answer {
    Published(Result<Position, Refused>),
    Page(Result<Page, Refused>),
    MemberPage(Result<MemberPage, Refused>),
    Revoked(Result<Vec<UserName>, Refused>),
    Revocations(Result<StoredRevocations, Refused>),
}

impl Answer {
    pub fn pipeline(&self) -> usize {
        match self {
            Answer::Published(_) | Answer::Revoked(_) => PUBLISHES,
            Answer::Page(_) | Answer::MemberPage(_) | Answer::Revocations(_) => READS,
        }
    }
}

pub enum Push {
    Subscribed(RoomName),
    Unsubscribed(RoomName),
    Message(RoomName, Epoch, u64, Arc<Publication>),
    Ephemeral(RoomName, Arc<Publication>),
    Changed(RoomName, Change),
}

pub const PUBLISHES: usize = 0;
pub const READS: usize = 1;

/// A request to the store, on one of a node's pipelines.
#[derive(Clone)]
pub enum StoreRequest {
    Publish(Arc<PublishRequest>),
    Read(Read),
    Members(MembersRequest),
    Revoke(Revoke),
    ReadRevocations(ReadRevocations),
}

impl StoreRequest {
    fn may_repeat(&self) -> bool {
        match self {
            StoreRequest::Publish(request) => {
                request.publish.key.is_some() && !request.publish.ephemeral
            }
            _ => true,
        }
    }

    pub fn answer(&self, answer: Answer) -> BrokerEvent {
        match (self, answer) {
            (StoreRequest::Publish(publish), Answer::Published(result)) => BrokerEvent::Published {
                ticket: publish.ticket,
                result,
            },
            (StoreRequest::Read(read), Answer::Page(result)) => BrokerEvent::Page {
                ticket: read.ticket,
                result,
            },
            (StoreRequest::Members(members), Answer::MemberPage(result)) => {
                BrokerEvent::MemberPage {
                    ticket: members.ticket,
                    result,
                }
            }
            (StoreRequest::Revoke(revoke), Answer::Revoked(result)) => BrokerEvent::Revoked {
                ticket: revoke.ticket,
                result,
            },
            (StoreRequest::ReadRevocations(read), Answer::Revocations(result)) => {
                BrokerEvent::Revocations {
                    ticket: read.ticket,
                    result,
                }
            }
            _ => unreachable!("an answer of the other pipeline"),
        }
    }

    pub fn refuse(&self, why: Refused) -> BrokerEvent {
        match self {
            StoreRequest::Publish(_) => self.answer(Answer::Published(Err(why))),
            StoreRequest::Read(_) => self.answer(Answer::Page(Err(Refused::Unavailable))),
            StoreRequest::Members(_) => self.answer(Answer::MemberPage(Err(Refused::Unavailable))),
            StoreRequest::Revoke(_) => self.answer(Answer::Revoked(Err(why))),
            StoreRequest::ReadRevocations(_) => {
                self.answer(Answer::Revocations(Err(Refused::Unavailable)))
            }
        }
    }
}

pub struct PendingRequest {
    pub request: StoreRequest,
    pub sent: bool,
    pub in_doubt: bool,
}

/// A connection for requests: its pending requests, and when the last of each direction arrives.
pub struct Pipeline {
    pub up: bool,
    pub link: u32,
    pub pending: BTreeMap<u64, PendingRequest>,
    pub next: u64,
    pub sent_at: u64,
    pub answered_at: u64,
    /// The greatest delay of one direction.
    pub delay: u64,
}

impl Pipeline {
    fn new(delay: u64) -> Self {
        Self {
            up: true,
            link: 0,
            pending: BTreeMap::new(),
            next: 0,
            sent_at: 0,
            answered_at: 0,
            delay,
        }
    }

    /// Cuts the connection: requests that may be repeated wait for the next one; the outcome of the
    /// others stays unknown.
    pub fn cut(&mut self) -> Vec<BrokerEvent> {
        self.up = false;
        self.link += 1;
        let mut refused = Vec::new();
        self.pending.retain(|_, pending| {
            if pending.sent && !pending.request.may_repeat() {
                refused.push(pending.request.refuse(Refused::Unknown));
                return false;
            }
            pending.in_doubt |= pending.sent;
            pending.sent = false;
            true
        });
        refused
    }

    pub fn expire(&mut self, number: u64) -> Option<BrokerEvent> {
        let pending = self.pending.remove(&number)?;
        let in_doubt = pending.sent || pending.in_doubt;
        let why = if in_doubt {
            Refused::Unknown
        } else {
            Refused::Unavailable
        };
        Some(pending.request.refuse(why))
    }
}

/// The subscribing connection.
pub struct Subscription {
    pub up: bool,
    pub link: u32,
    pub topics: Topics,
    pub asking: bool,
    pub sent_at: u64,
    pub pushed_at: u64,
    pub delay: u64,
    /// Pushes are dropped until the connection is replaced.
    pub half_open: bool,
    /// Its push queue is full: messages are dropped, and `lost` are the rooms that lost some.
    pub overflowing: bool,
    pub lost: Vec<RoomName>,
}

/// A client's connection on the node's side.
pub struct Session {
    pub client: usize,
    pub conn: u32,
    pub outbox: Outbox,
    pub reader: OutboxReader,
    /// The client does not read: nothing can be written.
    pub stalled: bool,
    /// A close frame has been written.
    pub ended: bool,
    pub scheduled: bool,
    /// When the last frames arrive at the client.
    pub arrives_at: u64,
    hung_up: Arc<AtomicBool>,
}

/// What a writer has written.
pub struct Written {
    pub frames: Vec<bytes::Bytes>,
    pub close: Option<bytes::Bytes>,
    pub drained: bool,
}

impl Session {
    /// One round of the writer; `None` when there is nothing to write.
    pub fn write(&mut self) -> Option<Written> {
        if self.stalled || self.ended {
            return None;
        }
        let mut written = Written {
            frames: Vec::new(),
            close: None,
            drained: false,
        };
        while written.frames.len() < BATCH {
            match self.reader.try_recv() {
                None => break,
                Some(Chunk::End(close)) => {
                    self.ended = true;
                    written.close = Some(close);
                    break;
                }
                Some(Chunk::Bytes(frames)) => written.frames.push(frames),
            }
        }
        let bytes = written.frames.iter().map(bytes::Bytes::len).sum();
        self.reader.written(bytes, written.frames.len());
        if written.close.is_none() {
            if written.frames.is_empty() {
                return None;
            }
            written.drained = self.reader.take_drained_wanted();
        }
        Some(written)
    }

    pub fn is_hung_up(&self) -> bool {
        self.hung_up.load(Ordering::Relaxed)
    }
}

/// The sizes of a schedule.
#[derive(Clone, Debug)]
pub struct Sizes {
    pub history_size: usize,
    /// Messages of one answer of the store at most, as if more would be too many bytes.
    pub page: usize,
    pub recent_memory: usize,
    pub outbox_bytes: usize,
    pub linger: u64,
    pub delay: u64,
    /// How long after its last connection closes a user counts as present.
    pub grace: u64,
    /// Bytes that a node's cached lists of members may take.
    pub presence_memory: usize,
}

pub struct Node {
    pub life: u32,
    pub alive: bool,
    pub draining: bool,
    pub frozen_until: u64,
    /// Inputs that arrived while it was frozen.
    pub held: VecDeque<Input>,
    pub inbox: VecDeque<Event>,
    pub turn_scheduled: bool,
    pub dispatcher: Dispatcher,
    pub pipelines: [Pipeline; 2],
    pub sub: Subscription,
    pub sessions: BTreeMap<u64, Session>,
    pub next_session: u64,
    pub presence_agent: PresenceAgent,
    /// Reads that the store will refuse.
    pub fail_reads: u32,
    sizes: Sizes,
}

impl Node {
    pub fn new(now: Now, index: usize, life: u32, sizes: &Sizes, seed: u64) -> Self {
        let settings = Settings {
            incarnation: Incarnation(seed | 1),
            node: index.to_string(),
            heartbeat: Duration::from_secs(3),
            pong_timeout: Duration::from_secs(2),
            close_timeout: Duration::from_secs(1),
            join_timeout: Duration::from_secs(2),
            max_message: 65_536,
            session_commands: 100,
            rooms_per_session: 10,
            max_rooms: 100,
            rights: Rights::open(),
            retention: Retention::uniform(sizes.history_size, Duration::from_secs(3600)),
            token_lifetime: Duration::from_secs(86_400),
            recent_memory: sizes.recent_memory,
            presence: PresenceSettings {
                grace: Duration::from_millis(sizes.grace),
                memory: sizes.presence_memory,
                ..PresenceSettings::default()
            },
            outbox_bytes: sizes.outbox_bytes,
            hooks: Arc::default(),
            seed,
        };
        Self {
            life,
            alive: true,
            draining: false,
            frozen_until: 0,
            held: VecDeque::new(),
            inbox: VecDeque::new(),
            turn_scheduled: false,
            dispatcher: Dispatcher::new(now, settings, Arc::new(Metrics::default())),
            pipelines: [Pipeline::new(sizes.delay), Pipeline::new(sizes.delay)],
            sub: Subscription {
                up: true,
                link: 0,
                topics: Topics::new(Duration::from_millis(sizes.linger)),
                asking: false,
                sent_at: 0,
                pushed_at: 0,
                delay: sizes.delay,
                half_open: false,
                overflowing: false,
                lost: Vec::new(),
            },
            sessions: BTreeMap::new(),
            next_session: 1,
            presence_agent: PresenceAgent::default(),
            fail_reads: 0,
            sizes: sizes.clone(),
        }
    }

    pub fn is_frozen(&self, now: u64) -> bool {
        self.frozen_until > now
    }

    /// Asserts that the recent messages that a turn keeps are within their bound.
    pub fn assert_bounds(&self) {
        let recent = self.dispatcher.load().recent;
        assert!(
            recent <= self.sizes.recent_memory,
            "{recent} bytes of recent messages"
        );
    }

    /// A client has completed its handshake.
    pub fn accept(&mut self, client: usize, conn: u32) -> u64 {
        let id = self.next_session;
        self.next_session += 1;
        let limits = OutboxLimits {
            bytes: self.sizes.outbox_bytes,
            frames: 1024,
        };
        let hung_up = Arc::new(AtomicBool::new(false));
        let flag = hung_up.clone();
        let (outbox, reader) = outbox(limits, move || flag.store(true, Ordering::Relaxed));
        self.inbox.push_back(Event::Opened {
            session: SessionId(id),
            protocol: Protocol::Native,
            identity: None,
            outbox: outbox.clone(),
        });
        let session = Session {
            client,
            conn,
            outbox,
            reader,
            stalled: false,
            ended: false,
            scheduled: false,
            arrives_at: 0,
            hung_up,
        };
        self.sessions.insert(id, session);
        id
    }

    /// Handles a push of the subscription, as its task does.
    pub fn receive(&mut self, push: Push, now: std::time::Instant) {
        let sub = &mut self.sub;
        let event = match push {
            Push::Subscribed(room) => {
                sub.asking = false;
                sub.topics
                    .subscribed(room.as_str(), now)
                    .map(BrokerEvent::Following)
            }
            Push::Unsubscribed(room) => {
                sub.asking = false;
                sub.topics.unsubscribed(room.as_str());
                None
            }
            Push::Message(room, epoch, offset, publication) => {
                let followed = sub.topics.followed(room.as_str()).is_some();
                if sub.overflowing && !sub.lost.contains(&room) {
                    sub.lost.push(room.clone());
                }
                let event = BrokerEvent::Message {
                    room,
                    epoch,
                    offset,
                    publication,
                    received_at: now,
                };
                (followed && !sub.overflowing).then_some(event)
            }
            Push::Ephemeral(room, publication) => {
                let followed = sub.topics.followed(room.as_str()).is_some();
                let event = BrokerEvent::Ephemeral {
                    room,
                    publication,
                    received_at: now,
                };
                (followed && !sub.overflowing).then_some(event)
            }
            Push::Changed(room, change) => {
                let followed = sub.topics.followed(room.as_str()).is_some();
                if sub.overflowing && !sub.lost.contains(&room) {
                    sub.lost.push(room.clone());
                }
                (followed && !sub.overflowing).then_some(BrokerEvent::Changed { room, change })
            }
        };
        self.inbox.extend(event.map(Event::Broker));
    }

    pub fn overflow_over(&mut self) {
        self.sub.overflowing = false;
        for room in std::mem::take(&mut self.sub.lost) {
            if self.sub.topics.followed(room.as_str()).is_some() {
                self.inbox
                    .push_back(Event::Broker(BrokerEvent::Following(room)));
            }
        }
    }
}
