//! The dispatcher: the single owner of sessions, rooms and positions. Its logic is plain code,
//! [`Dispatcher::turn`], which takes what the inbox holds and puts out frames into outboxes and
//! requests to the broker; [`run`] is the task around it. It waits on its inbox and on nothing
//! else.
//!
//! A turn handles its events in order. What is said in a room during a turn becomes one shared
//! buffer, *sealed* (offered to every live member) before anything that concerns the room is told
//! to one of them, and at the end of the turn; so everyone sees inbox order, and a burst costs one
//! write per member.

mod cluster_queries;
mod commands;
mod control;
mod drain;
mod event;
pub mod heartbeats;
mod identity;
mod inbox;
mod joins;
mod member_reads;
mod members;
pub mod outbox;
mod presence;
mod reads;
mod recovery;
mod revocations;
mod room;
pub mod rooms;
pub mod sequencer;
mod sessions;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::{Broker, BrokerEvent, Request};
use crate::dispatcher::rooms::{RoomKey, Rooms};
use crate::metrics::Metrics;
use crate::model::control::ControlLog;
use crate::model::id::{Incarnation, NumberMap, Position, RoomName, SessionId};
use crate::model::readiness::Readiness;
use crate::model::retention::Retention;
use crate::model::rights::Rights;
use crate::presence::{LocalPresence, PresenceSettings};
use crate::protocol::disconnect::Disconnect;
use crate::runtime;
use heartbeats::Heartbeats;
use outbox::Outbox;

use control::Control;
use drain::Drain;
pub use event::{Event, Now, TICK};
pub use inbox::{Inbox, inbox};
use room::{Membership, RoomState};
use sessions::Session;
use turn::{ReplyTo, Turn};

/// Events of one turn at most, so that writers get their turn too.
const TURN: usize = 1024;

/// What a dispatcher needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    pub incarnation: Incarnation,
    /// The node's label, told to clients.
    pub node: String,
    pub heartbeat: Duration,
    pub pong_timeout: Duration,
    /// How long a connection that is being closed may linger.
    pub close_timeout: Duration,
    pub join_timeout: Duration,
    pub rooms_per_session: usize,
    pub max_rooms: usize,
    /// Who may do what.
    pub rights: Rights,
    /// How much the broker keeps of each room; the node keeps no more.
    pub retention: Retention,
    /// The longest that a token may live.
    pub token_lifetime: Duration,
    /// Bytes of recent messages kept for those who come back.
    pub recent_memory: usize,
    pub presence: PresenceSettings,
    /// The bound of an outbox; what is offered at once is at most a quarter of it.
    pub outbox_bytes: usize,
    /// Seeds the jitter of farewells.
    pub seed: u64,
}

/// Whether the dispatcher goes on after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    On,
    /// The drain is complete: every session is gone.
    Ended,
}

/// How much a dispatcher has under way; all of it is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Commands of clients and calls that wait for an answer of the broker.
    pub commands: usize,
    /// The node's own reads that are under way.
    pub reads: usize,
    /// Rooms that wait for a read.
    pub due: usize,
    /// Sessions that were disconnected and whose connections have not ended.
    pub closing: usize,
    /// Bytes of recent messages that are kept.
    pub recent: usize,
}

impl Load {
    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.commands + self.reads + self.due + self.closing == 0
    }
}

