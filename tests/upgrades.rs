//! Nodes of two versions on one Redis, as processes: while they are replaced one by one, in either
//! order, no acknowledged message is lost, doubled or out of order at any client.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use serde_json::{Value, json};
use switchboard::runtime;

use crate::support::cluster::{answers, ready};
use crate::support::process::command;
use crate::support::redis_server::RedisServer;
use crate::support::{NodeProcess, ReturningClient, TestClient, run, within};

const ROOM: &str = "lobby";

/// The time between two rounds of publishes, so that the log keeps all of them.
const ROUND: Duration = Duration::from_millis(5);

/// Two nodes, a client that starts on each, and the messages published so far.
struct Scene {
    nodes: [NodeProcess; 2],
    clients: [ReturningClient; 2],
    published: Vec<Value>,
    redis: RedisServer,
}

/// A node that supports formats up to this one.
async fn start(redis: &RedisServer, listen: SocketAddr, newest: u8) -> NodeProcess {
    let (url, listen) = (redis.url(), listen.to_string());
    let mut arguments = vec!["serve", "--listen", &listen, "--redis", &url];
    arguments.extend(["--history-size", "10000", "--join-timeout", "1s"]);
    arguments.extend(["--heartbeat", "5m", "--pong-timeout", "2m"]);
    let mut command = command(&arguments);
    command.env("SWITCHBOARD_TEST_FORMAT", newest.to_string());
    let node = NodeProcess::spawn(command).await;
    ready(node.address).await;
    node
}

async fn replace(redis: &RedisServer, node: &mut NodeProcess, newest: u8) {
    let address = node.address;
    node.terminate();
    node.exit().await;
    *node = start(redis, address, newest).await;
}

/// The format of the newest entry of the log.
fn newest_format(redis: &RedisServer) -> Option<char> {
    let log = format!("switchboard:{{{ROOM}}}:log");
    let newest: Vec<(String, Vec<String>)> =
        redis.query(&["XREVRANGE", &log, "+", "-", "COUNT", "1"]);
    newest.first()?.1.get(1)?.chars().next()
}

impl Scene {
    async fn with(newest: [u8; 2]) -> Self {
        let redis = RedisServer::start();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let nodes = [
            start(&redis, free, newest[0]).await,
            start(&redis, free, newest[1]).await,
        ];
        let [a, b] = [nodes[0].address, nodes[1].address];
        let clients = [
            ReturningClient::join_one_of(&[a, b], "ada", ROOM).await,
            ReturningClient::join_one_of(&[b, a], "bob", ROOM).await,
        ];
        Self {
            nodes,
            clients,
            published: Vec::new(),
            redis,
        }
    }

    /// Both clients publish one message.
    async fn publish(&mut self) {
        for client in &mut self.clients {
            let number = self.published.len();
            client.publish(&format!("k{number}"), json!(number)).await;
            self.published.push(json!(number));
        }
        runtime::sleep(ROUND).await;
    }

    async fn publish_until(&mut self, what: &str, mut holds: impl FnMut(&RedisServer) -> bool) {
        let publishing = async {
            while !holds(&self.redis) {
                self.publish().await;
            }
        };
        within(what, publishing).await;
    }

    /// Both clients publish while a node is replaced.
    async fn replace(&mut self, index: usize, newest: u8) {
        let Self {
            nodes,
            clients,
            published,
            redis,
        } = self;
        let mut replacing = pin!(replace(redis, &mut nodes[index], newest));
        while (&mut replacing).now_or_never().is_none() {
            for client in &mut *clients {
                let number = published.len();
                client.publish(&format!("k{number}"), json!(number)).await;
                published.push(json!(number));
            }
            runtime::sleep(ROUND).await;
        }
    }

    async fn expect_everything(&mut self) {
        let top = self.published.len() as u64;
        for client in &mut self.clients {
            client.catch_up(top).await;
            assert_eq!(client.seen, self.published, "each once, in order");
        }
    }
}

#[test]
fn rolling_upgrade_to_a_newer_format_loses_nothing() {
    run(async {
        let mut scene = Scene::with([1, 1]).await;
        for _ in 0..20 {
            scene.publish().await;
        }
        scene.replace(0, 2).await;
        for _ in 0..20 {
            scene.publish().await;
        }
        assert_eq!(newest_format(&scene.redis), Some('1'), "one cannot read 2");
        scene.replace(1, 2).await;
        let all_know = |redis: &RedisServer| newest_format(redis) == Some('2');
        scene.publish_until("format 2 is written", all_know).await;
        scene.publish().await;
        scene.expect_everything().await;
    });
}

#[test]
fn downgrade_while_a_newer_format_is_written_loses_nothing() {
    run(async {
        let mut scene = Scene::with([2, 2]).await;
        let all_know = |redis: &RedisServer| newest_format(redis) == Some('2');
        scene.publish_until("format 2 is written", all_know).await;
        // The newest entry is of format 2. Those around it need not be: each node decides alone.
        let stood = scene.published.len() as u64 - 1;
        for _ in 0..20 {
            scene.publish().await;
        }
        scene.replace(1, 1).await;
        let old = scene.nodes[1].address;

        // A client that needs a message of format 2 gets it from the other node only.
        let mut eve = TestClient::connect(old).await;
        eve.auth("eve").await;
        let top = eve.call(json!({"type": "join", "room": ROOM})).await;
        let epoch = top["epoch"].clone();
        let refused = eve.rejoin(ROOM, &epoch, stood).await;
        assert_eq!(refused["type"], "error", "{refused}");
        assert_eq!(refused["code"], "unavailable", "{refused}");
        let answer = answers(old, 503).await;
        let reason = "a message in a room is in a newer format than this node reads";
        assert!(answer.contains(reason), "{answer}");
        let logged = "a message in this room is in a newer format; upgrade this node";
        let line = scene.nodes[1].logged(logged).await;
        assert_eq!(line["room"], ROOM);

        // No node needs the newer format any more, and all write the format of the old node.
        let first = |redis: &RedisServer| newest_format(redis) == Some('1');
        scene.publish_until("format 1 is written", first).await;
        let reading = async {
            while !crate::support::http::get(old, "/readyz")
                .await
                .contains("200")
            {
                scene.publish().await;
            }
        };
        within("the old node is ready", reading).await;
        scene.expect_everything().await;
        // The other node is stopped, and the old one serves all clients.
        scene.replace(0, 1).await;
        scene.publish().await;
        scene.expect_everything().await;
        let lines = scene.nodes[1].log();
        let logged_count = lines.iter().filter(|line| line.contains(logged)).count();
        assert!(
            (1..=2).contains(&logged_count),
            "once per cause: {logged_count}"
        );
    });
}
