//! What is said to Redis and what its answers mean: each [`Job`] as a command, each answer as an event or as what to do
//! about the failure. The two scripts are here; what they promise is written at their head.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ServerError, Value};

use super::names::Names;
use super::queue::Job;
use crate::broker::wire;
use crate::broker::{
    BrokerEvent, KEY_TTL, META_TTL, Page, Publication, Publish, Range, Read, Refused, Settings,
};
use crate::id::{Epoch, Position};

/// `#!lua`: Redis looks before it starts whether a script that writes may run at all (memory, master, enough replicas).
pub const PUBLISH: &str = concat!(
    "#!lua\n",
    include_str!("room.lua"),
    include_str!("publish.lua")
);

/// Without that line, so that pages can be read when memory is short; only a new epoch is refused then.
pub const READ: &str = concat!(include_str!("room.lua"), include_str!("read.lua"));

/// How long the position of a room is kept in which nothing was ever said. Anyone can join rooms by the thousand.
const IDLE_META_TTL: Duration = Duration::from_secs(24 * 3600);

/// How many bytes of bodies a page holds at most, so that one read neither stalls Redis nor fills memory.
const PAGE_BYTES: usize = 512 << 10;

/// Turns jobs into commands.
#[derive(Debug)]
pub struct Commands {
    pub names: Names,
    node_topic: String,
    history_size: usize,
    history_age: u64,
    /// Candidates for epochs; seeded by the operating system.
    random: fastrand::Rng,
}

/// How a script is called: by its digest, or with its text, which also makes Redis remember it.
#[derive(Clone, Copy, Debug)]
pub enum Script<'a> {
    Digest(&'a str),
    Text(&'static str),
}

impl Script<'_> {
    fn call(self) -> Cmd {
        let mut command = Cmd::new();
        match self {
            Script::Digest(digest) => command.arg("EVALSHA").arg(digest),
            Script::Text(text) => command.arg("EVAL").arg(text),
        };
        command
    }
}

