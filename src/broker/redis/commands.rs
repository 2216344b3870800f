//! What is said to Redis: each [`RedisRequest`] and each command of presence as a command.

use std::borrow::Cow;
use std::time::Duration;

use redis::Cmd;

use super::lease::{LONGEST, Renewal};
use super::names::Names;
use super::presence_agent::PresenceCommand;
use super::reaper::{FIELDS, ROOMS, Step};
use super::request_queue::RedisRequest;
use super::revoked;
use super::scripts::{Script, ScriptCaller};
use crate::broker::redis::reconciler::{Ask, Said, Who};
use crate::broker::redis::wire::{self, Format};
use crate::broker::{Census, KEY_TTL, META_TTL, Members, Publish, Range, Read, Settings};
use crate::model::cluster_query::{ClusterQuery, Kind};
use crate::model::id::{Epoch, Incarnation, Position, RoomName};
use crate::model::retention::Retention;
use crate::model::webhook_event::{LENGTH, Wanted};

/// How long the position of a room is kept in which nothing was ever said. Anyone can join rooms by
/// the thousand.
const IDLE_META_TTL: Duration = Duration::from_secs(24 * 3600);

/// How many bytes of bodies a page holds at most, so that one read neither stalls Redis nor fills
/// memory.
const PAGE_BYTES: usize = 512 << 10;

/// How many members, rooms or connections a page holds at most, for the same reason.
const PAGE_MEMBERS: usize = 1000;

/// How long the version of a room's list of members is kept when nobody is in it: whoever follows
/// the room sees at the next change that nothing was missed. A guess; after it a follower reads
/// once for nothing.
const VERSION_TTL: Duration = Duration::from_secs(3600);

/// How long after its end a lease counts as over for others: more than the clocks of several
/// servers differ.
const MARGIN: Duration = Duration::from_secs(1);

/// Of how many leases that are over a node is told at once.
const OVER: usize = 16;

/// Turns jobs into commands.
#[derive(Debug)]
pub struct Commands {
    pub names: Names,
    run: Incarnation,
    node_topic: String,
    retention: Retention,
    /// Whether somebody wants to know that a room is occupied or vacated.
    webhooks: Option<Wanted>,
    /// In which format publications are written.
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

    /// Publications are written in this format from now on; before, in the first.
    pub fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// The command of a job.
    pub fn command(&mut self, job: &RedisRequest, caller: &mut ScriptCaller) -> Cmd {
        match job {
            RedisRequest::Publish(publish) if publish.ephemeral => {
                let message = wire::encode_ephemeral(&publish.publication, self.format);
                plain_publish(&self.names.topic(&publish.room), &message)
            }
            RedisRequest::Publish(publish) => self.publish(publish, caller),
            RedisRequest::Read(read) => self.read(read, caller),
            RedisRequest::Members(members) => self.members(members, caller),
            RedisRequest::Census(census) => self.census(census, caller),
            RedisRequest::Revoke(asked) => revoked::write(asked, self.run, &self.names, caller),
            RedisRequest::ReadRevocations(asked) => {
                revoked::read(asked, self.run, &self.names, caller)
            }
            RedisRequest::Probe => plain_publish(&self.node_topic, "1"),
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

    fn members(&self, members: &Members, caller: &mut ScriptCaller) -> Cmd {
        let mut command = caller.call(Script::Members);
        let after = members.after.as_ref().map_or("", |name| name.as_str());
        command.arg(2).arg(&self.names.here(&members.room)[..]);
        command.arg(after).arg(members.limit.min(PAGE_MEMBERS));
        command
    }

    fn census(&self, census: &Census, caller: &mut ScriptCaller) -> Cmd {
        match &census.question {
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
                // No letter of a name is above it.
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

    /// The command of an command.
    pub fn presence_command(&self, command: &PresenceCommand, caller: &mut ScriptCaller) -> Cmd {
        let names = &self.names;
        match command {
            PresenceCommand::Lease(renewal, newest) => self.renewal(renewal, *newest, caller),
            PresenceCommand::Say { lease, ends, ask } => {
                let lease = lease.to_string();
                match ask {
                    Ask::Enter { number, room } => {
                        let mut command = plain("ZADD", &names.rooms(&lease));
                        command.arg("GT").arg(*number).arg(room.as_str());
                        command
                    }
                    Ask::Quit { number } => {
                        let mut command = plain("ZREMRANGEBYSCORE", &names.rooms(&lease));
                        command.arg(*number).arg(*number);
                        command
                    }
                    Ask::Say { room, said } => self.say(&lease, *ends, room, said, caller),
                }
            }
            PresenceCommand::Reap(Step::Rooms { lease }) => {
                let mut command = plain("ZRANDMEMBER", &names.rooms(lease));
                command.arg(ROOMS);
                command
            }
            PresenceCommand::Reap(Step::Reap {
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
            PresenceCommand::Reap(Step::Strike { lease, room }) => {
                let mut command = plain("ZREM", &names.rooms(lease));
                command.arg(room);
                command
            }
            PresenceCommand::Reap(Step::Bury { lease }) => {
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

    fn say(
        &self,
        lease: &str,
        ends: u64,
        room: &RoomName,
        said: &[Said],
        caller: &mut ScriptCaller,
    ) -> Cmd {
        let mut command = caller.call(Script::SetPresence);
        self.room_keys(room, &mut command);
        command.arg(self.names.topic(room)).arg(lease).arg(ends);
        command
            .arg(millis(LONGEST))
            .arg(millis(VERSION_TTL))
            .arg(LENGTH);
        for Said {
            who,
            connections,
            info,
        } in said
        {
            let name = match who {
                Who::Anonymous => Cow::Borrowed(""),
                Who::User(user) => Cow::Borrowed(user.as_str()),
                Who::Connection(session) => Cow::Owned(wire::connection::field(*session)),
            };
            let info = info.as_ref().map_or("", |info| info.get());
            command.arg(&*name).arg(*connections).arg(info);
        }
        command
    }

    /// The keys of a script that changes who is in a room.
    fn room_keys(&self, room: &RoomName, command: &mut Cmd) {
        let wanted = self.webhooks.as_ref();
        let is_wanted = wanted.is_some_and(|wanted| wanted.watches(room));
        command.arg(if is_wanted { 6 } else { 4 });
        command.arg(&self.names.here(room)[..]);
        command.arg(self.names.live(room));
        command.arg(self.names.occupied(Kind::of(room)));
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

/// At least 1: Redis would take zero as "at once", or refuse it.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
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
        let durable = RedisRequest::Publish(Publish {
            ticket: Ticket(1),
            source: None,
            room: RoomName::new("r").unwrap(),
            key: None,
            ephemeral: false,
            publication: Arc::new(wire::unreadable()),
        });
        let durable = packed(commands.command(&durable, &mut ScriptCaller::default()));
        assert!(durable.contains("EVAL\r\n") && durable.contains("#!lua"));
    }
}