/// See the head of this file.
pub struct Dispatcher {
    turn: Turn,
    /// What the nodes tell each other.
    control: Control,
    sessions: NumberMap<SessionId, Session>,
    rooms: Rooms<RoomState, Membership>,
    local_presence: LocalPresence,
    /// How many of the rooms are personal ones. They are no more than sessions, and count for no
    /// other bound.
    personal: usize,
    heartbeats: Heartbeats,
    /// When sessions end whose tokens are not renewed, in milliseconds since 1970, the next first.
    expiring: BTreeSet<(u64, SessionId)>,
    /// Rooms where joins wait for the broker, looked through at each tick. Keys, of which there are
    /// no more than there may be rooms: whoever joins and leaves for ever adds nothing.
    joins: BTreeSet<RoomKey>,
    /// Ended sessions whose connections have not ended yet, and when they are hung up on.
    closing: NumberMap<SessionId, (Instant, Outbox)>,
    /// Where giving up recent messages goes on.
    next_recent: usize,
    /// Where comparing goes on, and how many rooms are owed one, in parts of a room.
    next_compare: usize,
    compare_owed: f64,
    draining: Option<Drain>,
    random: fastrand::Rng,
}

/// The dispatcher's task. Ends when the drain is complete, the inbox is closed, or the broker is
/// gone. The node is behind until it has read what the others know of revoked tokens.
pub async fn run(
    mut dispatcher: Dispatcher,
    mut inbox: Inbox,
    broker: Broker,
    readiness: Readiness,
) {
    dispatcher.follow_control();
    if !dispatcher.ask(&broker) {
        return;
    }
    while let Some(first) = inbox.next().await {
        let rest = std::iter::from_fn(|| inbox.try_next());
        let now = Now::read();
        let flow = dispatcher.turn(now, std::iter::once(first).chain(rest));
        dispatcher.record_turn(now.instant, Instant::now());
        if !dispatcher.ask(&broker) {
            return;
        }
        if dispatcher.knows_revocations() {
            readiness.set_behind(false);
        }
        if flow == Flow::Ended {
            return;
        }
        runtime::yield_now().await;
    }
}

