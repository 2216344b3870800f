//! The dispatcher: the single owner of sessions, rooms and positions. Its logic is
//! [`Dispatcher::turn`], a plain function that takes events from the inbox and produces frames for
//! outboxes and requests to the broker. [`run`] is the task around it. It waits on its inbox and on
//! nothing else.
//!
//! A turn handles its events in order. The publications of one room in one turn are encoded into
//! one shared buffer. The buffer is *flushed* (offered to every live member) at the end of the
//! turn, and before any other frame that concerns the room is sent to one of its members. So every
//! member sees inbox order, and a burst costs one write per member.

mod commands;
mod control;
mod delivery;
mod event;
mod inbox;
mod membership;
mod pending;
mod presence;
mod queries;
mod read_scheduler;
mod rooms;
mod session;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::{Hooks, TOKEN_BYTES};
use crate::broker::{Broker, BrokerEvent, Request};
use crate::dispatcher::rooms::{RoomKey, Rooms};
use crate::metrics::Metrics;
use crate::model::control::ControlLog;
use crate::model::id::{
    Incarnation, NumberMap, Position, ROOM_NAME_BYTES, RoomName, SessionId, USER_NAME_BYTES,
};
use crate::model::member::INFO_BYTES;
use crate::model::publication::KEY_BYTES;
use crate::model::readiness::Readiness;
use crate::model::retention::Retention;
use crate::model::rights::Rights;
use crate::outbox::Outbox;
use crate::presence::{LocalPresence, PresenceSettings};
use crate::protocol::ClientLimits;
use crate::protocol::disconnect::Disconnect;
use crate::runtime;

use control::Control;
use delivery::room::RoomState;
pub use event::{Event, Now, ReplySink, ReplyTo, TICK};
pub(crate) use inbox::{Inbox, inbox};
use membership::cursor::Membership;
use session::Session;
use session::drain::Drain;
use session::heartbeats::Heartbeats;
use turn::Turn;

/// Maximum number of events in one turn, so that writers get to run too.
const TURN: usize = 1024;

/// The settings of a dispatcher.
#[derive(Clone, Debug)]
pub struct Settings {
    pub incarnation: Incarnation,
    /// The node's label, sent to clients.
    pub node: String,
    pub heartbeat: Duration,
    pub pong_timeout: Duration,
    /// How long a closing connection may take to end.
    pub close_timeout: Duration,
    pub join_timeout: Duration,
    /// Bytes of a client's message; its reader enforces it, the welcome carries it.
    pub max_message: usize,
    /// Commands of a session per second, likewise; 0 for no limit.
    pub session_commands: usize,
    pub rooms_per_session: usize,
    pub max_rooms: usize,
    /// The rules that decide which user may do what.
    pub rights: Rights,
    /// How much the broker keeps of each room; the node keeps no more.
    pub retention: Retention,
    /// The longest lifetime that a token may have.
    pub token_lifetime: Duration,
    /// Memory for recent messages, in bytes; reconnecting clients are served from it.
    pub recent_memory: usize,
    pub presence: PresenceSettings,
    /// The bound of an outbox, in bytes. One offer is at most a quarter of it.
    pub outbox_bytes: usize,
    /// The rules of the embedding program, in addition to the rights.
    pub hooks: Arc<Hooks>,
    /// Seed of the jitter of reconnect delays.
    pub seed: u64,
}

impl Settings {
    /// The limits in the welcome.
    fn client_limits(&self) -> ClientLimits {
        ClientLimits {
            message: self.max_message,
            room: ROOM_NAME_BYTES,
            user: USER_NAME_BYTES,
            key: KEY_BYTES,
            token: TOKEN_BYTES,
            info: INFO_BYTES,
            rooms: self.rooms_per_session,
            rate: self.session_commands,
        }
    }
}

/// Whether the dispatcher continues after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    On,
    /// The drain is complete: every session has ended.
    Ended,
}

/// Pending work of a dispatcher; all of it is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Commands of clients and API calls that wait for a broker reply.
    pub commands: usize,
    /// The node's own reads in flight.
    pub reads: usize,
    /// Rooms that wait for a read.
    pub due: usize,
    /// Disconnected sessions whose connections have not ended.
    pub closing: usize,
    /// Bytes of recent messages.
    pub recent: usize,
}

impl Load {
    /// Whether nothing is pending.
    pub fn is_idle(&self) -> bool {
        self.commands + self.reads + self.due + self.closing == 0
    }
}

