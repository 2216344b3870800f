//! A thousand sessions that rejoin one room at once: a real dispatcher over a real Redis, whose
//! pages are bounded in bytes. The test takes the place of the sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use switchboard::broker::{LogRequest, Request};
use switchboard::dispatcher::{Dispatcher, Event, Now, ReplyTo, Settings};
use switchboard::model::id::{Epoch, Incarnation, Position, SessionId};
use switchboard::model::retention::Retention;
use switchboard::model::rights::Rights;
use switchboard::outbox::{Chunk, OutboxLimits, OutboxReader, outbox};
use switchboard::presence::PresenceSettings;
use switchboard::protocol::{Command, Protocol};

use super::node::{BrokerNode, name};
use crate::support::DEADLINE;
use crate::support::redis_server::RedisServer;

const ROOM: &str = "r";
const CLIENTS: u64 = 1_000;
/// Messages of 8 KiB: more than four pages of half a megabyte.
const TOP: u64 = 260;
const PAGES: usize = 5;
const OUTBOX: usize = 256 << 10;

struct World {
    node: BrokerNode,
    dispatcher: Dispatcher,
    reads: usize,
    clients: Vec<OutboxReader>,
}

impl World {
    fn open(mut node: BrokerNode) -> Self {
        let text = "x".repeat(8 << 10);
        for _ in 0..TOP {
            node.publish(ROOM, &text);
        }
        let settings = Settings {
            incarnation: Incarnation(7),
            node: "a".into(),
            heartbeat: Duration::from_secs(3600),
            pong_timeout: Duration::from_secs(3600),
            close_timeout: DEADLINE,
            join_timeout: Duration::from_secs(3600),
            max_message: 65_536,
            session_commands: 100,
            rooms_per_session: 1,
            max_rooms: 1,
            rights: Rights::open(),
            retention: Retention::uniform(1000, Duration::from_secs(60)),
            token_lifetime: Duration::from_secs(86_400),
            recent_memory: 64 << 20,
            presence: PresenceSettings::default(),
            outbox_bytes: OUTBOX,
            hooks: Arc::default(),
            seed: 1,
        };
        let mut world = Self {
            node,
            dispatcher: Dispatcher::new(Now::read(), settings, Arc::default()),
            reads: 0,
            clients: Vec::new(),
        };
        for session in 0..CLIENTS {
            let limits = OutboxLimits {
                bytes: OUTBOX,
                frames: 100,
            };
            let (outbox, reader) = outbox(limits, || ());
            world.clients.push(reader);
            world.turn(Event::Opened {
                session: SessionId(session),
                protocol: Protocol::Native,
                identity: None,
                outbox,
            });
        }
        world
    }

    fn turn(&mut self, event: Event) {
        self.dispatcher.turn(Now::read(), [event]);
        for request in self.dispatcher.take_requests() {
            self.reads += usize::from(matches!(request, Request::Log(LogRequest::Read(_))));
            assert!(self.node.broker.send(request), "the broker has ended");
        }
    }

    fn join(&mut self, session: u64, epoch: Epoch, offset: u64) {
        let command = Command::Join {
            room: name(ROOM),
            since: Some(Position { epoch, offset }),
            identity: None,
        };
        self.turn(Event::Command {
            reply_to: ReplyTo::Session {
                session: SessionId(session),
                id: None,
            },
            command,
        });
    }

    /// Takes what the outbox of the client holds by now. Returns whether there was anything.
    fn receive(&mut self, client: u64, stands: &mut u64) -> bool {
        let reader = &self.clients[client as usize];
        let mut received = false;
        while let Some(Chunk::Bytes(frames)) = reader.try_recv() {
            reader.written(frames.len(), 1);
            for offset in offsets(&frames) {
                assert_eq!(offset, *stands + 1, "client {client}");
                *stands = offset;
            }
            received = true;
        }
        if self.clients[client as usize].take_drained_wanted() {
            self.turn(Event::Drained(SessionId(client)));
        }
        received
    }
}

/// The offsets of the messages in a buffer of whole frames.
fn offsets(frames: &Bytes) -> Vec<u64> {
    let mut offsets = Vec::new();
    let mut rest = &frames[..];
    while let [0x81, short, ..] = rest {
        let (head, length) = match short {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            127 => panic!("no frame here is that long"),
            short => (2, usize::from(*short)),
        };
        let text = &rest[head..head + length];
        if let Some(found) = text.strip_prefix(br#"{"type":"message","room":"r","offset":"#) {
            let digits = found.iter().take_while(|byte| byte.is_ascii_digit());
            offsets.push(digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
        }
        rest = &rest[head + length..];
    }
    assert!(rest.is_empty(), "{rest:?}");
    offsets
}

#[test]
fn thousand_rejoining_sessions_cost_redis_one_read_per_log_page() {
    let server = RedisServer::start();
    let node = BrokerNode::on_with(&server, |settings| {
        settings.retention = Retention::uniform(1000, Duration::from_secs(60));
    });
    let mut world = World::open(node);
    let epoch = world.node.top(ROOM).epoch;
    let mut random = fastrand::Rng::with_seed(5);
    let mut stands: Vec<u64> = (0..CLIENTS).map(|_| random.u64(0..TOP)).collect();
    for client in 0..CLIENTS {
        world.join(client, epoch, stands[client as usize]);
    }
    let deadline = Instant::now() + 3 * DEADLINE;
    while stands.iter().any(|stands| *stands < TOP) {
        let mut received = false;
        for client in 0..CLIENTS {
            received |= world.receive(client, &mut stands[client as usize]);
        }
        // A client that received messages may need the next ones at once; wait only if none did.
        let event = if received {
            world.node.events.try_recv().ok()
        } else {
            world.node.events.recv_deadline(deadline).ok()
        };
        match event {
            Some(event) => world.turn(Event::Broker(event)),
            None => assert!(Instant::now() < deadline, "{:?}", world.dispatcher.load()),
        }
    }
    // One more read returns the position of the room, and the part between two groups may be read
    // separately.
    assert!(world.reads <= PAGES + 3, "{} reads", world.reads);
}
