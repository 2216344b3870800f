//! The listeners of a node, and its wiring: [`Server::start`] builds the channels and tasks of a
//! node, and a [`Server`] is the value with which its owner waits for its end or drains it.
//!
//! A node stops by dropping, in order: the drain empties the outboxes, then the listener, the
//! dispatcher with the broker's handle, and the inbox are dropped; each task ends because the
//! channel it waits for is disconnected.

mod acceptor;
mod reporter;
pub mod shutdown;
mod site;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use acceptor::AcceptLoop;
use futures::future::{pending, select};

use crate::api::{self, Gate};
use crate::auth::{Auth, Hooks, KeyError};
use crate::broker::redis::wire::Format;
use crate::broker::{self, Broker, BrokerEvent, memory, redis};
use crate::config::{self, Config, ConfigError};
use crate::dispatcher::{self, Dispatcher, Event, Now, TICK};
use crate::embed::Handle;
use crate::http::{HeadLimits, canonical};
use crate::metrics::Metrics;
use crate::metrics::report::Reporter;
use crate::model::control::ControlLog;
use crate::model::id::{self, Incarnation};
use crate::model::pattern::Switches;
use crate::model::readiness::Readiness;
use crate::model::retention::{LogLimits, Retention};
use crate::model::rights::Rights;
use crate::model::webhook_event::WebhookSubscription;
use crate::outbox::OutboxLimits;
use crate::presence::PresenceSettings;
use crate::runtime::{self, Listener};
use crate::transport::limits::{Addresses, IngressLimits, Rate, SharedLimits, SharedQuotas};
use crate::transport::pages::Assets;
use crate::transport::{Limits, ListenerKind, Node};
use crate::webhooks::{self, Webhooks};

/// Open files that are not for clients: the listener, Redis, the log, and a reserve to refuse with.
/// Where fewer than twice as many are allowed, half of them.
pub(crate) const FILE_RESERVE: u64 = 256;

/// Connections that backends may have in addition to those of clients, so that the API and the
/// metrics of a full node stay reachable. Their files come out of [`FILE_RESERVE`].
const BACKENDS: u64 = 64;

/// How much longer than its publish timeout the broker may take to answer: a second for the broker
/// and a second for the channels.
const CALL_SLACK: Duration = Duration::from_secs(2);

