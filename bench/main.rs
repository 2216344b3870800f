//! What speed and memory cost, measured: `cargo bench` runs every bench below in its small size,
//! `cargo bench -- flood idle` those that are named, and `BENCH=full` lets them run long enough to
//! be quoted. `bench/README.md` lists what each measures.
//!
//! Nodes run as processes of their own, pinned to a core other than the load's; the physical limit
//! runs in the same way, as this very program under another name.

#![forbid(unsafe_code)]

mod dispatcher;
mod fanout;
mod flood;
mod growth;
mod idle;
mod joins;
mod limit;
mod peers;
mod presence;
mod publishes;
mod runtimes;
mod support;
mod threads;

use std::process::ExitCode;

use support::{Outcome, machine, server::Kind};

/// A bench: its name, and what runs it.
type Bench = (&'static str, fn() -> Outcome);

/// Run only when they are named: one needs what `bench/peers/install` installs, the other builds
/// two more nodes.
const ONLY_NAMED: [&str; 2] = ["peers", "runtimes"];

const BENCHES: [Bench; 11] = [
    ("dispatcher", dispatcher::run),
    ("fanout", fanout::run),
    ("flood", flood::run),
    ("idle", idle::run),
    ("joins", joins::run),
    ("growth", growth::run),
    ("threads", threads::run),
    ("redis", publishes::run),
    ("presence", presence::run),
    ("peers", peers::run),
    ("runtimes", runtimes::run),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.as_slice() {
        [limit, kind, port, redis @ ..] if limit == "limit" => serve_limit(kind, port, redis),
        _ => measure(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_limit(kind: &str, port: &str, redis: &[String]) -> Outcome {
    let redis = redis.first().map(|port| port.parse()).transpose()?;
    let limits = [Kind::Plain, Kind::Merging, Kind::Logging];
    let kind = limits.into_iter().find(|limit| limit.name() == kind);
    limit::run(kind.ok_or("no such limit")?, port.parse()?, redis)
}

fn measure(args: &[String]) -> Outcome {
    // Cargo itself adds flags such as --bench.
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    if let Some(unknown) = wanted
        .iter()
        .find(|name| BENCHES.iter().all(|(known, _)| known != *name))
    {
        let known = BENCHES.map(|(name, _)| name).join(", ");
        return Err(format!("no bench is called {unknown}; there are {known}").into());
    }
    println!("{}", machine::describe());
    for (name, run) in BENCHES {
        let named = wanted.iter().any(|wanted| wanted.as_str() == name);
        if named || (wanted.is_empty() && !ONLY_NAMED.contains(&name)) {
            run()?;
        }
    }
    Ok(())
}
