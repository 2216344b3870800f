//! `switchboard serve`: starts the log, and runs a node until a signal stops it.

use std::panic;
use std::process::ExitCode;

use super::fail;
use crate::config::Config;
use crate::server::{self, Server, shutdown};
use crate::{logger, runtime};

pub(super) fn run(config: &Config) -> ExitCode {
    let _logger = match logger::start(config.log_level) {
        Ok(logger) => logger,
        Err(error) => return fail(&format_args!("cannot start the log: {error}")),
    };
    log_panics();
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
    let checked = runtime::block_on(server::check_redis(config));
    let server = match checked.and_then(|()| Server::start(config)) {
        Ok(server) => server,
        Err(error) => {
            log::error!(error = error.to_string().as_str(); "cannot start");
            return fail(&error);
        }
    };
    log_start(config, &server, files);
    runtime::block_on(shutdown::run(server, signals))
}

fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        log::error!(panic = panic.to_string().as_str(); "panicked");
    }));
}

/// `files` is the limit of open files.
fn log_start(config: &Config, server: &Server, files: u64) {
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
}
