//! What the benches share: servers as processes, the load, and how figures are printed.

pub mod asked;
pub mod closed_loop;
pub mod dialogue;
pub mod frames;
pub mod load;
pub mod machine;
pub mod message;
pub mod open_loop;
pub mod process;
pub mod script;
pub mod server;
pub mod table;
pub mod talk;
pub mod watch;

use std::time::{Duration, Instant};

/// A bench ends early only because something is broken; its message is printed.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Whether the runs are long enough to be quoted (`BENCH=full`), rather than to finish in a few
/// minutes.
pub fn full() -> bool {
    std::env::var_os("BENCH").is_some_and(|value| value == "full")
}

/// One of two sizes: for every day, and for a run that is quoted.
pub fn size<T>(small: T, quoted: T) -> T {
    if full() { quoted } else { small }
}

/// The median: one disturbed round does not move it. Zero without any.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

/// Waits until a server has closed all but so many files: those of all former clients.
pub fn gone(server: &server::Server, files: usize) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.open_files() > files {
        if Instant::now() > deadline {
            return Err("the server keeps connections that have gone".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether a case is to be measured: each, unless `BENCH_CASE` names some, with commas between.
pub fn wanted(case: &str) -> bool {
    let some = std::env::var("BENCH_CASE");
    some.map_or(true, |some| some.split(',').any(|name| name == case))
}
