//! Cluster queries of the API: members, counts, rooms and connections. Every node returns the same,
//! also when another node has just been killed or Redis has lost its data. Each scenario without a
//! fault runs on one node with the memory broker, and on two nodes that share a Redis.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::runtime;

use crate::support::redis_server::RedisServer;
use crate::support::{Backend, Cluster, DEADLINE, TestClient, TestNode, run};

/// Two nodes, or one that is used as both, with a backend for each.
struct TestNodes {
    nodes: Vec<TestNode>,
    /// One per node.
    backends: Vec<Backend>,
}

impl TestNodes {
    async fn of(nodes: Vec<TestNode>) -> Self {
        let mut backends = Vec::new();
        for node in &nodes {
            backends.push(Backend::without_key(node.address).await);
        }
        Self { nodes, backends }
    }

    async fn on(redis: &RedisServer) -> Self {
        let mut nodes = Vec::new();
        for label in ["a", "b"] {
            let url = redis.url().parse().expect("an address");
            let with_redis = |config: &mut Config| {
                config.redis = vec![url];
                config.node = label.into();
                quiet(config);
            };
            nodes.push(TestNode::with(with_redis).await);
        }
        Self::of(nodes).await
    }

    async fn client(&self, node: usize, user: &str) -> TestClient {
        let mut client = self.nodes[node % self.nodes.len()].client().await;
        if !user.is_empty() {
            let info = json!({"name": user.to_uppercase()});
            let auth = json!({"type": "auth", "user": user, "info": info});
            assert_eq!(client.call(auth).await["type"], "ok");
        }
        client
    }

    /// Waits until all nodes return the same answer and it fits; returns it.
    async fn agree(&mut self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        agreed(&mut self.backends, &mut [], path, fits).await
    }
}

/// No grace period.
fn quiet(config: &mut Config) {
    config.presence_grace = Duration::ZERO;
}

