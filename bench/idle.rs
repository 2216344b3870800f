//! The cost of an idle connection: to open it (upgrade, welcome, join and its reply), to keep it,
//! and how much memory is released in the end.

use std::time::{Duration, Instant};

use crate::support::load::Load;
use crate::support::machine::{self, Role};
use crate::support::server::{Kind, Server};
use crate::support::table::{Table, ratio};
use crate::support::watch::{Spent, Watch};
use crate::support::{Outcome, gone, size};

const COLUMNS: [&str; 9] = [
    "connections",
    "server     ",
    "CPU µs to make one",
    "to plain",
    "bytes resident",
    "CPU ms/s while idle",
    "bytes kept 3 s after all left",
    "of base MiB",
    "others' CPU",
];

/// All members of a room of a hundred, as if they chatted.
const ROOM: usize = 100;

/// What a connection costs.
pub struct Measured {
    /// Microseconds of processor time.
    pub make: f64,
    /// Bytes.
    pub resident: f64,
    /// Milliseconds of processor time a second, of all together.
    idle: f64,
    /// Bytes.
    kept: f64,
    base: u64,
    pub made: Spent,
}

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    switchboard::runtime::raise_file_limit()?;
    let table = Table::begin("Idle connections, each in a room of 100", &COLUMNS);
    for connections in size(vec![2_000], vec![2_000, 10_000, 18_000]) {
        let plain = measure(&Server::start(Kind::Plain)?, connections)?;
        row(&table, Kind::Plain, connections, &plain, None);
        let node = measure(&Server::start(Kind::Node)?, connections)?;
        row(&table, Kind::Node, connections, &node, Some(&plain));
    }
    Ok(())
}

/// Opens so many connections, leaves them idle, and closes them.
pub fn measure(server: &Server, connections: usize) -> Outcome<Measured> {
    // Allocations that are made only once are not a connection's cost.
    let mut first = Load::new()?;
    first.members(server, 10, |_| "first".into())?;
    let files = server.open_files();
    let base = server.resident();

    let watch = Watch::begin(&[server], &[]);
    let mut load = Load::new()?;
    load.members(server, connections, |place| {
        format!("room-{}", place / ROOM)
    })?;
    let made = watch.end();

    let watch = Watch::begin(&[server], &[]);
    let end = Instant::now() + Duration::from_secs(size(3, 50));
    while Instant::now() < end {
        load.poll(end, |_, _, _| Ok(()))?;
    }
    let idle = watch.end();
    let full = server.resident();

    drop(load);
    gone(server, files)?;
    // The allocator releases memory that is unused for a second.
    std::thread::sleep(Duration::from_secs(3));
    let kept = server.resident();
    let each = |bytes: u64| bytes.saturating_sub(base) as f64 / connections as f64;
    Ok(Measured {
        make: made.micros_per(connections as u64),
        resident: each(full),
        idle: idle.cpu.as_secs_f64() * 1000.0 / idle.wall.as_secs_f64(),
        kept: each(kept),
        base,
        made,
    })
}

fn row(
    table: &Table,
    kind: Kind,
    connections: usize,
    measured: &Measured,
    limit: Option<&Measured>,
) {
    table.row(&[
        connections.to_string(),
        kind.name().to_string(),
        format!("{:.1}", measured.make),
        ratio(measured.make, limit.map(|limit| limit.make)),
        format!("{:.0}", measured.resident),
        format!("{:.2}", measured.idle),
        format!("{:.0}", measured.kept),
        format!("{:.1}", measured.base as f64 / f64::from(1 << 20)),
        measured.made.noise(),
    ]);
}
