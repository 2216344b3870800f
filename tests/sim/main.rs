//! The deterministic simulation: real dispatchers over a model of Redis, in virtual time, under
//! seeded faults, with clients that follow the rules of the SDK, checked by an oracle. A schedule
//! is a seed: `make sim SEED=…` replays one and prints a trace; `make sim` plays many new ones.

mod client;
mod cursors;
mod faults;
mod frames;
mod herd;
mod injection;
mod node;
mod oracle;
mod presence;
mod redis;
mod settled;
mod store;
mod transport;
mod turns;
mod view;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use faults::{FaultMix, Plan};
use oracle::{Figures, Violation};
use transport::{Tampering, Transport};
use world::World;

/// Schedules of one run without `SIM_SCHEDULES`: few, because builds without optimisation are slow.
const SCHEDULES: u64 = 2_000;

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
    mix: FaultMix,
    transport: Transport,
    trace: bool,
) -> (Vec<Violation>, Figures, bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let plan = Plan::new(&mut random, mix);
    if trace {
        println!("{plan:#?}");
    }
    World::new(plan, random, transport, trace).run()
}

#[test]
fn schedules_lose_duplicate_and_reorder_nothing() {
    if let Some(seed) = number("SEED") {
        let (violations, figures, _) = play(seed, FaultMix::Any, Transport::default(), true);
        println!("{figures:?}");
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        return;
    }
    let (first, count) = (
        number("SIM_FIRST").unwrap_or(0),
        number("SIM_SCHEDULES").unwrap_or(SCHEDULES),
    );
    let started = Instant::now();
    let batch = Batch::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| batch.play(first, count));
        }
    });
    // A run stops early after many failures.
    let count = batch.next.into_inner().min(count);
    let rate = count as f64 / started.elapsed().as_secs_f64();
    let total = batch.total.into_inner().expect("no thread has panicked");
    let failed = batch.failed.into_inner().expect("no thread has panicked");
    println!(
        "sim: {count} schedules from seed {first}, {rate:.0} a second, {} failed; {total:?}",
        failed.len()
    );
    assert!(
        failed.is_empty(),
        "seeds {failed:?} failed; play the first again: make sim SEED={}",
        failed[0]
    );
}

/// The schedules of one run, shared by its threads.
#[derive(Default)]
struct Batch {
    next: AtomicU64,
    total: Mutex<Figures>,
    failed: Mutex<Vec<u64>>,
}

impl Batch {
    /// Plays schedules until none is left, or until ten have failed: enough to see what they have
    /// in common.
    fn play(&self, first: u64, count: u64) {
        let mut sum = Figures::default();
        loop {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            if next >= count || self.failed.lock().expect("no thread has panicked").len() >= 10 {
                break;
            }
            let seed = first + next;
            let played =
                std::panic::catch_unwind(|| play(seed, FaultMix::Any, Transport::default(), false));
            let violation = match &played {
                Ok((violations, figures, _)) => {
                    sum.add(*figures);
                    violations
                        .first()
                        .map(|violation| format!("{:?}: {}", violation.kind, violation.text))
                }
                Err(_) => Some("panicked".to_owned()),
            };
            if let Some(text) = violation {
                println!("seed {seed}: {text}");
                self.failed
                    .lock()
                    .expect("no thread has panicked")
                    .push(seed);
            }
        }
        self.total.lock().expect("no thread has panicked").add(sum);
    }
}

/// Plays schedules in which the transport tampers with one message to a client: the oracle must
/// detect each.
fn assert_detected(what: Tampering) {
    let mut tampered = 0;
    for seed in 0..400 {
        let transport = Transport::tampering(what, seed % 13);
        let (violations, _, was_tampered) = play(seed, FaultMix::StoreOnly, transport, false);
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
fn oracle_detects_a_dropped_message() {
    assert_detected(Tampering::Drop);
}

#[test]
fn oracle_detects_a_duplicated_message() {
    assert_detected(Tampering::Duplicate);
}

#[test]
fn oracle_detects_two_swapped_messages() {
    assert_detected(Tampering::Swap);
}

/// Not every one is detectable: a client that requests the list again misses nothing.
#[test]
fn oracle_detects_a_dropped_presence_event() {
    let (mut tampered, mut detected) = (0, 0);
    for seed in 0..200 {
        let transport = Transport::tampering(Tampering::Hide, seed % 5);
        let (violations, _, was_tampered) = play(seed, FaultMix::StoreOnly, transport, false);
        assert!(was_tampered || violations.is_empty(), "{violations:#?}");
        tampered += u64::from(was_tampered);
        detected += u64::from(!violations.is_empty());
    }
    assert!(
        tampered > 100 && detected * 10 > tampered * 7,
        "{detected} of {tampered}"
    );
}
