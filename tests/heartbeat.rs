//! Heartbeats: a peer that answers pings stays connected; one that does not is disconnected, and
//! its connection is freed.

use std::time::Duration;

use async_tungstenite::tungstenite::Message;
use futures::StreamExt;
use switchboard::protocol::disconnect::Disconnect;

use crate::support::frames::{FrameClient, PING};
use crate::support::{DEADLINE, TestNode, eventually, run, within};

/// A node with this ping interval, that waits so long for the pong.
async fn node(heartbeat: Duration, pong_timeout: Duration) -> TestNode {
    TestNode::with(|config| {
        config.heartbeat = heartbeat;
        config.pong_timeout = pong_timeout;
        // Several ticks: the writer ends long before the node closes a client that never answers.
        config.close_timeout = Duration::from_secs(1);
    })
    .await
}

#[test]
fn client_that_answers_pings_stays_connected() {
    run(async {
        let node = node(Duration::from_millis(500), DEADLINE).await;
        let mut ada = node.client().await;
        // The client answers pings only while it is read.
        for _ in 0..3 {
            let received = within("a ping", ada.stream().next()).await;
            assert!(
                matches!(received, Some(Ok(Message::Ping(_)))),
                "{received:?}"
            );
        }
        ada.expect_silence().await;
    });
}

#[test]
fn client_without_pongs_receives_a_close_frame_and_is_disconnected() {
    run(async {
        let node = node(Duration::from_millis(500), Duration::from_millis(250)).await;
        // A client of raw frames: a WebSocket library would answer the ping as soon as it is read.
        let mut gone = FrameClient::welcomed(node.address).await;
        assert_eq!(gone.next().await, (PING, Vec::new()));
        assert_eq!(gone.closed().await, Some(Disconnect::Silent.code()));
        let metrics = node.server().metrics();
        eventually("the connection is given back", || {
            metrics.connections_open.get() == 0
        })
        .await;
    });
}
