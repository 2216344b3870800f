//! Webhooks: batches, signatures, repetition, and that a killed node, a cut connection or a
//! receiver that is down loses and reorders no event. The tests write events to the stream as the
//! presence scripts do.

mod nodes;
mod receiver;
mod stream;

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use switchboard::config::{Config, SecretFile};
use switchboard::model::secret::Secret;
use switchboard::model::webhook_event::BATCH;
use switchboard::runtime;

use crate::support::receiver::{Answer, Receiver, SECRET};
use crate::support::redis_server::{Options, RedisServer, free_port};
use crate::support::{NodeProcess, TestNode, eventually, run, within};

const STREAM: &str = "switchboard:hooks";
const LOST: &str = "switchboard:hooks:lost";

/// The Lua functions that the presence scripts include.
const SCRIPT: &str = concat!(
    include_str!("../../src/broker/redis/server.lua"),
    include_str!("../../src/broker/redis/webhook_event.lua"),
);

/// Appends events as a presence script does, in one script; the stream keeps `limit` of them.
fn append(redis: &RedisServer, limit: usize, changes: &[String]) {
    let script = format!(
        "{SCRIPT}\nfor i = 2, #ARGV do\n\
         append_event(KEYS[1], KEYS[2], ARGV[1], string.match(ARGV[i], '^(%S+) (.*)$')) end"
    );
    let limit = limit.to_string();
    let mut words = vec!["EVAL", &script, "2", STREAM, LOST, &limit];
    words.extend(changes.iter().map(String::as_str));
    redis.query::<()>(&words);
}

/// `count` rooms `NAME0`, `NAME1` … are occupied.
fn occupied(redis: &RedisServer, name: &str, count: usize) -> Vec<String> {
    let rooms: Vec<String> = (0..count).map(|n| format!("{name}{n}")).collect();
    let changes: Vec<String> = rooms
        .iter()
        .map(|room| format!("occupied {room}"))
        .collect();
    append(redis, 100_000, &changes);
    rooms
}

/// The names in events, in order.
fn names(events: &[String]) -> Vec<&str> {
    let name = |event: &'_ String| event.rsplit(' ').next().map(str::len);
    let tail = |event: &String| event.len() - name(event).unwrap_or_default();
    events.iter().map(|event| &event[tail(event)..]).collect()
}

fn configured(config: &mut Config, redis: &RedisServer, receiver: &Receiver) {
    config.redis = vec![redis.url().parse().expect("an address")];
    with_receiver(config, receiver);
}

fn with_receiver(config: &mut Config, receiver: &Receiver) {
    config.webhook_url = Some(receiver.url().parse().expect("an address"));
    config.webhook_secret_file = Some(SecretFile {
        path: receiver.secret().to_owned(),
        secret: Secret::new(SECRET.into()),
    });
}

async fn node(redis: &RedisServer, receiver: &Receiver) -> TestNode {
    TestNode::with(|config| configured(config, redis, receiver)).await
}

/// Waits until no event is queued or held.
fn until_empty(redis: &RedisServer) {
    redis.until(&["XLEN", STREAM], 0);
    assert_eq!(held(redis), 0);
}

/// How many events the nodes hold.
fn held(redis: &RedisServer) -> usize {
    let consumers: Vec<redis::Value> = redis.query(&["XINFO", "GROUPS", STREAM]);
    let groups = format!("{consumers:?}");
    let (_, rest) = groups.split_once("pending").expect("there is a group");
    let digits = rest.chars().skip_while(|c| !c.is_ascii_digit());
    let digits: String = digits.take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[test]
fn backend_receives_signed_batches_of_room_and_user_events() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let node = node(&redis, &receiver).await;
        let changes = [
            "occupied lobby",
            "occupied @ada",
            "vacated lobby",
            "vacated @ada",
        ];
        append(&redis, 1000, &changes.map(str::to_owned));
        let with_receiver = receiver.requests(1).await.remove(0);
        assert!(
            with_receiver
                .head
                .starts_with("POST /hooks?token=swordfish HTTP/1.1\r\n"),
            "{}",
            with_receiver.head
        );
        assert_eq!(with_receiver.header("content-type"), "application/json");
        assert_eq!(with_receiver.header("host"), receiver.address.to_string());
        assert_eq!(with_receiver.json()["node"], "test");
        let events = with_receiver.events();
        let ends = [
            "room_occupied lobby",
            "user_online ada",
            "room_vacated lobby",
            "user_offline ada",
        ];
        assert_eq!(events.len(), ends.len(), "one batch");
        for (event, end) in events.iter().zip(ends) {
            assert!(event.ends_with(&format!(" {end}")), "{event}");
        }
        until_empty(&redis);
        let metrics = node.server().metrics();
        assert_eq!(metrics.webhooks_sent_total.get(), 4);
        assert_eq!(metrics.webhooks_failed_total.get(), 0);
    });
}

/// Two clients join and leave a room on these nodes.
async fn come_and_go(first: &TestNode, second: &TestNode, receiver: &Receiver) {
    let (mut ada, mut guest) = (first.client().await, second.client().await);
    ada.auth("ada").await;
    receiver.taken(1).await;
    ada.join("lobby").await;
    receiver.taken(2).await;
    guest.join("lobby").await;
    guest.join("chat").await;
    receiver.taken(3).await;
    drop(ada);
    drop(guest);
    let mut types: Vec<String> = receiver.taken(6).await;
    for event in &mut types {
        event.replace_range(..=event.find(' ').expect("an id"), "");
    }
    types[3..].sort();
    let expected = [
        "user_online ada",
        "room_occupied lobby",
        "room_occupied chat",
        "room_vacated chat",
        "room_vacated lobby",
        "user_offline ada",
    ];
    assert_eq!(types, expected);
}

#[test]
fn joins_and_leaves_on_all_nodes_cause_events() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let start = || {
            TestNode::with(|config| {
                configured(config, &redis, &receiver);
                config.presence_grace = Duration::ZERO;
            })
        };
        let (first, second) = futures::join!(start(), start());
        come_and_go(&first, &second, &receiver).await;
        until_empty(&redis);
    });
}

#[test]
fn node_without_redis_delivers_events_from_memory() {
    run(async {
        let receiver = Receiver::start();
        receiver.answers([Answer::Status(500)]);
        let node = TestNode::with(|config| {
            with_receiver(config, &receiver);
            config.presence_grace = Duration::ZERO;
        })
        .await;
        come_and_go(&node, &node, &receiver).await;
        let first = &receiver.received()[0];
        assert_eq!(
            first.events()[0],
            receiver.events()[0],
            "it was repeated under its id"
        );
    });
}
