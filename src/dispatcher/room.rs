//! What the dispatcher does in one room: joining and leaving, fan-out, mending holes, and bringing back those who were
//! away.
//!
//! A member is *live*, and gets each message as it is delivered, or it is behind and has a [`Cursor`]: then it gets its
//! next page when its outbox has drained, from the recent messages or from a read that all who are behind share. Nothing
//! is buffered for it. It becomes live in the turn in which its cursor meets the delivered offset.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::{COMPARE_EVERY, Dispatcher, Now, Pending, READS, TICK, refuse_reserved};
use crate::broker::{Page, Publication, Range, Read, Refused, Request, Sender};
use crate::history::Recent;
use crate::id::{Position, RoomName, SessionId, Ticket};
use crate::protocol::{Code, CommandError, Joined, Message, Protocol, Push, Reply, RequestId};
use crate::rooms::{self, Left, RoomKey};
use crate::session::{Offer, Outbox};
use crate::track::{Step, Track};

/// Messages asked for in one read.
const PAGE: usize = 256;

/// What the node keeps of a membership: enough to deliver without looking the session up.
#[derive(Debug)]
pub struct Membership {
    outbox: Outbox,
    protocol: Protocol,
    live: bool,
}

/// What the node knows of a room.
#[derive(Debug, Default)]
pub struct RoomState {
    track: Track,
    recent: Recent,
    open: Open,
    /// Members that are not live.
    cursors: HashMap<SessionId, Cursor>,
    /// The reads under way: the node's own, and the one for cursors.
    track_ticket: Option<Ticket>,
    seek_ticket: Option<Ticket>,
    /// A cursor needs what the node no longer has.
    seek: bool,
    /// The room is in the line of those that are due a read.
    in_line: bool,
    /// Members by protocol, so that nothing is encoded for nobody.
    speakers: [usize; Protocol::COUNT],
}

impl RoomState {
    pub fn position(&self) -> Option<Position> {
        self.track.position()
    }
}

/// A member that is behind.
#[derive(Debug)]
struct Cursor {
    want: Want,
    /// A join that has not been answered yet.
    join: Option<Join>,
}

#[derive(Debug)]
struct Join {
    id: Option<RequestId>,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// To stand wherever the room stands.
    Now,
    /// To go on from here, if the log has it: not judged yet.
    Since(Position),
    /// To get what comes after this, which is not above what the node has delivered.
    After(Position),
}

/// A room's publications of this turn, encoded once per protocol and not offered yet.
#[derive(Debug, Default)]
struct Open {
    frames: [BytesMut; Protocol::COUNT],
    messages: u64,
    /// Parts that their senders do not want back.
    except: Vec<Except>,
}

#[derive(Debug)]
struct Except {
    session: SessionId,
    protocol: Protocol,
    /// The part of the protocol's frames, and what stands for it.
    part: std::ops::Range<usize>,
    own: Bytes,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.messages == 0
    }

    fn bytes(&self) -> usize {
        self.frames.iter().map(BytesMut::len).max().unwrap_or(0)
    }

    /// The frames as one of the senders of `except` gets them.
    fn without_own(&self, session: SessionId, protocol: Protocol) -> Bytes {
        let all = &self.frames[protocol.index()];
        let mut frames = BytesMut::with_capacity(all.len());
        let mut copied = 0;
        for except in &self.except {
            if except.session == session && except.protocol == protocol {
                frames.extend_from_slice(&all[copied..except.part.start]);
                frames.extend_from_slice(&except.own);
                copied = except.part.end;
            }
        }
        frames.extend_from_slice(&all[copied..]);
        frames.freeze()
    }
}

type Room = rooms::Room<RoomState, Membership>;

