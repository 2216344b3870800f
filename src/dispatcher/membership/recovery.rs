//! Recovery of missed messages. A member is *live* and receives each message as it is delivered, or
//! it is behind and has a [`Cursor`]. Then it receives its next page when its outbox has drained,
//! from the recent messages or from a read that all members behind share. Nothing is buffered for
//! it. It becomes live in the turn in which its cursor reaches the delivered offset.
//!
//! The cost of cursors grows with rooms, not with clients. A read returns a page (with Redis half a
//! megabyte, in memory the whole log), which stays in [`Recent`](crate::model::history::Recent)
//! within one bound for all rooms. A log of up to one page therefore costs at most three reads: the
//! position of the room, the page, and one for members below it. A longer log costs each of its
//! pages about once, and never more than twice. If memory is too short for that, the page is
//! dropped at the end of the turn, after every member has received its part of it: each read moves
//! the lowest cursor forward.

use bytes::BytesMut;

use crate::broker::{Page, Range, Refused, Sender};
use crate::dispatcher::delivery::follower::PAGE;
use crate::dispatcher::delivery::room::{Room, RoomState, own_message};
use crate::dispatcher::membership::cursor::{Cursor, LogCheck, Membership, Want};
use crate::dispatcher::pending::PendingRead;
use crate::dispatcher::turn::Turn;
use crate::model::epochs::PositionStatus;
use crate::model::id::{Position, SessionId, Ticket};
use crate::model::source::Source;
use crate::protocol::{Joined, Message, Push, cost_of_entries};

impl Room {
    /// More messages arrive at once than outboxes hold: all live members become members behind and
    /// receive them page by page.
    pub(crate) fn fall_behind(&mut self, turn: &mut Turn, at: Position) {
        self.flush(turn);
        let want = Want::After(at);
        for member in &self.members {
            let cursor = self.state.cursors.entry(member.session);
            cursor.or_insert_with(|| Cursor {
                member: member.value.clone(),
                want,
                join: None,
                recovered: true,
            });
        }
    }

    /// Settles every member that is behind, in the order of sessions, so that equal events have
    /// equal effects.
    pub(crate) fn settle_all(&mut self, turn: &mut Turn, check: LogCheck) {
        for session in self.behind() {
            self.settle(turn, session, check);
        }
    }

    fn behind(&self) -> Vec<SessionId> {
        let mut sessions: Vec<SessionId> = self.state.cursors.keys().copied().collect();
        sessions.sort_unstable();
        sessions
    }

    /// Sends a member that is behind what is available now: its reply, its next page, or both, or
    /// makes it live. A member that has not received everything is settled again when its outbox
    /// has drained or a read has returned.
    pub(crate) fn settle(&mut self, turn: &mut Turn, session: SessionId, check: LogCheck) {
        self.expire_recent(turn);
        let Some(position) = self.state.follower.sequencer.position() else {
            return;
        };
        let Some(cursor) = self.state.cursors.get_mut(&session) else {
            return;
        };
        if let Want::Since(since) = cursor.want {
            match self.state.follower.sequencer.status(since) {
                PositionStatus::Valid => cursor.want = Want::After(since),
                PositionStatus::AboveEnd(offset) => {
                    // The messages that the client received there were lost, and their offsets are
                    // used again.
                    cursor.want = Want::After(Position { offset, ..position });
                    cursor.recovered = false;
                }
                PositionStatus::Unknown => {}
            }
        }
        let recovered = cursor.recovered;
        match cursor.want {
            Want::Now => self.become_live(turn, session, position, None),
            Want::After(at) if at == position => {
                self.become_live(turn, session, position, Some(recovered));
            }
            Want::After(_) if !cursor.has_room(turn.quarter()) => {}
            Want::After(at) if at.epoch != position.epoch => {
                match self.state.follower.sequencer.end_of(at.epoch) {
                    Some(end) if at.offset >= end => self.pass_end(turn, session, position, end),
                    Some(_) => self.send_page_or_read(turn, session, position),
                    // So many epochs have ended meanwhile that this one is no longer kept.
                    None => self.lose_position(turn, session, position),
                }
            }
            Want::After(_) => self.send_page_or_read(turn, session, position),
            // Another epoch, or ahead of this node: perhaps the node itself is behind, so its own
            // read decides.
            Want::Since(_) if check == LogCheck::Pending => {
                self.make_due(turn, Source::Session(session));
            }
            Want::Since(_) => self.become_live(turn, session, position, Some(false)),
        }
    }

