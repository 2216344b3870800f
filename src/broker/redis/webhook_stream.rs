//! The broker's task for webhooks: answers the deliverer's [`WebhookPoll`]s from the stream of
//! webhook events, by a pipeline of its own: a page of events never delays a publish. Without
//! webhooks there is no such task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, select_biased};

use super::TICK;
use super::pipeline::Pipeline;
use super::request::{Completion, RedisRequest};
use super::webhook_calls::{self, WebhookCall, WebhookEntries};
use crate::broker::redis::wire::{Format, WireError};
use crate::metrics::Metrics;
use crate::model::webhook_event::{
    ClaimMode, ClaimedEvents, WebhookEvent, WebhookEventId, WebhookPoll,
};
use crate::runtime;

/// The timeout of a call of the script.
pub(super) const TIMEOUT: Duration = Duration::from_millis(2500);

/// How long a node that cannot read the next event leaves the stream to other nodes. Longer than
/// one of them needs to claim it, and short enough to cause no delay if none of them can read it.
const YIELD: Duration = Duration::from_secs(10);

/// Everything the task owns. It ends when the deliverer has dropped its end of `polls`.
pub(super) struct WebhookStream {
    polls: flume::Receiver<WebhookPoll>,
    pipeline: Pipeline,
    /// Where the answer to the poll in flight goes; there is one at a time. Dropped without an
    /// answer, it lets the deliverer poll again.
    answer: Option<flume::Sender<ClaimedEvents>>,
    /// Entries that cannot be read, to be deleted with the next call.
    junk: Vec<WebhookEventId>,
    newest_format: Format,
    /// The next event is in a newer format: until then this node claims none, so that another node
    /// takes it.
    yields: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl WebhookStream {
    pub(super) fn new(
        polls: flume::Receiver<WebhookPoll>,
        pipeline: Pipeline,
        newest_format: Format,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            polls,
            pipeline,
            answer: None,
            junk: Vec::new(),
            newest_format,
            yields: None,
            metrics,
        }
    }

    /// Serves until the deliverer ends.
    pub(super) async fn run(mut self) {
        let mut tick = Box::pin(runtime::sleep(TICK).fuse());
        loop {
            let is_idle = self.answer.is_none();
            select_biased! {
                _ = self.pipeline.turn().fuse() => {}
                () = tick => {
                    tick = Box::pin(runtime::sleep(TICK).fuse());
                    self.pipeline.expire();
                }
                poll = next(&self.polls, is_idle).fuse() => match poll {
                    Ok(poll) => self.call(poll),
                    Err(flume::RecvError::Disconnected) => return,
                },
            }
            self.pipeline.send();
            for completion in self.pipeline.take_completed() {
                if let Completion::Webhooks(result) = completion {
                    self.complete(result.ok());
                }
            }
        }
    }

    /// Without a connection the poll is dropped at once.
    fn call(&mut self, poll: WebhookPoll) {
        if !self.pipeline.is_up() {
            return;
        }
        self.yields = self.yields.filter(|until| Instant::now() < *until);
        let mode = self.yields.map_or(poll.mode, |_| ClaimMode::Leave);
        let mut done = poll.done;
        done.extend(&self.junk);
        self.answer = Some(poll.answer);
        let call = WebhookCall { mode, done };
        self.pipeline.push(RedisRequest::Webhooks(call));
    }

    fn complete(&mut self, entries: Option<WebhookEntries>) {
        let answer = self.answer.take();
        if let (Some(answer), Some(entries)) = (answer, entries) {
            let claimed = self.read(entries);
            // The deliverer may have ended; then another node delivers the events.
            let _ = answer.try_send(claimed);
        }
    }

    fn read(&mut self, WebhookEntries { dropped, entries }: WebhookEntries) -> ClaimedEvents {
        self.junk.clear();
        let mut held = Vec::with_capacity(entries.len());
        for (id, body) in entries {
            let Some(id) = WebhookEventId::parse(&id) else {
                continue;
            };
            match webhook_calls::decode_event(&body, self.newest_format) {
                Ok((change, room)) => held.push(WebhookEvent { id, change, room }),
                Err(WireError::Newer(format)) => {
                    // No event behind it may be delivered before it.
                    if held.is_empty() {
                        self.leave_to_others(id, format);
                    }
                    break;
                }
                Err(_) => self.junk.push(id),
            }
        }
        self.metrics.junk_total.add(self.junk.len() as u64);
        ClaimedEvents {
            events: held,
            dropped,
        }
    }

    fn leave_to_others(&mut self, id: WebhookEventId, format: Format) {
        self.yields = Some(Instant::now() + YIELD);
        log::warn!(
            id:% = id, format:% = format;
            "the next webhook event is in a newer format, so it is left to other nodes; upgrade \
             this node"
        );
    }
}

/// The next poll; pending while one is in flight.
async fn next(
    polls: &flume::Receiver<WebhookPoll>,
    is_idle: bool,
) -> Result<WebhookPoll, flume::RecvError> {
    if is_idle {
        polls.recv_async().await
    } else {
        std::future::pending().await
    }
}
