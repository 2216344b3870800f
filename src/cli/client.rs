//! What the commands share that are clients: the connection, its notes on standard error, and the
//! exit codes.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::{history, members, print_error, printable, publish, tail};
use crate::client::{Client, ClientCredentials, ClientError, ClientSettings, ConnectionState};
use crate::config::{ClientCommand, ClientInvocation, ConnectOptions};
use crate::model::id::is_user_char;
use crate::runtime;

/// The exit code if no answer came in time, so that a publish may or may not have happened.
const NO_ANSWER: u8 = 3;

/// Why a command ends before it is done.
#[derive(Debug)]
pub(super) enum CommandFailure {
    /// The server, or the machine, refuses it.
    Refused(String),
    /// There was no answer in time.
    NoAnswer(String),
    /// The reader of standard output is gone, as in `tail … | head`: there is nothing left to do.
    OutputClosed,
}

impl From<ClientError> for CommandFailure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unknown => CommandFailure::NoAnswer(error.to_string()),
            error => CommandFailure::Refused(error.to_string()),
        }
    }
}

/// Runs a command to its end.
pub(super) fn run(invocation: &ClientInvocation) -> ExitCode {
    exit_code(runtime::block_on(execute(invocation)))
}

/// The exit code of a command that ended so; notes a failure.
pub(super) fn exit_code(ended: Result<(), CommandFailure>) -> ExitCode {
    match ended {
        Ok(()) | Err(CommandFailure::OutputClosed) => ExitCode::SUCCESS,
        Err(CommandFailure::Refused(reason)) => super::fail(&printable(&reason)),
        Err(CommandFailure::NoAnswer(reason)) => {
            note(reason);
            ExitCode::from(NO_ANSWER)
        }
    }
}

async fn execute(invocation: &ClientInvocation) -> Result<(), CommandFailure> {
    let session = ClientSession::start(&invocation.connect, invocation.json)?;
    match &invocation.command {
        ClientCommand::Publish {
            room,
            data,
            key,
            ephemeral,
        } => {
            let options = crate::client::ClientPublish {
                key: key.clone(),
                ephemeral: *ephemeral,
            };
            publish::run(&session, room, data.as_deref(), options).await
        }
        ClientCommand::Tail { rooms, start } => tail::run(&session, rooms, *start).await,
        ClientCommand::History {
            room,
            before,
            limit,
        } => history::run(&session, room, *before, *limit).await,
        ClientCommand::Members { room, watch } => members::run(&session, room, *watch).await,
    }
}

/// Where and as whom the options let a client connect.
pub(super) fn settings(options: &ConnectOptions) -> ClientSettings {
    let token = options.token.clone().map(ClientCredentials::Token);
    let user = options.user.clone().map(ClientCredentials::User);
    ClientSettings {
        url: options.url.clone(),
        credentials: token.or(user),
        authorities: options.ca.clone(),
    }
}

/// A client with what the commands need besides it.
pub(super) struct ClientSession<'a> {
    pub(super) client: Client,
    pub(super) json: bool,
    options: &'a ConnectOptions,
}

impl<'a> ClientSession<'a> {
    fn start(options: &'a ConnectOptions, json: bool) -> Result<Self, CommandFailure> {
        let (states, changes) = flume::bounded(16);
        let client = Client::start(settings(options), states)
            .map_err(|error| CommandFailure::Refused(error.to_string()))?;
        runtime::spawn(note_states(changes));
        Ok(Self {
            client,
            json,
            options,
        })
    }

    /// The answer to one request, within the timeout.
    pub(super) async fn answer<T>(
        &self,
        request: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, CommandFailure> {
        let time = self.options.timeout;
        match runtime::timeout(time, request).await {
            Ok(answer) => Ok(answer?),
            Err(runtime::Elapsed) => Err(CommandFailure::NoAnswer(format!(
                "no answer from {} within {} s",
                self.options.url,
                time.as_secs()
            ))),
        }
    }
}

/// Notes the losses of the connection, one line for each, and the return.
async fn note_states(changes: flume::Receiver<ConnectionState>) {
    let mut lost = None;
    while let Ok(change) = changes.recv_async().await {
        match change {
            ConnectionState::Connected { node } if lost.take().is_some() => {
                note(format_args!("connected to node {node}"));
            }
            ConnectionState::Connected { .. } => {}
            ConnectionState::Lost { reason } if lost.as_ref() == Some(&reason) => {}
            ConnectionState::Lost { reason } => {
                note(format_args!("{reason}; trying again"));
                lost = Some(reason);
            }
        }
    }
}

/// Prints a note for people.
pub(super) fn note(text: impl Display) {
    print_error(&format_args!(
        "switchboard: {}",
        printable(&text.to_string())
    ));
}

/// Prints one line of data.
pub(super) fn print(line: impl Display) -> Result<(), CommandFailure> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => CommandFailure::OutputClosed,
        _ => CommandFailure::Refused(format!("standard output cannot be written: {error}")),
    })
}

/// Prints one line of JSON. Data of others are printed as they were sent, except for line ends
/// between tokens, which would begin a line that they have made up, and for characters that would
/// control a terminal: these stand in strings alone, and are escaped.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CommandFailure> {
    // Writing plain structs to memory cannot fail.
    print(one_line(&serde_json::to_string(value).unwrap_or_default()))
}

fn one_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '\n' | '\r' | '\t' => line.push(' '),
            char if is_user_char(char) => line.push(char),
            // All of them have four digits.
            char => line.push_str(&format!("\\u{:04x}", u32::from(char))),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_others_is_one_line_that_controls_no_terminal() {
        let cases = [
            ("{\"a\":[\n1,\r\n2]}", "{\"a\":[ 1,  2]}"),
            (
                "\"\u{9b}2J \u{202e}x\u{7f}\"",
                "\"\\u009b2J \\u202ex\\u007f\"",
            ),
            ("\"Zoë 你好 \\n\"", "\"Zoë 你好 \\n\""),
        ];
        for (json, line) in cases {
            assert_eq!(one_line(json), line);
        }
        assert_eq!(printable("[\n9 admin \u{9b}x]"), "[ 9 admin \u{fffd}x]");
    }
}
