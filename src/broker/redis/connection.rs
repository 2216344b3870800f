//! One connection to Redis: dialed over the runtime's own sockets, checked to be to the master, and
//! ended when dropped. The driver is the `redis` crate's, spawned here; the crate's own
//! reconnection is not used, because it gives up and loses subscriptions.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use futures::future::{AbortHandle, abortable};
use futures::stream::{FuturesUnordered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ProtocolVersion, PushInfo, RedisConnectionInfo};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::info::{field, read_info};
use super::liveness::LivenessSignal;
use super::push_queue::{self, PushQueue};
use super::scripts::{self, Script};
use super::self_check::{self, MemoryState, SelfCheck};
use crate::config::RedisUrl;
use crate::metrics::Metrics;
use crate::model::readiness::Readiness;
use crate::runtime::tls::{self, TlsConnector};
use crate::runtime::{self, Elapsed, Socket};

/// The timeout of each step: resolving, TCP and TLS.
const STEP: Duration = Duration::from_secs(1);

/// The timeout of the preparation before the first request: a dozen commands, on a slow line too.
const PREPARATION: Duration = Duration::from_secs(3);

/// The first version whose scripts may begin with `#!lua`. Valkey reports a compatible one, 7.2.
const OLDEST_VERSION: u32 = 7;

/// How long to wait for the other addresses after one has answered that it is the master.
const SECOND_OPINION: Duration = Duration::from_millis(200);

/// The most lines within the interval about whether Redis takes writes: two pairs.
const MAX_LOGGED: usize = 4;
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Names of problems of a connection that is up.
const PERMISSIONS: &str = "permissions";
const EVICTION: &str = "eviction";

/// Why there is no connection. No variant holds a password.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{0}: the name is not resolved: {1}")]
    Resolve(RedisUrl, io::Error),
    #[error("{0}: no connection: {1}")]
    Connect(RedisUrl, io::Error),
    #[error("{0}: no answer in time")]
    Silent(RedisUrl),
    #[error("{0}: refused: {1}")]
    Refused(RedisUrl, redis::RedisError),
    #[error("{0}: it is a replica; give the master's address too")]
    Replica(RedisUrl),
    #[error("{0}: it is too old ({1}); Redis 7 or later is needed, or Valkey")]
    TooOld(RedisUrl, String),
    #[error(
        "{0}: it is a Redis Cluster, which is not supported yet; \
         give the address of a single Redis (cluster-enabled no), or of a master with replicas"
    )]
    Cluster(RedisUrl),
    #[error("{0}: it is a Sentinel; give the address of the master")]
    Sentinel(RedisUrl),
    #[error("{0}: {1}")]
    NotPermitted(RedisUrl, String),
    #[error("no address was given")]
    NoAddress,
}

impl ConnectError {
    /// What an operator must change, without the address; `None` if waiting may help.
    fn problem(&self) -> Option<String> {
        let redis = match self {
            ConnectError::Replica(address)
            | ConnectError::TooOld(address, _)
            | ConnectError::Cluster(address)
            | ConnectError::Sentinel(address) => address,
            ConnectError::Refused(_, error) => return self_check::refusal(error),
            ConnectError::NotPermitted(_, problem) => return Some(problem.clone()),
            ConnectError::Resolve(..)
            | ConnectError::Connect(..)
            | ConnectError::Silent(_)
            | ConnectError::NoAddress => return None,
        };
        let sentence = self.to_string();
        let sentence = sentence.strip_prefix(&format!("{redis}: it"));
        sentence.map(|rest| format!("Redis cannot be used: it{rest}"))
    }

    /// Whether this server is of a kind that is never used.
    pub(super) fn is_wrong_kind(&self) -> bool {
        matches!(self, ConnectError::Cluster(_) | ConnectError::Sentinel(_))
    }
}

/// What a connection is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// Publishes. The other connections use the same server as this one.
    Publishes,
    Reads,
    Webhooks,
    /// Only to see what the server is.
    Check,
    Subscription {
        node_topic: String,
        signals: flume::Sender<LivenessSignal>,
    },
}

