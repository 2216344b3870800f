//! Commands and bytes per second of one session: input over the rate is delayed and not lost, and
//! only a session that stays over the rate is closed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::Message;
use futures::{AsyncWriteExt, StreamExt};
use serde_json::json;
use switchboard::config::Config;
use switchboard::protocol::disconnect::Disconnect;
use switchboard::runtime;

use crate::support::frames::{CLOSE, FrameClient, PING, PONG, TEXT, frame, upgrade};
use crate::support::http::HttpClient;
use crate::support::{TestClient, TestNode, eventually, run, within};

const PING_COMMAND: &[u8] = br#"{"type":"ping","id":99}"#;
const PONG_REPLY: &str = r#"{"type":"pong","id":99}"#;

fn paused(node: &TestNode) -> u64 {
    node.server().metrics().paused_total.get()
}

fn closed_as_too_fast(node: &TestNode) -> u64 {
    let metrics = node.server().metrics();
    metrics.disconnected_total.get(Disconnect::TooFast)
}

/// Sends `count` commands at once and waits until all are answered.
async fn burst(client: &mut FrameClient, count: usize) {
    client.send(frame(TEXT, PING_COMMAND).repeat(count)).await;
    for _ in 0..count {
        assert_eq!(client.text().await, PONG_REPLY);
    }
}

#[test]
fn commands_over_two_seconds_worth_wait_and_are_answered() {
    run(async {
        let node = TestNode::with(|config| {
            config.commands_per_second = Some(100);
        })
        .await;
        let mut client = FrameClient::welcomed(node.address).await;
        burst(&mut client, 200).await;
        assert_eq!(paused(&node), 0);
        // What the node reads at once, it may be ahead by: a kilobyte, which is 35 of these.
        let mut client = FrameClient::welcomed(node.address).await;
        burst(&mut client, 400).await;
        assert!(paused(&node) > 0);
    });
}

