//! Redis' own counters of its work: how often each command was called, and how often it read from a
//! client.

use std::collections::BTreeMap;

use redis::Connection;

use super::Outcome;
use super::server::Server;

/// Counters of a Redis, taken when this began.
pub struct Asked {
    connection: Connection,
    before: Work,
}

/// The difference since then; one `info` of it is the measurement itself.
#[derive(Clone, Debug)]
pub struct Work {
    /// Calls of each command, those in scripts included; with subcommands as Redis writes them.
    pub calls: BTreeMap<String, u64>,
    /// System calls that brought something from clients.
    pub reads: u64,
}

impl Asked {
    pub fn begin(server: &Server) -> Outcome<Self> {
        let url = format!("redis://{}", server.address);
        let mut connection = redis::Client::open(url)?.get_connection()?;
        let before = count(&mut connection)?;
        Ok(Self { connection, before })
    }

    pub fn end(mut self) -> Outcome<Work> {
        let now = count(&mut self.connection)?;
        let mut calls = BTreeMap::new();
        for (command, count) in now.calls {
            let before = self.before.calls.get(&command).copied().unwrap_or(0);
            if count > before {
                calls.insert(command, count - before);
            }
        }
        Ok(Work {
            calls,
            reads: now.reads - self.before.reads,
        })
    }
}

impl Work {
    /// Commands called by clients as scripts.
    pub fn scripts(&self) -> u64 {
        self.of(&["eval", "evalsha"])
    }

    /// Calls of these commands.
    pub fn of(&self, commands: &[&str]) -> u64 {
        let calls = commands.iter().filter_map(|name| self.calls.get(*name));
        calls.sum()
    }

    /// All commands, those in scripts included.
    pub fn commands(&self) -> u64 {
        self.calls.values().sum()
    }
}

fn count(connection: &mut Connection) -> Outcome<Work> {
    let info: String = redis::cmd("INFO")
        .arg("stats")
        .arg("commandstats")
        .query(connection)?;
    let reads = info
        .lines()
        .find_map(|line| line.strip_prefix("total_reads_processed:"))
        .ok_or("this Redis does not count its reads; it must be 7 or newer")?
        .trim()
        .parse()?;
    let calls = info.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let (count, _) = rest.split_once(',')?;
        Some((name.to_string(), count.parse().ok()?))
    });
    Ok(Work {
        calls: calls.collect(),
        reads,
    })
}
