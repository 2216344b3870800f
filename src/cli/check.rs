//! `switchboard check`: prints what a node would do with its configuration, without starting one or
//! connecting to anything.

use std::process::ExitCode;

use super::client::note;
use super::{fail, refuse, succeed};
use crate::auth::Auth;
use crate::config::{Config, RedisUrl};
use crate::runtime;
use crate::server::{FILE_RESERVE, max_connections};

/// Prints the effective configuration as a file, if its keys can be used.
pub(super) fn print_file(config: &Config) -> ExitCode {
    match Auth::new(config) {
        Ok(_) => succeed(&config.to_toml()),
        Err(error) => refuse(&error),
    }
}

/// Prints a sentence for each part of the node. Ends with an error if the machine has too few files
/// for the connections.
pub(super) fn run(config: &Config) -> ExitCode {
    if let Err(error) = Auth::new(config) {
        return refuse(&error);
    }
    let files = runtime::raise_file_limit().unwrap_or_default();
    let parts = [
        ("listener", listener(config)),
        ("clients", clients(config)),
        ("API", api(config)),
        ("broker", broker(config)),
        ("history", history(config)),
        ("limits", limits(config, files)),
        ("webhooks", webhooks(config)),
    ];
    let lines = parts.map(|(part, sentence)| format!("{part:<9} {sentence}\n"));
    let printed = succeed(&lines.concat());
    for warning in &config.warnings {
        note(warning);
    }
    let needed = (config.max_connections as u64).saturating_add(FILE_RESERVE);
    if config.max_connections > 0 && files > 0 && needed > files {
        return fail(&format_args!(
            "--max-connections {} needs a limit of {needed} open files, and it is {files}: raise \
             it (ulimit -n, LimitNOFILE= in a systemd unit)",
            config.max_connections
        ));
    }
    printed
}

fn listener(config: &Config) -> String {
    let reach = if config.listen.ip().to_canonical().is_loopback() {
        "only this machine reaches it"
    } else {
        "other machines reach it"
    };
    let origins = match config.allow_origin.as_slice() {
        [] => "pages of its own host may connect".to_owned(),
        origins => format!(
            "pages of its own host and of {} may connect",
            origins.join(", ")
        ),
    };
    format!("{}: {reach}; {origins}", config.listen)
}

fn clients(config: &Config) -> String {
    let rules = match config.room.len() {
        0 => "no rules for rooms".to_owned(),
        count => format!("rules for rooms: {count}"),
    };
    if config.is_open() {
        return format!("open mode: any name is accepted and not verified; {rules}");
    }
    let secret = config.token_secret_file.iter();
    let secret = secret.map(|file| format!("the secret of {}", file.path.display()));
    let keys = config.token_key.iter();
    let keys = keys.map(|key| format!("the public key of {}", key.path.display()));
    let keys: Vec<String> = secret.chain(keys).collect();
    format!("tokens, verified with {}; {rules}", keys.join(", "))
}

fn api(config: &Config) -> String {
    let place = config.api_listen.map_or_else(
        || "on the listener".to_owned(),
        |address| format!("on {address}"),
    );
    if config.api_key_file.is_some() {
        return format!("{place}, with the keys of its file");
    }
    let address = config.api_listen.unwrap_or(config.listen);
    if config.is_open() && address.ip().to_canonical().is_loopback() {
        return format!("{place}, without keys, for programs of this machine");
    }
    "off: there is no --api-key-file".into()
}

fn broker(config: &Config) -> String {
    if config.redis.is_empty() {
        return "none: the node is alone, and keeps everything in memory".into();
    }
    let addresses: Vec<String> = config.redis.iter().map(RedisUrl::to_string).collect();
    let (addresses, prefix) = (addresses.join(", "), &config.prefix);
    format!("Redis at {addresses}; the cluster of the prefix {prefix}")
}

fn history(config: &Config) -> String {
    let (size, age) = (config.history_size, config.history_age);
    let rules = match config.history.len() {
        0 => String::new(),
        count => format!("; rules for other rooms: {count}"),
    };
    format!("{size} messages of a room, for {age:?} after the last{rules}")
}

fn limits(config: &Config, files: u64) -> String {
    let or_none = |limit: usize| match limit {
        0 => "no limit".to_owned(),
        limit => limit.to_string(),
    };
    let connections = max_connections(config);
    format!(
        "connections: {connections} (open files: {files}), of one address: {}; commands of a \
         client per second: {}",
        or_none(config.address_connections()),
        or_none(config.session_commands())
    )
}

fn webhooks(config: &Config) -> String {
    match &config.webhook_url {
        None => "none".into(),
        Some(url) => format!("to {url}"),
    }
}
