//! The HTTP API on running nodes: publishing and reading by HTTP, who is let in and where, what a caller is told when Redis is
//! away, and that nothing is lost while nodes are restarted. Paths, fields and codes are tabled beside the code, in `src/api`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::connection::{Counted, Entrance, serve};
use switchboard::dispatcher::Event;
use switchboard::id::RoomName;
use switchboard::protocol::Reply;
use switchboard::runtime::{self, Listener};

use crate::support::backend::{KEY, keys};
use crate::support::bare_node::node_of;
use crate::support::cluster::answers;
use crate::support::http::{get, status};
use crate::support::redis_server::RedisServer;
use crate::support::{Backend, Cluster, TestClient, TestNode, eventually, run};

/// Gives a node the key of the tests.
fn keyed(config: &mut Config) {
    config.api_key_file = Some(keys());
}

#[test]
fn what_a_backend_publishes_is_heard_and_is_found_in_the_history() {
    run(async {
        let node = TestNode::start().await;
        let mut ada = node.client().await;
        let joined = ada.join("lobby").await;
        let mut backend = Backend::without_key(node.address).await;
        let path = "/rooms/lobby/messages";

        let said = json!({"data": {"n": 1}, "user": "shop"});
        let published = backend.ok("POST", path, said).await;
        assert_eq!(
            published,
            json!({"room": "lobby", "epoch": joined["epoch"], "offset": 1})
        );
        let message = ada.message("lobby").await;
        assert_eq!(message["user"], "shop");
        assert_eq!(
            (&message["offset"], &message["data"]),
            (&json!(1), &json!({"n": 1}))
        );

        let typing = json!({"data": "typing", "ephemeral": true});
        let published = backend.ok("POST", path, typing).await;
        assert_eq!(published, json!({"room": "lobby"}));
        assert_eq!(ada.message("lobby").await["offset"], Value::Null);

        for _ in 0..2 {
            let published = backend
                .ok("PUT", "/rooms/lobby/messages/order%2d1", json!({"data": 2}))
                .await;
            assert_eq!(published["offset"], 2, "a retry answers the first position");
        }
        assert_eq!(ada.message("lobby").await["data"], 2);
        ada.expect_silence().await;

        let page = backend
            .ok("GET", &format!("{path}?limit=1&before=2"), Value::Null)
            .await;
        assert_eq!(page["epoch"], joined["epoch"]);
        assert_eq!(
            (&page["messages"][0]["data"], &page["more"]),
            (&json!({"n": 1}), &json!(false))
        );
        let page = backend.ok("GET", path, Value::Null).await;
        assert_eq!(page["messages"].as_array().unwrap().len(), 2);
    });
}

#[test]
fn a_client_of_the_same_key_does_not_take_a_backends_publication_away() {
    run(async {
        let node = TestNode::start().await;
        let mut eve = node.client().await;
        let early = json!({"type": "publish", "room": "lobby", "key": "order-1", "data": "mine"});
        assert_eq!(eve.call(early).await["offset"], 1);
        let mut backend = Backend::without_key(node.address).await;
        let published = backend
            .ok("PUT", "/rooms/lobby/messages/order-1", json!({"data": 1}))
            .await;
        assert_eq!(published["offset"], 2);
    });
}