/// The most header fields of one head.
const HEAD_FIELDS: usize = 64;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot read the pages in {}: {source}; check --www", directory.display())]
    Pages {
        directory: std::path::PathBuf,
        source: io::Error,
    },
    #[error("{0}")]
    Key(#[from] KeyError),
    #[error("cannot use Redis: {0}")]
    Redis(#[from] redis::RedisStartError),
    #[error("cannot send webhooks: {0}")]
    Webhooks(#[from] webhooks::WebhookStartError),
    #[error("the system has no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// A running node. It dereferences to its [`Handle`], which has the calls.
///
/// Call [`drain`](Self::drain) to end it. Without that, dropping it ends only the listeners: the
/// connections that are open stay open.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use switchboard::{Config, PublishOptions, Server};
///
/// let server = Server::start(&Config::default())?;
/// println!("ws://{}/ws", server.address());
/// server.publish("lobby", "hello", PublishOptions::default()).await?;
/// server.drain().await;
/// # Ok(())
/// # }
/// ```
pub struct Server {
    address: SocketAddr,
    api_address: Option<SocketAddr>,
    handle: Handle,
    drain_time: Duration,
    /// The deadline of a drain.
    grace: Duration,
    /// Disconnected when the dispatcher has ended; receives a message when a listener has failed.
    ended: flume::Receiver<()>,
    /// Calls in flight hold clones of `calls`; `calls_ended` is disconnected when the last is
    /// dropped.
    calls: flume::Sender<()>,
    calls_ended: flume::Receiver<()>,
    webhooks: Option<Webhooks>,
    /// Dropping it ends the accept loops.
    _accepting: flume::Sender<()>,
}

impl Server {
    /// Starts a node: it listens when this returns, and accepts clients as soon as its broker is
    /// ready, in memory at once. Its tasks run on the runtime that the crate was built for; with
    /// `rt-tokio` on the tokio runtime in which this is called, with I/O and time enabled, or else
    /// on one of its own.
    ///
    /// # Errors
    /// A number is out of range, two options contradict each other, the address is in use, a file
    /// cannot be read, or a key or the Redis cannot be used. A Redis that cannot be reached is no
    /// error: the node waits for it.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_with(config, Hooks::default())
    }

    /// The same with rules of the program about its clients.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub fn start_with(config: &Config, hooks: Hooks) -> Result<Self, StartError> {
        config.check()?;
        start(config, hooks)
    }

    /// The same without the check of the configuration: tests need shorter times than an operator
    /// may set.
    ///
    /// # Errors
    /// Those of [`start`](Self::start) but for the options.
    #[doc(hidden)]
    pub fn start_unchecked(config: &Config) -> Result<Self, StartError> {
        start(config, Hooks::default())
    }

    /// A handle for another task. It does not keep the node running.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The address it listens on, with the real port if the configured one was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the HTTP API's own listener, if it has one.
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api_address
    }

    #[doc(hidden)]
    pub fn metrics(&self) -> &Metrics {
        &self.handle.node().metrics
    }

    #[doc(hidden)]
    pub fn readiness(&self) -> &Readiness {
        &self.handle.node().readiness
    }

    /// Completes when the node has ended by itself, which happens only after a fault.
    pub async fn ended(&self) {
        let webhooks = async {
            match &self.webhooks {
                Some(webhooks) => webhooks.ended().await,
                None => pending().await,
            }
        };
        // Either way it is over.
        let _ = select(self.ended.recv_async(), pin!(webhooks)).await;
    }

    /// Closes all connections and subscriptions and ends the node. Until then it refuses new ones
    /// with a reason. Clients receive the close code 3001 and reconnect, to another node if there
    /// is one. It takes at most the `drain_time`, the `close_timeout` and a second.
    pub async fn drain(mut self) {
        self.handle.node().readiness.drain();
        let grace = self.grace;
        let webhooks = self.webhooks.take();
        let draining = async {
            // Without a dispatcher there is nothing left to drain.
            let _ = self
                .handle
                .node()
                .inbox
                .send_async(Event::Drain(self.drain_time))
                .await;
            self.ended().await;
            // From here on only calls in flight hold a sender, until their answers are written.
            drop(self.calls);
            let _ = self.calls_ended.recv_async().await;
        };
        if runtime::timeout(grace, draining).await.is_err() {
            log::warn!(seconds = grace.as_secs(); "drain timed out with open connections");
        }
        if let Some(webhooks) = webhooks {
            webhooks.finish().await;
        }
    }
}

