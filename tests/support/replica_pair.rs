//! A Redis master and its replica, and the two ways in which the replica becomes the master: a
//! coordinated `FAILOVER`, which loses nothing, and the master's crash while the replica lags.

use std::time::{Duration, Instant};

use super::gate::Gate;
use super::redis_server::{Options, RedisServer};

/// How long the replica may take to follow, or to become the master.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(60);

/// Two servers; a failover exchanges their roles and these fields.
pub struct ReplicaPair {
    pub master: RedisServer,
    pub replica: RedisServer,
    /// The replication link. While it is shut, the replica lags.
    link: Gate,
}

impl ReplicaPair {
    /// Starts both; the replica follows its master when this returns.
    pub fn start() -> Self {
        let master = RedisServer::with(Options::default().arg("--repl-diskless-sync-delay 0"));
        let link = Gate::before(master.port());
        let of = format!("--replicaof 127.0.0.1 {}", link.address.port());
        let replica = RedisServer::with(Options::default().arg(&of));
        let pair = Self {
            master,
            replica,
            link,
        };
        until("the replica follows", || {
            pair.replica.replication("master_link_status") == "up"
        });
        pair
    }

    /// Both addresses, as `--redis` takes them.
    pub fn urls(&self) -> String {
        format!("{},{}", self.master.url(), self.replica.url())
    }

    /// Lets the replica catch up with what the master has acknowledged so far, then cuts the
    /// replication link: what is written from now on never reaches the replica.
    pub fn cut_replication(&self) {
        let written = offset(&self.master, "master_repl_offset");
        until("the replica catches up", || {
            offset(&self.replica, "slave_repl_offset") >= written
        });
        self.link.shut();
    }

    /// A coordinated failover: the master stops writing, waits for the replica to have everything,
    /// and follows it from then on.
    pub fn fail_over(&mut self) {
        let started: String = self.master.query(&["FAILOVER"]);
        assert_eq!(started, "OK");
        until("the roles are exchanged", || {
            self.master.replication("role") == "slave"
                && self.replica.replication("role") == "master"
        });
        std::mem::swap(&mut self.master, &mut self.replica);
    }

    /// Kills the master and promotes the replica with what it has.
    pub fn crash_master(&mut self) {
        self.master.kill();
        let promoted: String = self.replica.query(&["REPLICAOF", "NO", "ONE"]);
        assert_eq!(promoted, "OK");
        std::mem::swap(&mut self.master, &mut self.replica);
    }
}

fn offset(server: &RedisServer, field: &str) -> u64 {
    let value = server.replication(field);
    value
        .parse()
        .unwrap_or_else(|_| panic!("{field} is {value:?}"))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < FOLLOWS_WITHIN,
            "not within {FOLLOWS_WITHIN:?}: {what}"
        );
        std::thread::sleep(super::GLANCE);
    }
}
