//! One connection: HTTP requests until one upgrades, then two tasks, a `reader` that turns frames
//! into events and a `writer` that drains the session's outbox. They are two so that a delivery
//! does not poll the reading side in vain.

mod calls;
mod codec;
pub mod handshake;
pub mod http_phase;
pub mod limits;
pub mod pages;
mod reader;
mod refusal_log;
mod routes;
mod throttled_reader;
mod writer;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use flume::TrySendError;
use futures::future::OptionFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures::stream::StreamExt;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use ipnet::IpNet;

use crate::api::Gate;
use crate::auth::{Auth, Hooks};
use crate::dispatcher::Event;
use crate::http::{self, HeadLimits};
use crate::metrics::Metrics;
use crate::model::id::SessionId;
use crate::model::identity::Identity;
use crate::model::readiness::Readiness;
use crate::outbox::{ConnectionControl, OutboxLimits, Permit, TooManyRooms, outbox};
use crate::protocol::decoder::Decoder;
use crate::protocol::frame;
use crate::runtime;
use crate::transport::limits::{
    AddressPermit, Addresses, Charge, IngressLimits, Quota, SharedQuota, SharedQuotas, TooMany,
};
use crate::transport::pages::Assets;
use crate::transport::refusal_log::RefusalLog;
pub(crate) use routes::Endpoint;

/// The most bytes of one read, by which a session may exceed its rate; also the size of
/// tungstenite's buffer during a message. Most messages are shorter; a longer one takes several
/// reads.
const READ_BUFFER: usize = 1024;

/// The part of a socket's receive buffer that counts as a backlog. The kernel counts its own
/// overhead too, so the buffer is full with a quarter to three quarters of its size in payload.
const BACKLOG_SHARE: usize = 8;

/// Which of the node's listeners accepted a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// `--listen`: clients, pages, and the HTTP API unless it has its own.
    Public,
    /// `--api-listen`: only the HTTP API, the metrics and the health checks.
    Backends,
}

/// Reads in a row after which a task yields: a peer that never stops sending would otherwise occupy
/// the thread.
const READS_IN_A_ROW: u8 = 32;

/// Reads until a closed connection is cut off: a megabyte, more than a well-behaved client has in
/// flight when it receives the close.
const LINGER_READS: u16 = 2048;

/// The pause between two reads of a closed connection: waking for every few bytes would cost the
/// node more than the sender.
const LINGER_PAUSE: Duration = Duration::from_millis(10);

/// A stream whose clones share one socket, and which another task can shut down.
pub trait SharedSocket: AsyncRead + AsyncWrite + Clone + Send + Sync + Unpin + 'static {
    /// Ends both directions without waiting; pending reads and writes end too.
    fn shutdown(&self);

    /// Whether what was received and not yet read fills a considerable part of the receive buffer:
    /// an eighth, which is 16 KiB at first under Linux. A peer that waits for answers has less in
    /// flight; one that does not adapt to pauses fills the buffer. A stream without such a buffer
    /// has none.
    fn has_backlog(&self) -> bool {
        false
    }
}

impl SharedSocket for runtime::Socket {
    fn shutdown(&self) {
        runtime::Socket::shutdown(self);
    }

    fn has_backlog(&self) -> bool {
        // An error means that the connection has ended, which the next read returns.
        let backlog = self.unread().and_then(|unread| {
            let buffer = self.receive_buffer()?;
            Ok(unread >= buffer / BACKLOG_SHARE)
        });
        backlog.unwrap_or(false)
    }
}

/// What all connections of a node share.
pub struct Node {
    pub assets: Assets,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    pub inbox: flume::Sender<Event>,
    pub limits: Limits,
    pub auth: Auth,
    /// The rules of the embedding program.
    pub hooks: Arc<Hooks>,
    /// Pages are admitted only under a name or address of this machine: see
    /// [`Rules::own_hosts`](crate::transport::handshake::Rules::own_hosts).
    pub own_hosts: Option<IpAddr>,
    /// Origins that may connect besides those of the same host.
    pub origins: Vec<String>,
    /// The networks of the proxies that name the client's address.
    pub trusted_proxies: Vec<IpNet>,
    /// Counts the connections of each client address, if there is a limit.
    pub addresses: Option<Addresses>,
    /// The limits of users and of the addresses of anonymous clients; none in open mode.
    pub shared_quotas: Option<SharedQuotas>,
    /// The log of refused handshakes.
    pub refusals: RefusalLog,
    pub echo_path: Option<String>,
    /// Which requests the HTTP API admits.
    pub gate: Gate,
    /// Whether the HTTP API has a listener of its own, and is not served on the public one.
    pub api_separate: bool,
    /// Each call in flight holds a sender, so that a drain can wait for the last.
    pub calls: flume::WeakSender<()>,
    /// The next session's number.
    pub sessions: AtomicU64,
    /// The start of the clock of the sessions' rates.
    pub started: Instant,
}

