//! Webhooks: a node reports to a backend by HTTP that rooms are occupied or vacated, and users
//! online or offline. One task per node claims events from the broker and posts them in signed
//! batches until the receiver accepts them.
//!
//! # Guarantees
//!
//! - **At least once**, under one id, whichever node dies: the broker stores an event until a node
//!   has acknowledged its delivery, or until the event is dropped by
//!   [`LENGTH`](crate::model::webhook_event::LENGTH) or [`AGE`](crate::model::webhook_event::AGE),
//!   which is counted and logged. After a crash, a freeze or a network partition an event may be
//!   delivered twice.
//! - **In order**, since one node at a time holds events, and sends one request at a time. Only a
//!   duplicate can arrive late: a receiver that stores the greatest id of each room or user
//!   recognises it by its smaller id.
//! - **No single point of failure.** If a node dies or stops, another node claims the events that
//!   it held. The same happens if a node fails three times in a row: perhaps it alone cannot reach
//!   the receiver.
//! - **Delivery blocks nothing else.** An unreachable receiver costs a node one request at a time,
//!   and rooms nothing. If a receiver refuses a batch for ever, later events wait until the batch
//!   is too old.

pub mod backoff;
pub mod body;
pub mod plan;
pub mod post;
pub mod signature;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::{BoxFuture, Fuse, FusedFuture};
use futures::{FutureExt, select_biased};

use crate::config::WebhookUrl;
use crate::metrics::Metrics;
use crate::model::secret::Secret;
use crate::model::webhook_event::{
    BATCH, ClaimMode, ClaimedEvents, WebhookEvent, WebhookEventId, WebhookPoll,
};
use crate::runtime;
use crate::runtime::tls::{self, TlsError};
use plan::Plan;
use post::{PostError, Receiver};
use signature::SigningKey;

/// How often the broker is asked. It is also how long events gather before they are sent as one
/// batch, and far more often than [`CLAIM`](crate::model::webhook_event::CLAIM) needs.
const TICK: Duration = Duration::from_millis(200);

/// How long the broker may take to answer: twice its own timeout, because a script may have to be
/// loaded again, and a little.
const BROKER_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a node that stops goes on delivering the pending events.
const FLUSH: Duration = Duration::from_secs(6);

/// The shortest time between two log lines about dropped events.
const DROPPED_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The settings of a deliverer.
#[derive(Clone, Debug)]
pub(crate) struct WebhookSettings {
    /// The node's label.
    pub node: String,
    pub url: WebhookUrl,
    /// The secret shared with the receiver.
    pub secret: Secret<Vec<u8>>,
    /// The certificate authorities for `https`, in PEM form, instead of the public ones.
    pub authorities: Option<PathBuf>,
}

/// Why webhooks cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WebhookStartError {
    #[error("--webhook-ca {0}")]
    Tls(#[from] TlsError),
}

/// The handle of a node's deliverer. Dropping it ends the deliverer at once; another node, or the
/// next one that starts, delivers the events that it held.
pub(crate) struct Webhooks {
    stop: flume::Sender<()>,
    ended: flume::Receiver<()>,
}

impl Webhooks {
    /// Completes when the deliverer has ended by itself, which happens only after a fault, its own
    /// or the broker's.
    pub(crate) async fn ended(&self) {
        // Nothing is ever sent on this channel: it only disconnects.
        let _ = self.ended.recv_async().await;
    }

    /// Delivers the pending events, within [`FLUSH`] and a little, unless the receiver is
    /// unreachable.
    pub(crate) async fn finish(self) {
        // Errors mean that it has ended already.
        let _ = self.stop.send(());
        let _ = runtime::timeout(FLUSH + BROKER_TIMEOUT, self.ended.recv_async()).await;
    }
}

