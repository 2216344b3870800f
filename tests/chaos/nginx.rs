//! nginx as it is deployed, from `deploy/nginx.conf.in`, on a free port and in a directory of its
//! own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

const TEMPLATE: &str = include_str!("../../deploy/nginx.conf.in");

/// How long nginx may take until it listens.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// An nginx, running or stopped. Its drop ends it with its workers.
pub struct Nginx {
    dir: PathBuf,
    pub address: SocketAddr,
    master: Option<Child>,
}

impl Nginx {
    /// Starts it in front of these nodes.
    pub fn start(dir: &Path, nodes: &[SocketAddr]) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        std::fs::create_dir_all(dir.join("tmp")).expect("a directory for nginx");
        std::fs::write(dir.join("nginx.conf"), render(address.port(), nodes))
            .expect("the configuration is written");
        let mut nginx = Self {
            dir: dir.to_owned(),
            address,
            master: None,
        };
        nginx.run();
        nginx
    }

    /// Starts the process and waits until it listens.
    pub fn run(&mut self) {
        let errors = File::create(self.dir.join("nginx.log")).expect("a log for nginx");
        let prefix = format!("{}/", self.dir.display());
        let mut command = Command::new("nginx");
        command
            .args(["-p", &prefix, "-c", "nginx.conf", "-e", "stderr"])
            .env("PATH", search_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            // A process group of its own, so that the workers of a killed master can be killed too.
            .process_group(0);
        self.master = Some(command.spawn().expect("nginx is installed"));
        let start = Instant::now();
        while std::net::TcpStream::connect(self.address).is_err() {
            assert!(start.elapsed() < STARTS_WITHIN, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// New workers take new connections; the old ones keep theirs for a while.
    pub fn reload(&self) {
        if let Some(master) = &self.master {
            kill_process(Pid::from_child(master), Signal::HUP).expect("nginx is ours");
        }
    }

    /// Ends master and workers at once.
    pub fn kill(&mut self) {
        if let Some(mut master) = self.master.take() {
            let _ = kill_process_group(Pid::from_child(&master), Signal::KILL);
            let _ = master.wait();
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The `PATH` of a user on Debian lacks the directory of nginx.
fn search_path() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}

/// The configuration, with the values that `deploy/cluster` inserts.
fn render(port: u16, nodes: &[SocketAddr]) -> String {
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let files = switchboard::runtime::raise_file_limit()
        .unwrap_or(1024)
        .min(65_536);
    let servers: Vec<String> = nodes
        .iter()
        .map(|node| format!("        server {node} max_fails=0;"))
        .collect();
    TEMPLATE
        .replace("@USER@", user)
        .replace("@WORKERS@", "2")
        .replace("@FILES@", &files.to_string())
        .replace("@CONNECTIONS@", &(files - files / 16).to_string())
        .replace("@NODES@", &servers.join("\n"))
        .replace("@PORT@", &port.to_string())
}
