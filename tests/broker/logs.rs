//! Logs that lost data: deleted, emptied, set back, or changed by others. A reader with a position
//! in such a log always detects the loss, and the first access begins exactly one new epoch.

use std::time::Duration;

use switchboard::broker::Range;
use switchboard::model::epochs::MAX_ENDS;
use switchboard::model::id::{Epoch, Position};
use switchboard::model::retention::Retention;

use super::node::{BrokerNode, Form, entries, offsets};
use crate::support::redis_server::RedisServer;

/// Two nodes at offset 5 of the lobby.
fn scene() -> (RedisServer, BrokerNode, BrokerNode, Position) {
    let server = RedisServer::start();
    let (mut a, b) = (BrokerNode::on(&server), BrokerNode::on(&server));
    let mut stands = a.top("lobby");
    for text in ["1", "2", "3", "4", "5"] {
        stands = a.publish("lobby", text);
    }
    (server, a, b, stands)
}

/// Both nodes read and find the same new epoch, which continues after `end`; then it is stable.
fn one_new_epoch(a: &mut BrokerNode, b: &mut BrokerNode, stands: Position, end: u64) -> Position {
    let page = a.read("lobby", Range::After(stands), 10);
    assert_ne!(page.top.epoch, stands.epoch);
    assert_eq!((page.top.offset, page.messages.len()), (end, 0));
    assert_eq!(b.read("lobby", Range::After(stands), 10).top, page.top);
    let first = b.publish("lobby", "new");
    assert_eq!((first.epoch, first.offset), (page.top.epoch, end + 1));
    let page = a.read("lobby", Range::After(stands), 10);
    assert_eq!(
        (page.top, entries(&page)),
        (first, vec![(end + 1, "new".into())])
    );
    first
}

/// What is left in the log after the new epoch's first message.
fn history_is(node: &mut BrokerNode, expected: &[&str]) {
    let page = node.read("lobby", Range::Before(None), 10);
    let texts: Vec<_> = entries(&page).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, expected);
}

#[test]
fn everything_is_deleted() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["FLUSHALL"]);
    one_new_epoch(&mut a, &mut b, stands, 0);
}

#[test]
fn a_deleted_position_keeps_the_entries() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["DEL", "sb:{lobby}:meta"]);
    one_new_epoch(&mut a, &mut b, stands, 5);
    history_is(&mut a, &["1", "2", "3", "4", "5", "new"]);
}

#[test]
fn a_deleted_position_keeps_the_entries_when_a_publish_comes_first() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["DEL", "sb:{lobby}:meta"]);
    let first = b.publish("lobby", "new");
    assert_ne!(first.epoch, stands.epoch);
    assert_eq!(first.offset, 6, "offsets go on");
    let page = a.read("lobby", Range::After(stands), 10);
    assert_eq!(entries(&page), [(6, "new".into())], "nothing comes again");
    history_is(&mut a, &["1", "2", "3", "4", "5", "new"]);
}

#[test]
fn position_and_log_set_back_together_end_where_the_stream_ended() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["HSET", "sb:{lobby}:meta", "offset", "3"]);
    server.query::<()>(&["XDEL", "sb:{lobby}:log", "5-0", "4-0"]);
    let top = b.top("lobby");
    assert_eq!((top.epoch, top.offset), (stands.epoch, 3), "it looks well");
    one_new_epoch(&mut a, &mut b, stands, 5);
    history_is(&mut a, &["new"]);
    let page = a.read(
        "lobby",
        Range::After(Position {
            offset: 3,
            ..stands
        }),
        10,
    );
    assert_eq!(
        (page.first, offsets(&page)),
        (6, vec![6]),
        "4 and 5 are lost, and it shows"
    );
}

#[test]
fn position_set_back_ends_at_the_end_of_the_log_after_a_publish() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["HSET", "sb:{lobby}:meta", "offset", "3"]);
    let first = b.publish("lobby", "new");
    assert_ne!(
        first.epoch, stands.epoch,
        "the log is ahead of the position"
    );
    assert_eq!(first.offset, 6);
    assert_eq!(a.read("lobby", Range::After(stands), 10).top, first);
    history_is(&mut a, &["1", "2", "3", "4", "5", "new"]);
}

#[test]
fn log_that_lost_its_end_begins_one_epoch_and_not_one_per_read() {
    let (server, mut a, mut b, stands) = scene();
    server.query::<()>(&["XDEL", "sb:{lobby}:log", "5-0"]);
    let top = a.top("lobby");
    assert_ne!(top.epoch, stands.epoch);
    assert_eq!(b.top("lobby"), top, "found once");
    one_new_epoch(&mut a, &mut b, stands, 5);
    let page = a.read(
        "lobby",
        Range::After(Position {
            offset: 4,
            ..stands
        }),
        10,
    );
    assert_eq!((page.first, offsets(&page)), (6, vec![6]));
}

#[test]
fn invalid_position_begins_an_epoch_after_the_entries() {
    for (field, value) in [
        ("offset", "x"),
        ("offset", "1e3"),
        ("epoch", ""),
        ("offset", "-1"),
    ] {
        let (server, mut a, mut b, stands) = scene();
        server.query::<()>(&["HSET", "sb:{lobby}:meta", field, value]);
        one_new_epoch(&mut a, &mut b, stands, 5);
        history_is(&mut a, &["1", "2", "3", "4", "5", "new"]);
    }
}

