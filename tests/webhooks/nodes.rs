//! Nodes that are killed, frozen, stopped or cannot reach the receiver: another node delivers their
//! events, once.

use super::*;

/// A node process with these webhooks.
async fn process(label: &str, redis: &RedisServer, receiver: &Receiver) -> NodeProcess {
    let (secret, url, hook) = (receiver.secret().to_str(), redis.url(), receiver.url());
    let secret = secret.expect("UTF-8");
    let arguments = ["--node", label, "--redis", &url, "--webhook-url", &hook];
    let all = [&arguments[..], &["--webhook-secret-file", secret]].concat();
    NodeProcess::start(&all).await
}

#[test]
fn events_held_by_a_killed_node_are_delivered_by_another() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        receiver.answers([Answer::Silent]);
        let mut nodes = [
            process("n1", &redis, &receiver).await,
            process("n2", &redis, &receiver).await,
        ];
        let rooms = occupied(&redis, "r", 3);
        let first = receiver.requests(1).await.remove(0);
        let dead = usize::from(first.json()["node"] == "n2");
        nodes[dead].kill();
        let later = occupied(&redis, "s", 1);
        let events = receiver.taken(4).await;
        assert_eq!(events[..3], first.events(), "the same ids");
        assert_eq!(names(&events), [rooms, later].concat());
        until_empty(&redis);
        nodes[dead].exit().await;
    });
}

#[test]
fn events_in_delivery_stay_with_their_node() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        receiver.answers([Answer::Silent, Answer::Silent]);
        let label = |label: &'static str| {
            let (redis, receiver) = (&redis, &receiver);
            TestNode::with(move |config| {
                configured(config, redis, receiver);
                config.node = label.into();
            })
        };
        let _nodes = futures::join!(label("n1"), label("n2"));
        occupied(&redis, "r", 1);
        receiver.taken(1).await;
        let received = receiver.received();
        let by = received
            .iter()
            .map(|received| received.json()["node"].to_string());
        let by: HashSet<String> = by.collect();
        assert_eq!(
            (received.len(), by.len(), receiver.most_at_once()),
            (3, 1, 1)
        );
        until_empty(&redis);
    });
}

#[test]
fn frozen_node_repeats_no_event_when_it_resumes() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        receiver.answers([Answer::Silent]);
        let nodes = [
            process("n1", &redis, &receiver).await,
            process("n2", &redis, &receiver).await,
        ];
        let mut rooms = occupied(&redis, "r", 3);
        let first = receiver.requests(1).await.remove(0);
        let frozen = &nodes[usize::from(first.json()["node"] == "n2")];
        frozen.signal(Signal::STOP);
        receiver.taken(3).await;
        until_empty(&redis);
        frozen.signal(Signal::CONT);
        // It delivers again, because the other one is stopped.
        let other = &nodes[usize::from(first.json()["node"] == "n1")];
        other.kill();
        rooms.extend(occupied(&redis, "s", 1));
        assert_eq!(names(&receiver.taken(4).await), rooms);
        let last = receiver.received().pop().expect("requests");
        assert_eq!(last.json()["node"], first.json()["node"]);
        until_empty(&redis);
    });
}

#[test]
fn node_that_cannot_reach_the_receiver_releases_its_events() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let lame = TestNode::with(|config| {
            configured(config, &redis, &receiver);
            let nowhere = format!("http://127.0.0.1:{}/", free_port());
            config.webhook_url = Some(nowhere.parse().expect("an address"));
        })
        .await;
        let rooms = occupied(&redis, "r", 2);
        let metrics = lame.server().metrics();
        eventually("it has tried", || metrics.webhooks_failed_total.get() > 0).await;
        let _sound = node(&redis, &receiver).await;
        assert_eq!(names(&receiver.taken(2).await), rooms);
        assert!(metrics.webhooks_failed_total.get() >= 3);
        until_empty(&redis);
    });
}

#[test]
fn stopping_node_delivers_its_events_and_releases_the_rest() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let stopping = node(&redis, &receiver).await;
        let rooms = occupied(&redis, "r", BATCH + 1);
        stopping.drain().await;
        assert_eq!(names(&receiver.events()), rooms);
        until_empty(&redis);
        let consumers: Vec<redis::Value> = redis.query(&["XINFO", "CONSUMERS", STREAM, "nodes"]);
        assert!(consumers.is_empty(), "it has left the group: {consumers:?}");

        let failing = node(&redis, &receiver).await;
        receiver.answers(vec![Answer::Status(503); 2]);
        occupied(&redis, "s", 1);
        receiver.requests(3).await;
        failing.drain().await;
        assert_eq!(held(&redis), 1, "no node holds it, and it is still queued");
        let _next = node(&redis, &receiver).await;
        receiver.taken(BATCH + 2).await;
    });
}