/// The limits of one connection.
#[derive(Clone, Debug)]
pub struct Limits {
    pub head: HeadLimits,
    /// For a whole head, from its first byte (of the first request: from the accept), and for a
    /// whole body.
    pub head_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// For carrying out a call of the HTTP API, once it was read.
    pub call_timeout: Duration,
    /// Calls that are carried out at once.
    pub calls: usize,
    /// How long a refused peer may take to hang up.
    pub close_timeout: Duration,
    /// Bytes of one WebSocket message.
    pub message: usize,
    /// How deeply a command may be nested.
    pub depth: usize,
    pub ingress: IngressLimits,
    pub outbox: OutboxLimits,
}

impl Node {
    fn websocket_config(&self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(self.limits.message))
            .max_frame_size(Some(self.limits.message))
    }

    /// The limits of requests on a listener: chunks only where the HTTP API is served.
    fn head_limits(&self, listener_kind: ListenerKind) -> HeadLimits {
        let limits = self.limits.head.clone();
        match listener_kind {
            ListenerKind::Public if self.api_separate => HeadLimits {
                chunked: |_, _| false,
                ..limits
            },
            _ => limits,
        }
    }

    /// Whether this peer is a trusted proxy.
    fn is_proxy(&self, peer: IpAddr) -> bool {
        http::contain(&self.trusted_proxies, peer)
    }

    /// A permit for a connection of this address, if these are limited.
    fn claim(&self, address: IpAddr) -> Result<Option<Box<AddressPermit>>, TooMany> {
        let claim = self.addresses.as_ref().map(|table| table.claim(address));
        Ok(claim.transpose()?.map(Box::new))
    }

    /// Sends an event to the dispatcher, and waits while its inbox is full. The future of the wait,
    /// which is rare, is boxed, so that it takes no memory in each task.
    fn send(&self, event: Event) -> impl Future<Output = ()> {
        let full = match self.inbox.try_send(event) {
            Err(TrySendError::Full(event)) => Some(Box::pin(self.inbox.send_async(event))),
            // Without a dispatcher the process is ending.
            Ok(()) | Err(TrySendError::Disconnected(_)) => None,
        };
        OptionFuture::from(full).map(drop)
    }

    /// The limits of the client's user or, if it is anonymous, of its address.
    fn shared_quota(
        &self,
        address: IpAddr,
        identity: Option<&Identity>,
    ) -> Option<Arc<SharedQuota>> {
        let (quotas, now) = (self.shared_quotas.as_ref()?, self.now());
        Some(match identity {
            Some(identity) => quotas.of_user(&identity.user, now),
            None => quotas.of_address(address, now),
        })
    }

    /// The time of the sessions' rates, in nanoseconds.
    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// A session number that no other session of this node has.
    pub fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// Counts a panic of the task and returns `None` for it.
    ///
    /// Not an `async fn`: that would store the task twice, as its argument and as the awaited
    /// future, for as long as a connection lives.
    fn guarded<T>(&self, task: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
        AssertUnwindSafe(task).catch_unwind().map(|outcome| {
            if outcome.is_err() {
                self.metrics.panics_total.add(1);
            }
            outcome.ok()
        })
    }
}

/// An accepted connection, counted until its last part is dropped.
pub struct Counted {
    metrics: Arc<Metrics>,
    /// Its permit among those of its client's address.
    claim: Option<Box<AddressPermit>>,
}

impl Counted {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections_open.add(1);
        metrics.connections_total.add(1);
        Self {
            metrics,
            claim: None,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.connections_open.sub(1);
    }
}

/// Serves one accepted socket to its end, or hands it to its session's tasks.
///
/// The connections of a trusted proxy are counted by client address, once a head has named it;
/// those of backends are not.
pub async fn serve<S: SharedSocket>(
    node: Arc<Node>,
    socket: S,
    peer: SocketAddr,
    listener_kind: ListenerKind,
    mut counted: Counted,
) {
    if listener_kind == ListenerKind::Public && !node.is_proxy(peer.ip()) {
        counted.claim = match node.claim(peer.ip()) {
            Ok(claim) => claim,
            Err(TooMany) => return http_phase::refuse_address(&node, socket).await,
        };
    }
    let serving = http_phase::serve(&node, socket.clone(), peer, listener_kind);
    let Some(Ok(Some(mut upgraded))) = node.guarded(serving).await else {
        return;
    };
    if let Some(claim) = upgraded.claim.take() {
        counted.claim = Some(claim);
    }
    match upgraded.endpoint {
        Endpoint::Echo => {
            node.guarded(echo(&node, socket, upgraded)).await;
        }
        Endpoint::Protocol(protocol) => {
            routes::start(protocol, &node, socket, upgraded, counted).await
        }
    }
}

/// Serves one accepted socket of a full node, and holds the permit meanwhile.
pub(crate) async fn serve_full<S: SharedSocket>(node: Arc<Node>, socket: S, _permit: Arc<()>) {
    // The connection is over either way, so its error does not matter.
    let _ = node.guarded(http_phase::serve_full(&node, socket)).await;
}