impl Dispatcher {
    pub(super) fn on_join(
        &mut self,
        now: Now,
        session: SessionId,
        id: Option<RequestId>,
        name: &RoomName,
        since: Option<Position>,
    ) -> Result<(), CommandError> {
        refuse_reserved(name)?;
        let Some(speaker) = self.sessions.get(&session) else {
            return Ok(());
        };
        let known = self.rooms.find(name);
        if known.is_none() && self.rooms.len() >= self.settings.max_rooms {
            let reason = "this node has as many rooms as it may; leave one, or try another node";
            return Err(CommandError::new(Code::Limit, reason));
        }
        let member = known.is_some_and(|key| self.rooms.member_mut(key, session).is_some());
        if !member && self.rooms.count_of(session) >= self.settings.rooms_per_session {
            let reason = "you are in as many rooms as one client may be; leave one first";
            return Err(CommandError::new(Code::Limit, reason));
        }
        let (outbox, protocol) = (speaker.outbox.clone(), speaker.protocol);
        let key = self.rooms.find_or_add(name, RoomState::default);
        let membership = Membership {
            outbox,
            protocol,
            live: false,
        };
        match self.rooms.join(key, session, membership) {
            rooms::Joined::First => self.requests.push(Request::Follow(name.clone())),
            rooms::Joined::Another => {}
            // Whoever joins again has lost its place, or forgot that it has one: it starts afresh.
            rooms::Joined::Already => {
                self.seal(key);
                if let Some(member) = self.rooms.member_mut(key, session) {
                    member.value.live = false;
                }
            }
        }
        self.supersede(key, session);
        let deadline = now.instant + self.settings.join_timeout;
        if let Some(room) = self.rooms.get_mut(key) {
            room.state.speakers[protocol.index()] += usize::from(!member);
            let want = since.map_or(Want::Now, Want::Since);
            room.state.cursors.insert(
                session,
                Cursor {
                    want,
                    join: Some(Join { id, deadline }),
                },
            );
        }
        self.settle(key, session, Judge::NotYet);
        if self.is_behind(key, session) {
            self.joins.push_back((deadline, key, session));
        }
        Ok(())
    }

    /// Every join is answered, so one that another join or a leave of its session overtakes is refused.
    fn supersede(&mut self, key: RoomKey, session: SessionId) {
        let room = self.rooms.get_mut(key);
        let cursor = room.and_then(|room| room.state.cursors.get_mut(&session));
        if let Some(Join { id, .. }) = cursor.and_then(|cursor| cursor.join.take()) {
            let reason = "another join or leave of this room came before the answer; join again";
            let error = CommandError::new(Code::Unavailable, reason);
            self.reply(session, id, &Reply::Error(&error));
        }
    }

    pub(super) fn on_leave(&mut self, session: SessionId, name: &RoomName) {
        if let Some(key) = self.rooms.find(name) {
            self.supersede(key, session);
            self.leave(key, session);
        }
    }

    fn leave(&mut self, key: RoomKey, session: SessionId) {
        self.seal(key);
        let protocol = self
            .rooms
            .member_mut(key, session)
            .map(|member| member.value.protocol);
        let left = self.rooms.leave(key, session);
        if let Some(protocol) = protocol {
            self.left(key, session, protocol, left);
        }
    }

    /// Takes a session that has ended out of all its rooms.
    pub(super) fn depart(&mut self, session: SessionId) {
        let keys: Vec<RoomKey> = self.rooms.rooms_of(session).collect();
        for key in keys {
            self.leave(key, session);
        }
    }

