//! The effects of one turn, which rooms and sessions collect for the dispatcher: requests to the
//! broker and what their replies are for, queued reads, slow sessions, and rooms with an unflushed
//! batch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Settings;
use super::pending::{PendingRead, PendingRequests};
use super::read_scheduler::{LogKey, ReadScheduler};
use crate::broker::{LogRequest, Range, Read, Request};
use crate::dispatcher::rooms::RoomKey;
use crate::metrics::Metrics;
use crate::model::id::{RoomName, SessionId, Ticket};
use crate::model::source::Source;
use crate::outbox::{Offer, Outbox};
use crate::presence::MemberList;

/// Maximum number of reads in flight for the node's own positions and for members that are behind.
/// A resubscription of 100,000 rooms then costs Redis a steady stream of reads, not a burst.
pub(super) const READS: usize = 64;

/// Maximum bytes of messages, of all rooms together, that wait for the reads which close the holes
/// before them. Enough for a usual hole in each of thousands of rooms; what does not fit is
/// returned by the next read.
pub(super) const AHEAD_MEMORY: usize = 16 << 20;

/// Maximum number of list reads in flight. Fewer than reads of logs, because no message depends on
/// a list.
pub(super) const LIST_READS: usize = 16;

/// The member lists of all rooms: their memory, and the queries that wait for them.
#[derive(Default)]
pub(super) struct MemberLists {
    /// Rooms with queries of clients that wait for a read, checked at each tick.
    pub waiting: BTreeSet<RoomKey>,
    /// Rooms whose waiting queries can be answered.
    pub ready: Vec<RoomKey>,
    /// Bytes of the lists of all rooms, and of the changes that wait for them.
    pub used: usize,
    pub ahead_used: usize,
}

impl MemberLists {
    /// Subtracts the memory of a list.
    pub(super) fn forget(&mut self, list: &MemberList) {
        self.used -= list.weight();
        self.ahead_used -= list.ahead_weight();
    }
}

/// See the head of this file.
pub(super) struct Turn {
    /// The time of this turn.
    pub now: Instant,
    pub settings: Settings,
    pub metrics: Arc<Metrics>,
    /// When the broker received what is delivered in this turn.
    pub received_at: Vec<Instant>,
    /// The requests to the broker of this turn.
    pub requests: Vec<Request>,
    pub pending: PendingRequests,
    /// Reads of the logs that the node follows.
    pub log_reads: ReadScheduler<LogKey>,
    /// Reads of the member lists that the node keeps.
    pub list_reads: ReadScheduler<RoomKey>,
    pub member_lists: MemberLists,
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
}

impl Turn {
    pub(super) fn new(now: Instant, settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            now,
            settings,
            metrics,
            received_at: Vec::new(),
            requests: Vec::new(),
            pending: PendingRequests::default(),
            log_reads: ReadScheduler::new(READS),
            list_reads: ReadScheduler::new(LIST_READS),
            member_lists: MemberLists::default(),
            slow: Vec::new(),
            unreadable: Vec::new(),
            unflushed: Vec::new(),
            encoded_bytes: 0,
            recent_used: 0,
            ahead_used: 0,
            joined: Vec::new(),
        }
    }

    /// Queues a log for a read, for this source. Control logs come before all rooms: a command must
    /// not wait for them.
    pub(super) fn queue_read(&mut self, key: LogKey, source: Source) {
        match key {
            LogKey::Control(_) => self.log_reads.queue_first(key),
            LogKey::Room(_) => self.log_reads.queue(key, source),
        }
    }

    /// Starts a read of a log that the node follows, for this source.
    pub(super) fn read_log(
        &mut self,
        pending: PendingRead,
        source: Source,
        room: &RoomName,
        range: Range,
        limit: usize,
    ) -> Ticket {
        let ticket = self.pending.read(pending);
        self.log_reads.start();
        let room = room.clone();
        self.requests.push(Request::Log(LogRequest::Read(Read {
            ticket,
            source,
            room,
            range,
            limit,
        })));
        ticket
    }

    /// How many more bytes may be kept ahead of holes.
    pub(super) fn ahead_left(&self) -> usize {
        AHEAD_MEMORY.saturating_sub(self.ahead_used)
    }

    /// The most that is offered to an outbox at once, in bytes.
    pub(super) fn quarter(&self) -> usize {
        self.settings.outbox_bytes / 4
    }

    /// Whether a quarter of an outbox has been encoded: the turn ends, so that the writers can run.
    pub(super) fn is_enough(&self) -> bool {
        self.encoded_bytes >= self.quarter()
    }

    /// Offers frames to a session. If its outbox is full, it is disconnected at the turn's end; one
    /// that is gone needs no frames.
    pub(super) fn send(&mut self, session: SessionId, outbox: &Outbox, frames: Bytes) {
        if outbox.offer(frames) == Offer::Full {
            self.slow.push(session);
        }
    }
}
