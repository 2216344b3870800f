//! Presence, on every broker.

use std::time::Duration;

use super::node::{BrokerNode, SHORT_LEASE, World};
use super::presence_table::{Table, list, user};

over_every_broker! {
    a_user_joins_once_and_leaves_once_however_many_connections_there_are,
    a_user_on_two_nodes_is_one_member,
    newest_info_is_listed_and_a_new_one_is_a_change,
    anonymous_connections_are_counted_and_not_listed,
    pages_go_by_the_order_of_names,
    empty_room_continues_the_versions_of_its_list,
    missed_change_is_detected_by_the_next,
    members_of_an_ended_node_leave_once,
    retiring_node_keeps_its_members_for_the_given_time,
}

fn a_user_joins_once_and_leaves_once_however_many_connections_there_are(world: World) {
    let (a, mut b) = (world.node(), world.node());
    let mut table = Table::of(&mut b, "lobby");
    assert_eq!((table.list(), b.members("lobby").version), ("".into(), 0));
    for (connections, expected) in [(1, "ada:1"), (2, "ada:2"), (2, "ada:2"), (1, "ada:1")] {
        a.here("lobby", "ada", connections);
        table.until(&mut b, expected);
    }
    a.here("lobby", "bob", 1);
    a.here("lobby", "ada", 0);
    a.here("lobby", "cy", 0);
    table.until(&mut b, "bob:1");
    let expected = ["ada 0>1", "ada 1>2", "ada 2>1"];
    assert_eq!(table.seen[..3], expected);
    let mut rest = table.seen[3..].to_vec();
    rest.sort();
    assert_eq!(
        (rest, table.missed),
        (vec!["ada 1>0".into(), "bob 0>1".into()], 0)
    );
}

fn a_user_on_two_nodes_is_one_member(world: World) {
    let (mut a, mut b) = (world.node(), world.node());
    let mut table = Table::of(&mut b, "lobby");
    let mut other = Table::of(&mut a, "lobby");
    a.here("lobby", "ada", 2);
    table.until(&mut b, "ada:2");
    b.here("lobby", "ada", 1);
    table.until(&mut b, "ada:3");
    a.here("lobby", "ada", 0);
    table.until(&mut b, "ada:1");
    assert_eq!(list(&a.members("lobby")), "ada:1", "the same everywhere");
    b.here("lobby", "ada", 0);
    table.until(&mut b, "");
    other.until(&mut a, "");
    let expected = ["ada 0>2", "ada 2>3", "ada 3>1", "ada 1>0"];
    assert_eq!(
        (table.seen, other.seen),
        (
            expected.map(String::from).into(),
            expected.map(String::from).into()
        )
    );
}

