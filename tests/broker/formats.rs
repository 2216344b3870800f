//! Nodes that support different format versions on one Redis: each writes the newest format that
//! all live nodes read, and never skips an entry in a newer format.

use std::time::{Duration, Instant};

use switchboard::broker::redis::wire::Format;
use switchboard::broker::{BrokerEvent, Range, Refused};
use switchboard::model::readiness::ReadinessState;

use super::node::{BrokerNode, SHORT_LEASE, offsets};
use crate::support::DEADLINE;
use crate::support::redis_server::RedisServer;

/// A node that supports formats up to this one.
fn node(server: &RedisServer, newest: u8) -> BrokerNode {
    let newest = Format::new(newest).expect("a digit");
    BrokerNode::on_with(server, |settings| settings.newest_format = newest)
}

/// The format of a publication that the node makes now.
fn written(server: &RedisServer, node: &mut BrokerNode) -> char {
    let offset = node.publish("lobby", "x").offset.to_string();
    let log: Vec<(String, Vec<String>)> =
        server.query(&["XRANGE", "sb:{lobby}:log", &offset, &offset]);
    log[0].1[1].chars().next().expect("a version")
}

fn until_written(server: &RedisServer, node: &mut BrokerNode, format: char) {
    let start = Instant::now();
    while written(server, node) != format {
        assert!(start.elapsed() < DEADLINE, "format {format} is not written");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn until_state(node: &BrokerNode, state: ReadinessState) {
    let start = Instant::now();
    while node.readiness.state() != state {
        assert!(start.elapsed() < DEADLINE, "{:?}", node.readiness.state());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn node_writes_the_newest_format_that_all_live_leases_announce() {
    let server = RedisServer::start();
    let mut a = node(&server, 2);
    assert_eq!(
        written(&server, &mut a),
        '1',
        "it cannot know the others yet"
    );
    until_written(&server, &mut a, '2');
    // A node that supports more does not write more.
    let mut b = node(&server, 3);
    until_written(&server, &mut b, '2');
    let mut old = node(&server, 1);
    until_written(&server, &mut a, '1');
    until_written(&server, &mut b, '1');
    assert_eq!(written(&server, &mut old), '1');
    drop(old);
    until_written(&server, &mut a, '2');
    until_written(&server, &mut b, '2');
}

#[test]
fn lease_without_an_announcement_counts_as_the_first_format() {
    let server = RedisServer::start();
    let mut a = node(&server, 2);
    until_written(&server, &mut a, '2');
    let time: Vec<u64> = server.query(&["TIME"]);
    let ends = (time[0] + 30).to_string() + "000";
    server.query::<()>(&["ZADD", "sb:nodes", &ends, "00000000000000ff.1"]);
    until_written(&server, &mut a, '1');
    server.query::<()>(&["ZREM", "sb:nodes", "00000000000000ff.1"]);
    until_written(&server, &mut a, '2');
}

#[test]
fn announcements_of_ended_leases_are_deleted() {
    let server = RedisServer::start();
    let a = node(&server, 2);
    for number in 0..3000 {
        let lease = format!("00000000000000ff.{number}");
        server.query::<()>(&["HSET", "sb:nodes:formats", &lease, "1"]);
    }
    drop(node(&server, 1));
    let retired = node(&server, 1);
    retired.retire(Duration::from_millis(500));
    server.until(&["HVALS", "sb:nodes:formats"], vec!["2".to_owned()]);
    // A foreign value of another type is replaced.
    server.query::<()>(&["DEL", "sb:nodes:formats"]);
    server.query::<()>(&["SET", "sb:nodes:formats", "junk"]);
    let announced = || server.try_query::<Vec<String>>(&["HVALS", "sb:nodes:formats"]);
    let start = Instant::now();
    while announced().ok() != Some(vec!["2".to_owned()]) {
        assert!(start.elapsed() < DEADLINE, "{:?}", announced());
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(a);
}

#[test]
fn entry_in_a_newer_format_ends_the_page_and_makes_the_node_not_ready_until_it_is_gone() {
    let server = RedisServer::start();
    let mut old = node(&server, 1);
    let stands = old.publish("lobby", "1");
    old.publish("lobby", "2");
    let append = |offset: u64, body: &[u8]| {
        server.append("sb:{lobby}:log", offset, body);
        server.query::<()>(&["HSET", "sb:{lobby}:meta", "offset", &offset.to_string()]);
    };
    append(3, b"2{\"t\":1,\"d\":\"3\"}");
    append(4, b"1{\"t\":1,\"d\":\"4\"}");
    let page = old.read("lobby", Range::After(stands), 10);
    assert_eq!((offsets(&page), page.top.offset), (vec![2], 4));
    assert_eq!(
        old.readiness.state(),
        ReadinessState::Ready,
        "what it needed was there"
    );
    let mut at = stands;
    at.offset = 2;
    let read = |old: &mut BrokerNode| old.try_read("lobby", Range::After(at), 10).map(|_| ());
    assert_eq!(read(&mut old), Err(Refused::Newer));
    until_state(&old, ReadinessState::Unreadable);
    let newest = old.try_read("lobby", Range::Before(None), 10);
    assert_eq!(
        newest.map(|_| ()),
        Err(Refused::Newer),
        "no hole in history"
    );
    assert_eq!(old.metrics.junk_total.get(), 0);
    // Repeated reads return the same, and a node that supports the format reads everything.
    assert_eq!(read(&mut old), Err(Refused::Newer));
    assert_eq!(old.readiness.state(), ReadinessState::Unreadable);
    let mut new = node(&server, 2);
    let page = new.read("lobby", Range::After(stands), 10);
    assert_eq!(offsets(&page), [2, 3, 4]);
    // When the entry is trimmed, the page begins after it.
    server.query::<()>(&["XTRIM", "sb:{lobby}:log", "MINID", "4"]);
    let page = old.read("lobby", Range::After(at), 10);
    assert_eq!((page.first, offsets(&page)), (4, vec![4]));
    until_state(&old, ReadinessState::Ready);
}

#[test]
fn message_in_a_newer_format_leads_to_another_read_of_its_room() {
    let server = RedisServer::start();
    let mut old = node(&server, 1);
    old.follow("lobby");
    let stands = old.publish("lobby", "1");
    old.message("lobby");
    for newer in [
        format!("2 {} 2 2{{\"t\":1,\"d\":1}}", stands.epoch),
        format!("1 {} 2 2{{\"t\":1,\"d\":1}}", stands.epoch),
        "2 here 1 2 ada 0 1 ".to_owned(),
        "9 anything".to_owned(),
    ] {
        server.publish("sb:{lobby}", newer.as_bytes());
        old.following("lobby");
        assert!(old.rest().is_empty(), "{newer}");
    }
    assert_eq!(old.metrics.junk_total.get(), 0);
}

#[test]
fn members_in_a_newer_format_are_neither_left_out_nor_overwritten() {
    let server = RedisServer::start();
    let mut old = node(&server, 1);
    old.here("lobby", "bob", 1);
    old.until_members("lobby", "bob:1");
    let field = "2 something that only a newer node reads";
    server.query::<()>(&["HSET", "sb:{lobby}:here", "ada", field]);
    server.query::<()>(&["ZADD", "sb:{lobby}:names", "0", "ada"]);
    let refused = old.try_members("lobby", None, 10);
    assert_eq!(refused.map(|_| ()), Err(Refused::Newer));
    until_state(&old, ReadinessState::Unreadable);
    old.here("lobby", "ada", 1);
    // Other rooms are not affected.
    old.here("elsewhere", "ada", 1);
    old.until_members("elsewhere", "ada:1");
    let kept: String = server.query(&["HGET", "sb:{lobby}:here", "ada"]);
    assert_eq!(kept, field);
    server.query::<()>(&["HDEL", "sb:{lobby}:here", "ada"]);
    old.until_members("lobby", "ada:1 bob:1");
    until_state(&old, ReadinessState::Ready);
}

#[test]
fn publications_of_both_formats_arrive_in_order_at_a_node_that_knows_both() {
    let server = RedisServer::start();
    let (mut new, mut old) = (node(&server, 2), node(&server, 1));
    new.follow("lobby");
    until_written(&server, &mut old, '1');
    drop(old);
    std::thread::sleep(SHORT_LEASE);
    until_written(&server, &mut new, '2');
    let last = new.publish("lobby", "end");
    let mut stood = 0;
    while stood < last.offset {
        let (_, (offset, _)) = new.message("lobby");
        assert_eq!(offset, stood + 1);
        stood = offset;
    }
    let ephemeral = super::node::Form {
        ephemeral: true,
        ..Default::default()
    };
    new.send_publish("lobby", "typing", ephemeral);
    assert_eq!(new.ephemeral("lobby"), "typing");
    assert!(
        !new.rest()
            .iter()
            .any(|event| matches!(event, BrokerEvent::Message { .. }))
    );
}
