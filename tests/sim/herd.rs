//! A thousand clients return to one room whose log takes many pages, each from its own position and
//! at its own pace. The tests count the reads of the store.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use switchboard::broker::{BrokerEvent, LogRequest, PresenceRequest, Read, Request};
use switchboard::dispatcher::Event;
use switchboard::model::history::Log;
use switchboard::model::id::{Epoch, Position, SessionId};
use switchboard::model::retention::LogLimits;
use switchboard::outbox::Chunk;
use switchboard::protocol::Command;

use super::cursors::{Harness, command_of, publication, room};
use super::transport::{Frame, Transport};

const CLIENTS: u64 = 1_000;
const TOP: u64 = 300;
const PAGE: usize = 50;
const LIMITS: LogLimits = LogLimits {
    size: 1_000,
    age: Duration::from_secs(3_600),
};

/// The room, its log, and the position of each client that has joined.
struct Herd {
    harness: Harness,
    random: fastrand::Rng,
    log: Log,
    pending: VecDeque<Read>,
    reads: usize,
    memory: usize,
    positions: Vec<Option<u64>>,
}

impl Herd {
    /// One member has joined the room; the node has no other data of it.
    fn new(seed: u64, memory: usize) -> Self {
        let harness = Harness::new(CLIENTS + 1, memory);
        let mut log = Log::new(Epoch::new(1), harness.now);
        for value in 1..=TOP {
            log.append(publication(value, None), None, LIMITS, harness.now);
        }
        let mut herd = Self {
            harness,
            random: fastrand::Rng::with_seed(seed),
            log,
            pending: VecDeque::new(),
            reads: 0,
            memory,
            positions: vec![None; CLIENTS as usize],
        };
        herd.join(CLIENTS, None);
        herd.answer();
        assert_eq!(herd.reads, 1, "the read of the room's top");
        herd
    }

    fn join(&mut self, session: u64, since: Option<u64>) {
        let epoch = Epoch::new(1);
        let since = since.map(|offset| Position { epoch, offset });
        let name = room("r");
        self.turn(command_of(
            session,
            Command::Join {
                room: name,
                since,
                identity: None,
            },
        ));
    }

    fn turn(&mut self, event: Event) {
        for request in self.harness.turn([event]) {
            match request {
                Request::Log(LogRequest::Follow(room)) => {
                    self.turn(Event::Broker(BrokerEvent::Following(room)))
                }
                Request::Log(LogRequest::Read(read)) => {
                    self.reads += 1;
                    self.pending.push_back(read);
                }
                Request::Presence(PresenceRequest::SetPresence(_))
                | Request::Presence(PresenceRequest::Connected(_))
                | Request::Presence(PresenceRequest::Members(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        let recent = self.harness.dispatcher.load().recent;
        assert!(recent <= self.memory, "{recent} bytes of recent messages");
    }

    /// The store answers the oldest read.
    fn answer(&mut self) {
        if let Some(Read {
            ticket,
            range,
            limit,
            ..
        }) = self.pending.pop_front()
        {
            let result = Ok(self.log.page(range, limit.min(PAGE), self.harness.now));
            self.turn(Event::Broker(BrokerEvent::Page { ticket, result }));
        }
    }

    /// The client receives the next buffer of its outbox, if there is one.
    fn receive(&mut self, client: u64) {
        let reader = &self.harness.clients[client as usize];
        let Some(Chunk::Bytes(frames)) = reader.try_recv() else {
            return;
        };
        reader.written(frames.len(), 1);
        let drained = reader.take_drained_wanted();
        let position = &mut self.positions[client as usize];
        for item in Transport::default().frames(0, 0, &[frames]) {
            let Frame::Text(text) = item else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            let offset = frame["offset"].as_u64();
            match frame["type"].as_str() {
                Some("ok") => assert_eq!((offset, &frame["recovered"]), (*position, &true.into())),
                Some("message") => {
                    assert_eq!(offset, position.map(|at| at + 1), "{frame}");
                    *position = offset;
                }
                _ => panic!("{frame}"),
            }
        }
        if drained {
            self.turn(Event::Drained(SessionId(client)));
        }
    }

    /// All clients return, a few at a time, and read until they are at the top.
    fn recover(&mut self) {
        let mut away: Vec<u64> = (0..CLIENTS).collect();
        self.random.shuffle(&mut away);
        let mut rounds = 0;
        while self.positions.iter().any(|at| *at != Some(TOP)) {
            for _ in 0..self.random.usize(0..100) {
                if let Some(client) = away.pop() {
                    let since = self.random.u64(0..=TOP);
                    self.positions[client as usize] = Some(since);
                    self.join(client, Some(since));
                }
            }
            for client in 0..CLIENTS {
                // Some clients are ten times slower than others.
                if self.random.u64(..10) >= client % 10 {
                    self.receive(client);
                }
            }
            if self.random.bool() {
                self.answer();
            }
            rounds += 1;
            assert!(rounds < 5_000, "{:?}", self.harness.dispatcher.load());
        }
    }
}

#[test]
fn herd_reads_each_page_of_the_log_about_once() {
    let pages = TOP as usize / PAGE;
    for seed in 0..3 {
        let mut herd = Herd::new(seed, 1 << 20);
        herd.recover();
        assert!(
            herd.reads <= 1 + 2 * pages,
            "{} reads of {pages} pages, seed {seed}",
            herd.reads
        );
    }
}

#[test]
fn herd_shares_reads_when_memory_is_short() {
    for memory in [0, 2_000, 30_000] {
        let mut herd = Herd::new(7, memory);
        herd.recover();
        // Without sharing, each client needs one read per buffer, about 20.
        assert!(
            herd.reads < CLIENTS as usize,
            "{} reads with {memory} bytes",
            herd.reads
        );
    }
}
