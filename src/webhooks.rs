//! Webhooks: a backend is told by HTTP that rooms are occupied or vacated, and users online or
//! offline. One task per node asks the broker for what is to be told and posts it in signed batches
//! until the receiver takes it.
//!
//! # What is promised
//!
//! - **At least once**, under one id, whatever node dies: the broker keeps a notice until a node
//!   has said that it was told, or until it is dropped by
//!   [`LENGTH`](crate::model::webhook_event::LENGTH) or [`AGE`](crate::model::webhook_event::AGE),
//!   which is counted and logged. After a crash, a freeze or a cut a notice may be told twice.
//! - **In order**, since one node at a time holds notices, and sends one request at a time. Only a
//!   repetition can come late: a receiver that keeps the greatest id it has seen of a room or user
//!   knows it by its lesser one.
//! - **No node is needed.** One that dies or stops loses what it held to another, and so does one
//!   that failed three times in a row: perhaps it alone cannot reach the receiver.
//! - **Nobody waits for it.** A receiver that is away costs a node one request at a time, and rooms
//!   nothing. Everything waits behind a batch that a receiver refuses for ever, until it is too
//!   old.

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
use crate::model::webhook_event::{Ask, BATCH, ClaimMode, Turn, WebhookEvent, WebhookEventId};
use crate::runtime;
use crate::runtime::tls::{self, TlsError};
use plan::Plan;
use post::{PostError, Receiver};
use signature::Key;

/// How often the broker is asked. It is also how long notices gather before they leave as one
/// batch, and far more often than [`CLAIM`](crate::model::webhook_event::CLAIM) needs.
const TICK: Duration = Duration::from_millis(200);

/// How long the broker may take to answer: its own bound, twice for a script to be learnt anew, and
/// a little.
const PATIENCE: Duration = Duration::from_secs(6);

/// How long a node that stops goes on telling what there is to tell.
const FLUSH: Duration = Duration::from_secs(6);

/// How often it is logged at most that something was dropped.
const COMPLAINT: Duration = Duration::from_secs(10);

/// What a deliverer is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's label.
    pub node: String,
    pub url: WebhookUrl,
    /// What receivers know too.
    pub secret: Secret<Vec<u8>>,
    /// The authorities to trust with `https`, in PEM form, instead of the public ones.
    pub authorities: Option<PathBuf>,
}

/// Why there can be no webhooks.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("--webhook-ca {0}")]
    Tls(#[from] TlsError),
}

/// What the owner of a node holds of its deliverer. Dropping it ends the deliverer at once; what it
/// held is told by another node, or by the next one that starts.
pub struct Webhooks {
    stop: flume::Sender<()>,
    ended: flume::Receiver<()>,
}

impl Webhooks {
    /// Ready when the deliverer has ended by itself, which it does only for a fault, its own or the
    /// broker's.
    pub async fn ended(&self) {
        // Nothing is ever said there.
        let _ = self.ended.recv_async().await;
    }

    /// Tells what there is still to tell, within [`FLUSH`] and a little, unless the receiver is
    /// away.
    pub async fn finish(self) {
        // Errors mean that it has ended already.
        let _ = self.stop.send(());
        let _ = runtime::timeout(FLUSH + PATIENCE, self.ended.recv_async()).await;
    }
}

/// Starts the deliverer. Its questions go to the broker, by the queue that is returned.
///
/// # Errors
/// Only for authorities that cannot be used.
pub fn start(
    settings: Settings,
    metrics: Arc<Metrics>,
) -> Result<(Webhooks, flume::Receiver<Ask>), StartError> {
    let tls = match settings.url.tls() {
        true => Some(tls::connector(settings.authorities.as_deref())?),
        false => None,
    };
    let (stop, stopped) = flume::bounded(1);
    let (ending, ended) = flume::bounded(0);
    let (asking, asks) = flume::bounded(1);
    let deliverer = Deliverer {
        node: settings.node,
        key: Key::new(&settings.secret),
        receiver: Receiver {
            url: settings.url,
            tls,
        },
        asks: asking,
        plan: Plan::default(),
        full: false,
        metrics,
        told: String::new(),
        complained: None,
    };
    runtime::spawn(async move {
        // Dropped when the task ends: that is the news.
        let _ending: flume::Sender<()> = ending;
        deliverer.run(stopped).await;
    });
    Ok((Webhooks { stop, ended }, asks))
}

/// A request on its way: what it tells, and how it went.
type Posting = Fuse<BoxFuture<'static, (Vec<WebhookEventId>, Result<(), PostError>)>>;

/// A question on its way, and the answer, if there is one.
type Asking = Fuse<BoxFuture<'static, (Asked, Option<Turn>)>>;

/// What was asked, and when.
struct Asked {
    time: Instant,
    word: ClaimMode,
    done: Vec<WebhookEventId>,
}

/// What the task owns.
struct Deliverer {
    node: String,
    key: Key,
    receiver: Receiver,
    asks: flume::Sender<Ask>,
    plan: Plan,
    /// Whether the last batch was as large as may be: then more is waiting.
    full: bool,
    metrics: Arc<Metrics>,
    /// The last failure that was logged; the same one is not told again and again.
    told: String,
    /// When it was last logged that something was dropped.
    complained: Option<Instant>,
}

