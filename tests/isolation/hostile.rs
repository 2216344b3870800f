//! The hostile cases: threads with blocking sockets, so that they do not delay the tasks that
//! measure. Each repeats, with a new connection after each loss, until it is stopped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::frames::{
    BINARY, CONTINUATION, PING, TEXT, fragment, frame, header, unmasked, upgrade,
};

/// The target of the attack.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub redis: String,
}

/// One kind of attack.
pub struct Case {
    pub name: &'static str,
    /// The number of concurrent attackers.
    threads: usize,
    act: fn(&Target, &Stop),
}

pub type Stop = AtomicBool;

/// Between two connections of one thread. A whole core for making connections would measure the
/// machine and not the node.
const PACE: Duration = Duration::from_millis(5);

/// A running case.
pub struct Hostile {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

impl Hostile {
    pub fn start(case: &Case, target: Target) -> Self {
        let stop = Arc::new(Stop::default());
        let threads = (0..case.threads).map(|_| {
            let (stop, target, act) = (stop.clone(), target.clone(), case.act);
            thread::spawn(move || {
                // The work of an attacker's machine must not delay clients that share only the
                // node with it.
                rustix::process::setpriority_process(None, 19).expect("anyone may be nicer");
                while !stop.load(Ordering::Relaxed) {
                    act(&target, &stop);
                    thread::sleep(PACE);
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it only sends");
        }
    }
}

pub const CASES: &[Case] = &[
    case("commands", 4, |target, stop| {
        flood(
            target,
            stop,
            frame(TEXT, br#"{"type":"ping","id":1}"#).repeat(100),
            Take::All,
        );
    }),
    case("bad JSON", 4, |target, stop| {
        flood(
            target,
            stop,
            frame(TEXT, br#"{"type":"ping","id":1"#).repeat(100),
            Take::All,
        );
    }),
    case("deep JSON", 2, |target, stop| {
        let deep = format!(
            r#"{{"type":"publish","room":"good","data":{}"#,
            "[".repeat(60_000)
        );
        flood(target, stop, frame(TEXT, deep.as_bytes()), Take::All);
    }),
    case("publishes", 4, |target, stop| {
        let publish = br#"{"type":"publish","room":"bad","data":"x"}"#;
        flood(target, stop, frame(TEXT, publish).repeat(100), Take::All);
    }),
    case("joins", 4, |target, stop| {
        let joins: Vec<u8> = (0..1000)
            .flat_map(|n| {
                let join = format!(r#"{{"type":"join","room":"bad-{n}"}}"#);
                let leave = format!(r#"{{"type":"leave","room":"bad-{n}"}}"#);
                [frame(TEXT, join.as_bytes()), frame(TEXT, leave.as_bytes())].concat()
            })
            .collect();
        flood(target, stop, joins, Take::All);
    }),
    case("pings", 4, |target, stop| {
        flood(
            target,
            stop,
            frame(PING, &[b'x'; 125]).repeat(100),
            Take::All,
        );
    }),
    case("fragments", 4, |target, stop| {
        let fragments = fragment(CONTINUATION, b"").repeat(1000);
        flood(
            target,
            stop,
            [fragment(TEXT, b""), fragments].concat(),
            Take::All,
        );
    }),
    case("large messages", 4, |target, stop| {
        let mut command = br#"{"type":"ping","id":1}"#.to_vec();
        command.resize(65_536, b' ');
        flood(target, stop, frame(TEXT, &command), Take::All);
    }),
    case("huge frames", 4, |target, stop| {
        // Many frames per write: a system call for each would take processor time that the room
        // needs, and the node receives the same bytes.
        let headers = header(TEXT, 1 << 62).repeat(100);
        flood(target, stop, headers, Take::All);
    }),
    case("broken frames", 4, |target, stop| {
        flood(target, stop, unmasked(BINARY, &[0xff; 1000]), Take::All);
    }),
    case("slow readers", 2, |target, stop| {
        // Members of the room: they do not read what the others receive.
        let join = frame(TEXT, br#"{"type":"join","room":"good"}"#);
        let history = frame(TEXT, br#"{"type":"history","room":"good","limit":100}"#);
        flood(
            target,
            stop,
            [join, history.repeat(100)].concat(),
            Take::Nothing,
        );
    }),
    case("half-open heads", 1, |target, stop| {
        let open = (0..1000).map_while(|_| {
            let mut socket = TcpStream::connect(target.address).ok()?;
            socket.write_all(b"GET /ws HTTP/1.1\r\nHost").ok()?;
            thread::sleep(Duration::from_millis(1));
            (!stop.load(Ordering::Relaxed)).then_some(socket)
        });
        let held: Vec<_> = open.collect();
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(PACE);
        }
        drop(held);
    }),
    case("churn", 4, |target, _| {
        drop(shake(target.address));
    }),
    case("requests", 4, |target, stop| {
        let Ok(mut socket) = TcpStream::connect(target.address) else {
            return;
        };
        let requests = b"GET /chat.js HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
        send(&mut socket, &requests, stop);
    }),
    case("junk in Redis", 2, |target, stop| {
        let Ok(client) = redis::Client::open(target.redis.as_str()) else {
            return;
        };
        let Ok(mut connection) = client.get_connection() else {
            return;
        };
        let junk = [&b"\xff\x00\x01"[..], b"{\"v\":1}", &[b'['; 60_000], b""];
        while !stop.load(Ordering::Relaxed) {
            for junk in junk {
                let mut publish = redis::cmd("PUBLISH");
                publish.arg("switchboard:{good}").arg(junk);
                // The node is under test, not the attacker.
                let _ = publish.query::<i64>(&mut connection);
            }
            thread::sleep(PACE);
        }
    }),
];

const fn case(name: &'static str, threads: usize, act: fn(&Target, &Stop)) -> Case {
    Case { name, threads, act }
}

/// Whether the attacker reads what it is sent.
#[derive(PartialEq)]
enum Take {
    All,
    Nothing,
}

/// A WebSocket whose welcome is still unread.
pub fn shake(address: SocketAddr) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket.write_all(upgrade("/ws", "").as_bytes()).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).ok()?;
    socket.set_read_timeout(None).ok()?;
    answer.ends_with(b" 101").then_some(socket)
}

/// Sends the same again and again on one connection, until the node ends it.
fn flood(target: &Target, stop: &Stop, bytes: Vec<u8>, reads: Take) {
    let Some(mut socket) = shake(target.address) else {
        return;
    };
    if reads == Take::Nothing {
        return send(&mut socket, &bytes, stop);
    }
    let Ok(mut answers) = socket.try_clone() else {
        return;
    };
    let reader = thread::spawn(move || {
        let mut scrap = [0; 4096];
        while let Ok(1..) = answers.read(&mut scrap) {}
    });
    send(&mut socket, &bytes, stop);
    // Either end may be closed already.
    let _ = socket.shutdown(std::net::Shutdown::Both);
    reader.join().expect("it only reads");
}

fn send(socket: &mut TcpStream, bytes: &[u8], stop: &Stop) {
    // When the node does not read, check whether the test continues.
    let _ = socket.set_write_timeout(Some(Duration::from_millis(100)));
    let mut rest = bytes;
    while !stop.load(Ordering::Relaxed) {
        match socket.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        if rest.is_empty() {
            rest = bytes;
        }
    }
}
