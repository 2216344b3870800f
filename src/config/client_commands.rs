//! The commands that are clients of running nodes (`publish`, `tail`, `history`, `members`): their
//! arguments, and the options for the connection that they share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::arity::{maybe, one};
use super::kinds::file;
use super::numbers::{HOUR, SECOND, time};
use super::options::{OptionSpec, Options, options};
use super::parser::ValueParser;
use super::server_url::{ServerUrl, server_url};
use super::sources::{self, Variables};
use super::values::{ConfigError, Values};
use crate::model::id::{Epoch, Position, RoomName, UserName};
use crate::model::publication::KEY_BYTES;
use crate::model::secret::Secret;

options! {
    /// How a command reaches the nodes.
    pub struct ConnectOptions {}

    "Connection" {
        /// The address of a node, or of the proxy in front of the nodes
        url: ServerUrl = one(server_url()), "URL", "ws://localhost:9090/ws";

        /// The token to sign in with, where nodes have keys for tokens
        token: Option<Secret<String>> = maybe(token()), "TOKEN", "";

        /// The name to sign in with, where nodes are in open mode
        user: Option<UserName> = maybe(user_name()), "NAME", "";

        /// The authorities that signed the certificate of a wss:// address, in PEM; without it the
        /// public ones
        ca: Option<PathBuf> = maybe(file()), "FILE", "";
    }

    "Connection", variables: false {
        /// How long an answer may take; tail and members --watch reconnect without limit
        timeout: Duration = one(time(SECOND, HOUR)), "TIME", "10s";
    }
}

fn token() -> ValueParser<Secret<String>> {
    let parse = |text: &str| match text.trim() {
        "" => Err("is empty"),
        token => Ok(Secret::new(token.to_owned())),
    };
    ValueParser::new(parse, |_| "***").redacted(|_| "***".into())
}

fn user_name() -> ValueParser<UserName> {
    ValueParser::new(UserName::new, UserName::to_string)
}

/// A command of a client, and how it connects.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientInvocation {
    pub connect: ConnectOptions,
    pub command: ClientCommand,
    /// Whether the output is JSON, one object to a line.
    pub json: bool,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientCommand {
    Publish {
        room: RoomName,
        /// `None`: each line of standard input.
        data: Option<String>,
        key: Option<String>,
        ephemeral: bool,
    },
    Tail {
        rooms: Vec<RoomName>,
        start: Start,
    },
    History {
        room: RoomName,
        before: Option<u64>,
        /// The most messages in all.
        limit: usize,
    },
    Members {
        room: RoomName,
        /// Whether it follows the changes.
        watch: bool,
    },
}

/// Where a tail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Now,
    /// With the oldest message that the room has.
    Beginning,
    /// Behind this position.
    After(Position),
}

/// The names of the commands.
pub(super) const NAMES: [&str; 4] = ["publish", "tail", "history", "members"];

pub(super) const AFTER_HELP: &str = "Data goes to standard output, notes go to standard error. \
                          Exit codes: 0 done, 1 refused by the server, 2 wrong usage, 3 no \
                          answer in time (a publish may or may not have happened).";

pub(super) fn commands() -> [Command; 4] {
    let publish = Command::new("publish")
        .about("Publish to a room: one message, or each line of standard input")
        .args([
            room(),
            Arg::new("data").value_name("DATA").help(
                "The message: JSON if it parses, else a text. Without it or with - each line of \
                 standard input is a message",
            ),
            Arg::new("key")
                .long("key")
                .value_name("KEY")
                .value_parser(key)
                .help("Makes a repetition within five minutes add nothing; 1 to 64 bytes"),
            flag(
                "ephemeral",
                "Reach only those who are connected now; nothing is stored",
            ),
            flag("json", "Print the position as JSON"),
        ]);
    let tail = Command::new("tail")
        .about("Print the messages of rooms as they come, over reconnects")
        .args([
            room().num_args(1..).action(ArgAction::Append),
            Arg::new("since")
                .long("since")
                .value_name("POSITION")
                .value_parser(start)
                .help("beginning, or EPOCH/OFFSET as publish prints it; without it from now on"),
            flag(
                "json",
                "Print each message as one line of JSON, as clients receive it",
            ),
        ]);
    let history = Command::new("history")
        .about("Print the messages that a room has stored")
        .args([
            room(),
            Arg::new("before")
                .long("before")
                .value_name("OFFSET")
                .value_parser(value_parser!(u64))
                .help("Only messages below this offset"),
            Arg::new("limit")
                .long("limit")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..))
                .default_value("50")
                .help("The most messages, the newest"),
            flag("json", "Print each message as one line of JSON"),
        ]);
    let members = Command::new("members")
        .about("Print who is in a room, over all nodes")
        .args([
            room(),
            flag("watch", "Stay, and print who comes and goes"),
            flag("json", "Print each member as one line of JSON"),
        ]);
    [publish, tail, history, members].map(|command| {
        command
            .after_help(AFTER_HELP)
            .args(ConnectOptions::specs().iter().map(OptionSpec::arg))
    })
}

fn room() -> Arg {
    let parse = |text: &str| RoomName::new(text);
    Arg::new("room")
        .value_name("ROOM")
        .required(true)
        .value_parser(parse)
}

pub(super) fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn key(text: &str) -> Result<String, String> {
    if (1..=KEY_BYTES).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!("must have 1 to {KEY_BYTES} bytes"))
}

fn start(text: &str) -> Result<Start, &'static str> {
    if text == "beginning" {
        return Ok(Start::Beginning);
    }
    let wrong = "is neither beginning nor EPOCH/OFFSET";
    let (epoch, offset) = text.split_once('/').ok_or(wrong)?;
    let epoch = Epoch::parse(epoch);
    if epoch == Epoch::UNKNOWN {
        return Err(wrong);
    }
    let offset = offset.parse().map_err(|_| wrong)?;
    Ok(Start::After(Position { epoch, offset }))
}

impl ClientInvocation {
    pub(super) fn read(
        name: &str,
        mut flags: ArgMatches,
        variables: &Variables,
    ) -> Result<Self, ConfigError> {
        let command = command(name, &mut flags);
        let json = flags.get_flag("json");
        let (options, mut values) = (ConnectOptions::specs(), Values::default());
        variables.put(&options, &mut values);
        sources::from_flags(&mut flags, &options, &mut values);
        let connect = ConnectOptions::take(&mut values);
        Ok(Self {
            connect: connect.ok_or(ConfigError::Invalid(values.problems))?,
            command,
            json,
        })
    }
}

fn command(name: &str, flags: &mut ArgMatches) -> ClientCommand {
    let mut rooms = flags.remove_many("room").expect("clap requires a room");
    let mut room = || rooms.next().expect("clap requires a room");
    match name {
        "publish" => ClientCommand::Publish {
            room: room(),
            data: flags.remove_one("data").filter(|data| data != "-"),
            key: flags.remove_one("key"),
            ephemeral: flags.get_flag("ephemeral"),
        },
        "tail" => ClientCommand::Tail {
            rooms: rooms.collect(),
            start: flags.remove_one("since").unwrap_or(Start::Now),
        },
        "history" => ClientCommand::History {
            room: room(),
            before: flags.remove_one("before"),
            limit: flags
                .remove_one::<u64>("limit")
                .map_or(50, |limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        },
        _ => ClientCommand::Members {
            room: room(),
            watch: flags.get_flag("watch"),
        },
    }
}
