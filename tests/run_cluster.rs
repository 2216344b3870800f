//! `deploy/cluster`, the script behind `make run-cluster`: it prints when all is ready, ends
//! the processes it started and no others, and starts none when a port is taken.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use switchboard::runtime;
use tempfile::TempDir;

use crate::support::http::{get, status};
use crate::support::process::{BINARY, without_variables};
use crate::support::redis_server::free_port;
use crate::support::{GLANCE, TestClient, eventually, run, within};

#[test]
fn cluster_script_prints_when_it_is_ready_and_ends_its_processes_in_order() {
    run(async {
        let mut cluster = Runner::ready().await;
        let ports = cluster.ports;

        let (nginx, nodes) = (at(ports.nginx), [at(ports.node), at(ports.node + 1)]);
        let mut clients = Vec::new();
        for address in [nginx, nodes[0], nodes[1]] {
            let page = get(address, "/").await;
            assert_eq!(status(&page), Some(200), "{page}");
            let mut client = TestClient::connect(address).await;
            client.join("lobby").await;
            clients.push(client);
        }
        assert_eq!(clients[1].welcome["node"], "n1");
        assert_eq!(clients[2].welcome["node"], "n2");
        clients[0].publish("lobby", "hello".into()).await;
        for client in &mut clients {
            assert_eq!(client.message("lobby").await["data"], "hello");
        }
        let started = cluster.processes();
        assert_eq!(started.len(), 4, "{started:?}");

        cluster.terminate();
        for client in &mut clients {
            // The client of nginx receives it too, because nginx ends after the nodes.
            assert_eq!(client.push("bye").await["reason"], "draining");
        }
        let status = cluster.exit().await;
        assert_eq!(status.code(), Some(0), "{}", cluster.output());
        let output = cluster.output();
        let ends: Vec<&str> = output
            .lines()
            .filter(|line| line.contains(" ended "))
            .collect();
        let names = ["n1", "n2", "nginx", "redis"];
        let wanted = names.map(|name| format!("cluster: {name} ended with exit code 0"));
        assert_eq!(ends, wanted, "{output}");
        for pid in started {
            assert!(
                !Path::new(&format!("/proc/{pid}")).exists(),
                "{pid} is left"
            );
        }
    });
}

#[test]
fn taken_port_is_reported_with_its_variable_and_nothing_is_started() {
    run(async {
        for variable in ["PORT", "NODE_PORT", "REDIS_PORT"] {
            let ports = Ports::free();
            let port = match variable {
                "PORT" => ports.nginx,
                // The second node's.
                "NODE_PORT" => ports.node + 1,
                _ => ports.redis,
            };
            let _taken = TcpListener::bind(at(port)).expect("it was free");
            let mut cluster = Runner::start(ports);
            let status = cluster.exit().await;
            let output = cluster.output();
            assert_eq!(status.code(), Some(1), "{output}");
            assert!(
                output.contains(&format!("Port {port} is taken")),
                "{output}"
            );
            assert!(output.contains(&format!(" {variable}=")), "{output}");
            let left = std::fs::read_dir(cluster.dir.path()).expect("the directory is ours");
            let left: Vec<_> = left
                .map(|entry| entry.expect("an entry").file_name())
                .collect();
            assert!(
                left.iter().all(|name| name == "lock" || name == "output"),
                "{left:?}"
            );
        }
    });
}

#[derive(Clone, Copy)]
struct Ports {
    nginx: u16,
    /// The first node's; the second has the next.
    node: u16,
    redis: u16,
}

impl Ports {
    fn free() -> Self {
        loop {
            let node = free_port();
            let next = node.checked_add(1).map(at);
            if next.is_some_and(|next| TcpListener::bind(next).is_ok()) {
                let (nginx, redis) = (free_port(), free_port());
                return Self { nginx, node, redis };
            }
        }
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The script, run with a directory of its own.
struct Runner {
    ports: Ports,
    script: Child,
    dir: TempDir,
}

impl Runner {
    fn start(ports: Ports) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the cluster");
        let output = File::create(dir.path().join("output")).expect("the directory is ours");
        let mut command = Command::new("deploy/cluster");
        without_variables(&mut command);
        command
            .env("SWITCHBOARD_BIN", BINARY)
            .env("CLUSTER_DIR", dir.path())
            .env("PORT", ports.nginx.to_string())
            .env("NODE_PORT", ports.node.to_string())
            .env("REDIS_PORT", ports.redis.to_string())
            .env_remove("NODES")
            .env_remove("REDIS_URL")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the file is open"))
            .stderr(output);
        let script = command.spawn().expect("deploy/cluster can be run");
        Self { ports, script, dir }
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("output")).expect("the file is ours")
    }

    /// Starts a cluster on free ports and waits until it is ready. A port may be taken by another
    /// process before the script uses it: then others are tried.
    async fn ready() -> Self {
        loop {
            let mut runner = Self::start(Ports::free());
            if runner.gets_ready().await {
                return runner;
            }
        }
    }

    /// Whether the cluster is ready, and not a port taken.
    async fn gets_ready(&mut self) -> bool {
        let mut is_ready = false;
        eventually("the cluster is ready", || {
            let ended = self.script.try_wait().expect("the script is ours");
            let output = self.output();
            let is_taken = output.contains("already in use") || output.contains(" is taken");
            assert!(ended.is_none() || is_taken, "{output}");
            // The last line that it prints when it is ready.
            is_ready = output.contains("End all of it");
            is_ready || ended.is_some()
        })
        .await;
        is_ready
    }

    /// The process ids of its parts.
    fn processes(&self) -> Vec<u32> {
        let pids = std::fs::read_to_string(self.dir.path().join("pids")).expect("it runs");
        let pid = |line: &str| line.split(' ').nth(1).and_then(|pid| pid.parse().ok());
        pids.lines().filter_map(pid).collect()
    }

    fn terminate(&self) {
        let _ = kill_process(Pid::from_child(&self.script), Signal::TERM);
    }

    async fn exit(&mut self) -> ExitStatus {
        let ending = async {
            loop {
                if let Some(status) = self.script.try_wait().expect("the script is ours") {
                    return status;
                }
                runtime::sleep(GLANCE).await;
            }
        };
        within("the script ends", ending).await
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // After a failed test the script still ends its processes itself; each has a deadline.
        self.terminate();
        let _ = self.script.wait();
    }
}
