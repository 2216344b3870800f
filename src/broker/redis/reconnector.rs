//! Keeps one connection to Redis: connects, detects its end, and reconnects without limit. All
//! connections of a node use it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use redis::aio::MultiplexedConnection;

use super::connection::{self, Connector, Purpose, RedisConnection};
use super::push_queue::PushQueue;
use super::self_check::MemoryState;
use crate::metrics::Metrics;
use crate::runtime::{self, Elapsed};

/// How often a connection is checked.
const INTERVAL: Duration = Duration::from_secs(1);

/// The timeout of a check. Less than two and a half seconds would take `CLIENT PAUSE 2000` for a
/// dead connection; with the interval a dead one is detected within three and a half.
const SILENCE: Duration = Duration::from_millis(2500);

/// In how many checks of a connection the permissions are checked once; their check writes.
const PERMISSIONS_EVERY: u32 = 30;

/// The first wait before another attempt; it doubles from attempt to attempt.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The longest wait: a Redis that comes back is used again well within a second.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// A connection that ends sooner does not count as a success: the waits go on growing.
const SETTLED: Duration = Duration::from_secs(3);

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum End {
    #[error("closed by Redis or the network")]
    Closed,
    #[error("no answer for two and a half seconds")]
    Silent,
    #[error("the server is no longer the master")]
    NotMaster,
    #[error("publishes go to another server")]
    Elsewhere,
    #[error("no probe came back by the subscription")]
    NoProbe,
    #[error("a request was refused")]
    Refused,
}

/// The result of [`Reconnector::change`].
#[derive(Debug)]
pub(super) enum ConnectionChange {
    Up,
    Down,
}

/// One connection of a node, now up or being made.
pub(super) struct Reconnector {
    connector: Arc<Connector>,
    purpose: Arc<Purpose>,
    metrics: Arc<Metrics>,
    state: ReconnectorState,
    /// Attempts since the last connection that lasted.
    attempts: u32,
}

enum ReconnectorState {
    Dialing(BoxFuture<'static, Box<RedisConnection>>),
    Up {
        link: Box<RedisConnection>,
        since: Instant,
        end: BoxFuture<'static, End>,
    },
}

impl Reconnector {
    pub(super) fn new(connector: Arc<Connector>, purpose: Purpose, metrics: Arc<Metrics>) -> Self {
        let purpose = Arc::new(purpose);
        Self {
            state: ReconnectorState::Dialing(dial(connector.clone(), purpose.clone(), 0).boxed()),
            connector,
            purpose,
            metrics,
            attempts: 0,
        }
    }

    /// The connection, if there is one.
    pub(super) fn connection(&self) -> Option<&MultiplexedConnection> {
        match &self.state {
            ReconnectorState::Up { link, .. } => Some(&link.connection),
            ReconnectorState::Dialing(_) => None,
        }
    }

    /// The queue of a subscription that has just come up.
    pub(super) fn take_pushes(&mut self) -> Option<PushQueue> {
        match &mut self.state {
            ReconnectorState::Up { link, .. } => link.pushes.take(),
            ReconnectorState::Dialing(_) => None,
        }
    }

    /// Waits until the connection comes or goes. Cancel safe.
    pub(super) async fn change(&mut self) -> ConnectionChange {
        match &mut self.state {
            ReconnectorState::Dialing(dialing) => {
                let link = dialing.await;
                self.up(link);
                ConnectionChange::Up
            }
            ReconnectorState::Up { end, .. } => {
                let end = end.await;
                self.reconnect(end);
                ConnectionChange::Down
            }
        }
    }

    fn up(&mut self, link: Box<RedisConnection>) {
        if self.leads() {
            self.connector.set_home(Some(link.server.replid.clone()));
            self.connector.reset_checks(link.memory.clone());
        }
        if self.attempts > 0 {
            self.metrics.redis_reconnects_total.add(1);
        }
        log::info!(connection:% = self.purpose, redis:% = link.address; "connected to Redis");
        let watch = watch(self.connector.clone(), &link, self.leads());
        self.state = ReconnectorState::Up {
            end: watch.boxed(),
            link,
            since: Instant::now(),
        };
    }

