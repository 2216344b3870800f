//! Access to the API: keys, browser pages, a separate API listener, and the metrics.

use serde_json::{Value, json};

use super::keyed;
use crate::support::backend::KEY;
use crate::support::http::{get, status};
use crate::support::redis_server::RedisServer;
use crate::support::{Backend, Cluster, TestClient, TestNode, run};

#[test]
fn api_with_keys_serves_only_calls_with_a_key() {
    run(async {
        let node = TestNode::with(keyed).await;
        let path = "/rooms/lobby/messages";
        let body = || json!({"data": 1});
        for (method, path) in [
            ("POST", path),
            ("GET", path),
            ("DELETE", path),
            ("GET", "/metrics"),
        ] {
            let mut anonymous = Backend::without_key(node.address).await;
            let answer = anonymous.call(method, path, body()).await;
            assert_eq!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.json()["code"], "unauthorized");
            let asks = answer.field("WWW-Authenticate").unwrap();
            assert_eq!(asks, "Bearer realm=\"switchboard\"");
            anonymous.caller().expect_end().await;
        }
        let mut impostor = Backend::connect(node.address).await;
        impostor.fields = impostor.fields.replace(KEY, &KEY.replace('a', "b"));
        let answer = impostor.call("POST", path, body()).await;
        assert_eq!(answer.status, 401);
        assert!(
            answer
                .field("WWW-Authenticate")
                .unwrap()
                .contains("invalid_token")
        );

        let mut backend = Backend::connect(node.address).await;
        assert_eq!(backend.ok("POST", path, body()).await["offset"], 1);
        let answer = backend.call("DELETE", path, Value::Null).await;
        assert_eq!(
            (answer.status, answer.field("Allow")),
            (405, Some("POST, GET, HEAD"))
        );
        backend.fields += "Origin: https://shop.example\r\n";
        assert_eq!(backend.ok("POST", path, body()).await["offset"], 2);
        let answer = backend.call("GET", path, Value::Null).await;
        assert_eq!(answer.field("Access-Control-Allow-Origin"), None);
    });
}

#[test]
fn api_without_keys_refuses_browser_pages_and_proxied_calls() {
    run(async {
        let redis = RedisServer::start();
        let node = TestNode::with(|config| config.redis = vec![redis.url().parse().unwrap()]).await;
        let nginx = crate::support::nginx::Nginx::before(&[node.address]).await;
        let mut laptop = Backend::without_key(node.address).await;
        laptop
            .ok("POST", "/rooms/lobby/messages", json!({"data": 1}))
            .await;
        laptop.fields += "Origin: https://evil.example\r\n";
        let answer = laptop
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
fn api_with_its_own_listener_is_served_only_there() {
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
fn metrics_are_shown_to_callers_with_a_key() {
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
fn nginx_does_not_forward_metrics() {
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