    fn left(&mut self, key: RoomKey, session: SessionId, protocol: Protocol, left: Left) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        room.state.cursors.remove(&session);
        room.state.speakers[protocol.index()] -= 1;
        if left == Left::Last {
            let name = room.name.clone();
            let state = self.rooms.remove(key);
            self.recent_used -= state.recent.weight();
            self.open.retain(|open| *open != key);
            self.requests.push(Request::Unfollow(name));
        }
    }

    pub(super) fn on_following(&mut self, name: &RoomName) {
        if let Some(key) = self.rooms.find(name) {
            self.make_due(key);
        }
    }

    pub(super) fn on_message(
        &mut self,
        name: &RoomName,
        at: Position,
        publication: Arc<Publication>,
    ) {
        let Some(key) = self.rooms.find(name) else {
            return;
        };
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        match room.state.track.hear(at.epoch, at.offset, publication) {
            Some(Step::Deliver(offset, publication)) => self.deliver(key, offset, publication),
            Some(Step::Lost(_)) | None => self.note_due(key),
        }
    }

    pub(super) fn on_ephemeral(&mut self, name: &RoomName, publication: &Publication) {
        if let Some(key) = self.rooms.find(name) {
            self.encode(key, None, publication);
        }
    }

    /// The next message of a room: kept for those who are behind, and put into the open buffer for those who are live.
    fn deliver(&mut self, key: RoomKey, offset: u64, publication: Arc<Publication>) {
        self.encode(key, Some(offset), &publication);
        self.keep(key, offset, publication);
    }

    fn keep(&mut self, key: RoomKey, offset: u64, publication: Arc<Publication>) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let recent = &mut room.state.recent;
        let before = recent.weight();
        recent.push(offset, publication);
        recent.truncate(self.settings.history_size);
        self.recent_used = self.recent_used + recent.weight() - before;
        self.give_up_recent();
    }

    fn encode(&mut self, key: RoomKey, offset: Option<u64>, publication: &Publication) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let Room {
            name,
            state: RoomState { open, speakers, .. },
            ..
        } = room;
        if open.is_empty() {
            self.open.push(key);
        }
        open.messages += 1;
        let own = publication
            .except
            .filter(|who| who.incarnation == self.settings.incarnation);
        for protocol in Protocol::ALL {
            if speakers[protocol.index()] == 0 {
                continue;
            }
            let frames = &mut open.frames[protocol.index()];
            let start = frames.len();
            protocol.message(
                &Message {
                    room: name,
                    offset,
                    publication,
                },
                frames,
            );
            if let Some(sender) = own {
                let part = start..frames.len();
                let mut own = BytesMut::new();
                // An ephemeral message has no place to tell of.
                if offset.is_some() {
                    protocol.own_message(name, offset, &mut own);
                }
                let (session, own) = (sender.session, own.freeze());
                open.except.push(Except {
                    session,
                    protocol,
                    part,
                    own,
                });
            }
        }
        if open.bytes() >= self.settings.outbox_bytes / 4 {
            self.seal(key);
            self.full = true;
        }
    }

    pub(super) fn seal_all(&mut self) {
        for key in std::mem::take(&mut self.open) {
            self.seal(key);
        }
    }

    /// Offers what was said in the room to every live member, as one buffer that all share.
    fn seal(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        if room.state.open.is_empty() {
            return;
        }
        let mut open = std::mem::take(&mut room.state.open);
        self.open.retain(|other| *other != key);
        let excepted: Vec<(SessionId, Bytes)> = open
            .except
            .iter()
            .map(|except| {
                (
                    except.session,
                    open.without_own(except.session, except.protocol),
                )
            })
            .collect();
        let frames = std::mem::take(&mut open.frames).map(BytesMut::freeze);
        let mut live = 0;
        for member in &room.members {
            if !member.value.live {
                continue;
            }
            let own = excepted
                .iter()
                .find(|(session, _)| *session == member.session);
            let frames = own.map_or(&frames[member.value.protocol.index()], |(_, frames)| frames);
            live += 1;
            if !frames.is_empty() && member.value.outbox.offer(frames.clone()) == Offer::Full {
                self.slow.push(member.session);
            }
        }
        self.metrics.delivered_total.add(live * open.messages);
    }

    /// Keeps all rooms' recent messages within their memory: rooms give up their older half in turn.
    fn give_up_recent(&mut self) {
        while self.recent_used > self.settings.recent_memory {
            let Some((key, next)) = self.rooms.next_key(self.recent_hand) else {
                return;
            };
            self.recent_hand = next;
            let Some(room) = self.rooms.get_mut(key) else {
                return;
            };
            let before = room.state.recent.weight();
            room.state.recent.shrink();
            self.recent_used = self.recent_used + room.state.recent.weight() - before;
        }
    }

    /// The messages below `before`, if all of them that were asked for are at hand.
    pub(super) fn recent_page(
        &mut self,
        name: &RoomName,
        before: Option<u64>,
        limit: usize,
    ) -> Option<Page> {
        let key = self.rooms.find(name)?;
        let room = self.rooms.get_mut(key)?;
        let top = room
            .state
            .track
            .position()
            .filter(|_| room.state.track.is_settled())?;
        let end = before.unwrap_or(u64::MAX).min(top.offset + 1);
        let start = end.checked_sub(limit as u64).filter(|start| *start > 1)?;
        // The one before the page is here too: then there is more, for certain.
        if !room.state.recent.run().covers(start - 1) {
            return None;
        }
        let messages = room.state.recent.run().before(end, limit);
        let messages = messages
            .map(|(offset, said)| (offset, said.clone()))
            .collect();
        Some(Page {
            top,
            first: start - 1,
            messages,
        })
    }

    /// Lets a member that is behind have what can be had now: its answer, its next page, or its place among the
    /// live. Whoever gets less than everything is looked at again when its outbox has drained or a read has answered.
    fn settle(&mut self, key: RoomKey, session: SessionId, judge: Judge) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let Some(position) = room.state.track.position() else {
            return;
        };
        let Some(cursor) = room.state.cursors.get_mut(&session) else {
            return;
        };
        if let Want::Since(since) = cursor.want
            && since.epoch == position.epoch
            && since.offset <= position.offset
        {
            cursor.want = Want::After(since);
        }
        let want = cursor.want;
        match want {
            Want::Now => self.become_live(key, session, None),
            Want::After(at) if at == position => self.become_live(key, session, Some(true)),
            Want::After(_) if !self.has_room(key, session) => {}
            Want::After(at) => self.give_recent(key, session, position, at.offset),
            // Another epoch, or ahead of this node: perhaps the node itself is behind, so its own read decides.
            Want::Since(_) if judge == Judge::NotYet => {
                self.make_due(key);
            }
            Want::Since(_) => self.become_live(key, session, Some(false)),
        }
    }

    /// Whether another page fits into a member's outbox. If not, its writer is asked to tell when it has drained.
    fn has_room(&mut self, key: RoomKey, session: SessionId) -> bool {
        let quarter = self.settings.outbox_bytes as u64 / 4;
        let Some(member) = self.rooms.member_mut(key, session) else {
            return false;
        };
        let outbox = &member.value.outbox;
        if outbox.waiting() <= quarter {
            return true;
        }
        // Asked before the second look: the writer may be done with it between the two.
        outbox.want_drained();
        outbox.waiting() <= quarter
    }

    /// The member stands where the room stands, and is told so if its join still waits for it.
    fn become_live(&mut self, key: RoomKey, session: SessionId, recovered: Option<bool>) {
        // What was delivered in this turn lies before its place.
        self.seal(key);
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let Some(position) = room.state.track.position() else {
            return;
        };
        let cursor = room.state.cursors.remove(&session);
        let name = room.name.clone();
        if let Some(member) = self.rooms.member_mut(key, session) {
            member.value.live = true;
        }
        if let Some(Join { id, .. }) = cursor.and_then(|cursor| cursor.join) {
            let top = position.offset;
            let joined = Joined {
                room: &name,
                position,
                top,
                recovered,
            };
            self.reply(session, id, &Reply::Joined(joined));
        }
    }

    /// Tells a member that all after `at` follows, unless it knows.
    fn answer_recovered(&mut self, key: RoomKey, session: SessionId, top: Position, at: u64) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let Some(cursor) = room.state.cursors.get_mut(&session) else {
            return;
        };
        if let Some(Join { id, .. }) = cursor.join.take() {
            let name = room.name.clone();
            let position = Position {
                epoch: top.epoch,
                offset: at,
            };
            let joined = Joined {
                room: &name,
                position,
                top: top.offset,
                recovered: Some(true),
            };
            self.reply(session, id, &Reply::Joined(joined));
        }
    }

    /// Gives a member its next page from the recent messages; if they do not reach back so far, from a read.
    fn give_recent(&mut self, key: RoomKey, session: SessionId, top: Position, at: u64) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        if !room.state.recent.run().covers(at + 1) {
            room.state.seek = true;
            return self.line_up(key);
        }
        let messages: Vec<_> = room
            .state
            .recent
            .run()
            .after(at, PAGE)
            .map(|(offset, said)| (offset, said.clone()))
            .collect();
        self.answer_recovered(key, session, top, at);
        self.give(key, session, &messages);
    }

    /// Gives a member its next page: at most a quarter of an outbox, the rest when that has drained.
    fn give(&mut self, key: RoomKey, session: SessionId, messages: &[(u64, Arc<Publication>)]) {
        let quarter = self.settings.outbox_bytes / 4;
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let Some(position) = room.state.track.position() else {
            return;
        };
        let name = room.name.clone();
        let Some(Cursor {
            want: Want::After(at),
            ..
        }) = room.state.cursors.get(&session)
        else {
            return;
        };
        let mut last = at.offset;
        let Some(member) = self.rooms.member_mut(key, session) else {
            return;
        };
        let Membership {
            outbox, protocol, ..
        } = &member.value;
        let own = Sender {
            incarnation: self.settings.incarnation,
            session,
        };
        let mut frames = BytesMut::new();
        // A read may know more than the node has delivered. That comes when it is delivered.
        let known = messages.iter().take_while(|(offset, _)| *offset <= position.offset);
        for (offset, publication) in known {
            let message = Message {
                room: &name,
                offset: Some(*offset),
                publication,
            };
            match publication.except {
                Some(sender) if sender == own => {
                    protocol.own_message(&name, Some(*offset), &mut frames);
                }
                _ => protocol.message(&message, &mut frames),
            }
            self.metrics.delivered_total.add(1);
            last = *offset;
            if frames.len() >= quarter {
                break;
            }
        }
        // Asked for before the offer: the writer may be done with it at any moment.
        outbox.want_drained();
        if outbox.offer(frames.freeze()) == Offer::Full {
            self.slow.push(session);
        }
        if last == position.offset {
            self.become_live(key, session, None);
        } else if let Some(room) = self.rooms.get_mut(key)
            && let Some(cursor) = room.state.cursors.get_mut(&session)
        {
            cursor.want = Want::After(Position {
                offset: last,
                ..position
            });
        }
    }

    /// A member's outbox has been written: it gets its next page in each room where it is behind.
    pub(super) fn on_drained(&mut self, session: SessionId) {
        let keys: Vec<RoomKey> = self.rooms.rooms_of(session).collect();
        for key in keys {
            self.settle(key, session, Judge::NotYet);
        }
    }

    fn is_behind(&mut self, key: RoomKey, session: SessionId) -> bool {
        self.rooms
            .get_mut(key)
            .is_some_and(|room| room.state.cursors.contains_key(&session))
    }

    /// The room is to be compared with its log.
    fn make_due(&mut self, key: RoomKey) {
        if let Some(room) = self.rooms.get_mut(key) {
            room.state.track.make_due();
        }
        self.note_due(key);
    }

    /// Puts a room into the line if the node's own place in it is due a read.
    fn note_due(&mut self, key: RoomKey) {
        let room = self.rooms.get_mut(key);
        if room.is_some_and(|room| room.state.track.is_due()) {
            self.line_up(key);
        }
    }

    /// Puts a room into the line of those that want a read, once.
    fn line_up(&mut self, key: RoomKey) {
        if let Some(room) = self.rooms.get_mut(key)
            && !std::mem::replace(&mut room.state.in_line, true)
        {
            self.due.push_back(key);
        }
    }

    /// Asks the broker for what the rooms in line want to know, a bounded number at a time.
    pub(super) fn ask_reads(&mut self) {
        while self.reads < READS
            && let Some(key) = self.due.pop_front()
        {
            let Some(room) = self.rooms.get_mut(key) else {
                continue;
            };
            room.state.in_line = false;
            if room.state.track.is_due() {
                self.ask_track(key);
            }
            self.ask_seek(key);
        }
    }

    /// Asks for what the node itself misses.
    fn ask_track(&mut self, key: RoomKey) {
        let ticket = self.ticket(Pending::Track(key));
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        room.state.track_ticket = Some(ticket);
        self.reads += 1;
        self.requests.push(Request::Read(Read {
            ticket,
            room: room.name.clone(),
            range: room.state.track.ask(),
            limit: PAGE,
        }));
    }

    pub(super) fn on_track_page(
        &mut self,
        key: RoomKey,
        ticket: Ticket,
        result: Result<Page, Refused>,
    ) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        // The room that asked may be gone, and another one in its place.
        if room
            .state
            .track_ticket
            .take_if(|asked| *asked == ticket)
            .is_none()
        {
            return;
        }
        let Ok(page) = result else {
            room.state.track.failed();
            self.retry.push(key);
            return;
        };
        let mut steps = Vec::new();
        room.state.track.answer(page, &mut steps);
        let settled = room.state.track.is_settled();
        let weight: usize = steps.iter().map(Step::weight).sum();
        let is_much = weight > self.settings.outbox_bytes / 4;
        let mut lags = false;
        for step in steps {
            match step {
                Step::Lost(position) => self.on_lost(key, position),
                Step::Deliver(offset, publication) if is_much => {
                    if !std::mem::replace(&mut lags, true) {
                        self.lag(key, offset - 1);
                    }
                    self.keep(key, offset, publication);
                }
                Step::Deliver(offset, publication) => self.deliver(key, offset, publication),
            }
        }
        let judge = if settled { Judge::Now } else { Judge::NotYet };
        for session in self.behind(key) {
            self.settle(key, session, judge);
        }
        self.note_due(key);
    }

    /// More comes at once than outboxes hold: all who are live and stand at this offset get it page by page instead.
    fn lag(&mut self, key: RoomKey, offset: u64) {
        self.seal(key);
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let Some(Position { epoch, .. }) = room.state.track.position() else {
            return;
        };
        for member in &mut room.members {
            if std::mem::replace(&mut member.value.live, false) {
                let want = Want::After(Position { epoch, offset });
                let cursor = Cursor { want, join: None };
                room.state.cursors.insert(member.session, cursor);
            }
        }
    }

    fn behind(&mut self, key: RoomKey) -> Vec<SessionId> {
        let room = self.rooms.get_mut(key);
        let sessions = room.into_iter().flat_map(|room| room.state.cursors.keys());
        let mut sessions: Vec<SessionId> = sessions.copied().collect();
        // In the order they came, so that equal events have equal effects.
        sessions.sort_unstable();
        sessions
    }

    /// The log no longer has what the members are to get next: each that stands in the room is told its new place.
    fn on_lost(&mut self, key: RoomKey, position: Position) {
        self.seal(key);
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        self.recent_used -= room.state.recent.weight();
        room.state.recent.clear();
        log::warn!(room = room.name.as_str(), epoch = position.epoch.to_string().as_str(), offset = position.offset; "messages lost");
        let Room {
            name,
            state,
            members,
        } = room;
        for member in members {
            if let Some(cursor) = state.cursors.get_mut(&member.session) {
                if cursor.join.is_some() {
                    // Not answered yet: the answer will say it.
                    if let Want::After(at) = cursor.want {
                        cursor.want = Want::Since(at);
                    }
                    continue;
                }
                state.cursors.remove(&member.session);
            }
            member.value.live = true;
            let gap = member.value.protocol.push(&Push::Gap {
                room: name,
                position,
            });
            if member.value.outbox.offer(gap) == Offer::Full {
                self.slow.push(member.session);
            }
        }
    }

    /// Reads what the room's cursors need and the node does not have: from the lowest one on, for all of them.
    fn ask_seek(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        if !room.state.seek || room.state.seek_ticket.is_some() {
            return;
        }
        room.state.seek = false;
        let RoomState {
            cursors, recent, ..
        } = &room.state;
        let needed = cursors.values().filter_map(|cursor| match cursor.want {
            Want::After(at) if !recent.run().covers(at.offset + 1) => Some(at),
            _ => None,
        });
        let Some(lowest) = needed.min_by_key(|at| at.offset) else {
            return;
        };
        let (room, limit) = (room.name.clone(), self.seek_limit());
        let ticket = self.ticket(Pending::Seek(key));
        if let Some(room) = self.rooms.get_mut(key) {
            room.state.seek_ticket = Some(ticket);
        }
        self.reads += 1;
        self.requests.push(Request::Read(Read {
            ticket,
            room,
            range: Range::After(lowest),
            limit,
        }));
    }

    /// A whole log in one read, so that a herd costs few.
    fn seek_limit(&self) -> usize {
        self.settings.history_size.max(PAGE)
    }

    pub(super) fn on_seek_page(
        &mut self,
        key: RoomKey,
        ticket: Ticket,
        result: Result<Page, Refused>,
    ) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        if room
            .state
            .seek_ticket
            .take_if(|asked| *asked == ticket)
            .is_none()
        {
            return;
        }
        let state = &mut room.state;
        let Ok(page) = result else {
            state.seek = true;
            self.retry.push(key);
            return;
        };
        let Some(position) = state.track.position() else {
            return;
        };
        if page.top.epoch != position.epoch || page.top.offset < position.offset {
            // The epoch is over, or the log has lost its tail, or the page is merely old: the node's own read tells.
            self.make_due(key);
        }
        if page.top.epoch != position.epoch {
            return;
        }
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let state = &mut room.state;
        let before = state.recent.weight();
        state.recent.prepend(&page.messages);
        self.recent_used = self.recent_used + state.recent.weight() - before;
        for session in self.behind(key) {
            self.give_sought(key, session, position, &page);
        }
        self.give_up_recent();
        for session in self.behind(key) {
            self.settle_if_idle(key, session);
        }
    }

    /// Serves a cursor from a page that was read for cursors.
    fn give_sought(&mut self, key: RoomKey, session: SessionId, top: Position, page: &Page) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let Some(Cursor {
            want: Want::After(at),
            join,
        }) = room.state.cursors.get(&session)
        else {
            return;
        };
        let (at, is_join) = (at.offset, join.is_some());
        if at + 1 < page.first && !room.state.recent.run().covers(at + 1) {
            if !is_join {
                let push = Push::Gap {
                    room: &room.name.clone(),
                    position: top,
                };
                self.push_to(key, session, &push);
            }
            self.become_live(key, session, Some(false));
            return;
        }
        if !self.has_room(key, session) {
            return;
        }
        let start = page.messages.partition_point(|(offset, _)| *offset <= at);
        if page
            .messages
            .get(start)
            .is_some_and(|(offset, _)| *offset == at + 1)
        {
            self.answer_recovered(key, session, top, at);
            self.give(key, session, &page.messages[start..]);
        }
    }

    fn push_to(&mut self, key: RoomKey, session: SessionId, push: &Push<'_>) {
        let Some(member) = self.rooms.member_mut(key, session) else {
            return;
        };
        if member.value.outbox.offer(member.value.protocol.push(push)) == Offer::Full {
            self.slow.push(session);
        }
    }

    /// A cursor that waits for no drained outbox goes on at once, any other when it has drained.
    fn settle_if_idle(&mut self, key: RoomKey, session: SessionId) {
        let Some(member) = self.rooms.member_mut(key, session) else {
            return;
        };
        // Asked before the look: the writer may be done between the two.
        member.value.outbox.want_drained();
        if member.value.outbox.waiting() == 0 {
            self.settle(key, session, Judge::NotYet);
        }
    }

    pub(super) fn retry_reads(&mut self) {
        for key in std::mem::take(&mut self.retry) {
            self.line_up(key);
        }
    }

    /// Makes the rooms due for a comparison with their logs, evenly over time.
    pub(super) fn compare_some(&mut self) {
        let share = TICK.as_secs_f64() / COMPARE_EVERY.as_secs_f64();
        self.compare_owed = (self.compare_owed + self.rooms.len() as f64 * share).min(READS as f64);
        while self.compare_owed >= 1.0 {
            self.compare_owed -= 1.0;
            let Some((key, next)) = self.rooms.next_key(self.compare_hand) else {
                return;
            };
            self.compare_hand = next;
            if let Some(room) = self.rooms.get_mut(key)
                && room.state.track.is_settled()
            {
                self.make_due(key);
            }
        }
    }

    /// Joins that the broker did not let be answered in time are refused.
    pub(super) fn give_up_joins(&mut self, now: Now) {
        while let Some((deadline, key, session)) = self.joins.front().copied()
            && deadline <= now.instant
        {
            self.joins.pop_front();
            let Some(room) = self.rooms.get_mut(key) else {
                continue;
            };
            let late = |cursor: &Cursor| {
                cursor
                    .join
                    .as_ref()
                    .filter(|join| join.deadline <= now.instant)
                    .map(|join| join.id)
            };
            let Some(id) = room.state.cursors.get(&session).and_then(late) else {
                continue;
            };
            self.leave(key, session);
            self.reply(session, id, &Reply::Error(&Refused::Unavailable.into()));
        }
    }
}

/// Whether the node's own read has just told that it misses nothing, so that a position it cannot place is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judge {
    Now,
    NotYet,
}
