//! The options of `switchboard bench`, which loads a running cluster.

use std::time::Duration;

use clap::{ArgMatches, Command};

use super::arity::one;
use super::client_commands::{ConnectOptions, flag};
use super::numbers::{HOUR, SECOND, count, size, time};
use super::options::{OptionSpec, Options, options};
use super::parser::ValueParser;
use super::sources::{self, Variables};
use super::values::{ConfigError, Values};
use crate::model::id::RoomName;

options! {
    /// The load, checked.
    pub struct BenchOptions {}

    "Load", variables: false {
        /// How many connections to open; each joins one room
        connections: usize = one(count(1, 100_000)), "COUNT", "100";

        /// How many of the connections also publish, at most all
        publishers: usize = one(count(1, 100_000)), "COUNT", "10";

        /// How many rooms the connections are spread over
        rooms: usize = one(count(1, 100_000)), "COUNT", "10";

        /// How many messages all publishers together publish per second. Zero: each publishes the
        /// next as soon as the former is answered
        rate: usize = one(count(0, 10_000_000)), "COUNT", "100";

        /// How large the data of a message is
        size: usize = one(size(64, 1 << 20)), "SIZE", "128";

        /// How long to publish
        duration: Duration = one(time(SECOND, 24 * HOUR)), "TIME", "10s";

        /// The beginning of the names of the rooms, which go on with a dot and a number
        room: RoomName = one(room()), "NAME", "bench";
    }
}

fn room() -> ValueParser<RoomName> {
    ValueParser::new(RoomName::new, RoomName::to_string)
}

/// The load, and how it connects.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchRequest {
    pub connect: ConnectOptions,
    pub load: BenchOptions,
    /// Whether nothing is stored.
    pub ephemeral: bool,
    pub json: bool,
}

const AFTER_HELP: &str = "Data goes to standard output, notes and the progress go to standard \
                          error. Exit codes: 0 every message was delivered, 1 refused by the \
                          server, 2 wrong usage, 3 an answer or a message did not come in time.";

pub(super) fn command() -> Command {
    Command::new("bench")
        .about("Load running nodes, and measure latency and throughput")
        .after_help(AFTER_HELP)
        .args([
            flag("ephemeral", "Publish messages that are not stored"),
            flag("json", "Print one JSON object; times are in microseconds"),
        ])
        .args(BenchOptions::specs().iter().map(OptionSpec::arg))
        .args(ConnectOptions::specs().iter().map(OptionSpec::arg))
}

impl BenchRequest {
    pub(super) fn read(mut flags: ArgMatches, variables: &Variables) -> Result<Self, ConfigError> {
        let (ephemeral, json) = (flags.get_flag("ephemeral"), flags.get_flag("json"));
        let (load, connect) = (BenchOptions::specs(), ConnectOptions::specs());
        let mut values = Values::default();
        variables.put(&connect, &mut values);
        for specs in [&load, &connect] {
            sources::from_flags(&mut flags, specs, &mut values);
        }
        let (load, connect) = (
            BenchOptions::take(&mut values),
            ConnectOptions::take(&mut values),
        );
        let (Some(load), Some(connect)) = (load, connect) else {
            return Err(ConfigError::Invalid(values.problems));
        };
        Ok(Self {
            connect,
            load,
            ephemeral,
            json,
        })
    }
}
