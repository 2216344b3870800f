//! Commands that nodes publish to each other about users. The node follows both logs of
//! [`control`](crate::model::control) as long as it runs, closes their holes like those of any
//! room, and applies each command to its own sessions. Revoked tokens are also kept in a set, see
//! `revocations`.

pub(super) mod revocations;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pending::PendingPublish;
use super::read_scheduler::LogKey;
use super::turn::Turn;
use super::{Dispatcher, Now, ReplyTo};
use crate::broker::{
    LogRequest, Page, Publication, Publish, PublishKey, Publisher, Refused, Request,
};
use crate::dispatcher::control::revocations::RevocationSync;
use crate::dispatcher::delivery::follower::LogFollower;
use crate::dispatcher::delivery::sequencer::{Sequencer, Step};
use crate::dispatcher::membership::cursor::Join;
use crate::model::control::{ControlAction, ControlCommand, ControlLog, MARGIN};
use crate::model::id::{Position, RoomName, SessionId, Ticket};
use crate::model::identity::Identity;
use crate::model::revocations::{MOST, Revocations, Verdict};
use crate::model::source::Source;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::{Code, CommandError, Push, Removal, Reply};

/// Maximum bytes of one log's messages that wait for the read which closes the hole before them.
/// Commands are small.
const AHEAD: usize = 1 << 20;

/// Both logs and the set of revocations are compared with the node's state once in this time.
const COMPARE_EVERY: Duration = Duration::from_secs(60);

/// The state of the two logs.
pub(super) struct Control {
    commands: ControlFollower,
    pub(super) revoked: ControlFollower,
    pub(super) revocations: Revocations,
    pub(super) sync: RevocationSync,
    /// For how many milliseconds a revocation is kept.
    pub(super) remembered: u64,
    compared: Instant,
}

/// One log, and the node's position in it.
pub(super) struct ControlFollower {
    log: ControlLog,
    room: RoomName,
    follower: LogFollower,
    /// It was read to its end once.
    pub(super) known: bool,
}

/// Whether a token is revoked, as far as this node has read.
enum RevocationState {
    Good,
    Doubtful,
    Revoked,
    /// The revocations have not been read yet.
    Unknown,
}

impl Control {
    /// `token_lifetime`: the longest lifetime that a token may have.
    pub(super) fn new(now: Instant, token_lifetime: Duration) -> Self {
        let remembered = (token_lifetime + MARGIN).as_millis() as u64;
        let mut sync = RevocationSync::default();
        sync.compare();
        Self {
            commands: ControlFollower::new(ControlLog::Commands, Sequencer::default()),
            revoked: ControlFollower::new(ControlLog::Revocations, Sequencer::from_the_beginning()),
            revocations: Revocations::new(remembered, MOST),
            sync,
            remembered,
            compared: now,
        }
    }

    fn follower(&mut self, log: ControlLog) -> &mut ControlFollower {
        match log {
            ControlLog::Commands => &mut self.commands,
            ControlLog::Revocations => &mut self.revoked,
        }
    }

    /// Starts the read of a log, if one is due.
    pub(super) fn read_if_due(&mut self, turn: &mut Turn, log: ControlLog) {
        let ControlFollower { follower, room, .. } = self.follower(log);
        follower.read_if_due(turn, LogKey::Control(log), Source::Node, room);
    }

    fn revocation_state(&self, now: Now, identity: &Identity) -> RevocationState {
        match identity.times {
            // An unverified name can be taken again at once, so it cannot be revoked.
            None => RevocationState::Good,
            Some(_) if !self.revoked.known || !self.sync.known => RevocationState::Unknown,
            Some(times) => {
                let (user, issued) = (&identity.user, times.issued);
                match self.revocations.verdict(user, issued, now.unix_ms) {
                    Verdict::Valid => RevocationState::Good,
                    Verdict::Doubtful => RevocationState::Doubtful,
                    Verdict::Revoked => RevocationState::Revoked,
                }
            }
        }
    }
}

impl ControlFollower {
    fn new(log: ControlLog, sequencer: Sequencer) -> Self {
        Self {
            log,
            room: log.room(),
            follower: LogFollower::new(sequencer),
            known: false,
        }
    }

    fn key(&self) -> LogKey {
        LogKey::Control(self.log)
    }

    fn queue_if_due(&mut self, turn: &mut Turn) {
        self.follower.queue_if_due(turn, self.key(), Source::Node);
    }

    fn compare(&mut self, turn: &mut Turn) {
        let key = self.key();
        self.follower.make_due(turn, key, Source::Node);
    }

