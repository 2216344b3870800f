//! The cost of presence without joins and leaves: signed-in members in a thousand rooms over two
//! nodes, and the same nodes without members.

use std::time::{Duration, Instant};

use crate::support::asked::Asked;
use crate::support::load::Load;
use crate::support::machine::{self, Role};
use crate::support::server::Server;
use crate::support::table::Table;
use crate::support::watch::Watch;
use crate::support::{Outcome, size};

const ROOMS: usize = 1000;

const COLUMNS: [&str; 9] = [
    "members",
    "rooms",
    "scripts per s and node",
    "commands",
    "of presence",
    "Redis, CPU ms/s",
    "nodes, CPU ms/s",
    "Redis, bytes per member",
    "others' CPU",
];

/// Commands that only the scripts of presence and of leases give. The others are publishes, and
/// each node comparing the rooms that it follows with their logs, once a minute.
const OF_PRESENCE: [&str; 11] = [
    "hdel",
    "hexists",
    "hget",
    "hscan",
    "time",
    "zadd",
    "zcard",
    "zrangebylex",
    "zrangebyscore",
    "zrem",
    "zscore",
];

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    switchboard::runtime::raise_file_limit()?;
    let title = "Presence while nothing changes, two nodes and one Redis";
    let table = Table::begin(title, &COLUMNS);
    for members in [0, 10_000] {
        quiet(&table, members)?;
    }
    Ok(())
}

fn quiet(table: &Table, members: usize) -> Outcome {
    let redis = Server::start_redis()?;
    // Pings would be in the processor time of the nodes, and are not what is asked here.
    let url = format!("redis://{}", redis.address);
    let options = ["--redis", &url, "--heartbeat", "1h"];
    let nodes = [
        Server::start_node(Role::Server, &options, None)?,
        Server::start_node(Role::SecondServer, &options, None)?,
    ];
    let base = redis.resident();
    let mut load = Load::new()?;
    for (number, node) in nodes.iter().enumerate() {
        let clients = load.connect(node, members / nodes.len())?;
        load.ask(clients.clone(), |client| {
            let user = format!("user-{number}-{client}");
            Some(format!(r#"{{"type":"auth","id":1,"user":"{user}"}}"#))
        })?;
        load.join(clients, |client| format!("room-{}", client % ROOMS))?;
    }
    // What the nodes still send to Redis after the last reply.
    receive(&mut load, Duration::from_secs(3))?;
    let asked = Asked::begin(&redis)?;
    let watch = Watch::begin(&nodes.each_ref(), &[&redis]);
    receive(&mut load, Duration::from_secs(size(5, 60)))?;
    let spent = watch.end();
    let work = asked.end()?;
    let seconds = spent.wall.as_secs_f64();
    let rate = |count: u64| format!("{:.1}", count as f64 / seconds / nodes.len() as f64);
    let each = redis.resident().saturating_sub(base) as f64 / members.max(1) as f64;
    table.row(&[
        members.to_string(),
        ROOMS.to_string(),
        rate(work.scripts()),
        rate(work.commands()),
        rate(work.of(&OF_PRESENCE)),
        format!("{:.2}", spent.helpers.as_secs_f64() * 1000.0 / seconds),
        format!("{:.2}", spent.cpu.as_secs_f64() * 1000.0 / seconds),
        format!("{each:.0}"),
        spent.noise(),
    ]);
    Ok(())
}

/// Receives the remaining presence events, and sends nothing.
fn receive(load: &mut Load, time: Duration) -> Outcome {
    let end = Instant::now() + time;
    while Instant::now() < end {
        load.poll(end, |_, _, _| Ok(()))?;
    }
    Ok(())
}
