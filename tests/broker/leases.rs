//! Leases: members of a dead node are removed once, members of a node that only seemed dead return
//! once, and an outage of Redis removes no member.

use std::time::{Duration, Instant};

use switchboard::broker::redis::{LEASE, RedisSettings};

use super::node::{BrokerNode, SHORT_LEASE, settings};
use super::presence_table::Table;
use crate::support::DEADLINE;
use crate::support::gate::Gate;
use crate::support::redis_server::RedisServer;

/// A node with the default lease.
fn shipped(url: &str) -> BrokerNode {
    let redis = RedisSettings {
        addresses: vec![url.parse().expect(url)],
        prefix: "sb".into(),
        authorities: None,
        allow_eviction: false,
        lease: LEASE,
    };
    BrokerNode::with(redis, settings()).ready()
}

#[test]
fn members_of_a_dead_node_leave_once() {
    let server = RedisServer::start();
    let (mut a, mut b) = (shipped(&server.url()), shipped(&server.url()));
    let dead = shipped(&server.url());
    let mut tables = [Table::of(&mut a, "r0"), Table::of(&mut b, "r0")];
    for room in 0..300 {
        dead.here(&format!("r{room}"), "ada", 1);
        dead.here(&format!("r{room}"), "bob", 2);
    }
    b.here("r7", "bob", 1);
    a.until_members("r299", "ada:1 bob:2");
    std::thread::sleep(Duration::from_secs(3));
    drop(dead);
    let deadline = Instant::now() + 3 * DEADLINE;
    let anyone = |node: &mut BrokerNode| {
        (0..300)
            .filter(|room| node.members(&format!("r{room}")).count > 0)
            .count()
    };
    while anyone(&mut a) != 1 {
        assert!(Instant::now() < deadline, "{} rooms", anyone(&mut a));
        std::thread::sleep(Duration::from_millis(100));
    }
    a.until_members("r7", "bob:1");
    for (table, node) in tables.iter_mut().zip([&mut a, &mut b]) {
        table.turn(node);
        let left = table.seen.iter().filter(|it| it.ends_with(">0")).count();
        assert_eq!((left, table.missed), (2, 0), "{:?}", table.seen);
    }
    server.until::<Vec<String>>(&["KEYS", "sb:node:*:rooms"], rooms_of_the_living(&server));
    let leases: usize = server.query(&["ZCARD", "sb:nodes"]);
    assert_eq!(leases, 2);
}

/// The only record that should be left: of the node in room 7.
fn rooms_of_the_living(server: &RedisServer) -> Vec<String> {
    let leases: Vec<String> = server.query(&["ZRANGE", "sb:nodes", "0", "-1"]);
    let keys = leases.iter().map(|it| format!("sb:node:{it}:rooms"));
    keys.filter(|key| server.query::<usize>(&["EXISTS", key]) > 0)
        .collect()
}

#[test]
fn node_with_an_expired_lease_rejoins_once_and_its_late_commands_change_nothing() {
    let server = RedisServer::start();
    let gate = Gate::before(server.port());
    let mut a = BrokerNode::on(&server);
    let mut b = BrokerNode::redis(&[&gate.url()], settings()).ready();
    let mut table = Table::of(&mut a, "lobby");
    let mut other = Table::of(&mut b, "lobby");
    b.here("lobby", "ada", 1);
    b.here("lobby", "bob", 1);
    table.until(&mut a, "ada:1 bob:1");
    other.until(&mut b, "ada:1 bob:1");
    gate.shut();
    // These commands wait in the gate until the lease has expired.
    b.here("lobby", "ghost", 1);
    b.here("elsewhere", "ghost", 1);
    table.until(&mut a, "");
    assert_eq!(table.seen.len(), 4, "{:?}", table.seen);
    // While the gate is shut, ghost and bob leave, and cy joins.
    b.here("lobby", "ghost", 0);
    b.here("elsewhere", "ghost", 0);
    b.here("lobby", "bob", 0);
    b.here("lobby", "cy", 1);
    gate.open();
    table.until(&mut a, "ada:1 cy:1");
    table.watch(&mut a, SHORT_LEASE + Duration::from_millis(1500));
    let mut seen = table.seen.split_off(4);
    seen.sort();
    assert_eq!(seen, ["ada 0>1", "cy 0>1"]);
    assert_eq!(a.members("elsewhere").count, 0);
    assert_eq!(table.missed, 0);
    other.until(&mut b, "ada:1 cy:1");
}

