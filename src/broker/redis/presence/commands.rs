//! Turns the requests of presence into Redis commands.

use std::borrow::Cow;
use std::time::Duration;

use redis::Cmd;

use super::agent::PresenceCommand;
use super::lease::{LONGEST, Renewal};
use super::reaper::{FIELDS, ROOMS, ReapStep};
use super::reconciler::{MemberKey, MemberState, PresenceUpdate};
use crate::broker::MembersQuery;
use crate::broker::redis::names::Names;
use crate::broker::redis::scripts::{Script, ScriptCaller, millis};
use crate::broker::redis::wire::{self, Format};
use crate::model::cluster_query::{ClusterQuery, RoomKind};
use crate::model::id::{RoomName, RoomPrefix, UserName};
use crate::model::webhook_event::{LENGTH, WebhookSubscription};

/// The most members, rooms or connections in a page, so that none blocks Redis for long.
const PAGE_MEMBERS: usize = 1000;

/// How long the version of an empty room's list of members is kept. A node that follows the room
/// uses it to detect that it missed no change. A guess; after it a follower reads once for nothing.
const VERSION_TTL: Duration = Duration::from_secs(3600);

/// How long after its end a lease counts as over for other nodes: more than the difference of the
/// servers' clocks.
const MARGIN: Duration = Duration::from_secs(1);

/// The most ended leases in one answer.
const OVER: usize = 16;

/// What a page of a room's list has; the number is that of its key in `members.lua`.
#[derive(Clone, Copy, Debug)]
enum Listed {
    Users = 2,
    Connections = 3,
}

/// Builds the commands.
#[derive(Debug)]
pub(crate) struct PresenceCommands {
    pub names: Names,
    /// The rooms whose changes between occupied and vacated are webhook events.
    pub webhooks: Option<WebhookSubscription>,
}

impl PresenceCommands {
    pub(crate) fn members(&self, members: &MembersQuery, caller: &mut ScriptCaller) -> Cmd {
        let after = members.after.as_ref().map(UserName::encoded);
        let after = after.unwrap_or_default();
        self.member_page(&members.room, Listed::Users, &after, members.limit, caller)
    }

    fn member_page(
        &self,
        room: &RoomName,
        listed: Listed,
        after: &str,
        limit: usize,
        caller: &mut ScriptCaller,
    ) -> Cmd {
        let mut command = caller.call(Script::Members);
        command.arg(3).arg(&self.names.here(room)[..]);
        command.arg(self.names.live(room));
        command.arg(self.names.topic(room)).arg(listed as u8);
        command.arg(after).arg(limit.min(PAGE_MEMBERS));
        command
    }

    pub(crate) fn cluster_query(&self, query: &ClusterQuery, caller: &mut ScriptCaller) -> Cmd {
        match query {
            ClusterQuery::Room(room) => {
                let mut command = caller.call(Script::Count);
                command.arg(3).arg(&self.names.here(room)[..]);
                command.arg(self.names.meta(room));
                command
            }
            ClusterQuery::Rooms {
                kind,
                prefix,
                after,
                limit,
            } => {
                let prefix = prefix.as_ref().map(RoomPrefix::as_str);
                let from = match (prefix, after) {
                    (Some(prefix), after)
                        if after.as_ref().is_none_or(|name| name.as_str() < prefix) =>
                    {
                        format!("[{prefix}")
                    }
                    (_, Some(after)) => format!("({after}"),
                    (_, None) => "-".to_owned(),
                };
                // No character of a name is greater than 7e.
                let to = prefix.map_or("+".to_owned(), |prefix| format!("({prefix}\x7f"));
                let mut command = caller.call(Script::Rooms);
                command.arg(1).arg(self.names.occupied(*kind));
                command.arg(from).arg(to).arg((*limit).min(PAGE_MEMBERS));
                command.arg(&self.names.around()[..]);
                command
            }
            ClusterQuery::Connections { user, after, limit } => {
                let after = after.map_or(String::new(), wire::connection::field);
                self.member_page(&user.room(), Listed::Connections, &after, *limit, caller)
            }
        }
    }

