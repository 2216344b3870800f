//! Servers that a node cannot use: the node names what an operator must change, and is ready when
//! it has been changed.

use std::time::{Duration, Instant};

use super::node::{BrokerNode, SHORT_LEASE, settings};
use crate::support::DEADLINE;
use crate::support::redis_server::{Options, RedisServer, free_port};
use switchboard::broker::redis::RedisSettings;
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
            start.elapsed() < DEADLINE,
            "{state:?} with {found:?}, not {reason:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes a member of the lobby on a node that died long ago.
fn leave_a_dead_node(server: &RedisServer) {
    let lease = "00000000000000aa.1";
    server.query::<()>(&["ZADD", "sb:nodes", "1", lease]);
    let rooms = format!("sb:node:{lease}:rooms");
    server.query::<()>(&["ZADD", &rooms, "1", "lobby"]);
    let part = format!("1{lease} 1 0:");
    server.query::<()>(&["HSET", "sb:{lobby}:here", "zoe", &part]);
    server.query::<()>(&["ZADD", "sb:{lobby}:names", "0", "zoe"]);
}

/// The words of the ACL line in docs/operations.md, for the prefix `sb`.
fn acl_line() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let document = std::fs::read_to_string(path).expect("the document is there");
    let (_, line) = document.split_once("ACL SETUSER").expect("an ACL line");
    let (line, _) = line.split_once("```").expect("its end");
    let words = line.split_whitespace().filter(|word| *word != "\\");
    let words = words.map(|word| word.replace("switchboard:", "sb:"));
    ["ACL".to_owned(), "SETUSER".to_owned()]
        .into_iter()
        .chain(words)
        .collect()
}

/// Sets the user of the document under another name, with some words changed.
fn set_user(server: &RedisServer, name: &str, change: impl Fn(&str) -> Option<String>) {
    let mut words: Vec<String> = acl_line().iter().filter_map(|word| change(word)).collect();
    words[2] = name.to_owned();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    server.query::<()>(&words);
}

fn node_of(server: &RedisServer, user: &str) -> BrokerNode {
    let url = format!("redis://{user}:PASSWORD@127.0.0.1:{}", server.port());
    BrokerNode::redis(&[&url], settings())
}

#[test]
fn node_works_with_the_acl_line_of_the_document_and_leaves_no_keys_of_its_check() {
    let server = RedisServer::start();
    set_user(&server, "ada", |word| Some(word.to_owned()));
    leave_a_dead_node(&server);
    let mut node = node_of(&server, "ada").ready();
    node.until_members("lobby", "");
    server.until(&["ZCARD", "sb:nodes"], 1);
    node.follow("lobby");
    node.publish("lobby", "hello");
    assert_eq!(node.message("lobby").1, (1, "hello".into()));
    node.here("lobby", "ada", 1);
    assert_eq!(node.change("lobby").connections, 1);
    let keys: Vec<String> = server.query(&["KEYS", "*self-check*"]);
    assert_eq!(keys, Vec::<String>::new());
}

#[test]
fn each_command_that_is_taken_away_is_named_and_granting_it_makes_the_node_ready() {
    let server = RedisServer::start();
    let line = acl_line();
    let commands: Vec<&str> = line
        .iter()
        .filter_map(|word| word.strip_prefix('+'))
        .collect();
    assert!(commands.len() > 40, "{commands:?}");
    let nodes: Vec<BrokerNode> = (commands.iter().enumerate())
        .map(|(index, command)| {
            let user = format!("user{index}");
            let without = format!("+{command}");
            set_user(&server, &user, |word| {
                (word != without).then(|| word.to_owned())
            });
            node_of(&server, &user)
        })
        .collect();
    for (index, (node, command)) in nodes.iter().zip(&commands).enumerate() {
        until_unusable(node, command);
        server.query::<()>(&[
            "ACL",
            "SETUSER",
            &format!("user{index}"),
            &format!("+{command}"),
        ]);
    }
    for node in &nodes {
        node.until_ready(true);
    }
    let keys: Vec<String> = server.query(&["KEYS", "*self-check*"]);
    assert_eq!(keys, Vec::<String>::new());
}