impl Deliverer {
    async fn run(mut self, stop: flume::Receiver<()>) {
        let mut posting: Posting = Fuse::terminated();
        let mut asking = self.ask(ClaimMode::Take);
        let mut tick = Fuse::terminated();
        let mut stopping = stop.into_recv_async().fuse();
        loop {
            select_biased! {
                word = stopping => match word {
                    Ok(()) => return self.leave(posting).await,
                    Err(flume::RecvError::Disconnected) => return,
                },
                (ids, outcome) = posting => {
                    self.posted(&ids, outcome);
                    // The broker is to know it at once, unless it is being asked at this moment.
                    if asking.is_terminated() {
                        tick = runtime::sleep(Duration::ZERO).boxed().fuse();
                    }
                }
                () = tick => asking = self.ask(self.word()),
                (asked, turn) = asking => {
                    if self.asks.is_disconnected() {
                        return;
                    }
                    let answered = self.turned(&asked, turn);
                    tick = runtime::sleep(self.pause(asked.word, answered)).boxed().fuse();
                }
            }
            if posting.is_terminated() {
                posting = self.post();
            }
        }
    }

    /// Lets the request on its way end, tells what is left while it is taken, and gives up what it
    /// holds.
    async fn leave(mut self, posting: Posting) {
        let telling = async {
            let mut posting = posting;
            loop {
                if !posting.is_terminated() {
                    let (ids, outcome) = posting.await;
                    self.posted(&ids, outcome);
                }
                let (asked, turn) = self.ask(ClaimMode::Take).await;
                if !self.turned(&asked, turn) || self.plan.is_failing() {
                    return;
                }
                posting = self.post();
                if posting.is_terminated() {
                    return;
                }
            }
        };
        let _ = runtime::timeout(FLUSH, telling).await;
        self.ask(ClaimMode::Leave).await;
    }

    /// What it wants of the broker now. What gathers for a [`TICK`] leaves as one batch, unless
    /// more is waiting than a batch holds.
    fn word(&self) -> ClaimMode {
        let gathers = !self.full && !self.plan.done().is_empty();
        match self.plan.gives_way(Instant::now()) {
            Some(_) => ClaimMode::Leave,
            None if gathers => ClaimMode::Keep,
            None => ClaimMode::Take,
        }
    }

    /// How long it waits after this question, which was answered or not, until the next.
    fn pause(&self, word: ClaimMode, answered: bool) -> Duration {
        match (word, self.plan.gives_way(Instant::now())) {
            _ if !answered => TICK,
            (ClaimMode::Leave, Some(rest)) => rest,
            _ if !self.plan.done().is_empty() => Duration::ZERO,
            _ => TICK,
        }
    }

    /// Asks the broker.
    fn ask(&self, word: ClaimMode) -> Asking {
        let asked = Asked {
            time: Instant::now(),
            word,
            done: self.plan.done().to_vec(),
        };
        let asks = self.asks.clone();
        let asking = async move {
            let (answer, answered) = flume::bounded(1);
            let ask = Ask {
                done: asked.done.clone(),
                word,
                answer,
            };
            let turn = async {
                asks.send_async(ask).await.ok()?;
                answered.into_recv_async().await.ok()
            };
            let turn = runtime::timeout(PATIENCE, turn).await.ok().flatten();
            (asked, turn)
        };
        asking.boxed().fuse()
    }

    /// Takes the broker's answer; `false` if there is none.
    fn turned(&mut self, asked: &Asked, turn: Option<Turn>) -> bool {
        let Some(turn) = turn else {
            return false;
        };
        if turn.dropped > 0 {
            let total = &self.metrics.webhooks_dropped_total;
            total.add(turn.dropped);
            if self
                .complained
                .is_none_or(|last| last.elapsed() > COMPLAINT)
            {
                self.complained = Some(Instant::now());
                log::error!(total = total.get(); "dropped what webhooks were to tell: there was too much of it, or it was too old");
            }
        }
        self.plan.turned(asked.time, &asked.done, turn.held);
        true
    }

    /// Sends what is to be told now, if there is anything.
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
                    log::info!(url:% = url; "the receiver of webhooks takes them again");
                    self.told.clear();
                }
                self.plan.delivered(ids);
                self.metrics.webhooks_sent_total.add(ids.len() as u64);
            }
            Err(error) => {
                self.metrics.webhooks_failed_total.add(1);
                self.plan.failed(Instant::now(), fastrand::f64());
                let reason = error.to_string();
                if reason != self.told {
                    log::warn!(url:% = url, reason = reason.as_str(); "the receiver of webhooks did not take them; trying on");
                    self.told = reason;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            node: "n".into(),
            url: "http://127.0.0.1:1/".parse().expect("a URL"),
            secret: Secret::new(b"secret".to_vec()),
            authorities: None,
        }
    }

    #[test]
    fn a_deliverer_without_a_broker_ends_and_its_owner_hears_of_it() {
        runtime::block_on(async {
            let (webhooks, asks) = start(settings(), Arc::default()).unwrap();
            let ask: Ask = asks.recv_async().await.unwrap();
            drop((ask, asks));
            let ended = runtime::timeout(Duration::from_secs(20), webhooks.ended()).await;
            assert_eq!(ended, Ok(()));
        });
    }
}