    /// The Redis command of a command of the presence agent.
    pub(crate) fn command(&self, command: &PresenceCommand, caller: &mut ScriptCaller) -> Cmd {
        let names = &self.names;
        match command {
            PresenceCommand::Lease(renewal, newest) => self.renewal(renewal, *newest, caller),
            PresenceCommand::Update {
                lease,
                ends,
                update,
            } => {
                let lease = lease.to_string();
                match update {
                    PresenceUpdate::AddRoom { number, room } => {
                        let mut command = self.lease_rooms("ZADD", &lease, caller);
                        command.arg("GT").arg(*number).arg(room.as_str());
                        command
                    }
                    PresenceUpdate::RemoveRoom { number } => {
                        let mut command = self.lease_rooms("ZREMRANGEBYSCORE", &lease, caller);
                        command.arg(*number).arg(*number);
                        command
                    }
                    PresenceUpdate::SetMembers { room, members } => {
                        self.set_members(&lease, *ends, room, members, caller)
                    }
                }
            }
            PresenceCommand::Reap(ReapStep::Rooms { lease }) => {
                let mut command = self.lease_rooms("ZRANDMEMBER", lease, caller);
                command.arg(ROOMS);
                command
            }
            PresenceCommand::Reap(ReapStep::Reap {
                lease,
                room,
                cursor,
            }) => {
                let mut command = caller.call(Script::Reap);
                self.room_keys(room, &mut command);
                command.arg(names.topic(room)).arg(lease).arg(cursor);
                command.arg(FIELDS).arg(millis(VERSION_TTL)).arg(LENGTH);
                command
            }
            PresenceCommand::Reap(ReapStep::RemoveRoom { lease, room }) => {
                let mut command = self.lease_rooms("ZREM", lease, caller);
                command.arg(room);
                command
            }
            PresenceCommand::Reap(ReapStep::RemoveLease { lease }) => {
                let mut command = Cmd::new();
                command.arg("ZREM").arg(names.nodes()).arg(lease);
                command
            }
        }
    }

    /// A command on the set of the rooms of a lease.
    fn lease_rooms(&self, name: &str, lease: &str, caller: &mut ScriptCaller) -> Cmd {
        let mut command = caller.call(Script::LeaseRooms);
        command.arg(4).arg(self.names.rooms(lease));
        for kind in [RoomKind::Chosen, RoomKind::Personal, RoomKind::Server] {
            command.arg(self.names.occupied(kind));
        }
        command.arg(name);
        command
    }

    fn renewal(&self, renewal: &Renewal, newest: Format, caller: &mut ScriptCaller) -> Cmd {
        let mut command = caller.call(Script::Lease);
        command
            .arg(2)
            .arg(self.names.nodes())
            .arg(self.names.formats())
            .arg(renewal.lease.to_string())
            .arg(u8::from(renewal.take))
            .arg(millis(renewal.span))
            .arg(renewal.earliest)
            .arg(millis(renewal.usual))
            .arg(millis(LONGEST))
            .arg(millis(MARGIN))
            .arg(OVER)
            .arg(newest.number());
        command
    }

    fn set_members(
        &self,
        lease: &str,
        ends: u64,
        room: &RoomName,
        members: &[MemberState],
        caller: &mut ScriptCaller,
    ) -> Cmd {
        let mut command = caller.call(Script::SetPresence);
        self.room_keys(room, &mut command);
        command.arg(self.names.topic(room)).arg(lease).arg(ends);
        command
            .arg(millis(LONGEST))
            .arg(millis(VERSION_TTL))
            .arg(LENGTH);
        for MemberState {
            key,
            connections,
            info,
        } in members
        {
            let name = match key {
                MemberKey::Anonymous => Cow::Borrowed(""),
                MemberKey::User(user) => user.encoded(),
                MemberKey::Connection(session) => Cow::Owned(wire::connection::field(*session)),
            };
            let info = info.as_ref().map_or("", |info| info.get());
            command.arg(&*name).arg(*connections).arg(info);
        }
        command
    }

    /// The keys of a script that changes the members of a room.
    fn room_keys(&self, room: &RoomName, command: &mut Cmd) {
        let wanted = self.webhooks.as_ref();
        let is_wanted = wanted.is_some_and(|wanted| wanted.watches(room));
        command.arg(if is_wanted { 6 } else { 4 });
        command.arg(&self.names.here(room)[..]);
        command.arg(self.names.live(room));
        command.arg(self.names.occupied(RoomKind::of(room)));
        if is_wanted {
            command.arg(&self.names.hooks()[..]);
        }
    }
}
