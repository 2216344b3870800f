//! Two nodes in processes of their own over one Redis, with what each test does before and after
//! the fault.

use serde_json::{Value, json};
use switchboard::dispatcher::Now;
use switchboard::runtime;
use tempfile::NamedTempFile;

use super::faults::{Fault, Redis};
use super::stream::{At, Event, Member};
use crate::support::backend::key_file;
use crate::support::cluster::ready;
use crate::support::{GLANCE, Issuer, NodeProcess, TestClient, within};

/// An ordinary and a personal room; what holds in the one holds in the other.
pub const ROOMS: [&str; 2] = ["lobby", "@ada"];

/// Messages in each room that every fault but FLUSHALL keeps, and those behind them that are lost
/// with the tail of the log.
pub const KEPT: u64 = 4;
pub const TAIL: u64 = 2;

/// Messages in each room after the fault.
pub const AFTER: u64 = 3;

/// A minute, in milliseconds.
const MINUTE: u64 = 60_000;

/// The nodes end before their Redis.
pub struct World {
    pub nodes: Vec<NodeProcess>,
    pub redis: Redis,
    pub fault: Fault,
    issuer: Issuer,
    api_keys: NamedTempFile,
    /// Until the nodes are stopped.
    publisher: Option<TestClient>,
}

/// The epoch of each of [`ROOMS`].
pub type Epochs = [String; 2];

impl World {
    /// Two nodes over the Redis that this fault needs.
    pub async fn start(fault: Fault) -> Self {
        Self::on(Redis::start(fault), fault).await
    }

    pub async fn on(redis: Redis, fault: Fault) -> Self {
        let (issuer, api_keys) = (Issuer::new(), key_file());
        let mut nodes = Vec::new();
        for label in ["n1", "n2"] {
            nodes.push(start_node(label, &redis, &issuer, &api_keys).await);
        }
        for node in &nodes {
            ready(node.address).await;
        }
        let publisher = signed_in(&nodes[0], &token(&issuer, "pat")).await;
        Self {
            nodes,
            redis,
            fault,
            issuer,
            api_keys,
            publisher: Some(publisher),
        }
    }

    /// Starts one more node; it is ready.
    pub async fn start_node(&mut self, label: &str) -> &NodeProcess {
        let node = start_node(label, &self.redis, &self.issuer, &self.api_keys).await;
        ready(node.address).await;
        self.nodes.push(node);
        self.nodes.last().expect("it was pushed")
    }

    /// Stops all nodes gracefully.
    pub async fn stop_nodes(&mut self) {
        // A node waits for clients that do not read its close frame.
        self.publisher = None;
        for node in &self.nodes {
            node.terminate();
        }
        for mut node in std::mem::take(&mut self.nodes) {
            let status = node.exit().await;
            assert!(status.success(), "{status}");
        }
    }

    /// A token for every room, issued a minute ago, so that no clock matters.
    pub fn token(&self, user: &str) -> String {
        token(&self.issuer, user)
    }

    /// A client on this node.
    pub async fn client(&self, node: usize, user: &str) -> TestClient {
        signed_in(&self.nodes[node], &self.token(user)).await
    }

    /// A connection of Ada on this node, so that it is in her personal room, and in no other.
    pub async fn ada(&self, node: usize) -> Member {
        let client = self.client(node, "ada").await;
        Member::new(format!("ada on n{}", node + 1), client)
    }

    /// Members of both rooms on both nodes.
    pub async fn members(&self) -> [Member; 2] {
        let mut members = [self.ada(0).await, self.ada(1).await];
        for member in &mut members {
            for room in ROOMS {
                let joined = member.client.join(room).await;
                assert_eq!(joined["offset"], 0, "{joined}");
            }
        }
        members
    }

    /// Publishes one message with a key of its own; returns its position.
    pub async fn publish(&mut self, room: &str, text: &str) -> At {
        let publisher = self.publisher.as_mut().expect("the nodes run");
        publish(publisher, room, text, text).await
    }

    /// Publishes the messages before the fault in both rooms, and waits until these members have
    /// received them; returns their epochs.
    pub async fn publish_before(&mut self, members: &mut [Member]) -> Epochs {
        let mut epochs = Epochs::default();
        for offset in 1..=KEPT + TAIL {
            if offset == KEPT + 1 {
                self.redis.begin_tail(self.fault);
            }
            for (room, epoch) in ROOMS.into_iter().zip(&mut epochs) {
                let at = self.publish(room, &before_text(room, offset)).await;
                if offset == 1 {
                    epoch.clone_from(&at.epoch);
                }
                assert_eq!(at, At::new(epoch, offset), "in {room} before the fault");
            }
        }
        for member in members {
            for room in ROOMS {
                let last = before_text(room, KEPT + TAIL);
                member.until_message(room, &last).await;
            }
        }
        epochs
    }

