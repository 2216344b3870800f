//! One room: its members, its publications of this turn, and the node's position in its log. Its
//! recovery is in `recovery.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::broker::{Page, Publication, Refused};
use crate::dispatcher::delivery::batch::{Batch, Excluded};
use crate::dispatcher::delivery::follower::LogFollower;
use crate::dispatcher::delivery::sequencer::{Sequencer, Step};
use crate::dispatcher::membership::cursor::{Cursor, LogCheck, Membership};
use crate::dispatcher::read_scheduler::LogKey;
use crate::dispatcher::rooms;
use crate::dispatcher::turn::Turn;
use crate::model::history::Recent;
use crate::model::id::{NumberMap, Position, SessionId, Ticket};
use crate::model::retention::LogLimits;
use crate::model::source::Source;
use crate::outbox::Permit;
use crate::presence::MemberList;
use crate::protocol::encoder::Encoder;
use crate::protocol::{Message, Protocol};

/// A room with this node's state of it.
pub(crate) type Room = rooms::Room<RoomState, Membership>;

/// The node's state of a room.
#[derive(Debug, Default)]
pub(crate) struct RoomState {
    pub follower: LogFollower,
    pub recent: Recent,
    /// Publications of this turn that have not been flushed.
    batch: Batch,
    /// The members that are behind; all others are live.
    pub cursors: NumberMap<SessionId, Cursor>,
    /// The read in flight that all cursors share.
    pub seek_ticket: Option<Ticket>,
    /// A cursor needs messages that are not in memory.
    pub seek: bool,
    /// The last such read returned a newer format, perhaps before what the cursors need: the next
    /// one reads no more than that.
    pub seek_exactly: bool,
    /// Members by protocol, so that no frame is encoded for a protocol without members.
    pub members_by_protocol: [usize; Protocol::COUNT],
    /// The members over all nodes.
    pub presence: RoomPresence,
    /// The permit of the client that was the first to join, if there is a limit.
    pub permit: Option<Permit>,
}

/// The members of a room over all nodes.
#[derive(Debug, Default)]
pub(crate) struct RoomPresence {
    pub list: MemberList,
    /// The read in flight.
    pub ticket: Option<Ticket>,
    /// Queries of clients that wait for it, with their deadlines, oldest first.
    pub waiting: Vec<(Instant, Ticket)>,
}

impl Room {
    /// A message was received from the topic.
    pub(crate) fn receive(
        &mut self,
        turn: &mut Turn,
        at: Position,
        publication: Arc<Publication>,
        received_at: Instant,
    ) {
        let memory = turn.ahead_left();
        let receive =
            |sequencer: &mut Sequencer| sequencer.receive(at.epoch, at.offset, publication, memory);
        match self.change_sequencer(turn, receive) {
            Some(step) => {
                turn.received_at.push(received_at);
                self.step(turn, step);
            }
            None => self.queue_read_if_due(turn, Source::Node),
        }
    }

    /// Makes a comparison of the room with its log due, for this source.
    pub(crate) fn make_due(&mut self, turn: &mut Turn, source: Source) {
        let key = LogKey::Room(self.key);
        self.state.follower.make_due(turn, key, source);
    }

    /// Queues the room for a read of its log, for this source.
    pub(crate) fn queue_read(&self, turn: &mut Turn, source: Source) {
        turn.queue_read(LogKey::Room(self.key), source);
    }

    /// The read of the room's log failed.
    pub(crate) fn retry_read(&self, turn: &mut Turn, source: Source, why: Refused) {
        let key = LogKey::Room(self.key);
        turn.log_reads.retry(key, source, why, turn.now);
    }

    fn queue_read_if_due(&mut self, turn: &mut Turn, source: Source) {
        let follower = &self.state.follower;
        follower.queue_if_due(turn, LogKey::Room(self.key), source);
    }

    /// The source of a read that no single session has caused: a session that is behind, or the
    /// node. The first of them, because equal events must have equal effects.
    pub(crate) fn waiting_source(&self) -> Source {
        let behind = self.state.cursors.keys().min();
        behind.map_or(Source::Node, |session| Source::Session(*session))
    }

    /// Starts the reads that the room needs, for this source.
    pub(crate) fn start_reads(&mut self, turn: &mut Turn, source: Source) {
        let (follower, key) = (&mut self.state.follower, LogKey::Room(self.key));
        follower.read_if_due(turn, key, source, &self.name);
        self.start_seek(turn, source);
    }

