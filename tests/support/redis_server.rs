//! A Redis for one test: its own process, port and directory, all removed when it is dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo, RedisResult};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a server may take until it answers.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// What a server is started with, beside a port and a directory.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Further arguments, as `--maxmemory 10mb`.
    pub args: Vec<String>,
    /// The password this support code itself needs.
    pub password: Option<String>,
    /// Listens with TLS too, with a certificate for `localhost` by its own authority.
    pub tls: bool,
    /// Is a Sentinel, to which no other options apply.
    pub sentinel: bool,
}

impl Options {
    /// One more argument, its words separated by blanks.
    pub fn arg(mut self, words: &str) -> Self {
        self.args.extend(words.split(' ').map(str::to_owned));
        self
    }
}

/// A running or stopped server. Nothing is kept on disk unless the options require it.
#[derive(Debug)]
pub struct RedisServer {
    options: Options,
    port: u16,
    tls_port: u16,
    dir: TempDir,
    process: Option<Child>,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        let mut server = Self::absent(options);
        server.run();
        server
    }

    /// A server that is not started yet, but has its port.
    pub fn absent(options: Options) -> Self {
        let dir = tempfile::tempdir().expect("a directory for Redis");
        if options.tls {
            make_certificates(dir.path());
        }
        Self {
            options,
            port: free_port(),
            tls_port: free_port(),
            dir,
            process: None,
        }
    }

    /// A Sentinel, which watches no master.
    pub fn sentinel() -> Self {
        Self::with(Options {
            sentinel: true,
            ..Options::default()
        })
    }

    /// What it is started with from the next start on.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn tls_url(&self) -> String {
        format!("rediss://localhost:{}", self.tls_port)
    }

    /// The certificate of the authority that signed the server's.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Starts the process and waits until it answers.
    pub fn run(&mut self) {
        let mut command = Command::new("redis-server");
        let port = self.port.to_string();
        if self.options.sentinel {
            let file = self.dir.path().join("sentinel.conf");
            let content = format!("port {port}\nbind 127.0.0.1\n");
            std::fs::write(file, content).expect("the directory is ours");
            command.args(["sentinel.conf", "--sentinel"]);
        } else {
            command
                .args(["--port", &port, "--bind", "127.0.0.1"])
                .args(["--save", "", "--loglevel", "warning"])
                .args(&self.options.args);
        }
        command
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if self.options.tls {
            command
                .args(["--tls-port", &self.tls_port.to_string()])
                .args(["--tls-cert-file", "server.pem"])
                .args(["--tls-key-file", "server.key"])
                .args(["--tls-ca-cert-file", "ca.pem", "--tls-auth-clients", "no"]);
        }
        self.process = Some(command.spawn().expect("redis-server is installed"));
        let start = Instant::now();
        while self.try_query::<String>(&["PING"]).is_err() {
            assert!(
                start.elapsed() < STARTS_WITHIN,
                "redis-server does not answer"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server is ours");
            process.wait().expect("the server is ours");
        }
    }

    /// Ends it in good order: what it has to write to its append-only file is written.
    pub fn shut_down(&mut self) {
        // It answers by closing the connection.
        let _ = self.try_query::<redis::Value>(&["SHUTDOWN"]);
        if let Some(mut process) = self.process.take() {
            process.wait().expect("the server is ours");
        }
    }

    /// Writes a snapshot, which is what the next start reads if there is no append-only file.
    pub fn save(&self) {
        let saved: String = self.query(&["SAVE"]);
        assert_eq!(saved, "OK");
    }

    /// A field of `INFO replication`; empty if there is none.
    pub fn replication(&self, field: &str) -> String {
        let info: String = self.query(&["INFO", "replication"]);
        let mut lines = info.lines();
        let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }

    /// Ends it and starts it again, with what it has on disk.
    pub fn restart(&mut self) {
        self.kill();
        self.run();
    }

    /// Freezes it: connections stay, nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        kill_process(Pid::from_child(process), signal).expect("the server is ours");
    }

    /// Sends one command on a new connection and returns the reply.
    pub fn query<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_query(words)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub fn try_query<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut login = RedisConnectionInfo::default();
        if let Some(password) = &self.options.password {
            login = login.set_password(password);
        }
        let address = self.url().into_connection_info()?.set_redis_settings(login);
        let mut connection = redis::Client::open(address)?.get_connection()?;
        let mut command = Cmd::new();
        command.arg(words);
        command.query(&mut connection)
    }

    /// Publishes any bytes on a topic.
    pub fn publish(&self, topic: &str, message: &[u8]) {
        self.send(Cmd::new().arg("PUBLISH").arg(topic).arg(message));
    }

    /// Puts any bytes into a room's log.
    pub fn append(&self, log: &str, offset: u64, body: &[u8]) {
        let id = format!("{offset}-0");
        self.send(Cmd::new().arg("XADD").arg(log).arg(id).arg("b").arg(body));
    }

    fn send(&self, command: &Cmd) {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut connection = client.get_connection().expect("the server answers");
        command
            .query::<()>(&mut connection)
            .expect("the server takes it");
    }

    /// Tries until the answer is the expected one.
    pub fn until<T: FromRedisValue + PartialEq + std::fmt::Debug>(
        &self,
        words: &[&str],
        wanted: T,
    ) {
        let start = Instant::now();
        loop {
            let answer: T = self.query(words);
            if answer == wanted {
                return;
            }
            assert!(
                start.elapsed() < STARTS_WITHIN,
                "{words:?} returns {answer:?}, not {wanted:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago. It lies below the range of ports for outgoing
/// connections, of which the tests make thousands, so none of them takes it before the server does,
/// nor while the server is down.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// An authority and a certificate for `localhost`, by the openssl command.
fn make_certificates(dir: &Path) {
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let days = ["-days", "2", "-x509"];
    openssl(dir, |command| {
        command.arg("req").args(key).args(days);
        command.args([
            "-subj",
            "/CN=test authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
    });
    openssl(dir, |command| {
        command.arg("req").args(key).args(days);
        command.args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ]);
        command.args(["-addext", "basicConstraints=CA:FALSE"]);
        command.args(["-CA", "ca.pem", "-CAkey", "ca.key"]);
        command.args(["-keyout", "server.key", "-out", "server.pem"]);
    });
}

fn openssl(dir: &Path, arguments: impl Fn(&mut Command)) {
    let mut command = Command::new("openssl");
    arguments(command.current_dir(dir));
    let output = command.output().expect("openssl is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}
