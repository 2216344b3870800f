//! User commands of a backend, on any node for the whole cluster: disconnect a user, revoke its
//! tokens, add it to rooms and remove it. And that clients can neither send nor receive the control
//! messages for this.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::dispatcher::Now;
use switchboard::model::readiness::ReadinessState;
use switchboard::runtime;

use crate::support::backend::{key_file, keys};
use crate::support::cluster::{answers, ready};
use crate::support::redis_server::{Options, RedisServer};
use crate::support::{
    Backend, GLANCE, Issuer, NodeProcess, TestClient, TestNode, eventually, run, within,
};

/// The set of revocations.
const SET: &str = "switchboard:revoked";

const HOUR: Duration = Duration::from_secs(3600);

/// A node that wants tokens and shares this Redis, ready or not.
fn unready(issuer: &Issuer, redis: &RedisServer) -> TestNode {
    TestNode::unready(|config| {
        issuer.secures(config);
        config.redis = vec![redis.url().parse().expect("an address")];
        config.api_key_file = Some(keys());
        config.publish_timeout = Duration::from_secs(3);
    })
}

async fn is_ready(node: &TestNode) {
    let readiness = node.server().readiness();
    eventually("the node is ready", || {
        readiness.state() == ReadinessState::Ready
    })
    .await;
}

async fn start(issuer: &Issuer, redis: &RedisServer) -> TestNode {
    let node = unready(issuer, redis);
    is_ready(&node).await;
    node
}

async fn signed_in(node: &TestNode, token: &str) -> TestClient {
    let mut client = node.client().await;
    let answer = client.sign_in(token).await;
    assert_eq!(answer["type"], "ok", "{answer}");
    client
}

/// A token is refused: in a message, and in the handshake by the close that follows at once.
async fn is_refused(node: &TestNode, token: &str) {
    let mut client = node.client().await;
    let answer = client.sign_in(token).await;
    assert_eq!(answer["code"], "unauthorized", "{answer}");
    assert_eq!(code(&mut client).await, Some(3500));
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let shown = TestClient::with(node.address, "", &headers).await;
    assert_eq!(code(&mut shown.expect("a handshake")).await, Some(3500));
}

async fn code(client: &mut TestClient) -> Option<u16> {
    client.closed().await.map(|(code, _)| code)
}

/// Checks that its connection is still open.
async fn is_there(client: &mut TestClient) {
    assert_eq!(client.call(json!({"type": "ping"})).await["type"], "pong");
}

async fn disconnect(node: &TestNode, user: &str, query: &str) -> Value {
    let mut backend = Backend::connect(node.address).await;
    let path = format!("/users/{user}/connections{query}");
    backend.ok("DELETE", &path, Value::Null).await
}

const FORBID: &str = "?forbid_return=true";

/// A token that was issued after everything that was revoked until now, by any clock; once it is
/// good.
async fn newer_token(issuer: &Issuer, node: &TestNode, user: &str) -> String {
    let issued = Now::read().unix_ms + 6_000;
    let token = issuer.signed_at(issued, user, HOUR, [&["*"]; 4]);
    // Until then the node refuses it as issued in the future.
    let mut answer = Value::Null;
    within("the newer token is good", async {
        while answer["type"] != "ok" {
            runtime::sleep(GLANCE).await;
            answer = node.client().await.sign_in(&token).await;
        }
    })
    .await;
    token
}

#[test]
fn a_user_is_disconnected_on_every_node_and_may_return() {
    run(async {
        let (issuer, redis) = (Issuer::new(), RedisServer::start());
        let nodes = [start(&issuer, &redis).await, start(&issuer, &redis).await];
        let (ada, bob) = (issuer.token("ada", &["*"]), issuer.token("bob", &["*"]));
        let mut hers = Vec::new();
        for node in &nodes {
            hers.push(signed_in(node, &ada).await);
        }
        let mut his = signed_in(&nodes[1], &bob).await;
        let answer = disconnect(&nodes[0], "ada", "").await;
        assert_eq!(answer, json!({"user": "ada"}));
        for client in &mut hers {
            assert_eq!(code(client).await, Some(3007));
        }
        is_there(&mut his).await;
        for node in &nodes {
            signed_in(node, &ada).await.join("lobby").await;
        }
    });
}

