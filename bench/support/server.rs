//! Servers under test, each a process of its own: a node, or one of the two limits.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::dialogue::{ConnectionKind, Dialogue};
use super::machine::{Role, pinned};
use super::{Outcome, frames, process};

/// A server that listens answers within this time; then it is probed again.
const ANSWER: Duration = Duration::from_secs(1);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Node,
    /// The epoll server that sends each message to each member by itself.
    Plain,
    /// The one that merges what it reads in one pass.
    Merging,
    /// The plain one, and its relay writes the log that a node writes.
    Logging,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Node => "switchboard",
            Kind::Plain => "plain",
            Kind::Merging => "merging",
            Kind::Logging => "logging",
        }
    }
}

/// A running server; it ends when this is dropped.
pub struct Server {
    process: Child,
    pub address: SocketAddr,
    pub dialogue: Dialogue,
}

impl Server {
    /// Starts a server on its core, alone. It is ready when this returns.
    pub fn start(kind: Kind) -> Outcome<Self> {
        match kind {
            Kind::Node => Self::start_node(Role::Server, &[], None),
            Kind::Plain | Kind::Merging | Kind::Logging => {
                Self::start_limit(kind, None, Role::Server)
            }
        }
    }

    /// Starts one of the limits, alone or with this Redis.
    pub fn start_limit(kind: Kind, redis: Option<&Server>, role: Role) -> Outcome<Self> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["limit", kind.name(), &port.to_string()]);
        command.args(redis.map(|redis| redis.address.port().to_string()));
        Self::start_other(command, port, role, Dialogue::Native)
    }

    /// Starts a peer, which is ready when it accepts members on this port.
    pub fn start_other(
        mut command: Command,
        port: u16,
        role: Role,
        dialogue: Dialogue,
    ) -> Outcome<Self> {
        let mut server = Self::spawn(&mut command, port, role)?;
        server.dialogue = dialogue;
        server.until(Self::lets_in)?;
        Ok(server)
    }

    /// Starts a node with this Redis.
    pub fn start_with_redis(redis: &Server, role: Role) -> Outcome<Self> {
        let url = format!("redis://{}", redis.address);
        Self::start_node(role, &["--redis", &url], None)
    }

    /// Starts a node with these options, and so many threads for its tasks; by default, one for
    /// each core it may use.
    pub fn start_node(role: Role, options: &[&str], threads: Option<usize>) -> Outcome<Self> {
        let port = free_port()?;
        let mut command = node(&binary(), port, options);
        if let Some(threads) = threads {
            // Each runtime reads its own.
            command.env("ASYNC_STD_THREAD_COUNT", threads.to_string());
            command.env("SMOL_THREADS", threads.to_string());
            command.env("TOKIO_WORKER_THREADS", threads.to_string());
        }
        Self::start_when_ready(command, port, role)
    }

    /// Starts the node of another build, alone on its core.
    pub fn start_binary(binary: &Path) -> Outcome<Self> {
        let port = free_port()?;
        Self::start_when_ready(node(binary.as_os_str(), port, &[]), port, Role::Server)
    }

    fn start_when_ready(mut command: Command, port: u16, role: Role) -> Outcome<Self> {
        let mut server = Self::spawn(&mut command, port, role)?;
        server.until(Self::is_ready)?;
        Ok(server)
    }

    /// Starts a Redis that keeps nothing on disk.
    pub fn start_redis() -> Outcome<Self> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no"]);
        let mut server = Self::spawn(&mut command, port, Role::Redis)?;
        server.until(|redis| redis.ask("PING\r\n").starts_with("+PONG"))?;
        Ok(server)
    }

    fn spawn(command: &mut Command, port: u16, role: Role) -> Outcome<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = pinned(role, || command.spawn())
            .map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self {
            process,
            address,
            dialogue: Dialogue::Native,
        })
    }

    /// Some listen before they have found their Redis, and refuse members until then.
    fn lets_in(&self) -> bool {
        let path = self.dialogue.path(&ConnectionKind::Member("first".into()));
        self.ask(&frames::upgrade(&path))
            .starts_with("HTTP/1.1 101")
    }

    fn is_ready(&self) -> bool {
        let request = "GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
        self.ask(request).starts_with("HTTP/1.1 200")
    }

    /// Sends a request and returns the beginning of the response; `None` if no server listens.
    fn ask(&self, request: &str) -> String {
        let mut answer = [0; 256];
        let connected = TcpStream::connect_timeout(&self.address, ANSWER);
        let exchange = connected.and_then(|mut stream| {
            stream.set_read_timeout(Some(ANSWER))?;
            stream.write_all(request.as_bytes())?;
            stream.read(&mut answer)
        });
        String::from_utf8_lossy(&answer[..exchange.unwrap_or(0)]).into_owned()
    }

    fn until(&mut self, ready: impl Fn(&Self) -> bool) -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ready(self) {
            if let Some(status) = self.process.try_wait()? {
                return Err(format!("the server on {} has ended: {status}", self.address).into());
            }
            if Instant::now() > deadline {
                return Err(format!("the server on {} does not get ready", self.address).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub fn cpu(&self) -> Duration {
        process::cpu(self.process.id())
    }

    pub fn resident(&self) -> u64 {
        process::resident(self.process.id())
    }

    pub fn open_files(&self) -> usize {
        process::open_files(self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The node to measure. `BENCH_NODE` names another binary than the one that is built with the
/// bench, to compare before with after.
fn binary() -> OsString {
    let built = || env!("CARGO_BIN_EXE_switchboard").into();
    std::env::var_os("BENCH_NODE").unwrap_or_else(built)
}

/// A node as it is delivered, with its defaults, apart from what is given.
fn node(binary: &OsStr, port: u16, more: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(["serve", "--node", "bench", "--log-level", "error"]);
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    command.args(more);
    command
}

/// A port without a listener.
pub fn free_port() -> Outcome<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
