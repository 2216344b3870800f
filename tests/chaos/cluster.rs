//! The system under test: node processes, nginx in front, Redis behind, and a proxy on each link.
//! All of it is on free ports of this machine and ends, by process id, when it is dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue, RedisResult};
use rustix::process::Signal;
use switchboard::runtime;

use crate::mutation::Mutant;
use crate::nginx::Nginx;
use crate::proxy::{Flow, Proxy, Way};
use crate::support::process::{NodeProcess, command};
use crate::support::redis_server::{Options, RedisServer};

/// How often a state without an event is polled.
const GLANCE: Duration = Duration::from_millis(20);

/// The cluster that a scenario needs.
#[derive(Clone, Copy)]
pub struct Plan {
    pub redis: &'static [&'static str],
    /// A second Redis that follows the first.
    pub replica: bool,
    /// Redis is not started yet.
    pub redis_absent: bool,
    pub node: &'static [&'static str],
    /// No proxies. Then no node or Redis can be started again, but ten thousand clients fit into
    /// this process' open files, and do not take from the nodes' way to Redis the time that they
    /// themselves need.
    pub direct: bool,
}

impl Plan {
    pub const PLAIN: Plan = Plan {
        redis: &[],
        replica: false,
        redis_absent: false,
        node: &[],
        direct: false,
    };
}

/// A node and its proxies. A killed node keeps its slot.
pub struct Slot {
    pub label: &'static str,
    pub process: Option<NodeProcess>,
    /// From nginx.
    pub front: Proxy,
    /// To each Redis.
    pub back: Vec<Proxy>,
    /// The value of the node's `--redis`.
    redis: Vec<String>,
    log: PathBuf,
}

pub struct Cluster {
    pub nodes: Vec<Slot>,
    pub nginx: Nginx,
    /// The master at the start, and its replica.
    pub redis: Vec<RedisServer>,
    /// Between the replica and its master.
    pub replication: Option<Proxy>,
    plan: Plan,
}

impl Cluster {
    pub async fn start(dir: &Path, plan: Plan, mutant: Option<Mutant>) -> Self {
        std::fs::create_dir_all(dir).expect("a directory for the run");
        let (redis, replication) = start_redis(plan);
        let mut nodes = Vec::new();
        for label in ["a", "b"] {
            let proxied = redis.iter().filter(|_| !plan.direct);
            let back: Vec<Proxy> = proxied
                .map(|redis| Proxy::start(loopback(redis.port()), None))
                .collect();
            let redis = if plan.direct {
                redis.iter().map(RedisServer::url).collect()
            } else {
                back.iter().map(url).collect()
            };
            let nowhere = loopback(1);
            let mut slot = Slot {
                label,
                process: None,
                front: Proxy::start(nowhere, mutant.clone()),
                back,
                redis,
                log: dir.join(format!("node-{label}.log")),
            };
            slot.start(plan.node).await;
            nodes.push(slot);
        }
        if !plan.redis_absent {
            for slot in &nodes {
                let ready = slot.until_ready(true, Duration::from_secs(20)).await;
                assert!(ready.is_some(), "node {} does not get ready", slot.label);
            }
        }
        let upstreams: Vec<SocketAddr> = if plan.direct {
            nodes.iter().map(Slot::address).collect()
        } else {
            nodes.iter().map(|slot| slot.front.address).collect()
        };
        let nginx = Nginx::start(&dir.join("nginx"), &upstreams);
        Self {
            nodes,
            nginx,
            redis,
            replication,
            plan,
        }
    }

    /// Starts a node in its slot again.
    pub async fn start_node(&mut self, index: usize) {
        self.nodes[index].start(self.plan.node).await;
    }

    /// Kills a Redis; nothing listens on its port then.
    pub fn kill_redis(&mut self, index: usize) {
        for slot in &mut self.nodes {
            slot.back[index].down();
        }
        self.redis[index].kill();
    }

    /// Shuts a Redis down; nothing listens on its port then.
    pub fn shut_down_redis(&mut self, index: usize) {
        for slot in &mut self.nodes {
            slot.back[index].down();
        }
        self.redis[index].shut_down();
    }

    /// Starts a Redis again, with its data on disk.
    pub async fn run_redis(&mut self, index: usize) {
        self.redis[index].run();
        let address = loopback(self.redis[index].port());
        for slot in &mut self.nodes {
            slot.back[index].up(address).await;
        }
    }

    /// Runs a command on the first Redis.
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.redis[0].query(words)
    }

    /// Runs a command that may take long or fail, on a thread of its own.
    pub fn spawn_command(&self, words: &[&str]) {
        let url = self.redis[0].url();
        let words: Vec<String> = words.iter().map(|part| (*part).to_owned()).collect();
        std::thread::spawn(move || -> RedisResult<()> {
            let mut connection = redis::Client::open(url)?.get_connection()?;
            Cmd::new().arg(words).query(&mut connection)
        });
    }
}

