//! The same node on each runtime, in turn and several times: processor time per delivery, latency
//! of a fan-out, and memory of an idle connection. The other runtimes' nodes are built first, which
//! takes some minutes each, so this runs only when it is named.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::idle;
use crate::support::closed_loop::{self, Case};
use crate::support::machine::{self, Role};
use crate::support::open_loop;
use crate::support::server::Server;
use crate::support::table::{Table, ratio};
use crate::support::{Outcome, median, size};

const RUNTIMES: [&str; 3] = ["async-std", "smol", "tokio"];

/// Members of one room, and messages a second, for the latency.
const FANOUT: (usize, u32) = (1000, 20);

/// For the processor time: nothing merged, much merged, many small rooms.
const FLOODS: [Case; 3] = [
    Case::of(1, 1000, 1),
    Case::of(1, 1000, 16),
    Case::of(200, 10, 1),
];

const COLUMNS: [&str; 10] = [
    "runtime  ",
    "p50 ms",
    "p99",
    "CPU µs per delivery",
    "1x1000x1",
    "1x1000x16",
    "200x10x1",
    "CPU to first",
    "bytes per idle connection",
    "others' CPU",
];

/// One round on one runtime.
struct Round {
    /// Milliseconds.
    p50: f64,
    /// Milliseconds.
    p99: f64,
    /// Microseconds of processor time per delivery: of the fan-out, then of [`FLOODS`].
    costs: [f64; 4],
    /// Bytes.
    idle: f64,
    noise: String,
}

pub fn run() -> Outcome {
    let nodes: Vec<PathBuf> = RUNTIMES.into_iter().map(node).collect::<Outcome<_>>()?;
    machine::pin(Role::Load);
    switchboard::runtime::raise_file_limit()?;
    let mut rounds: [Vec<Round>; 3] = Default::default();
    for _ in 0..size(3, 5) {
        for (node, rounds) in nodes.iter().zip(&mut rounds) {
            rounds.push(measure(node)?);
        }
    }
    let table = Table::begin("Runtimes, one node, its broker in memory", &COLUMNS);
    for (runtime, own) in RUNTIMES.iter().zip(&rounds) {
        row(&table, runtime, own, &rounds[0]);
    }
    Ok(())
}

/// The path of a node on this runtime, built with the allocator of the default one.
fn node(runtime: &str) -> Outcome<PathBuf> {
    if runtime == switchboard::runtime::name() {
        return Ok(env!("CARGO_BIN_EXE_switchboard").into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = root.join("target").join(runtime);
    let built = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--release", "--no-default-features"])
        .arg(format!("--features=rt-{runtime},jemalloc"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !built.success() {
        return Err(format!("the node on {runtime} cannot be built").into());
    }
    Ok(target.join("release/switchboard"))
}

fn measure(node: &Path) -> Outcome<Round> {
    let (members, rate) = FANOUT;
    let fanout = open_loop::measure(&[&Server::start_binary(node)?], &[], members, rate)?;
    let mut costs = [fanout.cost(), 0.0, 0.0, 0.0];
    for (cost, case) in costs[1..].iter_mut().zip(FLOODS) {
        *cost = closed_loop::measure(&[&Server::start_binary(node)?], &[], case)?.cost();
    }
    let connections = size(2_000, 10_000);
    let idle = idle::measure(&Server::start_binary(node)?, connections)?;
    Ok(Round {
        p50: fanout.at(0.5),
        p99: fanout.at(0.99),
        costs,
        idle: idle.resident,
        noise: fanout.spent.noise(),
    })
}

fn row(table: &Table, runtime: &str, own: &[Round], first: &[Round]) {
    let middling =
        |rounds: &[Round], figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let figure = |figure| format!("{:.2}", middling(own, figure));
    table.row(&[
        runtime.to_string(),
        figure(|round| round.p50),
        figure(|round| round.p99),
        figure(|round| round.costs[0]),
        figure(|round| round.costs[1]),
        format!("{:.3}", middling(own, |round| round.costs[2])),
        figure(|round| round.costs[3]),
        ratio(
            middling(own, |round| round.costs[1]),
            Some(middling(first, |round| round.costs[1])),
        ),
        format!("{:.0}", middling(own, |round| round.idle)),
        own.last()
            .map_or(String::new(), |round| round.noise.clone()),
    ]);
}