impl Deref for Server {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Builds the channels and tasks of a node.
fn start(config: &Config, hooks: Hooks) -> Result<Server, StartError> {
    let mut config = config.clone();
    config.complete();
    let config = &config;
    let auth = Auth::new(config)?;
    let listener = bind(config.listen)?;
    let address = listener.local_addr();
    let api_listener = config.api_listen.map(bind).transpose()?;
    let api_address = api_listener.as_ref().map(Listener::local_addr);
    let incarnation = Incarnation(id::random()?);
    let readiness = Readiness::default();
    let metrics = Arc::new(Metrics::default());
    let (inbox, news, events) = dispatcher::inbox(config.inbox);
    let (webhooks, wanted) = start_webhooks(config, &metrics)?.unzip();
    let broker = start_broker(config, incarnation, wanted, &readiness, &metrics, news)?;

    let hooks = Arc::new(hooks);
    let settings = dispatcher_settings(config, incarnation, hooks.clone())?;
    let dispatcher = Dispatcher::new(Now::read(), settings, metrics.clone());
    // A node accepts tokens only after it has loaded the revocations.
    readiness.set_behind(!config.is_open());
    let dispatcher_readiness = readiness.clone();
    let (ending, ended) = flume::bounded(1);
    let listener_failed = ending.downgrade();
    runtime::spawn(async move {
        // Dropped when the task ends, also by a panic, which disconnects `ended`.
        let _ending: flume::Sender<()> = ending;
        dispatcher::run(dispatcher, events, broker, dispatcher_readiness).await;
    });
    runtime::spawn(tick(inbox.clone()));

    let (calls, calls_ended) = flume::bounded(1);
    let node = Arc::new(Node {
        assets: assets(config.www.as_deref())?,
        readiness,
        metrics,
        inbox,
        limits: limits(config),
        auth,
        hooks,
        own_hosts: (config.is_open() && !config.open).then_some(config.listen.ip()),
        origins: config.allow_origin.clone(),
        trusted_proxies: config
            .trusted_proxy
            .iter()
            .copied()
            .map(canonical)
            .collect(),
        addresses: Addresses::new(config.address_connections()),
        shared_quotas: shared_quotas(config),
        refusals: Default::default(),
        echo_path: config.echo_path.clone(),
        gate: gate(config),
        api_separate: api_listener.is_some(),
        calls: calls.downgrade(),
        sessions: AtomicU64::new(1),
        started: Instant::now(),
    });
    let reporter = Reporter::new(node.started, &config.node, incarnation, &node.metrics);
    runtime::spawn(reporter::run(node.clone(), reporter));
    let (accepting, stop) = flume::bounded(1);
    let max = max_connections(config);
    let listeners = [
        (Some(listener), ListenerKind::Public, max),
        (api_listener, ListenerKind::Backends, max + BACKENDS),
    ];
    for (listener, listener_kind, max) in listeners {
        let Some(listener) = listener else { continue };
        let (node, stop, failed) = (node.clone(), stop.clone(), listener_failed.clone());
        runtime::spawn(AcceptLoop::new(listener, listener_kind, node, max, stop, failed).run());
    }
    Ok(Server {
        address,
        api_address,
        handle: Handle::new(node, config.join_timeout + CALL_SLACK),
        drain_time: config.drain_time,
        grace: config.drain_time + config.close_timeout + Duration::from_secs(1),
        ended,
        calls,
        calls_ended,
        webhooks,
        _accepting: accepting,
    })
}

/// The webhook deliverer, if a URL is configured, and the broker's part of its settings.
fn start_webhooks(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Webhooks, WebhookSubscription)>, StartError> {
    let (Some(url), Some(secret)) = (&config.webhook_url, &config.webhook_secret_file) else {
        return Ok(None);
    };
    let settings = webhooks::WebhookSettings {
        node: config.node.clone(),
        url: url.clone(),
        secret: secret.secret.clone(),
        authorities: config.webhook_ca.clone(),
    };
    let (webhooks, polls) = webhooks::start(settings, metrics.clone())?;
    let rooms = config.webhook_room.clone();
    Ok(Some((webhooks, WebhookSubscription { rooms, polls })))
}

fn bind(address: SocketAddr) -> Result<Listener, StartError> {
    Listener::bind(address).map_err(|source| StartError::Listen { address, source })
}

/// Which requests the HTTP API admits: those with a key; in open mode without keys, those of
/// programs on this machine, if no others can connect.
fn gate(config: &Config) -> Gate {
    let address = config.api_listen.unwrap_or(config.listen);
    match &config.api_key_file {
        Some(file) => Gate::Keys(file.keys.clone()),
        None if config.is_open() && address.ip().to_canonical().is_loopback() => Gate::Local,
        None => Gate::Closed,
    }
}

fn start_broker(
    config: &Config,
    incarnation: Incarnation,
    webhooks: Option<WebhookSubscription>,
    readiness: &Readiness,
    metrics: &Arc<Metrics>,
    news: flume::Sender<BrokerEvent>,
) -> Result<Broker, StartError> {
    let settings = broker::Settings {
        incarnation,
        retention: retention(config),
        publish_timeout: config.publish_timeout,
        topic_linger: config.topic_linger,
        newest_format: newest_format(),
        // In addition to the rooms that clients choose there is a personal one for each
        // connection, and the nodes' own.
        max_rooms: config
            .max_rooms
            .saturating_add(max_connections(config) as usize)
            .saturating_add(ControlLog::ALL.len()),
        history_memory: config.history_memory,
        webhooks,
    };
    if config.redis.is_empty() {
        let store = memory::Store::new(&settings, id::random()?);
        return Ok(store.start(readiness.clone(), news));
    }
    Ok(redis::start(
        redis_settings(config),
        settings,
        readiness.clone(),
        metrics.clone(),
        news,
    )?)
}

fn redis_settings(config: &Config) -> redis::RedisSettings {
    redis::RedisSettings {
        addresses: config.redis.clone(),
        prefix: config.prefix.clone(),
        authorities: config.redis_ca.clone(),
        allow_eviction: config.allow_eviction,
        lease: redis::LEASE,
    }
}

/// Checks that the servers of `--redis` are of a kind that nodes use. One that does not answer
/// passes.
pub(crate) async fn check_redis(config: &Config) -> Result<(), StartError> {
    if config.redis.is_empty() {
        return Ok(());
    }
    Ok(redis::check(redis_settings(config)).await?)
}

/// The newest format this node reads and writes.
#[cfg(not(debug_assertions))]
fn newest_format() -> Format {
    Format::NEWEST
}

/// Debug builds read it from a variable, so that tests can run nodes of two formats before there is
/// a second one.
#[cfg(debug_assertions)]
fn newest_format() -> Format {
    let text = std::env::var("SWITCHBOARD_TEST_FORMAT").ok();
    let number = text.and_then(|text| text.parse().ok());
    number.and_then(Format::new).unwrap_or(Format::NEWEST)
}

fn retention(config: &Config) -> Retention {
    let otherwise = LogLimits {
        size: config.history_size,
        age: config.history_age,
    };
    Retention {
        nodes: ControlLog::ALL
            .map(|log| (log.room(), log.limits(config.token_lifetime)))
            .into(),
        rules: config.history.clone(),
        otherwise,
    }
}

fn dispatcher_settings(
    config: &Config,
    incarnation: Incarnation,
    hooks: Arc<Hooks>,
) -> Result<dispatcher::Settings, StartError> {
    Ok(dispatcher::Settings {
        incarnation,
        node: config.node.clone(),
        heartbeat: config.heartbeat,
        pong_timeout: config.pong_timeout,
        close_timeout: config.close_timeout,
        join_timeout: config.join_timeout,
        max_message: config.max_message,
        session_commands: config.session_commands(),
        rooms_per_session: config.rooms_per_session,
        max_rooms: config.max_rooms,
        rights: Rights {
            rules: config.room.clone(),
            open: config.is_open(),
        },
        retention: retention(config),
        token_lifetime: config.token_lifetime,
        recent_memory: config.recent_memory,
        presence: PresenceSettings {
            grace: config.presence_grace,
            events: Switches(config.presence_events.clone()),
            memory: config.presence_memory,
        },
        outbox_bytes: config.outbox_bytes,
        hooks,
        seed: id::random()?,
    })
}

fn limits(config: &Config) -> Limits {
    Limits {
        head: HeadLimits {
            bytes: config.max_head,
            fields: HEAD_FIELDS,
            target: config.max_head / 2,
            body: config.max_message as u64,
            chunked: api::takes_body,
        },
        head_timeout: config.head_timeout,
        idle_timeout: config.idle_timeout,
        call_timeout: config.publish_timeout + CALL_SLACK,
        calls: config.api_calls,
        close_timeout: config.close_timeout,
        message: config.max_message,
        depth: config.max_depth,
        ingress: IngressLimits {
            commands: Rate::new(config.session_commands(), config::COMMAND_BURST),
            bytes: Rate::new(config.session_bytes(), config::BYTE_BURST),
            rate_timeout: config.rate_timeout,
            fragments: u32::try_from(config.max_fragments).unwrap_or(u32::MAX),
            message_timeout: config.message_timeout,
        },
        outbox: OutboxLimits {
            bytes: config.outbox_bytes,
            frames: config.outbox_frames,
        },
    }
}

/// The limits of users and addresses. In open mode users are not verified, and there are none.
fn shared_quotas(config: &Config) -> Option<SharedQuotas> {
    let limits = SharedLimits {
        rooms_per_session: config.rooms_per_session,
        max_rooms: config.max_rooms,
    };
    (!config.is_open()).then(|| SharedQuotas::new(limits))
}

fn assets(directory: Option<&Path>) -> Result<Assets, StartError> {
    let Some(directory) = directory else {
        return Ok(Assets::embedded());
    };
    site::read(directory).map_err(|source| StartError::Pages {
        directory: directory.into(),
        source,
    })
}

/// The configured limit, or the one that follows from the limit of open files.
pub(crate) fn max_connections(config: &Config) -> u64 {
    if config.max_connections > 0 {
        return config.max_connections as u64;
    }
    let files = runtime::raise_file_limit().unwrap_or(1024);
    files - FILE_RESERVE.min(files / 2)
}

/// Sends the dispatcher its ticks; one timer serves every deadline of the node.
async fn tick(inbox: flume::Sender<Event>) {
    loop {
        runtime::sleep(TICK).await;
        if inbox.send_async(Event::Tick).await.is_err() {
            return;
        }
    }
}