impl Drop for Cluster {
    /// The order of drops: first the processes that would log errors about the others' end.
    fn drop(&mut self) {
        for slot in &mut self.nodes {
            slot.end();
        }
        self.nginx.kill();
        for redis in &mut self.redis {
            redis.kill();
        }
    }
}

fn start_redis(plan: Plan) -> (Vec<RedisServer>, Option<Proxy>) {
    let mut options = Options::default().arg("--enable-debug-command yes");
    options = plan
        .redis
        .iter()
        .fold(options, |options, words| options.arg(words));
    let master = if plan.redis_absent {
        RedisServer::absent(options)
    } else {
        RedisServer::with(options.clone().arg("--repl-diskless-sync-delay 0"))
    };
    if !plan.replica {
        return (vec![master], None);
    }
    let link = Proxy::start(loopback(master.port()), None);
    let port = link.address.port();
    let replica = RedisServer::with(
        Options::default()
            .arg(&format!("--replicaof 127.0.0.1 {port}"))
            .arg("--repl-diskless-sync-delay 0")
            .arg("--repl-diskless-load swapdb"),
    );
    let start = Instant::now();
    while !info(&replica, "replication").contains("master_link_status:up") {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the replica does not follow"
        );
        std::thread::sleep(GLANCE);
    }
    (vec![master, replica], Some(link))
}

/// A section of Redis' INFO.
pub fn info(redis: &RedisServer, section: &str) -> String {
    redis.query(&["INFO", section])
}

/// A number of INFO by its name; zero if it is missing.
pub fn figure(info: &str, name: &str) -> u64 {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

fn url(proxy: &Proxy) -> String {
    format!("redis://{}", proxy.address)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Slot {
    async fn start(&mut self, arguments: &[&str]) {
        let redis = self.redis.join(",");
        let mut all = vec!["serve", "--listen", "127.0.0.1:0", "--node", self.label];
        all.extend(["--redis", &redis, "--trusted-proxy", "127.0.0.1"]);
        all.extend(arguments);
        let node = NodeProcess::spawn(command(&all)).await;
        self.front.up(node.address).await;
        self.process = Some(node);
    }

    pub fn address(&self) -> SocketAddr {
        self.process().address
    }

    pub fn process(&self) -> &NodeProcess {
        self.process.as_ref().expect("the node runs")
    }

    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Sends SIGKILL; nothing listens on its port then.
    pub fn kill(&mut self) {
        self.end();
        self.front.down();
    }

    /// Sends SIGTERM; returns the exit status and how long that took.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let mut process = self.process.take().expect("the node runs");
        process.terminate();
        // It stops listening at some point; until then nginx may still try it.
        let status = process.exit().await;
        self.front.down();
        self.keep_log(&process);
        (status, start.elapsed())
    }

    fn end(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
            self.keep_log(&process);
        }
    }

    fn keep_log(&self, process: &NodeProcess) {
        let mut log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.extend(process.log().iter().map(|line| format!("{line}\n")));
        log.push_str(&process.errors());
        // For debugging only; the verdict does not depend on it.
        let _ = std::fs::write(&self.log, log);
    }

    /// The status of a page's response.
    pub async fn status(&self, path: &str) -> Option<u16> {
        http_status(self.address(), path).await
    }

    /// Waits until `/readyz` is ready, or not; returns how long that took.
    pub async fn until_ready(&self, ready: bool, limit: Duration) -> Option<Duration> {
        let start = Instant::now();
        while start.elapsed() < limit {
            let status = self.status("/readyz").await;
            if status == Some(if ready { 200 } else { 503 }) {
                return Some(start.elapsed());
            }
            runtime::sleep(GLANCE).await;
        }
        None
    }

    /// Sets what the proxies to the first Redis do, or to all.
    pub fn hold_redis(&self, way: Option<Way>, flow: Flow) {
        for proxy in &self.back {
            match way {
                Some(way) => proxy.set(way, flow),
                None => proxy.set_both(flow),
            }
        }
    }

    /// Open files of the node.
    pub fn files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process().id());
        std::fs::read_dir(path).map_or(0, Iterator::count)
    }

    /// Memory of the node, in MiB.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process().id());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) / 1024
    }
}

/// The status of one GET; `None` without a response within a second.
pub async fn http_status(address: SocketAddr, path: &str) -> Option<u16> {
    use futures::{AsyncReadExt, AsyncWriteExt};
    let asking = async {
        let mut socket = runtime::connect(address, Duration::from_secs(1))
            .await
            .ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.ok()?;
        std::str::from_utf8(&answer).ok()?.get(9..)?.parse().ok()
    };
    runtime::timeout(Duration::from_secs(1), asking)
        .await
        .ok()?
}
