//! The command `switchboard`: reads the configuration, starts the log, runs a node, and maps the
//! outcome to an exit code: 0 after a drain, 2 for a configuration that is refused, 1 when the
//! node cannot start, 70 when it failed.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use switchboard::auth::{self, Auth};
use switchboard::config::{Config, ConfigError, Invocation, TokenRequest};
use switchboard::dispatcher::Now;
use switchboard::server::shutdown;
use switchboard::{logger, runtime, server};

/// Returns the memory of closed connections to the system, which the C library's allocator does
/// not, and takes less time per message: bench/README.md has the measurements.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let parsed = Invocation::parse(std::env::args_os(), std::env::vars_os(), |path| {
        std::fs::read_to_string(path)
    });
    match parsed {
        Ok(Invocation::Serve(config)) => serve(&config),
        Ok(Invocation::CheckConfig(config)) => match Auth::new(&config) {
            Ok(_) => {
                print(&config.to_toml());
                ExitCode::SUCCESS
            }
            Err(error) => refuse(&error),
        },
        Ok(Invocation::Token(order)) => token(&order),
        Ok(Invocation::Text(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &dyn Display) -> ExitCode {
    print_error(error);
    ExitCode::from(ConfigError::EXIT_CODE)
}

/// Prints a token and nothing else, for scripts.
fn token(order: &TokenRequest) -> ExitCode {
    match auth::sign(order, Now::read().unix_ms) {
        Ok(token) => {
            print(&format!("{}\n", token.expose()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            print_error(&format_args!("switchboard: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(config: &Config) -> ExitCode {
    let _logger = match logger::start(config.log_level) {
        Ok(logger) => logger,
        Err(error) => {
            print_error(&format_args!("switchboard: cannot start the log: {error}"));
            return ExitCode::FAILURE;
        }
    };
    std::panic::set_hook(Box::new(|panic| {
        log::error!(panic = panic.to_string().as_str(); "panicked");
    }));
    let files = runtime::raise_file_limit().unwrap_or_default();
    for warning in &config.warnings {
        log::warn!(warning = warning.as_str(); "configuration");
    }
    let signals = match shutdown::signals() {
        Ok(signals) => signals,
        Err(error) => {
            log::error!(error = error.to_string().as_str(); "cannot listen for signals");
            return ExitCode::FAILURE;
        }
    };
    let server = match server::start(config) {
        Ok(server) => server,
        Err(error) => {
            log::error!(error = error.to_string().as_str(); "cannot start");
            print_error(&format_args!("switchboard: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let api = server.api_address().unwrap_or(server.address()).to_string();
    log::info!(
        node = config.node.as_str(),
        listen = server.address().to_string().as_str(),
        broker = if config.redis.is_empty() { "memory" } else { "redis" },
        api = api.as_str(),
        runtime = runtime::name(),
        files = files,
        version = env!("CARGO_PKG_VERSION");
        "listening"
    );
    if config.is_open() {
        log::warn!("open mode: clients are not authenticated");
    }
    runtime::block_on(shutdown::run(server, signals))
}

/// Prints to standard output; a closed standard output is ignored.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Prints to standard error why the process ends; a closed standard error is ignored.
fn print_error(error: &dyn Display) {
    let _ = writeln!(io::stderr(), "{error}");
}
