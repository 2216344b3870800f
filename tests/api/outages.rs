//! API calls while Redis is down or the dispatcher does not answer, and during restarts of nodes,
//! which lose no publication.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::dispatcher::{Event, ReplyTo};
use switchboard::metrics::RefusalCause;
use switchboard::model::id::RoomName;
use switchboard::protocol::Reply;
use switchboard::runtime::{self, Listener};
use switchboard::transport::{Counted, ListenerKind, Node, serve};

use crate::support::bare_node::node_of;
use crate::support::cluster::answers;
use crate::support::redis_server::RedisServer;
use crate::support::{Backend, Cluster, TestNode, eventually, run};

#[test]
fn calls_during_a_redis_outage_are_refused_in_time_with_retry_after() {
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

/// Serves a node whose dispatcher is the test itself.
fn served(node: Arc<Node>) -> SocketAddr {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = listener.local_addr();
    runtime::spawn(async move {
        while let Ok((socket, peer)) = listener.accept().await {
            let counted = Counted::new(node.metrics.clone());
            runtime::spawn(serve(
                node.clone(),
                socket,
                peer,
                ListenerKind::Public,
                counted,
            ));
        }
    });
    address
}

#[test]
fn call_without_an_answer_in_time_is_unknown_and_an_undelivered_call_is_not() {
    run(async {
        let (inbox, events) = flume::unbounded();
        let mut node = node_of(inbox);
        let own = Arc::get_mut(&mut node).expect("it is new");
        own.limits.call_timeout = Duration::from_millis(300);
        let address = served(node);
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
            let Ok(Event::Command {
                reply_to: ReplyTo::Caller(caller),
                ..
            }) = events.recv_async().await
            else {
                panic!("no call")
            };
            let room = RoomName::new("a").expect("a name");
            caller.reply(&Reply::Published {
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
fn calls_up_to_the_limit_are_carried_out_and_one_more_is_refused_at_once() {
    run(async {
        let (inbox, events) = flume::unbounded();
        let mut node = node_of(inbox);
        Arc::get_mut(&mut node).expect("it is new").limits.calls = 2;
        let metrics = node.metrics.clone();
        let address = served(node);
        let mut backends = Vec::new();
        for _ in 0..3 {
            backends.push(Backend::without_key(address).await);
        }
        let mut calls = Vec::new();
        for backend in &mut backends[..2] {
            let request = backend.request("GET", "/rooms/lobby", &Value::Null);
            backend.caller().send(request).await;
            let Ok(Event::Command {
                reply_to: ReplyTo::Caller(caller),
                ..
            }) = events.recv_async().await
            else {
                panic!("no call")
            };
            calls.push(caller);
        }
        assert_eq!(metrics.calls_open.get(), 2);
        let [.., third] = &mut backends[..] else {
            panic!("three")
        };
        let answer = third.call("GET", "/rooms/lobby", Value::Null).await;
        assert_eq!(
            (answer.status, answer.field("Retry-After")),
            (503, Some("1"))
        );
        assert_eq!(answer.json()["code"], "unavailable");
        let counted = (
            metrics.refused_total.get(RefusalCause::Calls),
            metrics.calls_open.get(),
        );
        assert_eq!(counted, (1, 2));

        let room = RoomName::new("lobby").expect("a name");
        let reply = || Reply::Published {
            room: &room,
            position: None,
        };
        // A reply ends the call and frees its permit.
        calls.remove(1).reply(&reply());
        assert_eq!(backends[1].caller().answer().await.status, 200);
        // The permit is free, and the connection that was refused is still usable.
        let answering = async {
            let Ok(Event::Command {
                reply_to: ReplyTo::Caller(caller),
                ..
            }) = events.recv_async().await
            else {
                panic!("no call")
            };
            caller.reply(&reply());
        };
        let again = backends[2].call("GET", "/rooms/lobby", Value::Null);
        let (answer, ()) = futures::join!(again, answering);
        assert_eq!(answer.status, 200);
        calls.remove(0).reply(&reply());
        assert_eq!(backends[0].caller().answer().await.status, 200);
        let none = || metrics.calls_open.get() == 0;
        eventually("no call is in progress", none).await;
    });
}

#[test]
fn call_in_progress_is_answered_before_the_node_ends() {
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
fn rolling_restart_loses_and_duplicates_no_call_through_nginx() {
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
