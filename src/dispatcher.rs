//! The dispatcher: the single owner of sessions, rooms and positions. Its logic is plain code, [`Dispatcher::turn`], which
//! takes what the inbox holds and puts out frames into outboxes and requests to the broker; [`run`] is the task
//! around it. It waits on its inbox, and between two turns for those who write what it said; on nothing else.
//!
//! A turn handles its events in order. What is said in a room during a turn becomes one shared buffer, *sealed* (offered to every
//! live member) before anything that concerns the room is told to one of them, and at the end of the turn; so
//! everyone sees inbox order, and a burst costs one write per member.

mod census;
mod commands;
mod control;
mod desk;
mod drain;
mod identity;
mod inbox;
mod joins;
mod members;
mod presence;
mod reads;
mod recovery;
mod roll;
mod room;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::api;
use crate::broker::{Broker, BrokerEvent, Request};
use crate::control::ControlLog;
use crate::disconnect::Disconnect;
use crate::id::{Incarnation, NumberMap, Position, RoomName, SessionId};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::presence::{Attendance, PresenceSettings};
use crate::protocol::{Command, Protocol, Push, Reply, RequestId};
use crate::publication::{Publication, Sender};
use crate::readiness::Readiness;
use crate::retention::Retention;
use crate::rights::Rights;
use crate::rooms::{RoomKey, Rooms};
use crate::session::{Beat, Heartbeats, Offer, Outbox};

use control::Control;
use desk::{Asker, Desk};
use drain::Drain;
pub use inbox::{Inbox, inbox};
use room::{Membership, RoomState};

/// How often the server sends [`Event::Tick`]; deadlines are kept to this precision.
pub const TICK: Duration = Duration::from_millis(250);

/// Events of one turn at most, so that writers get their turn too.
const TURN: usize = 1024;

/// What reaches the dispatcher.
#[derive(Debug)]
pub enum Event {
    /// A connection has shaken hands; its writer drains the other end of `outbox`.
    Opened {
        session: SessionId,
        protocol: Protocol,
        /// Who the client is, if it said so in the handshake.
        identity: Option<Arc<Identity>>,
        outbox: Outbox,
    },
    /// The client has shown who it is, or that it still is.
    Identified {
        session: SessionId,
        id: Option<RequestId>,
        identity: Arc<Identity>,
    },
    Command {
        session: SessionId,
        id: Option<RequestId>,
        command: Command,
    },
    /// A backend asks one thing of its call.
    Call {
        caller: api::Caller,
        command: api::Command,
    },
    /// The writer has written everything, as was asked by [`Outbox::want_drained`].
    Drained(SessionId),
    /// The reader has ended. `farewell`: the reason to be told, when it was not the client's wish.
    Closed {
        session: SessionId,
        farewell: Option<Disconnect>,
    },
    Broker(BrokerEvent),
    /// What the node tells of itself in `$nodes`.
    Report(Arc<Publication>),
    /// [`TICK`] has passed.
    Tick,
    /// The node stops: say farewell to everyone within about this time, and end.
    Drain(Duration),
}

/// The time of a turn.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub instant: Instant,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

impl Now {
    pub fn read() -> Self {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            instant: Instant::now(),
            unix_ms: since_1970.as_millis() as u64,
        }
    }
}

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

/// What the dispatcher knows of one connection.
struct Session {
    outbox: Outbox,
    protocol: Protocol,
    identity: Option<Arc<Identity>>,
    /// Its slot in the wheel of heartbeats.
    beat: usize,
    /// Commands that wait for the broker.
    pending: u32,
}

impl Session {
    /// Whether the room is the personal one of its user.
    fn is_in_by_name(&self, room: &RoomName) -> bool {
        let user = self
            .identity
            .as_ref()
            .map(|identity| identity.user.as_str());
        user.is_some() && room.owner() == user
    }
}

/// See the head of this file.
pub struct Dispatcher {
    desk: Desk,
    /// What the nodes tell each other.
    control: Control,
    sessions: NumberMap<SessionId, Session>,
    rooms: Rooms<RoomState, Membership>,
    attendance: Attendance,
    /// How many of the rooms are personal ones. They are no more than sessions, and count for no other bound.
    personal: usize,
    heartbeats: Heartbeats,
    /// When sessions end whose tokens are not renewed, in milliseconds since 1970, the next first.
    expiring: BTreeSet<(u64, SessionId)>,
    /// Rooms where joins wait for the broker, looked through at each tick. Keys, of which there are no more than there may be
    /// rooms: whoever joins and leaves for ever adds nothing.
    joins: BTreeSet<RoomKey>,
    /// Ended sessions whose connections have not ended yet, and when they are hung up on.
    closing: NumberMap<SessionId, (Instant, Outbox)>,
    /// Where giving up recent messages goes on.
    recent_hand: usize,
    /// Where comparing goes on, and how many rooms are owed one, in parts of a room.
    compare_hand: usize,
    compare_owed: f64,
    draining: Option<Drain>,
    random: fastrand::Rng,
}

