//! Measures what a first join takes beside sessions that read as much as their rate allows, and how
//! many first joins a node answers through a slow link to Redis. `make isolation` runs both in an
//! optimized build on a quiet machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;
use switchboard::runtime;

use super::hostile::shake;
use crate::support::frames::{TEXT, frame};
use crate::support::redis_server::RedisServer;
use crate::support::slow_link::SlowLink;
use crate::support::{NodeProcess, run};

/// Sessions that read, each at the default rate of 100 units a second.
const READERS: usize = 50;

/// Half of them read pages of history, which cost 4 + 100/16 units, as many as their rate allows;
/// the others read members, for 4 + 500/16 units.
const HISTORY: (&str, Duration) = (
    r#"{"type":"history","id":1,"room":"full","limit":100}"#,
    Duration::from_millis(100),
);
const MEMBERS: (&str, Duration) = (
    r#"{"type":"members","id":1,"room":"full","limit":500}"#,
    Duration::from_millis(350),
);

/// Commands that a session sends at once in the beginning: a whole burst of its rate.
const BURST: usize = 20;

/// The messages of the room that they read, and the bytes of each.
const MESSAGES: usize = 100;
const MESSAGE: usize = 1024;

/// Joins of the innocent session in each phase, and how often it joins: within its own rate.
const JOINS: usize = 300;
const PACE: Duration = Duration::from_millis(60);

/// What 99 of 100 joins may take beside the readers.
const BAR: Duration = Duration::from_millis(50);

/// Sessions that read as much as they may.
struct Readers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..READERS).map(|number| {
            let (command, pace) = if number % 2 == 0 { HISTORY } else { MEMBERS };
            let stop = stop.clone();
            let command = frame(TEXT, command.as_bytes());
            thread::spawn(move || read(address, &command, pace, &stop))
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it only reads");
        }
    }
}

fn read(address: SocketAddr, command: &[u8], pace: Duration, stop: &AtomicBool) {
    let mut socket = shake(address).expect("it is let in");
    let mut answers = socket.try_clone().expect("a second handle");
    let reader = thread::spawn(move || {
        let mut scrap = vec![0; 64 << 10];
        while let Ok(1..) = answers.read(&mut scrap) {}
    });
    socket
        .write_all(&command.repeat(BURST))
        .expect("within the rate");
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(pace);
        socket.write_all(command).expect("within the rate");
    }
    let _ = socket.shutdown(std::net::Shutdown::Both);
    reader.join().expect("it only reads");
}

/// What joins of new rooms took, the quickest first.
async fn joins(node: &NodeProcess, phase: &str) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut client = node.client().await;
    for number in 0..JOINS {
        runtime::sleep(PACE).await;
        let start = Instant::now();
        client.join(&format!("{phase}-{number}")).await;
        took.push(start.elapsed());
        client
            .call(json!({"type": "leave", "room": format!("{phase}-{number}")}))
            .await;
    }
    took.sort_unstable();
    let ms = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1000.0;
    println!(
        "{phase:8} joins: p50 {:6.2} ms, p99 {:6.2} ms",
        ms(50),
        ms(99)
    );
    took
}

#[test]
#[ignore = "it measures, on a machine that does nothing else: make isolation"]
fn first_joins_are_quick_beside_sessions_that_read_at_their_rate() {
    run(async {
        let redis = RedisServer::start();
        let url = redis.url();
        // The default limits, which open mode would leave out.
        let mut node = NodeProcess::start(&[
            "--redis",
            &url,
            "--commands-per-second",
            "100",
            "--bytes-per-second",
            "256KiB",
        ])
        .await;
        node.logged("Redis is reached; probes come back").await;
        let mut client = node.client().await;
        for _ in 0..MESSAGES {
            let data = json!("x".repeat(MESSAGE));
            client.publish("full", data).await;
        }
        joins(&node, "quiet").await;
        let readers = Readers::start(node.address);
        let took = joins(&node, "beside").await;
        readers.stop();
        let p99 = took[took.len() * 99 / 100];
        assert!(p99 <= BAR, "{p99:?}");
    });
}

/// Joins through the slow link: so many sessions join so many rooms each, all at once.
const SESSIONS: usize = 60;
const ROOMS: usize = 50;

/// What the link takes each way; a round trip takes twice as long.
const EACH_WAY: Duration = Duration::from_millis(5);

/// The bar, in joins per second.
const RATE: f64 = 3000.0;

/// Joins rooms of its own, and returns how many joins were refused.
fn join_all(mut socket: TcpStream, number: usize) -> usize {
    let joins: Vec<u8> = (0..ROOMS)
        .flat_map(|room| {
            let join = format!(r#"{{"type":"join","id":{room},"room":"r-{number}-{room}"}}"#);
            frame(TEXT, join.as_bytes())
        })
        .collect();
    socket.write_all(&joins).expect("it is read");
    let (mut text, mut buffer) = (String::new(), vec![0; 64 << 10]);
    let count = |text: &str, what: &str| text.matches(what).count();
    loop {
        let refused = count(&text, r#""type":"error""#);
        if count(&text, r#""type":"ok""#) + refused == ROOMS {
            return refused;
        }
        let read = socket.read(&mut buffer).expect("it answers");
        assert!(read > 0, "it ended after {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}

#[test]
#[ignore = "it measures, on a machine that does nothing else: make isolation"]
fn thousands_of_first_joins_a_second_pass_a_slow_link_to_redis() {
    run(async {
        let redis = RedisServer::start();
        let link = SlowLink::before(redis.port(), EACH_WAY);
        let url = link.url();
        let mut node = NodeProcess::start(&["--redis", &url]).await;
        node.logged("Redis is reached; probes come back").await;
        let sockets: Vec<TcpStream> = (0..SESSIONS)
            .map(|_| shake(node.address).expect("it is let in"))
            .collect();
        let start = Instant::now();
        let threads: Vec<_> = sockets
            .into_iter()
            .enumerate()
            .map(|(number, socket)| thread::spawn(move || join_all(socket, number)))
            .collect();
        let refused: usize = threads
            .into_iter()
            .map(|thread| thread.join().expect("it only joins"))
            .sum();
        let rate = (SESSIONS * ROOMS) as f64 / start.elapsed().as_secs_f64();
        println!("{rate:.0} first joins a second, {refused} refused, 5 ms each way");
        assert_eq!(refused, 0);
        assert!(rate >= RATE, "{rate:.0}");
    });
}
