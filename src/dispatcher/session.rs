//! Sessions, from opening to the end of their connection: they are pinged, answered and
//! disconnected, and a connection that does not close in time is aborted.

pub(super) mod drain;
pub(super) mod heartbeats;
mod identity;

use std::sync::Arc;
use std::time::Duration;

use super::{Dispatcher, Now, ReplyTo};
use crate::dispatcher::session::heartbeats::Beat;
use crate::model::id::{RoomName, SessionId};
use crate::model::identity::Identity;
use crate::model::publication::Sender;
use crate::outbox::{Offer, Outbox};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::{Protocol, Push, Reply};

/// The dispatcher's state of one connection.
pub(super) struct Session {
    pub(super) outbox: Outbox,
    pub(super) protocol: Protocol,
    pub(super) identity: Option<Arc<Identity>>,
    /// Its slot in the wheel of heartbeats.
    pub(super) beat: usize,
    /// Commands that wait for the broker.
    pub(super) pending: u32,
    /// Whether it is a subscription of the embedding program: it is allowed everything and does
    /// not count as present.
    pub(super) embedded: bool,
}

impl Session {
    /// Whether the room is the personal room of its user.
    pub(super) fn is_personal_room(&self, room: &RoomName) -> bool {
        let identity = self.identity.as_ref();
        identity.is_some_and(|identity| room.is_of(&identity.user))
    }
}

impl Dispatcher {
    pub(super) fn on_opened(
        &mut self,
        now: Now,
        id: SessionId,
        protocol: Protocol,
        identity: Option<Arc<Identity>>,
        outbox: Outbox,
    ) {
        outbox.note_received();
        let name = self.sender(id).to_string();
        outbox.offer(protocol.encoder().push(&Push::Welcome {
            session: &name,
            node: &self.turn.settings.node,
            user: identity.as_ref().map(|identity| &identity.user),
            heartbeat: self.turn.settings.heartbeat,
            limits: self.turn.settings.client_limits(),
        }));
        let beat = self.heartbeats.add(id);
        self.sessions.insert(
            id,
            Session {
                outbox,
                protocol,
                identity: None,
                beat,
                pending: 0,
                embedded: false,
            },
        );
        if let Some(identity) = identity {
            self.on_identified(now, id, None, identity);
        }
        if self.draining.is_some() {
            self.disconnect_for_drain(now, id, Duration::ZERO);
        }
    }

    pub(super) fn on_subscribed(
        &mut self,
        now: Now,
        id: SessionId,
        protocol: Protocol,
        outbox: Outbox,
    ) {
        // It has no reader, so silence is no evidence: only a full outbox ends it.
        outbox.note_paused(true);
        self.on_opened(now, id, protocol, None, outbox);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.embedded = true;
        }
    }

    pub(super) fn on_closed(&mut self, now: Now, session: SessionId, why: Option<Disconnect>) {
        match why {
            Some(why) => self.disconnect(now, session, why),
            None => {
                if let Some(ended) = self.forget(session) {
                    ended.outbox.finish();
                    self.await_end(now, session, ended.outbox);
                }
            }
        }
    }

    /// Gives the writer and the reader a deadline: a client that reads nothing, or never closes,
    /// must not keep its connection.
    fn await_end(&mut self, now: Now, session: SessionId, outbox: Outbox) {
        let deadline = now.instant + self.turn.settings.close_timeout;
        self.closing.insert(session, (deadline, outbox));
    }

    /// Aborts the connections that have not ended by their deadline.
    pub(super) fn hang_up_expired(&mut self, now: Now) {
        self.closing.retain(|_, (deadline, outbox)| {
            let in_time = now.instant < *deadline;
            if !in_time {
                outbox.hang_up();
            }
            in_time && !outbox.is_last()
        });
    }

    pub(super) fn beat(&mut self, now: Now) {
        let mut beats = Vec::new();
        self.heartbeats.advance(now.instant, &mut beats);
        for beat in beats {
            match beat {
                Beat::Ping(session) => {
                    let Some(pinged) = self.sessions.get(&session) else {
                        continue;
                    };
                    if pinged.embedded {
                        // It has no connection that could fail. Its end is reported by a task on
                        // the program's runtime, which may have ended before.
                        if pinged.outbox.is_abandoned() {
                            self.on_closed(now, session, None);
                        }
                        continue;
                    }
                    pinged.outbox.start_liveness_check();
                    if pinged.outbox.offer(pinged.protocol.encoder().ping()) == Offer::Full {
                        self.turn.slow.push(session);
                    }
                }
                Beat::Check(session) => {
                    let client = self.sessions.get(&session);
                    if client.is_some_and(|client| !client.outbox.is_alive()) {
                        self.disconnect(now, session, Disconnect::Silent);
                    }
                }
            }
        }
    }

    /// Disconnects a session with a close code.
    pub(super) fn disconnect(&mut self, now: Now, session: SessionId, why: Disconnect) {
        let Some(ended) = self.forget(session) else {
            return;
        };
        log::debug!(session = session.0, code = why.code(); "disconnected");
        self.turn.metrics.disconnected_total.count(why);
        let close = ended.protocol.encoder().close(why);
        ended.outbox.end(close, why.discards_outbox());
        self.await_end(now, session, ended.outbox);
    }

    /// Removes a session from all indexes.
    pub(super) fn forget(&mut self, session: SessionId) -> Option<Session> {
        let ended = self.sessions.remove(&session)?;
        self.heartbeats.remove(session, ended.beat);
        if let Some(times) = ended.identity.as_ref().and_then(|identity| identity.times) {
            self.expiring.remove(&(times.ends, session));
        }
        self.leave_all(session);
        if self.sessions.is_empty() {
            self.sessions.shrink_to_fit();
        }
        Some(ended)
    }

    /// The identity of a session of this node in publications, unique over all nodes.
    pub(super) fn sender(&self, session: SessionId) -> Sender {
        Sender {
            incarnation: self.turn.settings.incarnation,
            session,
        }
    }

    /// Sends a reply. A session whose outbox is full is disconnected at the end of the turn; one
    /// that is gone needs no reply.
    pub(super) fn reply(&mut self, reply_to: &ReplyTo, reply: &Reply<'_>) {
        if let Reply::Error(error) = reply {
            self.turn.metrics.errors_total.count(error.code);
        }
        let (session, id) = match reply_to {
            ReplyTo::Session { session, id } => (*session, *id),
            ReplyTo::Caller(sink) => return sink.reply(reply),
        };
        let Some(client) = self.sessions.get(&session) else {
            return;
        };
        // Before the reply, so that a client that waits for it is charged before it goes on.
        client.outbox.charge(reply.cost());
        let frames = client.protocol.encoder().reply(id, reply);
        if client.outbox.offer(frames) == Offer::Full {
            self.turn.slow.push(session);
        }
    }
}