#[test]
fn one_call_says_it_in_many_rooms_or_many_things_in_order() {
    run(async {
        let node = TestNode::with(|config| {
            config.max_rooms = 2;
            config.max_connections = 3;
        })
        .await;
        let (mut ada, mut bob) = (node.client().await, node.client().await);
        ada.join("a").await;
        bob.join("b").await;
        let mut backend = Backend::without_key(node.address).await;
        let many = json!({"rooms": ["a", "b"], "data": "hello"});
        let results = backend.ok("POST", "/messages", many).await;
        let rooms = ["a", "b"].map(|room| json!(room));
        for (place, room) in rooms.iter().enumerate() {
            assert_eq!(&results["results"][place]["room"], room);
            assert_eq!(results["results"][place]["offset"], 1);
        }
        assert_eq!(ada.message("a").await["data"], "hello");
        assert_eq!(bob.message("b").await["data"], "hello");

        let publishes: Vec<Value> = (0..100)
            .map(|n| json!({"room": rooms[n % 2], "data": n}))
            .collect();
        let results = backend
            .ok("POST", "/batch", json!({"publishes": publishes}))
            .await;
        for (n, result) in results["results"].as_array().unwrap().iter().enumerate() {
            assert_eq!(result["offset"], n / 2 + 2, "{n}");
        }
        for n in 0..50 {
            assert_eq!(ada.message("a").await["data"], 2 * n);
            assert_eq!(bob.message("b").await["data"], 2 * n + 1);
        }

        // The memory broker keeps five rooms: two that clients choose, and one for each connection.
        let rooms = ["c", "d", "e", "f"].map(|room| json!({"room": room, "data": 1}));
        let more = json!({"publishes": rooms});
        let answer = backend.call("POST", "/batch", more).await;
        assert_eq!(answer.status, 200, "one was carried out");
        let results = answer.json();
        assert_eq!(results["results"][0]["offset"], 1);
        assert_eq!(results["results"][3]["room"], "f");
        assert_eq!(results["results"][3]["code"], "full");
        let answer = backend
            .call("POST", "/rooms/f/messages", json!({"data": 1}))
            .await;
        assert_eq!(
            (answer.status, answer.json()["code"].clone()),
            (507, json!("full"))
        );
    });
}

#[test]
fn a_backend_leaves_a_clients_own_session_out_on_whichever_node_it_is() {
    run(async {
        let redis = RedisServer::start();
        let url = || redis.url().parse().unwrap();
        let a = TestNode::with(|config| config.redis = vec![url()]).await;
        let b = TestNode::with(|config| config.redis = vec![url()]).await;
        let (mut ada, mut bob) = (b.client().await, b.client().await);
        ada.join("lobby").await;
        bob.join("lobby").await;
        let mut backend = Backend::without_key(a.address).await;
        let said = json!({"data": "moved", "user": "ada", "others": ada.welcome["session"]});
        let published = backend.ok("POST", "/rooms/lobby/messages", said).await;
        assert_eq!(published["offset"], 1);
        let message = bob.message("lobby").await;
        assert_eq!(
            (&message["data"], &message["user"]),
            (&json!("moved"), &json!("ada"))
        );
        let own = ada.message("lobby").await;
        assert_eq!((&own["own"], &own["offset"]), (&json!(true), &json!(1)));
        assert_eq!(own["data"], Value::Null);
    });
}

#[test]
fn only_whoever_shows_a_key_is_served_where_there_are_keys() {
    run(async {
        let node = TestNode::with(keyed).await;
        let path = "/rooms/lobby/messages";
        let said = || json!({"data": 1});
        for (method, path) in [
            ("POST", path),
            ("GET", path),
            ("DELETE", path),
            ("GET", "/metrics"),
        ] {
            let mut stranger = Backend::without_key(node.address).await;
            let answer = stranger.call(method, path, said()).await;
            assert_eq!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.json()["code"], "unauthorized");
            let asks = answer.field("WWW-Authenticate").unwrap();
            assert_eq!(asks, "Bearer realm=\"switchboard\"");
            stranger.caller().expect_end().await;
        }
        let mut liar = Backend::connect(node.address).await;
        liar.fields = liar.fields.replace(KEY, &KEY.replace('a', "b"));
        let answer = liar.call("POST", path, said()).await;
        assert_eq!(answer.status, 401);
        assert!(
            answer
                .field("WWW-Authenticate")
                .unwrap()
                .contains("invalid_token")
        );

        let mut backend = Backend::connect(node.address).await;
        assert_eq!(backend.ok("POST", path, said()).await["offset"], 1);
        let answer = backend.call("DELETE", path, Value::Null).await;
        assert_eq!(
            (answer.status, answer.field("Allow")),
            (405, Some("POST, GET, HEAD"))
        );
        backend.fields += "Origin: https://shop.example\r\n";
        assert_eq!(backend.ok("POST", path, said()).await["offset"], 2);
        let answer = backend.call("GET", path, Value::Null).await;
        assert_eq!(answer.field("Access-Control-Allow-Origin"), None);
    });
}

