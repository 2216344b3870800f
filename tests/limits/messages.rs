//! Limits of one message: frames, time, depth. `handshake` tests its size in bytes.

use std::fs;
use std::time::Duration;

use serde_json::json;
use switchboard::config::Config;
use switchboard::protocol::Code;
use switchboard::protocol::disconnect::Disconnect;
use switchboard::runtime;

use crate::support::frames::{
    CLOSE, CONTINUATION, FrameClient, PING, TEXT, fragment, frame, header,
};
use crate::support::{NodeProcess, TestNode, run};

/// A message in this number of frames, all but the first one empty.
fn in_frames(count: usize) -> Vec<u8> {
    let mut bytes = fragment(TEXT, br#"{"type":"ping","id":99}"#);
    for _ in 0..count - 2 {
        bytes.extend(fragment(CONTINUATION, b""));
    }
    bytes.extend(frame(CONTINUATION, b""));
    bytes
}

#[test]
fn message_may_have_the_maximum_of_frames_and_not_one_more() {
    run(async {
        let node = TestNode::start().await;
        let mut client = FrameClient::welcomed(node.address).await;
        for _ in 0..3 {
            client.send(in_frames(1024)).await;
            assert_eq!(client.text().await, r#"{"type":"pong","id":99}"#);
        }
        let mut message = in_frames(1025);
        // Control frames between the fragments do not count.
        message.splice(..0, frame(PING, b"").repeat(2000));
        client.send(message).await;
        let closed = loop {
            let (opcode, payload) = client.next().await;
            if opcode == CLOSE {
                break payload;
            }
        };
        assert_eq!(closed[..2], 1008_u16.to_be_bytes());
        let metrics = node.server().metrics();
        assert_eq!(metrics.disconnected_total.get(Disconnect::Fragments), 1);
    });
}

#[test]
fn welcome_carries_the_limits_that_hold() {
    run(async {
        let node = TestNode::with(|config| {
            config.max_message = 2048;
            config.commands_per_second = Some(50);
            config.rooms_per_session = 7;
        })
        .await;
        let client = node.client().await;
        let expected = json!({"message": 2048, "room": 255, "user": 255, "key": 64, "token": 4096,
            "info": 512, "rooms": 7, "rate": 50});
        assert_eq!(client.welcome["limits"], expected);
    });
}

#[test]
fn frames_that_came_with_the_head_count_too() {
    run(async {
        let node = TestNode::with(|config| {
            config.max_fragments = 4;
        })
        .await;
        for (count, expected) in [(4, None), (5, Some(1008))] {
            let mut caller = crate::support::http::HttpClient::connect(node.address).await;
            let mut bytes = crate::support::frames::upgrade("/ws", "").into_bytes();
            bytes.extend(in_frames(count));
            caller.send(bytes).await;
            assert_eq!(caller.head().await.status, 101);
            let mut client = FrameClient::of(caller);
            client.text().await;
            match expected {
                None => assert_eq!(client.text().await, r#"{"type":"pong","id":99}"#),
                code => {
                    client.text().await;
                    assert_eq!(client.closed().await, code);
                }
            }
        }
    });
}

/// Kilobytes of the process that lie in memory.
fn resident(node: &NodeProcess) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.id())).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("Linux reports it").parse().expect("a number")
}

#[test]
fn million_empty_frames_and_huge_lengths_allocate_no_memory() {
    run(async {
        let node = NodeProcess::start(&["--max-fragments", "1000000"]).await;
        let mut other = FrameClient::welcomed(node.address).await;
        // The first message of each kind allocates memory.
        other.expect_pong().await;
        let before = resident(&node);
        let mut client = FrameClient::welcomed(node.address).await;
        client.send(fragment(TEXT, b"")).await;
        let many = fragment(CONTINUATION, b"").repeat(10_000);
        for _ in 0..99 {
            client.send(&many).await;
            other.expect_pong().await;
        }
        client.send(fragment(CONTINUATION, b"").repeat(9_999)).await;
        other.expect_pong().await;
        client.send(fragment(CONTINUATION, b"")).await;
        assert_eq!(client.closed().await, Some(1008));
        for _ in 0..20 {
            let mut client = FrameClient::welcomed(node.address).await;
            client.send(header(TEXT, 1 << 62)).await;
            assert_eq!(client.closed().await, Some(1009));
        }
        let grown = resident(&node).saturating_sub(before);
        assert!(grown < 8 * 1024, "{grown} KiB");
    });
}