impl Purpose {
    fn name(&self) -> &'static str {
        match self {
            Purpose::Publishes => "publishes",
            Purpose::Reads => "reads",
            Purpose::Webhooks => "webhooks",
            Purpose::Check => "check",
            Purpose::Subscription { .. } => "subscription",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The addresses and the means to connect. Shared by all connections of the node.
pub(super) struct Connector {
    addresses: Vec<RedisUrl>,
    tls: Option<TlsConnector>,
    /// The replication id of the server that publishes go to; the other connections use no other.
    home: Mutex<Option<String>>,
    self_check: SelfCheck,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    /// When it was last logged that Redis refuses writes, or takes them again.
    logged: Mutex<Vec<Instant>>,
}

/// The version and the mode of a server.
#[derive(Debug)]
struct ServerKind {
    version: String,
    /// `standalone`, `cluster` or `sentinel`.
    mode: String,
}

/// A server, as it describes itself in `INFO`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerInfo {
    pub master: bool,
    /// The identity of its data set.
    pub replid: String,
    /// The bytes that were ever written to that data set.
    written: u64,
}

/// A live connection. Dropping it ends the driver and closes the socket, even with unanswered
/// requests.
#[derive(Debug)]
pub(super) struct RedisConnection {
    pub connection: MultiplexedConnection,
    pub address: RedisUrl,
    pub server: ServerInfo,
    /// Of the connection for publishes.
    pub memory: MemoryState,
    /// The subscription's queue.
    pub pushes: Option<PushQueue>,
    /// Disconnected when the driver has ended.
    pub ended: flume::Receiver<()>,
    driver: AbortHandle,
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connector {
    pub(super) fn new(
        addresses: Vec<RedisUrl>,
        tls: Option<TlsConnector>,
        self_check: SelfCheck,
        readiness: Readiness,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            addresses,
            tls,
            home: Mutex::new(None),
            self_check,
            readiness,
            metrics,
            logged: Mutex::default(),
        }
    }

    /// The server that publishes go to, if they have a connection.
    pub(super) fn home(&self) -> Option<String> {
        self.home
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_home(&self, replid: Option<String>) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = replid;
    }

    /// Connects to the master. All addresses are dialed at once, so that a dead one causes no
    /// delay. If several answer that they are the master (a failed one has come back), the one that
    /// publishes go to is taken, else the one with the longest history, so that all nodes choose
    /// the same one.
    ///
    /// # Errors
    /// The first address' own, when none is the master; that of a server of a wrong kind only when
    /// all are.
    pub(super) async fn connect(&self, purpose: &Purpose) -> Result<RedisConnection, ConnectError> {
        let mut attempts: FuturesUnordered<_> = (self.addresses.iter().enumerate())
            .map(async |(index, address)| (index, self.open(address, purpose).await))
            .collect();
        let mut best: Option<RedisConnection> = None;
        let mut errors = Vec::new();
        loop {
            let next = match &best {
                None => attempts.next().await,
                Some(_) => runtime::timeout(SECOND_OPINION, attempts.next())
                    .await
                    .unwrap_or(None),
            };
            match next {
                None => break,
                Some((_, Ok(link))) => best = Some(self.better(best, link)),
                Some((index, Err(error))) => errors.push((index, error)),
            }
        }
        errors.sort_by_key(|(index, _)| *index);
        self.report(purpose, best.as_ref(), &errors);
        // The kind of a server matters only if no other may be the master.
        errors.sort_by_key(|(_, error)| error.is_wrong_kind());
        let first = errors.into_iter().next().map(|(_, error)| error);
        best.ok_or_else(|| first.unwrap_or(ConnectError::NoAddress))
    }

    /// Reports what an operator must change. If one address may still answer, such as that of a
    /// master that restarts, there is nothing to change yet.
    fn report(
        &self,
        purpose: &Purpose,
        link: Option<&RedisConnection>,
        errors: &[(usize, ConnectError)],
    ) {
        let problems = errors.iter().map(|(_, error)| error.problem());
        let problem = match link {
            Some(_) => None,
            None => problems
                .collect::<Option<Vec<_>>>()
                .map(|all| all.join("; ")),
        };
        self.readiness.set_problem(purpose.name(), problem);
    }

    /// Reads again what Redis does when it is full and, if that is due or something was missing,
    /// what the connection for publishes may do.
    ///
    /// # Errors
    /// Of the connection.
    pub(super) async fn check_again(
        &self,
        connection: &mut MultiplexedConnection,
        is_due: bool,
    ) -> redis::RedisResult<()> {
        let memory = self.self_check.memory(connection).await;
        let refused = memory.as_ref().err().and_then(self_check::refusal);
        if refused.is_some() {
            self.set_problem(PERMISSIONS, refused);
        } else if is_due || self.readiness.has_problem(PERMISSIONS) {
            let problem = self.self_check.permissions(connection).await?;
            self.set_problem(PERMISSIONS, problem);
        }
        self.set_memory(memory?);
        Ok(())
    }