fn newest_info_is_listed_and_a_new_one_is_a_change(world: World) {
    let (a, mut b) = (world.node(), world.node());
    b.follow("lobby");
    let mut last = 0;
    for (node, connections, info, shown) in [
        (&a, 1, r#"{"name": "Ada"}"#, r#"{"name": "Ada"}"#),
        (&a, 1, r#"{"name": "Ada L"}"#, r#"{"name": "Ada L"}"#),
        (&a, 2, r#"{"name": "Ada L"}"#, r#"{"name": "Ada L"}"#),
    ] {
        node.here_with("lobby", "ada", connections, info);
        let change = b.change("lobby");
        assert_eq!(change.info.as_deref().map(|it| it.get()), Some(shown));
        assert_eq!(change.from, last);
        last = change.version;
    }
    // Another node has no info; then newer info.
    b.here("lobby", "ada", 1);
    let change = b.change("lobby");
    assert!(change.info.is_some_and(|it| it.get().contains("Ada L")));
    b.here_with("lobby", "ada", 1, r#"{"name":"A"}"#);
    assert!(
        b.change("lobby")
            .info
            .is_some_and(|it| it.get() == r#"{"name":"A"}"#)
    );
    let page = b.members("lobby");
    assert_eq!(list(&page), "ada:3");
    assert!(
        page.members[0]
            .info
            .as_ref()
            .is_some_and(|it| it.get() == r#"{"name":"A"}"#)
    );
    b.here("lobby", "ada", 0);
    assert!(
        b.change("lobby")
            .info
            .is_some_and(|it| it.get().contains("Ada L"))
    );
}

fn anonymous_connections_are_counted_and_not_listed(world: World) {
    let (a, mut b) = (world.node(), world.node());
    let mut table = Table::of(&mut b, "lobby");
    a.here("lobby", "", 3);
    b.here("lobby", "", 2);
    a.here("lobby", "ada", 1);
    until_anonymous(&mut b, 5);
    a.here("lobby", "", 0);
    until_anonymous(&mut b, 2);
    table.until(&mut b, "ada:1");
    assert_eq!(table.seen, ["ada 0>1"]);
    assert_eq!(b.members("lobby").count, 1);
}

fn until_anonymous(node: &mut BrokerNode, wanted: u64) {
    let start = std::time::Instant::now();
    while node.members("lobby").anonymous != wanted {
        let is = node.members("lobby").anonymous;
        assert!(
            start.elapsed() < crate::support::DEADLINE,
            "{is}, not {wanted}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pages_go_by_the_order_of_names(world: World) {
    let mut node = world.node();
    for name in ["dot", "Zoe", "ada", "bob", "a-b", "a.b", "cy", "_x"] {
        node.here("lobby", name, 1);
    }
    let order = "Zoe:1 _x:1 a-b:1 a.b:1 ada:1 bob:1 cy:1 dot:1";
    node.until_members("lobby", order);
    let mut pages = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = node.try_members("lobby", after.as_deref(), 3).unwrap();
        assert_eq!(page.count, 8);
        pages.push(list(&page));
        after = page.members.last().map(|it| it.user.to_string());
        if !page.more {
            break;
        }
    }
    assert_eq!(
        pages,
        ["Zoe:1 _x:1 a-b:1", "a.b:1 ada:1 bob:1", "cy:1 dot:1"]
    );
    let exact = node.try_members("lobby", Some("bob"), 2).unwrap();
    assert!(!exact.more && exact.members.len() == 2);
    let behind = node.try_members("lobby", Some("zz"), 2).unwrap();
    assert!(!behind.more && behind.members.is_empty());
    let counts = node.try_members("lobby", None, 0).unwrap();
    assert_eq!(
        (counts.count, counts.members.len(), counts.more),
        (8, 0, true)
    );
    assert_eq!(counts.version, exact.version);
    let gone = node.try_members("lobby", Some("bobb"), 1).unwrap();
    assert_eq!(gone.members[0].user, user("cy"), "a name need not be there");
}

fn empty_room_continues_the_versions_of_its_list(world: World) {
    let (a, mut b) = (world.node(), world.node());
    let mut table = Table::of(&mut b, "lobby");
    for _ in 0..3 {
        a.here("lobby", "ada", 1);
        table.until(&mut b, "ada:1");
        a.here("lobby", "ada", 0);
        table.until(&mut b, "");
    }
    assert_eq!(table.missed, 0);
    assert!(b.members("lobby").version > 0);
}

fn missed_change_is_detected_by_the_next(world: World) {
    let (a, mut b) = (world.node(), world.node());
    b.follow("lobby");
    a.here("lobby", "ada", 1);
    let stands = b.change("lobby").version;
    b.unfollow("lobby");
    a.here("lobby", "bob", 1);
    b.until_members("lobby", "ada:1 bob:1");
    b.follow("lobby");
    a.here("lobby", "cy", 1);
    // The one before may have come before the node stopped to follow.
    let mut change = b.change("lobby");
    while change.user != user("cy") {
        change = b.change("lobby");
    }
    assert!(change.from > stands);
}

fn members_of_an_ended_node_leave_once(world: World) {
    let (a, mut b) = (world.node(), world.node());
    let mut table = Table::of(&mut b, "lobby");
    for name in ["ada", "bob", "cy"] {
        a.here("lobby", name, 2);
    }
    a.here("lobby", "", 5);
    b.here("lobby", "bob", 1);
    table.until(&mut b, "ada:2 bob:3 cy:2");
    // The other node removes no member before this.
    std::thread::sleep(SHORT_LEASE / 2);
    drop(a);
    table.until(&mut b, "bob:1");
    until_anonymous(&mut b, 0);
    let mut left = table.seen.split_off(table.seen.len() - 3);
    left.sort();
    assert_eq!(left, ["ada 2>0", "bob 3>1", "cy 2>0"]);
    assert_eq!(table.missed, 0);
    table.watch(&mut b, Duration::from_millis(500));
    assert_eq!(table.list(), "bob:1");
}

fn retiring_node_keeps_its_members_for_the_given_time(world: World) {
    let (a, mut b) = (world.node(), world.node());
    let mut table = Table::of(&mut b, "lobby");
    for name in ["ada", "bob"] {
        a.here("lobby", name, 1);
    }
    table.until(&mut b, "ada:1 bob:1");
    a.retire(Duration::from_millis(1500));
    // Its sessions end, which publishes no change. Ada joins on the other node.
    for name in ["ada", "bob"] {
        a.here("lobby", name, 0);
    }
    a.here("lobby", "late", 1);
    drop(a);
    b.here("lobby", "ada", 1);
    table.until(&mut b, "ada:2 bob:1");
    table.watch(&mut b, Duration::from_millis(1000));
    assert_eq!(table.list(), "ada:2 bob:1", "they stay for that time");
    table.until(&mut b, "ada:1");
    assert!(
        !table
            .seen
            .iter()
            .any(|it| it == "ada 1>0" || it.starts_with("late"))
    );
    assert_eq!(table.seen.iter().filter(|it| *it == "bob 1>0").count(), 1);
}
