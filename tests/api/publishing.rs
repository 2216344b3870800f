//! Publishing through the API: to one room, to many, in batches, on behalf of a client; and several
//! calls on one connection.

use serde_json::{Value, json};

use crate::support::redis_server::RedisServer;
use crate::support::{Backend, TestNode, run};

#[test]
fn backend_publication_is_delivered_and_is_in_the_history() {
    run(async {
        let node = TestNode::start().await;
        let mut ada = node.client().await;
        let joined = ada.join("lobby").await;
        let mut backend = Backend::without_key(node.address).await;
        let path = "/rooms/lobby/messages";

        let body = json!({"data": {"n": 1}, "user": "shop"});
        let published = backend.ok("POST", path, body).await;
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
fn client_with_the_same_key_does_not_replace_a_backend_publication() {
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
        let other = json!({"data": 2});
        let reused = backend
            .call("PUT", "/rooms/lobby/messages/order-1", other)
            .await;
        assert_eq!(
            (reused.status, reused.json()["code"].clone()),
            (409, json!("key_reused"))
        );
    });
}

#[test]
fn one_call_publishes_to_many_rooms_or_a_batch_in_order() {
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
fn backend_publication_excludes_a_session_on_any_node() {
    run(async {
        let redis = RedisServer::start();
        let url = || redis.url().parse().unwrap();
        let a = TestNode::with(|config| config.redis = vec![url()]).await;
        let b = TestNode::with(|config| config.redis = vec![url()]).await;
        let (mut ada, mut bob) = (b.client().await, b.client().await);
        ada.join("lobby").await;
        bob.join("lobby").await;
        let mut backend = Backend::without_key(a.address).await;
        let body = json!({"data": "moved", "user": "ada", "others": ada.welcome["session"]});
        let published = backend.ok("POST", "/rooms/lobby/messages", body).await;
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
fn calls_on_one_connection_are_answered_in_order_for_any_split() {
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
        // The head is answered before the body is sent, and the length of a HEAD is that of the
        // GET.
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
        // Without a key the node does not request the body with 100 Continue.
        backend.fields += "Origin: https://evil.example\r\n";
        let refused =
            post(&backend, 6).replace("Content-Type", "Expect: 100-continue\r\nContent-Type");
        let (head, _) = refused.split_once("\r\n\r\n").unwrap();
        backend.caller().send(format!("{head}\r\n\r\n")).await;
        assert_eq!(backend.caller().answer().await.status, 403);
        backend.caller().expect_end().await;
    });
}
