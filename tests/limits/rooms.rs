//! The limit of rooms per node. `rooms` tests the limit per session.

use serde_json::json;
use switchboard::protocol::Code;

use crate::support::{TestNode, run};

#[test]
fn rooms_over_the_limit_of_a_node_are_refused() {
    run(async {
        let node = TestNode::with(|config| config.max_rooms = 2).await;
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
        bob.join("b").await;
    });
}

#[test]
fn personal_rooms_take_no_place_of_those_that_clients_choose() {
    run(async {
        let node = TestNode::with(|config| config.max_rooms = 1).await;
        let (mut ada, mut bob) = (node.client().await, node.client().await);
        ada.auth("ada").await;
        bob.auth("bob").await;
        ada.join("a").await;
        ada.publish("@bob", json!("psst")).await;
        assert_eq!(bob.message("@bob").await["user"], "ada");
    });
}
