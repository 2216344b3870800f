//! The broker's task for webhooks: answers the deliverer's [`WebhookPoll`]s from the stream of webhook
//! events, on a connection of its own, with the script `webhook_queue.lua`. Without webhooks there
//! is no such task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, select_biased};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};

use super::connection::Purpose;
use super::names::Names;
use super::reconnector::{End, Reconnector};
use super::scripts::{Script, ScriptCaller, millis};
use crate::broker::Settings;
use crate::broker::redis::wire::{Format, WireError, split_version};
use crate::metrics::Metrics;
use crate::model::id::{Incarnation, RoomName};
use crate::model::webhook_event::{
    AGE, BATCH, CLAIM, ClaimMode, ClaimedEvents, RoomChange, WebhookEvent, WebhookEventId,
    WebhookPoll,
};
use crate::runtime;

/// The timeout of a call of the script.
const TIMEOUT: Duration = Duration::from_millis(2500);

/// After how long the group removes a silent node that holds no events. Until then it costs the
/// others next to nothing.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// How long a node that cannot read the next event leaves the stream to other nodes. Longer than
/// one of them needs to claim it, and short enough to cause no delay if none of them can read it.
const YIELD: Duration = Duration::from_secs(10);

/// Everything the task owns. It ends when the deliverer has dropped its end of `polls`.
pub struct WebhookStream {
    polls: flume::Receiver<WebhookPoll>,
    reconnector: Reconnector,
    names: Names,
    incarnation: Incarnation,
    caller: ScriptCaller,
    metrics: Arc<Metrics>,
    /// Entries that cannot be read, to be deleted with the next call.
    junk: Vec<WebhookEventId>,
    newest_format: Format,
    /// The next event is in a newer format: until then this node claims none, so that another node
    /// takes it.
    yields: Option<Instant>,
    /// The last failure that was logged; the same one is not logged again.
    last_error: String,
}

/// The answer of the script: how many events were dropped, and entries.
type Answer = (u64, Vec<(String, Vec<u8>)>);

impl WebhookStream {
    pub fn new(
        polls: flume::Receiver<WebhookPoll>,
        reconnector: impl FnOnce(Purpose) -> Reconnector,
        names: Names,
        settings: &Settings,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            polls,
            reconnector: reconnector(Purpose::Webhooks),
            names,
            incarnation: settings.incarnation,
            caller: ScriptCaller::default(),
            metrics,
            junk: Vec::new(),
            newest_format: settings.newest_format,
            yields: None,
            last_error: String::new(),
        }
    }

    /// Serves until the deliverer ends.
    pub async fn run(mut self) {
        loop {
            select_biased! {
                _ = self.reconnector.change().fuse() => {}
                poll = self.polls.recv_async().fuse() => match poll {
                    Ok(poll) => self.serve(poll).await,
                    Err(flume::RecvError::Disconnected) => return,
                },
            }
        }
    }

    /// Without an answer the poll is dropped, which the deliverer detects.
    async fn serve(&mut self, poll: WebhookPoll) {
        let mut answer = self.call(&poll).await;
        if let Err(Failure::ScriptMissing) = answer {
            self.caller.reload();
            answer = self.call(&poll).await;
        }
        match answer {
            Ok(answer) => {
                self.last_error.clear();
                let turn = self.read(answer);
                // The deliverer may have ended; then another node delivers the events.
                let _ = poll.answer.try_send(turn);
            }
            Err(failure) => self.failed(&failure),
        }
    }

    /// The future borrows nothing of the task: with a borrow it would not be `Send`.
    fn call(
        &mut self,
        poll: &WebhookPoll,
    ) -> impl Future<Output = Result<Answer, Failure>> + use<> {
        let connection = self.reconnector.connection().cloned();
        let command = self.command(poll);
        async move {
            let mut connection = connection.ok_or(Failure::Away)?;
            let answer = runtime::timeout(TIMEOUT, command.query_async(&mut connection));
            answer.await.map_err(|_| Failure::Silent)?.map_err(judge)
        }
    }

    fn command(&mut self, poll: &WebhookPoll) -> Cmd {
        self.yields = self.yields.filter(|until| Instant::now() < *until);
        let mode = self.yields.map_or(poll.mode, |_| ClaimMode::Leave);
        let mut command = self.caller.call(Script::WebhookStream);
        command
            .arg(2)
            .arg(&self.names.hooks()[..])
            .arg(self.incarnation.to_string())
            .arg(match mode {
                ClaimMode::Take => "take",
                ClaimMode::Keep => "keep",
                ClaimMode::Leave => "leave",
            })
            .arg(BATCH)
            .arg(millis(CLAIM))
            .arg(millis(AGE))
            .arg(millis(FORGOTTEN));
        for id in poll.done.iter().chain(&self.junk) {
            command.arg(id.to_string());
        }
        command
    }

    fn read(&mut self, (dropped, entries): Answer) -> ClaimedEvents {
        self.junk.clear();
        let mut held = Vec::with_capacity(entries.len());
        for (id, body) in entries {
            let Some(id) = WebhookEventId::parse(&id) else {
                continue;
            };
            match decode(&body, self.newest_format) {
                Ok((change, room)) => held.push(WebhookEvent { id, change, room }),
                Err(WireError::Newer(format)) => {
                    // No event behind it may be delivered before it.
                    if held.is_empty() {
                        self.yields = Some(Instant::now() + YIELD);
                        log::warn!(
                            id:% = id, format:% = format;
                            "the next webhook event is in a newer format, so it is left to other \
                             nodes; upgrade this node"
                        );
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

    /// Logs a failure, except a lost connection, which the reconnector logs.
    fn failed(&mut self, failure: &Failure) {
        let error = match failure {
            Failure::Away => return,
            Failure::Silent => return self.reconnector.reconnect(End::Silent),
            Failure::Closed => return self.reconnector.reconnect(End::Closed),
            Failure::NotMaster => return self.reconnector.reconnect(End::NotMaster),
            Failure::ScriptMissing => "it does not keep the script".to_owned(),
            Failure::Refused(error) => error.to_string(),
        };
        if error != self.last_error {
            log::warn!(error = error.as_str(); "Redis refuses to read webhook events");
            self.last_error = error;
        }
    }
}

/// Why a call was not answered.
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
fn decode(body: &[u8], newest: Format) -> Result<(RoomChange, RoomName), WireError> {
    const JUNK: WireError = WireError::Malformed("no webhook event");
    let (_, body) = split_version(body, newest)?;
    let body = std::str::from_utf8(body).ok();
    let parts = body.and_then(|body| body.strip_prefix(' ')?.split_once(' '));
    let (name, room) = parts.ok_or(JUNK)?;
    let change = [RoomChange::Occupied, RoomChange::Vacated]
        .into_iter()
        .find(|change| change.name() == name)
        .ok_or(JUNK)?;
    Ok((change, RoomName::new(room).map_err(|_| JUNK)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are_not_ours_are_refused() {
        let first = Format::FIRST;
        let (change, room) = decode(b"1 vacated @ada", first).unwrap();
        assert_eq!((change, room.as_str()), (RoomChange::Vacated, "@ada"));
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