    /// Handles the reply to the node's own read.
    pub(crate) fn on_page(
        &mut self,
        turn: &mut Turn,
        ticket: Ticket,
        source: Source,
        result: Result<Page, Refused>,
    ) {
        let (follower, key) = (&mut self.state.follower, LogKey::Room(self.key));
        let page = match follower.take_reply(turn, key, source, ticket, result) {
            None => return,
            Some(Ok(page)) => page,
            Some(Err(why)) => {
                if why == Refused::Newer {
                    self.mark_unreadable(turn);
                }
                return;
            }
        };
        let mut steps = Vec::new();
        let former = self.state.follower.sequencer.position();
        let (top, expires_in) = (page.top, page.expires_in);
        self.change_sequencer(turn, |sequencer| sequencer.on_page(page, &mut steps));
        // The epoch of the live members: the sequencer itself is already at the end of the steps.
        let mut epoch = former
            .or(self.state.follower.sequencer.position())
            .map(|at| at.epoch);
        let check = if self.state.follower.sequencer.is_settled() {
            LogCheck::Complete
        } else {
            LogCheck::Pending
        };
        let weight: usize = steps.iter().map(Step::weight).sum();
        let much = weight > turn.quarter();
        let mut lag = false;
        for step in steps {
            match step {
                Step::Deliver(offset, publication) if much => {
                    if !std::mem::replace(&mut lag, true)
                        && let Some(epoch) = epoch
                    {
                        let offset = offset - 1;
                        self.fall_behind(turn, Position { epoch, offset });
                    }
                    self.keep(turn, offset, publication);
                }
                Step::Ended(at) | Step::Lost(at) => {
                    epoch = Some(at.epoch);
                    self.step(turn, step);
                }
                step => self.step(turn, step),
            }
        }
        self.note_expiry(turn, top, expires_in);
        self.settle_all(turn, check);
        self.queue_read_if_due(turn, source);
    }

    /// This node cannot read the next message of the room, so its members must receive it from
    /// another node. Waiting joins are refused at their deadline.
    fn mark_unreadable(&mut self, turn: &mut Turn) {
        let cursors = &self.state.cursors;
        let members = self.members.iter().map(|member| member.session);
        let answered = members.filter(|it| cursors.get(it).is_none_or(Cursor::is_answered));
        turn.unreadable.extend(answered);
    }

    fn step(&mut self, turn: &mut Turn, step: Step) {
        match step {
            Step::Deliver(offset, publication) => self.deliver(turn, offset, publication),
            Step::Ended(position) => self.end_epoch(turn, position),
            Step::Lost(position) => self.lose(turn, position),
        }
    }

    /// The next message: kept for members that are behind, and encoded for live members.
    fn deliver(&mut self, turn: &mut Turn, offset: u64, publication: Arc<Publication>) {
        self.encode(turn, Some(offset), &publication);
        self.keep(turn, offset, publication);
    }

    fn keep(&mut self, turn: &mut Turn, offset: u64, publication: Arc<Publication>) {
        let LogLimits { size, age } = turn.settings.retention.of(&self.name);
        let expires = turn.now + age;
        self.change_recent(turn, |recent| {
            recent.push(offset, publication);
            recent.truncate(size);
            recent.expires = Some(expires);
        });
    }

    /// A read has returned how long the log is kept; the recent messages are kept as long. If the
    /// page is older than what was delivered, they already have a later time.
    pub(crate) fn note_expiry(&mut self, turn: &Turn, top: Position, expires_in: Duration) {
        if self.state.follower.sequencer.position() == Some(top) {
            self.state.recent.expires = Some(turn.now + expires_in);
        }
    }

    /// Drops the recent messages when the log has expired, so that every node returns the same
    /// history.
    pub(crate) fn expire_recent(&mut self, turn: &mut Turn) {
        if self.state.recent.is_expired(turn.now) {
            self.change_recent(turn, Recent::clear);
        }
    }

    /// Changes the sequencer and keeps count of the memory that messages ahead of a hole take.
    fn change_sequencer<T>(
        &mut self,
        turn: &mut Turn,
        change: impl FnOnce(&mut Sequencer) -> T,
    ) -> T {
        turn.ahead_used -= self.state.follower.sequencer.ahead_weight();
        let changed = change(&mut self.state.follower.sequencer);
        turn.ahead_used += self.state.follower.sequencer.ahead_weight();
        changed
    }

    /// Changes the recent messages and keeps count of their memory.
    pub(crate) fn change_recent(&mut self, turn: &mut Turn, change: impl FnOnce(&mut Recent)) {
        turn.recent_used -= self.state.recent.weight();
        change(&mut self.state.recent);
        turn.recent_used += self.state.recent.weight();
    }

