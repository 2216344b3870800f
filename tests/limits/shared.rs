//! Limits of users and addresses: a client gains nothing by connecting anew, by other addresses of
//! its network, or by ever-new rooms, and no session is closed for what others send.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use serde_json::json;
use switchboard::config::Config;
use switchboard::model::pattern::Pattern;
use switchboard::model::rights::{Policy, Rule};
use switchboard::protocol::disconnect::Disconnect;

use crate::support::{Issuer, TestClient, TestNode, run};

/// A node with tokens, whose rooms are public, behind a proxy on this machine.
async fn node(issuer: &Issuer, change: impl FnOnce(&mut Config)) -> TestNode {
    TestNode::with(|config| {
        issuer.secures(config);
        config.trusted_proxy = vec![IpAddr::V4(Ipv4Addr::LOCALHOST).into()];
        config.room = vec![Rule {
            rooms: Pattern::new("*").expect("a pattern"),
            policy: Policy::Public,
        }];
        change(config);
    })
    .await
}

/// An anonymous client of this address.
async fn anonymous(node: &TestNode, address: &str) -> TestClient {
    let fields = [("x-forwarded-for", address)];
    let client = TestClient::with(node.address, "", &fields).await;
    client.expect("the handshake succeeds")
}

/// A client of this address that signs in in its handshake.
async fn signed_in(node: &TestNode, address: &str, token: &str) -> TestClient {
    let bearer = format!("Bearer {token}");
    let fields = [("x-forwarded-for", address), ("authorization", &bearer)];
    let client = TestClient::with(node.address, "", &fields).await;
    client.expect("the handshake succeeds")
}

/// Sends as many pings as a new session may send at once, and waits for their answers.
async fn spend_burst(client: &mut TestClient, count: u64) -> u64 {
    let mut last = 0;
    for _ in 0..count {
        last = client.ask(json!({"type": "ping"})).await;
    }
    client.reply(last).await;
    count
}

/// By how many commands what is read at once may exceed a rate.
const READ_AHEAD: u64 = 100;

/// The most commands that may be answered in this time, at a rate with a burst of two seconds.
fn most(per_second: u64, started: Instant) -> u64 {
    let elapsed = started.elapsed().as_millis() as u64;
    per_second * 2 + per_second * elapsed / 1000 + READ_AHEAD
}

fn paused(node: &TestNode) -> u64 {
    node.server().metrics().paused_total.get()
}

fn closed_as_too_fast(node: &TestNode) -> u64 {
    let metrics = node.server().metrics();
    metrics.disconnected_total.get(Disconnect::TooFast)
}

#[test]
fn user_gains_nothing_by_connecting_anew() {
    run(async {
        let issuer = Issuer::new();
        let node = node(&issuer, |config| config.commands_per_second = Some(50)).await;
        let token = issuer.token("ada", &[]);
        let (started, mut answered) = (Instant::now(), 0);
        for n in 0..14 {
            // From another address each time, and signed in by the handshake or by a message.
            let address = format!("192.0.2.{n}");
            let mut client = if n % 2 == 0 {
                signed_in(&node, &address, &token).await
            } else {
                let mut client = anonymous(&node, &address).await;
                client.sign_in(&token).await;
                client
            };
            answered += spend_burst(&mut client, 90).await;
        }
        let most = most(200, started);
        assert!(answered <= most, "{answered} of {most}");
        // On a busy machine the bucket refills as quickly as the clients connect.
        assert!(paused(&node) > 0 || answered + READ_AHEAD <= most);
        assert_eq!(closed_as_too_fast(&node), 0);
    });
}

