//! Connections of one client address, with and without a trusted proxy.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use switchboard::metrics::RefusalCause;

use crate::support::frames::{FrameClient, upgrade};
use crate::support::http::{Answer, HttpClient};
use crate::support::{TestNode, eventually, run};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A handshake with this `X-Forwarded-For`, as a proxy sends it.
async fn shake(node: &TestNode, forwarded_for: &str) -> (HttpClient, Answer) {
    let mut caller = HttpClient::connect(node.address).await;
    let field = format!("X-Forwarded-For: {forwarded_for}\r\n");
    caller.send(upgrade("/ws", &field)).await;
    let answer = caller.head().await;
    (caller, answer)
}

#[test]
fn eleventh_connection_of_an_address_behind_a_proxy_is_refused() {
    run(async {
        let node = TestNode::with(|config| {
            config.max_connections_per_address = Some(10);
            config.trusted_proxy = vec![LOOPBACK.into()];
        })
        .await;
        let mut held = Vec::new();
        for n in 0..10 {
            // Addresses that the client itself sends stand on the left and are ignored.
            let (caller, answer) = shake(&node, &format!("198.51.100.{n}, 203.0.113.7")).await;
            assert_eq!(answer.status, 101, "{n}");
            held.push(caller);
        }
        for spoofed in ["203.0.113.7", "192.0.2.1, 203.0.113.7", "203.0.113.7:4711"] {
            let (mut caller, answer) = shake(&node, spoofed).await;
            assert_eq!(answer.status, 429, "{spoofed}");
            assert_eq!(answer.field("Retry-After"), Some("5"));
            assert_eq!(answer.field("Connection"), Some("close"));
            let length = answer.field("Content-Length").expect("one").parse();
            caller.take(length.expect("a number")).await;
            caller.expect_end().await;
        }
        let refused = &node.server().metrics().refused_total;
        assert_eq!(refused.get(RefusalCause::Address), 3);
        let (_other, answer) = shake(&node, "203.0.113.8").await;
        assert_eq!(answer.status, 101);
        // The proxy's own connections count for no client, so they are not limited.
        for _ in 0..12 {
            let mut caller = HttpClient::connect(node.address).await;
            caller
                .send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                .await;
            assert_eq!(caller.answer().await.status, 200);
            held.push(caller);
        }
        drop(held);
        let open = || node.server().metrics().connections_open.get();
        eventually("the places are given back", || open() == 1).await;
        let (_again, answer) = shake(&node, "203.0.113.7").await;
        assert_eq!(answer.status, 101);
    });
}

#[test]
fn untrusted_peer_counts_by_its_own_address_from_its_first_byte() {
    run(async {
        let node = TestNode::with(|config| {
            config.max_connections_per_address = Some(3);
            config.head_timeout = Duration::from_secs(60);
        })
        .await;
        let (first, answer) = shake(&node, "203.0.113.1").await;
        assert_eq!(answer.status, 101);
        let (_second, answer) = shake(&node, "203.0.113.2").await;
        assert_eq!(answer.status, 101);
        // It has sent nothing yet.
        let _third = HttpClient::connect(node.address).await;
        let open = || node.server().metrics().connections_open.get();
        eventually("three are open", || open() == 3).await;
        let mut fourth = HttpClient::connect(node.address).await;
        let answer = fourth.answer().await;
        assert_eq!(
            (answer.status, answer.field("Retry-After")),
            (429, Some("5"))
        );
        fourth.expect_end().await;

        drop((first, fourth));
        eventually("both are gone", || open() == 2).await;
        FrameClient::welcomed(node.address)
            .await
            .expect_pong()
            .await;
    });
}

#[test]
fn addresses_in_open_mode_are_limited_only_when_configured() {
    run(async {
        let node = TestNode::start().await;
        let mut held = Vec::new();
        for _ in 0..1100 {
            held.push(HttpClient::connect(node.address).await);
        }
        let metrics = node.server().metrics();
        eventually("all are taken in", || {
            metrics.connections_total.get() == 1100
        })
        .await;
        assert_eq!(metrics.refused_total.get(RefusalCause::Address), 0);
    });
}
