//! What a publish costs Redis, and how near a node comes to what Redis can do at all: rooms with
//! one member each, through a node, and beside it the bare script as `redis-benchmark` calls it
//! from the node's core.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::asked::Asked;
use crate::support::closed_loop::{self, Case};
use crate::support::machine::{self, Role};
use crate::support::script;
use crate::support::server::Server;
use crate::support::table::{Table, ratio};
use crate::support::talk::Talk;
use crate::support::watch::{Spent, Watch};
use crate::support::{Outcome, size, wanted};

const IN_FLIGHT: [u32; 4] = [1, 16, 64, 256];

const COLUMNS: [&str; 10] = [
    "in flight",
    "called by       ",
    "publishes/s",
    "to redis-benchmark",
    "node, CPU µs",
    "Redis, CPU µs",
    "to redis-benchmark",
    "commands",
    "reads by Redis",
    "others' CPU",
];

/// As much as a node writes with each message.
const BODY: usize = 160;

/// What a stretch of publishes cost.
struct Publishes {
    count: u64,
    spent: Spent,
    commands: u64,
    reads: u64,
}

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    let table = Table::begin("Publishes through Redis, per publish", &COLUMNS);
    for in_flight in IN_FLIGHT {
        if !wanted(&in_flight.to_string()) {
            continue;
        }
        let bare = bare(in_flight)?;
        row(&table, in_flight, "redis-benchmark", &bare, None);
        let ours = through_node(in_flight)?;
        row(&table, in_flight, "switchboard", &ours, Some(&bare));
    }
    Ok(())
}

fn through_node(in_flight: u32) -> Outcome<Publishes> {
    let redis = Server::start_redis()?;
    let node = Server::start_with_redis(&redis, Role::Server)?;
    let case = Case::of(1, 1, in_flight);
    let mut talk = Talk::begin(&[&node], case.rooms, case.members)?;
    // Everything is warm before it counts.
    closed_loop::flow(&mut talk, in_flight, Duration::from_millis(500))?;
    let asked = Asked::begin(&redis)?;
    let watch = Watch::begin(&[&node], &[&redis]);
    let before = talk.deliveries;
    closed_loop::flow(&mut talk, in_flight, Duration::from_secs(size(2, 10)))?;
    let spent = watch.end();
    let count = talk.deliveries - before;
    let work = asked.end()?;
    Ok(Publishes {
        count,
        spent,
        commands: work.commands(),
        reads: work.reads,
    })
}

/// The script alone, pipelined by as many as are in flight.
fn bare(in_flight: u32) -> Outcome<Publishes> {
    let redis = Server::start_redis()?;
    let url = format!("redis://{}", redis.address);
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let digest: String = redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(script::TEXT)
        .query(&mut connection)?;
    let count = size(20_000, 200_000) * u64::from(in_flight.min(4));
    let body = "x".repeat(BODY);
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", &redis.address.port().to_string(), "-c", "1"]);
    command.args(["-n", &count.to_string(), "-P", &in_flight.to_string(), "-q"]);
    let keys = script::keys("room");
    command.args(script::call(&digest, &keys, "b:{room}", &body));
    let asked = Asked::begin(&redis)?;
    let watch = Watch::begin(&[], &[&redis]);
    let began = Instant::now();
    let output = machine::pinned(Role::Server, || command.output())
        .map_err(|error| format!("cannot start redis-benchmark: {error}"))?;
    let mut spent = watch.end();
    spent.wall = began.elapsed();
    let work = asked.end()?;
    // It rounds up to whole pipelines.
    let called = work.scripts();
    if !output.status.success() || called < count {
        return Err(format!("redis-benchmark called {called} of {count}").into());
    }
    let length: u64 = redis::cmd("XLEN").arg(&keys[0]).query(&mut connection)?;
    if length.to_string() != script::KEPT {
        return Err(format!("the script left a log of {length} messages").into());
    }
    Ok(Publishes {
        count: called,
        spent,
        commands: work.commands(),
        reads: work.reads,
    })
}

impl Publishes {
    fn rate(&self) -> f64 {
        self.count as f64 / self.spent.wall.as_secs_f64()
    }

    fn redis(&self) -> f64 {
        self.spent.redis_micros_per(self.count)
    }
}

fn row(table: &Table, in_flight: u32, by: &str, publishes: &Publishes, bare: Option<&Publishes>) {
    let each = |count: u64| format!("{:.2}", count as f64 / publishes.count as f64);
    let node = publishes.spent.micros_per(publishes.count);
    table.row(&[
        in_flight.to_string(),
        by.to_string(),
        format!("{:.0}", publishes.rate()),
        ratio(publishes.rate(), bare.map(Publishes::rate)),
        match bare {
            Some(_) => format!("{node:.1}"),
            None => "–".into(),
        },
        format!("{:.1}", publishes.redis()),
        ratio(publishes.redis(), bare.map(Publishes::redis)),
        each(publishes.commands),
        each(publishes.reads),
        publishes.spent.noise(),
    ]);
}
