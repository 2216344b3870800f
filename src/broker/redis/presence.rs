//! Carries out the errands of presence on the connection for publishes, one batch at a time, beside
//! the publishes.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Fuse};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Pipeline, RedisResult, Value};

use super::commands::Commands;
use super::member_pages;
use super::presence_agent::{PresenceAgent, PresenceCommand, Reply};
use super::presence_synced::PresenceSynced;
use super::reconnector::End;
use super::scripts::{Learned, ScriptCaller};
use crate::broker::redis::wire::Format;
use crate::broker::{Change, Connected, SetPresence};
use crate::model::id::RoomName;

/// See the head of this file.
pub struct Presence {
    announcer: PresenceAgent,
    commands: Commands,
    caller: ScriptCaller,
    /// The batch under way, and its answers to come.
    sent: Vec<PresenceCommand>,
    answers: Fuse<BoxFuture<'static, RedisResult<Vec<Value>>>>,
    presence_synced: PresenceSynced,
    /// The last failure that was logged.
    told: String,
}

impl Presence {
    pub fn new(
        announcer: PresenceAgent,
        commands: Commands,
        presence_synced: PresenceSynced,
    ) -> Self {
        Self {
            announcer,
            commands,
            caller: ScriptCaller::default(),
            sent: Vec::new(),
            answers: Fuse::terminated(),
            presence_synced,
            told: String::new(),
        }
    }

    pub fn here(&mut self, here: SetPresence) {
        self.announcer.here(here);
    }

    pub fn is_connected(&mut self, connected: Connected) {
        self.announcer.is_connected(connected);
    }

    pub fn retire(&mut self, span: Duration) {
        self.announcer.retire(span, Instant::now());
    }

    pub fn on_change(&mut self, room: &RoomName, change: &Change) {
        let now = Instant::now();
        self.announcer.on_change(room, change, now);
        self.presence_synced.set(self.announcer.trusts(now));
    }

    /// The format in which this node writes now.
    pub fn format(&self) -> Format {
        self.announcer.format(Instant::now())
    }

    /// Whether the lease was lost since this was last asked, and with it perhaps other data.
    pub fn take_loss(&mut self) -> bool {
        self.announcer.take_loss()
    }

    /// The connection is another one.
    pub fn connected(&mut self, learned: Learned) {
        self.lost();
        self.caller = ScriptCaller::new(learned);
        self.announcer.connected(Instant::now());
    }

    /// Waits until the batch under way has its answers; for ever when there is none. May be dropped
    /// and called again.
    ///
    /// # Errors
    /// The connection should be made anew.
    pub async fn turn(&mut self) -> Result<(), End> {
        match (&mut self.answers).await {
            Ok(answers) if answers.len() == self.sent.len() => {
                self.landed(answers);
                Ok(())
            }
            _ => {
                self.lost();
                Err(End::Closed)
            }
        }
    }

    /// Sends the next batch, if there is something to say and none is under way.
    pub fn send(&mut self, connection: Option<&MultiplexedConnection>) {
        let Some(connection) = connection else {
            self.lost();
            self.announcer.disconnected();
            return self.presence_synced.set(false);
        };
        self.presence_synced
            .set(self.announcer.trusts(Instant::now()));
        if !self.sent.is_empty() {
            return;
        }
        let sent = self.announcer.take(Instant::now());
        if sent.is_empty() {
            return;
        }
        let mut pipeline = Pipeline::with_capacity(sent.len());
        for command in &sent {
            pipeline.add_command(self.commands.presence_command(command, &mut self.caller));
        }
        let mut connection = connection.clone();
        self.sent = sent;
        self.answers = async move {
            let count = pipeline.len();
            connection.req_packed_commands(&pipeline, 0, count).await
        }
        .boxed()
        .fuse();
    }

    fn landed(&mut self, answers: Vec<Value>) {
        let (now, mut teach) = (Instant::now(), false);
        for (command, answer) in std::mem::take(&mut self.sent).into_iter().zip(answers) {
            let (reply, error) = member_pages::judge(&command, answer);
            teach |= matches!(reply, Reply::Again);
            if let Some(error) = error.filter(|error| *error != self.told) {
                log::warn!(error = error.as_str(); "Redis refuses what is said of members");
                self.told = error;
            }
            self.announcer.ended(command, reply, now);
        }
        if teach {
            self.caller.teach();
        }
    }

    /// The connection is gone: what was under way may have been done or not.
    fn lost(&mut self) {
        self.answers = Fuse::terminated();
        let now = Instant::now();
        for command in std::mem::take(&mut self.sent) {
            self.announcer.ended(command, Reply::Lost, now);
        }
    }
}
