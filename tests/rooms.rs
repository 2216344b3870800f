//! Join, leave, publish and delivery on one node with the memory broker: the guarantees of the
//! native protocol without faults.

use serde_json::json;

use crate::support::{TestNode, run};

#[test]
fn messages_reach_all_members_in_order_and_no_other_client() {
    run(async {
        let node = TestNode::start().await;
        let (mut ada, mut bob, mut eve) = (
            node.client().await,
            node.client().await,
            node.client().await,
        );
        ada.auth("ada").await;
        let joined = ada.join("lobby").await;
        assert_eq!(joined["offset"], 0);
        assert_eq!(bob.join("lobby").await["epoch"], joined["epoch"]);
        eve.join("elsewhere").await;
        for n in 1..=100 {
            assert_eq!(ada.publish("lobby", json!({"n": n})).await, n);
        }
        for n in 1..=100 {
            for member in [&mut ada, &mut bob] {
                let message = member.message("lobby").await;
                assert_eq!(message["offset"], n);
                assert_eq!(message["user"], "ada");
                assert_eq!(message["data"], json!({"n": n}));
                assert!(message["time"].as_u64().unwrap() > 1_700_000_000_000);
            }
        }
        eve.expect_silence().await;
    });
}

#[test]
fn client_that_left_receives_nothing_and_leaving_unjoined_is_allowed() {
    run(async {
        let node = TestNode::start().await;
        let (mut ada, mut bob) = (node.client().await, node.client().await);
        ada.join("lobby").await;
        bob.join("lobby").await;
        let left = bob.call(json!({"type": "leave", "room": "lobby"})).await;
        assert_eq!(
            (&left["type"], &left["room"]),
            (&json!("ok"), &json!("lobby"))
        );
        ada.publish("lobby", json!(1)).await;
        ada.message("lobby").await;
        bob.expect_silence().await;
        let again = bob.call(json!({"type": "leave", "room": "nowhere"})).await;
        assert_eq!(again["type"], "ok");
    });
}

#[test]
fn publish_key_makes_a_retry_idempotent() {
    run(async {
        let node = TestNode::start().await;
        let mut ada = node.client().await;
        ada.join("lobby").await;
        let publish = json!({"type": "publish", "room": "lobby", "key": "k1", "data": "once"});
        let first = ada.call(publish.clone()).await;
        let second = ada.call(publish).await;
        assert_eq!(first["offset"], second["offset"]);
        let other = json!({"type": "publish", "room": "lobby", "key": "k1", "data": "other"});
        assert_eq!(ada.call(other).await["code"], "key_reused");
        assert_eq!(ada.publish("lobby", json!("next")).await, 2);
        assert_eq!(ada.message("lobby").await["data"], "once");
        assert_eq!(ada.message("lobby").await["data"], "next");
    });
}

#[test]
fn sender_may_exclude_itself_and_sees_no_gap() {
    run(async {
        let node = TestNode::start().await;
        let (mut ada, mut bob) = (node.client().await, node.client().await);
        ada.join("lobby").await;
        bob.join("lobby").await;
        let others = json!({"type": "publish", "room": "lobby", "others": true, "data": "for bob"});
        ada.ask(others).await;
        ada.publish("lobby", json!("for all")).await;
        assert_eq!(
            ada.message("lobby").await,
            json!({"type": "message", "room": "lobby", "offset": 1, "own": true})
        );
        assert_eq!(ada.message("lobby").await["data"], "for all");
        assert_eq!(bob.message("lobby").await["data"], "for bob");
        assert_eq!(bob.message("lobby").await["data"], "for all");
    });
}

#[test]
fn an_ephemeral_message_has_no_offset_and_is_not_kept() {
    run(async {
        let node = TestNode::start().await;
        let mut ada = node.client().await;
        ada.join("lobby").await;
        let typing =
            json!({"type": "publish", "room": "lobby", "ephemeral": true, "data": "typing"});
        let reply = ada.call(typing).await;
        assert_eq!(
            (&reply["type"], &reply["offset"]),
            (&json!("ok"), &json!(null))
        );
        let message = ada.message("lobby").await;
        assert_eq!(
            (&message["data"], &message["offset"]),
            (&json!("typing"), &json!(null))
        );
        let history = ada.call(json!({"type": "history", "room": "lobby"})).await;
        assert_eq!(history["messages"], json!([]));
    });
}

#[test]
fn commands_that_are_wrong_get_an_error_and_the_session_goes_on() {
    run(async {
        let node = TestNode::with(|config| config.rooms_per_session = 2).await;
        let mut ada = node.client().await;
        for (command, code) in [
            (json!({"type": "shout"}), "bad_request"),
            (json!({"type": "join"}), "bad_request"),
            (json!({"type": "join", "room": "a b"}), "bad_request"),
            (json!({"type": "join", "room": "$other"}), "forbidden"),
            (json!({"type": "join", "room": "@bob"}), "forbidden"),
            (
                json!({"type": "publish", "room": "@bob", "data": 1}),
                "forbidden",
            ),
            (json!({"type": "history", "room": "$other"}), "forbidden"),
        ] {
            let reply = ada.call(command.clone()).await;
            assert_eq!(
                (&reply["type"], &reply["code"]),
                (&json!("error"), &json!(code)),
                "{command}"
            );
            assert!(reply["reason"].as_str().unwrap().len() > 10);
        }
        ada.join("one").await;
        ada.join("two").await;
        ada.join("two").await;
        let third = ada.call(json!({"type": "join", "room": "three"})).await;
        assert_eq!(third["code"], "limit");
        ada.expect_silence().await;
    });
}

#[test]
fn history_pages_backwards_to_the_first_message() {
    run(async {
        let node = TestNode::start().await;
        let mut ada = node.client().await;
        for member in [false, true] {
            if member {
                ada.join("lobby").await;
            }
            for n in 0..120 {
                ada.publish("lobby", json!(n)).await;
            }
            let (mut before, mut seen) = (json!(null), Vec::new());
            loop {
                let mut command = json!({"type": "history", "room": "lobby", "limit": 50});
                if !before.is_null() {
                    command["before"] = before;
                }
                let page = ada.call(command).await;
                let messages = page["messages"].as_array().unwrap().clone();
                let offsets: Vec<u64> = messages
                    .iter()
                    .map(|m| m["offset"].as_u64().unwrap())
                    .collect();
                assert!(offsets.windows(2).all(|pair| pair[1] == pair[0] + 1));
                before = messages[0]["offset"].clone();
                seen.splice(0..0, offsets);
                if page["more"] == json!(false) {
                    break;
                }
            }
            let total = if member { 240 } else { 120 };
            assert_eq!(seen, (1..=total).collect::<Vec<u64>>());
        }
    });
}
