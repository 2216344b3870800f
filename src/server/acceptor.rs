//! The accept loop: it accepts connections, more slowly while the dispatcher lags, and refuses
//! those above the limit. A full node still answers health checks, so that it is not taken for a
//! dead one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{Either, select};

use crate::metrics::RefusalCause;
use crate::runtime::{self, AcceptFailure, Listener, Socket};
use crate::transport::{self, Counted, ListenerKind, Node};

/// How long accepting pauses when there are no descriptors or no memory for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The shortest time between two log lines about refused connections.
const EXHAUSTED_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// While the dispatcher lags (its inbox is half full), new connections wait in the kernel's queue,
/// because open ones have priority. This is the interval between two checks.
const ADMISSION_PAUSE: Duration = Duration::from_millis(5);

/// After this time one connection is accepted even if the dispatcher lags. Ten a second are
/// negligible beside the load that makes a dispatcher lag, and a health check, which needs no
/// dispatcher, does not wait for ever.
const ADMISSION_PAUSE_MOST: Duration = Duration::from_millis(100);

/// Connections of which a full node reads the request at once, because they may be health checks.
/// All others are refused before anything is read.
const FULL_PERMITS: usize = 64;

/// The state of the accept loop. It accepts until the server is dropped: neither a bad connection
/// nor a lack of descriptors ends it. A broken listener ends the node, because a node that accepts
/// no connections is useless.
pub(super) struct AcceptLoop {
    listener: Listener,
    listener_kind: ListenerKind,
    node: Arc<Node>,
    /// Connections that may be open at once.
    max: u64,
    stop: flume::Receiver<()>,
    failed: flume::WeakSender<()>,
    /// When refused connections were last logged.
    refusal_logged: Option<Instant>,
    /// Each connection of which a full node reads the request holds a clone.
    permit: Arc<()>,
}

