//! The WebSocket handshake and its frames: every check of the handshake over a socket, Origin,
//! bytes that arrive with the head, the refusal of frames that break RFC 6455, the close handshake,
//! the echo endpoint, and the end of a connection that panics. `rooms` and others test the commands
//! in the frames.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncWrite};
use switchboard::config::Config;
use switchboard::dispatcher::Event;
use switchboard::protocol::disconnect::Disconnect;
use switchboard::runtime::{self, Listener};
use switchboard::transport::{Counted, ListenerKind, SharedSocket, serve};

use crate::support::bare_node::node_of;
use crate::support::frames::{
    BINARY, CLOSE, CONTINUATION, FrameClient, PING, PONG, TEXT, fragment, frame, header, unmasked,
    upgrade,
};
use crate::support::handshakes::HANDSHAKES;
use crate::support::http::HttpClient;
use crate::support::{TestNode, eventually, run, within};

const PING_COMMAND: &[u8] = br#"{"type":"ping","id":1}"#;
const PONG_REPLY: &str = r#"{"type":"pong","id":1}"#;

/// Timeouts longer than a test: a connection of such a node ends only because of its bytes.
fn patient(config: &mut Config) {
    let long = Duration::from_secs(60);
    config.head_timeout = long;
    config.idle_timeout = long;
    config.close_timeout = long;
}

#[test]
fn a_wrong_handshake_is_refused_and_never_goes_on_as_http() {
    run(async {
        let node = TestNode::with(patient).await;
        for row in HANDSHAKES {
            let mut caller = HttpClient::connect(node.address).await;
            let behind = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
            caller.send([&row.bytes("/ws"), &behind[..]].concat()).await;
            // The response to a refused HEAD has the length of a body that is not sent.
            let answer = match row.name {
                "HEAD" => caller.head().await,
                _ => caller.answer().await,
            };
            assert_eq!(answer.status, row.status, "{}: {answer:?}", row.name);
            let connection = answer.field("Connection").unwrap_or_default();
            assert!(connection.starts_with("close"), "{}", row.name);
            let version = (row.status == 426).then_some("13");
            assert_eq!(answer.field("Sec-WebSocket-Version"), version);
            caller.expect_end().await;
        }
    });
}

