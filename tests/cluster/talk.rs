//! Clients on different nodes: messages, history and recovery across nodes, through nginx.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::http::{get, status};
use crate::support::{Cluster, TestClient, run};

#[test]
fn clients_on_both_nodes_receive_messages_in_order_and_once() {
    run(async {
        const EACH: u64 = 25;
        let cluster = Cluster::start().await;
        let mut clients = Vec::new();
        for name in ["ada", "bob", "cy", "dot", "eve", "fay"] {
            let mut client = cluster.client().await;
            client.auth(name).await;
            client.join("lobby").await;
            clients.push((name, client));
        }
        let nodes: BTreeSet<&str> = clients.iter().map(|(_, client)| node(client)).collect();
        assert_eq!(nodes, BTreeSet::from(["n1", "n2"]), "both are used");

        for n in 1..=EACH {
            for (_, client) in &mut clients {
                client
                    .ask(json!({"type": "publish", "room": "lobby", "data": n}))
                    .await;
            }
        }
        let all = EACH * clients.len() as u64;
        let mut orders = BTreeSet::new();
        for (_, client) in &mut clients {
            let mut order = Vec::new();
            for offset in 1..=all {
                let message = client.message("lobby").await;
                assert_eq!(message["offset"], offset);
                order.push(format!("{} {}", message["user"], message["data"]));
            }
            client.call(json!({"type": "ping"})).await;
            assert!(
                client
                    .received()
                    .all(|message| message["type"] != "message")
            );
            orders.insert(order);
        }
        assert_eq!(orders.len(), 1, "all see one order");
        let order = orders.first().expect("there is one");
        for (name, _) in &clients {
            let theirs: Vec<_> = order
                .iter()
                .filter(|message| message.contains(name))
                .collect();
            let wanted: Vec<_> = (1..=EACH).map(|n| format!("\"{name}\" {n}")).collect();
            assert_eq!(theirs, wanted.iter().collect::<Vec<_>>());
        }
    });
}

#[test]
fn other_node_returns_the_history_and_missed_messages() {
    run(async {
        let cluster = Cluster::start().await;
        let mut ada = cluster.nodes[0].client().await;
        let joined = ada.join("lobby").await;
        for n in 1..=30 {
            assert_eq!(ada.publish("lobby", json!(n)).await, n);
        }
        let mut bob = cluster.nodes[1].client().await;
        let page = bob
            .call(json!({"type": "history", "room": "lobby", "limit": 10, "before": 21}))
            .await;
        assert_eq!(page["epoch"], joined["epoch"]);
        assert_eq!(page["more"], true);
        let offsets: Vec<Value> = page["messages"]
            .as_array()
            .expect("a page")
            .iter()
            .map(|message| message["data"].clone())
            .collect();
        assert_eq!(offsets, (11..=20).map(Value::from).collect::<Vec<_>>());

        let back = bob.rejoin("lobby", &joined["epoch"], 12).await;
        assert_eq!(
            (&back["recovered"], &back["offset"]),
            (&json!(true), &json!(12)),
            "{back}"
        );
        ada.publish("lobby", json!(31)).await;
        for n in 13..=31 {
            let message = bob.message("lobby").await;
            assert_eq!(
                (&message["offset"], &message["data"]),
                (&json!(n), &json!(n))
            );
        }
        bob.expect_silence().await;
    });
}

#[test]
fn others_excludes_only_the_publishing_session() {
    run(async {
        let cluster = Cluster::start().await;
        let mut sender = cluster.nodes[0].client().await;
        let mut same_user = cluster.nodes[1].client().await;
        let mut same_node = cluster.nodes[0].client().await;
        let mut elsewhere = cluster.nodes[1].client().await;
        for (client, user) in [
            (&mut sender, "ada"),
            (&mut same_user, "ada"),
            (&mut same_node, "bob"),
            (&mut elsewhere, "cy"),
        ] {
            client.auth(user).await;
            client.join("lobby").await;
        }
        let publish = json!({"type": "publish", "room": "lobby", "others": true, "data": "to you"});
        assert_eq!(sender.call(publish).await["offset"], 1);
        for client in [&mut same_user, &mut same_node, &mut elsewhere] {
            let message = client.message("lobby").await;
            assert_eq!(
                (&message["offset"], &message["data"], &message["user"]),
                (&json!(1), &json!("to you"), &json!("ada"))
            );
        }
        assert_eq!(
            sender.message("lobby").await,
            json!({"type": "message", "room": "lobby", "offset": 1, "own": true})
        );
        elsewhere.publish("lobby", json!("to all")).await;
        assert_eq!(sender.message("lobby").await["data"], "to all");
    });
}

#[test]
fn page_and_health_checks_are_answered_through_nginx() {
    run(async {
        let cluster = Cluster::start().await;
        for (path, text) in [
            ("/", "<title>Switchboard</title>"),
            ("/chat.js", "import"),
            ("/healthz", ""),
            ("/readyz", ""),
        ] {
            let answer = get(cluster.nginx.address, path).await;
            assert_eq!(status(&answer), Some(200), "{path}: {answer}");
            assert!(answer.contains(text), "{path}: {answer}");
        }
        let nothing = get(cluster.nginx.address, "/nothing").await;
        assert_eq!(status(&nothing), Some(404), "{nothing}");
    });
}

fn node(client: &TestClient) -> &str {
    client.welcome["node"].as_str().expect("a label")
}
