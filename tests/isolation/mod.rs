//! Isolation of clients from hostile ones. Two sessions publish at a steady rate in a room of
//! twenty members, while each hostile case attacks the node for a while. Every delivery of the room
//! must arrive, in order and once, before the deadline: each publisher waits for its replies, so a
//! delay of a second each fails. `make isolation` measures the delays.

mod hostile;
mod measured;
mod reads;

use std::time::{Duration, Instant};

use serde_json::json;
use switchboard::runtime;

use crate::support::redis_server::RedisServer;
use crate::support::{NodeProcess, TestClient, run, within};
use hostile::{CASES, Case, Hostile, Target};

const ROOM: &str = "good";
const MEMBERS: usize = 20;
const PUBLISHERS: u64 = 2;

/// What each session publishes in a phase, and how often.
const PUBLISHES: u64 = 60;
const PACE: Duration = Duration::from_millis(20);

/// Joins the room and reads until its last message; how long each took. It misses none.
async fn member(mut client: TestClient, start: Instant, first: u64) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut expected = first;
    loop {
        let message = client.message(ROOM).await;
        assert_eq!(
            message["offset"], expected,
            "in order, once, without a hole"
        );
        expected += 1;
        match message["data"].as_u64() {
            Some(sent) => took.push(start.elapsed().saturating_sub(Duration::from_micros(sent))),
            None => break took,
        }
    }
}

async fn publisher(mut client: TestClient, start: Instant) -> TestClient {
    for _ in 0..PUBLISHES {
        runtime::sleep(PACE).await;
        let now = start.elapsed().as_micros() as u64;
        client.publish(ROOM, json!(now)).await;
    }
    client
}

/// A task whose result is awaited.
fn task<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> flume::Receiver<T> {
    let (done, result) = flume::bounded(1);
    runtime::spawn(async move {
        // The receiver is gone if the test has failed.
        let _ = done.send(future.await);
    });
    result
}

async fn result<T>(what: &str, task: flume::Receiver<T>) -> T {
    within(what, task.recv_async())
        .await
        .expect("its checks hold")
}

/// A node beside its Redis.
struct Scene {
    node: NodeProcess,
    redis: RedisServer,
}

impl Scene {
    async fn start() -> Self {
        let redis = RedisServer::start();
        // A tenth of the usual bytes: without optimization a byte costs ten times as much, or more.
        let url = redis.url();
        let mut options = vec!["--redis", &url, "--heartbeat", "5s", "--pong-timeout", "3s"];
        options.extend([
            "--commands-per-second",
            "100",
            "--bytes-per-second",
            "32KiB",
        ]);
        options.extend([
            "--rate-timeout",
            "1s",
            "--head-timeout",
            "1s",
            "--close-timeout",
            "500ms",
        ]);
        let mut node = NodeProcess::start(&options).await;
        node.logged("Redis is reached; probes come back").await;
        Self { node, redis }
    }
}

/// Runs one phase of the room. Returns the 99th percentile of its delivery times.
async fn phase(scene: &Scene, case: Option<&Case>) -> Duration {
    let node = &scene.node;
    let mut clients = Vec::new();
    let mut first = 0;
    for _ in 0..MEMBERS {
        let mut client = node.client().await;
        first = client.join(ROOM).await["offset"]
            .as_u64()
            .expect("a number")
            + 1;
        clients.push(client);
    }
    let hostile = case.map(|case| {
        let target = Target {
            address: node.address,
            redis: scene.redis.url(),
        };
        Hostile::start(case, target)
    });
    let start = Instant::now();
    let members: Vec<_> = clients
        .into_iter()
        .map(|client| task(member(client, start, first)))
        .collect();
    let mut publishers = Vec::new();
    for _ in 0..PUBLISHERS {
        publishers.push(task(publisher(node.client().await, start)));
    }
    let mut speaker = None;
    for publisher in publishers {
        speaker = Some(result("the publisher is done", publisher).await);
    }
    speaker
        .expect("there are some")
        .publish(ROOM, json!("end"))
        .await;
    let mut took = Vec::new();
    for member in members {
        let deliveries = result("the member has received everything", member).await;
        assert_eq!(deliveries.len() as u64, PUBLISHERS * PUBLISHES);
        took.extend(deliveries);
    }
    if let Some(hostile) = hostile {
        hostile.stop();
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[test]
fn hostile_clients_cost_others_no_delivery() {
    run(async {
        let scene = Scene::start().await;
        for case in CASES {
            let slowest = phase(&scene, Some(case)).await;
            println!("{:16} p99 {slowest:?}", case.name);
        }
    });
}