    /// Injects the fault.
    pub fn inject(&mut self) {
        self.redis.inject(self.fault);
    }

    /// Waits until both nodes have detected the fault by themselves: each has sent its member a
    /// gap. After FLUSHALL no connection is lost, so a node detects it with the next message.
    pub async fn until_detected(&self, members: &mut [Member]) {
        if self.fault == Fault::FlushAll {
            return;
        }
        for member in members {
            for room in ROOMS {
                member.until_gap(room).await;
            }
        }
    }

    /// Publishes after the fault in both rooms; the new epochs. Offsets must go on from the end of
    /// what survived.
    pub async fn publish_after(&mut self, old: &Epochs) -> Epochs {
        let (mut epochs, end) = (Epochs::default(), self.fault.end());
        for n in 1..=AFTER {
            for ((room, epoch), old) in ROOMS.into_iter().zip(&mut epochs).zip(old) {
                let at = self.publish(room, &after_text(room, n)).await;
                if n == 1 {
                    epoch.clone_from(&at.epoch);
                }
                assert_ne!(at.epoch, *old, "{room}: the fault ends the epoch");
                let what = "offsets go on from the end of what survived";
                assert_eq!(at, At::new(epoch, end + n), "{room}: {what}");
            }
        }
        epochs
    }
}

pub fn before_text(room: &str, offset: u64) -> String {
    format!("{room} before {offset}")
}

pub fn after_text(room: &str, n: u64) -> String {
    format!("{room} after {n}")
}

/// The messages at these offsets, from before the fault.
pub fn before(room: &str, offsets: std::ops::RangeInclusive<u64>) -> Vec<Event> {
    offsets
        .map(|offset| Event::Message(offset, before_text(room, offset)))
        .collect()
}

/// All messages published after the fault.
pub fn after(room: &str, end: u64) -> Vec<Event> {
    (1..=AFTER)
        .map(|n| Event::Message(end + n, after_text(room, n)))
        .collect()
}

fn token(issuer: &Issuer, user: &str) -> String {
    let rooms: &[&str] = &["*", "@*"];
    let hour = std::time::Duration::from_secs(3600);
    issuer.signed_at(Now::read().unix_ms - MINUTE, user, hour, [rooms; 4])
}

async fn start_node(
    label: &str,
    redis: &Redis,
    issuer: &Issuer,
    api_keys: &NamedTempFile,
) -> NodeProcess {
    let (urls, secret) = (redis.urls(), issuer.path());
    let api_keys = api_keys.path().to_str().expect("UTF-8");
    let mut arguments = vec!["--node", label, "--redis", &urls];
    arguments.extend(["--token-secret-file", &secret, "--api-key-file", api_keys]);
    arguments.extend(["--history", "@*=1000/720h"]);
    // A client of a test answers pings only while it is waited for.
    arguments.extend(["--heartbeat", "5m", "--pong-timeout", "2m"]);
    NodeProcess::start(&arguments).await
}

async fn signed_in(node: &NodeProcess, token: &str) -> TestClient {
    let mut client = node.client().await;
    let answer = client.sign_in(token).await;
    assert_eq!(answer["type"], "ok", "{answer}");
    client
}

/// Publishes until it is acknowledged, as the SDK does: the key makes each repeat harmless.
pub async fn publish(client: &mut TestClient, room: &str, key: &str, text: &str) -> At {
    let publish = json!({"type": "publish", "room": room, "key": key, "data": text});
    let answer = call(client, publish).await;
    assert_eq!(answer["type"], "ok", "{text:?} to {room}: {answer}");
    At::of(&answer)
}

/// Repeats a command until Redis has answered it.
pub async fn call(client: &mut TestClient, command: Value) -> Value {
    let calling = async {
        loop {
            let answer = client.call(command.clone()).await;
            match answer["code"].as_str() {
                Some("unavailable" | "unknown") => runtime::sleep(GLANCE).await,
                _ => return answer,
            }
        }
    };
    within(&format!("{command} is answered"), calling).await
}