/// Starts the deliverer. It sends its requests to the broker on the returned queue.
///
/// # Errors
/// If the authorities cannot be used.
pub(crate) fn start(
    settings: WebhookSettings,
    metrics: Arc<Metrics>,
) -> Result<(Webhooks, flume::Receiver<WebhookPoll>), WebhookStartError> {
    let tls = if settings.url.tls() {
        Some(tls::connector(settings.authorities.as_deref())?)
    } else {
        None
    };
    let (stop, stopped) = flume::bounded(1);
    let (ending, ended) = flume::bounded(0);
    let (poll_sender, polls) = flume::bounded(1);
    let deliverer = Deliverer {
        node: settings.node,
        key: SigningKey::new(&settings.secret),
        receiver: Receiver {
            url: settings.url,
            tls,
        },
        polls: poll_sender,
        plan: Plan::default(),
        full: false,
        metrics,
        last_error: String::new(),
        dropped_logged: None,
    };
    runtime::spawn(async move {
        // Dropped when the task ends, which disconnects `ended`.
        let _ending: flume::Sender<()> = ending;
        deliverer.run(stopped).await;
    });
    Ok((Webhooks { stop, ended }, polls))
}

/// A request in flight: the ids of its events, and its outcome.
type Posting = Fuse<BoxFuture<'static, (Vec<WebhookEventId>, Result<(), PostError>)>>;

/// A claim in flight, and the broker's answer, if there is one.
type Claiming = Fuse<BoxFuture<'static, (SentPoll, Option<ClaimedEvents>)>>;

/// A request to the broker, and when it was sent.
struct SentPoll {
    time: Instant,
    mode: ClaimMode,
    done: Vec<WebhookEventId>,
}

/// The state of the delivery task.
struct Deliverer {
    node: String,
    key: SigningKey,
    receiver: Receiver,
    polls: flume::Sender<WebhookPoll>,
    plan: Plan,
    /// Whether the last batch had the maximum size: then more events are pending.
    full: bool,
    metrics: Arc<Metrics>,
    /// The last failure that was logged; the same one is not logged again.
    last_error: String,
    /// When dropped events were last logged.
    dropped_logged: Option<Instant>,
}

impl Deliverer {
    async fn run(mut self, stop: flume::Receiver<()>) {
        let mut posting: Posting = Fuse::terminated();
        let mut claiming = self.claim(ClaimMode::Take);
        let mut tick = Fuse::terminated();
        let mut stopping = stop.into_recv_async().fuse();
        loop {
            select_biased! {
                stopped = stopping => match stopped {
                    Ok(()) => return self.shut_down(posting).await,
                    Err(flume::RecvError::Disconnected) => return,
                },
                (ids, outcome) = posting => {
                    self.posted(&ids, outcome);
                    // Acknowledge at once, unless a claim is in flight at this moment.
                    if claiming.is_terminated() {
                        tick = runtime::sleep(Duration::ZERO).boxed().fuse();
                    }
                }
                () = tick => claiming = self.claim(self.mode()),
                (claim, turn) = claiming => {
                    if self.polls.is_disconnected() {
                        return;
                    }
                    let answered = self.on_answer(&claim, turn);
                    tick = runtime::sleep(self.pause(claim.mode, answered)).boxed().fuse();
                }
            }
            if posting.is_terminated() {
                posting = self.post();
            }
        }
    }

    /// Waits for the request in flight, delivers the remaining events while the receiver accepts
    /// them, and releases the rest.
    async fn shut_down(mut self, posting: Posting) {
        let flushing = async {
            let mut posting = posting;
            loop {
                if !posting.is_terminated() {
                    let (ids, outcome) = posting.await;
                    self.posted(&ids, outcome);
                }
                let (claim, turn) = self.claim(ClaimMode::Take).await;
                if !self.on_answer(&claim, turn) || self.plan.is_failing() {
                    return;
                }
                posting = self.post();
                if posting.is_terminated() {
                    return;
                }
            }
        };
        let _ = runtime::timeout(FLUSH, flushing).await;
        self.claim(ClaimMode::Leave).await;
    }

    /// The mode of the next claim. Events gather for a [`TICK`] and are sent as one batch, unless
    /// more are pending than a batch holds.
    fn mode(&self) -> ClaimMode {
        let gathers = !self.full && !self.plan.done().is_empty();
        match self.plan.gives_way(Instant::now()) {
            Some(_) => ClaimMode::Leave,
            None if gathers => ClaimMode::Keep,
            None => ClaimMode::Take,
        }
    }

