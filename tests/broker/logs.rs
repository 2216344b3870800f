//! Logs that lost something: deleted, emptied, set back, or changed by someone else. Who stood there is never told that
//! nothing was missed, and whoever looks first begins the one new epoch.

use switchboard::broker::Range;
use switchboard::id::Position;

use super::node::{BrokerNode, offsets, said};
use crate::support::redis_server::RedisServer;

/// Two nodes that stand at offset 5 of the lobby.
fn scene() -> (RedisServer, BrokerNode, BrokerNode, Position) {
    let server = RedisServer::start();
    let (mut a, b) = (BrokerNode::on(&server), BrokerNode::on(&server));
    let mut stands = a.top("lobby");
    for text in ["1", "2", "3", "4", "5"] {
        stands = a.publish("lobby", text);
    }
    (server, a, b, stands)
}

/// Both nodes ask, and are told of the same new epoch; then it holds.
fn one_new_epoch(a: &mut BrokerNode, b: &mut BrokerNode, stands: Position) {
    let page = a.read("lobby", Range::After(stands), 10);
    assert_ne!(page.top.epoch, stands.epoch);
    assert_eq!(
        (page.top.offset, page.first, page.messages.len()),
        (0, 1, 0)
    );
    assert_eq!(b.read("lobby", Range::After(stands), 10).top, page.top);
    let first = b.publish("lobby", "new");
    assert_eq!((first.epoch, first.offset), (page.top.epoch, 1));
    let page = a.read("lobby", Range::After(stands), 10);
    assert_eq!((page.top, said(&page)), (first, vec![(1, "new".into())]));
}

#[test]
fn everything_is_deleted() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["FLUSHALL"]);
    one_new_epoch(&mut a, &mut b, stands);
}

#[test]
fn the_position_is_deleted() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["DEL", "sb:{lobby}:meta"]);
    one_new_epoch(&mut a, &mut b, stands);
}

#[test]
fn the_position_is_deleted_and_somebody_publishes_first() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["DEL", "sb:{lobby}:meta"]);
    let first = b.publish("lobby", "new");
    assert_ne!(first.epoch, stands.epoch);
    assert_eq!(first.offset, 1, "the old log does not go on");
    let page = a.read("lobby", Range::After(stands), 10);
    assert_eq!(said(&page), [(1, "new".into())]);
}

#[test]
fn position_and_log_are_set_back_together() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["HSET", "sb:{lobby}:meta", "offset", "3"]);
    server.query::<()>(&["XDEL", "sb:{lobby}:log", "5-0", "4-0"]);
    let top = b.top("lobby");
    assert_eq!((top.epoch, top.offset), (stands.epoch, 3), "it looks well");
    one_new_epoch(&mut a, &mut b, stands);
}

#[test]
fn the_position_is_set_back_and_somebody_publishes_first() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["HSET", "sb:{lobby}:meta", "offset", "3"]);
    let first = b.publish("lobby", "new");
    assert_ne!(
        first.epoch, stands.epoch,
        "the log is ahead of the position"
    );
    assert_eq!(first.offset, 1);
    assert_eq!(a.read("lobby", Range::After(stands), 10).top, first);
}

#[test]
fn the_log_lost_its_end() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["XDEL", "sb:{lobby}:log", "5-0"]);
    one_new_epoch(&mut a, &mut b, stands);
}

#[test]
fn a_position_that_is_nonsense_begins_anew() {
    for (field, value) in [
        ("offset", "x"),
        ("offset", "1e3"),
        ("epoch", ""),
        ("offset", "-1"),
    ] {
        let (server, mut a, mut b, stands) = scene();
        server.query::<()>(&["HSET", "sb:{lobby}:meta", field, value]);
        one_new_epoch(&mut a, &mut b, stands);
    }
}

#[test]
fn a_log_that_expired_keeps_its_position() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["DEL", "sb:{lobby}:log"]);
    let page = a.read("lobby", Range::After(stands), 10);
    assert_eq!((page.top, page.first), (stands, 6), "nothing is missed");
    let next = b.publish("lobby", "6");
    assert_eq!((next.epoch, next.offset), (stands.epoch, 6));
    let start = Position {
        offset: 0,
        ..stands
    };
    let page = a.read("lobby", Range::After(start), 10);
    assert_eq!((page.first, offsets(&page)), (6, vec![6]));
}

#[test]
fn a_hole_ends_a_page_and_is_told_in_the_next() {
    let (server, mut a, _, stands) = scene();
    server.query::<()>(&["XDEL", "sb:{lobby}:log", "3-0"]);
    let after = |offset| Range::After(Position { offset, ..stands });
    let page = a.read("lobby", after(0), 10);
    assert_eq!((page.first, offsets(&page)), (1, vec![1, 2]));
    let page = a.read("lobby", after(2), 10);
    assert_eq!((page.first, offsets(&page)), (4, vec![4, 5]));
    let page = a.read("lobby", Range::Before(None), 10);
    assert_eq!(offsets(&page), [4, 5]);
}

#[test]
fn an_entry_that_cannot_be_read_leaves_no_hole() {
    let (server, mut a, _, stands) = scene();
    server.query::<()>(&["XADD", "sb:{lobby}:log", "6-0", "b", "9 from the future"]);
    server.query::<()>(&["HSET", "sb:{lobby}:meta", "offset", "6"]);
    let page = a.read("lobby", Range::After(stands), 10);
    assert_eq!(said(&page), [(6, "null".into())]);
    assert_eq!(a.metrics.junk_total.get(), 1);
}

#[test]
fn a_page_of_great_messages_is_short_and_the_next_goes_on() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    let epoch = node.top("lobby").epoch;
    let great = "x".repeat(200_000);
    for _ in 0..7 {
        node.publish("lobby", &great);
    }
    let mut stands = Position { epoch, offset: 0 };
    let mut pages = Vec::new();
    while stands.offset < 7 {
        let page = node.read("lobby", Range::After(stands), 100);
        pages.push(offsets(&page));
        stands.offset = page.messages.last().expect("at least one").0;
    }
    assert_eq!(pages, [vec![1, 2], vec![3, 4], vec![5, 6], vec![7]]);
    let page = node.read("lobby", Range::Before(None), 100);
    assert_eq!(offsets(&page), [6, 7]);
}

#[test]
fn keys_and_logs_live_as_long_as_they_should() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    node.top("idle");
    node.try_publish("lobby", "one", super::node::Form::keyed("ada", "k"))
        .unwrap();
    for (key, seconds) in [
        ("sb:{lobby}:log", 60),
        ("sb:{lobby}:meta", 30 * 24 * 3600),
        ("sb:{lobby}:key:ada:6b", 300),
        ("sb:{idle}:meta", 24 * 3600),
    ] {
        let left: i64 = server.query(&["TTL", key]);
        assert!((seconds - 5..=seconds).contains(&left), "{key}: {left}");
    }
    // A read of a room in use keeps its position alive, when half of its time is over.
    server.query::<()>(&["EXPIRE", "sb:{lobby}:meta", "60"]);
    node.top("lobby");
    let left: i64 = server.query(&["TTL", "sb:{lobby}:meta"]);
    assert!(left > 3600, "{left}");
}