    /// The position, if a message was delivered from this log. A log without messages may end and
    /// begin again without any loss.
    fn delivered(&self) -> Option<Position> {
        self.follower
            .sequencer
            .position()
            .filter(|at| at.offset > 0)
    }
}

impl Dispatcher {
    /// Subscribes to both control logs.
    pub(super) fn follow_control(&mut self) {
        for log in ControlLog::ALL {
            let room = self.control.follower(log).room.clone();
            self.turn
                .requests
                .push(Request::Log(LogRequest::Follow(room)));
        }
    }

    /// Publishes a command of a backend about a user. All nodes apply it when they receive it; the
    /// backend is answered when the broker has stored it.
    pub(super) fn control_command(
        &mut self,
        now: Now,
        reply_to: &ReplyTo,
        command: ControlCommand,
    ) -> Result<(), CommandError> {
        Self::refuse_session(reply_to)?;
        if let ControlAction::Revoke(cutoff) = command.action {
            if self.turn.settings.rights.open {
                let reason = "this server is open and verifies no tokens, \
                     so it cannot revoke any";
                return Err(CommandError::new(Code::Forbidden, reason));
            }
            return self.publish_revocation(now, reply_to, command, cutoff);
        }
        self.admit(reply_to)?;
        self.publish_command(now, reply_to.clone(), command);
        Ok(())
    }

    /// Publishes a command; its sender is answered when the broker has stored it.
    pub(super) fn publish_command(&mut self, now: Now, reply_to: ReplyTo, command: ControlCommand) {
        let (room, publication) = (command.log().room(), command.to_publication(now.unix_ms));
        let source = reply_to.source();
        let pending = PendingPublish::Control { reply_to, command };
        let ticket = self.turn.pending.publish(pending);
        self.publish_control(ticket, source, room, publication);
    }

    /// Publishes in a control log. The key lets the broker retry the publish.
    pub(super) fn publish_control(
        &mut self,
        ticket: Ticket,
        source: Source,
        room: RoomName,
        publication: Publication,
    ) {
        let publish = Publish {
            room,
            key: Some(PublishKey {
                publisher: Publisher::Backend,
                key: format!("{}-{}", self.turn.settings.incarnation, ticket.0).into(),
            }),
            condition: None,
            ephemeral: false,
            others: false,
            publication: Arc::new(publication),
        };
        self.send_publish(ticket, source, publish);
    }

    /// The broker has stored or refused a command.
    pub(super) fn on_command_published(
        &mut self,
        reply_to: &ReplyTo,
        command: &ControlCommand,
        result: Result<Position, Refused>,
    ) {
        self.release(reply_to);
        match result {
            Ok(_) => {
                let reply = Reply::CommandAccepted {
                    user: &command.user,
                    room: command.room(),
                };
                self.reply(reply_to, &reply);
            }
            Err(refused) => self.reply(reply_to, &Reply::Error(&refused.into())),
        }
    }

    pub(super) fn on_control_following(&mut self, log: ControlLog) {
        self.control.follower(log).compare(&mut self.turn);
        if log == ControlLog::Revocations {
            self.control.sync.compare();
        }
    }

    /// Redis may have lost revocations: the set is compared at once.
    pub(super) fn on_data_set_changed(&mut self, now: Now) {
        self.control.sync.compare();
        self.sync_revocations(now);
    }

    pub(super) fn on_control_message(
        &mut self,
        now: Now,
        log: ControlLog,
        at: Position,
        publication: Arc<Publication>,
    ) {
        let follower = self.control.follower(log);
        let sequencer = &mut follower.follower.sequencer;
        let memory = AHEAD.saturating_sub(sequencer.ahead_weight());
        let step = sequencer.receive(at.epoch, at.offset, publication, memory);
        follower.queue_if_due(&mut self.turn);
        if let Some(Step::Deliver(_, publication)) = step {
            self.apply_command(now, log, &publication);
        }
    }

    pub(super) fn on_control_page(
        &mut self,
        now: Now,
        log: ControlLog,
        ticket: Ticket,
        result: Result<Page, Refused>,
    ) {
        let follower = self.control.follower(log);
        let key = follower.key();
        let reply =
            (follower.follower).take_reply(&mut self.turn, key, Source::Node, ticket, result);
        let Some(Ok(page)) = reply else { return };
        let (delivered, mut steps) = (follower.delivered(), Vec::new());
        follower.follower.sequencer.on_page(page, &mut steps);
        follower.known |= follower.follower.sequencer.is_settled();
        follower.queue_if_due(&mut self.turn);
        for step in steps {
            match step {
                Step::Deliver(_, publication) => self.apply_command(now, log, &publication),
                Step::Ended(position) | Step::Lost(position) => {
                    self.on_control_lost(log, delivered, position)
                }
            }
        }
        self.sync_revocations(now);
    }

