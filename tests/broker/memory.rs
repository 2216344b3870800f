//! The memory limits of the memory broker over all rooms.

use switchboard::broker::{Range, Refused};
use switchboard::model::id::Position;

use super::node::{BrokerNode, Form, World, offsets};

const MEMORY: usize = 256 << 10;

fn node() -> BrokerNode {
    World::memory().node_with(|settings| settings.history_memory = MEMORY)
}

/// The oldest offset of the room and the bytes of its messages.
fn kept(node: &mut BrokerNode, room: &str) -> (u64, usize) {
    let page = node.read(room, Range::Before(None), 1000);
    let bytes = page
        .messages
        .iter()
        .map(|(_, publication)| publication.weight())
        .sum();
    assert_eq!(
        offsets(&page),
        (page.first..=page.top.offset).collect::<Vec<_>>()
    );
    (page.first, bytes)
}

#[test]
fn total_log_memory_is_bounded_and_large_rooms_are_trimmed_first() {
    let mut node = node();
    let start = node.top("large");
    for _ in 0..10 {
        node.publish("small", "hi");
    }
    let text = "x".repeat(10_000);
    for _ in 0..90 {
        node.publish("large", &text);
        node.publish("larger", &text);
        let rooms = ["small", "large", "larger"];
        let bytes: usize = rooms.iter().map(|room| kept(&mut node, room).1).sum();
        assert!(bytes <= MEMORY, "{bytes}");
    }
    assert_eq!(kept(&mut node, "small").0, 1, "all of it");
    for room in ["large", "larger"] {
        let (first, bytes) = kept(&mut node, room);
        assert!(
            first > 60 && bytes > MEMORY / 4,
            "{room}: {bytes} from {first}"
        );
    }
    // A reader of evicted messages detects the loss by the first offset of the page.
    let page = node.read("large", Range::After(start), 1);
    assert_eq!(
        page.top,
        Position {
            offset: 90,
            ..start
        }
    );
    assert!(page.first > 1);
}

#[test]
fn publish_keys_over_the_limit_are_refused() {
    let mut node = node();
    let text = "x".repeat(10_000);
    let refused = (0..2_000).find_map(|n| {
        let key = format!("key {n}");
        let result = node.try_publish("r", &text, Form::keyed("ada", &key));
        result.err().map(|why| (n, why))
    });
    let Some((n, Refused::Full)) = refused else {
        panic!("{refused:?}")
    };
    assert!(n > 500, "{n}");
    let again = node.try_publish("r", &text, Form::keyed("ada", "key 0"));
    assert_eq!(again.unwrap().offset, 1, "the promise is kept");
    assert_eq!(node.publish("r", &text).offset, n + 1, "without a key");
    assert!(kept(&mut node, "r").1 > MEMORY / 4);
}

#[test]
fn messages_without_retention_evict_no_room() {
    let mut node = World::memory().node_with(|settings| settings.max_rooms = 2);
    node.follow("a");
    let ephemeral = Form {
        ephemeral: true,
        ..Form::default()
    };
    for room in ["b", "c", "d", "a"] {
        assert!(node.try_publish(room, "hi", ephemeral).is_ok(), "{room}");
    }
    assert_eq!(node.ephemeral("a"), "hi");
    assert_eq!(node.publish("e", "hi").offset, 1);
    let refused = node.try_publish("f", "hi", Form::default());
    assert_eq!(refused.map(|at| at.offset), Err(Refused::Full));
}
