//! Sends the commands of the [`PresenceAgent`] on the connection for publishes, one batch at a
//! time, beside the publishes.

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
use super::scripts::ScriptCaller;
use crate::broker::redis::wire::Format;
use crate::broker::{Change, Connected, SetPresence};
use crate::model::id::RoomName;

/// See the head of this file.
pub struct Presence {
    agent: PresenceAgent,
    commands: Commands,
    caller: ScriptCaller,
    /// The batch in flight, and its future answers.
    sent: Vec<PresenceCommand>,
    answers: Fuse<BoxFuture<'static, RedisResult<Vec<Value>>>>,
    presence_synced: PresenceSynced,
    /// The last failure that was logged.
    last_error: String,
}

impl Presence {
    pub fn new(agent: PresenceAgent, commands: Commands, presence_synced: PresenceSynced) -> Self {
        Self {
            agent,
            commands,
            caller: ScriptCaller::default(),
            sent: Vec::new(),
            answers: Fuse::terminated(),
            presence_synced,
            last_error: String::new(),
        }
    }

    pub fn set_presence(&mut self, presence: SetPresence) {
        self.agent.set_presence(presence);
    }

    pub fn set_connection(&mut self, connected: Connected) {
        self.agent.set_connection(connected);
    }

    pub fn retire(&mut self, span: Duration) {
        self.agent.retire(span, Instant::now());
    }

    pub fn on_change(&mut self, room: &RoomName, change: &Change) {
        let now = Instant::now();
        self.agent.on_change(room, change, now);
        self.presence_synced.set(self.agent.is_synced(now));
    }

    /// The format in which this node writes now.
    pub fn format(&self) -> Format {
        self.agent.format(Instant::now())
    }

    /// Whether the lease was lost since the last call. Other data may be lost too.
    pub fn take_loss(&mut self) -> bool {
        self.agent.take_loss()
    }

    /// The connection is new.
    pub fn connected(&mut self) {
        self.lost();
        self.agent.connected(Instant::now());
    }

    /// Waits for the answers to the batch in flight; for ever if there is none. Cancel safe.
    ///
    /// # Errors
    /// The connection must be replaced.
    pub async fn turn(&mut self) -> Result<(), End> {
        match (&mut self.answers).await {
            Ok(answers) if answers.len() == self.sent.len() => {
                self.answered(answers);
                Ok(())
            }
            _ => {
                self.lost();
                Err(End::Closed)
            }
        }
    }

    /// Sends the next batch, if there is one and none is in flight.
    pub fn send(&mut self, connection: Option<&MultiplexedConnection>) {
        let Some(connection) = connection else {
            self.lost();
            self.agent.disconnected();
            return self.presence_synced.set(false);
        };
        self.presence_synced
            .set(self.agent.is_synced(Instant::now()));
        if !self.sent.is_empty() {
            return;
        }
        let sent = self.agent.take(Instant::now());
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

    fn answered(&mut self, answers: Vec<Value>) {
        let (now, mut reload) = (Instant::now(), false);
        for (command, answer) in std::mem::take(&mut self.sent).into_iter().zip(answers) {
            let (reply, error) = member_pages::judge(&command, answer);
            reload |= matches!(reply, Reply::Retry);
            if let Some(error) = error.filter(|error| *error != self.last_error) {
                log::warn!(error = error.as_str(); "Redis refuses a command for presence");
                self.last_error = error;
            }
            self.agent.finished(command, reply, now);
        }
        if reload {
            self.caller.reload();
        }
    }

    /// The connection is gone: the commands in flight may have been done or not.
    fn lost(&mut self) {
        self.answers = Fuse::terminated();
        let now = Instant::now();
        for command in std::mem::take(&mut self.sent) {
            self.agent.finished(command, Reply::Unanswered, now);
        }
    }
}
