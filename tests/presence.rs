//! Presence: member lists are the same on every node, and members receive joins and leaves. Each
//! scenario runs on one node with the memory broker, and on two nodes that share a Redis.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::model::pattern::{Pattern, RoomSwitch};
use switchboard::runtime;

use crate::support::redis_server::RedisServer;
use crate::support::{Cluster, DEADLINE, TestClient, TestNode, run};

/// Two nodes, or one that is used as both.
struct TestNodes {
    nodes: Vec<TestNode>,
    _redis: Option<RedisServer>,
}

impl TestNodes {
    async fn client(&self, node: usize, user: &str) -> TestClient {
        let mut client = self.nodes[node % self.nodes.len()].client().await;
        client.auth(user).await;
        client
    }

    /// A client that has joined the room and is in its member list.
    async fn member(&self, node: usize, user: &str, room: &str) -> TestClient {
        let mut client = self.client(node, user).await;
        client.join(room).await;
        listed(&mut client, room, |page| names(page).contains(&user.into())).await;
        client
    }
}

/// Runs a scenario on one node and on two.
fn on_one_and_two_nodes(change: fn(&mut Config), scenario: impl AsyncFn(TestNodes)) {
    run(async {
        let nodes = vec![TestNode::with(change).await];
        let _redis = None;
        scenario(TestNodes { nodes, _redis }).await;

        let redis = RedisServer::start();
        let url = redis.url();
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let with_redis = |config: &mut Config| {
                change(config);
                config.redis = vec![url.parse().expect("an address")];
            };
            nodes.push(TestNode::with(with_redis).await);
        }
        let _redis = Some(redis);
        scenario(TestNodes { nodes, _redis }).await;
    });
}

fn short_grace(config: &mut Config) {
    config.presence_grace = Duration::from_millis(500);
}

/// Queries a page of the list until it fits, and returns it.
async fn listed(client: &mut TestClient, room: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let page = client.call(json!({"type": "members", "room": room})).await;
        if fits(&page) {
            return page;
        }
        assert!(started.elapsed() < DEADLINE, "{page}");
        runtime::sleep(Duration::from_millis(20)).await;
    }
}

fn names(page: &Value) -> Vec<String> {
    let members = page["members"].as_array();
    let members = members.unwrap_or_else(|| panic!("no page: {page}"));
    let name = |member: &Value| member["user"].as_str().expect("a name").to_owned();
    members.iter().map(name).collect()
}

/// The joins and leaves that the client received and no test took, as `+ada` and `-ada`.
fn comings(client: &TestClient) -> Vec<String> {
    let coming = |message: &Value| {
        let user = message["user"].as_str().unwrap_or_default();
        match message["type"].as_str() {
            Some("joined") => Some(format!("+{user}")),
            Some("left") => Some(format!("-{user}")),
            _ => None,
        }
    };
    client.received().filter_map(coming).collect()
}

#[test]
fn members_receive_joins_and_leaves_and_every_node_lists_the_same() {
    on_one_and_two_nodes(short_grace, async |nodes| {
        let mut ada = nodes.member(0, "ada", "lobby").await;
        assert_eq!(
            ada.push("joined").await["user"],
            "ada",
            "a member receives its own join"
        );
        let mut bob = nodes.client(1, "bob").await;
        let info = json!({"type": "auth", "user": "bob", "info": {"name": "Bob"}});
        bob.call(info).await;
        bob.join("lobby").await;
        let joined = ada.push("joined").await;
        assert_eq!(
            (&joined["user"], &joined["info"]["name"], &joined["room"]),
            (&json!("bob"), &json!("Bob"), &json!("lobby"))
        );
        let mut pages = Vec::new();
        for client in [&mut ada, &mut bob] {
            let mut page = listed(client, "lobby", |page| page["count"] == 2).await;
            page["id"] = Value::Null;
            pages.push(page);
        }
        assert_eq!(pages[0], pages[1]);
        let expected = json!([
            {"user": "ada", "connections": 1},
            {"user": "bob", "connections": 1, "info": {"name": "Bob"}}
        ]);
        assert_eq!(pages[0]["members"], expected);
        assert_eq!(pages[0]["version"], joined["version"]);
        bob.call(json!({"type": "leave", "room": "lobby"})).await;
        let left = ada.push("left").await;
        assert_eq!(left["user"], "bob");
        assert!(left["version"].as_u64() > joined["version"].as_u64());
        // In open mode a client that is no member may query the list.
        let page = bob.call(json!({"type": "members", "room": "lobby"})).await;
        assert_eq!(names(&page), ["ada"]);
    });
}