fn nested(depth: usize) -> String {
    // The command itself is one deep.
    let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
    format!(r#"{{"type":"publish","id":7,"room":"deep","data":{open}{close}}}"#)
}

#[test]
fn command_over_the_maximum_depth_gets_an_error_with_its_id() {
    run(async {
        let node = TestNode::with(|config| {
            config.max_message = 1 << 20;
            config.outbox_bytes = 4 << 20;
        })
        .await;
        let mut client = FrameClient::welcomed(node.address).await;
        client.send(frame(TEXT, nested(64).as_bytes())).await;
        let answer = client.text().await;
        assert!(answer.contains(r#""type":"ok","id":7"#), "{answer}");
        for depth in [65, 127, 128, 129, 1000, 200_000] {
            client.send(frame(TEXT, nested(depth).as_bytes())).await;
            let answer = client.text().await;
            let refused = r#"{"type":"error","id":7,"code":"bad_request","reason":"nest"#;
            assert!(answer.starts_with(refused), "{depth}: {answer}");
        }
        // Unclosed, in a field that does not exist, and where nothing of the kind may stand.
        for text in [
            "[".repeat(200_000),
            format!(r#"{{"type":"ping","x":{}"#, "[".repeat(65)),
            format!(r#"{{"type":{}"#, r#"{"a":"#.repeat(100_000)),
        ] {
            client.send(frame(TEXT, text.as_bytes())).await;
            let answer = client.text().await;
            assert!(answer.contains(r#""code":"bad_request""#), "{answer}");
        }
        // Brackets in a text are no depth.
        let text = json!({"type": "ping", "id": 1, "x": "[".repeat(1000)}).to_string();
        client.send(frame(TEXT, text.as_bytes())).await;
        assert!(client.text().await.contains("unknown field"));
        client.expect_pong().await;
        let errors = &node.server().metrics().errors_total;
        assert_eq!(errors.get(Code::BadRequest), 10);
    });
}

#[test]
fn deeper_commands_are_understood_where_they_are_allowed() {
    run(async {
        let node = TestNode::with(|config| {
            config.max_depth = 1000;
        })
        .await;
        let mut client = FrameClient::welcomed(node.address).await;
        client
            .send(frame(TEXT, br#"{"type":"join","id":1,"room":"deep"}"#))
            .await;
        client.text().await;
        client.send(frame(TEXT, nested(1000).as_bytes())).await;
        let (first, second) = (client.text().await, client.text().await);
        let data = format!("\"data\":{}", "[".repeat(999));
        assert!([first, second].iter().any(|reply| reply.contains(&data)));
    });
}

fn hurried(config: &mut Config) {
    config.message_timeout = Duration::from_secs(1);
}

#[test]
fn slow_message_is_closed_at_any_byte() {
    let long = [header(TEXT, 60_000), vec![b' '; 60_000]].concat();
    let cases = [
        ("payload", long),
        ("header", header(TEXT, 60_000)),
        (
            "fragments",
            fragment(TEXT, b"")
                .into_iter()
                .chain(fragment(CONTINUATION, b"").repeat(500))
                .collect(),
        ),
        ("ping", frame(PING, &[b'x'; 125])),
    ];
    run(async move {
        let node = TestNode::with(hurried).await;
        for (what, bytes) in cases {
            let mut client = FrameClient::welcomed(node.address).await;
            // The shortest of them has 8 bytes, the last of which is not sent.
            for byte in &bytes[..7] {
                client.send([*byte]).await;
                runtime::sleep(Duration::from_millis(200)).await;
            }
            assert_eq!(client.closed().await, Some(3005), "{what}");
        }
        let metrics = node.server().metrics();
        assert_eq!(metrics.disconnected_total.get(Disconnect::Stalled), 4);
    });
}

#[test]
fn consecutive_messages_have_separate_deadlines() {
    run(async {
        let node = TestNode::with(hurried).await;
        let mut client = FrameClient::welcomed(node.address).await;
        let command = frame(TEXT, br#"{"type":"ping","id":99}"#);
        let (head, tail) = command.split_at(3);
        client.send(head).await;
        // Never is the stream between two messages, for two seconds.
        for _ in 0..20 {
            runtime::sleep(Duration::from_millis(100)).await;
            client.send([tail, head].concat()).await;
            assert_eq!(client.text().await, r#"{"type":"pong","id":99}"#);
        }
    });
}

#[test]
fn partial_frame_followed_by_silence_ends_after_a_ping() {
    run(async {
        let node = TestNode::with(|config| {
            config.heartbeat = Duration::from_millis(500);
            config.pong_timeout = Duration::from_millis(250);
        })
        .await;
        for half in [&b"\x81"[..], b"\x81\xfe\x01", &header(TEXT, 1000)] {
            let mut client = FrameClient::welcomed(node.address).await;
            client.send(half).await;
            let mut last = client.next().await;
            while last.0 == PING {
                last = client.next().await;
            }
            assert_eq!((last.0, &last.1[..2]), (CLOSE, &3003_u16.to_be_bytes()[..]));
        }
    });
}
