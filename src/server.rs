//! The listening part of a node, and the wiring of all the rest: [`start`] builds the channels and tasks of a node, and
//! a [`Server`] is what its owner holds to wait for its end or to drain it.
//!
//! Stopping is dropping, in order: the drain empties the outboxes, then the listener, the dispatcher with the
//! broker's handle, and the inbox go; each task ends because what it waited for is gone.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{Either, select};

use crate::broker::{self, Broker, memory, redis};
use crate::config::Config;
use crate::connection::{self, Counted, Limits, Node};
use crate::dispatcher::{self, Dispatcher, Event, Now, TICK};
use crate::http::HeadLimits;
use crate::id::{self, Incarnation};
use crate::metrics::Metrics;
use crate::notice::Wanted;
use crate::pages::Assets;
use crate::pattern::Switches;
use crate::presence::PresenceSettings;
use crate::readiness::Readiness;
use crate::retention::{LogLimits, Retention};
use crate::runtime::{self, AcceptFailure, Listener, Socket};
use crate::session::OutboxLimits;
use crate::webhooks::{self, Webhooks};

/// Open files that are not for clients: the listener, Redis, the log, and a reserve to refuse with. Where fewer than twice as many
/// are allowed, half of them.
const FILE_RESERVE: u64 = 256;

/// How long accepting pauses when there are no descriptors or no memory for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How often it is logged at most that newcomers are not taken in.
const EXHAUSTED_LOG: Duration = Duration::from_secs(1);

/// While the dispatcher lags, which shows in a half-full inbox, new connections wait in the kernel's queue: those who are here
/// already come first. This is how often accepting looks again.
const ADMISSION_PAUSE: Duration = Duration::from_millis(5);

/// Fields of one head at most.
const HEAD_FIELDS: usize = 64;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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
    #[error("cannot use Redis: {0}")]
    Redis(#[from] redis::StartError),
    #[error("cannot send webhooks: {0}")]
    Webhooks(#[from] webhooks::StartError),
    #[error("the system has no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// A running node.
pub struct Server {
    address: SocketAddr,
    node: Arc<Node>,
    drain_time: Duration,
    /// The last moment of a drain: everything has a deadline.
    grace: Duration,
    /// Disconnected when the dispatcher has ended; a word comes when the listener has.
    ended: flume::Receiver<()>,
    webhooks: Option<Webhooks>,
    /// Its drop ends accepting.
    _accepting: flume::Sender<()>,
}

/// Starts a node: it listens when this returns, and is ready as soon as its broker is.
pub fn start(config: &Config) -> Result<Server, StartError> {
    let listener = Listener::bind(config.listen).map_err(|source| StartError::Listen {
        address: config.listen,
        source,
    })?;
    let address = listener.local_addr();
    let incarnation = Incarnation(id::random()?);
    let readiness = Readiness::default();
    let metrics = Arc::new(Metrics::default());
    let (inbox, events) = flume::bounded(config.inbox);
    let (webhooks, wanted) = start_webhooks(config, &metrics)?.unzip();
    let broker = start_broker(config, incarnation, wanted, &readiness, &metrics, &inbox)?;

    let settings = dispatcher_settings(config, incarnation)?;
    let dispatcher = Dispatcher::new(Now::read(), settings, metrics.clone());
    let (ending, ended) = flume::bounded(1);
    let listener_failed = ending.downgrade();
    runtime::spawn(async move {
        // Dropped when the task ends, by a panic too: that is the news.
        let _ending: flume::Sender<()> = ending;
        dispatcher::run(dispatcher, events, broker).await;
    });
    runtime::spawn(tick(inbox.clone()));

    let node = Arc::new(Node {
        assets: assets(config.www.as_deref())?,
        readiness,
        metrics,
        inbox,
        limits: limits(config),
        origins: config.allow_origin.clone(),
        trusted_proxies: config.trusted_proxy.clone(),
        echo_path: config.echo_path.clone(),
        sessions: AtomicU64::new(1),
    });
    let (accepting, stop) = flume::bounded(1);
    let acceptor = Acceptor {
        listener,
        node: node.clone(),
        max: max_connections(config),
        stop,
        failed: listener_failed,
        told: None,
    };
    runtime::spawn(acceptor.run());
    Ok(Server {
        address,
        node,
        drain_time: config.drain_time,
        grace: config.drain_time + config.close_timeout + Duration::from_secs(1),
        ended,
        webhooks,
        _accepting: accepting,
    })
}

impl Server {
    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn metrics(&self) -> &Metrics {
        &self.node.metrics
    }

    pub fn readiness(&self) -> &Readiness {
        &self.node.readiness
    }

    /// Ready when the node has ended by itself, which it does only for a fault.
    pub async fn ended(&self) {
        // Either way it is over.
        let _ = self.ended.recv_async().await;
    }

    /// Says farewell to everyone and ends the node. Until then it refuses newcomers with a reason.
    pub async fn drain(self) {
        self.node.readiness.drain();
        let draining = async {
            // Without a dispatcher there is nobody left to drain.
            let _ = self
                .node
                .inbox
                .send_async(Event::Drain(self.drain_time))
                .await;
            self.ended().await;
        };
        if runtime::timeout(self.grace, draining).await.is_err() {
            log::warn!(seconds = self.grace.as_secs(); "some clients did not go in time");
        }
        if let Some(webhooks) = self.webhooks {
            webhooks.finish().await;
        }
    }
}

/// The deliverer, if there is anyone to tell, and what it wants of the broker.
fn start_webhooks(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Webhooks, Wanted)>, StartError> {
    let (Some(url), Some(secret)) = (&config.webhook_url, &config.webhook_secret_file) else {
        return Ok(None);
    };
    let settings = webhooks::Settings {
        node: config.node.clone(),
        url: url.clone(),
        secret: secret.clone(),
        authorities: config.webhook_ca.clone(),
    };
    let (webhooks, asks) = webhooks::start(settings, metrics.clone())?;
    let rooms = config.webhook_room.clone();
    Ok(Some((webhooks, Wanted { rooms, asks })))
}

fn start_broker(
    config: &Config,
    incarnation: Incarnation,
    webhooks: Option<Wanted>,
    readiness: &Readiness,
    metrics: &Arc<Metrics>,
    inbox: &flume::Sender<Event>,
) -> Result<Broker, StartError> {
    let settings = broker::Settings {
        incarnation,
        retention: retention(config),
        publish_timeout: config.publish_timeout,
        topic_linger: config.topic_linger,
        max_rooms: config.max_rooms,
        webhooks,
    };
    if config.redis.is_empty() {
        let store = memory::Store::new(&settings, id::random()?);
        return Ok(store.start(readiness.clone(), inbox.clone()));
    }
    let servers = redis::RedisSettings {
        addresses: config.redis.clone(),
        prefix: config.prefix.clone(),
        authorities: config.redis_ca.clone(),
        lease: redis::LEASE,
    };
    Ok(redis::start(
        servers,
        settings,
        readiness.clone(),
        metrics.clone(),
        inbox.clone(),
    )?)
}

fn retention(config: &Config) -> Retention {
    let otherwise = LogLimits {
        size: config.history_size,
        age: config.history_age,
    };
    Retention {
        rules: config.history.clone(),
        otherwise,
    }
}

fn dispatcher_settings(
    config: &Config,
    incarnation: Incarnation,
) -> Result<dispatcher::Settings, StartError> {
    Ok(dispatcher::Settings {
        incarnation,
        node: config.node.clone(),
        heartbeat: config.heartbeat,
        pong_timeout: config.pong_timeout,
        close_timeout: config.close_timeout,
        join_timeout: config.join_timeout,
        rooms_per_session: config.rooms_per_session,
        max_rooms: config.max_rooms,
        retention: retention(config),
        recent_memory: config.recent_memory,
        presence: PresenceSettings {
            grace: config.presence_grace,
            events: Switches(config.presence_events.clone()),
            memory: config.presence_memory,
        },
        outbox_bytes: config.outbox_bytes,
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
        },
        head_timeout: config.head_timeout,
        idle_timeout: config.idle_timeout,
        close_timeout: config.close_timeout,
        message: config.max_message,
        outbox: OutboxLimits {
            bytes: config.outbox_bytes,
            frames: config.outbox_frames,
        },
    }
}

fn assets(directory: Option<&Path>) -> Result<Assets, StartError> {
    let Some(directory) = directory else {
        return Ok(Assets::embedded());
    };
    let read = || -> io::Result<Assets> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                files.push((name, std::fs::read(entry.path())?));
            }
        }
        Ok(Assets::from_files(files))
    };
    read().map_err(|source| StartError::Pages {
        directory: directory.into(),
        source,
    })
}

