//! What the benches share: servers as processes, the load, and how figures are printed.

pub mod frames;
pub mod load;
pub mod machine;
pub mod message;
pub mod process;
pub mod server;
pub mod table;
pub mod talk;
pub mod watch;

/// A bench ends early only because something is broken; then its sentence is all there is to say.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Whether the runs are long enough to be quoted (`BENCH=full`), rather than to finish in a few minutes.
pub fn full() -> bool {
    std::env::var_os("BENCH").is_some_and(|value| value == "full")
}

/// One of two sizes: for every day, and for a run that is quoted.
pub fn size<T>(small: T, quoted: T) -> T {
    if full() { quoted } else { small }
}
