//! The accepting task: it takes connections in, paced while the dispatcher lags, and turns away
//! those that are too many. A health check is answered all the same: a node that is busy or full is
//! not a dead one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{Either, select};

use crate::metrics::Refused;
use crate::runtime::{self, AcceptFailure, Listener, Socket};
use crate::transport::{self, Counted, Entrance, Node};

/// How long accepting pauses when there are no descriptors or no memory for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How often it is logged at most that newcomers are not taken in.
const EXHAUSTED_LOG: Duration = Duration::from_secs(1);

/// While the dispatcher lags, which shows in a half-full inbox, new connections wait in the
/// kernel's queue: those who are here already come first. This is how often accepting looks again.
const ADMISSION_PAUSE: Duration = Duration::from_millis(5);

/// After this one connection is taken in however the dispatcher lags. Ten a second are nothing
/// beside what makes a dispatcher lag, and a health check, which needs no dispatcher, is not kept
/// waiting for ever.
const ADMISSION_PAUSE_MOST: Duration = Duration::from_millis(100);

/// Connections at once that a full node hears out, in case they are health checks. All others are
/// told that it is full before anything of them is read.
const SEATS: usize = 64;

/// What the accepting task owns. It accepts until the server is dropped: one bad connection, or
/// none left to have, never ends it. A broken listener ends the node, because nobody would find a
/// node that takes no connections.
pub struct Acceptor {
    listener: Listener,
    entrance: Entrance,
    node: Arc<Node>,
    /// Connections that may be open at once.
    max: u64,
    stop: flume::Receiver<()>,
    failed: flume::WeakSender<()>,
    /// When it was last logged that there is no room for another connection.
    told: Option<Instant>,
    /// Its clones are held by the connections that a full node hears out.
    seat: Arc<()>,
}

impl Acceptor {
    /// `stop` is disconnected when the server is dropped; `failed` is told when the listener is
    /// broken.
    pub fn new(
        listener: Listener,
        entrance: Entrance,
        node: Arc<Node>,
        max: u64,
        stop: flume::Receiver<()>,
        failed: flume::WeakSender<()>,
    ) -> Self {
        Self {
            listener,
            entrance,
            node,
            max,
            stop,
            failed,
            told: None,
            seat: Arc::default(),
        }
    }

    pub async fn run(mut self) {
        loop {
            self.pace().await;
            match self.next().await {
                Some(Ok((socket, peer))) => self.take_in(socket, peer),
                Some(Err(error)) => match runtime::accept_failure(&error) {
                    AcceptFailure::Transient => {}
                    AcceptFailure::Exhausted => {
                        self.tell("out of files or memory");
                        runtime::sleep(EXHAUSTED_PAUSE).await;
                    }
                    AcceptFailure::Fatal => return self.fail(&error),
                },
                None => return,
            }
        }
    }

    /// Waits while the dispatcher lags, up to a bound.
    async fn pace(&self) {
        let start = Instant::now();
        while self.lags() && start.elapsed() < ADMISSION_PAUSE_MOST {
            runtime::sleep(ADMISSION_PAUSE).await;
        }
    }

    fn lags(&self) -> bool {
        let inbox = &self.node.inbox;
        inbox.len() > inbox.capacity().unwrap_or(usize::MAX) / 2
    }

    /// The next connection; `None` when the server was dropped.
    async fn next(&self) -> Option<io::Result<(Socket, SocketAddr)>> {
        let accepting = self.listener.accept().boxed();
        match select(accepting, self.stop.recv_async()).await {
            Either::Left((accepted, _)) => Some(accepted),
            Either::Right(_) => None,
        }
    }

    fn take_in(&mut self, socket: Socket, peer: SocketAddr) {
        let node = self.node.clone();
        if node.metrics.connections_open.get() < self.max {
            let counted = Counted::new(node.metrics.clone());
            return runtime::spawn(transport::serve(node, socket, peer, self.entrance, counted));
        }
        self.tell("as many connections as there may be");
        // One of the clones is our own.
        if Arc::strong_count(&self.seat) <= SEATS {
            let seat = self.seat.clone();
            return runtime::spawn(transport::serve_full(node, socket, seat));
        }
        node.metrics.refused_total.count(Refused::Connections);
        let time = node.limits.close_timeout;
        runtime::spawn(transport::http_phase::turn_away(socket, time));
    }

    /// Logs why newcomers are not taken in, once a second at most.
    fn tell(&mut self, reason: &str) {
        if self.told.is_none_or(|last| last.elapsed() > EXHAUSTED_LOG) {
            self.told = Some(Instant::now());
            let open = self.node.metrics.connections_open.get();
            log::error!(reason = reason, open = open, max = self.max; "cannot take connections in");
        }
    }

