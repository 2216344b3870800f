//! Turns each [`RedisRequest`] into a Redis command.

use std::time::Duration;

use redis::Cmd;

use super::names::{Names, key_field};
use super::presence::commands::PresenceCommands;
use super::request::{PAGE_BYTES, RedisRequest};
use super::scripts::{Script, ScriptCaller, millis};
use super::{revoked, webhook_calls};
use crate::broker::redis::wire::{self, Format};
use crate::broker::{KEY_TTL, Publication, Publish, PublishRequest, Range, Read, Settings};
use crate::model::id::{Epoch, Incarnation, Position};
use crate::model::retention::Retention;

/// How long the position of a room without publications outlives its members, for those that
/// reconnect. Short, because any client can join rooms by the thousand. While there are members,
/// their nodes read the position once a minute, which renews it.
const IDLE_META_TTL: Duration = Duration::from_secs(10 * 60);

/// The least time that the position of a room with publications is kept: longer than the keys that
/// it proves, and than a client that returns.
const LEAST_META_TTL: Duration = Duration::from_secs(3600);

/// Builds the commands.
#[derive(Debug)]
pub(super) struct Commands {
    pub names: Names,
    run: Incarnation,
    node_topic: String,
    retention: Retention,
    presence: PresenceCommands,
    /// The format in which publications are written.
    format: Format,
    /// Candidates for epochs; seeded by the operating system.
    random: fastrand::Rng,
}

impl Commands {
    pub(super) fn new(names: Names, settings: &Settings, seed: u64) -> Self {
        Self {
            run: settings.incarnation,
            node_topic: names.node_topic(settings.incarnation),
            presence: PresenceCommands {
                names: names.clone(),
                webhooks: settings.webhooks.clone(),
            },
            names,
            retention: settings.retention.clone(),
            format: Format::FIRST,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Sets the format in which publications are written; it begins as the first.
    pub(super) fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// Whether all live nodes can read a publication.
    pub(super) fn can_express(&self, publication: &Publication) -> bool {
        wire::lowest_format(publication) <= self.format
    }

    /// A publication that was queued before a node of an earlier version started keeps its format:
    /// nodes never skip one that they cannot read.
    fn format_of(&self, publication: &Publication) -> Format {
        self.format.max(wire::lowest_format(publication))
    }

    /// The command of a request.
    pub(super) fn command(&mut self, request: &RedisRequest, caller: &mut ScriptCaller) -> Cmd {
        match request {
            RedisRequest::Publish(PublishRequest { publish, .. }) if publish.ephemeral => {
                let message = wire::encode_ephemeral(
                    &publish.publication,
                    self.format_of(&publish.publication),
                );
                plain_publish(&self.names.topic(&publish.room), &message)
            }
            RedisRequest::Publish(request) => self.publish(&request.publish, caller),
            RedisRequest::Read(read) => self.read(read, caller),
            RedisRequest::Members(request) => self.presence.members(&request.query, caller),
            RedisRequest::ClusterQuery(request) => {
                self.presence.cluster_query(&request.query, caller)
            }
            RedisRequest::Revoke(revoke) => revoked::write(revoke, self.run, &self.names, caller),
            RedisRequest::ReadRevocations(read) => {
                revoked::read(read, self.run, &self.names, caller)
            }
            RedisRequest::Probe => plain_publish(&self.node_topic, b"1"),
            RedisRequest::Presence(command) => self.presence.command(command, caller),
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
            .arg(wire::encode_body(
                &publish.publication,
                self.format_of(&publish.publication),
            ))
            .arg(self.candidate())
            .arg(kept.size)
            .arg(millis(kept.age))
            .arg(millis(meta_ttl(kept.age)))
            .arg(millis(KEY_TTL));
        match publish.condition {
            Some(Position { epoch, offset }) => {
                command.arg(epoch.to_string()).arg(offset);
            }
            None => {
                command.arg("").arg("");
            }
        }
        if let Some(key) = &publish.key {
            let digest = publish.publication.digest();
            command.arg(key_field(key)).arg(format!("{digest:032x}"));
        }
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
            .arg(millis(meta_ttl(self.retention.of(&read.room).age)))
            .arg(millis(IDLE_META_TTL));
        command
    }

    fn candidate(&mut self) -> String {
        Epoch::new(self.random.u64(..)).to_string()
    }
}

/// How long the position of a room with publications is kept: never shorter than its log.
fn meta_ttl(log: Duration) -> Duration {
    log.max(LEAST_META_TTL)
}

fn plain_publish(topic: &str, message: &[u8]) -> Cmd {
    let mut command = Cmd::new();
    command.arg("PUBLISH").arg(topic).arg(message);
    command
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::Source;
    use crate::model::id::{RoomName, Ticket};

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
            source: Source::Node,
            publish: Publish {
                room: RoomName::new("r").unwrap(),
                key: None,
                condition: None,
                ephemeral: false,
                others: false,
                publication: Arc::new(wire::unreadable()),
            },
        });
        let durable = packed(commands.command(&durable, &mut ScriptCaller::default()));
        assert!(durable.contains("EVALSHA\r\n"));
    }
}
