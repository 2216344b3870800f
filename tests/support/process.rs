//! A node as a process: the real binary on a free port, with its log captured. It is
//! killed, by its process id, when it is dropped.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use switchboard::runtime;

use super::{DEADLINE, TestClient, within};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_switchboard");

/// The binary with these arguments, without the variables of the environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    without_variables(&mut command);
    command
}

/// Removes the variables of the node from a command, for a shell or another program that starts
/// it.
pub fn without_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SWITCHBOARD_") {
            command.env_remove(name);
        }
    }
}

/// A node as a process.
pub struct NodeProcess {
    child: Child,
    log: Captured,
    errors: Captured,
    pub address: SocketAddr,
}

impl NodeProcess {
    /// `switchboard serve` on a free port with these arguments besides, and without heartbeats
    /// unless they ask for some; ready when it listens.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::with(arguments, |_| ()).await
    }

    /// The same with the command changed, for its variables.
    pub async fn with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut all = vec!["serve", "--listen", "127.0.0.1:0"];
        all.extend(arguments);
        let mut command = command(&all);
        command.env("SWITCHBOARD_HEARTBEAT", "1h");
        change(&mut command);
        Self::spawn(command).await
    }

    /// Any command that becomes a node and logs the address where it listens.
    pub async fn spawn(command: Command) -> Self {
        let mut node = Self::unheard(command, SocketAddr::from(([127, 0, 0, 1], 0)));
        let listening = node.logged("listening").await;
        node.address = listening["listen"]
            .as_str()
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("no address: {listening}"));
        node
    }

    /// The same for a node without a log, started with this address. It may not listen yet.
    pub fn unheard(mut command: Command, address: SocketAddr) -> Self {
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let log = Captured::of(child.stdout.take().expect("it is piped"));
        let errors = Captured::of(child.stderr.take().expect("it is piped"));
        Self {
            child,
            log,
            errors,
            address,
        }
    }

    /// A client that has been welcomed.
    pub async fn client(&self) -> TestClient {
        TestClient::connect(self.address).await
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, as from a supervisor: the node drains.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGINT, as from a terminal.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// SIGQUIT, as from a terminal or from a container's supervisor.
    pub fn quit(&self) {
        self.signal(Signal::QUIT);
    }

    /// SIGHUP, as when a terminal is closed.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGKILL: the node ends at once.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    pub fn signal(&self, signal: Signal) {
        // One that has ended already, and was not waited for, still has its id.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits for the end; from then on the log is whole.
    pub async fn exit(&mut self) -> ExitStatus {
        let status = within("the node ends", exited(&mut self.child)).await;
        self.log.finish();
        self.errors.finish();
        status
    }

    /// The lines of the log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The output on stderr so far.
    pub fn errors(&self) -> String {
        self.errors.lines().join("\n")
    }

    /// Waits for the first line of the log with this message.
    pub async fn logged(&mut self, message: &str) -> Value {
        let find = |line: &String| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["msg"] == message).then_some(line)
        };
        let looking = async {
            loop {
                if let Some(line) = self.log().iter().find_map(find) {
                    return line;
                }
                let ended = self.child.try_wait().expect("the child is ours");
                if let Some(status) = ended {
                    self.log.finish();
                    self.errors.finish();
                    let line = self.log().iter().find_map(find);
                    return line.unwrap_or_else(|| {
                        let (log, errors) = (self.log(), self.errors());
                        panic!("ended ({status}) without {message:?}: {log:#?} {errors}")
                    });
                }
                runtime::sleep(GLANCE).await;
            }
        };
        match runtime::timeout(DEADLINE, looking).await {
            Ok(line) => line,
            Err(_) => panic!("{message:?} is not in the log: {:#?}", self.log()),
        }
    }

    /// Stops reading the node's stdout, from its next line on.
    pub fn stall_log(&mut self) {
        self.log.stall();
    }

    /// Closes the node's stdout at this end. `speak` must make the node log a line each time.
    pub async fn close_log(&mut self, mut speak: impl AsyncFnMut()) {
        self.log.stall();
        while !self.log.is_finished() {
            speak().await;
        }
        self.log.finish();
    }

    /// The processor time that the node has used so far.
    pub fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.id());
        let stat = std::fs::read_to_string(path).expect("the node runs");
        // Behind the name in brackets, utime and stime are the 12th and 13th fields (proc(5)), in
        // hundredths.
        let (_, fields) = stat.rsplit_once(')').expect("the name is in brackets");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|n| n.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(10 * ticks)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output of a command that must end by itself.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the binary with these arguments and variables to its end.
pub async fn run_to_end(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = command(arguments);
    command.envs(variables.iter().copied()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut stdout = Captured::of(child.stdout.take().expect("it is piped"));
    let mut stderr = Captured::of(child.stderr.take().expect("it is piped"));
    let ended = runtime::timeout(DEADLINE, exited(&mut child)).await;
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    stdout.finish();
    stderr.finish();
    let (stdout, stderr) = (stdout.text(), stderr.text());
    match ended {
        Ok(status) => Ended {
            status,
            stdout,
            stderr,
        },
        Err(_) => panic!("{arguments:?} does not end; stdout: {stdout} stderr: {stderr}"),
    }
}

/// The polling interval of a process: no event wakes a task when one ends.
const GLANCE: Duration = Duration::from_millis(5);

async fn exited(child: &mut Child) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return status;
        }
        runtime::sleep(GLANCE).await;
    }
}

/// The lines of a pipe, read by a thread to the pipe's end or until it is stopped.
struct Captured {
    lines: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
    /// Its result is the pipe, which stays open until then.
    reading: Option<JoinHandle<Pipe>>,
}

type Pipe = Box<dyn BufRead + Send>;

impl Captured {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (theirs, stop) = (lines.clone(), stopped.clone());
        let mut pipe: Pipe = Box::new(BufReader::new(pipe));
        let reading = thread::spawn(move || {
            let mut line = String::new();
            while !stop.load(Ordering::Relaxed) && matches!(pipe.read_line(&mut line), Ok(1..)) {
                let mut lines = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push(line.trim_end_matches('\n').to_owned());
                line.clear();
            }
            pipe
        });
        Self {
            lines,
            stopped,
            reading: Some(reading),
        }
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clone()
    }

    fn text(&self) -> String {
        let lines = self.lines().into_iter();
        lines.map(|line| line + "\n").collect()
    }

    /// Reads no further than the next line, and leaves the pipe open.
    fn stall(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_finished(&self) -> bool {
        self.reading.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end of the reading, which is imminent, and closes the pipe.
    fn finish(&mut self) {
        if let Some(reading) = self.reading.take() {
            // It does nothing that can panic.
            let _ = reading.join();
        }
    }
}