    fn fail(&self, error: &io::Error) {
        log::error!(error = error.to_string().as_str(); "the listener has failed");
        if let Some(failed) = self.failed.upgrade() {
            // When it is full, the news is known.
            let _ = failed.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::Event;
    use crate::dispatcher::outbox::OutboxLimits;
    use crate::http::HeadLimits;
    use crate::model::readiness::Readiness;
    use crate::transport::Limits;
    use crate::transport::limits::IngressLimits;
    use crate::transport::pages::Assets;
    use futures::{AsyncReadExt, AsyncWriteExt};
    use std::sync::atomic::AtomicU64;

    const LONG: Duration = Duration::from_secs(20);

    /// A node that accepts, and whose inbox is emptied by nobody but the test.
    struct Door {
        address: SocketAddr,
        inbox: flume::Receiver<Event>,
        _accepting: flume::Sender<()>,
    }

    fn open(max: u64, waiting: usize) -> Door {
        let (say, inbox) = flume::bounded(100);
        (0..waiting).for_each(|_| say.send(Event::Tick).unwrap());
        let limits = Limits {
            head: HeadLimits {
                bytes: 4096,
                fields: 64,
                target: 1024,
                body: 1024,
            },
            head_timeout: LONG,
            idle_timeout: LONG,
            call_timeout: LONG,
            calls: 1,
            close_timeout: LONG,
            message: 1024,
            depth: 64,
            intake: IngressLimits {
                commands: None,
                bytes: None,
                rate_timeout: LONG,
                fragments: 1024,
                message_timeout: LONG,
            },
            outbox: OutboxLimits {
                bytes: 4096,
                frames: 64,
            },
        };
        let node = Node {
            assets: Assets::default(),
            readiness: Readiness::default(),
            metrics: Arc::default(),
            inbox: say,
            limits,
            auth: crate::auth::Auth::Open,
            own_hosts: None,
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            addresses: None,
            echo_path: None,
            gate: crate::api::Gate::Closed,
            api_apart: false,
            calls: flume::bounded(1).0.downgrade(),
            sessions: AtomicU64::new(1),
            started: Instant::now(),
        };
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr();
        let (accepting, stop) = flume::bounded(1);
        let (ending, _) = flume::bounded(1);
        let acceptor = Acceptor::new(
            listener,
            Entrance::Public,
            Arc::new(node),
            max,
            stop,
            ending.downgrade(),
        );
        runtime::spawn(acceptor.run());
        Door {
            address,
            inbox,
            _accepting: accepting,
        }
    }

    impl Door {
        async fn connect(&self) -> Socket {
            runtime::connect(self.address, LONG).await.unwrap()
        }

        /// The status that one GET on a connection of its own is answered with.
        async fn get(&self, path: &str) -> String {
            status(self.connect().await, path).await
        }

        async fn health(&self, times: usize) -> Duration {
            let start = Instant::now();
            for _ in 0..times {
                assert_eq!(self.get("/healthz").await, "200");
            }
            start.elapsed()
        }
    }

    /// What is said to a GET; nothing is sent where the path is empty.
    async fn status(mut socket: Socket, path: &str) -> String {
        if !path.is_empty() {
            let get = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            socket.write_all(get.as_bytes()).await.unwrap();
        }
        let mut answer = vec![0; 12];
        let reading = socket.read_exact(&mut answer);
        runtime::timeout(LONG, reading).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer[9..]).into_owned()
    }

    #[test]
    fn newcomers_are_paced_while_the_dispatcher_lags_and_let_in_at_once_when_it_does_not() {
        runtime::block_on(async {
            let door = open(1000, 51);
            let paced = door.health(10).await;
            assert!(
                paced >= 10 * ADMISSION_PAUSE_MOST - ADMISSION_PAUSE_MOST,
                "{paced:?}"
            );
            door.inbox.recv().unwrap();
            let free = door.health(10).await;
            assert!(free < paced, "{free:?}");
        });
    }

    #[test]
    fn a_full_node_answers_health_checks_and_turns_all_others_away() {
        runtime::block_on(async {
            let door = open(0, 0);
            assert_eq!(door.get("/healthz").await, "200");
            assert_eq!(door.get("/readyz").await, "503", "no broker is ready here");
            for path in ["/", "/ws", "/metrics"] {
                assert_eq!(door.get(path).await, "503", "{path}");
            }
            assert_eq!(
                door.get("").await,
                "503",
                "whoever says nothing is told in time"
            );
        });
    }

    #[test]
    fn those_that_a_full_node_hears_out_are_bounded_and_their_seats_come_free() {
        runtime::block_on(async {
            let door = open(0, 0);
            let mut silent = Vec::new();
            for _ in 0..SEATS {
                silent.push(door.connect().await);
            }
            let start = Instant::now();
            // The kernel hands them over in order: all seats are taken.
            assert_eq!(door.get("/healthz").await, "503");
            for socket in silent {
                assert_eq!(status(socket, "").await, "503");
            }
            assert!(
                start.elapsed() < LONG / 2,
                "not the time of other connections"
            );
            assert_eq!(door.get("/healthz").await, "200");
        });
    }
}
