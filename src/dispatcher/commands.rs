//! Commands of clients, backends and the embedding program: one entry, one bound on what waits for
//! the broker, and publishes, which are answered when the broker has stored them.

use std::sync::Arc;

use super::pending::PendingPublish;
use super::turn::Turn;
use super::{Dispatcher, Now, ReplyTo};
use crate::auth::{JoinAttempt, PublishAttempt};
use crate::broker::{LogRequest, Publication, Publish, PublishRequest, Refused, Request};
use crate::model::id::{Position, RoomName, SessionId, Ticket};
use crate::model::identity::Action;
use crate::model::source::Source;
use crate::protocol::{Code, Command, CommandError, Reply, RequestId};

/// Maximum number of commands of one session that wait for the broker. Far more than a client needs
/// in flight; it bounds the memory that one client can take.
const PENDING_PER_SESSION: u32 = 1024;

/// Maximum number of commands of all sessions and callers that wait for the broker: about 16 MiB.
const PENDING: usize = 65_536;

/// A session may have at most this part of the commands that are still free, so that some dozens of
/// sessions do not take the places of all others.
const PART_OF_FREE: usize = 8;

/// Maximum number of commands of callers among them, so that a backend's burst leaves room for
/// clients. Each caller may have at most as many as are still free: one alone a half of them.
const PENDING_OF_CALLS: usize = PENDING / 2;

impl Dispatcher {
    pub(super) fn on_command(&mut self, now: Now, reply_to: ReplyTo, command: Command) {
        // A command can arrive after its session was disconnected.
        let session = reply_to.session();
        if session.is_some_and(|session| !self.sessions.contains_key(&session)) {
            return;
        }
        if let Err(error) = self.execute(now, &reply_to, command) {
            self.reply(&reply_to, &Reply::Error(&error));
        }
    }

    fn execute(
        &mut self,
        now: Now,
        reply_to: &ReplyTo,
        command: Command,
    ) -> Result<(), CommandError> {
        match command {
            Command::Ping => {
                self.reply(reply_to, &Reply::Pong);
                Ok(())
            }
            Command::Join {
                room,
                since,
                identity,
            } => self.on_join(now, reply_to, &room, since, identity),
            Command::Leave { room } => self.on_leave(reply_to, &room),
            Command::Publish(publish) => self.publish(now, reply_to, *publish),
            Command::History(query) => self.history(reply_to, query),
            Command::Members(query) => self.members(now, reply_to, query),
            Command::ClusterQuery(query) => self.cluster_query(reply_to, *query),
            Command::Control(command) => self.control_command(now, reply_to, *command),
        }
    }

    /// Whether the sender of a request may do this now. A caller was authorized before.
    pub(super) fn authorize_request(
        &self,
        reply_to: &ReplyTo,
        action: Action,
        room: &RoomName,
    ) -> Result<(), CommandError> {
        let Some(session) = reply_to.session() else {
            return Ok(());
        };
        self.authorize(session, action, room)?;
        match action {
            // The publish has a hook of its own, which is given the message.
            Action::Publish => Ok(()),
            Action::Join | Action::History | Action::Members => self.ask_join_hook(session, room),
        }
    }

    fn ask_join_hook(&self, session: SessionId, room: &RoomName) -> Result<(), CommandError> {
        let client = self.sessions.get(&session);
        let Some(client) = client.filter(|client| !client.embedded) else {
            return Ok(());
        };
        let user = client.identity.as_ref().map(|identity| &identity.user);
        let attempt = JoinAttempt { user, room };
        let Turn {
            settings, metrics, ..
        } = &self.turn;
        Ok(settings.hooks.check_join(&attempt, &metrics.panics_total)?)
    }

    fn ask_publish_hook(&self, publish: &Publish) -> Result<(), CommandError> {
        let attempt = PublishAttempt {
            user: publish.publication.user.as_ref(),
            room: &publish.room,
            data: &publish.publication.data,
            ephemeral: publish.ephemeral,
        };
        let Turn {
            settings, metrics, ..
        } = &self.turn;
        Ok(settings
            .hooks
            .check_publish(&attempt, &metrics.panics_total)?)
    }

    /// The session and the id of a command that only sessions can send.
    ///
    /// # Errors
    /// The sender is a caller.
    pub(super) fn session_of(
        reply_to: &ReplyTo,
    ) -> Result<(SessionId, Option<RequestId>), CommandError> {
        match reply_to {
            ReplyTo::Session { session, id } => Ok((*session, *id)),
            ReplyTo::Caller(_) => Err(CommandError::new(
                Code::BadRequest,
                "only a client's connection can join or leave a room",
            )),
        }
    }

