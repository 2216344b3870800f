//! Turns each [`RedisRequest`] into a Redis command.

use std::borrow::Cow;
use std::time::Duration;

use redis::Cmd;

use super::lease::{LONGEST, Renewal};
use super::names::Names;
use super::presence_agent::PresenceCommand;
use super::reaper::{FIELDS, ROOMS, ReapStep};
use super::request::RedisRequest;
use super::scripts::{Script, ScriptCaller, millis};
use super::{revoked, webhook_calls};
use crate::broker::redis::reconciler::{MemberKey, MemberState, PresenceUpdate};
use crate::broker::redis::wire::{self, Format};
use crate::broker::{
    KEY_TTL, META_TTL, MembersQuery, Publish, PublishRequest, Range, Read, Settings,
};
use crate::model::cluster_query::{ClusterQuery, RoomKind};
use crate::model::id::{Epoch, Incarnation, Position, RoomName};
use crate::model::retention::Retention;
use crate::model::webhook_event::{LENGTH, WebhookSubscription};

/// How long the position of a room without publications is kept. Shorter than others, because any
/// client can join rooms by the thousand.
const IDLE_META_TTL: Duration = Duration::from_secs(24 * 3600);

/// The most bytes of bodies in a page, so that one read neither blocks Redis nor fills memory.
const PAGE_BYTES: usize = 512 << 10;

/// The most members, rooms or connections in a page, for the same reason.
const PAGE_MEMBERS: usize = 1000;

/// How long the version of an empty room's list of members is kept. A node that follows the room
/// uses it to detect that it missed no change. A guess; after it a follower reads once for nothing.
const VERSION_TTL: Duration = Duration::from_secs(3600);

/// How long after its end a lease counts as over for other nodes: more than the difference of the
/// servers' clocks.
const MARGIN: Duration = Duration::from_secs(1);

/// The most ended leases in one answer.
const OVER: usize = 16;

/// Builds the commands.
#[derive(Debug)]
pub struct Commands {
    pub names: Names,
    run: Incarnation,
    node_topic: String,
    retention: Retention,
    /// The rooms whose changes between occupied and vacated are webhook events.
    webhooks: Option<WebhookSubscription>,
    /// The format in which publications are written.
    format: Format,
    /// Candidates for epochs; seeded by the operating system.
    random: fastrand::Rng,
}

impl Commands {
    pub fn new(names: Names, settings: &Settings, seed: u64) -> Self {
        Self {
            run: settings.incarnation,
            node_topic: names.node_topic(settings.incarnation),
            names,
            retention: settings.retention.clone(),
            webhooks: settings.webhooks.clone(),
            format: Format::FIRST,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Sets the format in which publications are written; it begins as the first.
    pub fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// The command of a request.
    pub fn command(&mut self, request: &RedisRequest, caller: &mut ScriptCaller) -> Cmd {
        match request {
            RedisRequest::Publish(PublishRequest { publish, .. }) if publish.ephemeral => {
                let message = wire::encode_ephemeral(&publish.publication, self.format);
                plain_publish(&self.names.topic(&publish.room), &message)
            }
            RedisRequest::Publish(request) => self.publish(&request.publish, caller),
            RedisRequest::Read(read) => self.read(read, caller),
            RedisRequest::Members(request) => self.members(&request.query, caller),
            RedisRequest::ClusterQuery(request) => self.cluster_query(&request.query, caller),
            RedisRequest::Revoke(asked) => revoked::write(asked, self.run, &self.names, caller),
            RedisRequest::ReadRevocations(asked) => {
                revoked::read(asked, self.run, &self.names, caller)
            }
            RedisRequest::Probe => plain_publish(&self.node_topic, "1"),
            RedisRequest::Presence(command) => self.presence(command, caller),
            RedisRequest::Webhooks(call) => {
                webhook_calls::command(call, self.run, &self.names, caller)
            }
        }
    }

    fn publish(&mut self, publish: &Publish, caller: &mut ScriptCaller) -> Cmd {
        let mut command = caller.call(Script::Publish);
        let keys = 2 + usize::from(publish.key.is_some());
        command.arg(keys).arg(self.names.log(&publish.room));
        command.arg(self.names.meta(&publish.room));
        if let Some(key) = &publish.key {
            command.arg(self.names.key(&publish.room, key));
        }
        let kept = self.retention.of(&publish.room);
        command
            .arg(self.names.topic(&publish.room))
            .arg(wire::encode_body(&publish.publication, self.format))
            .arg(self.candidate())
            .arg(kept.size)
            .arg(millis(kept.age))
            .arg(millis(META_TTL))
            .arg(millis(KEY_TTL));
        command
    }

    fn read(&mut self, read: &Read, caller: &mut ScriptCaller) -> Cmd {
        let mut command = caller.call(Script::Read);
        command.arg(2).arg(self.names.log(&read.room));
        command.arg(self.names.meta(&read.room));
        match read.range {
            Range::Top => command.arg("top").arg("").arg(""),
            Range::After(Position { epoch, offset }) => command
                .arg("after")
                .arg(epoch.to_string())
                .arg(offset.min(wire::MAX_OFFSET)),
            Range::Before(None) => command.arg("before").arg("").arg(""),
            Range::Before(Some(offset)) => command
                .arg("before")
                .arg("")
                .arg(offset.min(wire::MAX_OFFSET)),
        };
        command
            .arg(match read.range {
                Range::Top => 0,
                _ => read.limit,
            })
            .arg(PAGE_BYTES)
            .arg(self.candidate())
            .arg(millis(META_TTL))
            .arg(millis(IDLE_META_TTL));
        command
    }

    fn members(&self, members: &MembersQuery, caller: &mut ScriptCaller) -> Cmd {
        let mut command = caller.call(Script::Members);
        let after = members.after.as_ref().map_or("", |name| name.as_str());
        command.arg(2).arg(&self.names.here(&members.room)[..]);
        command.arg(after).arg(members.limit.min(PAGE_MEMBERS));
        command
    }

    fn cluster_query(&self, query: &ClusterQuery, caller: &mut ScriptCaller) -> Cmd {
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
                let from = match (prefix, after) {
                    (Some(prefix), after) if after.as_ref().is_none_or(|name| name < prefix) => {
                        format!("[{prefix}")
                    }
                    (_, Some(after)) => format!("({after}"),
                    (_, None) => "-".to_owned(),
                };
                // No character of a name is greater than 7f.
                let to = prefix
                    .as_ref()
                    .map_or("+".to_owned(), |prefix| format!("({prefix}\x7f"));
                let mut command = caller.call(Script::Rooms);
                command.arg(1).arg(self.names.occupied(*kind));
                command.arg(from).arg(to).arg((*limit).min(PAGE_MEMBERS));
                command.arg(&self.names.around()[..]);
                command
            }
            ClusterQuery::Connections { user, after, limit } => {
                let room = user.room();
                let [here, _] = self.names.here(&room);
                let after = after.map_or(String::new(), wire::connection::field);
                let mut command = caller.call(Script::Members);
                command.arg(2).arg(here).arg(self.names.live(&room));
                command.arg(after).arg((*limit).min(PAGE_MEMBERS));
                command
            }
        }
    }

