//! The faults, and the Redis that they apply to.

use crate::support::redis_server::{Options, RedisServer};
use crate::support::replica_pair::ReplicaPair;

use super::world::{KEPT, TAIL};

/// A fault of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SHUTDOWN and a start from the append-only file, which is synced at each write.
    CleanRestart,
    /// A kill and a start from a snapshot that lacks the tail.
    OlderSnapshot,
    /// A coordinated `FAILOVER` to a replica that has everything.
    Failover,
    /// The master is killed and a replica that lacks the tail is promoted.
    CrashFailover,
    /// `FLUSHALL`, while all connections stay.
    FlushAll,
}

impl Fault {
    /// The end of the log that survives, which is where the epoch ends.
    pub fn end(self) -> u64 {
        match self {
            Fault::CleanRestart | Fault::Failover => KEPT + TAIL,
            Fault::OlderSnapshot | Fault::CrashFailover => KEPT,
            Fault::FlushAll => 0,
        }
    }

    /// The tail is lost, and what was before it is not.
    pub fn loses_tail(self) -> bool {
        self.end() == KEPT
    }
}

/// A Redis, or a master with its replica.
pub enum Redis {
    Single(RedisServer),
    Pair(ReplicaPair),
}

impl Redis {
    /// Starts what this fault needs.
    pub fn start(fault: Fault) -> Self {
        match fault {
            Fault::CleanRestart => {
                let durable = Options::default().arg("--appendonly yes --appendfsync always");
                Redis::Single(RedisServer::with(durable))
            }
            Fault::OlderSnapshot | Fault::FlushAll => Redis::Single(RedisServer::start()),
            Fault::Failover | Fault::CrashFailover => Redis::Pair(ReplicaPair::start()),
        }
    }

    /// The addresses, as `--redis` takes them.
    pub fn urls(&self) -> String {
        match self {
            Redis::Single(server) => server.url(),
            Redis::Pair(pair) => pair.urls(),
        }
    }

    /// The server that takes the writes.
    pub fn master(&self) -> &RedisServer {
        match self {
            Redis::Single(server) => server,
            Redis::Pair(pair) => &pair.master,
        }
    }

    /// What is written from now on is the tail, which some faults lose.
    pub fn begin_tail(&self, fault: Fault) {
        match (self, fault) {
            (Redis::Single(server), Fault::OlderSnapshot) => server.save(),
            (Redis::Pair(pair), Fault::CrashFailover) => pair.cut_replication(),
            _ => {}
        }
    }

    /// Injects the fault; Redis works again when this returns.
    pub fn inject(&mut self, fault: Fault) {
        match (self, fault) {
            (Redis::Single(server), Fault::CleanRestart) => {
                server.shut_down();
                server.run();
            }
            (Redis::Single(server), Fault::OlderSnapshot) => server.restart(),
            (Redis::Single(server), Fault::FlushAll) => {
                let flushed: String = server.query(&["FLUSHALL"]);
                assert_eq!(flushed, "OK");
            }
            (Redis::Pair(pair), Fault::Failover) => pair.fail_over(),
            (Redis::Pair(pair), Fault::CrashFailover) => pair.crash_master(),
            _ => unreachable!("{fault:?} needs another Redis"),
        }
    }
}
