//! The broker over Redis, and the only module that uses Redis. It has one [`Shard`], which has
//! everything that belongs to one Redis master:
//!
//! ```text
//!  dispatcher ─Request─▶ the broker's task: Shard
//!                          │ └─(Pipeline: publishes, revocations, presence, the probe)─▶ Redis
//!                          ├─RedisRequest─▶ reader ─(Pipeline: log, members, rooms)─▶ Redis
//!                          └─SubscriptionCommand─▶ subscription ◀─messages, confirmations─ Redis
//!  webhooks ─WebhookPoll─▶ webhook_stream ─(Pipeline: webhook_queue.lua)─▶ Redis
//!  dispatcher ◀─BrokerEvent─ the first three
//! ```
//!
//! A request becomes a [`RedisRequest`](request::RedisRequest) and waits in the `request_queue` of
//! a `pipeline`; `commands` writes it, `answers` reads its answer, `errors` what an error means. A
//! `reconnector` keeps each connection, `topics` decides what to subscribe, and `liveness` whether
//! the node is ready. [`presence`] is a part of its own. The commands that a
//! user with an access list needs are in docs/operations.md; `self_check` tries each.

pub mod answers;
mod commands;
mod connection;
mod errors;
mod formats;
mod info;
mod liveness;
mod names;
mod pipeline;
mod presence;
mod progress;
mod push_queue;
mod reader;
mod reconnector;
pub mod request;
mod request_queue;
mod revoked;
mod scripts;
mod self_check;
mod shard;
mod subscription;
pub mod topics;
mod values;
mod webhook_calls;
mod webhook_stream;
pub mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, select_biased};

use connection::{Connector, Purpose};
use names::Names;
pub use presence::lease::LEASE;
use self_check::SelfCheck;
use shard::{Shard, ShardSettings};

use super::{Broker, BrokerEvent, Request, Settings};
use crate::config::RedisUrl;
use crate::metrics::Metrics;
use crate::model::id::Incarnation;
use crate::model::readiness::Readiness;
use crate::runtime;
use crate::runtime::tls::{self, TlsError};

/// How often each task checks the clock: the precision of deadlines and probes.
const TICK: Duration = Duration::from_millis(100);

/// The most requests taken before they are sent: the requests of one turn of the dispatcher leave
/// as one batch.
const MAX_REQUESTS: usize = 256;

/// The Redis servers, and how to connect to them.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// One or more; the master among them is used.
    pub addresses: Vec<RedisUrl>,
    /// The prefix of every name in Redis: letters, digits and `_ . -`.
    pub prefix: String,
    /// The certificate authorities for `rediss://`, in PEM form, instead of the public ones.
    pub authorities: Option<PathBuf>,
    /// Whether a Redis that may evict keys is used all the same.
    pub allow_eviction: bool,
    /// How long the members of a dead node stay: [`LEASE`], or less in tests.
    pub lease: Duration,
}

/// Why the broker cannot start. An unreachable Redis is not an error: the broker starts, and
/// becomes ready when Redis answers.
#[derive(Debug, thiserror::Error)]
pub enum RedisStartError {
    #[error("--redis: give at least one address")]
    NoAddress,
    #[error(
        "--redis: the addresses name different databases; the master and its replicas have the same"
    )]
    Databases,
    /// A server that nodes never use, whatever its state.
    #[error("--redis: {0}")]
    Unsupported(String),
    #[error("--redis-ca {0}")]
    Tls(#[from] TlsError),
    #[error("the system has no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// Starts the broker. It ends, and closes its connections, when the last [`Broker`] handle or the
/// other end of `events` is dropped. `events` should have a bound: the broker waits while it is
/// full.
///
/// # Errors
/// Only for settings that can never work.
pub fn start(
    redis: RedisSettings,
    settings: Settings,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    events: flume::Sender<BrokerEvent>,
) -> Result<Broker, RedisStartError> {
    let lease = redis.lease;
    let (names, connector) = connect_to(redis, settings.incarnation, &readiness, &metrics)?;
    let shard = Shard::start(ShardSettings {
        connector: Arc::new(connector),
        names,
        settings: &settings,
        lease,
        readiness,
        metrics,
        events: events.clone(),
    })?;
    let (sender, requests) = flume::unbounded();
    runtime::spawn(run(requests, shard, events));
    Ok(Broker::new(sender))
}

/// The names and the means to connect.
fn connect_to(
    redis: RedisSettings,
    run: Incarnation,
    readiness: &Readiness,
    metrics: &Arc<Metrics>,
) -> Result<(Names, Connector), RedisStartError> {
    let db = redis
        .addresses
        .first()
        .ok_or(RedisStartError::NoAddress)?
        .db();
    if redis.addresses.iter().any(|address| address.db() != db) {
        return Err(RedisStartError::Databases);
    }
    let tls = if redis.addresses.iter().any(RedisUrl::tls) {
        Some(tls::connector(redis.authorities.as_deref())?)
    } else {
        None
    };
    let names = Names::new(&redis.prefix, db);
    let self_check = SelfCheck::new(names.clone(), run, redis.allow_eviction);
    let connector = Connector::new(
        redis.addresses,
        tls,
        self_check,
        readiness.clone(),
        metrics.clone(),
    );
    Ok((names, connector))
}

/// Checks before the start that the servers are not of a kind that nodes never use: Redis Cluster
/// or Sentinel. One that does not answer may be of the right kind.
///
/// # Errors
/// All servers are of a wrong kind, or the settings can never work.
pub(crate) async fn check(redis: RedisSettings) -> Result<(), RedisStartError> {
    let (_, connector) = connect_to(
        redis,
        Incarnation(0),
        &Readiness::default(),
        &Arc::default(),
    )?;
    match connector.connect(&Purpose::Check).await {
        Err(error) if error.is_wrong_kind() => Err(RedisStartError::Unsupported(error.to_string())),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The broker's task: passes requests to the shard and its events to the dispatcher. It ends, and
/// the shard with it, when the dispatcher has dropped its end of `requests`, or when a task of the
/// shard has ended.
async fn run(
    requests: flume::Receiver<Request>,
    mut shard: Shard,
    inbox: flume::Sender<BrokerEvent>,
) {
    loop {
        // `fuse`, because a bare flume future would not be polled once the other end is gone.
        let turn = select_biased! {
            turn = shard.turn().fuse() => turn,
            request = requests.recv_async().fuse() => match request {
                Ok(first) => submit(first, &requests, &mut shard),
                Err(flume::RecvError::Disconnected) => Err(Ended),
            },
        };
        let events = shard.flush();
        if turn.is_err() || emit(&inbox, events).await.is_err() {
            return;
        }
    }
}

fn submit(
    first: Request,
    requests: &flume::Receiver<Request>,
    shard: &mut Shard,
) -> Result<(), Ended> {
    shard.submit(first)?;
    for request in requests.try_iter().take(MAX_REQUESTS - 1) {
        shard.submit(request)?;
    }
    Ok(())
}

/// The other end of a channel has ended, so this task ends too.
struct Ended;

/// Sends events to the dispatcher, waiting while its inbox is full.
async fn emit(inbox: &flume::Sender<BrokerEvent>, events: Vec<BrokerEvent>) -> Result<(), Ended> {
    for event in events {
        inbox.send_async(event).await.map_err(|_| Ended)?;
    }
    Ok(())
}
