//! Rooms of a node. Those of a session are tested in `rooms`.

use std::time::Duration;

use serde_json::json;
use switchboard::protocol::Code;

use crate::support::{TestNode, run};

#[test]
fn a_node_has_so_many_rooms_and_who_wants_another_is_told_so() {
    run(async {
        let node = TestNode::with(|config| {
            config.max_rooms = 2;
            // A room that lingers still has its place with the broker.
            config.topic_linger = Duration::ZERO;
        })
        .await;
        let (mut ada, mut bob) = (node.client().await, node.client().await);
        ada.join("a").await;
        ada.join("b").await;
        let join = json!({"type": "join", "room": "c"});
        for refused in 1..=2 {
            let reply = bob.call(join.clone()).await;
            assert_eq!(
                (&reply["type"], &reply["code"]),
                (&json!("error"), &json!("limit"))
            );
            let metrics = node.server().metrics();
            assert_eq!(metrics.errors_total.get(Code::Limit), refused);
        }
        bob.join("a").await;
        ada.call(json!({"type": "leave", "room": "b"})).await;
        bob.join("c").await;
    });
}