#[test]
fn redis_outage_removes_no_member() {
    let server = RedisServer::start();
    let (mut a, b) = (BrokerNode::on(&server), BrokerNode::on(&server));
    let mut table = Table::of(&mut a, "lobby");
    a.here("lobby", "ada", 1);
    b.here("lobby", "bob", 1);
    table.until(&mut a, "ada:1 bob:1");
    // Each is long enough to expire a lease; one is so short that only some leases expire.
    for outage in [SHORT_LEASE - Duration::from_millis(200), SHORT_LEASE * 3] {
        std::thread::sleep(SHORT_LEASE + Duration::from_millis(500));
        server.pause();
        std::thread::sleep(outage);
        server.resume();
        a.until_ready(true);
        b.until_ready(true);
        table.watch(&mut a, SHORT_LEASE * 2);
        assert_eq!(table.list(), "ada:1 bob:1");
    }
    assert_eq!(table.seen.len(), 2, "{:?}", table.seen);
    b.here("lobby", "bob", 0);
    table.until(&mut a, "ada:1");
    let leases: usize = server.query(&["ZCARD", "sb:nodes"]);
    assert_eq!(leases, 2, "the former ones are taken out quietly");
}

#[test]
fn first_node_after_an_outage_waits_for_the_others() {
    let server = RedisServer::start();
    let gate = Gate::before(server.port());
    let mut a = BrokerNode::on(&server);
    let b = BrokerNode::redis(&[&gate.url()], settings()).ready();
    let mut table = Table::of(&mut a, "lobby");
    b.here("lobby", "bob", 1);
    table.until(&mut a, "bob:1");
    server.pause();
    std::thread::sleep(SHORT_LEASE * 2);
    gate.shut();
    server.resume();
    a.until_ready(true);
    // All of its leases have expired, and it renews one after the other.
    table.watch(&mut a, SHORT_LEASE / 3);
    gate.open();
    table.watch(&mut a, SHORT_LEASE * 2);
    assert_eq!(
        (table.list(), table.seen),
        ("bob:1".into(), vec!["bob 0>1".into()])
    );
}

#[test]
fn commands_in_doubt_are_repeated_until_acknowledged() {
    let server = RedisServer::start();
    let (mut a, mut b) = (BrokerNode::on(&server), BrokerNode::on(&server));
    let mut table = Table::of(&mut a, "lobby");
    let mut wanted = [0u32; 8];
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..80 {
        let who = random.usize(0..8);
        wanted[who] = random.u32(0..3);
        b.here("lobby", &format!("u{who}"), wanted[who]);
        let victims = ["normal", "pubsub", "none", "none"][random.usize(0..4)];
        if victims != "none" {
            server.query::<()>(&["CLIENT", "KILL", "TYPE", victims]);
        }
        match round {
            20 => server.query::<()>(&["SCRIPT", "FLUSH"]),
            40 => server.query::<()>(&["FLUSHALL"]),
            60 => server.query::<()>(&["DEL", "sb:{lobby}:here"]),
            _ => {}
        }
        table.turn(&mut a);
    }
    b.here("lobby", "end", 1);
    let users = wanted.iter().enumerate().filter(|(_, count)| **count > 0);
    let words: Vec<_> = users
        .map(|(who, count)| format!("u{who}:{count}"))
        .collect();
    let wanted = format!("end:1 {}", words.join(" "));
    table.until(&mut a, &wanted);
    b.until_members("lobby", &wanted);
}

#[test]
fn ten_thousand_idle_members_cause_no_redis_commands() {
    let server = RedisServer::start();
    let mut nodes = [shipped(&server.url()), shipped(&server.url())];
    for room in 0..1000 {
        for user in 0..5 {
            for (number, node) in nodes.iter().enumerate() {
                node.here(&format!("r{room}"), &format!("n{number}u{user}"), 1);
            }
        }
    }
    for node in &mut nodes {
        while node.members("r999").count < 10 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    server.query::<()>(&["CONFIG", "RESETSTAT"]);
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(5));
    let stats: String = server.query(&["INFO", "commandstats"]);
    let seconds = start.elapsed().as_secs_f64();
    let calls = |command: &str| -> f64 {
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        let count = line.and_then(|line| line.split(',').next());
        count.map_or(0.0, |count| count.parse().unwrap())
    };
    println!("{stats}");
    let scripts = calls("evalsha") / seconds;
    assert!(
        (1.0..=3.0).contains(&scripts),
        "{scripts} a second of two nodes"
    );
    // Each node checks once a second whether Redis takes writes, and every half minute what it may
    // do there; that is less than a hundredth of a command per member.
    assert!(calls("eval") / seconds <= 3.0);
    for command in ["hget", "hset", "zrem"] {
        assert!(calls(command) <= 100.0, "{command}: {}", calls(command));
    }
    // One command per lease, and none per member.
    assert!(calls("zadd") / seconds <= 3.0);
}