/// See the head of this file.
pub struct Dispatcher {
    turn: Turn,
    /// Commands that nodes publish to each other.
    control: Control,
    sessions: NumberMap<SessionId, Session>,
    rooms: Rooms<RoomState, Membership>,
    local_presence: LocalPresence,
    /// How many of the rooms are personal rooms. There are at most as many as sessions, and they
    /// count towards no other bound.
    personal: usize,
    heartbeats: Heartbeats,
    /// When the sessions end whose tokens are not renewed, in milliseconds since 1970, the earliest
    /// first.
    expiring: BTreeSet<(u64, SessionId)>,
    /// Rooms with joins that wait for the broker, checked at each tick. Keys are reused and bounded
    /// by the number of rooms, so repeated joins and leaves do not make this set grow.
    joins: BTreeSet<RoomKey>,
    /// Ended sessions whose connections are still open, and the deadlines after which they are
    /// aborted.
    closing: NumberMap<SessionId, (Instant, Outbox)>,
    /// Where the next shrinking of recent messages begins.
    next_recent: usize,
    /// Where the next comparison with a log begins, and how many rooms are due for one (a fraction
    /// carries over to the next tick).
    next_compare: usize,
    compare_owed: f64,
    draining: Option<Drain>,
    random: fastrand::Rng,
}

/// Runs the dispatcher until the drain is complete, the inbox is closed, or the broker has ended.
/// The node is not ready until it has read the revoked tokens.
pub(crate) async fn run(
    mut dispatcher: Dispatcher,
    mut inbox: Inbox,
    broker: Broker,
    readiness: Readiness,
) {
    dispatcher.follow_control();
    if !dispatcher.send_requests(&broker) {
        return;
    }
    while let Some(first) = inbox.next().await {
        let rest = std::iter::from_fn(|| inbox.try_next());
        let now = Now::read();
        let flow = dispatcher.turn(now, std::iter::once(first).chain(rest));
        dispatcher.record_turn(now.instant, Instant::now());
        if !dispatcher.send_requests(&broker) {
            return;
        }
        if dispatcher.has_revocations() {
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

    /// Handles events in order, up to the bound of a turn; the rest stays in the iterator.
    /// [`take_requests`](Self::take_requests) then returns the requests to the broker.
    pub fn turn(&mut self, now: Now, events: impl IntoIterator<Item = Event>) -> Flow {
        self.turn.now = now.instant;
        self.turn.received_at.clear();
        let mut handled = 0;
        for event in events {
            self.on(now, event);
            self.finish_event();
            handled += 1;
            // Checked before the next event is taken from the inbox: an event that was taken must
            // be handled.
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
        // Sorted, because equal events must have equal effects.
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

    /// Records the duration of the turn, and how long each delivered publication spent in this
    /// node.
    fn record_turn(&mut self, began: Instant, now: Instant) {
        let metrics = &self.turn.metrics;
        metrics.turns.observe(now - began);
        for received_at in self.turn.received_at.drain(..) {
            metrics.deliveries.observe(now.duration_since(received_at));
        }
    }

    /// Sends the requests to the broker. Returns `false` if the broker has ended.
    fn send_requests(&mut self, broker: &Broker) -> bool {
        let mut requests = self.turn.requests.drain(..);
        requests.all(|request| broker.send(request))
    }

    /// Takes the requests to the broker that were added since the last call.
    pub fn take_requests(&mut self) -> impl Iterator<Item = Request> {
        self.turn.requests.drain(..)
    }

    /// The work that is pending now.
    pub fn load(&self) -> Load {
        let turn = &self.turn;
        let reads = turn.log_reads.in_flight() + turn.list_reads.in_flight();
        Load {
            commands: turn.pending.len() - reads,
            reads,
            due: turn.log_reads.due() + turn.list_reads.due(),
            closing: self.closing.len(),
            recent: self.turn.recent_used,
        }
    }

    /// The position that this node has delivered in a room. `None` if it has no members there or
    /// the first read is pending.
    pub fn position(&self, room: &RoomName) -> Option<Position> {
        let room = self.rooms.get(self.rooms.find(room)?)?;
        room.state.follower.sequencer.position()
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
            Event::Subscribed {
                session,
                protocol,
                outbox,
            } => self.on_subscribed(now, session, protocol, outbox),
            Event::Identified {
                session,
                id,
                identity,
            } => self.on_identified(now, session, id, identity),
            Event::Command { reply_to, command } => self.on_command(now, reply_to, command),
            Event::Drained(session) => self.on_drained(session),
            Event::Closed {
                session,
                close_reason,
            } => self.on_closed(now, session, close_reason),
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
            BrokerEvent::QueryResult { ticket, result } => self.on_query_result(ticket, result),
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
