//! The effects of one turn, which rooms and sessions collect for the dispatcher: requests to the
//! broker and the targets of their replies, queued reads, slow sessions, and rooms with an
//! unflushed batch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Settings;
use crate::api::ApiCaller;
use crate::broker::{Members, Range, Read, Refused, Request};
use crate::dispatcher::outbox::{Offer, Outbox};
use crate::dispatcher::rooms::RoomKey;
use crate::metrics::Metrics;
use crate::model::control::{ControlCommand, ControlLog};
use crate::model::id::{NumberMap, NumberSet, RoomName, SessionId, Ticket, UserName};
use crate::presence::MemberList;
use crate::protocol::RequestId;

/// Maximum number of reads in flight for the node's own positions and for members that are behind.
/// A resubscription of 100,000 rooms then costs Redis a steady stream of reads, not a burst.
pub const READS: usize = 64;

/// Maximum bytes of messages, of all rooms together, that wait for the reads which close the holes
/// before them. Enough for a usual hole in each of thousands of rooms; what does not fit is
/// returned by the next read.
pub const AHEAD_MEMORY: usize = 16 << 20;

/// Maximum number of list reads in flight. Fewer than reads of logs, because no message depends on
/// a list.
pub const LIST_READS: usize = 16;

/// How long a room waits after a read that returned a newer format.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Rooms that must not be read before these moments.
pub type Pauses = BTreeMap<RoomKey, Instant>;

/// Removes and returns the rooms whose pause is over.
pub fn take_over(pauses: &mut Pauses, now: Instant) -> Vec<RoomKey> {
    let mut over = Vec::new();
    pauses.retain(|room, until| {
        let is_over = *until <= now;
        if is_over {
            over.push(*room);
        }
        !is_over
    });
    over
}

/// The target of a reply.
#[derive(Clone, Debug)]
pub enum ReplyTo {
    /// A client, by the id of its request.
    Session {
        session: SessionId,
        id: Option<RequestId>,
    },
    /// A backend, by the HTTP API.
    Call(ApiCaller),
}

/// The context of a request to the broker, kept until its reply arrives.
pub enum Pending {
    Publish {
        reply_to: ReplyTo,
        room: RoomName,
        ephemeral: bool,
    },
    History {
        reply_to: ReplyTo,
        room: RoomName,
    },
    /// A command about a user.
    ControlCommand {
        reply_to: ReplyTo,
        command: ControlCommand,
    },
    /// The set of revocations is written for a backend; then the command is published.
    Revoke {
        reply_to: ReplyTo,
        command: ControlCommand,
    },
    /// The node's own: writes what the set of revocations lacks.
    WriteBack,
    /// The node's own: reads the set of revocations.
    ReadRevocations,
    /// The node's own: publishes the revocation of a user again.
    Republish(UserName),
    /// The node's own: publishes its report.
    Report,
    /// The node's own: reads a control log, to close a hole.
    Control(ControlLog),
    Members(MembersQuery),
    /// A backend's query about the whole cluster.
    Census(ReplyTo),
    /// The node's own: reads a room's log, to close a hole or to find its position.
    Sequencer(RoomKey),
    /// The read that all members of the room that are behind share.
    Seek(RoomKey),
    /// The node's own: reads the members of the room.
    MemberPage(RoomKey),
}

/// A query for the members of a room.
#[derive(Clone, Debug)]
pub struct MembersQuery {
    pub reply_to: ReplyTo,
    pub room: RoomName,
    pub after: Option<UserName>,
    pub limit: usize,
}

impl MembersQuery {
    pub fn request(self, ticket: Ticket) -> Request {
        Request::Members(Members {
            ticket,
            room: self.room,
            after: self.after,
            limit: self.limit,
        })
    }
}

/// The state of list reads of all rooms.
#[derive(Default)]
pub struct MemberReads {
    /// Rooms that wait for a read, in order, and the same rooms as a set. A key is queued once,
    /// also when its room was removed and the key reused.
    queue: VecDeque<RoomKey>,
    queued: NumberSet<RoomKey>,
    /// Reads in flight.
    pub under_way: usize,
    /// Rooms whose read failed; they are queued again at the next tick.
    pub retry: BTreeSet<RoomKey>,
    /// Rooms whose read returned a newer format, and when they may read again.
    pub paused: Pauses,
    /// Rooms with queries of clients that wait for a read, checked at each tick.
    pub waiting: BTreeSet<RoomKey>,
    /// Rooms whose waiting queries can be answered.
    pub ready: Vec<RoomKey>,
    /// Bytes of the lists of all rooms, and of the changes that wait for them.
    pub used: usize,
    pub ahead_used: usize,
}

impl MemberReads {
    /// Rooms that wait for a read.
    pub fn due(&self) -> usize {
        self.queue.len() + self.retry.len() + self.paused.len()
    }

    pub fn queue_read(&mut self, room: RoomKey) {
        if !self.paused.contains_key(&room) && self.queued.insert(room) {
            self.queue.push_back(room);
        }
    }

    /// Takes the room that has waited longest, if another read may start. The room may be gone.
    pub fn next_queued(&mut self) -> Option<RoomKey> {
        if self.under_way >= LIST_READS {
            return None;
        }
        let room = self.queue.pop_front()?;
        self.queued.remove(&room);
        Some(room)
    }