#[test]
fn without_keys_a_page_in_a_browser_and_what_comes_through_nginx_are_refused() {
    run(async {
        let redis = RedisServer::start();
        let node = TestNode::with(|config| config.redis = vec![redis.url().parse().unwrap()]).await;
        let nginx = crate::support::nginx::Nginx::before(&[node.address]).await;
        let mut desk = Backend::without_key(node.address).await;
        desk.ok("POST", "/rooms/lobby/messages", json!({"data": 1}))
            .await;
        desk.fields += "Origin: https://evil.example\r\n";
        let answer = desk
            .call("POST", "/rooms/lobby/messages", json!({"data": 1}))
            .await;
        assert_eq!(answer.status, 403);
        let mut far = Backend::without_key(nginx.address).await;
        let answer = far
            .call("POST", "/rooms/lobby/messages", json!({"data": 1}))
            .await;
        assert_eq!(answer.status, 403, "{answer:?}");
    });
}

#[test]
fn with_a_listener_of_its_own_the_api_is_there_and_nowhere_else() {
    run(async {
        let node = TestNode::with(|config| {
            keyed(config);
            config.api_listen = Some("127.0.0.1:0".parse().unwrap());
        })
        .await;
        let apart = node.server().api_address().expect("it has its own");
        assert_ne!(apart, node.address);
        let path = "/rooms/lobby/messages";
        let mut public = Backend::connect(node.address).await;
        for (method, path) in [("POST", path), ("GET", path), ("GET", "/metrics")] {
            let answer = public.call(method, path, json!({"data": 1})).await;
            assert_eq!(answer.status, 404, "{method} {path}");
        }
        let mut backend = Backend::connect(apart).await;
        assert_eq!(
            backend.ok("POST", path, json!({"data": 1})).await["offset"],
            1
        );
        for (path, wanted) in [
            ("/metrics", 200),
            ("/healthz", 200),
            ("/readyz", 200),
            (path, 401),
        ] {
            assert_eq!(status(&get(apart, path).await), Some(wanted), "{path}");
        }
        for path in ["/", "/chat.js", "/ws", "/nowhere"] {
            assert_eq!(status(&get(apart, path).await), Some(404), "{path}");
        }
        assert!(TestClient::try_connect(apart).await.is_err(), "no clients");
        node.drain().await;
    });
}

#[test]
fn the_figures_of_the_node_are_shown_to_those_with_a_key() {
    run(async {
        let node = TestNode::with(keyed).await;
        let mut ada = node.client().await;
        ada.join("lobby").await;
        ada.publish("lobby", json!(1)).await;
        ada.message("lobby").await;
        let mut backend = Backend::connect(node.address).await;
        let answer = backend.call("GET", "/metrics", Value::Null).await;
        assert_eq!(
            answer.field("Content-Type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        let figure = |name: &str| {
            let line = answer
                .body
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name}: {}", answer.body))
        };
        for (name, wanted) in [
            ("switchboard_ready", "1"),
            ("switchboard_sessions_open", "1"),
            ("switchboard_rooms_open", "1"),
            ("switchboard_connections_open", "2"),
            ("switchboard_published_total", "1"),
            ("switchboard_delivered_total", "1"),
        ] {
            assert_eq!(figure(name), wanted, "{name}");
        }
        let memory: f64 = figure("process_resident_memory_bytes").parse().unwrap();
        assert!(memory > 1e6);
        assert_eq!(
            backend.call("POST", "/metrics", json!({})).await.status,
            405
        );
    });
}

#[test]
fn nginx_does_not_pass_the_figures_on() {
    run(async {
        let cluster = Cluster::start().await;
        let mut backend = Backend::connect(cluster.nodes[0].address).await;
        assert_eq!(
            backend.call("GET", "/metrics", Value::Null).await.status,
            200
        );
        let mut far = Backend::connect(cluster.nginx.address).await;
        for path in [
            "/metrics",
            "/metrics?a=b",
            "//metrics",
            "/%6detrics",
            "/a/../metrics",
        ] {
            let answer = far.call("GET", path, Value::Null).await;
            assert_eq!(answer.status, 404, "{path}: {answer:?}");
            assert!(!answer.body.contains("switchboard_"), "{path}");
        }
        let mut seen = cluster.nodes[0].log();
        seen.extend(cluster.nodes[1].log());
        assert!(
            !seen.iter().any(|line| line.contains(KEY)),
            "no key is logged"
        );
    });
}