    /// Makes the member live at the room's position, and answers its join if that still waits.
    fn become_live(
        &mut self,
        turn: &mut Turn,
        session: SessionId,
        position: Position,
        recovered: Option<bool>,
    ) {
        // Messages delivered in this turn come before its position.
        self.flush(turn);
        let Some(cursor) = self.state.cursors.remove(&session) else {
            return;
        };
        if let Some(join) = &cursor.join {
            turn.joined.push((self.key, session));
            let top = position.offset;
            let joined = Joined {
                room: &self.name,
                position,
                top,
                recovered,
            };
            cursor.answer_join(turn, session, join, joined);
        }
    }

    /// Sends a member its next page if it is among the recent messages; otherwise queues a read.
    fn send_page_or_read(&mut self, turn: &mut Turn, session: SessionId, top: Position) {
        let want = self.state.cursors.get(&session).map(|cursor| cursor.want);
        let next = want.and_then(|want| match want {
            Want::After(at) => Some(at.offset + 1),
            Want::Now | Want::Since(_) => None,
        });
        if next.is_some_and(|next| self.state.recent.run_at(next).is_some()) {
            self.send_page(turn, session, top);
        } else {
            self.state.seek = true;
            self.queue_read(turn, Source::Session(session));
        }
    }

    /// The member has received the rest of its epoch: it receives a gap at which the present epoch
    /// begins. If its join still waits, that is answered first.
    fn pass_end(&mut self, turn: &mut Turn, session: SessionId, top: Position, end: u64) {
        let Some(cursor) = self.state.cursors.get_mut(&session) else {
            return;
        };
        let Want::After(at) = cursor.want else { return };
        let next = Position {
            epoch: top.epoch,
            offset: end,
        };
        cursor.want = Want::After(next);
        let member = cursor.member.clone();
        self.answer_waiting_join(turn, session, at, top);
        self.send_gap(turn, session, &member, next);
        self.settle(turn, session, LogCheck::Pending);
    }

    /// Answers the join that waits, if one does: the client's position, and that the rest follows.
    fn answer_waiting_join(
        &mut self,
        turn: &mut Turn,
        session: SessionId,
        at: Position,
        top: Position,
    ) {
        let Some(cursor) = self.state.cursors.get_mut(&session) else {
            return;
        };
        if let Some(join) = cursor.join.take() {
            turn.joined.push((self.key, session));
            let joined = Joined {
                room: &self.name,
                position: at,
                top: top.offset,
                recovered: Some(cursor.recovered),
            };
            cursor.answer_join(turn, session, &join, joined);
        }
    }

    /// Sends a member a gap: messages may be missing, and it has this position now.
    pub(crate) fn send_gap(
        &self,
        turn: &mut Turn,
        session: SessionId,
        member: &Membership,
        position: Position,
    ) {
        let gap = member.protocol.encoder().push(&Push::Gap {
            room: &self.name,
            position,
        });
        turn.send(session, &member.outbox, gap);
    }

    /// Sends a member its next page from the recent messages: at most a quarter of an outbox, the
    /// rest when that has drained. If its join still waits, it is answered first.
    fn send_page(&mut self, turn: &mut Turn, session: SessionId, top: Position) {
        let want = self.state.cursors.get(&session).map(|cursor| cursor.want);
        let Some(Want::After(at)) = want else { return };
        if self.state.recent.run_at(at.offset + 1).is_none() {
            return;
        }
        self.answer_waiting_join(turn, session, at, top);
        let RoomState {
            cursors,
            recent,
            follower,
            ..
        } = &mut self.state;
        let Some(cursor) = cursors.get_mut(&session) else {
            return;
        };
        // A page does not cross the end of an epoch: a gap comes there.
        let end = follower
            .sequencer
            .end_of(at.epoch)
            .filter(|_| at.epoch != top.epoch);
        let Some(run) = recent.run_at(at.offset + 1) else {
            return;
        };
        let own = Sender {
            incarnation: turn.settings.incarnation,
            session,
        };
        let Membership {
            outbox, protocol, ..
        } = &cursor.member;
        let encoder = protocol.encoder();
        let mut frames = BytesMut::new();
        let mut last = at;
        for (offset, publication) in run.after(at.offset, usize::MAX) {
            if frames.len() >= turn.quarter() || end.is_some_and(|end| offset > end) {
                break;
            }
            let message = Message {
                room: &self.name,
                offset: Some(offset),
                publication,
            };
            match publication.except {
                Some(sender) if sender == own => {
                    frames.extend_from_slice(&own_message(&message, encoder));
                }
                _ => encoder.message(&message, &mut frames),
            }
            last.offset = offset;
        }
        cursor.want = Want::After(last);
        let entries = last.offset - at.offset;
        turn.metrics.delivered_total.add(entries);
        outbox.charge(cost_of_entries(entries as usize));
        // Asked for before the offer: the writer may finish at any moment.
        outbox.want_drained();
        turn.send(session, outbox, frames.freeze());
        if last == top {
            self.become_live(turn, session, top, None);
        } else if let Some(end) = end.filter(|end| last.offset >= *end) {
            self.pass_end(turn, session, top, end);
        }
    }

