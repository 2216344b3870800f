//! The outside checker: real node processes, nginx, Redis and clients that follow the SDK's rules,
//! faults in all of them, and a judge that reads the history of the run and nothing else.
//!
//! ```text
//! clients ──▶ nginx ──▶ proxy ──▶ node a ──▶ proxy ──▶ Redis ──▶ proxy ──▶ its replica
//!                  └──▶ proxy ──▶ node b ──▶ proxy ──┘
//! ```
//!
//! Without arguments, as the test runner calls it, it makes a short run: a few scenarios under a
//! small load, and three in which the harness itself mutates frames, which tests the judge.
//! `run` and `judge` are for interactive use; see [`args`].

mod args;
mod bars;
mod client;
mod cluster;
mod history;
mod judge;
mod mutation;
mod nginx;
mod presence;
mod proxy;
mod raw;
mod report;
mod run;
mod scenarios;
mod short;
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with the other tests, which use all of it"
)]
#[path = "../support/mod.rs"]
mod support;
mod survivors;
mod world;

use std::process::ExitCode;

use futures::StreamExt;
use switchboard::runtime::{self, Signal};

use args::Asked;
use run::Outcome;

fn main() -> ExitCode {
    let command = match args::read(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("chaos: {problem}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    // Ten thousand clients need as many open files.
    let _ = runtime::raise_file_limit();
    match command {
        Asked::Help => {
            println!("{}", args::USAGE);
            ExitCode::SUCCESS
        }
        Asked::List => {
            for scenario in scenarios::all() {
                println!("{:8} {}", scenario.name, scenario.title.replace('_', " "));
            }
            ExitCode::SUCCESS
        }
        Asked::Judge(paths) => {
            let red = paths.iter().filter(|path| !judge_again(path)).count();
            exit(red == 0)
        }
        Asked::Short { filter, seed } => exit(short::run(filter.as_deref(), seed, interrupts())),
        Asked::Run(plan) => exit(long(&plan)),
    }
}

fn exit(green: bool) -> ExitCode {
    if green {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn judge_again(path: &std::path::Path) -> bool {
    match judge::judge(path) {
        Ok(verdict) => {
            report::one(&verdict, path);
            report::is_expected(&verdict)
        }
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            false
        }
    }
}

/// Disconnected when the user or a supervisor interrupts the run.
fn interrupts() -> flume::Receiver<()> {
    let (interrupt, interrupted) = flume::bounded(1);
    match runtime::signals(&[Signal::Interrupt, Signal::Terminate, Signal::HangUp]) {
        Ok(mut signals) => runtime::spawn(async move {
            signals.next().await;
            drop(interrupt);
        }),
        // Without these handlers Ctrl-C ends this process and leaves its children running.
        Err(error) => {
            eprintln!("chaos: no signals: {error}");
            std::mem::forget(interrupt);
        }
    }
    interrupted
}

/// Runs the scenarios one after the other, with a report of each and a table of all.
fn long(plan: &args::Run) -> bool {
    let setting = run::Setting {
        seed: plan.seed,
        load: plan.load,
        slack: 1,
        one_in: plan.one_in,
        dir: args::artifacts(),
        interrupted: interrupts(),
    };
    println!("seed {}, load {}", plan.seed, plan.load.name);
    let (mut rows, mut green) = (Vec::new(), true);
    for scenario in &plan.scenarios {
        println!(
            "\n== {} {}",
            scenario.name,
            scenario.title.replace('_', " ")
        );
        match run::run(scenario, &setting) {
            Outcome::Judged(verdict, path) => {
                report::one(&verdict, &path);
                green &= report::is_expected(&verdict);
                rows.push(*verdict);
            }
            Outcome::Broken(reason) => {
                println!("   BROKEN: {reason}");
                green = false;
            }
            Outcome::Interrupted => {
                println!("   interrupted");
                green = false;
                break;
            }
        }
    }
    report::table(&rows);
    green
}