    /// The pause between this claim, which was answered or not, and the next.
    fn pause(&self, mode: ClaimMode, answered: bool) -> Duration {
        match (mode, self.plan.gives_way(Instant::now())) {
            _ if !answered => TICK,
            (ClaimMode::Leave, Some(rest)) => rest,
            _ if !self.plan.done().is_empty() => Duration::ZERO,
            _ => TICK,
        }
    }

    /// Acknowledges delivered events and claims new ones from the broker.
    fn claim(&self, mode: ClaimMode) -> Claiming {
        let claim = SentPoll {
            time: Instant::now(),
            mode,
            done: self.plan.done().to_vec(),
        };
        let polls = self.polls.clone();
        let claiming = async move {
            let (answer, answered) = flume::bounded(1);
            let poll = WebhookPoll {
                done: claim.done.clone(),
                mode,
                answer,
            };
            let turn = async {
                polls.send_async(poll).await.ok()?;
                answered.into_recv_async().await.ok()
            };
            let turn = runtime::timeout(BROKER_TIMEOUT, turn).await.ok().flatten();
            (claim, turn)
        };
        claiming.boxed().fuse()
    }

    /// Handles the broker's answer; `false` if there is none.
    fn on_answer(&mut self, claim: &SentPoll, turn: Option<ClaimedEvents>) -> bool {
        let Some(turn) = turn else {
            return false;
        };
        if turn.dropped > 0 {
            let total = &self.metrics.webhooks_dropped_total;
            total.add(turn.dropped);
            if self
                .dropped_logged
                .is_none_or(|last| last.elapsed() > DROPPED_LOG_INTERVAL)
            {
                self.dropped_logged = Some(Instant::now());
                log::error!(
                    total = total.get();
                    "dropped webhook events: there were too many, or they were too old"
                );
            }
        }
        self.plan.on_answer(claim.time, &claim.done, turn.events);
        true
    }

    /// Posts the current batch, if there is one.
    fn post(&mut self) -> Posting {
        let Some(batch) = self.plan.batch(Instant::now()) else {
            return Fuse::terminated();
        };
        let ids: Vec<WebhookEventId> = batch.iter().map(|WebhookEvent { id, .. }| *id).collect();
        self.full = ids.len() >= BATCH;
        // A clock before 1970 is wrong anyway.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let body = body::encode(&self.node, millis, batch);
        let signature = self.key.sign(now.as_secs(), &body);
        let receiver = self.receiver.clone();
        let posting = async move { (ids, receiver.post(body, signature).await) };
        posting.boxed().fuse()
    }

    fn posted(&mut self, ids: &[WebhookEventId], outcome: Result<(), PostError>) {
        let url = &self.receiver.url;
        match outcome {
            Ok(()) => {
                if self.plan.is_failing() {
                    log::info!(url:% = url; "the webhook receiver accepts events again");
                    self.last_error.clear();
                }
                self.plan.delivered(ids);
                self.metrics.webhooks_sent_total.add(ids.len() as u64);
            }
            Err(error) => {
                self.metrics.webhooks_failed_total.add(1);
                self.plan.failed(Instant::now(), fastrand::f64());
                let reason = error.to_string();
                if reason != self.last_error {
                    log::warn!(
                        url:% = url, reason = reason.as_str();
                        "the webhook receiver did not accept events; retrying"
                    );
                    self.last_error = reason;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> WebhookSettings {
        WebhookSettings {
            node: "n".into(),
            url: "http://127.0.0.1:1/".parse().expect("a URL"),
            secret: Secret::new(b"secret".to_vec()),
            authorities: None,
        }
    }

    #[test]
    fn deliverer_ends_without_a_broker_and_its_owner_is_notified() {
        runtime::block_on(async {
            let (webhooks, polls) = start(settings(), Arc::default()).unwrap();
            let poll: WebhookPoll = polls.recv_async().await.unwrap();
            drop((poll, polls));
            let ended = runtime::timeout(Duration::from_secs(20), webhooks.ended()).await;
            assert_eq!(ended, Ok(()));
        });
    }
}