    fn presence(&self, command: &PresenceCommand, caller: &mut ScriptCaller) -> Cmd {
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
                        let mut command = plain("ZADD", &names.rooms(&lease));
                        command.arg("GT").arg(*number).arg(room.as_str());
                        command
                    }
                    PresenceUpdate::RemoveRoom { number } => {
                        let mut command = plain("ZREMRANGEBYSCORE", &names.rooms(&lease));
                        command.arg(*number).arg(*number);
                        command
                    }
                    PresenceUpdate::SetMembers { room, members } => {
                        self.set_members(&lease, *ends, room, members, caller)
                    }
                }
            }
            PresenceCommand::Reap(ReapStep::Rooms { lease }) => {
                let mut command = plain("ZRANDMEMBER", &names.rooms(lease));
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
                let mut command = plain("ZREM", &names.rooms(lease));
                command.arg(room);
                command
            }
            PresenceCommand::Reap(ReapStep::RemoveLease { lease }) => {
                let mut command = plain("ZREM", &names.nodes());
                command.arg(lease);
                command
            }
        }
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
                MemberKey::User(user) => Cow::Borrowed(user.as_str()),
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

    fn candidate(&mut self) -> String {
        Epoch::new(self.random.u64(..)).to_string()
    }
}

fn plain(name: &str, key: &str) -> Cmd {
    let mut command = Cmd::new();
    command.arg(name).arg(key);
    command
}

fn plain_publish(topic: &str, message: &str) -> Cmd {
    let mut command = Cmd::new();
    command.arg("PUBLISH").arg(topic).arg(message);
    command
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::id::Ticket;

    #[test]
    fn ephemeral_publications_and_probes_need_no_script() {
        let mut commands = Commands::new(
            Names::new("sb", 0),
            &Settings {
                incarnation: Incarnation(1),
                retention: Retention::uniform(1, Duration::ZERO),
                publish_timeout: Duration::ZERO,
                topic_linger: Duration::ZERO,
                newest_format: Format::NEWEST,
                history_memory: 0,
                max_rooms: 0,
                webhooks: None,
            },
            1,
        );
        let packed = |command: Cmd| String::from_utf8(command.get_packed_command()).unwrap();
        let probe = packed(commands.command(&RedisRequest::Probe, &mut ScriptCaller::default()));
        assert!(probe.contains("PUBLISH") && probe.contains("sb:node:0000000000000001"));
        let durable = RedisRequest::Publish(PublishRequest {
            ticket: Ticket(1),
            source: None,
            publish: Publish {
                room: RoomName::new("r").unwrap(),
                key: None,
                ephemeral: false,
                others: false,
                publication: Arc::new(wire::unreadable()),
            },
        });
        let durable = packed(commands.command(&durable, &mut ScriptCaller::default()));
        assert!(durable.contains("EVALSHA\r\n"));
    }
}
