//! A cluster for one test: a Redis, node processes, and nginx in front.

use std::net::SocketAddr;

use super::backend::key_file;
use super::http::{get, status};
use super::nginx::Nginx;
use super::process::{NodeProcess, command};
use super::redis_server::RedisServer;
use super::{GLANCE, TestClient, within};
use switchboard::runtime;
use tempfile::NamedTempFile;

/// The parts are dropped in the order of the fields.
pub struct Cluster {
    pub nginx: Nginx,
    pub nodes: Vec<NodeProcess>,
    pub redis: RedisServer,
    /// How each node reaches Redis.
    urls: Vec<String>,
    /// The keys of the HTTP API.
    keys: NamedTempFile,
}

impl Cluster {
    /// Two nodes, `n1` and `n2`, that share a Redis which keeps nothing; all ready.
    pub async fn start() -> Self {
        Self::on(RedisServer::start()).await
    }

    pub async fn on(redis: RedisServer) -> Self {
        let urls = vec![redis.url(), redis.url()];
        Self::with(redis, urls).await
    }

    /// One node for each address of the Redis.
    pub async fn with(redis: RedisServer, urls: Vec<String>) -> Self {
        let mut nodes = Vec::new();
        let keys = key_file();
        for (index, url) in urls.iter().enumerate() {
            let free = SocketAddr::from(([127, 0, 0, 1], 0));
            nodes.push(start_node(index, free, url, &keys).await);
        }
        for node in &nodes {
            ready(node.address).await;
        }
        let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
        let nginx = Nginx::before(&addresses).await;
        Self {
            nginx,
            nodes,
            redis,
            urls,
            keys,
        }
    }

    /// A client that came through nginx.
    pub async fn client(&self) -> TestClient {
        TestClient::connect(self.nginx.address).await
    }

    /// The index of the node with this label.
    pub fn index(&self, label: &str) -> usize {
        let index = (0..self.nodes.len()).find(|index| label == label_of(*index));
        index.unwrap_or_else(|| panic!("there is no node {label}"))
    }

    /// Starts a node again that has ended, where it was; ready when it is.
    pub async fn revive(&mut self, index: usize) {
        let address = self.nodes[index].address;
        self.nodes[index] = start_node(index, address, &self.urls[index], &self.keys).await;
        ready(address).await;
    }
}

/// The label of a node in its log and in `welcome`.
fn label_of(index: usize) -> String {
    format!("n{}", index + 1)
}

async fn start_node(
    index: usize,
    listen: SocketAddr,
    redis: &str,
    keys: &NamedTempFile,
) -> NodeProcess {
    let keys = keys.path().to_str().expect("UTF-8");
    let (listen, label) = (listen.to_string(), label_of(index));
    let mut arguments = vec!["serve", "--listen", &listen, "--node", &label];
    arguments.extend(["--redis", redis, "--trusted-proxy", "127.0.0.1"]);
    arguments.extend(["--log-level", "debug", "--api-key-file", keys]);
    // A client of a test answers pings only while it is waited for.
    arguments.extend(["--heartbeat", "5m", "--pong-timeout", "2m"]);
    NodeProcess::spawn(command(&arguments)).await
}

/// Waits until `/readyz` answers 200.
pub async fn ready(address: SocketAddr) {
    answers(address, 200).await;
}

/// Waits until `/readyz` has this status, and returns the response.
pub async fn answers(address: SocketAddr, wanted: u16) -> String {
    let asking = async {
        loop {
            let answer = get(address, "/readyz").await;
            if status(&answer) == Some(wanted) {
                return answer;
            }
            runtime::sleep(GLANCE).await;
        }
    };
    within(&format!("/readyz of {address} answers {wanted}"), asking).await
}
