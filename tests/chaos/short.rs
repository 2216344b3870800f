//! The short run, as a test: a few scenarios at once, each with its own cluster, and the three with
//! mutated frames. Its output is that of the standard test harness, which scripts parse.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::args;
use crate::judge;
use crate::report;
use crate::run::{self, Outcome, Setting};
use crate::scenarios::{self, Scenario};
use crate::world::Load;

/// The scenarios worth half a minute before every commit; the longest first.
const SELECTED: [&str; 12] = [
    "A8", "C2", "B3", "B1", "A2", "A1", "B7", "B13", "B14", "MDROP", "MDOUBLE", "MSWAP",
];

/// Scenarios at once: they mostly wait.
const AT_ONCE: usize = 3;

/// Smaller than the small load, because the clusters share the processors with each other and with
/// unoptimised nodes.
const LOAD: Load = Load {
    name: "small",
    clients: 40,
    rooms: 8,
    quiet: Duration::from_secs(1),
    after: Duration::from_secs(3),
    ..Load::SMALL
};

/// The short run tests losses; `make chaos` judges durations. A machine may be busy with ten times
/// as much.
const SLACK: u32 = 20;

/// The M scenarios mutate one message in so many, so that some are mutated within seconds.
const ONE_IN: u32 = 200;

/// Runs what `filter` selects. Returns whether all verdicts are the expected ones.
pub fn run(filter: Option<&str>, seed: u64, interrupted: flume::Receiver<()>) -> bool {
    let setting = Setting {
        seed,
        load: LOAD,
        slack: SLACK,
        one_in: ONE_IN,
        dir: args::artifacts().join("short"),
        interrupted,
    };
    let wanted = |scenario: &Scenario| filter.is_none_or(|part| scenario.title.contains(part));
    let selected: Vec<Scenario> = SELECTED
        .iter()
        .rev()
        .filter_map(|name| scenarios::find(name).filter(wanted))
        .collect();
    let (count, filtered) = (selected.len(), SELECTED.len() - selected.len());
    println!("\nrunning {} tests, seed {seed}", count + 1);
    let start = Instant::now();
    let misjudged = judge::cases::misjudged();
    let waiting = Mutex::new(selected);
    let failed = Mutex::new(Vec::new());
    let result = if misjudged.is_empty() { "ok" } else { "FAILED" };
    println!("test chaos::judge_detects_each_fault_in_a_small_history ... {result}");
    misjudged
        .iter()
        .for_each(|case| println!("   misjudged: {case}"));
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                loop {
                    let next = waiting.lock().map_or(None, |mut waiting| waiting.pop());
                    let Some(scenario) = next else { return };
                    let passed = one(&scenario, &setting);
                    if let (false, Ok(mut failed)) = (passed, failed.lock()) {
                        failed.push(scenario.title);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_default();
    failed.extend(misjudged);
    let count = count + 1;
    let result = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {} passed; {} failed; 0 ignored; 0 measured; \
         {filtered} filtered out; finished in {:.2}s\n",
        count.saturating_sub(failed.len()),
        failed.len(),
        start.elapsed().as_secs_f64()
    );
    failed.is_empty()
}

fn one(scenario: &Scenario, setting: &Setting) -> bool {
    let outcome = run::run(scenario, setting);
    let passed = matches!(&outcome, Outcome::Judged(verdict, _) if report::is_expected(verdict));
    let result = if passed { "ok" } else { "FAILED" };
    println!("test chaos::{} ... {result}", scenario.title);
    match outcome {
        Outcome::Judged(verdict, path) if !passed => report::one(&verdict, &path),
        Outcome::Judged(..) => {}
        Outcome::Broken(reason) => println!("   broken: {reason}"),
        Outcome::Interrupted => println!("   interrupted"),
    }
    passed
}