    /// Starts one read for all cursors of the room: from the lowest missing offset up to what is in
    /// memory again. The result stays in memory while it fits, so each part of the log is read
    /// once, however many members are behind.
    pub(crate) fn start_seek(&mut self, turn: &mut Turn, source: Source) {
        if self.state.seek_ticket.is_some() || !std::mem::take(&mut self.state.seek) {
            return;
        }
        let recent = &self.state.recent;
        let quarter = turn.quarter() as u64;
        let needed = self
            .state
            .cursors
            .values()
            .filter_map(|cursor| match cursor.want {
                // A member whose outbox is full is settled when it has drained: one slow reader
                // must not decide what all others wait for.
                Want::After(at)
                    if cursor.member.outbox.waiting() <= quarter
                        && recent.run_at(at.offset + 1).is_none() =>
                {
                    Some(at)
                }
                _ => None,
            });
        let Some(lowest) = needed.min_by_key(|at| at.offset) else {
            return;
        };
        let next = lowest.offset + 1;
        let hole = recent.hole_at(next);
        // If only a small hole lies between the recent messages and the needed ones, it is read
        // too: members take pages at different paces, and each small hole that is left would be a
        // read of its own.
        let near = next - hole.start <= PAGE as u64 && !self.state.seek_exactly;
        let start = if near { hole.start } else { next };
        // A whole log in one read, so that many rejoining members cost few reads.
        let most = turn.settings.retention.of(&self.name).size.max(PAGE);
        let limit = (hole.end - start).min(most as u64) as usize;
        let from = Position {
            offset: start - 1,
            ..lowest
        };
        let range = Range::After(from);
        let pending = PendingRead::Seek(self.key, source);
        let ticket = turn.read_log(pending, source, &self.name, range, limit);
        self.state.seek_ticket = Some(ticket);
    }

    /// Handles the reply to the read for the cursors.
    pub(crate) fn on_seek_page(
        &mut self,
        turn: &mut Turn,
        ticket: Ticket,
        source: Source,
        result: Result<Page, Refused>,
    ) {
        if self
            .state
            .seek_ticket
            .take_if(|expected| *expected == ticket)
            .is_none()
        {
            return;
        }
        let page = match result {
            Ok(page) => page,
            Err(why) => {
                self.state.seek = true;
                if why == Refused::Newer && !std::mem::replace(&mut self.state.seek_exactly, true) {
                    self.queue_read(turn, source);
                    return;
                }
                self.retry_read(turn, source, why);
                if why == Refused::Newer {
                    let behind = self.state.cursors.iter();
                    let answered = behind.filter(|(_, cursor)| cursor.is_answered());
                    turn.unreadable
                        .extend(answered.map(|(session, _)| *session));
                }
                return;
            }
        };
        self.state.seek_exactly = false;
        let Some(position) = self.state.follower.sequencer.position() else {
            return;
        };
        if page.top.epoch != position.epoch || page.top.offset < position.offset {
            // The epoch is over, or the log has lost its tail, or the page is merely old: the
            // node's own read decides.
            self.make_due(turn, source);
        }
        if page.top.epoch != position.epoch {
            return;
        }
        self.note_expiry(turn, page.top, page.expires_in);
        // If it does not fit into memory it is dropped at the end of the turn; until then every
        // member receives its part.
        self.change_recent(turn, |recent| {
            recent.insert(&page.messages, position.offset)
        });
        for session in self.behind() {
            if self.is_unreached(session, &page) {
                self.lose_position(turn, session, position);
            } else {
                self.settle(turn, session, LogCheck::Pending);
            }
        }
    }

    /// Whether neither the log nor the node has the next message of a member that is behind.
    fn is_unreached(&self, session: SessionId, page: &Page) -> bool {
        let want = self.state.cursors.get(&session).map(|cursor| cursor.want);
        matches!(want, Some(Want::After(at)) if at.offset + 1 < page.first
            && self.state.recent.run_at(at.offset + 1).is_none())
    }

    /// Makes a member that is behind live at the room's position, with a loss: its join is answered
    /// with `recovered: false`, an answered member receives a gap.
    fn lose_position(&mut self, turn: &mut Turn, session: SessionId, top: Position) {
        let Some(cursor) = self.state.cursors.get(&session) else {
            return;
        };
        if cursor.join.is_none() {
            self.send_gap(turn, session, &cursor.member, top);
        }
        self.become_live(turn, session, top, Some(false));
    }
}