    /// The connection for publishes is new, so nothing that it needs is missing; or it is gone.
    pub(super) fn reset_checks(&self, memory: MemoryState) {
        self.set_problem(PERMISSIONS, None);
        self.set_memory(memory);
    }

    /// What the connection for publishes has found about the server's memory.
    fn set_memory(&self, memory: MemoryState) {
        self.set_problem(EVICTION, memory.eviction);
        let limitation = memory.limitation;
        self.metrics
            .redis_refuses_writes
            .set(limitation.is_some().into());
        if self.readiness.set_limitation(limitation.clone()) && self.may_log_limitation() {
            match limitation {
                Some(reason) => log::warn!(reason = reason.as_str(); "Redis refuses writes"),
                None => log::info!("Redis takes writes again"),
            }
        }
    }

    /// A Redis that is nearly full refuses writes and takes them again, so not each change is
    /// logged.
    fn may_log_limitation(&self) -> bool {
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|time| now.duration_since(*time) < LOG_INTERVAL);
        let may_log = logged.len() < MAX_LOGGED;
        if may_log {
            logged.push(now);
        }
        may_log
    }

    fn set_problem(&self, source: &'static str, problem: Option<String>) {
        if self.readiness.set_problem(source, problem.clone())
            && let Some(problem) = problem
        {
            log::error!(reason = problem.as_str(); "Redis must be configured otherwise");
        }
    }

    fn better(&self, best: Option<RedisConnection>, other: RedisConnection) -> RedisConnection {
        let home = self.home();
        let rank = |link: &RedisConnection| {
            let at_home = home.as_deref() == Some(link.server.replid.as_str());
            (at_home, link.server.written)
        };
        match best {
            Some(best) if rank(&best) >= rank(&other) => best,
            _ => other,
        }
    }

    async fn open(
        &self,
        address: &RedisUrl,
        purpose: &Purpose,
    ) -> Result<RedisConnection, ConnectError> {
        let socket = dial(address).await?;
        let late = |Elapsed| ConnectError::Silent(address.clone());
        match &self.tls {
            Some(tls) if address.tls() => {
                let handshake = tls::handshake(tls, address.host(), socket);
                let stream = runtime::timeout(STEP, handshake)
                    .await
                    .map_err(late)?
                    .map_err(|error| ConnectError::Connect(address.clone(), error))?;
                prepare_stream(stream, address, purpose, &self.self_check).await
            }
            _ => prepare_stream(socket, address, purpose, &self.self_check).await,
        }
    }
}

async fn dial(address: &RedisUrl) -> Result<Socket, ConnectError> {
    let unresolved = |error| ConnectError::Resolve(address.clone(), error);
    let addresses = runtime::timeout(STEP, runtime::resolve(address.host(), address.port()))
        .await
        .unwrap_or_else(|Elapsed| Err(io::ErrorKind::TimedOut.into()))
        .map_err(unresolved)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for socket_address in addresses {
        match runtime::connect(socket_address, STEP).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(ConnectError::Connect(address.clone(), last))
}

/// Logs in, reads the server's role, and prepares the connection for its purpose.
async fn prepare_stream<S>(
    stream: S,
    address: &RedisUrl,
    purpose: &Purpose,
    self_check: &SelfCheck,
) -> Result<RedisConnection, ConnectError>
where
    S: futures::io::AsyncRead + futures::io::AsyncWrite + Unpin + Send + 'static,
{
    // Every request has our own deadline; the crate's timer would belong to another runtime.
    let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut pushes = None;
    if let Purpose::Subscription {
        node_topic,
        signals,
    } = purpose
    {
        let (sender, queue) = push_queue::queue(node_topic.clone(), signals.clone());
        pushes = Some(queue);
        config = config.set_push_sender(move |info: PushInfo| -> Result<(), ()> {
            sender.push(info);
            Ok(())
        });
    }
    let preparation = async {
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&login(address), stream.compat(), config)
                .await?;
        let (driver, handle) = abortable(driver);
        let (alive, ended) = flume::bounded(0);
        runtime::spawn(async move {
            // An error means that the link was dropped first.
            let _ = driver.await;
            drop(alive);
        });
        let mut link = RedisConnection {
            server: ServerInfo::default(),
            memory: MemoryState::default(),
            address: address.clone(),
            connection,
            pushes,
            ended,
            driver: handle,
        };
        let kind = read_kind(&mut link.connection).await?;
        // A Sentinel has no INFO replication.
        let mut problem = None;
        if kind.refusal(address).is_none() {
            link.server = read_server(&mut link.connection).await?;
            if link.server.master {
                problem = prepare(&mut link, purpose, self_check).await?;
            }
        }
        Ok((link, kind, problem))
    };
    let (link, kind, problem) = runtime::timeout(PREPARATION, preparation)
        .await
        .map_err(|Elapsed| ConnectError::Silent(address.clone()))?
        .map_err(|error| ConnectError::Refused(address.clone(), error))?;
    if let Some(error) = kind.refusal(address) {
        return Err(error);
    }
    match problem {
        _ if !link.server.master => Err(ConnectError::Replica(address.clone())),
        Some(problem) => Err(ConnectError::NotPermitted(address.clone(), problem)),
        None => Ok(link),
    }
}

