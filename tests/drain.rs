//! The drain of a node: every client receives a close frame that invites it back, new clients are
//! refused, and the drain ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::protocol::disconnect::Disconnect;
use switchboard::runtime;

use crate::support::{Backend, DEADLINE, NodeProcess, TestNode, http, run};

#[test]
fn drain_notifies_two_clients_at_once_and_ends() {
    run(async {
        let node = TestNode::with(|config| config.drain_time = Duration::from_secs(30)).await;
        let (mut ada, mut bob) = (node.client().await, node.client().await);
        ada.join("lobby").await;
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
    });
}

#[test]
fn client_that_ignores_the_close_frame_does_not_delay_the_drain() {
    run(async {
        let node = TestNode::with(|config| config.close_timeout = Duration::from_millis(300)).await;
        let _silent = node.client().await;
        node.drain().await;
    });
}

#[test]
fn draining_node_is_unready_and_refuses_clients() {
    run(async {
        let node = TestNode::with(|config| {
            config.drain_time = Duration::from_secs(5);
            config.close_timeout = Duration::from_secs(3);
        })
        .await;
        // This client never reads, so the drain takes its full time.
        let _silent = node.client().await;
        let address = node.address;
        let readiness = node.server().readiness().clone();
        let newcomers = async {
            crate::support::eventually("the drain begins", || {
                readiness.state() == switchboard::model::readiness::ReadinessState::Draining
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

/// Connects with small socket buffers, so that a long response does not fit into the kernel.
fn small_buffer(address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&address.into()).expect("the door is open");
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    socket
}

#[test]
fn response_in_progress_is_written_to_its_end() {
    run(async {
        let mut node = NodeProcess::start(&["--log-level", "debug"]).await;
        let mut backend = Backend::without_key(node.address).await;
        let message = json!({"data": "x".repeat(60_000)});
        let path = "/rooms/lobby/messages";
        for _ in 0..10 {
            backend.ok("POST", path, message.clone()).await;
        }
        // The page is requested so often that the node has to wait for the reader.
        let request = backend.request("GET", path, &Value::Null).repeat(30);
        let mut socket = small_buffer(node.address);
        socket.write_all(request.as_bytes()).expect("it is taken");
        let calls = || {
            node.log()
                .iter()
                .filter(|line| line.contains("called"))
                .count()
        };
        let mut before = 0;
        while before < calls() {
            before = calls();
            runtime::sleep(Duration::from_millis(500)).await;
        }
        assert!(before < 40, "an answer is being written");
        node.terminate();
        node.logged("draining").await;
        let ended = runtime::timeout(Duration::from_secs(1), node.exit()).await;
        assert!(ended.is_err(), "the answer is not yet taken");
        let mut received = Vec::new();
        socket
            .read_to_end(&mut received)
            .expect("the node ends in good order");
        let received = String::from_utf8(received).expect("text");
        for answer in received.split("HTTP/1.1 ").skip(1) {
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            let whole = format!("Content-Length: {}", body.len());
            assert!(head.contains(&whole), "{head}, and {} bytes", body.len());
        }
        assert!(node.exit().await.success());
    });
}
