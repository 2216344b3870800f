//! A pipeline: one connection to Redis and its requests, sent in order, in batches, each answered
//! once. All requests of the broker pass through one: here are the batching, the repetition, the
//! fallback for a missing script, the reaction to errors and their log. A node has a pipeline for
//! publishes and presence, one for reads, so that a big page never delays a publish, and one for
//! webhooks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use futures::{FutureExt, select_biased};
use redis::aio::ConnectionLike;
use redis::{RedisResult, ServerError, Value};

use super::answers;
use super::commands::Commands;
use super::errors::{self, Failure};
use super::formats::UnreadableRooms;
use super::presence::synced::PresenceSynced;
use super::progress::PipelineState;
use super::reconnector::{ConnectionChange, End, Reconnector};
use super::request::{Completion, RedisRequest};
use super::request_queue::{QueuedRequest, RequestQueue};
use super::scripts::ScriptCaller;
use crate::broker::redis::wire::Format;
use crate::broker::{Publication, Refused};
use crate::metrics::Metrics;
use crate::model::id::RoomName;

/// The most unanswered batches: one that Redis works on, the other on the way there or back.
const MAX_BATCHES: usize = 2;

/// The most requests in a batch. The fair queue cannot reorder what Redis has already received: two
/// batches of publishes are two or three milliseconds.
const BATCH: usize = 64;

/// The approximate bytes of a batch: so much is written at once.
const BATCH_BYTES: usize = 256 << 10;

/// How long to wait after Redis has answered that it is not ready yet.
const NOT_YET: Duration = Duration::from_millis(100);

/// After how long the same failure is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Why no request is sent at the moment although the connection is up. It ends when all batches are
/// answered, so that requeued requests stay before later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Redis does not have the script.
    Script,
    /// Redis is loading or busy.
    Until(Instant),
}

/// What the pipelines of a shard share.
#[derive(Clone)]
pub(super) struct PipelineContext {
    /// Whether the lists of members in Redis are complete; until then reads of them are parked.
    pub presence_synced: PresenceSynced,
    /// The newest format that this node reads.
    pub newest_format: Format,
    pub unreadable: UnreadableRooms,
    pub metrics: Arc<Metrics>,
}

/// See the head of this file. The task that owns it calls [`Pipeline::turn`] in its loop, then
/// [`Pipeline::send`], and handles what [`Pipeline::take_completed`] returns.
pub(super) struct Pipeline {
    reconnector: Reconnector,
    queue: RequestQueue,
    commands: Commands,
    caller: ScriptCaller,
    /// The answers of the batches in flight, oldest first.
    batches: FuturesOrdered<BoxFuture<'static, RedisResult<Vec<Value>>>>,
    hold: Option<Hold>,
    completed: Vec<Completion>,
    /// How many requests Redis has done or refused so far.
    answered: u64,
    context: PipelineContext,
    log: FailureLog,
}

impl Pipeline {
    /// A pipeline whose requests time out after `timeout`.
    pub(super) fn new(
        reconnector: Reconnector,
        commands: Commands,
        timeout: Duration,
        context: PipelineContext,
    ) -> Self {
        Self {
            reconnector,
            queue: RequestQueue::new(timeout),
            commands,
            caller: ScriptCaller::default(),
            batches: FuturesOrdered::new(),
            hold: None,
            completed: Vec::new(),
            answered: 0,
            context,
            log: FailureLog::default(),
        }
    }

    /// Sets the format in which publications are written.
    pub(super) fn set_format(&mut self, format: Format) {
        self.commands.set_format(format);
    }

    /// Whether all live nodes can read a publication.
    pub(super) fn can_express(&self, publication: &Publication) -> bool {
        self.commands.can_express(publication)
    }

    /// Adds a request; [`Pipeline::send`] sends it.
    pub(super) fn push(&mut self, request: RedisRequest) {
        let refused = self.queue.push(request, Instant::now());
        self.completed.extend(refused);
    }

    /// Refuses the requests that have timed out.
    pub(super) fn expire(&mut self) {
        self.completed.extend(self.queue.expire(Instant::now()));
    }

