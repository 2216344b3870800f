//! The broker over Redis, and the only module that uses Redis. Three tasks, each with a connection
//! of its own (a fourth, `webhook_stream`, runs if there are webhooks):
//!
//! ```text
//!  dispatcher ─Request─▶ publisher ─(Pipeline)─▶ publish.lua, revoke.lua, and the probe
//!                          │ │ └────(Presence)─▶ lease.lua, set_presence.lua, reap.lua
//!                          │ └─RedisRequest─▶ reader ─(Pipeline)─▶ read.lua, members.lua …
//!                          └─SubscriptionCommand─▶ subscription ◀─ messages, confirmations
//!  dispatcher ◀─BrokerEvent─ all three
//! ```
//!
//! A `reconnector` keeps each connection. `topics` decides what to subscribe, and `request_queue`
//! what to send and to retry. `liveness` decides whether the node is ready. `presence_agent`
//! decides which presence to write, and `lease` explains why that is safe. A user with an access
//! list needs, on the keys and topics under the prefix, the commands of the test
//! `password_user_and_database_come_from_the_address`.

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

/// How often each task checks the clock: the precision of deadlines and probes.
const TICK: Duration = Duration::from_millis(100);

/// The most changes of lists that wait for the comparison with the node's own presence.
const CHANGES: usize = 1024;

/// The Redis servers, and how to connect to them.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// One or more; the master among them is used.
    pub addresses: Vec<RedisUrl>,
    /// The prefix of every name in Redis: letters, digits and `_ . -`.
    pub prefix: String,
    /// The certificate authorities for `rediss://`, in PEM form, instead of the public ones.
    pub authorities: Option<PathBuf>,
    /// How long the members of a dead node stay: [`LEASE`], or less in tests.
    pub lease: Duration,
}

/// Why the broker cannot start. An unreachable Redis is not an error: the broker starts, and
/// becomes ready when Redis answers.
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
    let tls = if redis.addresses.iter().any(RedisUrl::tls) {
        Some(tls::connector(redis.authorities.as_deref())?)
    } else {
        None
    };
    let names = Names::new(&redis.prefix, db);
    let connector = Arc::new(Connector::new(redis.addresses, tls));
    let reconnector = |purpose| Reconnector::new(connector.clone(), purpose, metrics.clone());
    let presence_synced = PresenceSynced::default();
    let unreadable = UnreadableRooms::default();
    let commands = || -> Result<Commands, StartError> {
        Ok(Commands::new(names.clone(), &settings, id::random()?))
    };
    let pipeline = |purpose| -> Result<Pipeline, StartError> {
        Ok(Pipeline::new(
            reconnector(purpose),
            commands()?,
            &settings,
            presence_synced.clone(),
            unreadable.clone(),
            metrics.clone(),
        ))
    };
    let publishes = pipeline(Purpose::Publishes)?;
    let pages = pipeline(Purpose::Reads)?;
    let agent = PresenceAgent::new(
        settings.incarnation,
        settings.newest_format,
        redis.lease,
        id::random()?,
        Instant::now(),
    );
    let presence = Presence::new(agent, commands()?, presence_synced.clone());

    if let Some(wanted) = &settings.webhooks {
        let polls = wanted.polls.clone();
        let stream = WebhookStream::new(
            polls,
            reconnector,
            names.clone(),
            &settings,
            metrics.clone(),
        );
        runtime::spawn(stream.run());
    }
    let (requests_to, requests) = flume::unbounded();
    let (reads_to, reads) = flume::unbounded();
    let (commands_to, subscription_commands) = flume::unbounded();
    let (signals_to, signals) = flume::unbounded();
    let (changes_to, changes) = flume::bounded(CHANGES);
    let subscription = Subscription::new(
        subscription_commands,
        reconnector(Purpose::Subscription {
            node_topic: names.node_topic(settings.incarnation),
            signals: signals_to.clone(),
        }),
        Topics::new(settings.topic_linger),
        names.clone(),
        settings.newest_format,
        Reports {
            signals: signals_to,
            changes: changes_to,
            events: events.clone(),
        },
        metrics.clone(),
    );
    runtime::spawn(subscription.run());
    runtime::spawn(reader::run(reads, pages, events.clone()));
    runtime::spawn(
        Publisher {
            requests,
            pipeline: publishes,
            presence,
            unreadable,
            changes,
            reads: reads_to,
            commands: commands_to,
            signals,
            readiness,
            metrics,
            events,
        }
        .run(),
    );
    Ok(Broker::new(requests_to))
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