impl AcceptLoop {
    /// `stop` is disconnected when the server is dropped; `failed` is sent to when the listener is
    /// broken.
    pub(super) fn new(
        listener: Listener,
        listener_kind: ListenerKind,
        node: Arc<Node>,
        max: u64,
        stop: flume::Receiver<()>,
        failed: flume::WeakSender<()>,
    ) -> Self {
        Self {
            listener,
            listener_kind,
            node,
            max,
            stop,
            failed,
            refusal_logged: None,
            permit: Arc::default(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            self.pace().await;
            match self.next().await {
                Some(Ok((socket, peer))) => self.admit(socket, peer),
                Some(Err(error)) => match runtime::accept_failure(&error) {
                    AcceptFailure::Transient => {}
                    AcceptFailure::Exhausted => {
                        self.log_refusal("out of files or memory");
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

    fn admit(&mut self, socket: Socket, peer: SocketAddr) {
        let node = self.node.clone();
        if node.metrics.connections_open.get() < self.max {
            let counted = Counted::new(node.metrics.clone());
            return runtime::spawn(transport::serve(
                node,
                socket,
                peer,
                self.listener_kind,
                counted,
            ));
        }
        self.log_refusal("the connection limit is reached");
        // One of the references is the acceptor's.
        if Arc::strong_count(&self.permit) <= FULL_PERMITS {
            let permit = self.permit.clone();
            return runtime::spawn(transport::serve_full(node, socket, permit));
        }
        node.metrics.refused_total.count(RefusalCause::Connections);
        let time = node.limits.close_timeout;
        runtime::spawn(transport::http_phase::refuse_full(socket, time));
    }

    /// Logs why connections are refused, at most once a second.
    fn log_refusal(&mut self, reason: &str) {
        if self
            .refusal_logged
            .is_none_or(|last| last.elapsed() > EXHAUSTED_LOG_INTERVAL)
        {
            self.refusal_logged = Some(Instant::now());
            let open = self.node.metrics.connections_open.get();
            log::error!(reason = reason, open = open, max = self.max; "cannot accept connections");
        }
    }

    fn fail(&self, error: &io::Error) {
        log::error!(error = error.to_string().as_str(); "the listener has failed");
        if let Some(failed) = self.failed.upgrade() {
            // When it is full, the failure is already reported.
            let _ = failed.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::Event;
    use crate::http::HeadLimits;
    use crate::model::readiness::Readiness;
    use crate::outbox::OutboxLimits;
    use crate::transport::Limits;
    use crate::transport::limits::IngressLimits;
    use crate::transport::pages::Assets;
    use futures::{AsyncReadExt, AsyncWriteExt};
    use std::sync::atomic::AtomicU64;

    const LONG: Duration = Duration::from_secs(20);

    /// A node that accepts, and whose inbox only the test empties.
    struct TestNode {
        address: SocketAddr,
        inbox: flume::Receiver<Event>,
        _accepting: flume::Sender<()>,
    }

    fn open(max: u64, waiting: usize) -> TestNode {
        let (sender, inbox) = flume::bounded(100);
        (0..waiting).for_each(|_| sender.send(Event::Tick).unwrap());
        let limits = Limits {
            head: HeadLimits {
                bytes: 4096,
                fields: 64,
                target: 1024,
                body: 1024,
                ..HeadLimits::default()
            },
            head_timeout: LONG,
            idle_timeout: LONG,
            call_timeout: LONG,
            calls: 1,
            close_timeout: LONG,
            message: 1024,
            depth: 64,
            ingress: IngressLimits {
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
            inbox: sender,
            limits,
            auth: crate::auth::Auth::Open,
            hooks: Arc::default(),
            own_hosts: None,
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            addresses: None,
            shared_quotas: None,
            refusals: Default::default(),
            echo_path: None,
            gate: crate::api::Gate::Closed,
            api_separate: false,
            calls: flume::bounded(1).0.downgrade(),
            sessions: AtomicU64::new(1),
            started: Instant::now(),
        };
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr();
        let (accepting, stop) = flume::bounded(1);
        let (ending, _) = flume::bounded(1);
        let acceptor = AcceptLoop::new(
            listener,
            ListenerKind::Public,
            Arc::new(node),
            max,
            stop,
            ending.downgrade(),
        );
        runtime::spawn(acceptor.run());
        TestNode {
            address,
            inbox,
            _accepting: accepting,
        }
    }

    impl TestNode {
        async fn connect(&self) -> Socket {
            runtime::connect(self.address, LONG).await.unwrap()
        }

        /// The status of the answer to one GET on its own connection.
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

    /// The status of the answer to a GET; if the path is empty, nothing is sent.
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
    fn accepting_is_paced_while_the_dispatcher_lags_and_immediate_otherwise() {
        runtime::block_on(async {
            let node = open(1000, 51);
            let paced = node.health(10).await;
            assert!(
                paced >= 10 * ADMISSION_PAUSE_MOST - ADMISSION_PAUSE_MOST,
                "{paced:?}"
            );
            node.inbox.recv().unwrap();
            let free = node.health(10).await;
            assert!(free < paced, "{free:?}");
        });
    }

    #[test]
    fn full_node_answers_health_checks_and_refuses_all_other_requests() {
        runtime::block_on(async {
            let node = open(0, 0);
            assert_eq!(node.get("/healthz").await, "200");
            assert_eq!(node.get("/readyz").await, "503", "no broker is ready here");
            for path in ["/", "/ws", "/metrics"] {
                assert_eq!(node.get(path).await, "503", "{path}");
            }
            assert_eq!(
                node.get("").await,
                "503",
                "a silent client gets an answer in time"
            );
        });
    }

    #[test]
    fn full_node_reads_a_bounded_number_of_requests_and_reuses_permits() {
        runtime::block_on(async {
            let node = open(0, 0);
            let mut silent = Vec::new();
            for _ in 0..FULL_PERMITS {
                silent.push(node.connect().await);
            }
            let start = Instant::now();
            // The kernel returns connections in order: all permits are taken.
            assert_eq!(node.get("/healthz").await, "503");
            for socket in silent {
                assert_eq!(status(socket, "").await, "503");
            }
            assert!(
                start.elapsed() < LONG / 2,
                "not the time of other connections"
            );
            assert_eq!(node.get("/healthz").await, "200");
        });
    }
}