/// As many as are asked for, or as many as the process may have files open.
fn max_connections(config: &Config) -> u64 {
    if config.max_connections > 0 {
        return config.max_connections as u64;
    }
    let files = runtime::raise_file_limit().unwrap_or(1024);
    files - FILE_RESERVE.min(files / 2)
}

/// Tells the dispatcher the time; one timer serves every deadline of the node.
async fn tick(inbox: flume::Sender<Event>) {
    loop {
        runtime::sleep(TICK).await;
        if inbox.send_async(Event::Tick).await.is_err() {
            return;
        }
    }
}

/// What the accepting task owns. It accepts until the server is dropped: one bad connection, or none left to have, never
/// ends it. A broken listener ends the node, because nobody would find a node that takes no connections.
struct Acceptor {
    listener: Listener,
    node: Arc<Node>,
    /// Connections that may be open at once.
    max: u64,
    stop: flume::Receiver<()>,
    failed: flume::WeakSender<()>,
    /// When it was last logged that there is no room for another connection.
    told: Option<Instant>,
}

impl Acceptor {
    async fn run(mut self) {
        loop {
            while self.node.inbox.len() > self.node.inbox.capacity().unwrap_or(usize::MAX) / 2 {
                runtime::sleep(ADMISSION_PAUSE).await;
            }
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

    /// The next connection; `None` when the server was dropped.
    async fn next(&self) -> Option<io::Result<(Socket, SocketAddr)>> {
        let accepting = self.listener.accept().boxed();
        match select(accepting, self.stop.recv_async()).await {
            Either::Left((accepted, _)) => Some(accepted),
            Either::Right(_) => None,
        }
    }

    fn take_in(&mut self, socket: Socket, peer: SocketAddr) {
        let node = &self.node;
        if node.metrics.connections_open.get() >= self.max {
            node.metrics.refused_total.add(1);
            let time = node.limits.close_timeout;
            runtime::spawn(connection::http_phase::turn_away(socket, time));
            return self.tell("as many connections as there may be");
        }
        let counted = Counted::new(node.metrics.clone());
        runtime::spawn(connection::serve(node.clone(), socket, peer, counted));
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