#[test]
fn calls_share_a_connection_in_order_however_their_bytes_come() {
    run(async {
        let node = TestNode::start().await;
        let mut backend = Backend::without_key(node.address).await;
        let post = |backend: &Backend, n: u64| {
            backend.request("POST", "/rooms/lobby/messages", &json!({ "data": n }))
        };
        let health = backend.request("GET", "/healthz", &Value::Null);
        let all = [
            post(&backend, 1),
            health,
            post(&backend, 2),
            post(&backend, 3),
        ]
        .concat();
        backend.caller().send(&all).await;
        for offset in [json!(1), Value::Null, json!(2), json!(3)] {
            let answer = backend.caller().answer().await;
            assert_eq!(answer.status, 200);
            if !offset.is_null() {
                assert_eq!(answer.json()["offset"], offset);
            }
        }
        let bytes = post(&backend, 4);
        backend.caller().dribble(bytes.as_bytes()).await;
        assert_eq!(backend.caller().answer().await.json()["offset"], 4);
        // The head is answered before the body is sent, and the length of a HEAD is that of the GET.
        let waits =
            post(&backend, 5).replace("Content-Type", "Expect: 100-continue\r\nContent-Type");
        let (head, body) = waits.split_once("\r\n\r\n").unwrap();
        backend.caller().send(format!("{head}\r\n\r\n")).await;
        assert_eq!(backend.caller().head().await.status, 100);
        backend.caller().send(body).await;
        assert_eq!(backend.caller().answer().await.json()["offset"], 5);
        let length = backend
            .call("GET", "/rooms/lobby/messages", Value::Null)
            .await;
        let head = backend.request("HEAD", "/rooms/lobby/messages", &Value::Null);
        backend.caller().send(head).await;
        let head = backend.caller().head().await;
        assert_eq!(head.field("Content-Length"), length.field("Content-Length"));
        // Without a key, a body that would be refused is not even asked for.
        backend.fields += "Origin: https://evil.example\r\n";
        let refused =
            post(&backend, 6).replace("Content-Type", "Expect: 100-continue\r\nContent-Type");
        let (head, _) = refused.split_once("\r\n\r\n").unwrap();
        backend.caller().send(format!("{head}\r\n\r\n")).await;
        assert_eq!(backend.caller().answer().await.status, 403);
        backend.caller().expect_end().await;
    });
}

#[test]
fn while_redis_is_away_calls_are_refused_in_time_and_say_when_to_return() {
    run(async {
        let redis = RedisServer::start();
        let node = TestNode::with(|config| {
            config.redis = vec![redis.url().parse().unwrap()];
            config.publish_timeout = Duration::from_millis(500);
        })
        .await;
        let mut backend = Backend::without_key(node.address).await;
        let path = "/rooms/lobby/messages";
        backend.ok("POST", path, json!({"data": 1})).await;
        redis.pause();
        let answer = backend.call("POST", path, json!({"data": 2})).await;
        assert_eq!(answer.status, 504, "perhaps it happened: {answer:?}");
        assert_eq!(answer.json()["code"], "unknown");
        answers(node.address, 503).await;
        let batch = json!({"publishes": [{"room": "a", "data": 1}]});
        for (method, path, body) in [
            ("POST", path, json!({"data": 3})),
            ("PUT", "/rooms/lobby/messages/k", json!({"data": 3})),
            ("POST", "/batch", batch),
            ("GET", path, Value::Null),
        ] {
            let answer = backend.call(method, path, body).await;
            assert_eq!(
                (answer.status, answer.field("Retry-After")),
                (503, Some("1"))
            );
            assert_eq!(answer.json()["code"], "unavailable");
        }
        redis.resume();
        answers(node.address, 200).await;
        let published = backend
            .ok("PUT", "/rooms/lobby/messages/k", json!({"data": 3}))
            .await;
        assert!(
            published["offset"].as_u64().unwrap() <= 3,
            "what was refused did not happen"
        );
    });
}

