//! The commands that call the HTTP API of running nodes (`rooms`): their arguments, and the options
//! that they share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use super::api_url::{ApiUrl, api_url};
use super::arity::{maybe, one};
use super::client_commands::{AFTER_HELP, flag};
use super::kinds::file;
use super::numbers::{HOUR, SECOND, time};
use super::options::{OptionSpec, Options, options};
use super::parser::ValueParser;
use super::server_url::{ServerUrl, server_url};
use super::sources::{self, Variables};
use super::values::{ConfigError, Values};
use crate::model::id::RoomPrefix;
use crate::model::secret::Secret;

options! {
    /// How a command reaches the HTTP API.
    pub struct ApiOptions {}

    "Connection" {
        /// The address of a node, or of the proxy in front of the nodes; the API is taken to be
        /// there too
        url: ServerUrl = one(server_url()), "URL", "ws://localhost:9090/ws";

        /// The address of the HTTP API where it has one of its own (--api-listen)
        api_url: Option<ApiUrl> = maybe(api_url()), "URL", "";

        /// A key of the HTTP API; a node of this machine in open mode needs none
        api_key: Option<Secret<String>> = maybe(api_key()), "KEY", "";

        /// The authorities that signed the certificate of the API's address, in PEM; without it
        /// the public ones
        ca: Option<PathBuf> = maybe(file()), "FILE", "";
    }

    "Connection", variables: false {
        /// How long an answer may take
        timeout: Duration = one(time(SECOND, HOUR)), "TIME", "10s";
    }
}

fn api_key() -> ValueParser<Secret<String>> {
    let parse = |text: &str| {
        let printable = |byte: u8| byte.is_ascii_graphic();
        match text.trim() {
            "" => Err("is empty"),
            key if !key.bytes().all(printable) => Err("has characters that no key has"),
            key => Ok(Secret::new(key.to_owned())),
        }
    };
    ValueParser::new(parse, |_| "***").redacted(|_| "***".into())
}

/// A call of the API, and how it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiInvocation {
    pub options: ApiOptions,
    pub command: ApiCommand,
    /// Whether the output is JSON, one object to a line.
    pub json: bool,
}

/// What is called.
#[derive(Clone, Debug, PartialEq)]
pub enum ApiCommand {
    /// Lists the occupied rooms whose names have this beginning.
    Rooms { prefix: Option<RoomPrefix> },
}

/// The names of the commands.
pub(super) const NAMES: [&str; 1] = ["rooms"];

pub(super) fn commands() -> [Command; 1] {
    let prefix = |text: &str| RoomPrefix::new(text);
    let rooms = Command::new("rooms")
        .about("List the occupied rooms with their connections, users and anonymous connections")
        .args([
            Arg::new("prefix")
                .value_name("PREFIX")
                .value_parser(prefix)
                .help(
                    "Only rooms whose names begin with this; @ lists the personal rooms, so the \
                     users that are online",
                ),
            flag("json", "Print each room as one line of JSON"),
        ]);
    [rooms].map(|command| {
        command
            .after_help(AFTER_HELP)
            .args(ApiOptions::specs().iter().map(OptionSpec::arg))
    })
}

impl ApiOptions {
    /// Where the API is.
    pub(crate) fn api(&self) -> ApiUrl {
        let beside = || ApiUrl::beside(&self.url);
        self.api_url.clone().unwrap_or_else(beside)
    }
}

impl ApiInvocation {
    pub(super) fn read(mut flags: ArgMatches, variables: &Variables) -> Result<Self, ConfigError> {
        let command = ApiCommand::Rooms {
            prefix: flags.remove_one("prefix"),
        };
        let json = flags.get_flag("json");
        let (specs, mut values) = (ApiOptions::specs(), Values::default());
        variables.put(&specs, &mut values);
        sources::from_flags(&mut flags, &specs, &mut values);
        let options = ApiOptions::take(&mut values);
        Ok(Self {
            options: options.ok_or(ConfigError::Invalid(values.problems))?,
            command,
            json,
        })
    }
}