    /// Encodes a publication into the batch, once for each protocol of the members.
    pub(crate) fn encode(
        &mut self,
        turn: &mut Turn,
        offset: Option<u64>,
        publication: &Publication,
    ) {
        let RoomState {
            batch,
            members_by_protocol,
            ..
        } = &mut self.state;
        if batch.is_empty() {
            turn.unflushed.push(self.key);
        }
        batch.messages += 1;
        let before = batch.bytes();
        let message = Message {
            room: &self.name,
            offset,
            publication,
        };
        let own = publication
            .except
            .filter(|who| who.incarnation == turn.settings.incarnation);
        for protocol in Protocol::ALL {
            if members_by_protocol[protocol.index()] == 0 {
                continue;
            }
            let frames = &mut batch.frames[protocol.index()];
            let encoder = protocol.encoder();
            let start = frames.len();
            encoder.message(&message, frames);
            if let Some(sender) = own {
                let (session, part) = (sender.session, start..frames.len());
                let own = own_message(&message, encoder);
                batch.except.push(Excluded {
                    session,
                    protocol,
                    part,
                    own,
                });
            }
        }
        turn.encoded_bytes += batch.bytes() - before;
    }

    /// Encodes a presence event into the batch. Members that are behind receive it too, at once,
    /// because it has no offset.
    pub(crate) fn encode_event(&mut self, turn: &mut Turn, frames: impl Fn(&dyn Encoder) -> Bytes) {
        let RoomState {
            batch,
            members_by_protocol,
            ..
        } = &mut self.state;
        let (was_empty, before) = (batch.is_empty(), batch.bytes());
        for protocol in Protocol::ALL {
            if members_by_protocol[protocol.index()] > 0 {
                let frames = frames(protocol.encoder());
                batch.frames[protocol.index()].extend_from_slice(&frames);
                batch.events[protocol.index()].extend_from_slice(&frames);
            }
        }
        if was_empty && !batch.is_empty() {
            turn.unflushed.push(self.key);
        }
        turn.encoded_bytes += batch.bytes() - before;
    }

    /// Offers the batch to every live member, as one buffer that all share.
    pub(crate) fn flush(&mut self, turn: &mut Turn) {
        if self.state.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.state.batch);
        let senders = batch.excluded_senders();
        let frames = std::mem::take(&mut batch.frames).map(BytesMut::freeze);
        let events = std::mem::take(&mut batch.events).map(BytesMut::freeze);
        let cursors = &self.state.cursors;
        let mut live = 0;
        for member in &self.members {
            // Both maps are nearly always empty, and a lookup in an empty map costs nothing.
            if let Some(cursor) = cursors.get(&member.session) {
                let events = &events[member.value.protocol.index()];
                if cursor.is_answered() && !events.is_empty() {
                    turn.send(member.session, &member.value.outbox, events.clone());
                }
                continue;
            }
            live += 1;
            let protocol = member.value.protocol;
            let all = &frames[protocol.index()];
            let frames = if senders.contains(&member.session) {
                batch.without_own(all, member.session, protocol)
            } else {
                all.clone()
            };
            if !frames.is_empty() {
                turn.send(member.session, &member.value.outbox, frames);
            }
        }
        turn.metrics.delivered_total.add(live * batch.messages);
    }

    /// The epoch has ended, and the next one begins here: each live member receives a gap with its
    /// new position. Members that are behind receive the rest of the epoch first; those above the
    /// end receive the gap now.
    fn end_epoch(&mut self, turn: &mut Turn, position: Position) {
        self.flush(turn);
        // Messages above were lost; their offsets are used again.
        self.change_recent(turn, |recent| recent.cut(position.offset));
        // A store that has lost messages may have lost presence too.
        self.make_list_due(turn);
        let epoch = position.epoch.to_string();
        log::warn!(room = self.name.as_str(), epoch = epoch.as_str(), offset = position.offset;
            "the epoch of the log has ended: the last publications may be lost");
        for member in &self.members {
            let cursor = self.state.cursors.get_mut(&member.session);
            if cursor.is_none_or(|cursor| cursor.is_above_end(position)) {
                self.send_gap(turn, member.session, &member.value, position);
            }
        }
    }

    /// The log no longer has the next messages: each live member receives a gap with its new
    /// position. A waiting join is answered instead.
    fn lose(&mut self, turn: &mut Turn, position: Position) {
        self.flush(turn);
        self.change_recent(turn, Recent::clear);
        // A store that has lost messages may have lost presence too.
        self.make_list_due(turn);
        let epoch = position.epoch.to_string();
        log::warn!(room = self.name.as_str(), epoch = epoch.as_str(), offset = position.offset;
            "messages lost");
        self.state
            .cursors
            .retain(|_, cursor| cursor.survives_loss());
        for member in &self.members {
            if !self.state.cursors.contains_key(&member.session) {
                self.send_gap(turn, member.session, &member.value, position);
            }
        }
    }
}

/// The frame that replaces a message at the sender that excluded itself. It carries the position;
/// an ephemeral message has none, so the frame is empty.
pub(crate) fn own_message(message: &Message<'_>, encoder: &dyn Encoder) -> Bytes {
    let mut own = BytesMut::new();
    if message.offset.is_some() {
        encoder.own_message(message.room, message.offset, &mut own);
    }
    own.freeze()
}
