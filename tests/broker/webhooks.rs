//! The webhook queue of the brokers: one event when a room is occupied and one when it is vacated,
//! over all nodes; and the answers to a deliverer.

use std::time::{Duration, Instant};

use switchboard::broker::redis::RedisSettings;
use switchboard::broker::{PresenceRequest, Request, SetPresence};
use switchboard::model::id::UserName;
use switchboard::model::pattern::Pattern;
use switchboard::model::webhook_event::{
    ClaimMode, ClaimedEvents, WebhookEvent, WebhookPoll, WebhookSubscription,
};

use super::node::{BrokerNode, World, name, settings};
use crate::support::DEADLINE;
use crate::support::redis_server::RedisServer;

/// A deliverer that sends nothing.
pub struct Deliverer(flume::Sender<WebhookPoll>);

/// Returns a deliverer and the settings for its node.
pub fn deliverer(rooms: &[&str]) -> (Deliverer, WebhookSubscription) {
    let (asking, polls) = flume::bounded(1);
    let rooms = rooms.iter().filter_map(|text| Pattern::new(text)).collect();
    (Deliverer(asking), WebhookSubscription { rooms, polls })
}

impl Deliverer {
    /// Repeats the request until it is answered.
    fn ask(&self, done: &[WebhookEvent], mode: ClaimMode) -> ClaimedEvents {
        let start = Instant::now();
        loop {
            let (answer, answered) = flume::bounded(1);
            let done = done.iter().map(|event| event.id).collect();
            let poll = WebhookPoll { done, mode, answer };
            self.0.send(poll).expect("the broker runs");
            if let Ok(turn) = answered.recv_timeout(DEADLINE) {
                return turn;
            }
            assert!(start.elapsed() < DEADLINE, "no answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes the next `count` events, marks them done, and returns them as text.
    pub fn receive(&self, count: usize) -> Vec<String> {
        let (start, mut events) = (Instant::now(), Vec::new());
        while events.len() < count {
            assert!(start.elapsed() < 2 * DEADLINE, "only {events:?}");
            let turn = self.ask(&[], ClaimMode::Take);
            self.ask(&turn.events, ClaimMode::Keep);
            events.extend(turn.events);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(events.is_sorted_by_key(|event| event.id), "{events:?}");
        events.iter().map(describe).collect()
    }
}

fn describe(event: &WebhookEvent) -> String {
    format!("{} {}", event.change.name(), event.room)
}

/// Sets the number of connections of a user (`""`: anonymous) in a room.
fn here(node: &BrokerNode, room: &str, user: &str, connections: u32) {
    let here = SetPresence {
        room: name(room),
        user: UserName::new(user).ok(),
        connections,
        info: None,
    };
    assert!(
        node.broker
            .send(Request::Presence(PresenceRequest::SetPresence(here))),
        "the broker runs"
    );
}

fn room_events_follow_its_first_and_its_last_connection(world: World) {
    let (deliverer, wanted) = deliverer(&["lobby", "@*"]);
    let first = world.node_with(|settings| settings.webhooks = Some(wanted.clone()));
    let second = world.node_with(|settings| {
        settings.webhooks = Some(WebhookSubscription {
            rooms: wanted.rooms.clone(),
            polls: flume::bounded(1).1,
        });
    });
    here(&first, "lobby", "ada", 1);
    assert_eq!(deliverer.receive(1), ["occupied lobby"]);
    here(&first, "unwatched", "ada", 1);
    here(&second, "lobby", "", 2);
    here(&second, "lobby", "ada", 1);
    here(&second, "@ada", "ada", 1);
    assert_eq!(deliverer.receive(1), ["occupied @ada"]);
    here(&first, "lobby", "ada", 0);
    here(&second, "lobby", "ada", 0);
    here(&second, "@ada", "ada", 0);
    assert_eq!(deliverer.receive(1), ["vacated @ada"]);
    here(&second, "lobby", "", 0);
    assert_eq!(deliverer.receive(1), ["vacated lobby"]);
    here(&second, "lobby", "", 1);
    assert_eq!(deliverer.receive(1), ["occupied lobby"]);
    assert_eq!(
        deliverer.ask(&[], ClaimMode::Take),
        ClaimedEvents::default()
    );
}

fn held_events_are_repeated_until_done_or_released(world: World) {
    let (deliverer, wanted) = deliverer(&[]);
    let node = world.node_with(|settings| settings.webhooks = Some(wanted));
    here(&node, "a", "ada", 1);
    let start = Instant::now();
    let first = loop {
        let turn = deliverer.ask(&[], ClaimMode::Take);
        if !turn.events.is_empty() {
            break turn;
        }
        assert!(start.elapsed() < DEADLINE);
    };
    here(&node, "b", "ada", 1);
    // However long the second event takes to arrive.
    assert_eq!(deliverer.ask(&[], ClaimMode::Take), first);
    assert_eq!(deliverer.ask(&[], ClaimMode::Keep), first);
    assert_eq!(
        deliverer.ask(&[], ClaimMode::Leave),
        ClaimedEvents::default()
    );
    let again = deliverer.ask(&[], ClaimMode::Take);
    assert_eq!(again.events[0], first.events[0], "the same id");
    assert_eq!(
        deliverer.ask(&again.events, ClaimMode::Keep),
        ClaimedEvents::default()
    );
}

mod over_memory {
    use super::*;

    #[test]
    fn room_events_follow_its_first_and_its_last_connection() {
        super::room_events_follow_its_first_and_its_last_connection(World::memory());
    }

    #[test]
    fn held_events_are_repeated_until_done_or_released() {
        super::held_events_are_repeated_until_done_or_released(World::memory());
    }

    #[test]
    fn rooms_of_a_node_that_ends_are_vacated() {
        let world = World::memory();
        let (deliverer, wanted) = deliverer(&[]);
        let _first = world.node_with(|settings| settings.webhooks = Some(wanted));
        let second = world.node();
        here(&second, "lobby", "", 1);
        assert_eq!(deliverer.receive(1), ["occupied lobby"]);
        drop(second);
        assert_eq!(deliverer.receive(1), ["vacated lobby"]);
    }
}

mod over_redis {
    use super::*;

    #[test]
    fn room_events_follow_its_first_and_its_last_connection() {
        super::room_events_follow_its_first_and_its_last_connection(World::redis());
    }

    #[test]
    fn held_events_are_repeated_until_done_or_released() {
        super::held_events_are_repeated_until_done_or_released(World::redis());
    }

    #[test]
    fn rooms_of_a_node_that_died_are_vacated_once() {
        let server = RedisServer::start();
        let node = |wanted: Option<WebhookSubscription>| {
            let redis = RedisSettings {
                addresses: vec![server.url().parse().expect("an address")],
                prefix: "sb".into(),
                authorities: None,
                allow_eviction: false,
                lease: Duration::from_secs(2),
            };
            let mut settings = settings();
            settings.webhooks = wanted;
            BrokerNode::with(redis, settings).ready()
        };
        let (deliverer, wanted) = deliverer(&[]);
        let silent = || {
            let (polls, rooms) = (flume::bounded(1).1, Vec::new());
            Some(WebhookSubscription { rooms, polls })
        };
        let survivors = [node(Some(wanted)), node(silent())];
        let dead = node(silent());
        for room in ["a", "b"] {
            here(&dead, room, "ada", 2);
            here(&dead, room, "", 1);
        }
        here(&survivors[0], "b", "bob", 1);
        let mut events = deliverer.receive(2);
        events.sort();
        assert_eq!(events, ["occupied a", "occupied b"]);
        drop(dead);
        assert_eq!(deliverer.receive(1), ["vacated a"]);
        here(&survivors[0], "b", "bob", 0);
        assert_eq!(deliverer.receive(1), ["vacated b"], "and nothing between");
    }

    #[test]
    fn brokers_without_webhooks_keep_no_events() {
        let server = RedisServer::start();
        let node = BrokerNode::on(&server);
        here(&node, "lobby", "ada", 1);
        server.until(&["EXISTS", "sb:{lobby}:here"], 1);
        assert_eq!(server.query::<usize>(&["EXISTS", "sb:hooks"]), 0);
    }
}
