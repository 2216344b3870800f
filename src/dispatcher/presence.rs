//! Presence: which sessions count as present in which rooms, what is announced to the other nodes,
//! and queries of clients for the members of a room.

mod member_lists;

use super::pending::PendingMembers;
use super::{Dispatcher, Now, ReplyTo};
use crate::broker::{
    Connected, MemberPage, MembersQuery, MembersRequest, PresenceRequest, Refused, Request,
};
use crate::dispatcher::delivery::room::RoomPresence;
use crate::dispatcher::membership::cursor::Present;
use crate::dispatcher::rooms::RoomKey;
use crate::model::cluster_query::Connection;
use crate::model::id::{RoomName, SessionId};
use crate::model::identity::{Action, Identity};
use crate::model::member::MemberIdentity;
use crate::presence::fit;
use crate::protocol::{CommandError, Reply};

impl Dispatcher {
    /// A session has authenticated, again or for the first time: in its rooms it now counts as that
    /// user.
    pub(super) fn update_presence(&mut self, session: SessionId, identity: &Identity) {
        let (user, info) = (&identity.user, identity.info.as_ref());
        let mut updated_room = None;
        for key in self.rooms.rooms_of(session) {
            let Some(name) = self.rooms.get(key).map(|room| room.name.clone()) else {
                continue;
            };
            let Some(member) = self.rooms.member_mut(key, session) else {
                continue;
            };
            let Present::As(former) = &mut member.present else {
                continue;
            };
            if former.as_ref() == Some(user) {
                self.local_presence.update_info(&name, user, info);
                updated_room = name.is_personal().then_some(name).or(updated_room);
            } else {
                self.local_presence
                    .leave_without_grace(&name, former.as_ref());
                self.local_presence.join(&name, Some(user), info);
                *former = Some(user.clone());
            }
        }
        if let Some(room) = updated_room {
            self.publish_connection(session, &room, true);
        }
    }

    /// A join has given the membership an identity of its own. A member that is present counts as
    /// the new one from now on.
    pub(super) fn set_member_identity(
        &mut self,
        key: RoomKey,
        session: SessionId,
        identity: Box<MemberIdentity>,
    ) {
        let Some(name) = self.rooms.get(key).map(|room| room.name.clone()) else {
            return;
        };
        let Some(member) = self.rooms.member_mut(key, session) else {
            return;
        };
        let former = match &member.present {
            Present::NotYet(_) => {
                member.present = Present::NotYet(Some(identity));
                return;
            }
            Present::As(user) => user.clone(),
            Present::AsOwn(user) => Some(user.clone()),
        };
        let MemberIdentity { user, info } = *identity;
        let presence = &mut self.local_presence;
        if former.as_ref() == Some(&user) {
            presence.update_info(&name, &user, info.as_ref());
        } else {
            presence.leave_without_grace(&name, former.as_ref());
            presence.join(&name, Some(&user), info.as_ref());
        }
        member.present = Present::AsOwn(user);
    }

    /// Completes the effects of an event: marks members as present whose joins were answered, and
    /// answers queries that can be.
    pub(super) fn finish_event(&mut self) {
        while let Some((key, session)) = self.turn.joined.pop() {
            let (Some(client), Some(room)) = (self.sessions.get(&session), self.rooms.get(key))
            else {
                continue;
            };
            let name = room.name.clone();
            if !client.embedded
                && let Some(member) = self.rooms.member_mut(key, session)
                && let Present::NotYet(own) = &mut member.present
            {
                let (identity, own) = (client.identity.as_deref(), own.take());
                let user = identity.map(|identity| &identity.user);
                let info = identity.and_then(|identity| identity.info.as_ref());
                member.present = match own {
                    Some(own) => {
                        (self.local_presence).join(&name, Some(&own.user), own.info.as_ref());
                        Present::AsOwn(own.user)
                    }
                    None => {
                        self.local_presence.join(&name, user, info);
                        Present::As(user.cloned())
                    }
                };
                self.publish_connection(session, &name, true);
            }
        }
        while let Some(key) = self.turn.member_lists.ready.pop() {
            self.answer_waiting(key);
        }
    }

    /// A member has left a room, or its session has ended.
    pub(super) fn end_presence(&mut self, session: SessionId, room: &RoomName, present: &Present) {
        let user = match present {
            Present::NotYet(_) => return,
            Present::As(user) => user.as_ref(),
            Present::AsOwn(user) => Some(user),
        };
        self.publish_connection(session, room, false);
        self.local_presence.leave(self.turn.now, room, user);
    }