impl Commands {
    pub fn new(names: Names, settings: &Settings, seed: u64) -> Self {
        Self {
            node_topic: names.node_topic(settings.incarnation),
            names,
            history_size: settings.history_size.max(1),
            history_age: millis(settings.history_age),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The command of a job.
    pub fn command(&mut self, job: &Job, script: Script<'_>) -> Cmd {
        match job {
            Job::Publish(publish) if publish.ephemeral => {
                let message = wire::encode_ephemeral(&publish.publication);
                plain_publish(&self.names.topic(&publish.room), &message)
            }
            Job::Publish(publish) => self.publish(publish, script),
            Job::Read(read) => self.read(read, script),
            Job::Probe => plain_publish(&self.node_topic, "1"),
        }
    }

    fn publish(&mut self, publish: &Publish, script: Script<'_>) -> Cmd {
        let mut command = script.call();
        let keys = 2 + usize::from(publish.key.is_some());
        command.arg(keys).arg(self.names.log(&publish.room));
        command.arg(self.names.meta(&publish.room));
        if let Some(key) = &publish.key {
            command.arg(self.names.key(&publish.room, key));
        }
        command
            .arg(self.names.topic(&publish.room))
            .arg(wire::encode_body(&publish.publication))
            .arg(self.candidate())
            .arg(self.history_size)
            .arg(self.history_age)
            .arg(millis(META_TTL))
            .arg(millis(KEY_TTL));
        command
    }

    fn read(&mut self, read: &Read, script: Script<'_>) -> Cmd {
        let mut command = script.call();
        command.arg(2).arg(self.names.log(&read.room));
        command.arg(self.names.meta(&read.room));
        match read.range {
            Range::Top => command.arg("top").arg("").arg(""),
            Range::After(Position { epoch, offset }) => command
                .arg("after")
                .arg(epoch.to_string())
                .arg(offset.min(wire::MAX_OFFSET)),
            Range::Before(None) => command.arg("before").arg("").arg(""),
            Range::Before(Some(offset)) => command
                .arg("before")
                .arg("")
                .arg(offset.min(wire::MAX_OFFSET)),
        };
        command
            .arg(match read.range {
                Range::Top => 0,
                _ => read.limit,
            })
            .arg(PAGE_BYTES)
            .arg(self.candidate())
            .arg(millis(META_TTL))
            .arg(millis(IDLE_META_TTL));
        command
    }

    fn candidate(&mut self) -> String {
        Epoch::new(self.random.u64(..)).to_string()
    }
}

fn plain_publish(topic: &str, message: &str) -> Cmd {
    let mut command = Cmd::new();
    command.arg("PUBLISH").arg(topic).arg(message);
    command
}

/// At least 1: Redis would take zero as "at once", or refuse it.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// What an answer to a job asks for.
#[derive(Debug)]
pub enum Outcome {
    /// It is done; the event is for whoever asked. `junk`: how many entries of the page could not be read.
    Done {
        event: Option<BrokerEvent>,
        junk: usize,
    },
    /// Redis does not have the script (any more); nothing was done.
    ScriptMissing,
    /// Redis is loading its data or busy; nothing was done, and soon it will be.
    NotYet,
    /// This server is no master; nothing was done, and another connection is needed.
    NotMaster,
    /// It failed in a way that waiting does not mend.
    Failed { why: Refused, error: String },
}

/// Reads the answer to a job.
pub fn judge(job: &Job, answer: Value) -> Outcome {
    let answer = match answer {
        Value::ServerError(error) => return judge_error(job, &error),
        answer => answer,
    };
    let done = |event| Outcome::Done { event, junk: 0 };
    match job {
        Job::Probe => done(None),
        Job::Publish(publish) => {
            let position = match publish.ephemeral {
                true => Some(Position {
                    epoch: Epoch::UNKNOWN,
                    offset: 0,
                }),
                false => read_position(answer),
            };
            match position {
                Some(position) => done(Some(BrokerEvent::Published {
                    ticket: publish.ticket,
                    result: Ok(position),
                })),
                None => foreign(Refused::Unknown),
            }
        }
        Job::Read(read) => match read_page(read, answer) {
            Some((page, junk)) => Outcome::Done {
                event: Some(BrokerEvent::Page {
                    ticket: read.ticket,
                    result: Ok(page),
                }),
                junk,
            },
            None => foreign(Refused::Unavailable),
        },
    }
}

fn foreign(why: Refused) -> Outcome {
    Outcome::Failed {
        why,
        error: "an answer that is not of our scripts".to_owned(),
    }
}

/// Codes by which Redis refuses a command before it runs. An error raised inside a script may have left a part of its work, except
/// those that its first lines meet.
fn judge_error(job: &Job, error: &ServerError) -> Outcome {
    let details = error.details().unwrap_or_default();
    let why = match error.code() {
        "NOSCRIPT" => return Outcome::ScriptMissing,
        "LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN" | "CLUSTERDOWN" => return Outcome::NotYet,
        "READONLY" => return Outcome::NotMaster,
        "OOM" => Refused::Full,
        "MISCONF" | "NOREPLICAS" | "NOAUTH" | "NOPERM" => Refused::Unavailable,
        _ if matches!(job, Job::Read(_)) => Refused::Unavailable,
        _ => Refused::Unknown,
    };
    let why = match why {
        Refused::Unavailable if details.contains("script:") => Refused::Unknown,
        why => why,
    };
    Outcome::Failed {
        why,
        error: format!("{} {details}", error.code()),
    }
}

fn read_position(answer: Value) -> Option<Position> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [epoch, offset] = <[Value; 2]>::try_from(parts).ok()?;
    Some(Position {
        epoch: read_epoch(&epoch)?,
        offset: read_offset(&offset)?,
    })
}

/// The page, and how many of its entries were junk.
fn read_page(read: &Read, answer: Value) -> Option<(Page, usize)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [epoch, top, first, entries] = <[Value; 4]>::try_from(parts).ok()?;
    let top = Position {
        epoch: read_epoch(&epoch)?,
        offset: read_offset(&top)?,
    };
    let mut first = read_offset(&first)?;
    let Value::Array(entries) = entries else {
        return None;
    };
    let (mut entries, junk) = read_entries(entries)?;
    let backwards = matches!(read.range, Range::Before(_));
    keep_contiguous(&mut entries, backwards);
    if backwards {
        entries.reverse();
    }
    // A log with a hole reaches back only to the hole's end, for whoever stands before it.
    if let (Range::After(since), Some((offset, _))) = (read.range, entries.first())
        && since.epoch == top.epoch
        && *offset > since.offset + 1
    {
        first = first.max(*offset);
    }
    let page = Page {
        top,
        first,
        messages: entries,
    };
    Some((page, junk))
}

type Entries = Vec<(u64, Arc<Publication>)>;

fn read_entries(values: Vec<Value>) -> Option<(Entries, usize)> {
    let mut junk = 0;
    let mut entries = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let (Some(id), Some(body)) = (values.next(), values.next()) {
        let id = bytes(&id)?;
        let offset = wire::decode_offset(id.split(|&byte| byte == b'-').next()?)?;
        let publication = wire::decode_body(bytes(&body)?).unwrap_or_else(|_| {
            junk += 1;
            wire::unreadable()
        });
        entries.push((offset, Arc::new(publication)));
    }
    Some((entries, junk))
}

/// Ends the page before the first hole.
fn keep_contiguous(entries: &mut Entries, backwards: bool) {
    let follows = |pair: &[(u64, Arc<Publication>)]| match backwards {
        true => pair[0].0 == pair[1].0 + 1,
        false => pair[1].0 == pair[0].0 + 1,
    };
    if let Some(hole) = entries.windows(2).position(|pair| !follows(pair)) {
        entries.truncate(hole + 1);
    }
}

fn read_epoch(value: &Value) -> Option<Epoch> {
    Some(wire::decode_epoch(bytes(value)?)).filter(|epoch| *epoch != Epoch::UNKNOWN)
}

fn read_offset(value: &Value) -> Option<u64> {
    wire::decode_offset(bytes(value)?)
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}