#[test]
fn anonymous_clients_of_a_network_share_its_rate_and_delay_no_user() {
    run(async {
        let issuer = Issuer::new();
        let node = node(&issuer, |config| config.commands_per_second = Some(10)).await;
        let (started, mut answered) = (Instant::now(), 0);
        for n in 0..50 {
            let mut client = anonymous(&node, &format!("2001:db8:1:2::{n:x}")).await;
            answered += spend_burst(&mut client, 18).await;
        }
        let most = most(200, started);
        assert!(answered <= most, "{answered} of {most}");
        // On a busy machine the bucket refills as quickly as the clients connect.
        assert!(paused(&node) > 0 || answered + READ_AHEAD <= most);

        let before = paused(&node);
        let token = issuer.token("ada", &[]);
        for (address, token) in [
            ("2001:db8:1:2::1", Some(&token)),
            ("2001:db8:1:3::1", None),
            ("192.0.2.1", None),
        ] {
            let mut client = match token {
                Some(token) => signed_in(&node, address, token).await,
                None => anonymous(&node, address).await,
            };
            spend_burst(&mut client, 5).await;
            assert_eq!(paused(&node), before, "{address}");
        }
        assert_eq!(closed_as_too_fast(&node), 0);
    });
}

/// Publishes to rooms that are unused, each time by a new connection after some, until one is
/// refused, and returns how many were not.
async fn use_new_rooms(mut connect: impl AsyncFnMut() -> TestClient) -> u64 {
    let (mut published, mut asked) = (0, Vec::new());
    loop {
        let mut client = connect().await;
        for n in 0..500 {
            let room = format!("room{}", published + n);
            let publish = json!({"type": "publish", "room": room, "data": 1});
            asked.push(client.ask(publish).await);
        }
        for id in asked.drain(..) {
            let reply = client.reply(id).await;
            if reply["type"] == "error" {
                assert_eq!(reply["code"], "limit", "{reply}");
                let known = json!({"type": "publish", "room": "room0", "data": 1});
                if published < 1100 {
                    assert_eq!(client.call(known).await["type"], "ok");
                }
                return published;
            }
            published += 1;
        }
    }
}

#[test]
fn new_rooms_of_users_and_addresses_are_bounded() {
    run(async {
        let issuer = Issuer::new();
        let node = node(&issuer, |config| {
            config.commands_per_second = Some(1_000_000);
            config.bytes_per_second = Some(1 << 30);
        })
        .await;
        let started = Instant::now();
        let token = issuer.token("ada", &[]);
        let published = use_new_rooms(async || signed_in(&node, "192.0.2.1", &token).await).await;
        let most = 1024 + 4 * (started.elapsed().as_secs() + 1);
        // A few are taken for others.
        assert!((1024..most + 10).contains(&published), "{published}");

        let (started, mut host) = (Instant::now(), 0);
        let published = use_new_rooms(async || {
            host += 1;
            anonymous(&node, &format!("2001:db8:1:2::{host:x}")).await
        })
        .await;
        let most = 5120 + 20 * (started.elapsed().as_secs() + 1);
        assert!((5120..most + 10).contains(&published), "{published}");
        // Another one is not affected.
        let mut other = anonymous(&node, "192.0.2.2").await;
        other.publish("room-of-another", json!(1)).await;
    });
}

/// Joins new rooms, two by each connection, until one is refused, and returns how many were not.
async fn join_new_rooms(mut connect: impl AsyncFnMut() -> TestClient, prefix: &str) -> usize {
    let mut held = Vec::new();
    loop {
        let mut client = connect().await;
        for n in 0..2 {
            let room = format!("{prefix}{}-{n}", held.len());
            let reply = client.call(json!({"type": "join", "room": room})).await;
            if reply["type"] == "error" {
                assert_eq!(reply["code"], "limit", "{reply}");
                return held.len() * 2 + n;
            }
        }
        held.push(client);
    }
}

#[test]
fn one_client_does_not_take_all_rooms_of_a_node() {
    run(async {
        let issuer = Issuer::new();
        let node = node(&issuer, |config| {
            config.max_rooms = 200;
            config.rooms_per_session = 2;
        })
        .await;
        let token = issuer.token("ada", &[]);
        let of_user = join_new_rooms(async || signed_in(&node, "192.0.2.1", &token).await, "ada");
        assert_eq!(of_user.await, 4);
        let mut host = 0;
        let of_address = join_new_rooms(
            async || {
                host += 1;
                anonymous(&node, &format!("2001:db8:1:2::{host:x}")).await
            },
            "anonymous",
        );
        assert_eq!(of_address.await, 20);
        anonymous(&node, "192.0.2.2").await.join("another").await;
    });
}
