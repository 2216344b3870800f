//! Recovery: a client that rejoins with a position receives the messages it missed, in order and
//! without gaps or duplicates, or the reply has `recovered: false`.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::model::pattern::Pattern;
use switchboard::model::retention::{LogLimits, RetentionRule};

use crate::support::{TestClient, TestNode, run};

/// The data of the next `count` messages, whose offsets must continue from `offset`.
async fn messages(client: &mut TestClient, room: &str, offset: u64, count: u64) {
    for next in offset + 1..=offset + count {
        let message = client.message(room).await;
        assert_eq!(message["offset"], next);
        assert_eq!(message["data"], json!(next));
    }
}

async fn publish(client: &mut TestClient, room: &str, from: u64, to: u64) {
    for n in from..=to {
        assert_eq!(client.publish(room, json!(n)).await, n);
    }
}

#[test]
fn recovery_sends_missed_messages_before_new_ones() {
    run(async {
        let node = TestNode::start().await;
        let mut ada = node.client().await;
        let joined = ada.join("lobby").await;
        publish(&mut ada, "lobby", 1, 50).await;
        let mut bob = node.client().await;
        let back = bob.rejoin("lobby", &joined["epoch"], 20).await;
        assert_eq!(
            back,
            json!({
                "type": "ok", "id": 1, "room": "lobby", "epoch": joined["epoch"],
                "offset": 20, "top": 50, "recovered": true
            })
        );
        messages(&mut bob, "lobby", 20, 30).await;
        publish(&mut ada, "lobby", 51, 60).await;
        messages(&mut bob, "lobby", 50, 10).await;
        bob.expect_silence().await;
        let current = bob.rejoin("lobby", &joined["epoch"], 60).await;
        assert_eq!(
            (&current["recovered"], &current["top"]),
            (&json!(true), &Value::Null)
        );
    });
}

#[test]
fn messages_not_in_memory_are_read_from_the_log() {
    run(async {
        let node = TestNode::with(|config| config.recent_memory = 0).await;
        let mut ada = node.client().await;
        let epoch = ada.join("lobby").await["epoch"].clone();
        publish(&mut ada, "lobby", 1, 700).await;
        let mut others = Vec::new();
        for since in [0, 1, 350, 699] {
            let mut bob = node.client().await;
            assert_eq!(bob.rejoin("lobby", &epoch, since).await["recovered"], true);
            others.push((bob, since));
        }
        publish(&mut ada, "lobby", 701, 720).await;
        for (bob, since) in &mut others {
            messages(bob, "lobby", *since, 720 - *since).await;
            bob.expect_silence().await;
        }
    });
}

#[test]
fn recovery_larger_than_an_outbox_comes_in_pages_without_overflow() {
    run(async {
        let node = TestNode::with(|config| {
            config.outbox_bytes = 64 * 1024;
            config.max_message = 16 * 1024;
            config.history_size = 2000;
        })
        .await;
        let mut ada = node.client().await;
        let epoch = ada.join("lobby").await["epoch"].clone();
        let text = "x".repeat(1000);
        for _ in 0..1500 {
            ada.publish("lobby", json!(text)).await;
            ada.message("lobby").await;
        }
        let mut bob = node.client().await;
        assert_eq!(bob.rejoin("lobby", &epoch, 0).await["recovered"], true);
        for offset in 1..=1500 {
            assert_eq!(bob.message("lobby").await["offset"], offset);
        }
        ada.publish("lobby", json!("live")).await;
        assert_eq!(bob.message("lobby").await["data"], "live");
    });
}

