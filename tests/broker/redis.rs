//! Connections to Redis and its refusals: addresses, passwords, TLS, prefixes, scripts, memory, and
//! foreign data.

use std::time::{Duration, Instant};

use switchboard::broker::redis::{LEASE, RedisSettings};
use switchboard::broker::{Range, Refused};
use switchboard::dispatcher::Now;
use switchboard::model::revocations::Cutoff;

use super::node::{BrokerNode, Form, settings};
use super::presence_table::list;
use crate::support::DEADLINE;
use crate::support::redis_server::{Options, RedisServer};

fn works(mut node: BrokerNode) {
    node.follow("lobby");
    node.publish("lobby", "hello");
    assert_eq!(node.message("lobby").1, (1, "hello".into()));
    for who in ["ada", ""] {
        node.here("lobby", who, 1);
    }
    assert_eq!(node.change("lobby").connections, 1);
    assert_eq!(list(&node.members("lobby")), "ada:1");
    node.here("lobby", "ada", 0);
    assert_eq!(node.change("lobby").connections, 0);
    let cutoff = Cutoff::at(Now::read().unix_ms);
    assert!(node.revoke("ada", cutoff));
    assert_eq!(node.revocations(), [("ada".to_owned(), cutoff)]);
}

#[test]
fn password_user_and_database_come_from_the_address() {
    let options = Options {
        password: Some("s:e/c".into()),
        ..Options::default()
    };
    let server = RedisServer::with(options.arg("--requirepass s:e/c"));
    let port = server.port();
    let acl = "ACL SETUSER ada on >pw ~sb:* &sb* +@all";
    server.query::<String>(&acl.split_whitespace().collect::<Vec<_>>());
    for url in [
        format!("redis://:s%3Ae%2Fc@127.0.0.1:{port}"),
        format!("redis://ada:pw@127.0.0.1:{port}/3"),
    ] {
        works(BrokerNode::redis(&[&url], settings()).ready());
    }
    let keys: Vec<String> = server.query(&["KEYS", "*:log"]);
    assert_eq!(keys.len(), 1, "the other's is in database 3");
}

#[test]
fn a_wrong_password_leaves_the_node_unready() {
    let options = Options {
        password: Some("right".into()),
        ..Options::default()
    };
    let server = RedisServer::with(options.arg("--requirepass right"));
    let url = format!("redis://:wrong@127.0.0.1:{}", server.port());
    let mut settings = settings();
    settings.publish_timeout = Duration::from_millis(300);
    let mut node = BrokerNode::redis(&[&url], settings);
    let answer = node.try_publish("lobby", "hello", Form::default());
    assert_eq!(answer, Err(Refused::Unavailable));
    let page = node.try_read("lobby", Range::Top, 0);
    assert_eq!(page.unwrap_err(), Refused::Unavailable);
    node.until_ready(false);
}

#[test]
fn tls_is_spoken_with_an_authority_from_a_file() {
    let server = RedisServer::with(Options {
        tls: true,
        ..Options::default()
    });
    let redis = RedisSettings {
        addresses: vec![server.tls_url().parse().unwrap()],
        prefix: "sb".into(),
        authorities: Some(server.authority()),
        allow_eviction: false,
        lease: LEASE,
    };
    works(BrokerNode::with(redis, settings()).ready());
}

#[test]
fn prefixes_keep_clusters_apart() {
    let server = RedisServer::start();
    let node = |prefix: &str| {
        let redis = RedisSettings {
            addresses: vec![server.url().parse().unwrap()],
            prefix: prefix.into(),
            authorities: None,
            allow_eviction: false,
            lease: LEASE,
        };
        BrokerNode::with(redis, settings()).ready()
    };
    let (mut a, mut b) = (node("one"), node("two"));
    a.follow("lobby");
    b.follow("lobby");
    a.publish("lobby", "a");
    a.message("lobby");
    assert_eq!(b.publish("lobby", "b").offset, 1);
    assert_eq!(
        b.message("lobby").1,
        (1, "b".into()),
        "nothing of the other"
    );
}

#[test]
fn script_missing_in_redis_is_loaded_again() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    node.publish("lobby", "one");
    server.query::<()>(&["SCRIPT", "FLUSH"]);
    let tickets: Vec<_> = (0..600)
        .map(|_| node.send_publish("lobby", "more", Form::default()))
        .collect();
    for (n, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(node.answer(ticket).unwrap().offset, n as u64 + 2);
    }
    assert_eq!(node.top("lobby").offset, 601);
}

#[test]
fn junk_on_a_topic_is_counted_and_dropped() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    node.follow("lobby");
    for junk in ["hello", "0 000000000000002a 1 1{}", "1 x", ""] {
        server.query::<()>(&["PUBLISH", "sb:{lobby}", junk]);
    }
    server.query::<()>(&["PUBLISH", "sb:{unfollowed}", "junk"]);
    node.publish("lobby", "one");
    assert_eq!(node.message("lobby").1, (1, "one".into()));
    assert_eq!(node.metrics.junk_total.get(), 4);
    assert!(node.rest().is_empty());
}

#[test]
fn full_redis_refuses_publishes_without_side_effects() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    let first = node.publish("lobby", "one");
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let keyed = Form::keyed("ada", "k");
    for form in [Form::default(), keyed] {
        let answer = node.try_publish("lobby", "two", form);
        assert_eq!(answer, Err(Refused::Full));
    }
    assert_eq!(node.top("lobby"), first, "what is there can be read");
    let unknown = node.try_read("new", Range::Top, 0);
    assert_eq!(unknown.unwrap_err(), Refused::Full, "nothing new begins");
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(node.try_publish("lobby", "two", keyed).unwrap().offset, 2);
}

#[test]
fn node_starts_without_redis_and_is_ready_after_it_appears() {
    let mut server = RedisServer::absent(Options::default());
    let mut node = BrokerNode::redis(&[&server.url()], settings());
    let early = node.send_publish("early", "early", Form::default());
    std::thread::sleep(Duration::from_millis(700));
    node.until_ready(false);
    server.run();
    node.until_ready(true);
    assert_eq!(node.answer(early).unwrap().offset, 1, "it has waited");
    works(node);
}

#[test]
fn dropping_the_broker_closes_its_connections() {
    let server = RedisServer::start();
    let own = "# Clients\r\nconnected_clients:";
    let clients = || {
        let info: String = server.query(&["INFO", "clients"]);
        info.strip_prefix(own).unwrap()[..1].to_owned()
    };
    let node = BrokerNode::on(&server);
    assert_eq!(clients(), "4", "three and the one that asks");
    drop(node);
    let start = Instant::now();
    while clients() != "1" {
        assert!(start.elapsed() < DEADLINE, "{}", clients());
        std::thread::sleep(Duration::from_millis(5));
    }
}
