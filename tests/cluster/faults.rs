//! A node is killed, cut off from Redis or stopped, or Redis is frozen: the clients continue and
//! miss no message.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use switchboard::protocol::disconnect::Disconnect;
use switchboard::runtime;

use crate::support::cluster::answers;
use crate::support::http::{get, status};
use crate::support::redis_server::{Options, RedisServer};
use crate::support::{Cluster, ReturningClient, eventually, run};

#[test]
fn clients_of_a_killed_node_reconnect_and_miss_nothing() {
    run(async {
        let mut cluster = Cluster::start().await;
        let address = cluster.nginx.address;
        let mut clients = Vec::new();
        for user in ["ada", "bob", "cy", "dot"] {
            clients.push(ReturningClient::join(address, user, "lobby").await);
        }
        let mut writer = cluster.nodes[1].client().await;
        for n in 1..=20 {
            writer.publish("lobby", json!(n)).await;
        }
        let killed = clients
            .iter()
            .filter(|client| client.nodes == ["n1"])
            .count();
        assert!((1..4).contains(&killed), "{killed} of 4 are on the node");
        cluster.nodes[0].kill();
        cluster.nodes[0].exit().await;
        // While no client of the killed node is connected.
        for n in 21..=40 {
            writer.publish("lobby", json!(n)).await;
        }
        for client in &mut clients {
            client.catch_up(40).await;
            assert_eq!(client.seen, (1..=40).map(Value::from).collect::<Vec<_>>());
            assert_eq!(client.nodes.last().map(String::as_str), Some("n2"));
        }
        assert_eq!(clients[0].publish("after", json!("still here")).await, 41);
        for client in &mut clients {
            client.catch_up(41).await;
        }
    });
}

#[test]
fn restarted_node_receives_clients_at_once() {
    run(async {
        let mut cluster = Cluster::start().await;
        cluster.nodes[0].kill();
        cluster.nodes[0].exit().await;
        let mut stay = Vec::new();
        for _ in 0..4 {
            // nginx detects that the node is down.
            stay.push(cluster.client().await);
            assert_eq!(stay.last().expect("a client").welcome["node"], "n2");
        }
        cluster.revive(0).await;
        for _ in 0..4 {
            stay.push(cluster.client().await);
            assert_eq!(stay.last().expect("a client").welcome["node"], "n1");
        }
        cluster.nodes[1].kill();
        cluster.nodes[1].exit().await;
        for _ in 0..4 {
            assert_eq!(cluster.client().await.welcome["node"], "n1");
        }
    });
}

#[test]
fn node_without_redis_is_unready_and_nginx_uses_the_other() {
    run(async {
        let redis = RedisServer::with(Options::default().arg("--user n1 on >pass ~* &* +@all"));
        let urls = vec![redis.url().replace("//", "//n1:pass@"), redis.url()];
        let cluster = Cluster::with(redis, urls).await;
        let mut stays = cluster.nodes[0].client().await;
        stays.join("lobby").await;

        let _: String = cluster.redis.query(&["ACL", "SETUSER", "n1", "off"]);
        let _: i64 = cluster.redis.query(&["CLIENT", "KILL", "USER", "n1"]);
        let answer = answers(cluster.nodes[0].address, 503).await;
        assert!(answer.contains("Retry-After"), "{answer}");
        for _ in 0..6 {
            let answer = get(cluster.nginx.address, "/readyz").await;
            assert_eq!(status(&answer), Some(200), "{answer}");
            let client = cluster.client().await;
            assert_eq!(client.welcome["node"], "n2");
        }
        let mut writer = cluster.client().await;
        for n in 1..=10 {
            writer.publish("lobby", json!(n)).await;
        }

        let _: String = cluster.redis.query(&["ACL", "SETUSER", "n1", "on"]);
        answers(cluster.nodes[0].address, 200).await;
        for n in 1..=10 {
            let message = stays.message("lobby").await;
            assert_eq!(
                (&message["offset"], &message["data"]),
                (&json!(n), &json!(n))
            );
        }
        assert_eq!(stays.publish("lobby", json!("back")).await, 11);
    });
}

