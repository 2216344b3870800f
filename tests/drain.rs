//! The end of a node: everyone is told to come back, newcomers hear that the node
//! stops, and the drain ends.

use std::time::{Duration, Instant};

use switchboard::disconnect::Disconnect;

use crate::support::{TestNode, http, run};

#[test]
fn two_clients_are_told_at_once_and_the_drain_ends() {
    run(async {
        let node = TestNode::with(|config| config.drain_time = Duration::from_secs(30)).await;
        let (mut ada, mut bob) = (node.client().await, node.client().await);
        ada.join("lobby").await;
        let started = Instant::now();
        let clients = async {
            for client in [&mut ada, &mut bob] {
                let bye = client.push("bye").await;
                assert_eq!(bye["reason"], "draining");
                assert!(bye["retry"].as_u64().unwrap() <= 1000);
                let (code, _) = client.closed().await.expect("a close frame");
                assert_eq!(code, Disconnect::Draining.code());
            }
        };
        futures::join!(node.drain(), clients);
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "two clients need no pacing"
        );
    });
}

#[test]
fn a_client_that_ignores_the_farewell_does_not_hold_the_drain_up() {
    run(async {
        let node = TestNode::with(|config| config.close_timeout = Duration::from_millis(300)).await;
        let _silent = node.client().await;
        node.drain().await;
    });
}

#[test]
fn a_draining_node_says_so_and_takes_nobody_in() {
    run(async {
        let node = TestNode::with(|config| {
            config.drain_time = Duration::from_secs(5);
            config.close_timeout = Duration::from_secs(3);
        })
        .await;
        // Never reads, so that the drain lasts.
        let _silent = node.client().await;
        let address = node.address;
        let readiness = node.server().readiness().clone();
        let newcomers = async {
            crate::support::eventually("the drain begins", || {
                readiness.state() == switchboard::readiness::State::Draining
            })
            .await;
            let ready = http::get(address, "/readyz").await;
            assert_eq!(http::status(&ready), Some(503), "{ready}");
            assert!(ready.contains("Retry-After"), "{ready}");
            assert_eq!(
                http::status(&http::get(address, "/healthz").await),
                Some(200)
            );
            assert!(
                crate::support::TestClient::try_connect(address)
                    .await
                    .is_err()
            );
        };
        futures::join!(node.drain(), newcomers);
    });
}
