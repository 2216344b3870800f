//! The broker's task for webhooks: answers the deliverer's [`Ask`]s from the stream of notices, on
//! a connection of its own, by the script `hooks.lua`. Without webhooks there is no such task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, select_biased};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};

use super::commands::millis;
use super::connection::Purpose;
use super::names::Names;
use super::reconnector::{Change as RedisConnection, End, Reconnector};
use super::scripts::{Script, ScriptCaller};
use crate::broker::Settings;
use crate::broker::redis::wire::{Format, WireError, split_version};
use crate::metrics::Metrics;
use crate::model::id::{Incarnation, RoomName};
use crate::model::webhook_event::{
    AGE, Ask, BATCH, CLAIM, Change, ClaimMode, Turn, WebhookEvent, WebhookEventId,
};
use crate::runtime;

/// How long a turn may take in Redis, and there and back.
const PATIENCE: Duration = Duration::from_millis(2500);

/// When a node that holds nothing and is silent is forgotten by the group. It costs the others next
/// to nothing until then.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// How long a node that cannot read the next notice leaves the stream to others. Longer than one of
/// them needs to take it, and short enough that nothing is late if none of them can.
const YIELD: Duration = Duration::from_secs(10);

/// Everything the task owns. It ends when the deliverer has dropped its end of `asks`.
pub struct WebhookStream {
    asks: flume::Receiver<Ask>,
    reconnector: Reconnector,
    names: Names,
    incarnation: Incarnation,
    caller: ScriptCaller,
    metrics: Arc<Metrics>,
    /// Entries that nobody can tell, to be forgotten with the next turn.
    junk: Vec<WebhookEventId>,
    newest_format: Format,
    /// The next notice is in a newer format: until then this node holds none, so that another takes
    /// it.
    yields: Option<Instant>,
    /// The last failure that was logged; the same one is not told again and again.
    told: String,
}

/// What the script answers: how many were dropped, and entries.
type Answer = (u64, Vec<(String, Vec<u8>)>);

impl WebhookStream {
    pub fn new(
        asks: flume::Receiver<Ask>,
        supervise: impl FnOnce(Purpose) -> Reconnector,
        names: Names,
        settings: &Settings,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            asks,
            reconnector: supervise(Purpose::Webhooks),
            names,
            incarnation: settings.incarnation,
            caller: ScriptCaller::default(),
            metrics,
            junk: Vec::new(),
            newest_format: settings.newest_format,
            yields: None,
            told: String::new(),
        }
    }

    /// Serves until the deliverer ends.
    pub async fn run(mut self) {
        loop {
            select_biased! {
                change = self.reconnector.change().fuse() => {
                    if let RedisConnection::Up = change {
                        self.caller = ScriptCaller::new(self.reconnector.learned());
                    }
                }
                ask = self.asks.recv_async().fuse() => match ask {
                    Ok(ask) => self.serve(ask).await,
                    Err(flume::RecvError::Disconnected) => return,
                },
            }
        }
    }

    /// Without an answer the ask is dropped, which tells the deliverer as much.
    async fn serve(&mut self, ask: Ask) {
        let mut answer = self.call(&ask).await;
        if let Err(Failure::ScriptMissing) = answer {
            self.caller.teach();
            answer = self.call(&ask).await;
        }
        match answer {
            Ok(answer) => {
                self.told.clear();
                let turn = self.read(answer);
                // The deliverer may have ended; then another node tells them.
                let _ = ask.answer.try_send(turn);
            }
            Err(failure) => self.failed(&failure),
        }
    }

    /// The future holds nothing of the task, which could not be sent with it.
    fn call(&mut self, ask: &Ask) -> impl Future<Output = Result<Answer, Failure>> + use<> {
        let connection = self.reconnector.connection().cloned();
        let command = self.command(ask);
        async move {
            let mut connection = connection.ok_or(Failure::Away)?;
            let answer = runtime::timeout(PATIENCE, command.query_async(&mut connection));
            answer.await.map_err(|_| Failure::Silent)?.map_err(judge)
        }
    }

    fn command(&mut self, ask: &Ask) -> Cmd {
        self.yields = self.yields.filter(|until| Instant::now() < *until);
        let word = self.yields.map_or(ask.word, |_| ClaimMode::Leave);
        let mut command = self.caller.call(Script::WebhookStream);
        command
            .arg(2)
            .arg(&self.names.hooks()[..])
            .arg(self.incarnation.to_string())
            .arg(match word {
                ClaimMode::Take => "take",
                ClaimMode::Keep => "keep",
                ClaimMode::Leave => "leave",
            })
            .arg(BATCH)
            .arg(millis(CLAIM))
            .arg(millis(AGE))
            .arg(millis(FORGOTTEN));
        for id in ask.done.iter().chain(&self.junk) {
            command.arg(id.to_string());
        }
        command
    }

    fn read(&mut self, (dropped, entries): Answer) -> Turn {
        self.junk.clear();
        let mut held = Vec::with_capacity(entries.len());
        for (id, body) in entries {
            let Some(id) = WebhookEventId::parse(&id) else {
                continue;
            };
            match decode(&body, self.newest_format) {
                Ok((change, room)) => held.push(WebhookEvent { id, change, room }),
                Err(WireError::Newer(format)) => {
                    // Nothing behind it may be told before it.
                    if held.is_empty() {
                        self.yields = Some(Instant::now() + YIELD);
                        log::warn!(id:% = id, format:% = format; "the next webhook event is in a newer format, so it is left to other nodes; upgrade this node");
                    }
                    break;
                }
                Err(_) => self.junk.push(id),
            }
        }
        self.metrics.junk_total.add(self.junk.len() as u64);
        Turn { held, dropped }
    }

    /// Of a lost connection the supervisor tells the log.
    fn failed(&mut self, failure: &Failure) {
        let error = match failure {
            Failure::Away => return,
            Failure::Silent => return self.reconnector.remake(End::Silent),
            Failure::Closed => return self.reconnector.remake(End::Closed),
            Failure::NotMaster => return self.reconnector.remake(End::NotMaster),
            Failure::ScriptMissing => "it forgets the script at once".to_owned(),
            Failure::Refused(error) => error.to_string(),
        };
        if error != self.told {
            log::warn!(error = error.as_str(); "Redis does not hand out what webhooks are to tell");
            self.told = error;
        }
    }
}