impl ServerKind {
    /// Why it cannot be used, if it is of another kind or too old.
    fn refusal(&self, address: &RedisUrl) -> Option<ConnectError> {
        match self.mode.as_str() {
            "cluster" => Some(ConnectError::Cluster(address.clone())),
            "sentinel" => Some(ConnectError::Sentinel(address.clone())),
            _ if !is_supported(&self.version) => {
                Some(ConnectError::TooOld(address.clone(), self.version.clone()))
            }
            _ => None,
        }
    }
}

/// Whether this version has what the scripts need. One that is not a number is not refused: a
/// server that cannot run a script answers so.
fn is_supported(version: &str) -> bool {
    let major = version.split('.').next().unwrap_or_default();
    major
        .parse()
        .map_or(true, |major: u32| major >= OLDEST_VERSION)
}

fn login(address: &RedisUrl) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name()
        .set_db(i64::from(address.db()));
    if let Some(user) = address.user() {
        login = login.set_username(user);
    }
    if let Some(password) = address.password() {
        login = login.set_password(password);
    }
    login
}

/// Returns what the node is not permitted to do. Each purpose tries its own commands.
async fn prepare(
    link: &mut RedisConnection,
    purpose: &Purpose,
    self_check: &SelfCheck,
) -> redis::RedisResult<Option<String>> {
    let connection = &mut link.connection;
    match purpose {
        Purpose::Publishes => {
            load_scripts(connection, scripts::PUBLISHES).await?;
            link.memory = self_check.memory(connection).await?;
            return self_check.permissions(connection).await;
        }
        Purpose::Reads => load_scripts(connection, scripts::READS).await?,
        Purpose::Webhooks => load_scripts(connection, scripts::WEBHOOKS).await?,
        Purpose::Check => {}
        Purpose::Subscription { node_topic, .. } => {
            let tried = self_check.topic();
            connection.subscribe(&[node_topic, &tried]).await?;
            connection.unsubscribe(tried).await?;
        }
    }
    Ok(None)
}

/// Loads the scripts before the first call. A script that is missing is sent again with its text,
/// behind what follows it in the batch; that must not be the rule after each restart or failover,
/// because it changes the order of publishes. While Redis loads its data set it refuses to load
/// scripts, so the connection is not used before.
async fn load_scripts(
    connection: &mut MultiplexedConnection,
    scripts: &[Script],
) -> redis::RedisResult<()> {
    for script in scripts {
        let mut load = Cmd::new();
        load.arg("SCRIPT").arg("LOAD").arg(script.text());
        let _digest: String = load.query_async(connection).await?;
    }
    Ok(())
}

async fn read_kind(connection: &mut MultiplexedConnection) -> redis::RedisResult<ServerKind> {
    let info = read_info(connection, "server").await?;
    Ok(ServerKind {
        version: field(&info, "redis_version").to_owned(),
        mode: field(&info, "redis_mode").to_owned(),
    })
}

/// Reads the role of a server.
pub(super) async fn read_server(
    connection: &mut MultiplexedConnection,
) -> redis::RedisResult<ServerInfo> {
    let info = read_info(connection, "replication").await?;
    Ok(ServerInfo {
        master: field(&info, "role") == "master",
        replid: field(&info, "master_replid").to_owned(),
        written: field(&info, "master_repl_offset").parse().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_version_7_are_too_old() {
        for (info, expected) in [
            ("# Server\r\nredis_version:6.2.14\r\n", false),
            ("# Server\r\nredis_version:7.0.0\r\n", true),
            ("# Server\r\nredis_version:10.1\r\n", true),
            (
                "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n",
                true,
            ),
            ("# Server\r\nredis_version:unstable\r\n", true),
            ("", true),
        ] {
            let version = field(info, "redis_version");
            assert_eq!(is_supported(version), expected, "{info}");
        }
    }
}
