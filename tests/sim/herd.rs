//! A herd comes back to one room, whose log takes many pages, each client from a place of its own
//! and at a pace of its own. What is counted is what the store is asked.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use switchboard::broker::{BrokerEvent, Read, Request};
use switchboard::dispatcher::Event;
use switchboard::dispatcher::outbox::Chunk;
use switchboard::model::history::Log;
use switchboard::model::id::{Epoch, Position, SessionId};
use switchboard::model::retention::LogLimits;
use switchboard::protocol::Command;

use super::cursors::{Turn, command_of, room, said};
use super::transport::{Frame, Transport};

const CLIENTS: u64 = 1_000;
const TOP: u64 = 300;
const PAGE: usize = 50;
const LIMITS: LogLimits = LogLimits {
    size: 1_000,
    age: Duration::from_secs(3_600),
};

/// The room, its log, and where each client stands, if it has joined.
struct Herd {
    desk: Turn,
    random: fastrand::Rng,
    log: Log,
    asked: VecDeque<Read>,
    reads: usize,
    memory: usize,
    stands: Vec<Option<u64>>,
}

impl Herd {
    /// One member, who has followed the room from its beginning, and nothing else is known of it.
    fn new(seed: u64, memory: usize) -> Self {
        let desk = Turn::new(CLIENTS + 1, memory);
        let mut log = Log::new(Epoch::new(1), desk.now);
        for value in 1..=TOP {
            log.append(said(value, None), None, LIMITS, desk.now);
        }
        let mut herd = Self {
            desk,
            random: fastrand::Rng::with_seed(seed),
            log,
            asked: VecDeque::new(),
            reads: 0,
            memory,
            stands: vec![None; CLIENTS as usize],
        };
        herd.join(CLIENTS, None);
        herd.answer();
        assert_eq!(herd.reads, 1, "the look at where the room stands");
        herd
    }

    fn join(&mut self, session: u64, since: Option<u64>) {
        let epoch = Epoch::new(1);
        let since = since.map(|offset| Position { epoch, offset });
        let name = room("r");
        self.turn(command_of(session, Command::Join { room: name, since }));
    }

    fn turn(&mut self, event: Event) {
        for request in self.desk.turn([event]) {
            match request {
                Request::Follow(room) => self.turn(Event::Broker(BrokerEvent::Following(room))),
                Request::Read(read) => {
                    self.reads += 1;
                    self.asked.push_back(read);
                }
                Request::SetPresence(_) | Request::Connected(_) | Request::Members(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let kept = self.desk.dispatcher.load().recent;
        assert!(kept <= self.memory, "{kept} bytes are kept");
    }

    /// The store answers what it was asked first.
    fn answer(&mut self) {
        if let Some(Read {
            ticket,
            range,
            limit,
            ..
        }) = self.asked.pop_front()
        {
            let result = Ok(self.log.page(range, limit.min(PAGE), self.desk.now));
            self.turn(Event::Broker(BrokerEvent::Page { ticket, result }));
        }
    }

    /// The client takes the next buffer that is written for it, if there is one.
    fn hear(&mut self, client: u64) {
        let reader = &self.desk.clients[client as usize];
        let Some(Chunk::Frames(frames)) = reader.try_recv() else {
            return;
        };
        reader.written(frames.len(), 1);
        let drained = reader.take_drained_wanted();
        let stands = &mut self.stands[client as usize];
        for frame in Transport::default().frames(0, 0, &[frames]) {
            let Frame::Text(text) = frame else { continue };
            let heard: Value = serde_json::from_str(&text).unwrap();
            let offset = heard["offset"].as_u64();
            match heard["type"].as_str() {
                Some("ok") => assert_eq!((offset, &heard["recovered"]), (*stands, &true.into())),
                Some("message") => {
                    assert_eq!(offset, stands.map(|stands| stands + 1), "{heard}");
                    *stands = offset;
                }
                _ => panic!("{heard}"),
            }
        }
        if drained {
            self.turn(Event::Drained(SessionId(client)));
        }
    }

    /// All come back, a few at a time, and listen until they are at the top.
    fn returns(&mut self) {
        let mut away: Vec<u64> = (0..CLIENTS).collect();
        self.random.shuffle(&mut away);
        let mut rounds = 0;
        while self.stands.iter().any(|stands| *stands != Some(TOP)) {
            for _ in 0..self.random.usize(0..100) {
                if let Some(client) = away.pop() {
                    let since = self.random.u64(0..=TOP);
                    self.stands[client as usize] = Some(since);
                    self.join(client, Some(since));
                }
            }
            for client in 0..CLIENTS {
                // Some are ten times as slow as others.
                if self.random.u64(..10) >= client % 10 {
                    self.hear(client);
                }
            }
            if self.random.bool() {
                self.answer();
            }
            rounds += 1;
            assert!(rounds < 5_000, "{:?}", self.desk.dispatcher.load());
        }
    }
}

#[test]
fn a_herd_reads_each_page_of_the_log_about_once_however_many_come() {
    let pages = TOP as usize / PAGE;
    for seed in 0..3 {
        let mut herd = Herd::new(seed, 1 << 20);
        herd.returns();
        assert!(
            herd.reads <= 1 + 2 * pages,
            "{} reads of {pages} pages, seed {seed}",
            herd.reads
        );
    }
}

#[test]
fn a_herd_for_which_there_is_too_little_memory_gets_on_by_reads_that_all_share() {
    for memory in [0, 2_000, 30_000] {
        let mut herd = Herd::new(7, memory);
        herd.returns();
        // On its own each client would need as many reads as it takes buffers, about 20.
        assert!(
            herd.reads < CLIENTS as usize,
            "{} reads with {memory} bytes",
            herd.reads
        );
    }
}