    /// Publishes a connection when its session has joined its user's personal room, shows another
    /// `info` there, or has left it. In other rooms it does nothing.
    pub(super) fn publish_connection(&mut self, session: SessionId, room: &RoomName, live: bool) {
        let Some(user) = room.owner() else {
            return;
        };
        let client = self.sessions.get(&session);
        let identity = client.and_then(|client| client.identity.as_ref());
        let connection = Connection {
            session: self.sender(session),
            node: self.turn.settings.node.clone(),
            info: identity.and_then(|identity| identity.info.clone()),
        };
        let connected = Connected {
            user,
            connection,
            live,
        };
        self.turn
            .requests
            .push(Request::Presence(PresenceRequest::Connected(connected)));
    }

    /// Sends the broker the presence changes for the other nodes.
    pub(super) fn announce(&mut self) {
        let requests = &mut self.turn.requests;
        self.local_presence.announce(|change| {
            requests.push(Request::Presence(PresenceRequest::SetPresence(change)))
        });
    }

    /// A query for the members of a room. A backend's query goes to the broker also where this node
    /// has the list: every node returns the same.
    pub(super) fn members(
        &mut self,
        now: Now,
        reply_to: &ReplyTo,
        query: MembersQuery,
    ) -> Result<(), CommandError> {
        self.authorize_request(reply_to, Action::Members, &query.room)?;
        let Some(key) = self.kept_list(reply_to, &query.room) else {
            return self.read_members(reply_to, query);
        };
        self.admit(reply_to)?;
        let is_later_page = query.after.is_some();
        let (source, reply_to) = (reply_to.source(), reply_to.clone());
        let ticket = (self.turn.pending).read_members(PendingMembers::Query { reply_to, query });
        let deadline = now.instant + self.turn.settings.join_timeout;
        let Some((room, turn)) = self.room(key) else {
            return Ok(());
        };
        let presence = &mut room.state.presence;
        presence.waiting.push((deadline, ticket));
        if is_later_page && presence.list.has_list() {
            turn.member_lists.ready.push(key);
            return Ok(());
        }
        // The list is here or being read, but only a read returns the number of anonymous sessions.
        if presence.list.is_known() {
            presence.list.want_counts();
        }
        turn.member_lists.waiting.insert(key);
        room.queue_list_read(turn, source);
        Ok(())
    }

    /// The room of a query, if it can be answered from the list that this node keeps, now or after
    /// the read in flight. Non-members receive no presence events, so only a member's query can.
    fn kept_list(&mut self, reply_to: &ReplyTo, room: &RoomName) -> Option<RoomKey> {
        let (session, key) = (reply_to.session()?, self.rooms.find(room)?);
        let is_member = self.rooms.has(key, session);
        let (room, turn) = self.room(key).filter(|_| is_member)?;
        room.keeps_list(turn).then_some(key)
    }

    /// Answers the waiting queries of a room: from its list, or by the broker if the list is not
    /// kept.
    pub(super) fn answer_waiting(&mut self, key: RoomKey) {
        let Some((room, _)) = self.room(key) else {
            return;
        };
        for (_, ticket) in std::mem::take(&mut room.state.presence.waiting) {
            let pending = self.turn.pending.member_reads.get(&ticket);
            let Some(PendingMembers::Query { reply_to, query }) = pending else {
                continue;
            };
            let Some(room) = self.rooms.get(key) else {
                return;
            };
            let list = &room.state.presence.list;
            let page = list.page(query.after.as_ref(), query.limit, self.turn.quarter());
            if page.is_none() && list.is_known() {
                let (source, query) = (reply_to.source(), query.clone());
                self.turn
                    .requests
                    .push(Request::Presence(PresenceRequest::Members(
                        MembersRequest {
                            ticket,
                            source,
                            query,
                        },
                    )));
                continue;
            }
            self.on_member_page(ticket, page.ok_or(Refused::Unavailable));
        }
    }

    /// A room was removed with its list. The waiting queries are those of former members; they
    /// fail.
    pub(super) fn forget_list(&mut self, presence: RoomPresence) {
        self.turn.member_lists.forget(&presence.list);
        for (_, ticket) in presence.waiting {
            self.on_member_page(ticket, Err(Refused::Unavailable));
        }
    }

    pub(super) fn reply_members(
        &mut self,
        reply_to: &ReplyTo,
        room: &RoomName,
        result: Result<MemberPage, Refused>,
    ) {
        self.release(reply_to);
        let mut page = match result {
            Ok(page) => page,
            Err(refused) => {
                return self.reply(reply_to, &Reply::Error(&refused.into()));
            }
        };
        fit(&mut page, self.turn.quarter());
        // Changes that were encoded before must reach the client before the reply.
        if let Some((room, turn)) = self.room_named(room) {
            room.flush(turn);
        }
        self.reply(reply_to, &Reply::Members { room, page: &page });
    }
}
