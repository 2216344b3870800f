//! The command `switchboard`; [`switchboard::cli`] parses the command line and runs it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use switchboard::cli;

/// Returns the memory of closed connections to the system, which the C library's allocator does
/// not, and takes less time per message: bench/README.md has the measurements.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run(std::env::args_os(), std::env::vars_os())
}
