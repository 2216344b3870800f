//! What is said to Redis: each [`Job`] as a command. The two scripts are here; what they promise is written at their
//! head.

use std::time::Duration;

use redis::Cmd;

use super::names::Names;
use super::queue::Job;
use crate::broker::wire;
use crate::broker::{KEY_TTL, META_TTL, Publish, Range, Read, Settings};
use crate::id::{Epoch, Position};
use crate::retention::Retention;

/// `#!lua`: Redis looks before it starts whether a script that writes may run at all (memory, master, enough replicas).
pub const PUBLISH: &str = concat!(
    "#!lua\n",
    include_str!("room.lua"),
    include_str!("publish.lua")
);

/// Without that line, so that pages can be read when memory is short; only a new epoch is refused then.
pub const READ: &str = concat!(include_str!("room.lua"), include_str!("read.lua"));

/// How long the position of a room is kept in which nothing was ever said. Anyone can join rooms by the thousand.
const IDLE_META_TTL: Duration = Duration::from_secs(24 * 3600);

/// How many bytes of bodies a page holds at most, so that one read neither stalls Redis nor fills memory.
const PAGE_BYTES: usize = 512 << 10;

/// Turns jobs into commands.
#[derive(Debug)]
pub struct Commands {
    pub names: Names,
    node_topic: String,
    retention: Retention,
    /// Candidates for epochs; seeded by the operating system.
    random: fastrand::Rng,
}

/// How a script is called: by its digest, or with its text, which also makes Redis remember it.
#[derive(Clone, Copy, Debug)]
pub enum Script<'a> {
    Digest(&'a str),
    Text(&'static str),
}

impl Script<'_> {
    /// The beginning of the command; keys and arguments follow.
    pub fn call(self) -> Cmd {
        let mut command = Cmd::new();
        match self {
            Script::Digest(digest) => command.arg("EVALSHA").arg(digest),
            Script::Text(text) => command.arg("EVAL").arg(text),
        };
        command
    }
}

impl Commands {
    pub fn new(names: Names, settings: &Settings, seed: u64) -> Self {
        Self {
            node_topic: names.node_topic(settings.incarnation),
            names,
            retention: settings.retention.clone(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The command of a job.
    pub fn command(&mut self, job: &Job, script: Script<'_>) -> Cmd {
        match job {
            Job::Publish(publish) if publish.ephemeral => {
                let message = wire::encode_ephemeral(&publish.publication);
                plain_publish(&self.names.topic(&publish.room), &message)
            }
            Job::Publish(publish) => self.publish(publish, script),
            Job::Read(read) => self.read(read, script),
            Job::Probe => plain_publish(&self.node_topic, "1"),
        }
    }

    fn publish(&mut self, publish: &Publish, script: Script<'_>) -> Cmd {
        let mut command = script.call();
        let keys = 2 + usize::from(publish.key.is_some());
        command.arg(keys).arg(self.names.log(&publish.room));
        command.arg(self.names.meta(&publish.room));
        if let Some(key) = &publish.key {
            command.arg(self.names.key(&publish.room, key));
        }
        let kept = self.retention.of(&publish.room);
        command
            .arg(self.names.topic(&publish.room))
            .arg(wire::encode_body(&publish.publication))
            .arg(self.candidate())
            .arg(kept.size)
            .arg(millis(kept.age))
            .arg(millis(META_TTL))
            .arg(millis(KEY_TTL));
        command
    }

    fn read(&mut self, read: &Read, script: Script<'_>) -> Cmd {
        let mut command = script.call();
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

    fn candidate(&mut self) -> String {
        Epoch::new(self.random.u64(..)).to_string()
    }
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
    use crate::id::{Incarnation, RoomName, Ticket};

    #[test]
    fn ephemeral_publications_and_probes_need_no_script() {
        let mut commands = Commands::new(
            Names::new("sb", 0),
            &Settings {
                incarnation: Incarnation(1),
                retention: Retention::uniform(1, Duration::ZERO),
                publish_timeout: Duration::ZERO,
                topic_linger: Duration::ZERO,
                max_rooms: 0,
                webhooks: None,
            },
            1,
        );
        let packed = |command: Cmd| String::from_utf8(command.get_packed_command()).unwrap();
        let probe = packed(commands.command(&Job::Probe, Script::Digest("d")));
        assert!(probe.contains("PUBLISH") && probe.contains("sb:node:0000000000000001"));
        let durable = Job::Publish(Publish {
            ticket: Ticket(1),
            room: RoomName::new("r").unwrap(),
            key: None,
            ephemeral: false,
            publication: Arc::new(wire::unreadable()),
        });
        let durable = packed(commands.command(&durable, Script::Text(PUBLISH)));
        assert!(durable.contains("EVAL\r\n") && durable.contains("#!lua"));
    }
}