/// Why a turn was not answered.
enum Failure {
    /// There is no connection at the moment.
    Away,
    Silent,
    Closed,
    NotMaster,
    ScriptMissing,
    Refused(RedisError),
}

fn judge(error: RedisError) -> Failure {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoScript) => Failure::ScriptMissing,
        ErrorKind::Server(ServerErrorKind::ReadOnly) => Failure::NotMaster,
        _ if error.is_unrecoverable_error() => Failure::Closed,
        _ => Failure::Refused(error),
    }
}

/// Reads `1 occupied ROOM` or `1 vacated ROOM`; the digit is the version of the format.
fn decode(body: &[u8], newest: Format) -> Result<(Change, RoomName), WireError> {
    const JUNK: WireError = WireError::Malformed("no webhook event");
    let (_, body) = split_version(body, newest)?;
    let body = std::str::from_utf8(body).ok();
    let words = body.and_then(|body| body.strip_prefix(' ')?.split_once(' '));
    let (word, room) = words.ok_or(JUNK)?;
    let change = [Change::Occupied, Change::Vacated]
        .into_iter()
        .find(|change| change.word() == word)
        .ok_or(JUNK)?;
    Ok((change, RoomName::new(room).map_err(|_| JUNK)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_entries_are_read() {
        let first = Format::FIRST;
        let (change, room) = decode(b"1 vacated @ada", first).unwrap();
        assert_eq!((change, room.as_str()), (Change::Vacated, "@ada"));
        let junk: [&[u8]; 6] = [
            b"",
            b"1 occupied",
            b"1 occupied ",
            b"1 OCCUPIED a",
            b"1 occupied a b",
            b"1 vacated \xff",
        ];
        for body in junk {
            let read = decode(body, first);
            assert!(matches!(read, Err(WireError::Malformed(_))), "{body:?}");
        }
        let second = Format::new(2).unwrap();
        let newer = decode(b"2 occupied a", first);
        assert_eq!(newer.unwrap_err(), WireError::Newer(second));
        assert!(decode(b"2 occupied a", second).is_ok());
    }
}