#[test]
fn message_in_many_small_reads_counts_more_than_its_bytes() {
    run(async {
        let node = TestNode::with(|config| {
            // At once: 3,200 bytes, or fifty pieces.
            config.bytes_per_second = Some(800);
            config.max_message = 3_200;
        })
        .await;
        let mut client = FrameClient::welcomed(node.address).await;
        let mut command = PING_COMMAND.to_vec();
        command.resize(120, b' ');
        let whole = frame(TEXT, &command);
        client.send(whole.repeat(10)).await;
        for _ in 0..10 {
            assert_eq!(client.text().await, PONG_REPLY);
        }
        assert_eq!(paused(&node), 0);
        for byte in whole {
            client.send(vec![byte]).await;
            // So that the node may read it before the next one comes.
            runtime::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(client.text().await, PONG_REPLY);
        assert!(paused(&node) > 0);
    });
}

#[test]
fn bytes_over_four_seconds_worth_wait_and_are_answered() {
    run(async {
        let node = TestNode::with(|config| {
            config.bytes_per_second = Some(64 * 1024);
        })
        .await;
        let mut client = FrameClient::welcomed(node.address).await;
        let mut command = PING_COMMAND.to_vec();
        command.resize(64 * 1024 - 14, b' ');
        let large = frame(TEXT, &command);
        client.send(large.repeat(4)).await;
        for _ in 0..4 {
            assert_eq!(client.text().await, PONG_REPLY);
        }
        assert_eq!(paused(&node), 0);
        client.send(large.repeat(2)).await;
        for _ in 0..2 {
            assert_eq!(client.text().await, PONG_REPLY);
        }
        assert!(paused(&node) > 0);
    });
}

#[test]
fn join_counts_as_four_commands_and_an_invalid_frame_as_one() {
    run(async {
        let node = TestNode::with(|config| {
            config.commands_per_second = Some(50);
            config.rooms_per_session = 1000;
        })
        .await;
        for (cost, fits) in [("join", 25), ("junk", 100), ("ping", 100)] {
            let mut client = FrameClient::welcomed(node.address).await;
            let before = paused(&node);
            let send = async |client: &mut FrameClient, n: usize| {
                match cost {
                    "join" => {
                        let join = json!({"type": "join", "room": format!("r{n}")}).to_string();
                        client.send(frame(TEXT, join.as_bytes())).await;
                    }
                    "junk" => client.send(frame(TEXT, b"junk")).await,
                    _ => client.send(frame(PING, b"")).await,
                }
                client.next().await;
            };
            for n in 0..fits {
                send(&mut client, n).await;
            }
            assert_eq!(paused(&node), before, "{cost}");
            // The bucket refills while we speak: as much again must be too much, unless that took
            // two seconds.
            let start = Instant::now();
            for n in fits..2 * fits {
                send(&mut client, n).await;
            }
            assert!(
                paused(&node) > before || start.elapsed() > Duration::from_secs(2),
                "{cost}"
            );
        }
    });
}

/// Sends as long as the node accepts it, in a separate task.
fn flood(caller: &HttpClient, bytes: Vec<u8>) {
    let mut socket = caller.socket();
    runtime::spawn(async move { while socket.write_all(&bytes).await.is_ok() {} });
}

async fn flooding(node: &TestNode, bytes: Vec<u8>) -> FrameClient {
    let mut caller = HttpClient::connect(node.address).await;
    caller.send(upgrade("/ws", "")).await;
    assert_eq!(caller.head().await.status, 101);
    flood(&caller, bytes);
    FrameClient::of(caller)
}

#[test]
fn session_that_stays_over_its_rate_is_closed_with_a_retryable_code() {
    let commands = |config: &mut Config| config.commands_per_second = Some(100);
    let bytes = |config: &mut Config| config.bytes_per_second = Some(16 * 1024);
    type Change = fn(&mut Config);
    let rows: [(&str, Change, Vec<u8>); 4] = [
        ("commands", commands, frame(TEXT, PING_COMMAND).repeat(100)),
        ("junk", commands, frame(TEXT, b"junk").repeat(100)),
        ("pings", commands, frame(PING, b"").repeat(100)),
        ("pongs", bytes, frame(PONG, &[b'x'; 125]).repeat(100)),
    ];
    run(async move {
        for (what, change, flood) in rows {
            let node = TestNode::with(|config| {
                change(config);
                config.rate_timeout = Duration::from_secs(1);
                config.close_timeout = Duration::from_millis(300);
            })
            .await;
            let mut client = flooding(&node, flood).await;
            let payload = loop {
                let (opcode, payload) = client.next().await;
                if opcode == CLOSE {
                    break payload;
                }
            };
            assert_eq!(payload[..2], 3004_u16.to_be_bytes(), "{what}");
            let metrics = node.server().metrics();
            assert_eq!(metrics.disconnected_total.get(Disconnect::TooFast), 1);
            let open = || metrics.connections_open.get();
            eventually("its connection is gone", || open() == 0).await;
        }
    });
}

#[test]
fn client_that_awaits_each_reply_is_throttled_and_never_closed() {
    run(async {
        let node = TestNode::with(|config| {
            config.commands_per_second = Some(50);
            config.rate_timeout = Duration::from_secs(1);
        })
        .await;
        let mut client = FrameClient::welcomed(node.address).await;
        for _ in 0..250 {
            client.expect_pong().await;
        }
        assert!(paused(&node) > 0);
    });
}

#[test]
fn client_with_a_dozen_publishes_in_flight_is_throttled_and_never_closed() {
    run(async {
        let node = TestNode::with(|config| {
            config.commands_per_second = Some(100);
            config.rate_timeout = Duration::from_secs(1);
        })
        .await;
        let mut client = node.client().await;
        client.join("lobby").await;
        let publish = json!({"type": "publish", "room": "lobby", "data": "x".repeat(100)});
        let mut in_flight = VecDeque::new();
        for _ in 0..12 {
            in_flight.push_back(client.ask(publish.clone()).await);
        }
        // The burst, and then four times as long as a session may be over its rate.
        for _ in 0..600 {
            let oldest = in_flight.pop_front().expect("a dozen");
            assert_eq!(client.reply(oldest).await["type"], "ok");
            in_flight.push_back(client.ask(publish.clone()).await);
        }
        assert!(paused(&node) > 0);
        assert_eq!(closed_as_too_fast(&node), 0);
    });
}

/// A room with a hundred messages and twenty members, of which the last is returned.
async fn busy_room(node: &TestNode) -> (Vec<TestClient>, TestClient) {
    let mut members = Vec::new();
    for n in 0..20 {
        let mut member = node.client().await;
        member.auth(&format!("user{n}")).await;
        member.join("lobby").await;
        for m in 0..5 {
            member.publish("lobby", json!(m)).await;
        }
        members.push(member);
    }
    let last = members.pop().expect("twenty");
    (members, last)
}

#[test]
fn pages_are_charged_by_what_they_return() {
    run(async {
        let node = TestNode::with(|config| {
            config.commands_per_second = Some(200);
            config.rate_timeout = Duration::from_secs(1);
        })
        .await;
        let (_members, mut last) = busy_room(&node).await;
        for (page, cost) in [
            // Less than a kilobyte in flight, which the node reads at once.
            (
                json!({"type": "members", "room": "lobby", "limit": 1000}),
                5,
            ),
            (
                json!({"type": "history", "room": "lobby", "limit": 100}),
                10,
            ),
            (json!({"type": "history", "room": "void", "limit": 100}), 4),
        ] {
            // The bucket is full again.
            runtime::sleep(Duration::from_millis(2100)).await;
            let (start, before) = (Instant::now(), paused(&node));
            let fit = 400 / cost;
            for _ in 0..fit - 4 {
                assert_eq!(last.call(page.clone()).await["type"], "ok");
            }
            assert_eq!(paused(&node), before, "{page}");
            // As much again is too much, unless the bucket has refilled meanwhile.
            for _ in 0..fit + 8 {
                last.call(page.clone()).await;
            }
            let refilled = start.elapsed() > Duration::from_secs(2);
            assert!(paused(&node) > before || refilled, "{page}");
        }
        assert_eq!(closed_as_too_fast(&node), 0);
    });
}

#[test]
fn client_that_asks_for_pages_of_many_rooms_at_once_is_never_closed() {
    run(async {
        let node = TestNode::with(|config| {
            config.commands_per_second = Some(100);
            config.rate_timeout = Duration::from_secs(1);
        })
        .await;
        let mut client = node.client().await;
        let mut asked = Vec::new();
        for n in 0..60 {
            let room = format!("room{n}");
            for ask in [
                json!({"type": "join", "room": room}),
                json!({"type": "members", "room": room, "limit": 500}),
                json!({"type": "history", "room": room, "limit": 100}),
            ] {
                asked.push(client.ask(ask).await);
            }
        }
        for id in asked {
            assert_eq!(client.reply(id).await["type"], "ok");
        }
        assert_eq!(closed_as_too_fast(&node), 0);
    });
}

#[test]
fn throttled_session_still_receives_messages_and_is_not_timed_out() {
    run(async {
        let node = TestNode::with(|config| {
            config.commands_per_second = Some(10);
            config.heartbeat = Duration::from_millis(500);
            // Less than its pongs wait behind the commands, and enough for a busy machine.
            config.pong_timeout = Duration::from_secs(1);
        })
        .await;
        let (mut ada, mut bob) = (node.client().await, node.client().await);
        ada.join("lobby").await;
        // The bytes of one read, which exceed the rate by three seconds.
        for _ in 0..50 {
            ada.ask(json!({"type": "ping"})).await;
        }
        eventually("ada is paused", || paused(&node) > 0).await;
        bob.publish("lobby", json!("still here?")).await;
        assert_eq!(ada.message("lobby").await["data"], "still here?");
        let mut pings = 0;
        while pings < 2 {
            // Bob must answer pings meanwhile.
            let _ = runtime::timeout(Duration::from_millis(1), bob.stream().next()).await;
            match within("a ping", ada.stream().next()).await {
                Some(Ok(Message::Ping(_))) => pings += 1,
                Some(Ok(Message::Text(_))) => {}
                other => panic!("{other:?}"),
            }
        }
        // Answered after the other commands, when the first pong would be late.
        ada.call(json!({"type": "ping"})).await;
    });
}

#[test]
fn latest_of_several_pings_is_answered() {
    run(async {
        let node = TestNode::start().await;
        let mut client = FrameClient::welcomed(node.address).await;
        let pings: Vec<u8> = (0..1000_u32)
            .flat_map(|n| frame(PING, &n.to_be_bytes()))
            .collect();
        client.send(pings).await;
        let (mut answers, mut last) = (0, None);
        while last < Some(999) {
            let (opcode, payload) = client.next().await;
            assert_eq!(opcode, PONG);
            let n = u32::from_be_bytes(payload.try_into().expect("four bytes"));
            assert!(last < Some(n), "{n} after {last:?}");
            (answers, last) = (answers + 1, Some(n));
        }
        assert!(answers < 500, "{answers}");
        client.expect_pong().await;
    });
}

#[test]
fn sessions_in_open_mode_are_throttled_only_when_configured() {
    run(async {
        let node = TestNode::start().await;
        let mut client = FrameClient::welcomed(node.address).await;
        burst(&mut client, 5000).await;
        assert_eq!(paused(&node), 0);
    });
}