    /// The results since the last call.
    pub(super) fn take_completed(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.completed)
    }

    /// Whether there is a connection.
    pub(super) fn is_up(&self) -> bool {
        self.reconnector.connection().is_some()
    }

    /// What the pipeline is doing.
    pub(super) fn state(&self) -> PipelineState {
        PipelineState {
            is_up: self.is_up(),
            unanswered: self.queue.unanswered(),
            parked: self.queue.parked(),
            answered: self.answered,
        }
    }

    /// Whether requests can be sent now.
    pub(super) fn is_ready(&mut self) -> bool {
        self.is_up() && !self.is_held()
    }

    /// Replaces the connection.
    pub(super) fn reconnect(&mut self, why: End) {
        self.reconnector.reconnect(why);
        self.lost();
    }

    /// Waits for an answer, or for the connection to come or go. Cancel safe.
    pub(super) async fn turn(&mut self) -> Option<ConnectionChange> {
        select_biased! {
            answers = self.batches.select_next_some() => {
                self.batch_answered(answers);
                None
            }
            change = self.reconnector.change().fuse() => {
                self.lost();
                Some(change)
            }
        }
    }

    /// Sends the next batches.
    pub(super) fn send(&mut self) {
        if self.queue.parked() > 0 && self.context.presence_synced.get() {
            self.queue.unpark();
        }
        while self.queue.batches() < MAX_BATCHES
            && self.is_ready()
            && self.queue.take(BATCH, BATCH_BYTES)
        {
            self.send_batch();
        }
    }

    /// Sends these requests at once, as a batch that is not counted among the others: the submitter
    /// has one such batch in flight at a time. Only while the pipeline is ready.
    pub(super) fn send_directly(&mut self, requests: Vec<RedisRequest>) {
        self.queue.send_directly(requests, Instant::now());
        self.send_batch();
    }

    /// Sends the newest batch.
    fn send_batch(&mut self) {
        let Some(connection) = self.reconnector.connection() else {
            return;
        };
        let mut connection = connection.clone();
        let mut commands = redis::Pipeline::new();
        for request in self.queue.newest_batch() {
            commands.add_command(self.commands.command(request, &mut self.caller));
        }
        let answers = async move {
            let count = commands.len();
            connection.req_packed_commands(&commands, 0, count).await
        };
        self.batches.push_back(answers.boxed());
    }

    fn is_held(&mut self) -> bool {
        match self.hold {
            None => return false,
            Some(_) if !self.batches.is_empty() => return true,
            Some(Hold::Until(time)) if Instant::now() < time => return true,
            Some(Hold::Until(_)) => {}
            Some(Hold::Script) => self.caller.reload(),
        }
        self.hold = None;
        false
    }

    fn batch_answered(&mut self, answers: RedisResult<Vec<Value>>) {
        let answers = answers.ok();
        let requests = answers
            .as_ref()
            .and_then(|it| self.queue.answered(it.len()));
        // Without them the connection has ended, or its answers are malformed; then every later
        // batch is lost with this one.
        let (Some(answers), Some(requests)) = (answers, requests) else {
            return self.reconnect(End::Closed);
        };
        for (queued, answer) in requests.into_iter().zip(answers) {
            if let Some(queued) = queued {
                self.answered(queued, answer);
            }
        }
    }

    fn answered(&mut self, queued: QueuedRequest, answer: Value) {
        match answer {
            Value::ServerError(error) => self.failed(queued, &error),
            _ if queued.request.reads_presence() && !self.context.presence_synced.get() => {
                // Redis has answered: reads move.
                self.answered += 1;
                self.completed.extend(self.queue.park(queued));
            }
            answer => self.decoded(queued.request, answer),
        }
    }

    fn decoded(&mut self, request: RedisRequest, answer: Value) {
        self.answered += 1;
        match answers::decode(&request, answer, self.context.newest_format) {
            Ok((completion, junk)) => {
                self.context.metrics.junk_total.add(junk as u64);
                self.completed.extend(completion);
            }
            Err(why) => {
                self.log_refusal(&request, why, || {
                    "the answer is not from our scripts".into()
                });
                self.completed.extend(request.refuse(why));
            }
        }
    }

    fn failed(&mut self, queued: QueuedRequest, error: &ServerError) {
        match errors::classify(&queued.request, error) {
            Failure::ScriptMissing => self.wait(queued, Hold::Script),
            Failure::NotYet => self.wait(queued, Hold::Until(Instant::now() + NOT_YET)),
            Failure::NotMaster => {
                self.queue.requeue(queued);
                self.reconnect(End::NotMaster);
            }
            Failure::Refused(why) => {
                self.answered += 1;
                let details = error.details().unwrap_or_default();
                let text = || format!("{} {details}", error.code());
                self.log_refusal(&queued.request, why, text);
                self.completed.extend(queued.refuse(why));
            }
        }
    }

    fn wait(&mut self, queued: QueuedRequest, hold: Hold) {
        self.queue.requeue(queued);
        // A missing script is sent again at the end of any wait.
        if !matches!(self.hold, Some(Hold::Script)) {
            self.hold = Some(hold);
        }
    }

    fn log_refusal(
        &mut self,
        request: &RedisRequest,
        why: Refused,
        error: impl FnOnce() -> String,
    ) {
        match request.room_read() {
            // The regular results of a condition that does not hold, and of a client's mistake.
            _ if matches!(why, Refused::Conflict | Refused::KeyReused) => {}
            Some(room) if why == Refused::Newer => self.newer_format(room),
            _ => self.log.refused(request.kind(), error(), Instant::now()),
        }
    }

    fn newer_format(&self, room: &RoomName) {
        if self.context.unreadable.met(room, Instant::now()) {
            log::error!(
                room = room.as_str();
                "a message in this room is in a newer format; upgrade this node"
            );
        }
    }

    /// The connection is gone: none of the batches in flight will be answered.
    fn lost(&mut self) {
        self.batches = FuturesOrdered::new();
        self.hold = None;
        self.completed.extend(self.queue.lost());
    }
}

/// Logs refusals: of each kind of request, the same one once a minute.
#[derive(Debug, Default)]
struct FailureLog {
    /// The last error by kind of request, and when it was logged.
    last: HashMap<&'static str, (String, Instant)>,
}

impl FailureLog {
    fn refused(&mut self, request: &'static str, error: String, now: Instant) {
        if self.is_new(request, &error, now) {
            log::warn!(request = request, error = error.as_str(); "Redis refuses a request");
            self.last.insert(request, (error, now));
        }
    }

    fn is_new(&self, request: &str, error: &str, now: Instant) -> bool {
        let last = self.last.get(request);
        last.is_none_or(|(text, logged)| text != error || now >= *logged + LOG_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_failure_is_logged_once_a_minute() {
        let (mut log, now) = (FailureLog::default(), Instant::now());
        assert!(log.is_new("read", "ERR x", now));
        log.refused("read", "ERR x".into(), now);
        assert!(!log.is_new("read", "ERR x", now + LOG_INTERVAL / 2));
        assert!(log.is_new("read", "ERR y", now));
        assert!(log.is_new("publish", "ERR x", now));
        log.refused("publish", "OOM".into(), now);
        assert!(!log.is_new("read", "ERR x", now), "of another kind");
        assert!(log.is_new("read", "ERR x", now + LOG_INTERVAL));
    }
}
