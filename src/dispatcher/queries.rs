//! Queries: the history of a room, from the recent messages or from its log, its members, and
//! queries of backends about the whole cluster. The broker answers those from what all nodes
//! publish, so no node is queried, and no reply waits for a node that has just died.

use std::sync::Arc;
use std::time::Duration;

use super::pending::{PendingMembers, PendingRead};
use super::{Dispatcher, ReplyTo};
use crate::broker::{
    ClusterRequest, LogRequest, MembersQuery, MembersRequest, Page, PresenceRequest, Publication,
    Range, Read, Refused, Request,
};
use crate::model::cluster_query::{ClusterQuery, QueryResult};
use crate::model::epochs::Ends;
use crate::model::id::{RoomName, Ticket};
use crate::model::identity::Action;
use crate::model::publication::HistoryQuery;
use crate::protocol::{CommandError, Reply};

impl Dispatcher {
    pub(super) fn history(
        &mut self,
        reply_to: &ReplyTo,
        query: HistoryQuery,
    ) -> Result<(), CommandError> {
        self.authorize_request(reply_to, Action::History, &query.room)?;
        let HistoryQuery {
            room,
            before,
            limit,
        } = query;
        if let Some(page) = self.recent_page(&room, before, limit) {
            self.reply_history(reply_to, &room, Ok(page));
            return Ok(());
        }
        self.admit(reply_to)?;
        let ticket = self.turn.pending.read(PendingRead::History {
            reply_to: reply_to.clone(),
            room: room.clone(),
        });
        self.turn.requests.push(Request::Log(LogRequest::Read(Read {
            ticket,
            source: reply_to.source(),
            room,
            range: Range::Before(before),
            limit,
        })));
        Ok(())
    }

    pub(super) fn reply_history(
        &mut self,
        reply_to: &ReplyTo,
        room: &RoomName,
        result: Result<Page, Refused>,
    ) {
        let mut page = match result {
            Ok(page) => page,
            Err(refused) => return self.reply(reply_to, &Reply::Error(&refused.into())),
        };
        // Messages that do not fit into one reply are left out at the older end: the client pages
        // backwards.
        let mut bytes = 0;
        let fits = |(_, publication): &&(u64, Arc<Publication>)| {
            bytes += publication.weight();
            bytes <= self.turn.settings.outbox_bytes / 4
        };
        let kept = page.messages.iter().rev().take_while(fits).count().max(1);
        self.turn.encoded_bytes += bytes;
        page.messages
            .drain(..page.messages.len().saturating_sub(kept));
        let oldest = page
            .messages
            .first()
            .map_or(page.first, |(offset, _)| *offset);
        let (position, more) = (page.top, oldest > page.first);
        let history = Reply::History {
            room,
            position,
            messages: &page.messages,
            more,
        };
        self.reply(reply_to, &history);
    }

    /// The messages below `before`, if all requested ones are among the recent messages.
    fn recent_page(&mut self, name: &RoomName, before: Option<u64>, limit: usize) -> Option<Page> {
        let (room, turn) = self.room_named(name)?;
        room.expire_recent(turn);
        let (sequencer, recent) = (&room.state.follower.sequencer, &room.state.recent);
        let top = sequencer.position().filter(|_| sequencer.is_settled())?;
        let end = before.unwrap_or(u64::MAX).min(top.offset + 1);
        let start = end.checked_sub(limit as u64).filter(|start| *start > 1)?;
        // The message before the page is here too, so there certainly is more.
        let first = start - 1;
        let run = recent.run_at(first).filter(|run| run.covers(end - 1))?;
        let messages = run
            .before(end, limit)
            .map(|(offset, publication)| (offset, publication.clone()));
        Some(Page {
            top,
            first,
            ends: Ends::default(),
            expires_in: Duration::ZERO,
            messages: messages.collect(),
        })
    }

    /// Reads members from the broker.
    pub(super) fn read_members(
        &mut self,
        reply_to: &ReplyTo,
        query: MembersQuery,
    ) -> Result<(), CommandError> {
        self.admit(reply_to)?;
        let source = reply_to.source();
        let reply_to = reply_to.clone();
        let pending = PendingMembers::Query {
            reply_to,
            query: query.clone(),
        };
        let ticket = self.turn.pending.read_members(pending);
        self.turn
            .requests
            .push(Request::Presence(PresenceRequest::Members(
                MembersRequest {
                    ticket,
                    source,
                    query,
                },
            )));
        Ok(())
    }

    pub(super) fn cluster_query(
        &mut self,
        reply_to: &ReplyTo,
        query: ClusterQuery,
    ) -> Result<(), CommandError> {
        Self::refuse_session(reply_to)?;
        self.admit(reply_to)?;
        let ticket = self.turn.pending.cluster_query(reply_to.clone());
        self.turn
            .requests
            .push(Request::Presence(PresenceRequest::ClusterQuery(
                ClusterRequest {
                    ticket,
                    source: reply_to.source(),
                    query,
                },
            )));
        Ok(())
    }

    pub(super) fn on_query_result(&mut self, ticket: Ticket, result: Result<QueryResult, Refused>) {
        let Some(reply_to) = self.turn.pending.cluster_queries.remove(&ticket) else {
            return;
        };
        self.release(&reply_to);
        match result {
            Ok(result) => self.reply(&reply_to, &Reply::QueryResult(&result)),
            Err(refused) => self.reply(&reply_to, &Reply::Error(&refused.into())),
        }
    }
}
