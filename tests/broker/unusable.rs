//! Servers that a node cannot use: the node says what an operator must change, and is ready when it
//! has been changed.

use std::time::{Duration, Instant};

use super::node::{BrokerNode, settings};
use crate::support::redis_server::{Options, RedisServer};
use switchboard::model::readiness::ReadinessState;

/// Waits until the node is not ready for this reason.
fn until_unusable(node: &BrokerNode, reason: &str) {
    let start = Instant::now();
    loop {
        let (state, found) = (node.readiness.state(), node.readiness.reason());
        if state == ReadinessState::Unusable && found.contains(reason) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{state:?} with {found:?}, not {reason:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn cluster() -> RedisServer {
    RedisServer::with(Options::default().arg("--cluster-enabled yes"))
}

#[test]
fn redis_cluster_is_refused_with_a_sentence() {
    let server = cluster();
    let slots: Vec<String> = (0..16384).map(|slot| slot.to_string()).collect();
    let mut words = vec!["CLUSTER", "ADDSLOTS"];
    words.extend(slots.iter().map(String::as_str));
    server.query::<()>(&words);
    let node = BrokerNode::redis(&[&server.url()], settings());
    until_unusable(
        &node,
        "it is a Redis Cluster, which is not supported yet; give",
    );
}

#[test]
fn redis_cluster_that_appears_later_is_refused_until_a_single_redis_returns() {
    let mut single = RedisServer::start();
    let node = BrokerNode::on(&single);
    single.kill();
    single.set_options(Options::default().arg("--cluster-enabled yes"));
    single.run();
    until_unusable(&node, "it is a Redis Cluster");
    single.kill();
    single.set_options(Options::default());
    single.run();
    node.until_ready(true, Duration::from_secs(10));
}

#[test]
fn sentinel_is_recognized() {
    let sentinel = RedisServer::sentinel();
    let node = BrokerNode::redis(&[&sentinel.url()], settings());
    until_unusable(&node, "it is a Sentinel; give the address of the master");
}

#[test]
fn sentinel_or_cluster_beside_a_master_does_no_harm() {
    let (sentinel, cluster, master) = (RedisServer::sentinel(), cluster(), RedisServer::start());
    let urls = [sentinel.url(), cluster.url(), master.url()];
    let urls = urls.each_ref().map(String::as_str);
    BrokerNode::redis(&urls, settings()).ready();
}

#[test]
fn wrong_password_and_replica_are_named() {
    let options = Options {
        password: Some("right".into()),
        ..Options::default()
    };
    let server = RedisServer::with(options.arg("--requirepass right"));
    let url = format!("redis://:wrong@127.0.0.1:{}", server.port());
    let node = BrokerNode::redis(&[&url], settings());
    until_unusable(&node, "Redis refuses the user or the password");
    assert!(!node.readiness.reason().contains("wrong@"));
    server.query::<()>(&["CONFIG", "SET", "requirepass", "wrong"]);
    node.until_ready(true, Duration::from_secs(10));

    let master = RedisServer::start();
    let of = format!("--replicaof 127.0.0.1 {}", master.port());
    let replica = RedisServer::with(Options::default().arg(&of));
    let node = BrokerNode::redis(&[&replica.url()], settings());
    until_unusable(&node, "it is a replica; give the master's address too");
    replica.query::<()>(&["REPLICAOF", "NO", "ONE"]);
    node.until_ready(true, Duration::from_secs(10));
}