#[test]
fn reload_and_change_of_node_within_the_grace_send_no_events() {
    let long_grace = |config: &mut Config| config.presence_grace = Duration::from_secs(3);
    on_one_and_two_nodes(long_grace, async |nodes| {
        let mut ada = nodes.member(0, "ada", "lobby").await;
        let mut bob = nodes.member(1, "bob", "lobby").await;
        ada.push("joined").await;
        ada.push("joined").await;
        for node in [1, 0, 1] {
            drop(bob);
            bob = nodes.member(node, "bob", "lobby").await;
        }
        drop(bob);
        assert_eq!(ada.push("left").await["user"], "bob", "once, and now truly");
        assert_eq!(comings(&ada), [""; 0]);
        listed(&mut ada, "lobby", |page| page["count"] == 1).await;
    });
}

#[test]
fn user_with_two_devices_is_one_member() {
    on_one_and_two_nodes(short_grace, async |nodes| {
        let mut ada = nodes.member(0, "ada", "lobby").await;
        let bob = nodes.member(0, "bob", "lobby").await;
        let mut phone = nodes.member(1, "bob", "lobby").await;
        let both = |page: &Value| page["members"][1]["connections"] == 2;
        listed(&mut phone, "lobby", both).await;
        listed(&mut ada, "lobby", both).await;
        drop(bob);
        let one = |page: &Value| page["members"][1]["connections"] == 1;
        listed(&mut ada, "lobby", one).await;
        assert_eq!(comings(&ada), ["+ada", "+bob"]);
        drop(phone);
        assert_eq!(ada.push("left").await["user"], "bob");
    });
}

#[test]
fn anonymous_connections_are_counted_and_listed_once_named() {
    on_one_and_two_nodes(short_grace, async |nodes| {
        let mut ada = nodes.member(0, "ada", "lobby").await;
        let mut anonymous_clients = Vec::new();
        for node in 0..3 {
            let node = &nodes.nodes[node % nodes.nodes.len()];
            let mut anonymous = node.client().await;
            anonymous.join("lobby").await;
            anonymous_clients.push(anonymous);
        }
        let page = listed(&mut ada, "lobby", |page| page["anonymous"] == 3).await;
        assert_eq!(page["count"], 1);
        anonymous_clients[0].auth("bob").await;
        let page = listed(&mut ada, "lobby", |page| page["anonymous"] == 2).await;
        assert_eq!(names(&page), ["ada", "bob"]);
        drop(anonymous_clients);
        listed(&mut ada, "lobby", |page| {
            page["anonymous"] == 0 && page["count"] == 1
        })
        .await;
        assert_eq!(comings(&ada), ["+ada", "+bob", "-bob"]);
    });
}

#[test]
fn a_long_list_comes_in_pages_that_are_the_same_on_every_node() {
    on_one_and_two_nodes(short_grace, async |nodes| {
        const COUNT: usize = 250;
        let mut here = Vec::new();
        for n in 0..COUNT {
            let mut client = nodes.client(n, &format!("user-{n:03}")).await;
            client.ask(json!({"type": "join", "room": "lobby"})).await;
            here.push(client);
        }
        for client in [0, 1] {
            let client = &mut here[client];
            listed(client, "lobby", |page| page["count"] == COUNT).await;
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let mut command = json!({"type": "members", "room": "lobby", "limit": 100});
                if let Some(after) = &after {
                    command["after"] = json!(after);
                }
                let page = client.call(command).await;
                assert_eq!(page["count"], COUNT);
                all.extend(names(&page));
                after = all.last().cloned();
                if page["more"] == false {
                    break;
                }
            }
            let expected: Vec<String> = (0..COUNT).map(|n| format!("user-{n:03}")).collect();
            assert_eq!(all, expected);
            let most = client
                .call(json!({"type": "members", "room": "lobby", "limit": 1001}))
                .await;
            assert_eq!(most["code"], "bad_request");
        }
    });
}