impl Dispatcher {
    pub fn new(now: Now, settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            heartbeats: Heartbeats::new(now.instant, settings.heartbeat, settings.pong_timeout),
            random: fastrand::Rng::with_seed(settings.seed),
            control: Control::new(now.instant, settings.token_lifetime),
            local_presence: LocalPresence::new(settings.presence.grace),
            turn: Turn::new(now.instant, settings, metrics),
            sessions: NumberMap::default(),
            rooms: Rooms::default(),
            personal: 0,
            expiring: BTreeSet::new(),
            joins: BTreeSet::new(),
            closing: NumberMap::default(),
            next_recent: 0,
            next_compare: 0,
            compare_owed: 0.0,
            draining: None,
        }
    }

    /// Handles events in order, up to the bound of a turn; what is left stays in the iterator. What
    /// the broker is to be asked is in [`take_requests`](Self::take_requests) afterwards.
    pub fn turn(&mut self, now: Now, events: impl IntoIterator<Item = Event>) -> Flow {
        self.turn.now = now.instant;
        self.turn.received_at.clear();
        let mut handled = 0;
        for event in events {
            self.on(now, event);
            self.finish_event();
            handled += 1;
            // Looked at before the next event is taken from the inbox: what is taken is handled.
            if self.turn.is_enough() || handled == TURN {
                break;
            }
        }
        self.turn.encoded_bytes = 0;
        self.flush_all();
        self.shrink_recent();
        while let Some(session) = self.turn.slow.pop() {
            self.disconnect(now, session, Disconnect::Slow);
        }
        // Equal events have equal effects.
        self.turn.unreadable.sort_unstable();
        while let Some(session) = self.turn.unreadable.pop() {
            self.disconnect(now, session, Disconnect::Unreadable);
        }
        self.announce();
        self.start_reads();
        self.read_lists();
        let metrics = &self.turn.metrics;
        metrics.sessions_open.set(self.sessions.len() as u64);
        metrics.rooms_open.set(self.rooms.len() as u64);
        if self.is_drained(now) {
            return Flow::Ended;
        }
        Flow::On
    }

    /// Counts how long the turn took, and how long what was delivered in it was under way within
    /// this node.
    fn record_turn(&mut self, began: Instant, now: Instant) {
        let metrics = &self.turn.metrics;
        metrics.turns.observe(now - began);
        for received_at in self.turn.received_at.drain(..) {
            metrics.deliveries.observe(now.duration_since(received_at));
        }
    }

    /// `false`: the broker has ended.
    fn ask(&mut self, broker: &Broker) -> bool {
        let mut requests = self.turn.requests.drain(..);
        requests.all(|request| broker.ask(request))
    }

    /// What the broker is asked since this was last taken.
    pub fn take_requests(&mut self) -> impl Iterator<Item = Request> {
        self.turn.requests.drain(..)
    }

    /// What waits for the broker at this moment.
    pub fn load(&self) -> Load {
        Load {
            commands: self.turn.pending.len() - self.turn.reads - self.turn.member_reads.under_way,
            reads: self.turn.reads + self.turn.member_reads.under_way,
            due: self.turn.due() + self.turn.member_reads.due(),
            closing: self.closing.len(),
            recent: self.turn.recent_used,
        }
    }

    /// The position that this node has delivered in a room, if it has members there and knows it.
    pub fn position(&self, room: &RoomName) -> Option<Position> {
        let room = self.rooms.get(self.rooms.find(room)?)?;
        room.state.sequencer.position()
    }

    fn on(&mut self, now: Now, event: Event) {
        match event {
            Event::Opened {
                session,
                protocol,
                identity,
                outbox,
            } => {
                self.on_opened(now, session, protocol, identity, outbox);
            }
            Event::Identified {
                session,
                id,
                identity,
            } => self.on_identified(now, session, id, identity),
            Event::Command {
                session,
                id,
                command,
            } => self.on_command(now, session, id, command),
            Event::Call { caller, command } => self.on_call(now, ReplyTo::Call(caller), command),
            Event::Drained(session) => self.on_drained(session),
            Event::Closed { session, farewell } => self.on_closed(now, session, farewell),
            Event::Broker(event) => self.on_broker(now, event),
            Event::Report(report) => self.on_report(report),
            Event::Tick => self.on_tick(now),
            Event::Drain(time) => self.on_drain(now, time),
        }
    }

    fn on_broker(&mut self, now: Now, event: BrokerEvent) {
        match event {
            BrokerEvent::Following(room) => match ControlLog::of(&room) {
                Some(log) => self.on_control_following(log),
                None => self.on_following(&room),
            },
            BrokerEvent::Message {
                room,
                epoch,
                offset,
                publication,
                received_at,
            } => {
                let at = Position { epoch, offset };
                match ControlLog::of(&room) {
                    Some(log) => self.on_control_message(now, log, at, publication),
                    None => self.on_message(&room, at, publication, received_at),
                }
            }
            BrokerEvent::Ephemeral {
                room,
                publication,
                received_at,
            } => self.on_ephemeral(&room, &publication, received_at),
            BrokerEvent::Published { ticket, result } => self.on_published(ticket, result),
            BrokerEvent::Page { ticket, result } => self.on_page(now, ticket, result),
            BrokerEvent::Changed { room, change } => self.on_changed(&room, change),
            BrokerEvent::MemberPage { ticket, result } => self.on_member_page(ticket, result),
            BrokerEvent::Found { ticket, result } => self.on_found(ticket, result),
            BrokerEvent::Revoked { ticket, result } => self.on_revoked(now, ticket, result),
            BrokerEvent::Revocations { ticket, result } => {
                self.on_revocations(now, ticket, result);
            }
            BrokerEvent::DataSetChanged => self.on_data_set_changed(now),
        }
    }

    fn on_tick(&mut self, now: Now) {
        self.beat(now);
        self.expire(now);
        self.check_control(now);
        self.expire_joins(now);
        self.retry_reads();
        self.check_lists(now);
        self.local_presence.expire(now.instant);
        self.compare_rooms();
        self.drain_next(now);
        self.hang_up_expired(now);
    }
}
