//! The nginx of a test: its own process, port and directory, with the configuration that is shipped
//! in `deploy/`. It ends when it is dropped.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use switchboard::runtime;
use tempfile::TempDir;

use super::redis_server::free_port;
use super::{DEADLINE, GLANCE, within};

const TEMPLATE: &str = include_str!("../../deploy/nginx.conf.in");

/// nginx before some nodes; ready to be connected to.
pub struct Nginx {
    pub address: SocketAddr,
    process: Child,
    dir: TempDir,
}

impl Nginx {
    pub async fn before(nodes: &[SocketAddr]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let dir = tempfile::tempdir().expect("a directory for nginx");
        std::fs::create_dir(dir.path().join("tmp")).expect("the directory is ours");
        let conf = render(nodes, address.port());
        std::fs::write(dir.path().join("nginx.conf"), conf).expect("the directory is ours");
        let errors = File::create(dir.path().join("error.log")).expect("the directory is ours");
        let process = Command::new("nginx")
            .env("PATH", path_with_sbin())
            .arg("-p")
            .arg(format!("{}/", dir.path().display()))
            .args(["-c", "nginx.conf", "-e", "stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            // A group of its own, so that its workers can be reached when it was killed.
            .process_group(0)
            .spawn()
            .expect("nginx is installed (`make test` installs it)");
        let mut nginx = Self {
            address,
            process,
            dir,
        };
        within("nginx listens", nginx.listening()).await;
        nginx
    }

    async fn listening(&mut self) {
        while runtime::connect(self.address, DEADLINE).await.is_err() {
            let ended = self.process.try_wait().expect("nginx is ours");
            assert!(ended.is_none(), "nginx ended: {}", self.errors());
            runtime::sleep(GLANCE).await;
        }
    }

    /// What it has noted of requests so far.
    pub fn access_log(&self) -> String {
        self.read("access.log")
    }

    /// What it complained of so far.
    pub fn errors(&self) -> String {
        self.read("error.log")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM is its fast end, in which the master ends its workers.
        let pid = Pid::from_child(&self.process);
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.process.wait();
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// What `deploy/cluster` does with the template.
fn render(nodes: &[SocketAddr], port: u16) -> String {
    let server = |node: &SocketAddr| format!("server {node} max_fails=0;\n");
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    TEMPLATE
        .replace("@USER@", user)
        .replace("@WORKERS@", "2")
        .replace("@FILES@", "4096")
        .replace("@CONNECTIONS@", "1024")
        .replace("@NODES@", &nodes.iter().map(server).collect::<String>())
        .replace("@PORT@", &port.to_string())
}

/// An ordinary user's PATH on Debian has no `/usr/sbin`, where nginx lives.
fn path_with_sbin() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}
