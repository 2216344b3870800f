//! The scenarios that run over every broker.

use std::time::{Duration, Instant};

use switchboard::broker::{BrokerEvent, Range, Refused};
use switchboard::model::id::{Epoch, Position};

use super::node::{Form, LINGER, World, entries, name, offsets};
use crate::support::DEADLINE;

over_every_broker! {
    offsets_start_at_one_and_both_nodes_receive_them_in_order,
    room_without_followers_keeps_its_messages,
    repeated_key_returns_the_first_position_and_appends_nothing,
    key_with_other_data_is_refused_and_stays_that_of_the_first,
    publish_with_a_condition_is_refused_unless_the_room_is_at_that_position,
    binary_publication_arrives_with_the_name_of_its_event,
    ephemeral_publication_has_no_offset_and_is_not_in_the_log,
    pages_go_forward_from_a_position,
    pages_go_backward_from_an_offset,
    a_position_of_another_epoch_begins_at_the_oldest,
    trimmed_log_returns_its_first_offset,
    a_new_room_has_one_epoch_for_all_nodes,
    following_again_within_the_linger_is_answered_and_receives_messages,
    room_that_was_left_delivers_no_messages,
    every_publish_of_a_burst_is_answered_in_order,
}

fn offsets_start_at_one_and_both_nodes_receive_them_in_order(world: World) {
    let (mut a, mut b) = (world.node(), world.node());
    a.follow("lobby");
    b.follow("lobby");
    let epoch = a.publish("lobby", "one").epoch;
    assert_eq!(b.publish("lobby", "two"), Position { epoch, offset: 2 });
    assert_eq!(a.publish("lobby", "three"), Position { epoch, offset: 3 });
    for node in [&mut a, &mut b] {
        for (offset, text) in [(1, "one"), (2, "two"), (3, "three")] {
            assert_eq!(node.message("lobby"), (epoch, (offset, text.into())));
        }
    }
    let position = a.publish("other", "one");
    assert_eq!(position.offset, 1, "each room counts for itself");
}

fn room_without_followers_keeps_its_messages(world: World) {
    let mut node = world.node();
    let first = node.publish("lobby", "one");
    let page = node.read("lobby", Range::Before(None), 10);
    assert_eq!((page.top, entries(&page)), (first, vec![(1, "one".into())]));
    assert!(node.rest().is_empty(), "and no event is sent");
}

fn repeated_key_returns_the_first_position_and_appends_nothing(world: World) {
    let (mut a, mut b) = (world.node(), world.node());
    a.follow("lobby");
    let ada = Form::keyed("ada", "k1");
    let first = a.try_publish("lobby", "one", ada).unwrap();
    assert_eq!(b.try_publish("lobby", "one", ada), Ok(first), "on any node");
    let anonymous = Form {
        key: Some("k1"),
        ..Form::default()
    };
    for (room, form, offset) in [
        ("lobby", Form::keyed("bob", "k1"), 2),
        ("lobby", anonymous, 3),
        ("lobby", Form::keyed("ada", "k2"), 4),
        ("other", ada, 1),
    ] {
        let position = a.try_publish(room, "new", form).unwrap();
        assert_eq!(position.offset, offset);
    }
    assert_eq!(a.top("lobby").offset, 4);
    let received: Vec<u64> = (0..4).map(|_| a.message("lobby").1.0).collect();
    assert_eq!(received, [1, 2, 3, 4]);
}

fn key_with_other_data_is_refused_and_stays_that_of_the_first(world: World) {
    let (mut a, mut b) = (world.node(), world.node());
    let ada = Form::keyed("ada", "k1");
    let first = a.try_publish("lobby", "one", ada);
    let condition = Form {
        condition: first.ok(),
        ..ada
    };
    for node in [&mut a, &mut b] {
        for (text, form) in [("two", ada), ("one ", ada), ("two", condition)] {
            let reused = node.try_publish("lobby", text, form);
            assert_eq!(reused, Err(Refused::KeyReused), "{text}");
        }
        assert_eq!(node.try_publish("lobby", "one", ada), first);
    }
    assert_eq!(a.top("lobby").offset, 1);
}

fn publish_with_a_condition_is_refused_unless_the_room_is_at_that_position(world: World) {
    let (mut a, mut b) = (world.node(), world.node());
    let at = |condition| Form {
        condition: Some(condition),
        ..Form::keyed("ada", "k")
    };
    let top = a.top("lobby");
    let first = a.try_publish("lobby", "one", at(top)).unwrap();
    assert_eq!(first.offset, 1);
    assert_eq!(
        b.try_publish("lobby", "one", at(top)),
        Ok(first),
        "a retry with its key"
    );
    let other = |condition| Form {
        condition: Some(condition),
        ..Form::default()
    };
    let wrong_epoch = Position {
        epoch: Epoch::new(0xdead),
        ..first
    };
    let ahead = Position { offset: 2, ..first };
    for condition in [top, wrong_epoch, ahead] {
        let refused = b.try_publish("lobby", "two", other(condition));
        assert_eq!(refused, Err(Refused::Conflict));
    }
    assert_eq!(
        b.try_publish("lobby", "two", other(first)).unwrap().offset,
        2
    );
}

fn binary_publication_arrives_with_the_name_of_its_event(world: World) {
    let (mut a, mut b) = (world.node(), world.node());
    b.follow("lobby");
    let form = Form {
        binary: Some(b"\x00}\xff"),
        ..Form::default()
    };
    // A node of an earlier version could not read it, and a new node does not know the others yet.
    let start = Instant::now();
    let published = loop {
        match a.try_publish("lobby", "typing", form) {
            Err(Refused::Unavailable) if start.elapsed() < DEADLINE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => break result.unwrap(),
        }
    };
    let text = r#"Some("typing") b"\0}\xff""#;
    assert_eq!(b.message("lobby"), (published.epoch, (1, text.into())));
    let page = b.read("lobby", Range::Before(None), 10);
    assert_eq!(entries(&page), [(1, text.into())]);
}