#[test]
fn keys_and_channels_that_are_not_allowed_are_named() {
    let server = RedisServer::start();
    for (index, (former, other, named)) in [
        ("~sb:*", "~other:*", "~sb:*"),
        ("~sb:*", "~sb:{*", "~sb:*"),
        ("&sb:*", "&other:*", "&sb:*"),
        ("&sb:*", "&sb:node:*", "&sb:*"),
    ]
    .into_iter()
    .enumerate()
    {
        let user = format!("user{index}");
        set_user(&server, &user, |word| {
            Some(if word == former { other } else { word }.to_owned())
        });
        let node = node_of(&server, &user);
        until_unusable(&node, if former == "&sb:*" { "channel" } else { "key" });
        until_unusable(&node, named);
        server.query::<()>(&["ACL", "SETUSER", &user, former]);
        node.until_ready(true);
    }
}

#[test]
fn full_redis_keeps_no_node_out_but_readiness_says_that_it_is_full() {
    let server = RedisServer::start();
    let early = BrokerNode::on(&server);
    assert_eq!(early.readiness.limitation(), None);
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let late = BrokerNode::on(&server);
    for node in [&early, &late] {
        until_limited(node, Some("Redis is full (OOM): publishes"));
        assert_eq!(node.metrics.redis_refuses_writes.get(), 1);
        node.until_ready(true);
    }
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    until_limited(&early, None);
    assert_eq!(early.metrics.redis_refuses_writes.get(), 0);
}

#[test]
fn redis_without_its_replicas_is_said_to_refuse_writes() {
    let server = RedisServer::with(Options::default().arg("--min-replicas-to-write 1"));
    let node = BrokerNode::on(&server);
    until_limited(&node, Some("Redis has too few replicas (NOREPLICAS)"));
}

/// Waits until this does not work although the node is ready.
fn until_limited(node: &BrokerNode, wanted: Option<&str>) {
    let start = Instant::now();
    loop {
        let found = node.readiness.limitation();
        let is_wanted = match (&found, wanted) {
            (Some(found), Some(wanted)) => found.contains(wanted),
            (found, wanted) => found.is_none() && wanted.is_none(),
        };
        if is_wanted {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{found:?}, not {wanted:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn redis_that_may_evict_is_not_used_unless_it_is_allowed() {
    let server = RedisServer::with(
        Options::default().arg("--maxmemory 100mb --maxmemory-policy allkeys-lru"),
    );
    let node = BrokerNode::redis(&[&server.url()], settings());
    until_unusable(
        &node,
        "its maxmemory-policy is allkeys-lru; set it to noeviction",
    );
    let redis = RedisSettings {
        addresses: vec![server.url().parse().expect("a URL")],
        prefix: "sb".into(),
        authorities: None,
        allow_eviction: true,
        lease: SHORT_LEASE,
    };
    BrokerNode::with(redis, settings()).ready();
    server.query::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    node.until_ready(true);
    server.query::<()>(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    until_unusable(&node, "its maxmemory-policy is volatile-ttl");
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    node.until_ready(true);
}

fn cluster() -> RedisServer {
    RedisServer::with(cluster_options())
}

/// The port between nodes is a free one too: by default it is in the range of outgoing connections.
fn cluster_options() -> Options {
    let port = format!("--cluster-port {}", free_port());
    Options::default().arg("--cluster-enabled yes").arg(&port)
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
    single.set_options(cluster_options());
    single.run();
    until_unusable(&node, "it is a Redis Cluster");
    single.kill();
    single.set_options(Options::default());
    single.run();
    node.until_ready(true);
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
    node.until_ready(true);

    let master = RedisServer::start();
    let of = format!("--replicaof 127.0.0.1 {}", master.port());
    let replica = RedisServer::with(Options::default().arg(&of));
    let node = BrokerNode::redis(&[&replica.url()], settings());
    until_unusable(&node, "it is a replica; give the master's address too");
    replica.query::<()>(&["REPLICAOF", "NO", "ONE"]);
    node.until_ready(true);
}