#[test]
fn list_is_answered_where_events_are_off() {
    let off = |config: &mut Config| {
        short_grace(config);
        let rooms = Pattern::new("big.*").expect("a pattern");
        config.presence_events = vec![RoomSwitch { rooms, on: false }];
    };
    on_one_and_two_nodes(off, async |nodes| {
        let mut ada = nodes.member(0, "ada", "big.room").await;
        let bob = nodes.member(1, "bob", "big.room").await;
        let page = listed(&mut ada, "big.room", |page| page["count"] == 2).await;
        assert_eq!(names(&page), ["ada", "bob"]);
        drop(bob);
        listed(&mut ada, "big.room", |page| page["count"] == 1).await;
        ada.expect_silence().await;
    });
}

#[test]
fn changes_during_a_redis_outage_are_sent_as_a_difference() {
    run(async {
        let mut redis = RedisServer::start();
        let url = redis.url();
        let with_redis = |config: &mut Config| {
            config.redis = vec![url.parse().expect("an address")];
            config.presence_grace = Duration::ZERO;
        };
        let nodes = vec![
            TestNode::with(with_redis).await,
            TestNode::with(with_redis).await,
        ];
        let nodes = TestNodes {
            nodes,
            _redis: None,
        };
        let mut ada = nodes.member(0, "ada", "lobby").await;
        let bob = nodes.member(1, "bob", "lobby").await;
        let cy = nodes.member(1, "cy", "lobby").await;
        let mut dot = nodes.client(1, "dot").await;
        listed(&mut ada, "lobby", |page| page["count"] == 3).await;
        assert_eq!(comings(&ada), ["+ada", "+bob", "+cy"]);
        redis.kill();
        drop(bob);
        // The node already follows the room, so a join needs no Redis.
        dot.join("lobby").await;
        drop(cy);
        // The last known list is still returned, and no member has left.
        let page = ada.call(json!({"type": "members", "room": "lobby"})).await;
        assert_eq!(names(&page), ["ada", "bob", "cy"]);
        redis.run();
        // Redis comes back empty, and the nodes write their members again.
        let changed = |page: &Value| page["members"].is_array() && names(page) == ["ada", "dot"];
        listed(&mut ada, "lobby", changed).await;
        listed(&mut dot, "lobby", changed).await;
    });
}

#[test]
fn members_of_a_killed_node_leave_once() {
    run(async {
        let mut cluster = Cluster::start().await;
        let mut ada = cluster.nodes[0].client().await;
        ada.auth("ada").await;
        ada.join("lobby").await;
        let mut gone = Vec::new();
        for user in ["bob", "cy"] {
            let mut client = cluster.nodes[1].client().await;
            client.auth(user).await;
            client.join("lobby").await;
            gone.push(client);
        }
        listed(&mut ada, "lobby", |page| page["count"] == 3).await;
        cluster.nodes[1].kill();
        cluster.nodes[1].exit().await;
        let mut left = Vec::new();
        for _ in 0..2 {
            left.push(ada.push("left").await["user"].clone());
        }
        left.sort_by_key(Value::to_string);
        assert_eq!(left, ["bob", "cy"]);
        listed(&mut ada, "lobby", |page| page["count"] == 1).await;
        assert_eq!(comings(&ada), ["+ada", "+bob", "+cy"]);
    });
}

#[test]
fn client_of_a_draining_node_that_reconnects_in_time_has_not_left() {
    run(async {
        let redis = RedisServer::start();
        let url = redis.url();
        let with_redis = |config: &mut Config| {
            config.redis = vec![url.parse().expect("an address")];
            config.drain_time = Duration::from_secs(2);
            config.presence_grace = Duration::from_secs(2);
        };
        let mut nodes = vec![
            TestNode::with(with_redis).await,
            TestNode::with(with_redis).await,
        ];
        let leaving = nodes.pop().expect("two");
        let mut ada = nodes[0].client().await;
        ada.auth("ada").await;
        ada.join("lobby").await;
        let mut clients = Vec::new();
        for user in ["bob", "cy"] {
            let mut client = leaving.client().await;
            client.auth(user).await;
            client.join("lobby").await;
            clients.push(client);
        }
        listed(&mut ada, "lobby", |page| page["count"] == 3).await;
        leaving.drain().await;
        drop(clients);
        let mut bob = nodes[0].client().await;
        bob.auth("bob").await;
        bob.join("lobby").await;
        assert_eq!(ada.push("left").await["user"], "cy");
        listed(&mut ada, "lobby", |page| page["count"] == 2).await;
        assert_eq!(comings(&ada), ["+ada", "+bob", "+cy"]);
    });
}
