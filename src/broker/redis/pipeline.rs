//! A pipeline: one connection to Redis and its requests, sent in order, in batches, each answered
//! once. Publishes have one pipeline and reads have another, so that a big page never delays a
//! publish.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use futures::{FutureExt, select_biased};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{RedisResult, Value};

use super::answers::{self, Outcome};
use super::commands::Commands;
use super::formats::UnreadableRooms;
use super::presence_synced::PresenceSynced;
use super::reconnector::{Change, End, Reconnector};
use super::request_queue::{RedisRequest, RequestQueue};
use super::scripts::ScriptCaller;
use crate::broker::redis::wire::Format;
use crate::broker::{BrokerEvent, Refused, Settings};
use crate::metrics::Metrics;

/// The most unanswered batches: one that Redis works on, the other on the way there or back.
const MAX_BATCHES: usize = 2;

/// The most requests in a batch. The fair queue cannot reorder what Redis has already received: two
/// batches of publishes are two or three milliseconds.
const BATCH: usize = 64;

/// The approximate bytes of a batch: so much is written at once.
const BATCH_BYTES: usize = 256 << 10;

/// How long to wait after Redis has answered that it is not ready yet.
const NOT_YET: Duration = Duration::from_millis(100);

/// Why no request is sent at the moment although the connection is up. It ends when all batches are
/// answered, so that requeued requests stay before later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Redis does not have the script.
    Script,
    /// Redis is loading or busy.
    Until(Instant),
}

/// See the head of this file. The task that owns it calls [`Pipeline::turn`] in its loop and
/// forwards `events`.
pub struct Pipeline {
    pub events: Vec<BrokerEvent>,
    reconnector: Reconnector,
    queue: RequestQueue,
    commands: Commands,
    caller: ScriptCaller,
    /// Batches in flight, oldest first, and the requests in each.
    batches: FuturesOrdered<BoxFuture<'static, RedisResult<Vec<Value>>>>,
    numbers: VecDeque<Vec<u64>>,
    hold: Option<Hold>,
    /// Whether the lists of members in Redis are complete; until then reads of them are retried.
    presence_synced: PresenceSynced,
    newest_format: Format,
    unreadable: UnreadableRooms,
    metrics: Arc<Metrics>,
    /// The last failure that was logged; the same one is not logged again.
    last_error: String,
}

