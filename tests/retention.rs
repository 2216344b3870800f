//! How long messages are kept: every node gives up its recent messages when the log does, so that
//! all give the same answers.

use std::time::Duration;

use serde_json::json;
use switchboard::runtime;

use crate::support::redis_server::RedisServer;
use crate::support::{GLANCE, TestClient, TestNode, run, within};

const ROOM: &str = "lobby";

async fn history(client: &mut TestClient) -> serde_json::Value {
    let page = client.call(json!({"type": "history", "room": ROOM})).await;
    page["messages"].clone()
}

#[test]
fn retention_is_the_same_on_the_node_that_delivered_and_on_another() {
    run(async {
        let redis = RedisServer::start();
        let node = || {
            TestNode::with(|config| {
                config.redis = vec![redis.url().parse().expect("an address")];
                config.history_age = Duration::from_secs(2);
            })
        };
        let nodes = [node().await, node().await];
        // The first node has delivered the messages, and its member stays.
        let mut member = nodes[0].client().await;
        let epoch = member.join(ROOM).await["epoch"].clone();
        for offset in 1..=5 {
            assert_eq!(member.publish(ROOM, json!(offset)).await, offset);
        }
        for node in &nodes {
            let mut reader = node.client().await;
            assert_eq!(history(&mut reader).await.as_array().map(Vec::len), Some(5));
        }
        redis.until(&["EXISTS", "sb:{lobby}:log"], 0);
        for node in &nodes {
            let mut returned = node.client().await;
            let expired = async {
                while history(&mut returned).await != json!([]) {
                    runtime::sleep(GLANCE).await;
                }
            };
            within("the messages are given up", expired).await;
            let back = returned.rejoin(ROOM, &epoch, 2).await;
            assert_eq!(
                (&back["recovered"], &back["offset"]),
                (&json!(false), &json!(5))
            );
            let back = returned.rejoin(ROOM, &epoch, 5).await;
            assert_eq!(
                (&back["recovered"], &back["offset"]),
                (&json!(true), &json!(5))
            );
        }
    });
}
