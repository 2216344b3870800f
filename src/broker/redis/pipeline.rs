//! A lane: one connection to Redis and the requests that travel on it, in order, in batches, each
//! answered once. Publishes have a lane and reads have another, so that a big page never delays a
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
use super::scripts::{Learned, ScriptCaller};
use crate::broker::redis::wire::Format;
use crate::broker::{BrokerEvent, Refused, Settings};
use crate::metrics::Metrics;

/// How many batches may be unanswered: one that Redis works on, the other on the way there or back.
const MAX_BATCHES: usize = 2;

/// How many requests make a batch, at most. What is with Redis already is overtaken by nobody,
/// however fair the queue is: two batches of publishes are two or three milliseconds.
const BATCH: usize = 64;

/// How many bytes make a batch, about: so much is written at once.
const BATCH_BYTES: usize = 256 << 10;

/// How long to wait after Redis has said that it is not ready yet.
const NOT_YET: Duration = Duration::from_millis(100);

/// Why nothing is sent at the moment although the connection is up. It ends when all batches have
/// landed, so that what goes back to the queue keeps its place before what came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Redis has forgotten the script.
    Script,
    /// Redis is loading or busy.
    Until(Instant),
}

/// See the head of this file. The task that owns it calls [`Pipeline::turn`] in its loop and passes
/// on what is in `events`.
pub struct Pipeline {
    pub events: Vec<BrokerEvent>,
    reconnector: Reconnector,
    queue: RequestQueue,
    commands: Commands,
    caller: ScriptCaller,
    /// Batches on their way, oldest first, and the requests in each.
    batches: FuturesOrdered<BoxFuture<'static, RedisResult<Vec<Value>>>>,
    numbers: VecDeque<Vec<u64>>,
    hold: Option<Hold>,
    /// Whether what is said of members can be believed; until then they are asked again.
    presence_synced: PresenceSynced,
    newest_format: Format,
    unreadable: UnreadableRooms,
    metrics: Arc<Metrics>,
    /// The last failure that was logged; the same one is not told again and again.
    told: String,
}

impl Pipeline {
    /// A lane whose requests wait for their answers as long as a publish.
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
            told: String::new(),
        }
    }

    /// Publications are written in this format from now on.
    pub fn set_format(&mut self, format: Format) {
        self.commands.set_format(format);
    }

    /// Takes a request; it is sent by [`Pipeline::send`].
    pub fn push(&mut self, job: RedisRequest) {
        self.events.extend(self.queue.push(job, Instant::now()));
    }

    /// Refuses what has waited too long.
    pub fn expire(&mut self) {
        self.events.extend(self.queue.expire(Instant::now()));
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        self.reconnector.connection().is_some()
    }

    /// The connection, if there is one, for others who use it too.
    pub fn connection(&self) -> Option<&MultiplexedConnection> {
        self.reconnector.connection()
    }

    /// What the scripts are called on the connection.
    pub fn learned(&self) -> Learned {
        self.reconnector.learned()
    }

    /// Makes the connection anew.
    pub fn remake(&mut self, why: End) {
        self.reconnector.remake(why);
        self.all_lost();
    }

    /// Waits for an answer, or for the connection to come or go. May be dropped and called again.
    pub async fn turn(&mut self) -> Option<Change> {
        select_biased! {
            answers = self.batches.select_next_some() => {
                self.landed(answers);
                None
            }
            change = self.reconnector.change().fuse() => {
                self.all_lost();
                if matches!(change, Change::Up) {
                    self.caller = ScriptCaller::new(self.reconnector.learned());
                }
                Some(change)
            }
        }
    }

    /// Sends what may be sent now.
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
        for job in numbers.iter().filter_map(|number| self.queue.job(*number)) {
            pipeline.add_command(self.commands.command(job, &mut self.caller));
        }
        pipeline
    }

    fn is_held(&mut self) -> bool {
        match self.hold {
            None => return false,
            Some(_) if !self.batches.is_empty() => return true,
            Some(Hold::Until(time)) if Instant::now() < time => return true,
            Some(Hold::Until(_)) => {}
            Some(Hold::Script) => self.caller.teach(),
        }
        self.hold = None;
        false
    }

    fn landed(&mut self, answers: RedisResult<Vec<Value>>) {
        let numbers = self.numbers.pop_front().unwrap_or_default();
        match answers {
            Ok(answers) if answers.len() == numbers.len() => {
                for (number, answer) in numbers.into_iter().zip(answers) {
                    self.answered(number, answer);
                }
            }
            // The connection has ended, or talks nonsense; then every later batch is lost with this
            // one.
            _ => {
                self.numbers.push_front(numbers);
                self.remake(End::Closed);
            }
        }
    }

    fn answered(&mut self, number: u64, answer: Value) {
        // Its time may have been over.
        let Some(job) = self.queue.job(number) else {
            return;
        };
        let outcome = match job {
            RedisRequest::Members(_) | RedisRequest::Census(_) if !self.presence_synced.get() => {
                Outcome::NotYet
            }
            job => answers::judge(job, answer, self.newest_format),
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
                self.queue.untouched(number);
                self.remake(End::NotMaster);
            }
            Outcome::Failed {
                why: Refused::Newer,
                ..
            } => self.met_newer(number),
            Outcome::Failed { why, error } => self.failed(number, why, error),
        }
    }

    fn wait(&mut self, number: u64, hold: Hold) {
        self.queue.untouched(number);
        self.hold = Some(hold);
    }

    fn met_newer(&mut self, number: u64) {
        let room = self.queue.job(number).and_then(RedisRequest::room);
        if let Some(room) = room
            && self.unreadable.met(room, Instant::now())
        {
            log::error!(room = room.as_str(); "a message in this room is in a newer format; upgrade this node");
        }
        self.events
            .extend(self.queue.refused(number, Refused::Newer));
    }

    fn failed(&mut self, number: u64, why: Refused, error: String) {
        if error != self.told {
            log::warn!(error = error.as_str(); "Redis refuses a request");
            self.told = error;
        }
        self.events.extend(self.queue.refused(number, why));
    }

    /// The connection is gone: none of the batches on their way will land.
    fn all_lost(&mut self) {
        self.batches = FuturesOrdered::new();
        self.hold = None;
        for number in std::mem::take(&mut self.numbers).into_iter().flatten() {
            self.events.extend(self.queue.lost(number));
        }
    }
}