    /// Subtracts the memory of a list.
    pub fn forget(&mut self, list: &MemberList) {
        self.used -= list.weight();
        self.ahead_used -= list.ahead_weight();
    }
}

/// See the head of this file.
pub struct Turn {
    /// The time of this turn.
    pub now: Instant,
    pub settings: Settings,
    pub metrics: Arc<Metrics>,
    /// When the broker received what is delivered in this turn.
    pub received_at: Vec<Instant>,
    /// The requests to the broker of this turn.
    pub requests: Vec<Request>,
    pub pending: NumberMap<Ticket, Pending>,
    /// How many of `pending` are commands of API calls.
    pub calls: usize,
    last_ticket: u64,
    /// Rooms that wait for a read, in order, and the same rooms as a set. A key is queued once,
    /// also when its room was removed and the key reused, so there are no more keys than rooms.
    queue: VecDeque<RoomKey>,
    queued: NumberSet<RoomKey>,
    /// Reads in flight.
    pub reads: usize,
    /// Rooms whose read failed; they are queued again at the next tick.
    pub retry: BTreeSet<RoomKey>,
    /// Rooms whose read returned a newer format, and when they may read again.
    pub paused: Pauses,
    /// Sessions whose outbox was full in this turn; disconnected at its end.
    pub slow: Vec<SessionId>,
    /// Members of rooms whose next message this node cannot read; disconnected at the turn's end,
    /// so that they reconnect to another node.
    pub unreadable: Vec<SessionId>,
    /// Rooms with an unflushed batch.
    pub unflushed: Vec<RoomKey>,
    /// Bytes encoded in this turn, in all rooms, because one session may be in all of them.
    pub encoded_bytes: usize,
    /// Bytes of recent messages in all rooms.
    pub recent_used: usize,
    /// Bytes of messages in all rooms that wait for the reads which close the holes before them.
    pub ahead_used: usize,
    /// Members whose joins were answered in this turn.
    pub joined: Vec<(RoomKey, SessionId)>,
    pub member_reads: MemberReads,
}

impl Turn {
    pub fn new(now: Instant, settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            now,
            settings,
            metrics,
            received_at: Vec::new(),
            requests: Vec::new(),
            pending: NumberMap::default(),
            calls: 0,
            last_ticket: 0,
            queue: VecDeque::new(),
            queued: NumberSet::default(),
            reads: 0,
            retry: BTreeSet::new(),
            paused: Pauses::default(),
            slow: Vec::new(),
            unreadable: Vec::new(),
            unflushed: Vec::new(),
            encoded_bytes: 0,
            recent_used: 0,
            ahead_used: 0,
            joined: Vec::new(),
            member_reads: MemberReads::default(),
        }
    }

    /// Registers the context of a request and returns its ticket.
    pub fn ticket(&mut self, waiting: Pending) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.pending.insert(ticket, waiting);
        ticket
    }

    /// Starts a read of a room's log for the node itself.
    pub fn read(
        &mut self,
        waiting: Pending,
        room: &RoomName,
        range: Range,
        limit: usize,
    ) -> Ticket {
        let ticket = self.ticket(waiting);
        self.reads += 1;
        let room = room.clone();
        self.requests.push(Request::Read(Read {
            ticket,
            room,
            range,
            limit,
        }));
        ticket
    }

    /// Queues a room for a read, once. A paused room is queued after its pause.
    pub fn queue_read(&mut self, room: RoomKey) {
        if !self.paused.contains_key(&room) && self.queued.insert(room) {
            self.queue.push_back(room);
        }
    }

    /// The read of a room failed: it is queued again at the next tick, or after a pause if only an
    /// upgrade of this node or the end of the log's entry can help.
    pub fn retry(&mut self, room: RoomKey, why: Refused) {
        if why == Refused::Newer {
            self.paused.insert(room, self.now + PAUSE);
        } else {
            self.retry.insert(room);
        }
    }

    /// Takes the room that has waited longest, if another read may start. The room may be gone.
    pub fn next_queued(&mut self) -> Option<RoomKey> {
        if self.reads >= READS {
            return None;
        }
        let room = self.queue.pop_front()?;
        self.queued.remove(&room);
        Some(room)
    }

    /// Rooms that wait for a read.
    pub fn due(&self) -> usize {
        self.queue.len() + self.retry.len() + self.paused.len()
    }

    /// How many more bytes may be kept ahead of holes.
    pub fn ahead_left(&self) -> usize {
        AHEAD_MEMORY.saturating_sub(self.ahead_used)
    }

    /// The most that is offered to an outbox at once, in bytes.
    pub fn quarter(&self) -> usize {
        self.settings.outbox_bytes / 4
    }

    /// Whether a quarter of an outbox has been encoded: the turn ends, so that the writers can run.
    pub fn is_enough(&self) -> bool {
        self.encoded_bytes >= self.quarter()
    }

    /// Offers frames to a session. If its outbox is full, it is disconnected at the turn's end; one
    /// that is gone needs no frames.
    pub fn send(&mut self, session: SessionId, outbox: &Outbox, frames: Bytes) {
        if outbox.offer(frames) == Offer::Full {
            self.slow.push(session);
        }
    }
}