impl Pipeline {
    /// A pipeline whose requests time out after the timeout of a publish.
    pub fn new(
        reconnector: Reconnector,
        commands: Commands,
        settings: &Settings,
        presence_synced: PresenceSynced,
        unreadable: UnreadableRooms,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            events: Vec::new(),
            reconnector,
            queue: RequestQueue::new(settings.publish_timeout),
            commands,
            caller: ScriptCaller::default(),
            batches: FuturesOrdered::new(),
            numbers: VecDeque::new(),
            hold: None,
            presence_synced,
            newest_format: settings.newest_format,
            unreadable,
            metrics,
            last_error: String::new(),
        }
    }

    /// Sets the format in which publications are written.
    pub fn set_format(&mut self, format: Format) {
        self.commands.set_format(format);
    }

    /// Adds a request; [`Pipeline::send`] sends it.
    pub fn push(&mut self, request: RedisRequest) {
        self.events.extend(self.queue.push(request, Instant::now()));
    }

    /// Refuses the requests that have timed out.
    pub fn expire(&mut self) {
        self.events.extend(self.queue.expire(Instant::now()));
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        self.reconnector.connection().is_some()
    }

    /// The connection, if there is one, for other users of it.
    pub fn connection(&self) -> Option<&MultiplexedConnection> {
        self.reconnector.connection()
    }

    /// Replaces the connection.
    pub fn reconnect(&mut self, why: End) {
        self.reconnector.reconnect(why);
        self.all_lost();
    }

    /// Waits for an answer, or for the connection to come or go. Cancel safe.
    pub async fn turn(&mut self) -> Option<Change> {
        select_biased! {
            answers = self.batches.select_next_some() => {
                self.batch_answered(answers);
                None
            }
            change = self.reconnector.change().fuse() => {
                self.all_lost();
                Some(change)
            }
        }
    }

    /// Sends the next batches.
    pub fn send(&mut self) {
        if self.is_held() {
            return;
        }
        while self.batches.len() < MAX_BATCHES
            && let Some(connection) = self.reconnector.connection()
        {
            let numbers = self.queue.take(BATCH, BATCH_BYTES);
            if numbers.is_empty() {
                return;
            }
            let mut connection = connection.clone();
            let pipeline = self.batch(&numbers);
            self.numbers.push_back(numbers);
            self.batches.push_back(
                async move {
                    let count = pipeline.len();
                    connection.req_packed_commands(&pipeline, 0, count).await
                }
                .boxed(),
            );
        }
    }

    fn batch(&mut self, numbers: &[u64]) -> redis::Pipeline {
        let mut pipeline = redis::Pipeline::with_capacity(numbers.len());
        let requests = numbers
            .iter()
            .filter_map(|number| self.queue.request(*number));
        for request in requests {
            pipeline.add_command(self.commands.command(request, &mut self.caller));
        }
        pipeline
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
        let numbers = self.numbers.pop_front().unwrap_or_default();
        match answers {
            Ok(answers) if answers.len() == numbers.len() => {
                for (number, answer) in numbers.into_iter().zip(answers) {
                    self.answered(number, answer);
                }
            }
            // The connection has ended, or its answers are malformed; then every later batch is
            // lost with this one.
            _ => {
                self.numbers.push_front(numbers);
                self.reconnect(End::Closed);
            }
        }
    }

    fn answered(&mut self, number: u64, answer: Value) {
        // It may have timed out.
        let Some(request) = self.queue.request(number) else {
            return;
        };
        let outcome = match request {
            RedisRequest::Members(_) | RedisRequest::ClusterQuery(_)
                if !self.presence_synced.get() =>
            {
                Outcome::NotYet
            }
            request => answers::judge(request, answer, self.newest_format),
        };
        match outcome {
            Outcome::Done { event, junk } => {
                self.metrics.junk_total.add(junk as u64);
                self.events.extend(event);
                self.queue.done(number);
            }
            Outcome::ScriptMissing => self.wait(number, Hold::Script),
            Outcome::NotYet => self.wait(number, Hold::Until(Instant::now() + NOT_YET)),
            Outcome::NotMaster => {
                self.queue.requeue(number);
                self.reconnect(End::NotMaster);
            }
            Outcome::Failed {
                why: Refused::Newer,
                ..
            } => self.newer_format(number),
            Outcome::Failed { why, error } => self.failed(number, why, error),
        }
    }

    fn wait(&mut self, number: u64, hold: Hold) {
        self.queue.requeue(number);
        self.hold = Some(hold);
    }

    fn newer_format(&mut self, number: u64) {
        let room = self.queue.request(number).and_then(RedisRequest::room);
        if let Some(room) = room
            && self.unreadable.met(room, Instant::now())
        {
            log::error!(
                room = room.as_str();
                "a message in this room is in a newer format; upgrade this node"
            );
        }
        self.events
            .extend(self.queue.refused(number, Refused::Newer));
    }

    fn failed(&mut self, number: u64, why: Refused, error: String) {
        if error != self.last_error {
            log::warn!(error = error.as_str(); "Redis refuses a request");
            self.last_error = error;
        }
        self.events.extend(self.queue.refused(number, why));
    }

    /// The connection is gone: none of the batches in flight will be answered.
    fn all_lost(&mut self) {
        self.batches = FuturesOrdered::new();
        self.hold = None;
        for number in std::mem::take(&mut self.numbers).into_iter().flatten() {
            self.events.extend(self.queue.lost(number));
        }
    }
}