/// The result of a handshake.
pub(crate) struct Upgraded {
    endpoint: Endpoint,
    /// The response to the handshake, not yet written.
    answer: Vec<u8>,
    /// Bytes received behind the head: they belong to the WebSocket.
    rest: Vec<u8>,
    /// The client's address, as named by trusted proxies.
    client: IpAddr,
    /// The client's identity, if the handshake had credentials.
    identity: Option<Arc<Identity>>,
    /// The client's permit among those of its address, if a proxy named the address.
    claim: Option<Box<AddressPermit>>,
    shared_quota: Option<Arc<SharedQuota>>,
}

/// Starts the tasks of a session, whose first bytes are the response to the handshake.
async fn start_session<S: SharedSocket, D: Decoder>(
    decoder: D,
    node: &Arc<Node>,
    socket: S,
    upgraded: Upgraded,
    counted: Counted,
) {
    let session = node.next_session();
    let quota = Arc::new(Quota::new(upgraded.shared_quota));
    let control = SessionControl {
        node: node.clone(),
        socket: socket.clone(),
        quota: quota.clone(),
        _counted: counted,
    };
    let (outbox, outgoing) = outbox(node.limits.outbox, control);
    // It is written together with the welcome, if the dispatcher is quick. The smallest outbox
    // bound has space for a head.
    outbox.offer(upgraded.answer.into());
    let client = upgraded.client.to_string();
    log::debug!(session = session.0, client = client.as_str(); "connected");
    let opened = Event::Opened {
        session,
        protocol: D::PROTOCOL,
        identity: upgraded.identity,
        outbox: outbox.clone(),
    };
    if node.inbox.send_async(opened).await.is_err() {
        return;
    }
    runtime::spawn(writer::run(node.clone(), session, socket.clone(), outgoing));
    runtime::spawn(reader::run(
        node.clone(),
        session,
        decoder,
        socket,
        upgraded.rest,
        outbox,
        quota,
    ));
}

/// What the outbox of a session controls of its connection. All parts of the connection share it,
/// and the last part drops it.
struct SessionControl<S> {
    node: Arc<Node>,
    socket: S,
    quota: Arc<Quota>,
    _counted: Counted,
}

impl<S: SharedSocket> ConnectionControl for SessionControl<S> {
    fn hang_up(&self) {
        self.socket.shutdown();
    }

    fn charge(&self, commands: u32) {
        let Node { limits, .. } = &*self.node;
        // The reader pauses before its next read.
        let charge = Charge {
            commands,
            bytes: 0,
            now: self.node.now(),
        };
        self.quota.charge(&limits.ingress, charge);
    }

    fn open_room(&self) -> Result<Option<Permit>, TooManyRooms> {
        let Some(shared) = self.quota.shared() else {
            return Ok(None);
        };
        let permit = shared.open_room().ok_or(TooManyRooms)?;
        Ok(Some(Box::new(permit)))
    }
}

/// The conformance endpoint: tungstenite alone sends each message back unchanged.
async fn echo<S: SharedSocket>(node: &Node, mut socket: S, upgraded: Upgraded) {
    if socket.write_all(&upgraded.answer).await.is_err() {
        return;
    }
    let (config, rest) = (Some(node.websocket_config()), upgraded.rest);
    let mut stream =
        WebSocketStream::from_partially_read(socket.clone(), rest, Role::Server, config).await;
    while let Some(message) = stream.next().await {
        match message {
            Ok(message) if message.is_text() || message.is_binary() => {
                if stream.send(message).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                let why = reader::close_reason(&error);
                why.inspect(|why| node.metrics.disconnected_total.count(*why));
                if let Some(why) = why
                    && socket.write_all(&frame::close(why)).await.is_ok()
                {
                    finish(socket, node.limits.close_timeout).await;
                }
                return;
            }
        }
    }
}

/// Closes the sending direction and waits for the peer to close: see [`linger`].
async fn finish<S: SharedSocket>(mut socket: S, time: Duration) {
    if socket.close().await.is_ok() {
        linger(socket, time).await;
    }
}

/// Reads and discards until the peer closes or the time is over: closing with unread bytes would
/// reset the connection, and the peer might lose the answer that was just written. A peer that goes
/// on sending is cut off.
async fn linger<S: SharedSocket>(mut socket: S, time: Duration) {
    let mut scrap = [0; 512];
    let reading = async {
        for reads in 1..=LINGER_READS {
            let Ok(read @ 1..) = socket.read(&mut scrap).await else {
                return;
            };
            if read < scrap.len() || reads.is_multiple_of(READS_IN_A_ROW.into()) {
                runtime::sleep(LINGER_PAUSE).await;
            }
        }
    };
    // A timeout ends the connection too.
    let _ = runtime::timeout(time, reading).await;
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}