#[test]
fn what_the_dispatcher_does_not_answer_in_time_is_unknown_and_what_it_cannot_hear_is_not() {
    run(async {
        let (inbox, events) = flume::unbounded();
        let mut node = node_of(inbox);
        let own = Arc::get_mut(&mut node).expect("it is new");
        own.limits.call_timeout = Duration::from_millis(300);
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr();
        runtime::spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                let counted = Counted::new(node.metrics.clone());
                runtime::spawn(serve(node.clone(), socket, peer, Entrance::Public, counted));
            }
        });
        let mut backend = Backend::without_key(address).await;
        let path = "/rooms/lobby/messages";
        let answer = backend.call("POST", path, json!({"data": 1})).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (504, &json!("unknown"))
        );
        let answer = backend.call("GET", path, Value::Null).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (503, &json!("unavailable"))
        );
        assert_eq!(events.drain().count(), 2);

        let two = json!({"publishes": [{"room": "a", "data": 1}, {"room": "b", "data": 1}]});
        let answering = async {
            let Ok(Event::Call { caller, .. }) = events.recv_async().await else {
                panic!("no call")
            };
            let room = RoomName::new("a").expect("a name");
            caller.tell(&Reply::Published {
                room: &room,
                position: None,
            });
        };
        let (answer, ()) = futures::join!(backend.call("POST", "/batch", two), answering);
        let wanted = [json!({"room": "a"}), answer.json()["results"][1].clone()];
        assert_eq!(
            (answer.status, answer.json()["results"].clone()),
            (200, json!(wanted))
        );
        assert_eq!(wanted[1]["code"], "unknown");

        drop(events);
        let answer = backend.call("POST", path, json!({"data": 1})).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (503, &json!("unavailable"))
        );
    });
}

#[test]
fn a_call_under_way_is_answered_before_the_node_ends() {
    run(async {
        let mut cluster = Cluster::start().await;
        let mut backend = Backend::connect(cluster.nodes[0].address).await;
        let path = "/rooms/lobby/messages";
        backend.ok("POST", path, json!({"data": 1})).await;
        cluster.redis.pause();
        let request = backend.request("POST", path, &json!({"data": "last words"}));
        backend.caller().send(request).await;
        cluster.nodes[0].logged("called").await;
        let called = || {
            let log = cluster.nodes[0].log();
            log.iter()
                .filter(|line| line.contains("\"called\""))
                .count()
                == 2
        };
        eventually("the call has come", called).await;
        cluster.nodes[0].terminate();
        answers(cluster.nodes[0].address, 503).await;
        cluster.redis.resume();
        let answer = backend.caller().answer().await;
        assert_eq!(
            (answer.status, answer.json()["offset"].clone()),
            (200, json!(2))
        );
        assert_eq!(answer.field("Connection"), Some("close"));
        assert!(cluster.nodes[0].exit().await.success());
    });
}

#[test]
fn a_rolling_restart_while_a_backend_puts_through_nginx_loses_and_doubles_nothing() {
    run(async {
        let mut cluster = Cluster::start().await;
        let mut backend = Backend::connect(cluster.nginx.address).await;
        let done = std::sync::atomic::AtomicU64::new(0);
        let ending = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let putting = async {
            let mut n = 0;
            while !ending.load(relaxed) {
                n += 1;
                let path = format!("/rooms/lobby/messages/order-{n}");
                let published = backend.ok("PUT", &path, json!({"data": n})).await;
                assert_eq!(published["offset"], n);
                done.store(n, relaxed);
            }
        };
        let restarts = async {
            for index in [0, 1] {
                let before = done.load(relaxed);
                eventually("the backend goes on", || done.load(relaxed) > before + 50).await;
                cluster.nodes[index].terminate();
                assert!(cluster.nodes[index].exit().await.success());
                cluster.revive(index).await;
            }
            let before = done.load(relaxed);
            eventually("the backend goes on", || done.load(relaxed) > before + 50).await;
            ending.store(true, relaxed);
        };
        futures::join!(putting, restarts);
        let mut backend = Backend::connect(cluster.nodes[0].address).await;
        let mut expected = done.load(relaxed);
        while expected > 0 {
            let path = format!("/rooms/lobby/messages?limit=100&before={}", expected + 1);
            let page = backend.ok("GET", &path, Value::Null).await;
            for message in page["messages"].as_array().unwrap().iter().rev() {
                assert_eq!(
                    (&message["offset"], &message["data"]),
                    (&json!(expected), &json!(expected))
                );
                expected -= 1;
            }
            if page["more"] == json!(false) {
                break;
            }
        }
    });
}