/// Changes the identity of the data set, as a restart does, without losing data.
fn change_data_set(server: &RedisServer) {
    server.query::<()>(&["HSET", "sb:{lobby}:meta", "replid", "another"]);
}

#[test]
fn ended_epochs_are_remembered_with_their_ends_and_the_oldest_is_forgotten() {
    let (server, mut a, mut b, stands) = scene();
    for round in 1..=MAX_ENDS as u64 + 1 {
        change_data_set(&server);
        let at = b.publish("lobby", &format!("after {round}"));
        assert_eq!(at.offset, 5 + round);
        let page = a.read(
            "lobby",
            Range::After(Position {
                offset: 3,
                ..stands
            }),
            100,
        );
        let is_known = round <= MAX_ENDS as u64;
        assert_eq!(
            page.ends.end_of(stands.epoch),
            is_known.then_some(5),
            "round {round}"
        );
        let begins = if is_known { 4 } else { at.offset };
        assert_eq!(offsets(&page), (begins..=at.offset).collect::<Vec<_>>());
        // Ahead of the end of the ended epoch, and absurd positions of it and of none.
        for (epoch, offset) in [
            (stands.epoch, 7),
            (stands.epoch, u64::MAX),
            (Epoch::new(7), 99),
        ] {
            let page = a.read("lobby", Range::After(Position { epoch, offset }), 100);
            let begins = if is_known && epoch == stands.epoch {
                6
            } else {
                at.offset
            };
            assert_eq!(offsets(&page), (begins..=at.offset).collect::<Vec<_>>());
            assert_eq!(
                page.top, at,
                "no position of an epoch that ended ends another"
            );
        }
    }
}

#[test]
fn ends_of_another_epoch_are_not_believed() {
    let (server, mut a, mut b, stands) = scene();
    change_data_set(&server);
    b.publish("lobby", "6");
    // As a node of the previous version does when the data set changes: it writes no ends.
    let epoch = "00000000000000aa";
    server.query::<()>(&["HSET", "sb:{lobby}:meta", "epoch", epoch, "offset", "0"]);
    server.query::<()>(&["DEL", "sb:{lobby}:log"]);
    b.publish("lobby", "new");
    let page = a.read("lobby", Range::After(stands), 10);
    assert_eq!(
        (page.ends.end_of(stands.epoch), entries(&page)),
        (None, vec![(1, "new".into())])
    );
}

#[test]
fn keys_are_found_across_ended_epochs_unless_their_message_was_lost() {
    let (server, mut a, mut b, _) = scene();
    let keyed = |node: &mut BrokerNode, key: &str| {
        node.try_publish("lobby", key, Form::keyed("ada", key))
            .unwrap()
    };
    let kept = keyed(&mut a, "kept");
    change_data_set(&server);
    assert_eq!(
        keyed(&mut b, "kept"),
        kept,
        "its first position, in the ended epoch"
    );
    assert_eq!(keyed(&mut a, "kept"), kept);
    let lost = keyed(&mut a, "lost");
    // The key still exists, and the end of the log does not.
    server.query::<()>(&[
        "HSET",
        "sb:{lobby}:meta",
        "offset",
        &kept.offset.to_string(),
    ]);
    server.query::<()>(&["DEL", "sb:{lobby}:log"]);
    change_data_set(&server);
    let again = keyed(&mut b, "lost");
    assert_ne!(again, lost);
    assert_eq!(again.offset, kept.offset + 1);
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
fn hole_ends_a_page_and_is_reported_in_the_next() {
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
fn unreadable_entry_leaves_no_hole() {
    let (server, mut a, _, stands) = scene();
    server.query::<()>(&["XADD", "sb:{lobby}:log", "6-0", "b", "0 of no format"]);
    server.query::<()>(&["HSET", "sb:{lobby}:meta", "offset", "6"]);
    let page = a.read("lobby", Range::After(stands), 10);
    assert_eq!(entries(&page), [(6, "null".into())]);
    assert_eq!(a.metrics.junk_total.get(), 1);
}

#[test]
fn page_of_large_messages_is_short_and_the_next_continues() {
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
fn keys_and_logs_expire_in_time() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    node.top("idle");
    node.try_publish("lobby", "one", super::node::Form::keyed("ada", "k"))
        .unwrap();
    for (key, seconds) in [
        ("sb:{lobby}:log", 60),
        ("sb:{lobby}:meta", 3600),
        ("sb:{idle}:meta", 600),
    ] {
        let left: i64 = server.query(&["TTL", key]);
        assert!((seconds - 5..=seconds).contains(&left), "{key}: {left}");
    }
    // A read of a room in use extends the expiry of its position after a tenth of the time.
    server.query::<()>(&["EXPIRE", "sb:{lobby}:meta", "60"]);
    node.top("lobby");
    let left: i64 = server.query(&["TTL", "sb:{lobby}:meta"]);
    assert!(left > 3500, "{left}");
    // The position of a long log lives as long as the log.
    let mut node = BrokerNode::on_with(&server, |settings| {
        settings.retention = Retention::uniform(100, Duration::from_secs(7200));
    });
    node.publish("long", "one");
    for part in ["log", "meta"] {
        let left: i64 = server.query(&["TTL", &format!("sb:{{long}}:{part}")]);
        assert!((7195..=7200).contains(&left), "{part}: {left}");
    }
}
