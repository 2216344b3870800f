//! Loss of presence data in Redis: the nodes write their members again.

use std::time::{Duration, Instant};

use switchboard::broker::Refused;

use super::node::{BrokerNode, Form, SHORT_LEASE, settings};
use super::presence_table::{Table, list};
use crate::support::DEADLINE;
use crate::support::gate::Gate;
use crate::support::redis_server::{Options, RedisServer};

/// Two nodes with two members each; one user is on both.
fn scene(server: &RedisServer) -> (BrokerNode, BrokerNode, Table) {
    let (mut a, b) = (BrokerNode::on(server), BrokerNode::on(server));
    let mut table = Table::of(&mut a, "lobby");
    a.here("lobby", "ada", 1);
    a.here("lobby", "bob", 1);
    b.here("lobby", "bob", 1);
    b.here_with("lobby", "cy", 2, r#"{"name":"Cy"}"#);
    b.here("lobby", "", 4);
    table.until(&mut a, FULL);
    (a, b, table)
}

const FULL: &str = "ada:1 bob:2 cy:2";

fn filled_again(mut a: BrokerNode, mut b: BrokerNode, mut table: Table) {
    let (stood, deadline) = (table.version, Instant::now() + DEADLINE);
    loop {
        table.turn(&mut a);
        if table.version > stood && table.list() == FULL {
            break;
        }
        assert!(Instant::now() < deadline, "{}", table.list());
        std::thread::sleep(Duration::from_millis(5));
    }
    a.until_members("lobby", FULL);
    assert_eq!(
        table.found,
        Vec::<String>::new(),
        "no member seemed to leave"
    );
    let page = b.members("lobby");
    assert_eq!(list(&page), FULL);
    assert!(page.members[2].info.is_some());
    // The list stays unchanged.
    table.watch(&mut a, SHORT_LEASE + Duration::from_millis(2500));
    assert_eq!(table.list(), FULL);
    assert_eq!(b.members("lobby").anonymous, 4);
    b.here("lobby", "cy", 0);
    table.until(&mut a, "ada:1 bob:2");
}

#[test]
fn everything_is_deleted() {
    let server = RedisServer::start();
    let (a, b, table) = scene(&server);
    server.query::<()>(&["FLUSHALL"]);
    filled_again(a, b, table);
}

#[test]
fn list_is_unavailable_until_a_slow_node_has_written_its_members() {
    let server = RedisServer::start();
    let gate = Gate::before(server.port());
    let mut a = BrokerNode::on(&server);
    let b = BrokerNode::redis(&[&gate.url()], settings()).ready();
    let mut table = Table::of(&mut a, "lobby");
    a.here("lobby", "ada", 1);
    b.here("lobby", "bob", 1);
    table.until(&mut a, "ada:1 bob:1");
    gate.shut();
    server.query::<()>(&["FLUSHALL"]);
    a.here("lobby", "cy", 1);
    let opening = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        gate.open();
        gate
    });
    table.until(&mut a, "ada:1 bob:1 cy:1");
    assert_eq!(table.found, ["+cy"], "no member seemed to leave");
    drop(opening.join());
}

#[test]
fn emptied_redis_is_filled_by_the_nodes() {
    let mut server = RedisServer::start();
    let (a, b, table) = scene(&server);
    server.kill();
    std::thread::sleep(SHORT_LEASE * 2);
    server.run();
    filled_again(a, b, table);
}

#[test]
fn redis_restart_with_its_data_causes_no_presence_changes() {
    let options = Options::default().arg("--appendonly yes --appendfsync always");
    let mut server = RedisServer::with(options);
    let (a, b, mut table) = scene(&server);
    table.seen.clear();
    server.restart();
    let (mut a, mut b) = (a.ready(), b.ready());
    table.watch(&mut a, SHORT_LEASE * 2);
    assert_eq!(table.seen, Vec::<String>::new());
    b.until_members("lobby", FULL);
}

#[test]
fn deleted_list_of_a_room_is_restored_by_the_next_change() {
    let server = RedisServer::start();
    let (mut a, mut b, mut table) = scene(&server);
    let mut other = Table::of(&mut b, "lobby");
    for key in ["sb:{lobby}:here", "sb:{lobby}:names"] {
        server.query::<()>(&["DEL", key]);
    }
    a.here("lobby", "dot", 1);
    let full = format!("{FULL} dot:1");
    table.until(&mut a, &full);
    other.until(&mut b, &full);
    assert!(table.missed > 0, "that it was lost shows");
    assert_eq!(table.found, ["+dot"], "and no member seemed to leave");
}