#[test]
fn position_before_the_log_is_reported_lost_with_the_new_one() {
    run(async {
        let node = TestNode::with(|config| config.history_size = 10).await;
        let mut ada = node.client().await;
        let epoch = ada.join("lobby").await["epoch"].clone();
        publish(&mut ada, "lobby", 1, 30).await;
        let mut bob = node.client().await;
        for (epoch, since) in [
            (epoch.clone(), 5),
            (epoch.clone(), 31),
            (epoch.clone(), u64::MAX),
            (json!("0123456789abcdef"), 25),
            (json!("not an epoch"), 25),
        ] {
            let back = bob.rejoin("lobby", &epoch, since).await;
            assert_eq!(
                (&back["recovered"], &back["offset"]),
                (&json!(false), &json!(30)),
                "{back}"
            );
            assert_eq!(back["epoch"], ada.join("lobby").await["epoch"]);
        }
        assert_eq!(bob.rejoin("lobby", &epoch, 20).await["recovered"], true);
        messages(&mut bob, "lobby", 20, 10).await;
        bob.expect_silence().await;
    });
}

#[test]
fn member_that_joins_again_starts_from_its_position() {
    run(async {
        let node = TestNode::start().await;
        let mut ada = node.client().await;
        let epoch = ada.join("lobby").await["epoch"].clone();
        publish(&mut ada, "lobby", 1, 10).await;
        messages(&mut ada, "lobby", 0, 10).await;
        assert_eq!(ada.rejoin("lobby", &epoch, 7).await["offset"], 7);
        messages(&mut ada, "lobby", 7, 3).await;
        publish(&mut ada, "lobby", 11, 11).await;
        messages(&mut ada, "lobby", 10, 1).await;
        ada.expect_silence().await;
    });
}

#[test]
fn clients_that_rejoin_a_busy_room_miss_nothing() {
    run(async {
        let node = TestNode::with(|config| config.recent_memory = 20_000).await;
        let mut ada = node.client().await;
        let epoch = ada.join("lobby").await["epoch"].clone();
        let mut others = Vec::new();
        for n in 1..=600 {
            ada.ask(json!({"type": "publish", "room": "lobby", "data": n}))
                .await;
            if n % 50 == 0 {
                let mut bob = node.client().await;
                let since = n / 3;
                let position = json!({"epoch": epoch, "offset": since});
                bob.ask(json!({"type": "join", "room": "lobby", "since": position}))
                    .await;
                others.push((bob, since));
            }
        }
        for (bob, since) in &mut others {
            assert_eq!(bob.reply(1).await["recovered"], true);
            messages(bob, "lobby", *since, 600 - *since).await;
            bob.expect_silence().await;
        }
    });
}

#[test]
fn retention_depends_on_the_name_of_the_room() {
    run(async {
        let rule = RetentionRule {
            rooms: Pattern::new("short.*").unwrap(),
            limits: LogLimits {
                size: 2,
                age: Duration::from_secs(60),
            },
        };
        let node = TestNode::with(|config| config.history = vec![rule]).await;
        let mut ada = node.client().await;
        for (room, kept) in [("short.one", 2), ("long.one", 5)] {
            publish(&mut ada, room, 1, 5).await;
            let history = ada.call(json!({"type": "history", "room": room})).await;
            assert_eq!(
                history["messages"].as_array().unwrap().len(),
                kept,
                "{room}"
            );
        }
    });
}

#[test]
fn single_node_reports_messages_it_dropped_for_memory() {
    run(async {
        let node = TestNode::with(|config| {
            config.history_memory = 1 << 20;
            config.recent_memory = 0;
        })
        .await;
        let mut ada = node.client().await;
        let epoch = ada.join("lobby").await["epoch"].clone();
        let text = "x".repeat(50_000);
        for n in 1..=40 {
            assert_eq!(ada.publish("lobby", json!(text)).await, n);
        }
        let mut bob = node.client().await;
        let back = bob.rejoin("lobby", &epoch, 0).await;
        assert_eq!(
            (&back["recovered"], &back["offset"]),
            (&json!(false), &json!(40))
        );
        let back = bob.rejoin("lobby", &epoch, 39).await;
        assert_eq!(back["recovered"], true);
    });
}