    /// Refuses a command that only callers can send to a session.
    pub(super) fn refuse_session(reply_to: &ReplyTo) -> Result<(), CommandError> {
        match reply_to.session() {
            Some(_) => Err(CommandError::new(
                Code::Forbidden,
                "only a backend may send this",
            )),
            None => Ok(()),
        }
    }

    /// A client publishes under its own user name, and its keys are its own.
    fn publish(
        &mut self,
        now: Now,
        reply_to: &ReplyTo,
        mut publish: Publish,
    ) -> Result<(), CommandError> {
        self.authorize_request(reply_to, Action::Publish, &publish.room)?;
        if let Some(session) = reply_to.session() {
            let client = self.sessions.get(&session);
            let identity = client.and_then(|client| client.identity.as_ref());
            let user = identity.map(|identity| identity.user.clone());
            publish.stamp(user, now.unix_ms, self.sender(session));
            self.ask_publish_hook(&publish)?;
        }
        self.admit(reply_to)?;
        let ticket = self.turn.pending.publish(PendingPublish::Command {
            reply_to: reply_to.clone(),
            room: publish.room.clone(),
            ephemeral: publish.ephemeral,
        });
        self.send_publish(ticket, reply_to.source(), publish);
        Ok(())
    }

    pub(super) fn send_publish(&mut self, ticket: Ticket, source: Source, publish: Publish) {
        self.turn
            .requests
            .push(Request::Log(LogRequest::Publish(PublishRequest {
                ticket,
                source,
                publish,
            })));
    }

    /// Counts a command that waits for a broker reply, within the bounds.
    pub(super) fn admit(&mut self, reply_to: &ReplyTo) -> Result<(), CommandError> {
        let free = PENDING.saturating_sub(self.turn.pending.len());
        match reply_to {
            ReplyTo::Session { session, .. } => {
                let pending = self.sessions.get_mut(session).map(|own| &mut own.pending);
                if let Some(pending) = pending {
                    if *pending >= PENDING_PER_SESSION {
                        let reason =
                            "1024 of your commands wait for replies; wait for some of them";
                        return Err(CommandError::new(Code::Limit, reason));
                    }
                    if *pending as usize >= free.div_ceil(PART_OF_FREE) {
                        return Err(Refused::Unavailable.into());
                    }
                    *pending += 1;
                }
            }
            ReplyTo::Caller(sink) => {
                let calls = &mut self.turn.pending.calls;
                let free = free.min(PENDING_OF_CALLS.saturating_sub(calls.len()));
                if calls.of(sink.caller()) >= free {
                    return Err(Refused::Unavailable.into());
                }
                calls.add(sink.caller());
            }
        }
        Ok(())
    }

    /// Releases the slot of a command whose reply has arrived.
    pub(super) fn release(&mut self, reply_to: &ReplyTo) {
        match reply_to {
            ReplyTo::Session { session, .. } => {
                if let Some(client) = self.sessions.get_mut(session) {
                    client.pending -= 1;
                }
            }
            ReplyTo::Caller(sink) => self.turn.pending.calls.sub(sink.caller()),
        }
    }

    /// Publishes the node's report. No reply target waits for the result.
    pub(super) fn on_report(&mut self, publication: Arc<Publication>) {
        let ticket = self.turn.pending.publish(PendingPublish::Report);
        let report = Publish {
            room: RoomName::of_reports(),
            key: None,
            condition: None,
            ephemeral: true,
            others: false,
            publication,
        };
        self.send_publish(ticket, Source::Node, report);
    }

    pub(super) fn on_published(&mut self, ticket: Ticket, result: Result<Position, Refused>) {
        match self.turn.pending.publishes.remove(&ticket) {
            Some(PendingPublish::Command {
                reply_to,
                room,
                ephemeral,
            }) => self.reply_published(&reply_to, &room, ephemeral, result),
            Some(PendingPublish::Control { reply_to, command }) => {
                self.on_command_published(&reply_to, &command, result);
            }
            Some(PendingPublish::Republish(user)) => self.on_republished(user, result.is_ok()),
            Some(PendingPublish::Report) | None => {}
        }
    }

    fn reply_published(
        &mut self,
        reply_to: &ReplyTo,
        room: &RoomName,
        ephemeral: bool,
        result: Result<Position, Refused>,
    ) {
        self.release(reply_to);
        match result {
            Ok(position) => {
                self.turn.metrics.published_total.add(1);
                let position = (!ephemeral).then_some(position);
                self.reply(reply_to, &Reply::Published { room, position });
            }
            Err(refused) => self.reply(reply_to, &Reply::Error(&refused.into())),
        }
    }
}