fn ephemeral_publication_has_no_offset_and_is_not_in_the_log(world: World) {
    let (mut a, mut b) = (world.node(), world.node());
    b.follow("lobby");
    let form = Form {
        ephemeral: true,
        ..Form::default()
    };
    assert_eq!(a.try_publish("lobby", "typing", form).unwrap().offset, 0);
    assert_eq!(b.ephemeral("lobby"), "typing");
    assert_eq!(a.top("lobby").offset, 0);
}

fn pages_go_forward_from_a_position(world: World) {
    let mut node = world.node();
    let epoch = node.top("lobby").epoch;
    for text in ["1", "2", "3", "4", "5"] {
        node.publish("lobby", text);
    }
    let top = Position { epoch, offset: 5 };
    for (offset, limit, expected) in [
        (0, 2, vec![1, 2]),
        (2, 2, vec![3, 4]),
        (4, 2, vec![5]),
        (5, 2, vec![]),
        (0, 0, vec![]),
        (0, 100, vec![1, 2, 3, 4, 5]),
    ] {
        let page = node.read("lobby", Range::After(Position { epoch, offset }), limit);
        assert_eq!((page.top, page.first), (top, 1));
        assert_eq!(offsets(&page), expected, "after {offset}, {limit} of them");
    }
    let page = node.read("lobby", Range::Top, 10);
    assert_eq!((page.top, page.first, page.messages.len()), (top, 1, 0));
}

fn pages_go_backward_from_an_offset(world: World) {
    let mut node = world.node();
    for text in ["1", "2", "3", "4", "5"] {
        node.publish("lobby", text);
    }
    for (before, limit, expected) in [
        (None, 2, vec![4, 5]),
        (Some(4), 2, vec![2, 3]),
        (Some(2), 2, vec![1]),
        (Some(1), 2, vec![]),
        (Some(0), 2, vec![]),
        (Some(99), 2, vec![4, 5]),
        (None, 0, vec![]),
    ] {
        let page = node.read("lobby", Range::Before(before), limit);
        assert_eq!((page.top.offset, page.first), (5, 1));
        assert_eq!(
            offsets(&page),
            expected,
            "before {before:?}, {limit} of them"
        );
    }
}

fn a_position_of_another_epoch_begins_at_the_oldest(world: World) {
    let mut node = world.node();
    let top = node.publish("lobby", "one");
    let other = Position {
        epoch: Epoch::new(7),
        offset: 41,
    };
    let page = node.read("lobby", Range::After(other), 10);
    assert_eq!(
        (page.top, offsets(&page)),
        (top, vec![1]),
        "and nothing ends"
    );
}

fn trimmed_log_returns_its_first_offset(world: World) {
    let mut node = world.node_with(|settings| settings.retention.otherwise.size = 3);
    let epoch = node.top("lobby").epoch;
    for text in ["1", "2", "3", "4", "5"] {
        node.publish("lobby", text);
    }
    let start = Position { epoch, offset: 0 };
    let page = node.read("lobby", Range::After(start), 10);
    assert_eq!((page.first, offsets(&page)), (3, vec![3, 4, 5]));
    let page = node.read("lobby", Range::Before(Some(4)), 10);
    assert_eq!((page.first, offsets(&page)), (3, vec![3]));
}

fn a_new_room_has_one_epoch_for_all_nodes(world: World) {
    let (mut a, mut b) = (world.node(), world.node());
    let page = a.read("lobby", Range::Top, 0);
    assert_eq!((page.top.offset, page.first), (0, 1));
    assert_ne!(page.top.epoch, Epoch::UNKNOWN);
    assert_eq!(b.top("lobby"), page.top);
    let first = b.publish("lobby", "one");
    assert_eq!(
        first.epoch, page.top.epoch,
        "who stands at 0 misses nothing"
    );
}

fn following_again_within_the_linger_is_answered_and_receives_messages(world: World) {
    let mut node = world.node();
    node.follow("lobby");
    node.unfollow("lobby");
    node.follow("lobby");
    node.publish("lobby", "one");
    assert_eq!(node.message("lobby").1, (1, "one".into()));
    // The linger that began first must not end the subscription.
    std::thread::sleep(LINGER * 2);
    node.publish("lobby", "two");
    assert_eq!(node.message("lobby").1, (2, "two".into()));
}

fn room_that_was_left_delivers_no_messages(world: World) {
    let mut node = world.node();
    node.follow("lobby");
    node.follow("other");
    node.unfollow("lobby");
    node.publish("lobby", "unheard");
    node.publish("other", "received");
    node.message("other");
    let lobby = name("lobby");
    let received = node
        .rest()
        .into_iter()
        .any(|event| matches!(event, BrokerEvent::Message { room, .. } if room == lobby));
    assert!(!received);
    node.follow("lobby");
    assert_eq!(node.top("lobby").offset, 1, "but it can be read");
}

fn every_publish_of_a_burst_is_answered_in_order(world: World) {
    let mut node = world.node_with(|settings| settings.retention.otherwise.size = 5000);
    node.follow("lobby");
    let tickets: Vec<_> = (0..2000)
        .map(|n| node.send_publish("lobby", &n.to_string(), Form::default()))
        .collect();
    for (n, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(node.answer(ticket).unwrap().offset, n as u64 + 1);
    }
    for n in 0..2000 {
        assert_eq!(node.message("lobby").1, (n + 1, n.to_string()));
    }
}
