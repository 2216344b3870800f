//! One socket's life: requests by the HTTP door until one asks to upgrade, then two tasks, a
//! `reader` that makes events of frames and a `writer` that drains the session's outbox. They are
//! two so that a delivery costs no useless look at the reading side.

mod calls;
mod codec;
pub mod handshake;
pub mod http_phase;
pub mod limits;
pub mod pages;
mod reader;
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

use crate::api::Gate;
use crate::auth::Auth;
use crate::dispatcher::Event;
use crate::dispatcher::outbox::{OutboxLimits, outbox};
use crate::http::HeadLimits;
use crate::metrics::Metrics;
use crate::model::id::SessionId;
use crate::model::identity::Identity;
use crate::model::readiness::Readiness;
use crate::protocol::{Protocol, frame};
use crate::runtime;
use crate::transport::limits::{Addresses, Claim, IngressLimits, TooMany};
use crate::transport::pages::Assets;

/// Where the native protocol is spoken.
pub const NATIVE_PATH: &str = "/ws";

/// The subprotocol that a client may offer for it: a browser that offers its token as one wants
/// another one chosen.
const SUBPROTOCOL: &str = "switchboard";

/// Bytes of one read at most, by which a session may be ahead of its rate; and what tungstenite has
/// while a message is coming. Most messages are shorter; a longer one is taken in several pieces.
const READ_BUFFER: usize = 1024;

/// By which of the node's listeners a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// `--listen`: clients, pages, and the HTTP API unless it has its own.
    Public,
    /// `--api-listen`: the HTTP API, the figures and the health checks, and nothing else.
    Backends,
}

/// Reads in a row after which the other tasks of the thread have their turn: a peer that never
/// stops sending would otherwise keep the thread for itself.
const READS_IN_A_ROW: u8 = 32;

/// Reads until a closed connection is cut off: a megabyte, more than an honest client has under way
/// when it hears of the end.
const LINGER_READS: u16 = 2048;

/// How long a closed connection is left alone between two looks at what still comes: being woken
/// for every few bytes would cost the node more than it costs whoever sends them.
const LINGER_PAUSE: Duration = Duration::from_millis(10);

/// A stream whose clones are one socket, and which can be ended from outside.
pub trait Socket: AsyncRead + AsyncWrite + Clone + Send + Sync + Unpin + 'static {
    /// Ends both directions without waiting; pending reads and writes end too.
    fn shutdown(&self);
}

impl Socket for runtime::Socket {
    fn shutdown(&self) {
        runtime::Socket::shutdown(self);
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
    /// Pages are let in only under a name or address of this machine: see
    /// [`Rules::own_hosts`](crate::transport::handshake::Rules::own_hosts).
    pub own_hosts: Option<IpAddr>,
    /// Origins that may connect besides those of the same host.
    pub origins: Vec<String>,
    pub trusted_proxies: Vec<IpAddr>,
    /// Counts the connections of each client address, if there is a limit.
    pub addresses: Option<Addresses>,
    pub echo_path: Option<String>,
    /// Who may call the HTTP API.
    pub gate: Gate,
    /// Whether the HTTP API has a listener of its own, and is not served on the public one.
    pub api_apart: bool,
    /// Each call under way holds one, so that a drain can wait for the last.
    pub calls: flume::WeakSender<()>,
    /// The next session's number.
    pub sessions: AtomicU64,
    /// Where the clock of the sessions' rates begins.
    pub started: Instant,
}

/// How far a stranger may go on one connection.
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
    pub intake: IngressLimits,
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

    /// Whether what this peer says of its clients' addresses is believed.
    fn is_proxy(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies
            .iter()
            .any(|proxy| proxy.to_canonical() == peer)
    }

    /// A place among the connections of an address, where these are limited.
    fn claim(&self, address: IpAddr) -> Result<Option<Box<Claim>>, TooMany> {
        let claim = self.addresses.as_ref().map(|table| table.claim(address));
        Ok(claim.transpose()?.map(Box::new))
    }

    /// Hands an event to the dispatcher, and waits while its inbox is full: then the wait has a
    /// place of its own, which is seldom, instead of one in each task.
    fn tell(&self, event: Event) -> impl Future<Output = ()> {
        let full = match self.inbox.try_send(event) {
            Err(TrySendError::Full(event)) => Some(Box::pin(self.inbox.send_async(event))),
            // Without a dispatcher the process is ending.
            Ok(()) | Err(TrySendError::Disconnected(_)) => None,
        };
        OptionFuture::from(full).map(drop)
    }

    fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// Counts and logs a panic; `None` tells that there was one.
    ///
    /// Not an `async fn`: that would keep the task twice, as its argument and as what it awaits,
    /// for as long as a connection lives.
    fn guarded<T>(&self, task: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
        AssertUnwindSafe(task).catch_unwind().map(|outcome| {
            if outcome.is_err() {
                self.metrics.panics_total.add(1);
            }
            outcome.ok()
        })
    }
}

/// An accepted connection, counted for as long as any of its parts lives.
pub struct Counted {
    metrics: Arc<Metrics>,
    /// Its place among those of its client's address.
    claim: Option<Box<Claim>>,
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
/// The connections of a trusted proxy are counted for its clients, once a head has told which;
/// those of backends are not.
pub async fn serve<S: Socket>(
    node: Arc<Node>,
    socket: S,
    peer: SocketAddr,
    entrance: Entrance,
    mut counted: Counted,
) {
    if entrance == Entrance::Public && !node.is_proxy(peer.ip()) {
        counted.claim = match node.claim(peer.ip()) {
            Ok(claim) => claim,
            Err(TooMany) => return http_phase::turn_away_one_of_many(&node, socket).await,
        };
    }
    let serving = http_phase::serve(&node, socket.clone(), peer, entrance);
    let Some(Ok(Some(mut upgraded))) = node.guarded(serving).await else {
        return;
    };
    if let Some(claim) = upgraded.claim.take() {
        counted.claim = Some(claim);
    }
    match upgraded.speaks {
        Speaks::Echo => {
            node.guarded(echo(&node, socket, upgraded)).await;
        }
        Speaks::Protocol(protocol) => {
            start_session(&node, socket, protocol, upgraded, counted).await
        }
    }
}

/// Serves one accepted socket of a node that is full, while the seat is held.
pub async fn serve_full<S: Socket>(node: Arc<Node>, socket: S, _seat: Arc<()>) {
    // An error is that of a connection which is over either way.
    let _ = node.guarded(http_phase::serve_full(&node, socket)).await;
}

/// What a handshake has led to.
pub struct Upgraded {
    speaks: Speaks,
    /// The answer to the handshake, which is still to be written.
    answer: Vec<u8>,
    /// Bytes that came behind the head: they belong to the WebSocket.
    rest: Vec<u8>,
    /// The client's address, as far as trusted proxies tell it.
    client: IpAddr,
    /// Who the client is, as far as the handshake tells it.
    identity: Option<Arc<Identity>>,
    /// The client's place among those of its address, if a proxy told the address.
    claim: Option<Box<Claim>>,
}

#[derive(Clone, Copy)]
pub enum Speaks {
    Protocol(Protocol),
    Echo,
}

async fn start_session<S: Socket>(
    node: &Arc<Node>,
    socket: S,
    protocol: Protocol,
    upgraded: Upgraded,
    counted: Counted,
) {
    let session = node.next_session();
    let hung_up = socket.clone();
    // The count lives in here because this is what all parts of the connection share, and the last
    // drops.
    let (outbox, outgoing) = outbox(node.limits.outbox, move || {
        let _lives_with_the_connection = &counted;
        hung_up.shutdown();
    });
    // It goes out together with the welcome, if the dispatcher is quick. The bound has room for a
    // head, whatever it is.
    outbox.offer(upgraded.answer.into());
    let client = upgraded.client.to_string();
    log::debug!(session = session.0, client = client.as_str(); "connected");
    let opened = Event::Opened {
        session,
        protocol,
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
        protocol,
        socket,
        upgraded.rest,
        outbox,
    ));
}

/// The conformance endpoint: each message goes back as it came, by tungstenite alone.
async fn echo<S: Socket>(node: &Node, mut socket: S, upgraded: Upgraded) {
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
                let why = reader::blame(&error);
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

/// Ends what we say and lets the peer hang up: see [`linger`].
async fn finish<S: Socket>(mut socket: S, time: Duration) {
    if socket.close().await.is_ok() {
        linger(socket, time).await;
    }
}

/// Reads until the peer ends or the time is over, and forgets what comes: closing with unread bytes
/// would reset the connection, and the peer might lose the answer that was just written. Who goes
/// on sending all the same is cut off.
async fn linger<S: Socket>(mut socket: S, time: Duration) {
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
    // Either way it is over.
    let _ = runtime::timeout(time, reading).await;
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}