#[test]
fn revoked_user_is_refused_by_all_nodes_also_new_ones_and_after_a_cut() {
    run(async {
        let (issuer, mut redis) = (Issuer::new(), RedisServer::start());
        let nodes = [start(&issuer, &redis).await, start(&issuer, &redis).await];
        let (ada, bob) = (issuer.token("ada", &["*"]), issuer.token("bob", &["*"]));
        let mut hers = [
            signed_in(&nodes[0], &ada).await,
            signed_in(&nodes[1], &ada).await,
        ];
        let mut his = signed_in(&nodes[1], &bob).await;
        disconnect(&nodes[0], "ada", FORBID).await;
        for client in &mut hers {
            assert_eq!(code(client).await, Some(3500));
        }
        is_there(&mut his).await;
        for node in &nodes {
            is_refused(node, &ada).await;
        }
        let later = start(&issuer, &redis).await;
        is_refused(&later, &ada).await;
        let newer = newer_token(&issuer, &later, "ada").await;
        for node in [&nodes[0], &nodes[1], &later] {
            signed_in(node, &newer).await.join("lobby").await;
            signed_in(node, &bob).await;
        }
        // Redis is killed and comes back empty: the running nodes write the revocations for new
        // ones.
        redis.restart();
        for node in [&nodes[0], &nodes[1], &later] {
            is_ready(node).await;
            is_refused(node, &ada).await;
        }
        redis.until(&["ZCARD", SET], 1i64);
        let last = start(&issuer, &redis).await;
        is_refused(&last, &ada).await;
        signed_in(&last, &newer).await;
    });
}

#[test]
fn revocations_survive_an_emptied_redis_while_a_node_lives() {
    run(async {
        let (issuer, redis) = (Issuer::new(), RedisServer::start());
        let node = start(&issuer, &redis).await;
        let users = ["ada", "bob", "cy"];
        let tokens = users.map(|user| issuer.token(user, &["*"]));
        for user in users {
            disconnect(&node, user, FORBID).await;
        }
        let _: String = redis.query(&["FLUSHALL"]);
        // At once, before any node can have detected it.
        let other = start(&issuer, &redis).await;
        for node in [&node, &other] {
            for token in &tokens {
                is_refused(node, token).await;
            }
        }
        redis.until(&["ZCARD", SET], 3i64);
        disconnect(&other, "dot", FORBID).await;
        redis.until(&["ZCARD", SET], 4i64);
        signed_in(&other, &issuer.token("eve", &["*"])).await;
    });
}

#[test]
fn revocations_survive_a_redis_restart_that_keeps_its_data() {
    run(async {
        let options = Options::default().arg("--appendonly yes --appendfsync always");
        let (issuer, mut redis) = (Issuer::new(), RedisServer::with(options));
        let node = start(&issuer, &redis).await;
        let ada = issuer.token("ada", &["*"]);
        disconnect(&node, "ada", FORBID).await;
        // A node lives.
        redis.restart();
        let other = start(&issuer, &redis).await;
        is_ready(&node).await;
        for node in [&node, &other] {
            is_refused(node, &ada).await;
        }
        // None does.
        node.drain().await;
        other.drain().await;
        redis.restart();
        let last = start(&issuer, &redis).await;
        is_refused(&last, &ada).await;
        signed_in(&last, &issuer.token("bob", &["*"])).await;
    });
}

