//! Many small faults under load: acknowledged publications are stored once, and a follower that
//! reads after each `Following` event receives everything in order.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use switchboard::broker::{BrokerEvent, Range, Refused, Settings};
use switchboard::model::id::{Position, Ticket};

use super::node::{BrokerNode, Form, entries, text};
use crate::support::DEADLINE;
use crate::support::redis_server::RedisServer;

/// Retention keeps everything, so that every gap can be read.
fn long(settings: &mut Settings) {
    settings.retention.otherwise.size = 100_000;
}

/// A follower of the lobby that acts as a dispatcher does: it delivers the next offset, drops
/// duplicates, and reads the log to fill gaps.
struct Follower {
    node: BrokerNode,
    stands: Position,
    received: Vec<String>,
}

impl Follower {
    fn new(server: &RedisServer) -> Self {
        let mut node = BrokerNode::on_with(server, long);
        node.follow("lobby");
        let stands = node.top("lobby");
        Self {
            node,
            stands,
            received: Vec::new(),
        }
    }

    fn catch_up(&mut self) {
        loop {
            let page = self.node.read("lobby", Range::After(self.stands), 50);
            assert_eq!(page.top.epoch, self.stands.epoch, "no epoch has ended");
            for (offset, text) in entries(&page) {
                self.deliver(offset, text);
            }
            let last = page.messages.last().map_or(0, |(offset, _)| *offset);
            assert!(last <= self.stands.offset, "a hole before {}", page.first);
            if self.stands.offset >= page.top.offset {
                return;
            }
        }
    }

    fn deliver(&mut self, offset: u64, text: String) {
        if offset == self.stands.offset + 1 {
            self.stands.offset = offset;
            self.received.push(text);
        }
    }

    /// Handles the events received so far.
    fn turn(&mut self) {
        let mut events: VecDeque<_> = self.node.rest().into();
        while let Some(event) = events.pop_front() {
            match event {
                BrokerEvent::Message {
                    offset,
                    publication,
                    ..
                } => {
                    if offset > self.stands.offset + 1 {
                        self.catch_up();
                    }
                    self.deliver(offset, text(&publication));
                }
                BrokerEvent::Following(_) => self.catch_up(),
                _ => {}
            }
        }
    }

    /// Continues until this is the last text received.
    fn until(&mut self, wanted: &str) {
        let start = Instant::now();
        while self.received.last().is_none_or(|last| last != wanted) {
            assert!(start.elapsed() < DEADLINE, "never received {wanted}");
            std::thread::sleep(Duration::from_millis(5));
            self.turn();
        }
    }
}

#[test]
fn random_cuts_lose_duplicate_and_reorder_nothing_acknowledged() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = RedisServer::start();
    let mut publisher = BrokerNode::on_with(&server, long);
    let mut follower = Follower::new(&server);
    let mut unanswered: Vec<(String, bool, Ticket)> = Vec::new();
    let mut acknowledged = HashMap::new();
    for round in 0..60 {
        for n in 0..random.usize(0..30) {
            let (text, is_keyed) = (format!("{round}.{n}"), random.bool());
            let form = if is_keyed {
                Form::keyed("ada", &text)
            } else {
                Form::default()
            };
            let ticket = publisher.send_publish("lobby", &text, form);
            unanswered.push((text, is_keyed, ticket));
        }
        let victims = ["normal", "pubsub", "none"][random.usize(0..3)];
        if victims != "none" {
            server.query::<()>(&["CLIENT", "KILL", "TYPE", victims]);
        }
        if random.u8(0..20) == 0 {
            server.query::<()>(&["SCRIPT", "FLUSH"]);
        }
        follower.turn();
    }
    let mut doubtful = Vec::new();
    for (text, is_keyed, ticket) in unanswered {
        match publisher.answer(ticket) {
            Ok(position) => assert!(acknowledged.insert(text, position).is_none()),
            Err(Refused::Unknown) if !is_keyed => doubtful.push(text),
            Err(refused) => panic!("{text}, keyed: {is_keyed}: {refused:?}"),
        }
    }
    let end = publisher.publish("lobby", "end");
    follower.until("end");
    assert_eq!(follower.stands, end);
    for (text, position) in &acknowledged {
        assert_eq!(&follower.received[position.offset as usize - 1], text);
    }
    let received = |text: &String| follower.received.iter().filter(|it| *it == text).count();
    assert!(acknowledged.keys().all(|text| received(text) == 1));
    assert!(doubtful.iter().all(|text| received(text) <= 1));
    let in_doubt: usize = doubtful.iter().map(received).sum();
    assert_eq!(follower.received.len(), acknowledged.len() + in_doubt + 1);
}

#[test]
fn pause_of_redis_of_two_seconds_is_tolerated() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    node.follow("lobby");
    server.query::<()>(&["CLIENT", "PAUSE", "2000", "WRITE"]);
    assert_eq!(node.publish("lobby", "one").offset, 1);
    assert_eq!(node.message("lobby").1, (1, "one".into()));
    assert_eq!(node.metrics.redis_reconnects_total.get(), 0);
    node.until_ready(true);
}

#[test]
fn node_without_a_redis_round_trip_is_not_ready() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    // Redis suspends writes and PUBLISH; everything else continues.
    server.query::<()>(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    node.until_ready(false);
    server.query::<()>(&["CLIENT", "UNPAUSE"]);
    node.until_ready(true);
    assert_eq!(node.publish("lobby", "one").offset, 1);
}