#[test]
fn junk_in_a_list_is_counted_and_skipped() {
    let server = RedisServer::start();
    let (mut a, _b, _) = scene(&server);
    for (user, junk) in [
        ("eve", "junk"),
        ("fay", "0 of no format"),
        ("gus", "1000000000000000a.1 1 99:{}"),
        ("hal", "1"),
        ("ida", "100000000000000aa.1 1 3:[1]"),
        ("bob", "junk"),
    ] {
        server.query::<()>(&["HSET", "sb:{lobby}:here", user, junk]);
        server.query::<()>(&["ZADD", "sb:{lobby}:names", "0", user]);
    }
    server.query::<()>(&["ZADD", "sb:{lobby}:names", "0", "not a name"]);
    server.query::<()>(&[
        "HSET",
        "sb:{lobby}:here",
        "not a name",
        "100000000000000aa.1 1 0:",
    ]);
    let page = a.members("lobby");
    assert_eq!((list(&page), page.count), ("ada:1 cy:2".into(), 2));
    assert_eq!(a.metrics.junk_total.get(), 7);
    // The next write to the room repairs it.
    a.here("lobby", "bob", 2);
    a.until_members("lobby", "ada:1 bob:2 cy:2");
    server.query::<()>(&["HSET", "sb:{lobby}:here", "@version", "x"]);
    server.query::<()>(&["HSET", "sb:{lobby}:here", "@anonymous", "x"]);
    let page = a.members("lobby");
    assert_eq!((page.version, page.anonymous, page.count), (0, 0, 3));
}

#[test]
fn key_of_another_type_is_replaced_by_the_list() {
    let server = RedisServer::start();
    let mut a = BrokerNode::on(&server);
    for key in ["sb:{one}:here", "sb:{two}:names"] {
        server.query::<()>(&["SET", key, "x"]);
    }
    assert!(a.try_members("one", None, 10).is_err());
    for room in ["one", "two"] {
        a.here(room, "ada", 1);
        // Until it is written, it cannot be read.
        while a.try_members(room, None, 10).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        a.until_members(room, "ada:1");
    }
}

#[test]
fn empty_room_keeps_only_its_version_for_a_while() {
    let server = RedisServer::start();
    let (mut a, b, mut table) = scene(&server);
    for user in ["ada", "bob"] {
        a.here("lobby", user, 0);
    }
    for user in ["bob", "cy", ""] {
        b.here("lobby", user, 0);
    }
    table.until(&mut a, "");
    server.until::<Vec<String>>(&["HKEYS", "sb:{lobby}:here"], vec!["@version".into()]);
    let left: i64 = server.query(&["TTL", "sb:{lobby}:here"]);
    assert!((3000..=3600).contains(&left), "{left}");
    server.until::<Vec<String>>(&["KEYS", "sb:{lobby}:names"], vec![]);
    server.until::<Vec<String>>(&["KEYS", "sb:node:*"], vec![]);
    a.here("lobby", "ada", 1);
    table.until(&mut a, "ada:1");
    let left: i64 = server.query(&["TTL", "sb:{lobby}:here"]);
    assert_eq!(left, -1);
    assert_eq!(table.missed, 0);
}

/// Fills Redis until it refuses a value of one byte, and lets it be over its limit by so much that
/// what a connection takes makes no difference.
fn fill_up(server: &RedisServer) {
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "6mb"]);
    for size in [100_000, 1000, 1] {
        let value = "x".repeat(size);
        let name = |count: usize| format!("other:{size}:{count}");
        let refused = (0..1_000_000)
            .find(|count| (server.try_query::<()>(&["SET", &name(*count), &value])).is_err());
        assert!(refused.is_some(), "Redis takes everything");
    }
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "5mb"]);
}

#[test]
fn full_redis_lists_joins_and_removes_leavers_and_dead_nodes() {
    let server = RedisServer::start();
    let (mut a, b, mut table) = scene(&server);
    fill_up(&server);
    let refused = a.try_publish("lobby", "no", Form::default());
    assert_eq!(refused, Err(Refused::Full));
    b.here("lobby", "dot", 1);
    b.here("attic", "dot", 1);
    b.here("lobby", "cy", 0);
    table.until(&mut a, "ada:1 bob:2 dot:1");
    a.until_members("attic", "dot:1");
    assert_eq!(table.missed, 0);
    table.watch(&mut a, SHORT_LEASE * 2);
    assert_eq!(table.list(), "ada:1 bob:2 dot:1", "no lease ends");
    drop(b);
    table.until(&mut a, "ada:1 bob:1");
    a.until_members("attic", "");
    let refused = a.try_publish("lobby", "no", Form::default());
    assert_eq!(refused, Err(Refused::Full), "it is still full");
}