    /// Ends the connection, if there is one, and dials another.
    pub(super) fn reconnect(&mut self, why: End) {
        let ReconnectorState::Up { link, since, .. } = &self.state else {
            return;
        };
        log::warn!(
            connection:% = self.purpose, redis:% = link.address, reason:% = why;
            "connection to Redis lost"
        );
        self.attempts = if since.elapsed() >= SETTLED {
            1
        } else {
            self.attempts.saturating_add(1)
        };
        if self.leads() {
            self.connector.set_home(None);
            self.connector.reset_checks(MemoryState::default());
        }
        let dial = dial(self.connector.clone(), self.purpose.clone(), self.attempts);
        self.state = ReconnectorState::Dialing(dial.boxed());
    }

    fn leads(&self) -> bool {
        matches!(*self.purpose, Purpose::Publishes)
    }
}

/// Retries until it succeeds. The very first attempt has no wait; each other one waits half its
/// bound in the mean ("full jitter"), so that the nodes of a cluster do not reconnect in step. A
/// reason is logged once.
async fn dial(
    connector: Arc<Connector>,
    purpose: Arc<Purpose>,
    mut attempts: u32,
) -> Box<RedisConnection> {
    let mut logged = String::new();
    loop {
        if attempts > 0 {
            runtime::sleep(wait(attempts, fastrand::f64())).await;
        }
        attempts = attempts.saturating_add(1);
        match connector.connect(&purpose).await {
            Ok(link) => return Box::new(link),
            Err(error) => {
                let reason = error.to_string();
                if reason != logged {
                    log::warn!(
                        connection:% = purpose, reason = reason.as_str();
                        "cannot connect to Redis; retrying"
                    );
                    logged = reason;
                }
            }
        }
    }
}

/// The wait before an attempt: a part (0 to 1) of a bound that doubles, and never zero.
fn wait(attempts: u32, part: f64) -> Duration {
    let bound = FIRST_WAIT
        .saturating_mul(1 << attempts.saturating_sub(1).min(10))
        .min(LONGEST_WAIT);
    Duration::from_millis(5) + bound.mul_f64(part)
}

/// Ready when the connection has ended or should end.
fn watch(
    connector: Arc<Connector>,
    link: &RedisConnection,
    leads: bool,
) -> impl Future<Output = End> + Send + 'static {
    let ended = link.ended.clone();
    let connection = link.connection.clone();
    async move {
        let closed = std::pin::pin!(ended.into_recv_async());
        let checked = std::pin::pin!(check_periodically(connector, connection, leads));
        match select(closed, checked).await {
            Either::Left(_) => End::Closed,
            Either::Right((end, _)) => end,
        }
    }
}

async fn check_periodically(
    connector: Arc<Connector>,
    mut connection: MultiplexedConnection,
    leads: bool,
) -> End {
    let mut checks = 0;
    loop {
        runtime::sleep(INTERVAL).await;
        let server = match runtime::timeout(SILENCE, connection::read_server(&mut connection)).await
        {
            Err(Elapsed) => return End::Silent,
            Ok(Err(error)) if error.is_unrecoverable_error() => return End::Closed,
            Ok(Err(_)) => return End::Refused,
            Ok(Ok(server)) => server,
        };
        if !server.master {
            return End::NotMaster;
        }
        match connector.home() {
            _ if leads => connector.set_home(Some(server.replid)),
            Some(home) if home != server.replid => return End::Elsewhere,
            _ => {}
        }
        if leads {
            checks += 1;
            let check = connector.check_again(&mut connection, checks % PERMISSIONS_EVERY == 0);
            // A refusal that is not one of permissions, such as BUSY, passes.
            match runtime::timeout(SILENCE, check).await {
                Err(Elapsed) => return End::Silent,
                Ok(Err(error)) if error.is_unrecoverable_error() => return End::Closed,
                Ok(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_second_and_are_never_zero() {
        assert!(wait(1, 0.0) > Duration::ZERO);
        let longest: Vec<u128> = (1..7).map(|n| wait(n, 1.0).as_millis()).collect();
        assert_eq!(longest, [55, 105, 205, 405, 505, 505]);
        assert_eq!(wait(u32::MAX, 1.0).as_millis(), 505);
    }
}
