//! Clients that read too slowly or not at all: each is disconnected with a retryable code, without
//! delaying others.

use std::time::Duration;

use serde_json::json;
use switchboard::protocol::disconnect::Disconnect;

use crate::support::{TestNode, eventually, run};

#[test]
fn a_slow_session_is_disconnected_without_delaying_others() {
    run(async {
        let node = TestNode::with(|config| {
            config.outbox_bytes = 256 * 1024;
            config.close_timeout = Duration::from_secs(20);
        })
        .await;
        let (mut slow, mut ada, mut bob) = (
            node.client().await,
            node.client().await,
            node.client().await,
        );
        for client in [&mut slow, &mut ada, &mut bob] {
            client.join("lobby").await;
        }
        // More than the kernel's buffers of a loopback connection ever hold.
        let text = "x".repeat(32 * 1024);
        let mut sent = 0;
        while node
            .server()
            .metrics()
            .disconnected_total
            .get(Disconnect::Slow)
            == 0
        {
            sent = ada.publish("lobby", json!(text)).await;
            assert_eq!(ada.message("lobby").await["offset"], sent);
            assert_eq!(bob.message("lobby").await["offset"], sent);
            assert!(sent < 5000, "the slow session was never disconnected");
        }
        let (code, reason) = slow.closed().await.expect("a close frame");
        assert_eq!(code, Disconnect::Slow.code());
        assert!(
            (3000..3500).contains(&code),
            "the code invites to come back"
        );
        assert!(reason.contains("come back"));
        let offsets: Vec<u64> = slow
            .received()
            .filter_map(|message| message["offset"].as_u64())
            .collect();
        assert!(
            offsets.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "what it got has no hole"
        );
        ada.publish("lobby", json!("on")).await;
        assert_eq!(bob.message("lobby").await["offset"], sent + 1);
    });
}

#[test]
fn client_that_never_reads_is_disconnected() {
    run(async {
        let node = TestNode::with(|config| {
            config.outbox_bytes = 256 * 1024;
            config.close_timeout = Duration::from_millis(300);
        })
        .await;
        let (mut silent, mut ada) = (node.client().await, node.client().await);
        silent.join("lobby").await;
        let text = "x".repeat(32 * 1024);
        for _ in 0..1000 {
            ada.publish("lobby", json!(text)).await;
            if node.server().metrics().connections_open.get() == 1 {
                break;
            }
        }
        eventually("the silent client's connection is gone", || {
            node.server().metrics().connections_open.get() == 1
        })
        .await;
    });
}