/// The dispatcher's task. Ends when the drain is complete, the inbox is closed, or the broker is gone.
/// The node is behind until it has read what the others know of revoked tokens. `said` is waited for between two turns: it is ready when
/// what was said in the last is on its way to the sockets, so that a burst fills no outbox.
pub async fn run<F: Future<Output = ()>>(
    mut dispatcher: Dispatcher,
    mut inbox: Inbox,
    broker: Broker,
    readiness: Readiness,
    said: impl Fn() -> F,
) {
    dispatcher.follow_control();
    if !dispatcher.ask(&broker) {
        return;
    }
    while let Some(first) = inbox.next().await {
        let rest = std::iter::from_fn(|| inbox.try_next());
        let now = Now::read();
        let flow = dispatcher.turn(now, std::iter::once(first).chain(rest));
        dispatcher.turn_has_ended(now.instant, Instant::now());
        if !dispatcher.ask(&broker) {
            return;
        }
        if dispatcher.knows_revocations() {
            readiness.set_behind(false);
        }
        if flow == Flow::Ended {
            return;
        }
        said().await;
    }
}

impl Dispatcher {
    pub fn new(now: Now, settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            heartbeats: Heartbeats::new(now.instant, settings.heartbeat, settings.pong_timeout),
            random: fastrand::Rng::with_seed(settings.seed),
            control: Control::new(now.instant, settings.token_lifetime),
            attendance: Attendance::new(settings.presence.grace),
            desk: Desk::new(now.instant, settings, metrics),
            sessions: NumberMap::default(),
            rooms: Rooms::default(),
            personal: 0,
            expiring: BTreeSet::new(),
            joins: BTreeSet::new(),
            closing: NumberMap::default(),
            recent_hand: 0,
            compare_hand: 0,
            compare_owed: 0.0,
            draining: None,
        }
    }

    /// Handles events in order, up to the bound of a turn; what is left stays in the iterator. What the broker is to
    /// be asked is in [`take_requests`](Self::take_requests) afterwards.
    pub fn turn(&mut self, now: Now, events: impl IntoIterator<Item = Event>) -> Flow {
        self.desk.now = now.instant;
        self.desk.heard.clear();
        let mut handled = 0;
        for event in events {
            self.on(now, event);
            self.settle_presence();
            handled += 1;
            // Looked at before the next event is taken from the inbox: what is taken is handled.
            if self.desk.is_enough() || handled == TURN {
                break;
            }
        }
        self.desk.said = 0;
        self.seal_all();
        self.give_up_recent();
        while let Some(session) = self.desk.slow.pop() {
            self.disconnect(now, session, Disconnect::Slow);
        }
        self.announce();
        self.ask_reads();
        self.ask_rolls();
        let metrics = &self.desk.metrics;
        metrics.sessions_open.set(self.sessions.len() as u64);
        metrics.rooms_open.set(self.rooms.len() as u64);
        if self.is_drained(now) {
            return Flow::Ended;
        }
        Flow::On
    }

    /// Counts how long the turn took, and how long what was delivered in it was under way within this node.
    fn turn_has_ended(&mut self, began: Instant, now: Instant) {
        let metrics = &self.desk.metrics;
        metrics.turns.observe(now - began);
        for heard in self.desk.heard.drain(..) {
            metrics.deliveries.observe(now.duration_since(heard));
        }
    }

    /// `false`: the broker has ended.
    fn ask(&mut self, broker: &Broker) -> bool {
        let mut requests = self.desk.requests.drain(..);
        requests.all(|request| broker.ask(request))
    }

    /// What the broker is asked since this was last taken.
    pub fn take_requests(&mut self) -> impl Iterator<Item = Request> {
        self.desk.requests.drain(..)
    }

    /// What waits for the broker at this moment.
    pub fn load(&self) -> Load {
        Load {
            commands: self.desk.pending.len() - self.desk.reads - self.desk.rolls.under_way,
            reads: self.desk.reads + self.desk.rolls.under_way,
            due: self.desk.due() + self.desk.rolls.due(),
            closing: self.closing.len(),
            recent: self.desk.recent_used,
        }
    }

    /// The position that this node has delivered in a room, if it has members there and knows it.
    pub fn position(&self, room: &RoomName) -> Option<Position> {
        let room = self.rooms.get(self.rooms.find(room)?)?;
        room.state.track.position()
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
            Event::Call { caller, command } => self.on_call(now, Asker::Call(caller), command),
            Event::Drained(session) => self.on_drained(session),
            Event::Closed { session, farewell } => self.on_closed(now, session, farewell),
            Event::Broker(event) => self.on_broker(now, event),
            Event::Report(report) => self.on_report(report),
            Event::Tick => self.on_tick(now),
            Event::Drain(time) => self.on_drain(now, time),
        }
    }

    fn on_opened(
        &mut self,
        now: Now,
        id: SessionId,
        protocol: Protocol,
        identity: Option<Arc<Identity>>,
        outbox: Outbox,
    ) {
        outbox.note_heard();
        let name = self.sender(id).to_string();
        outbox.offer(protocol.push(&Push::Welcome {
            session: &name,
            node: &self.desk.settings.node,
            user: identity.as_ref().map(|identity| &identity.user),
            heartbeat: self.desk.settings.heartbeat,
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
            },
        );
        if let Some(identity) = identity {
            self.on_identified(now, id, None, identity);
        }
        if self.draining.is_some() {
            self.send_away(now, id, Duration::ZERO);
        }
    }

    fn on_closed(&mut self, now: Now, session: SessionId, farewell: Option<Disconnect>) {
        match farewell {
            Some(why) => self.disconnect(now, session, why),
            None => {
                if let Some(ended) = self.forget(session) {
                    ended.outbox.finish();
                    self.await_end(now, session, ended.outbox);
                }
            }
        }
    }

    /// A client that reads nothing any more, or never closes, must not hold its connection: writer and reader have so much
    /// time and no more.
    fn await_end(&mut self, now: Now, session: SessionId, outbox: Outbox) {
        let deadline = now.instant + self.desk.settings.close_timeout;
        self.closing.insert(session, (deadline, outbox));
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
                heard,
            } => {
                let at = Position { epoch, offset };
                match ControlLog::of(&room) {
                    Some(log) => self.on_control_message(now, log, at, publication),
                    None => self.on_message(&room, at, publication, heard),
                }
            }
            BrokerEvent::Ephemeral {
                room,
                publication,
                heard,
            } => self.on_ephemeral(&room, &publication, heard),
            BrokerEvent::Published { ticket, result } => self.on_published(ticket, result),
            BrokerEvent::Page { ticket, result } => self.on_page(now, ticket, result),
            BrokerEvent::Changed { room, change } => self.on_changed(&room, change),
            BrokerEvent::Roll { ticket, result } => self.on_roll(ticket, result),
            BrokerEvent::Found { ticket, result } => self.on_found(ticket, result),
        }
    }

    fn on_tick(&mut self, now: Now) {
        self.beat(now);
        self.expire(now);
        self.tend_control(now);
        self.give_up_joins(now);
        self.retry_reads();
        self.tend_rolls(now);
        self.attendance.expire(now.instant);
        self.compare_some();
        self.drain_some(now);
        self.closing.retain(|_, (deadline, outbox)| {
            let in_time = now.instant < *deadline;
            if !in_time {
                outbox.hang_up();
            }
            in_time && !outbox.is_last()
        });
    }

    fn beat(&mut self, now: Now) {
        let mut beats = Vec::new();
        self.heartbeats.advance(now.instant, &mut beats);
        for beat in beats {
            match beat {
                Beat::Ping(session) => {
                    let Some(pinged) = self.sessions.get(&session) else {
                        continue;
                    };
                    pinged.outbox.expect_life();
                    if pinged.outbox.offer(crate::protocol::frame::EMPTY_PING) == Offer::Full {
                        self.desk.slow.push(session);
                    }
                }
                Beat::Judge(session) => {
                    let judged = self.sessions.get(&session);
                    if judged.is_some_and(|judged| !judged.outbox.shows_life()) {
                        self.disconnect(now, session, Disconnect::Silent);
                    }
                }
            }
        }
    }

    /// Ends a session for a reason that it is told.
    fn disconnect(&mut self, now: Now, session: SessionId, why: Disconnect) {
        let Some(ended) = self.forget(session) else {
            return;
        };
        log::debug!(session = session.0, code = why.code(); "disconnected");
        self.desk.metrics.disconnected_total.count(why);
        ended.outbox.end(why);
        self.await_end(now, session, ended.outbox);
    }

    /// Takes a session out of everything.
    fn forget(&mut self, session: SessionId) -> Option<Session> {
        let ended = self.sessions.remove(&session)?;
        self.heartbeats.remove(session, ended.beat);
        if let Some(times) = ended.identity.as_ref().and_then(|identity| identity.times) {
            self.expiring.remove(&(times.ends, session));
        }
        self.depart(session);
        if self.sessions.is_empty() {
            self.sessions.shrink_to_fit();
        }
        Some(ended)
    }

    /// What every node knows one of this node's sessions by.
    fn sender(&self, session: SessionId) -> Sender {
        Sender {
            incarnation: self.desk.settings.incarnation,
            session,
        }
    }

    /// Answers whoever asked. A session that is too slow even for this is noted; who is gone needs no answer.
    fn reply(&mut self, asker: &Asker, reply: &Reply<'_>) {
        if let Reply::Error(error) = reply {
            self.desk.metrics.errors_total.count(error.code);
        }
        let (session, id) = match asker {
            Asker::Session { session, id } => (*session, *id),
            Asker::Call(caller) => return caller.tell(reply),
        };
        let Some(speaker) = self.sessions.get(&session) else {
            return;
        };
        if speaker.outbox.offer(speaker.protocol.reply(id, reply)) == Offer::Full {
            self.desk.slow.push(session);
        }
    }
}
