//! The dispatcher's desk: what rooms and sessions leave behind in a turn for the dispatcher to see
//! to. Requests to the broker and who waits for them, reads in line, sessions found slow, rooms
//! with something to seal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Settings;
use super::member_reads::MemberReads;
use super::presence::MembersQuery;
use crate::api::ApiCaller;
use crate::broker::{Range, Read, Refused, Request};
use crate::dispatcher::outbox::{Offer, Outbox};
use crate::dispatcher::rooms::RoomKey;
use crate::metrics::Metrics;
use crate::model::control::{ControlCommand, ControlLog};
use crate::model::id::{NumberMap, NumberSet, RoomName, SessionId, Ticket, UserName};
use crate::protocol::RequestId;

/// Reads that the node has under way at most for the sake of its own positions and of those who
/// come back. A resubscription of 100,000 rooms then costs Redis a steady stream, not a wall.
pub const READS: usize = 64;

/// Bytes of messages that wait in all rooms together for the reads which close the holes before
/// them. Enough for a usual hole in each of thousands of rooms; what does not fit comes with the
/// next read.
pub const AHEAD_MEMORY: usize = 16 << 20;

/// How long a room waits whose read met a newer format.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Rooms that must not be read before these moments.
pub type Pauses = BTreeMap<RoomKey, Instant>;

/// The rooms whose pause is over.
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

/// Who has asked something, and is told the reply.
#[derive(Clone, Debug)]
pub enum ReplyTo {
    /// A client, by the number it gave its command.
    Session {
        session: SessionId,
        id: Option<RequestId>,
    },
    /// A backend, by the HTTP API.
    Call(ApiCaller),
}

/// Who waits for an answer of the broker.
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
    /// What is to be done with a user.
    ControlCommand {
        reply_to: ReplyTo,
        order: ControlCommand,
    },
    /// The set of revocations is written for a backend; then the order is published.
    Revoke {
        reply_to: ReplyTo,
        order: ControlCommand,
    },
    /// The node itself: it writes what the set of revocations lacks.
    WriteBack,
    /// The node itself: it reads the set of revocations.
    ReadRevocations,
    /// The node itself: the revocation of a user is published again.
    Renewal(UserName),
    /// The node itself: what it tells of itself.
    Report,
    /// The node itself: a hole in what the nodes tell each other.
    Control(ControlLog),
    Members(MembersQuery),
    /// A backend's question for the whole cluster.
    Census(ReplyTo),
    /// The node itself: a hole in the room is to be closed, or its position looked up.
    Sequencer(RoomKey),
    /// Sessions that come back to the room, and whose messages the node no longer has.
    Seek(RoomKey),
    /// The node itself: who is in the room.
    MemberPage(RoomKey),
}

/// See the head of this file.
pub struct Turn {
    /// The time of this turn.
    pub now: Instant,
    pub settings: Settings,
    pub metrics: Arc<Metrics>,
    /// When the broker had in hand what is delivered in this turn.
    pub received_at: Vec<Instant>,
    /// What the broker is asked in this turn.
    pub requests: Vec<Request>,
    pub pending: NumberMap<Ticket, Pending>,
    /// How many of them are calls' commands.
    pub calls: usize,
    last_ticket: u64,
    /// Rooms that want a read, and the same as a set: each key stands here once, also when its room
    /// has gone and another has come in its place, so there are no more of them than there may be
    /// rooms.
    queue: VecDeque<RoomKey>,
    queued: NumberSet<RoomKey>,
    /// How many reads are under way.
    pub reads: usize,
    /// Rooms whose read failed; they line up again at the next tick.
    pub retry: BTreeSet<RoomKey>,
    /// Rooms whose read met a newer format, and when they may read again.
    pub paused: Pauses,
    /// Found full during this turn; disconnected at its end.
    pub slow: Vec<SessionId>,
    /// Members of rooms whose next message this node cannot read; disconnected at the turn's end,
    /// so that they come back to another node.
    pub unreadable: Vec<SessionId>,
    /// Rooms with something to seal.
    pub unflushed: Vec<RoomKey>,
    /// Bytes said in this turn, in all rooms: a session may be in each of them.
    pub encoded_bytes: usize,
    /// Bytes of recent messages in all rooms.
    pub recent_used: usize,
    /// Bytes of messages in all rooms that wait for the reads which close the holes before them.
    pub ahead_used: usize,
    /// Whose joins were answered.
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

    /// Remembers who waits for an answer.
    pub fn ticket(&mut self, waiting: Pending) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.pending.insert(ticket, waiting);
        ticket
    }

    /// Asks for a part of a room's log on the node's own account.
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

    /// Puts a room into the line of those that want a read, once. One that is paused lines up
    /// afterwards.
    pub fn queue_read(&mut self, room: RoomKey) {
        if !self.paused.contains_key(&room) && self.queued.insert(room) {
            self.queue.push_back(room);
        }
    }

    /// The read of a room failed: it lines up again at the next tick, or after a pause if only an
    /// upgrade of this node or the end of the log's entry can help.
    pub fn retry(&mut self, room: RoomKey, why: Refused) {
        if why == Refused::Newer {
            self.paused.insert(room, self.now + PAUSE);
        } else {
            self.retry.insert(room);
        }
    }

    /// The room that has waited longest for a read, if another may be asked now. It may have gone.
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

    /// Bytes that may still be held ahead of holes.
    pub fn ahead_left(&self) -> usize {
        AHEAD_MEMORY.saturating_sub(self.ahead_used)
    }

    /// The most that is offered to an outbox at once, in bytes.
    pub fn quarter(&self) -> usize {
        self.settings.outbox_bytes / 4
    }

    /// Whether a quarter of an outbox has been said: the turn ends, and the writers get theirs.
    pub fn is_enough(&self) -> bool {
        self.encoded_bytes >= self.quarter()
    }

    /// Offers frames to a session. One that is too slow for them is noted; one that is gone needs
    /// none.
    pub fn send(&mut self, session: SessionId, outbox: &Outbox, frames: Bytes) {
        if outbox.offer(frames) == Offer::Full {
            self.slow.push(session);
        }
    }
}