/// Waits until all backends receive the same answer and it fits; returns it. Meanwhile the clients
/// in `listening` are read, so that they answer pings.
async fn agreed(
    backends: &mut [Backend],
    listening: &mut [TestClient],
    path: &str,
    fits: impl Fn(&Value) -> bool,
) -> Value {
    let started = Instant::now();
    loop {
        for client in &mut *listening {
            client.call(json!({"type": "ping"})).await;
        }
        let mut answers = Vec::new();
        for backend in &mut *backends {
            answers.push(backend.ok("GET", path, Value::Null).await);
        }
        if answers
            .iter()
            .all(|answer| *answer == answers[0] && fits(answer))
        {
            return answers.swap_remove(0);
        }
        assert!(started.elapsed() < DEADLINE, "{answers:?}");
        runtime::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a scenario on one node and on two, without a grace period.
fn on_one_and_two_nodes(scenario: impl AsyncFn(TestNodes)) {
    run(async {
        let alone = |config: &mut Config| {
            config.node = "a".into();
            quiet(config);
        };
        scenario(TestNodes::of(vec![TestNode::with(alone).await]).await).await;
        let redis = RedisServer::start();
        scenario(TestNodes::on(&redis).await).await;
    });
}

#[test]
fn every_node_returns_the_members_of_a_room_and_their_count() {
    on_one_and_two_nodes(async |mut nodes| {
        let none = nodes.agree("/rooms/lobby", |_| true).await;
        let empty = json!({"room": "lobby", "connections": 0, "users": 0, "anonymous": 0});
        assert_eq!(none, empty);
        let mut ada = nodes.client(0, "ada").await;
        ada.join("lobby").await;
        let mut phone = nodes.client(1, "ada").await;
        phone.join("lobby").await;
        let mut bob = nodes.client(1, "bob").await;
        let joined = bob.join("lobby").await;
        let mut anonymous = nodes.client(0, "").await;
        anonymous.join("lobby").await;
        bob.publish("lobby", json!("hello")).await;

        let four = |page: &Value| page["connections"] == 4;
        let count = nodes.agree("/rooms/lobby", four).await;
        let wanted = json!({
            "room": "lobby", "connections": 4, "users": 2, "anonymous": 1,
            "epoch": joined["epoch"], "offset": 1
        });
        assert_eq!(count, wanted);
        let page = nodes.agree("/rooms/lobby/members", |_| true).await;
        let mut listed = ada.call(json!({"type": "members", "room": "lobby"})).await;
        for field in ["type", "id"] {
            listed.as_object_mut().expect("an object").remove(field);
        }
        assert_eq!(page, listed, "the same page that clients receive");
        let members = json!([
            {"user": "ada", "connections": 2, "info": {"name": "ADA"}},
            {"user": "bob", "connections": 1, "info": {"name": "BOB"}},
        ]);
        assert_eq!((&page["members"], &page["more"]), (&members, &json!(false)));
        assert!(page["version"].as_u64() > Some(0));
        let first = nodes.agree("/rooms/lobby/members?limit=1", |_| true).await;
        assert_eq!(
            (
                &first["members"][0]["user"],
                &first["more"],
                &first["count"]
            ),
            (&json!("ada"), &json!(true), &json!(2))
        );
        let next = nodes
            .agree("/rooms/lobby/members?limit=1&after=ada", |_| true)
            .await;
        assert_eq!(
            (&next["members"][0]["user"], &next["more"], &next["version"]),
            (&json!("bob"), &json!(false), &first["version"])
        );
        drop((phone, anonymous));
        nodes
            .agree("/rooms/lobby", |page| page["connections"] == 2)
            .await;
    });
}

#[test]
fn every_node_lists_rooms_in_pages_and_personal_rooms_on_request() {
    on_one_and_two_nodes(async |mut nodes| {
        let mut ada = nodes.client(0, "ada").await;
        let mut bob = nodes.client(1, "bob").await;
        let mut wanted = Vec::new();
        for number in 0..30 {
            let room = format!("chat.{number:02}");
            for client in [&mut ada, &mut bob] {
                client.join(&room).await;
            }
            wanted.push(room);
        }
        bob.join("lobby").await;
        let all = |page: &Value| names(page).len() == 31;
        let page = nodes.agree("/rooms", all).await;
        assert_eq!(page["more"], false);
        let lobby = json!({"room": "lobby", "connections": 1, "users": 1, "anonymous": 0});
        assert_eq!(page["rooms"][30], lobby);
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/rooms?prefix=chat.&limit=7{after}");
            let page = nodes.agree(&path, |_| true).await;
            seen.extend(names(&page));
            after = format!("&after={}", seen.last().expect("no page is empty"));
            if page["more"] == false {
                break;
            }
        }
        assert_eq!(seen, wanted);
        let users = nodes
            .agree("/rooms?prefix=@", |page| names(page).len() == 2)
            .await;
        assert_eq!(names(&users), ["@ada", "@bob"]);
        drop(ada);
        nodes
            .agree("/rooms?prefix=@", |page| names(page) == ["@bob"])
            .await;
        for room in &wanted {
            bob.call(json!({"type": "leave", "room": room})).await;
        }
        nodes.agree("/rooms", |page| names(page) == ["lobby"]).await;
    });
}

fn names(page: &Value) -> Vec<String> {
    let rooms = page["rooms"].as_array();
    let rooms = rooms.unwrap_or_else(|| panic!("no page: {page}"));
    let name = |room: &Value| room["room"].as_str().expect("a name").to_owned();
    rooms.iter().map(name).collect()
}

#[test]
fn every_node_lists_the_connections_of_a_user() {
    on_one_and_two_nodes(async |mut nodes| {
        let path = "/users/ada/connections";
        let none = nodes.agree(path, |_| true).await;
        let nothing = json!({"user": "ada", "connections": [], "count": 0, "more": false});
        assert_eq!(none, nothing);
        let ada = nodes.client(0, "ada").await;
        let mut phone = nodes.client(1, "ada").await;
        let _bob = nodes.client(1, "bob").await;
        let _anonymous = nodes.client(0, "").await;
        let listed = |client: &TestClient| {
            let (session, node) = (&client.welcome["session"], &client.welcome["node"]);
            json!({"session": session, "node": node, "info": {"name": "ADA"}})
        };
        let mut both = [listed(&ada), listed(&phone)];
        both.sort_by_key(|it| it["session"].to_string());
        let page = nodes.agree(path, |page| page["count"] == 2).await;
        assert_eq!(page["connections"], json!(both));
        let first = nodes.agree(&format!("{path}?limit=1"), |_| true).await;
        assert_eq!(
            (&first["connections"], &first["more"], &first["count"]),
            (&json!([both[0]]), &json!(true), &json!(2))
        );
        let session = both[0]["session"].as_str().expect("a name");
        let rest = nodes
            .agree(&format!("{path}?after={session}"), |_| true)
            .await;
        assert_eq!(
            (&rest["connections"], &rest["more"]),
            (&json!([both[1]]), &json!(false))
        );

        let auth = json!({"type": "auth", "user": "ada", "info": {"name": "Ada L"}});
        phone.call(auth).await;
        let is_new = |page: &Value| page["connections"].to_string().contains("Ada L");
        let page = nodes.agree(path, is_new).await;
        assert!(
            page["connections"].to_string().contains("ADA"),
            "only the one: {page}"
        );
        drop(ada);
        let page = nodes.agree(path, |page| page["count"] == 1).await;
        assert_eq!(page["connections"][0]["session"], phone.welcome["session"]);
        nodes.backends[0].ok("DELETE", path, Value::Null).await;
        nodes.agree(path, |page| page["count"] == 0).await;
    });
}

#[test]
fn invalid_and_forbidden_calls_are_refused_with_a_reason() {
    on_one_and_two_nodes(async |mut nodes| {
        for (path, status, code) in [
            ("/rooms?limit=0", 400, "bad_request"),
            ("/rooms?limit=1001", 400, "bad_request"),
            ("/rooms?prefix=a%20b", 400, "bad_request"),
            ("/rooms?page=2", 400, "bad_request"),
            ("/rooms?prefix=$", 403, "forbidden"),
            ("/rooms/$nodes", 403, "forbidden"),
            ("/rooms/$control/members", 403, "forbidden"),
            ("/rooms/a%7Bb", 400, "bad_request"),
            ("/rooms/lobby?limit=1", 400, "bad_request"),
            ("/rooms/lobby/members?after=%E2%80%AE", 400, "bad_request"),
            ("/users/%E2%80%AE/connections", 400, "bad_request"),
            ("/users/ada/connections?after=phone", 400, "bad_request"),
        ] {
            for backend in &mut nodes.backends {
                let answer = backend.call("GET", path, Value::Null).await;
                assert_eq!(answer.status, status, "{path}: {answer:?}");
                assert_eq!(answer.json()["code"], code, "{path}");
                assert!(
                    answer.json()["reason"]
                        .as_str()
                        .is_some_and(|it| it.len() > 20)
                );
            }
        }
    });
}

#[test]
fn killed_node_delays_no_answer_and_its_connections_end_with_its_lease() {
    run(async {
        let mut cluster = Cluster::start().await;
        let mut here = Vec::new();
        for node in &cluster.nodes {
            let mut client = node.client().await;
            client.auth("ada").await;
            client.join("lobby").await;
            here.push(client);
        }
        let mut eve = cluster.nodes[1].client().await;
        eve.auth("eve").await;
        eve.join("tea").await;
        here.push(eve);
        let mut backends = Vec::new();
        for node in &cluster.nodes {
            backends.push(Backend::connect(node.address).await);
        }
        let before = [
            ("/rooms/lobby", "connections"),
            ("/users/ada/connections", "count"),
        ];
        for (path, field) in before {
            agreed(&mut backends, &mut here, path, |page| page[field] == 2).await;
        }
        agreed(&mut backends, &mut here, "/rooms", |page| {
            names(page) == ["lobby", "tea"]
        })
        .await;

        cluster.nodes[1].kill();
        cluster.nodes[1].exit().await;
        let left = &mut backends[..1];
        let paths = [
            "/rooms/lobby",
            "/rooms/lobby/members",
            "/rooms",
            "/users/ada/connections",
        ];
        for path in paths {
            left[0].ok("GET", path, Value::Null).await;
        }
        for (path, field) in before {
            agreed(left, &mut here[..1], path, |page| page[field] == 1).await;
        }
        agreed(left, &mut here[..1], "/rooms", |page| {
            names(page) == ["lobby"]
        })
        .await;
        agreed(left, &mut here[..1], "/rooms?prefix=@", |page| {
            names(page) == ["@ada"]
        })
        .await;
        let page = agreed(left, &mut here[..1], "/users/ada/connections", |_| true).await;
        assert_eq!(
            page["connections"][0]["session"],
            here[0].welcome["session"]
        );
    });
}

#[test]
fn emptied_redis_is_filled_again_and_every_answer_is_complete() {
    run(async {
        let mut redis = RedisServer::start();
        let mut nodes = TestNodes::on(&redis).await;
        let mut here = Vec::new();
        for (node, user) in [(0, "ada"), (1, "ada"), (1, "bob"), (0, "")] {
            let mut client = nodes.client(node, user).await;
            client.join("lobby").await;
            here.push(client);
        }
        let checks = [
            ("/rooms/lobby", "connections", 4),
            ("/rooms/lobby/members", "count", 2),
            ("/users/ada/connections", "count", 2),
        ];
        for (path, field, wanted) in checks {
            nodes.agree(path, |page| page[field] == wanted).await;
        }
        redis.restart();
        let started = Instant::now();
        for (path, field, wanted) in checks {
            for backend in &mut nodes.backends {
                loop {
                    let answer = backend.call("GET", path, Value::Null).await;
                    assert!([200, 503].contains(&answer.status), "{answer:?}");
                    if answer.status == 200 {
                        assert_eq!(answer.json()[field], wanted, "{path}");
                        break;
                    }
                    assert!(started.elapsed() < DEADLINE, "{answer:?}");
                    runtime::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        nodes.agree("/rooms", |page| names(page) == ["lobby"]).await;
    });
}
