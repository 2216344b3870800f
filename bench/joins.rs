//! What it costs a server to accept a client: the upgrade with its welcome, then a join and its
//! reply. Rounds on the same server, which has paid for its first connections before; the
//! middling one counts.

use crate::support::load::Load;
use crate::support::machine::{self, Role};
use crate::support::server::{Kind, Server};
use crate::support::table::{Table, ratio};
use crate::support::watch::{Spent, Watch};
use crate::support::{Outcome, gone, median, size};

const COLUMNS: [&str; 8] = [
    "connections",
    "server     ",
    "upgrade, CPU µs",
    "join, CPU µs",
    "together",
    "to plain",
    "leave, CPU µs",
    "others' CPU",
];

/// Members of each room.
const ROOM: usize = 100;

/// Processor time per connection, in microseconds.
struct Round {
    upgrade: f64,
    join: f64,
    leave: f64,
    noise: String,
}

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    switchboard::runtime::raise_file_limit()?;
    let connections = size(2_000, 10_000);
    let table = Table::begin(
        "Joins: connections made, each of which joins a room",
        &COLUMNS,
    );
    let servers = [Server::start(Kind::Plain)?, Server::start(Kind::Node)?];
    let mut rounds = [Vec::new(), Vec::new()];
    // Side by side, round by round: what the neighbours do meets both alike.
    for number in 0..size(6, 10) {
        for (server, rounds) in servers.iter().zip(&mut rounds) {
            let round = round(server, connections)?;
            // The first pays for what is needed once.
            if number > 0 {
                rounds.push(round);
            }
        }
    }
    let plain = together(&rounds[0]);
    row(&table, Kind::Plain, connections, &rounds[0], None);
    row(&table, Kind::Node, connections, &rounds[1], Some(plain));
    Ok(())
}

fn round(server: &Server, connections: usize) -> Outcome<Round> {
    let files = server.open_files();
    let mut load = Load::new()?;
    let watch = Watch::begin(&[server], &[]);
    let clients = load.connect(server, connections)?;
    let upgraded = watch.end();
    let watch = Watch::begin(&[server], &[]);
    load.join(clients, |client| format!("room-{}", client / ROOM))?;
    let joined = watch.end();
    let watch = Watch::begin(&[server], &[]);
    drop(load);
    gone(server, files)?;
    let left = watch.end();
    let each = |spent: Spent| spent.micros_per(connections as u64);
    Ok(Round {
        upgrade: each(upgraded),
        join: each(joined),
        leave: each(left),
        noise: upgraded.noise(),
    })
}

fn together(rounds: &[Round]) -> f64 {
    median(
        rounds
            .iter()
            .map(|round| round.upgrade + round.join)
            .collect(),
    )
}

fn row(table: &Table, kind: Kind, connections: usize, rounds: &[Round], plain: Option<f64>) {
    let middling = |part: fn(&Round) -> f64| {
        let figures = rounds.iter().map(part).collect();
        format!("{:.1}", median(figures))
    };
    table.row(&[
        connections.to_string(),
        kind.name().to_string(),
        middling(|round| round.upgrade),
        middling(|round| round.join),
        format!("{:.1}", together(rounds)),
        ratio(together(rounds), plain),
        middling(|round| round.leave),
        rounds
            .last()
            .map_or(String::new(), |round| round.noise.clone()),
    ]);
}
