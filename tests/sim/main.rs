//! The deterministic simulation: real dispatchers over a model of Redis, in virtual time, under seeded faults, with clients
//! that keep the rules of the SDK, judged by an oracle. A schedule is a seed: `make sim SEED=…` plays one again and tells
//! what happened, line by line; `make sim` plays many new ones.

mod client;
mod faults;
mod node;
mod oracle;
mod redis;
mod transport;
mod trouble;
mod world;

use std::time::Instant;

use faults::{Plan, Weather};
use oracle::{Figures, Violation};
use transport::{Tampering, Transport};
use world::World;

/// Schedules of one run of the tests: what is asked of continuous integration, or a taste where nothing is optimised.
const SCHEDULES: u64 = 100_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable)
        .ok()
        .filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} must be a whole number, not {text}")),
    )
}

fn play(
    seed: u64,
    weather: Weather,
    transport: Transport,
    trace: bool,
) -> (Vec<Violation>, Figures, bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let plan = Plan::new(&mut random, weather);
    if trace {
        println!("{plan:#?}");
    }
    World::new(plan, random, transport, trace).run()
}

#[test]
fn whatever_breaks_nothing_is_lost_doubled_or_disordered() {
    if let Some(seed) = number("SEED") {
        let (violations, figures, _) = play(seed, Weather::Any, Transport::default(), true);
        println!("{figures:?}");
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        return;
    }
    let (first, count) = (
        number("SIM_FIRST").unwrap_or(0),
        number("SIM_SCHEDULES").unwrap_or(SCHEDULES),
    );
    let keep_going = number("SIM_ALL").is_some();
    let (started, mut total, mut failed) = (Instant::now(), Figures::default(), Vec::new());
    for seed in first..first + count {
        let (violations, figures, _) = play(seed, Weather::Any, Transport::default(), false);
        total.add(figures);
        if let Some(violation) = violations.first() {
            println!("seed {seed}: {:?}: {}", violation.kind, violation.text);
            failed.push(seed);
            if !keep_going {
                break;
            }
        }
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!(
        "sim: {count} schedules from seed {first}, {rate:.0} a second, {} failed; {total:?}",
        failed.len()
    );
    assert!(
        failed.is_empty(),
        "play it again with: make sim SEED={}",
        failed[0]
    );
}

/// Plays schedules in which one message is tampered with on its way to a client: the oracle must notice each.
fn all_are_noticed(what: Tampering) {
    let mut tampered = 0;
    for seed in 0..400 {
        let transport = Transport::tampering(what, seed % 13);
        let (violations, _, was_tampered) = play(seed, Weather::Sheltered, transport, false);
        assert_eq!(
            was_tampered,
            !violations.is_empty(),
            "seed {seed}: {violations:#?}"
        );
        tampered += u64::from(was_tampered);
    }
    assert!(
        tampered > 300,
        "only {tampered} schedules had such a message"
    );
}

#[test]
fn a_dropped_message_is_noticed() {
    all_are_noticed(Tampering::Drop);
}

#[test]
fn a_doubled_message_is_noticed() {
    all_are_noticed(Tampering::Double);
}

#[test]
fn two_swapped_messages_are_noticed() {
    all_are_noticed(Tampering::Swap);
}
