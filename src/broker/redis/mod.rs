//! The broker over Redis, and the only place that names it. Three tasks, each with a connection of
//! its own:
//!
//! ```text
//!  dispatcher ─Request─▶ publisher ──(Pipeline)── publishes ──▶ publish.lua, revoke.lua, and once a second the node's topic
//!                          │ │ └──────(Presence)──────────▶ lease.lua, here.lua, reap.lua
//!                          │ └─RedisRequest─▶ reader ──(Pipeline)──▶ read.lua, members.lua …     │
//!                          └─ControlCommand─▶ subscription ◀── messages, confirmations ──────┘
//!  dispatcher ◀─BrokerEvent─ all three
//! ```
//!
//! A `supervisor` keeps each connection; `topics` and `queue` decide what to ask and what to ask
//! again; `pulse` decides whether the node is ready; `announcer` decides what is said of who is
//! here, and `lease` tells why that is safe. A user of an access list needs, on the keys and topics
//! under the prefix, the commands of the test `password_user_and_database_come_from_the_address`.

pub mod answers;
mod cluster_queries;
mod commands;
mod connection;
mod fair_queue;
mod formats;
mod lease;
mod liveness;
mod member_pages;
mod names;
mod pipeline;
mod presence;
mod presence_agent;
mod presence_synced;
mod publisher;
mod push_queue;
mod reader;
mod reaper;
pub mod reconciler;
mod reconnector;
pub mod request_queue;
mod revoked;
mod scripts;
mod subscription;
pub mod topics;
mod webhook_stream;
pub mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use commands::Commands;
use connection::{Connector, Purpose};
use formats::UnreadableRooms;
pub use lease::LEASE;
use names::Names;
use pipeline::Pipeline;
use presence::Presence;
use presence_agent::PresenceAgent;
use presence_synced::PresenceSynced;
use publisher::Publisher;
use reconnector::Reconnector;
use subscription::{Reports, Subscription};
use webhook_stream::WebhookStream;

use super::{Broker, BrokerEvent, Settings};
use crate::config::RedisUrl;
use crate::metrics::Metrics;
use crate::model::id;
use crate::model::readiness::Readiness;
use crate::runtime;
use crate::runtime::tls::{self, TlsError};
use topics::Topics;

/// How often each task looks at the clock: deadlines and the pulse are that exact.
const TICK: Duration = Duration::from_millis(100);

/// How many changes of lists wait at most to be compared with what was said.
const CHANGES: usize = 1024;

/// Which Redis, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// One or more; the one that is the master is used.
    pub addresses: Vec<RedisUrl>,
    /// What every name in Redis begins with: letters, digits and `_ . -`.
    pub prefix: String,
    /// The authorities to trust with `rediss://`, in PEM form, instead of the public ones.
    pub authorities: Option<PathBuf>,
    /// How long the members of a node that is gone stay: [`LEASE`], or less where a test must not
    /// wait.
    pub lease: Duration,
}

/// Why the broker cannot start. That Redis is away is no reason: it starts, and is ready when Redis
/// comes.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("--redis: give at least one address")]
    NoAddress,
    #[error(
        "--redis: the addresses name different databases; the master and its replicas have the same"
    )]
    Databases,
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
) -> Result<Broker, StartError> {
    let db = redis.addresses.first().ok_or(StartError::NoAddress)?.db();
    if redis.addresses.iter().any(|address| address.db() != db) {
        return Err(StartError::Databases);
    }
    let tls = match redis.addresses.iter().any(RedisUrl::tls) {
        true => Some(tls::connector(redis.authorities.as_deref())?),
        false => None,
    };
    let names = Names::new(&redis.prefix, db);
    let connector = Arc::new(Connector::new(redis.addresses, tls));
    let supervise = |purpose| Reconnector::new(connector.clone(), purpose, metrics.clone());
    let presence_synced = PresenceSynced::default();
    let unreadable = UnreadableRooms::default();
    let commands = || -> Result<Commands, StartError> {
        Ok(Commands::new(names.clone(), &settings, id::random()?))
    };
    let pipeline = |purpose| -> Result<Pipeline, StartError> {
        Ok(Pipeline::new(
            supervise(purpose),
            commands()?,
            &settings,
            presence_synced.clone(),
            unreadable.clone(),
            metrics.clone(),
        ))
    };
    let publishes = pipeline(Purpose::Publishes)?;
    let pages = pipeline(Purpose::Reads)?;
    let announcer = PresenceAgent::new(
        settings.incarnation,
        settings.newest_format,
        redis.lease,
        id::random()?,
        Instant::now(),
    );
    let presence = Presence::new(announcer, commands()?, presence_synced.clone());

    if let Some(wanted) = &settings.webhooks {
        let asks = wanted.asks.clone();
        let hooks = WebhookStream::new(asks, supervise, names.clone(), &settings, metrics.clone());
        runtime::spawn(hooks.run());
    }
    let (asked, requests) = flume::unbounded();
    let (reads, to_read) = flume::unbounded();
    let (orders, to_obey) = flume::unbounded();
    let (signalled, signals) = flume::unbounded();
    let (changed, changes) = flume::bounded(CHANGES);
    let subscription = Subscription::new(
        to_obey,
        supervise(Purpose::Subscription {
            node_topic: names.node_topic(settings.incarnation),
            signals: signalled.clone(),
        }),
        Topics::new(settings.topic_linger),
        names.clone(),
        settings.newest_format,
        Reports {
            signals: signalled,
            changes: changed,
            events: events.clone(),
        },
        metrics.clone(),
    );
    runtime::spawn(subscription.run());
    runtime::spawn(reader::run(to_read, pages, events.clone()));
    runtime::spawn(
        Publisher {
            requests,
            pipeline: publishes,
            presence,
            unreadable,
            changes,
            reads,
            orders,
            signals,
            readiness,
            metrics,
            events,
        }
        .run(),
    );
    Ok(Broker::new(asked))
}

/// Somebody else has ended, so this task does too.
struct Ended;

/// Tells the dispatcher, waiting while its inbox is full.
async fn emit(inbox: &flume::Sender<BrokerEvent>, events: Vec<BrokerEvent>) -> Result<(), Ended> {
    for event in events {
        inbox.send_async(event).await.map_err(|_| Ended)?;
    }
    Ok(())
}