#[test]
fn publish_in_progress_is_answered_before_the_close_frame() {
    run(async {
        let mut cluster = Cluster::start().await;
        let mut ada = cluster.nodes[0].client().await;
        let mut idle = cluster.nodes[0].client().await;
        ada.join("lobby").await;
        cluster.redis.pause();
        let id = ada
            .ask(json!({"type": "publish", "room": "lobby", "data": "last words"}))
            .await;
        // The reply follows the publish, so the node has received it.
        ada.call(json!({"type": "ping"})).await;
        cluster.nodes[0].terminate();
        assert_eq!(idle.push("bye").await["reason"], "draining");
        assert!(ada.received().next().is_none(), "it waits for its answer");
        cluster.redis.resume();
        let reply = ada.reply(id).await;
        assert_eq!(
            (&reply["type"], &reply["offset"]),
            (&json!("ok"), &json!(1))
        );
        assert!(
            ada.received().all(|message| message["type"] != "bye"),
            "the answer is first"
        );
        assert_eq!(ada.push("bye").await["reason"], "draining");
        for client in [&mut ada, &mut idle] {
            let (code, _) = client.closed().await.expect("a close frame");
            assert_eq!(code, Disconnect::Draining.code());
        }
        assert!(cluster.nodes[0].exit().await.success());
    });
}

#[test]
fn a_rolling_restart_of_both_nodes_under_load_loses_nothing() {
    run(async {
        let mut cluster = Cluster::start().await;
        let address = cluster.nginx.address;
        let users = ["ada", "bob", "cy", "dot", "eve", "fay"];
        let (acknowledged, ending) = (AtomicU64::new(0), AtomicBool::new(false));
        let mut clients = Vec::new();
        for user in users {
            clients.push(ReturningClient::join(address, user, "lobby").await);
        }
        // Returns the number of messages and the offset of the last.
        let talk = async |client: &mut ReturningClient, user: &str| {
            let mut n = 0;
            loop {
                n += 1;
                let key = format!("{user}-{n}");
                let offset = client.publish(&key, json!([user, n])).await;
                acknowledged.fetch_add(1, Ordering::Relaxed);
                if ending.load(Ordering::Relaxed) {
                    return (n, offset);
                }
                // The load: up to a hundred a second of each.
                runtime::sleep(Duration::from_millis(10)).await;
            }
        };
        let restarts = async {
            for index in [0, 1] {
                let before = acknowledged.load(Ordering::Relaxed);
                eventually("the talk goes on", || {
                    acknowledged.load(Ordering::Relaxed) > before + 100
                })
                .await;
                cluster.nodes[index].terminate();
                let status = cluster.nodes[index].exit().await;
                assert!(status.success(), "{status}");
                cluster.revive(index).await;
            }
            ending.store(true, Ordering::Relaxed);
        };
        let talking = clients.iter_mut().zip(users);
        let talking = join_all(talking.map(|(client, user)| talk(client, user)));
        let ((), published) = futures::join!(restarts, talking);

        let top = published
            .iter()
            .map(|(_, offset)| *offset)
            .max()
            .expect("published");
        for client in &mut clients {
            client.catch_up(top).await;
            assert!(client.nodes.len() > 1, "{:?} was moved", client.nodes);
            assert_eq!(client.seen.len() as u64, top);
        }
        for (user, (count, _)) in users.iter().zip(&published) {
            let theirs = clients[0].seen.iter().filter(|data| data[0] == *user);
            let numbers: Vec<&Value> = theirs.map(|data| &data[1]).collect();
            let wanted: Vec<Value> = (1..=*count).map(Value::from).collect();
            assert_eq!(numbers, wanted.iter().collect::<Vec<_>>(), "of {user}");
        }
    });
}