#[test]
fn accept_key_of_the_rfc_example_is_returned() {
    run(async {
        let node = TestNode::with(patient).await;
        let mut caller = HttpClient::connect(node.address).await;
        let offers =
            "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\n";
        caller.send(upgrade("/ws", offers)).await;
        let answer = caller.head().await;
        assert_eq!(answer.status, 101);
        assert_eq!(
            answer.field("Sec-WebSocket-Accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert_eq!(answer.field("Upgrade"), Some("websocket"));
        assert_eq!(answer.field("Connection"), Some("Upgrade"));
        // An unknown subprotocol is not accepted.
        assert_eq!(answer.field("Sec-WebSocket-Extensions"), None);
        assert_eq!(answer.field("Sec-WebSocket-Protocol"), None);
    });
}

#[test]
fn frames_that_come_with_the_head_are_answered() {
    run(async {
        let node = TestNode::with(patient).await;
        let mut caller = HttpClient::connect(node.address).await;
        let frames = [frame(TEXT, PING_COMMAND), frame(TEXT, PING_COMMAND)].concat();
        let (whole, cut) = frames.split_at(frames.len() - 5);
        caller
            .send([upgrade("/ws", "").as_bytes(), whole].concat())
            .await;
        assert_eq!(caller.head().await.status, 101);
        let mut client = FrameClient::of(caller);
        assert!(client.text().await.contains("\"welcome\""));
        assert_eq!(client.text().await, PONG_REPLY);
        client.send(cut).await;
        assert_eq!(client.text().await, PONG_REPLY);
    });
}

#[test]
fn a_handshake_may_follow_other_requests_on_its_connection() {
    run(async {
        let node = TestNode::with(patient).await;
        let mut caller = HttpClient::connect(node.address).await;
        let page = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
        caller.send(page + &upgrade("/ws", "")).await;
        assert_eq!(caller.answer().await.status, 200);
        assert_eq!(caller.head().await.status, 101);
        let mut client = FrameClient::of(caller);
        assert!(client.text().await.contains("\"welcome\""));
        client.expect_pong().await;
    });
}

#[test]
fn websocket_is_spoken_only_on_its_own_paths() {
    run(async {
        let node = TestNode::with(patient).await;
        for path in ["/nothing", "/ws//", "/WS", "/echo"] {
            let mut caller = HttpClient::connect(node.address).await;
            caller.send(upgrade(path, "")).await;
            assert_eq!(caller.answer().await.status, 404, "{path}");
            caller.expect_end().await;
        }
        for path in ["/ws", "/ws/"] {
            let mut caller = HttpClient::connect(node.address).await;
            caller.send(upgrade(path, "")).await;
            assert_eq!(caller.head().await.status, 101, "{path}");
        }
    });
}

#[test]
fn pages_of_the_same_host_and_of_listed_origins_are_let_in() {
    run(async {
        let node = TestNode::with(|config| {
            patient(config);
            // For any Host.
            config.open = true;
            config.allow_origin = vec!["https://chat.example".into()];
        })
        .await;
        let rows = [
            ("", 101),
            ("http://a", 101),
            // A proxy terminates TLS in front of the node.
            ("https://a", 101),
            ("HTTP://A", 101),
            ("http://a:80", 101),
            ("https://chat.example", 101),
            ("https://CHAT.example", 101),
            ("http://chat.example", 403),
            ("https://chat.example:444", 403),
            ("https://chat.example.evil.test", 403),
            ("https://evilchat.example", 403),
            ("https://chatxexample", 403),
            ("https://a.chat.example", 403),
            ("https://chat.example@evil.test", 403),
            ("http://a.evil.test", 403),
            ("http://evil.test/a", 403),
            ("http://a:9090", 403),
            ("file://", 403),
            ("null", 403),
            ("*", 403),
        ];
        for (origin, status) in rows {
            let mut caller = HttpClient::connect(node.address).await;
            let field = match origin {
                "" => String::new(),
                origin => format!("Origin: {origin}\r\n"),
            };
            caller.send(upgrade("/ws", &field)).await;
            assert_eq!(caller.head().await.status, status, "{origin}");
        }
    });
}

#[test]
fn open_node_on_loopback_accepts_pages_of_this_machine_only() {
    run(async {
        let node = TestNode::with(patient).await;
        for (origin, host, status) in [
            ("Origin: http://localhost:9090\r\n", "localhost:9090", 101),
            ("Origin: http://127.0.0.1:9090\r\n", "127.0.0.1:9090", 101),
            // A name of the attacker that resolves to this machine.
            ("Origin: http://evil.test:9090\r\n", "evil.test:9090", 403),
            // No Origin, so no browser page is involved.
            ("", "evil.test:9090", 101),
        ] {
            let mut caller = HttpClient::connect(node.address).await;
            let request =
                upgrade("/ws", origin).replace("Host: a\r\n", &format!("Host: {host}\r\n"));
            caller.send(request).await;
            assert_eq!(caller.head().await.status, status, "{host} {origin}");
        }
    });
}

#[test]
fn frames_that_break_the_rules_end_the_connection_with_their_code() {
    let rows: Vec<(&str, Vec<u8>, u16)> = vec![
        ("unmasked", unmasked(TEXT, PING_COMMAND), 1002),
        ("unmasked and empty", unmasked(TEXT, b""), 1002),
        ("reserved bit", vec![0xc1, 0x80, 0, 0, 0, 0], 1002),
        ("reserved opcode", frame(0x3, b""), 1002),
        ("reserved control opcode", frame(0xb, b""), 1002),
        ("continuation of nothing", frame(CONTINUATION, b"a"), 1002),
        (
            "two beginnings",
            [fragment(TEXT, b"a"), frame(TEXT, b"b")].concat(),
            1002,
        ),
        ("fragmented ping", fragment(PING, b""), 1002),
        ("long ping", frame(PING, &[0; 126]), 1002),
        ("binary", frame(BINARY, PING_COMMAND), 1003),
        ("not UTF-8", frame(TEXT, b"\xff"), 1007),
        ("half a character", frame(TEXT, b"\xe2\x82"), 1007),
        ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
        (
            "not UTF-8 in the second half",
            [fragment(TEXT, b"\xe2\x82"), frame(CONTINUATION, b"a")].concat(),
            1007,
        ),
        ("too big", frame(TEXT, &[b'a'; 65_537]), 1009),
        ("announced too big", header(TEXT, 65_537), 1009),
        ("announced beyond all memory", header(TEXT, 1 << 62), 1009),
        ("announced beyond all numbers", header(TEXT, u64::MAX), 1009),
        (
            "too big in all",
            [
                fragment(TEXT, &[b'a'; 65_536]),
                fragment(CONTINUATION, b"a"),
            ]
            .concat(),
            1009,
        ),
        ("close code 999", frame(CLOSE, &999u16.to_be_bytes()), 1002),
        (
            "close code 1005",
            frame(CLOSE, &1005u16.to_be_bytes()),
            1002,
        ),
        (
            "close code 1006",
            frame(CLOSE, &1006u16.to_be_bytes()),
            1002,
        ),
        (
            "close code 1015",
            frame(CLOSE, &1015u16.to_be_bytes()),
            1002,
        ),
        (
            "close code 5000",
            frame(CLOSE, &5000u16.to_be_bytes()),
            1002,
        ),
        ("half a close code", frame(CLOSE, b"\x03"), 1002),
        (
            "close reason not UTF-8",
            frame(CLOSE, b"\x03\xe8\xff"),
            1007,
        ),
    ];
    run(async move {
        let node = TestNode::with(patient).await;
        for (what, bytes, code) in rows {
            let mut client = FrameClient::welcomed(node.address).await;
            client.send(&bytes).await;
            // Bytes after a frame that ends the connection are not read.
            client.send(frame(TEXT, PING_COMMAND)).await;
            assert_eq!(client.closed().await, Some(code), "{what}");
        }
        FrameClient::welcomed(node.address)
            .await
            .expect_pong()
            .await;
    });
}

#[test]
fn a_message_at_the_bound_passes_in_one_frame_or_in_many() {
    let mut command = PING_COMMAND.to_vec();
    command.resize(65_536, b' ');
    run(async move {
        let node = TestNode::with(patient).await;
        let mut client = FrameClient::welcomed(node.address).await;
        client.send(frame(TEXT, &command)).await;
        assert_eq!(client.text().await, PONG_REPLY);

        client.send(fragment(TEXT, b"")).await;
        for piece in command.chunks(1000) {
            client.send(fragment(CONTINUATION, piece)).await;
        }
        client.send(frame(CONTINUATION, b"")).await;
        assert_eq!(client.text().await, PONG_REPLY);
    });
}

#[test]
fn a_ping_is_answered_with_its_payload_even_within_a_message() {
    run(async {
        let node = TestNode::with(patient).await;
        let mut client = FrameClient::welcomed(node.address).await;
        for payload in [&b""[..], b"hello", &[0xff; 125]] {
            client.send(frame(PING, payload)).await;
            assert_eq!(client.next().await, (PONG, payload.to_vec()));
        }

        let (start, end) = PING_COMMAND.split_at(7);
        client.send(fragment(TEXT, start)).await;
        client.send(frame(PING, b"between")).await;
        assert_eq!(client.next().await, (PONG, b"between".to_vec()));
        // An unsolicited pong gets no answer.
        client.send(frame(PONG, b"unasked")).await;
        client.send(frame(CONTINUATION, end)).await;
        assert_eq!(client.text().await, PONG_REPLY);
    });
}

#[test]
fn empty_fragments_cost_nothing_and_do_no_harm() {
    run(async {
        let node = TestNode::with(|config| {
            patient(config);
            config.max_fragments = 10_002;
        })
        .await;
        let mut client = FrameClient::welcomed(node.address).await;
        let mut other = FrameClient::welcomed(node.address).await;
        client.send(fragment(TEXT, PING_COMMAND)).await;
        let many = fragment(CONTINUATION, b"").repeat(1000);
        for _ in 0..10 {
            client.send(&many).await;
            other.expect_pong().await;
        }
        client.send(frame(CONTINUATION, b"")).await;
        assert_eq!(client.text().await, PONG_REPLY);
    });
}

#[test]
fn a_close_is_answered_with_its_code_and_then_the_connection_ends() {
    run(async {
        let node = TestNode::with(patient).await;
        for code in [1000u16, 1001, 1011, 3000, 4999] {
            let mut client = FrameClient::welcomed(node.address).await;
            let payload = [&code.to_be_bytes()[..], "see you, Aïda".as_bytes()].concat();
            let behind = frame(TEXT, PING_COMMAND);
            client.send([frame(CLOSE, &payload), behind].concat()).await;
            assert_eq!(client.closed().await, Some(code));
        }
        let mut client = FrameClient::welcomed(node.address).await;
        client.send(frame(CLOSE, b"")).await;
        assert_eq!(client.closed().await, None);

        let open = || node.server().metrics().connections_open.get();
        eventually("nothing is left", || open() == 0).await;
    });
}

#[test]
fn echo_path_returns_every_message() {
    run(async {
        let node = TestNode::with(|config| {
            patient(config);
            config.echo_path = Some("/echo".into());
        })
        .await;
        let mut client = FrameClient::open(node.address, "/echo").await;
        let long = vec![b'x'; 65_536];
        let messages: [(u8, &[u8]); 6] = [
            (TEXT, "héllo".as_bytes()),
            (BINARY, b"\x00\xff"),
            (TEXT, b""),
            (BINARY, b""),
            (TEXT, &long),
            (BINARY, &long),
        ];
        for (opcode, payload) in messages {
            client.send(frame(opcode, payload)).await;
            assert_eq!(client.next().await, (opcode, payload.to_vec()));
        }
        client.send(frame(CLOSE, &1000u16.to_be_bytes())).await;
        assert_eq!(client.closed().await, Some(1000));

        let broken = [
            (unmasked(TEXT, b"a"), 1002),
            (frame(TEXT, b"\xff"), 1007),
            (header(BINARY, 1 << 62), 1009),
        ];
        for (bytes, code) in broken {
            let mut client = FrameClient::open(node.address, "/echo").await;
            client.send(bytes).await;
            assert_eq!(client.closed().await, Some(code));
        }
    });
}

/// An in-memory socket that sends an upgrade, panics on the next read, and then reads as closed.
#[derive(Clone, Default)]
struct Trap(Arc<AtomicUsize>);

impl AsyncRead for Trap {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Poll::Ready(upgrade("/ws", "").as_bytes().read(buffer)),
            1 => panic!("the trap is sprung, as the test wants"),
            _ => Poll::Ready(Ok(0)),
        }
    }
}