#[test]
fn deleted_set_is_written_again_when_the_subscription_is_restored() {
    run(async {
        let (issuer, redis) = (Issuer::new(), RedisServer::start());
        let node = start(&issuer, &redis).await;
        disconnect(&node, "ada", FORBID).await;
        let _: i64 = redis.query(&["DEL", SET]);
        let _: i64 = redis.query(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        redis.until(&["ZCARD", SET], 1i64);
        // A revocation that another node wrote while this one was cut off is applied.
        let bob = issuer.token("bob", &["*"]);
        let mut client = signed_in(&node, &bob).await;
        let through = (Now::read().unix_ms + 5_000).to_string();
        let _: i64 = redis.query(&["ZADD", SET, &through, "bob"]);
        let _: i64 = redis.query(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert_eq!(code(&mut client).await, Some(3500));
        is_refused(&node, &bob).await;
    });
}

/// A node with the broker in memory that wants tokens and has an API.
async fn alone(issuer: &Issuer) -> TestNode {
    TestNode::with(|config| {
        issuer.secures(config);
        config.api_key_file = Some(keys());
    })
    .await
}

#[test]
fn token_that_may_be_newer_is_refused_with_a_retryable_code() {
    run(async {
        let (issuer, redis) = (Issuer::new(), RedisServer::start());
        for node in [alone(&issuer).await, start(&issuer, &redis).await] {
            // The issuer's clock is ahead by some seconds.
            let ahead = Now::read().unix_ms + 4_000;
            let ahead = issuer.signed_at(ahead, "ada", HOUR, [&["*"]; 4]);
            let old = issuer.token("ada", &["*"]);
            let mut clients = [signed_in(&node, &ahead).await, signed_in(&node, &old).await];
            disconnect(&node, "ada", FORBID).await;
            assert_eq!(code(&mut clients[0]).await, Some(3008));
            assert_eq!(code(&mut clients[1]).await, Some(3500));
            let mut client = node.client().await;
            let refused = client.sign_in(&ahead).await;
            assert_eq!(refused["code"], "expired", "{refused}");
            assert_eq!(code(&mut client).await, Some(3008));
            is_refused(&node, &old).await;
            newer_token(&issuer, &node, "ada").await;
        }
    });
}

#[test]
fn revocation_by_the_issuers_clock_spares_the_new_token() {
    run(async {
        let (issuer, redis) = (Issuer::new(), RedisServer::start());
        for node in [alone(&issuer).await, start(&issuer, &redis).await] {
            for behind in [0, 3_000, -3_000] {
                let user = format!("ada{behind}");
                let time = (Now::read().unix_ms.saturating_add_signed(behind)) / 1000;
                let token =
                    |seconds: u64| issuer.signed_at(seconds * 1000, &user, HOUR, [&["*"]; 4]);
                let (old, new) = (token(time - 1), token(time));
                let (mut others, mut own) =
                    (signed_in(&node, &old).await, signed_in(&node, &new).await);
                let query = format!("{FORBID}&issued_before={time}");
                disconnect(&node, &user, &query).await;
                assert_eq!(code(&mut others).await, Some(3500));
                is_there(&mut own).await;
                is_refused(&node, &old).await;
                signed_in(&node, &new).await;
            }
            let mut backend = Backend::connect(node.address).await;
            let now = Now::read().unix_ms;
            for time in [(now / 1000 + 600).to_string(), now.to_string(), "x".into()] {
                let path = format!("/users/ada/connections{FORBID}&issued_before={time}");
                let refused = backend.call("DELETE", &path, Value::Null).await;
                assert_eq!(refused.status, 400, "{refused:?}");
            }
        }
    });
}

#[test]
fn call_is_answered_in_time_after_a_node_was_killed() {
    run(async {
        let (issuer, redis) = (Issuer::new(), RedisServer::start());
        let (secret, file, url) = (issuer.path(), key_file(), redis.url());
        let keys = file.path().to_str().expect("UTF-8");
        let arguments = [
            "--token-secret-file",
            &secret,
            "--redis",
            &url,
            "--api-key-file",
            keys,
        ];
        let dying = NodeProcess::start(&arguments).await;
        ready(dying.address).await;
        let node = start(&issuer, &redis).await;
        let mut client = signed_in(&node, &issuer.token("ada", &["*"])).await;
        dying.kill();
        disconnect(&node, "ada", FORBID).await;
        assert_eq!(code(&mut client).await, Some(3500));
    });
}

#[test]
fn node_without_redis_refuses_revocations_and_unverifiable_clients() {
    run(async {
        let (issuer, mut redis) = (Issuer::new(), RedisServer::start());
        let node = start(&issuer, &redis).await;
        let ada = issuer.token("ada", &["*"]);
        let mut client = signed_in(&node, &ada).await;
        redis.kill();
        answers(node.address, 503).await;
        let path = format!("/users/ada/connections{FORBID}");
        let mut backend = Backend::connect(node.address).await;
        let refused = backend.call("DELETE", &path, Value::Null).await;
        assert_eq!(refused.status, 503, "{refused:?}");
        is_there(&mut client).await;
        let blind = unready(&issuer, &redis);
        assert_ne!(blind.server().readiness().state(), ReadinessState::Ready);
        assert!(TestClient::try_connect(blind.address).await.is_err());
        redis.run();
        is_ready(&blind).await;
        signed_in(&blind, &ada).await;
    });
}

#[test]
fn backend_adds_and_removes_a_user_of_a_room_on_every_node() {
    run(async {
        let (issuer, redis) = (Issuer::new(), RedisServer::start());
        let nodes = [start(&issuer, &redis).await, start(&issuer, &redis).await];
        let ada = issuer.token("ada", &[]);
        let mut hers = [
            signed_in(&nodes[0], &ada).await,
            signed_in(&nodes[1], &ada).await,
        ];
        let mut his = signed_in(&nodes[1], &issuer.token("bob", &["*"])).await;
        his.join("lobby").await;
        assert_eq!(his.publish("lobby", json!("before")).await, 1);
        let mut backend = Backend::connect(nodes[0].address).await;
        let answer = backend.ok("PUT", "/users/ada/rooms/lobby", json!({})).await;
        assert_eq!(answer, json!({"user": "ada", "room": "lobby"}));
        for client in &mut hers {
            let joined = client.push("ok").await;
            assert_eq!(
                (&joined["room"], &joined["offset"]),
                (&json!("lobby"), &json!(1))
            );
        }
        his.publish("lobby", json!("hello")).await;
        for client in &mut hers {
            assert_eq!(client.message("lobby").await["offset"], 2);
        }
        let path = "/users/ada/rooms/lobby";
        backend.ok("DELETE", path, Value::Null).await;
        for client in &mut hers {
            assert_eq!(client.push("removed").await["room"], "lobby");
        }
        his.publish("lobby", json!("after")).await;
        for client in &mut hers {
            is_there(client).await;
            assert!(client.received().all(|answer| answer["type"] != "message"));
        }
        for answer in ["before", "hello", "after"] {
            assert_eq!(his.message("lobby").await["data"], answer);
        }
    });
}

#[test]
fn control_messages_between_nodes_are_private() {
    run(async {
        let (issuer, redis) = (Issuer::new(), RedisServer::start());
        let node = start(&issuer, &redis).await;
        let all = ["*", "$*", "$control", "$control*", "@*"];
        let mut client = signed_in(&node, &issuer.token("eve", &all)).await;
        let mut backend = Backend::connect(node.address).await;
        for room in ["$control", "$control.revoked"] {
            for command in [
                json!({"type": "join", "room": room}),
                json!({"type": "publish", "room": room, "data": {"do": "revoke", "user": "ada"}}),
                json!({"type": "publish", "room": room, "data": 1, "ephemeral": true}),
                json!({"type": "history", "room": room}),
                json!({"type": "members", "room": room}),
            ] {
                let answer = client.call(command).await;
                assert_eq!(answer["code"], "forbidden", "{answer}");
            }
            let messages = format!("/rooms/{room}/messages");
            let joins = format!("/users/eve/rooms/{room}");
            for (method, path) in [("GET", &messages), ("POST", &messages), ("PUT", &joins)] {
                let body = match method {
                    "POST" => json!({"data": 1}),
                    _ => json!({}),
                };
                let answer = backend.call(method, path, body).await;
                assert_eq!(answer.status, 403, "{answer:?}");
            }
        }
        let mut stranger = Backend::without_key(node.address).await;
        let path = "/users/eve/connections";
        let answer = stranger.call("DELETE", path, Value::Null).await;
        assert_eq!(answer.status, 401, "{answer:?}");
        is_there(&mut client).await;
    });
}

#[test]
fn open_node_disconnects_users_and_refuses_revocations() {
    run(async {
        let node = TestNode::start().await;
        let mut client = node.client().await;
        client.auth("ada").await;
        let mut backend = Backend::without_key(node.address).await;
        let path = format!("/users/ada/connections{FORBID}");
        let refused = backend.call("DELETE", &path, Value::Null).await;
        assert_eq!(refused.status, 403, "{refused:?}");
        is_there(&mut client).await;
        backend
            .ok(
                "DELETE",
                "/users/ada/connections?forbid_return=false",
                Value::Null,
            )
            .await;
        assert_eq!(code(&mut client).await, Some(3007));
    });
}
