//! Several addresses of Redis: the node uses the master, and finds the new one after a failover.

use std::time::{Duration, Instant};

use switchboard::broker::{Range, Refused};

use super::node::{BrokerNode, Form, settings};
use crate::support::DEADLINE;
use crate::support::redis_server::{Options, RedisServer};

/// A master and a replica that has everything.
fn pair() -> (RedisServer, RedisServer) {
    let master = RedisServer::with(Options::default().arg("--repl-diskless-sync-delay 0"));
    let of = format!("--replicaof 127.0.0.1 {}", master.port());
    let replica = RedisServer::with(Options::default().arg(&of));
    synced(&replica);
    (master, replica)
}

fn synced(replica: &RedisServer) {
    let start = Instant::now();
    loop {
        let info: String = replica.query(&["INFO", "replication"]);
        if info.contains("master_link_status:up") {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{info}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn master_is_used_at_any_place_in_the_list() {
    let (master, replica) = pair();
    let urls = [&replica.url()[..], &master.url()];
    let mut node = BrokerNode::redis(&urls, settings()).ready();
    node.follow("lobby");
    node.publish("lobby", "one");
    node.message("lobby");
    assert_eq!(master.query::<usize>(&["XLEN", "sb:{lobby}:log"]), 1);
}

#[test]
fn a_replica_alone_is_not_used() {
    let (_master, replica) = pair();
    let mut settings = settings();
    settings.publish_timeout = Duration::from_millis(300);
    let mut node = BrokerNode::redis(&[&replica.url()], settings);
    let answer = node.try_publish("lobby", "one", Form::default());
    assert_eq!(answer, Err(Refused::Unavailable));
    node.until_ready(false);
}

#[test]
fn a_promoted_replica_is_found_and_begins_a_new_epoch() {
    let (mut master, replica) = pair();
    let urls = [&master.url()[..], &replica.url()];
    let mut node = BrokerNode::redis(&urls, settings()).ready();
    node.follow("lobby");
    let stands = node.publish("lobby", "one");
    node.message("lobby");
    replica.until(&["XLEN", "sb:{lobby}:log"], 1);
    master.kill();
    replica.query::<()>(&["REPLICAOF", "NO", "ONE"]);
    node.following("lobby");
    let position = node
        .try_publish("lobby", "two", Form::keyed("ada", "k"))
        .expect("the new master takes it");
    assert_ne!(position.epoch, stands.epoch, "it may have lagged behind");
    let page = node.read("lobby", Range::After(stands), 10);
    assert_eq!(page.top, position);
    node.until_ready(true);
}

#[test]
fn demoted_master_is_abandoned_although_its_connections_work() {
    let (old, new) = pair();
    let urls = [&old.url()[..], &new.url()];
    let mut node = BrokerNode::redis(&urls, settings()).ready();
    node.follow("lobby");
    node.publish("lobby", "one");
    node.message("lobby");
    new.query::<()>(&["REPLICAOF", "NO", "ONE"]);
    old.query::<()>(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]);
    // No client publishes: the node detects it without traffic.
    node.following("lobby");
    node.publish("lobby", "two");
    assert_eq!(node.wait_for_text("lobby", "two").1.1, "two");
    let info: String = old.query(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    assert_eq!(info, "", "nothing is left on the old one");
}