impl AsyncWrite for Trap {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl SharedSocket for Trap {
    fn shutdown(&self) {}
}

#[test]
fn a_panic_in_one_connection_ends_that_connection_alone() {
    run(async {
        let (inbox, events) = flume::unbounded();
        let next = async || within("an event", events.recv_async()).await.expect("one");
        let node = node_of(inbox);
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr();
        let accepting = node.clone();
        runtime::spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                let counted = Counted::new(accepting.metrics.clone());
                let serving = serve(
                    accepting.clone(),
                    socket,
                    peer,
                    ListenerKind::Public,
                    counted,
                );
                runtime::spawn(serving);
            }
        });

        let mut client = FrameClient::open(address, "/ws").await;
        let Event::Opened {
            protocol, outbox, ..
        } = next().await
        else {
            panic!("the client is not opened")
        };

        let counted = Counted::new(node.metrics.clone());
        let entrance = ListenerKind::Public;
        serve(node.clone(), Trap::default(), address, entrance, counted).await;
        let Event::Opened {
            session,
            outbox: trapped,
            ..
        } = next().await
        else {
            panic!("the trap is not opened")
        };
        let closed = next().await;
        let Event::Closed {
            session: closed,
            close_reason: Some(Disconnect::Internal),
        } = closed
        else {
            panic!("{closed:?}")
        };
        assert_eq!(closed, session);
        drop(trapped);
        assert!(matches!(
            next().await,
            Event::Closed {
                close_reason: None,
                ..
            }
        ));
        assert_eq!(node.metrics.panics_total.get(), 1);
        let open = || node.metrics.connections_open.get();
        eventually("the trap alone is gone", || open() == 1).await;

        client.send(frame(TEXT, PING_COMMAND)).await;
        let asked = next().await;
        assert!(matches!(asked, Event::Command { .. }), "{asked:?}");
        outbox.end(protocol.encoder().close(Disconnect::Draining), false);
        assert_eq!(client.closed().await, Some(3001));
    });
}