    fn on_control_lost(
        &mut self,
        log: ControlLog,
        delivered: Option<Position>,
        position: Position,
    ) {
        if delivered.is_none() {
            return;
        }
        let (room, epoch) = (log.name(), position.epoch.to_string());
        log::error!(room = room, epoch = epoch.as_str(), offset = position.offset;
            "commands of other nodes are lost");
        if log == ControlLog::Revocations {
            self.control.sync.compare();
        }
    }

    pub(super) fn check_control(&mut self, now: Now) {
        let due = now.instant >= self.control.compared + COMPARE_EVERY;
        if due {
            self.control.compared = now.instant;
            self.control.sync.compare();
        }
        for log in ControlLog::ALL {
            let follower = self.control.follower(log);
            // Before the log is followed there is nothing to compare.
            if due && follower.known {
                follower.compare(&mut self.turn);
            } else {
                follower.queue_if_due(&mut self.turn);
            }
        }
        self.sync_revocations(now);
    }

    /// Applies a command to the sessions of this node.
    fn apply_command(&mut self, now: Now, log: ControlLog, publication: &Publication) {
        let Some(ControlCommand { user, action }) = ControlCommand::read(log, publication) else {
            log::warn!(room = log.name(); "unknown control command; run nodes of one version");
            return;
        };
        match action {
            ControlAction::Disconnect => {
                for session in self.sessions_of(&user) {
                    self.disconnect(now, session, Disconnect::Ended);
                }
            }
            ControlAction::Revoke(cutoff) => {
                self.revocation_published(now, user, cutoff, publication.time)
            }
            ControlAction::Join(room) => {
                for session in self.sessions_of(&user) {
                    self.join_unasked(session, &room);
                }
            }
            ControlAction::Leave(room) => {
                for session in self.sessions_of(&user) {
                    let reason = "the operator removed you from this room";
                    self.remove(session, &room, Removal::Operator, reason);
                }
            }
        }
    }

    /// Makes a session a member without a join of its client. The client receives the position when
    /// it is known.
    fn join_unasked(&mut self, session: SessionId, room: &RoomName) {
        let is_in = self.rooms.find(room);
        if is_in.is_some_and(|key| self.rooms.has(key, session)) {
            return;
        }
        if let Err(error) = self.check_bounds(session, room) {
            let reason = &*error.reason;
            log::warn!(session = session.0, room = room.as_str(), reason = reason;
                "session not added to the room");
            return;
        }
        let join = Join {
            id: None,
            deadline: None,
            sign_in: None,
        };
        self.add_member(session, room, None, None, join);
    }

    /// Removes a session from a room, and sends it the reason.
    pub(super) fn remove(
        &mut self,
        session: SessionId,
        room: &RoomName,
        why: Removal,
        reason: &str,
    ) {
        let key = self.rooms.find(room);
        if !key.is_some_and(|key| self.rooms.has(key, session)) {
            return;
        }
        self.remove_member(session, room);
        if let Some(client) = self.sessions.get(&session) {
            let encoder = client.protocol.encoder();
            let frames = encoder.push(&Push::Removed { room, why, reason });
            self.turn.send(session, &client.outbox, frames);
        }
    }

    /// Whether the session may use this identity. Otherwise it receives an error, and is
    /// disconnected unless it may try again.
    pub(super) fn check_revocation(
        &mut self,
        now: Now,
        reply_to: &ReplyTo,
        identity: &Identity,
    ) -> bool {
        let ReplyTo::Session { session, id } = reply_to else {
            return false;
        };
        let (error, end) = match self.control.revocation_state(now, identity) {
            RevocationState::Good => return true,
            RevocationState::Doubtful => {
                // Clients react to this code by getting a new token.
                let reason = "the token may have been revoked; get a new one";
                let error = CommandError::new(Code::Expired, reason);
                (error, Some(Disconnect::Doubtful))
            }
            RevocationState::Revoked => {
                let reason = "the token was revoked; get a new one";
                let error = CommandError::new(Code::Unauthorized, reason);
                (error, Some(Disconnect::Revoked))
            }
            RevocationState::Unknown => {
                let reason = "this node has not read the revoked tokens yet; try again";
                let error = CommandError::new(Code::Unavailable, reason);
                // A token of the handshake can be sent again only in a new handshake.
                (error, id.is_none().then_some(Disconnect::Internal))
            }
        };
        self.reply(reply_to, &Reply::Error(&error));
        if let Some(why) = end {
            self.disconnect(now, *session, why);
        }
        false
    }
}
