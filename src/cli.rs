//! The command line: parses it, runs the subcommand (one file for each), and returns the exit
//! code: 0 for success, 2 for a command line or a configuration that is refused, 1 for a
//! subcommand that fails, 3 for one that received no answer in time, and 70 for a node that failed
//! while it ran.

mod api;
mod bench;
mod check;
mod client;
mod drain;
mod history;
mod line;
mod members;
mod publish;
mod rooms;
mod serve;
mod tail;
mod time;
mod token;
mod token_read;

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{ConfigError, Invocation};
use crate::model::id::is_user_char;

/// Runs the given command line (the program's name first) with these environment variables.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    match Invocation::parse(args, variables, |path| fs::read_to_string(path)) {
        Ok(Invocation::Serve(config)) => serve::run(&config),
        Ok(Invocation::CheckConfig(config)) => check::print_file(&config),
        Ok(Invocation::Check(config)) => check::run(&config),
        Ok(Invocation::Token(request)) => token::run(&request),
        Ok(Invocation::TokenRead(request)) => token_read::run(&request),
        Ok(Invocation::Client(invocation)) => client::run(&invocation),
        Ok(Invocation::Bench(request)) => bench::run(&request),
        Ok(Invocation::Drain(request)) => drain::run(&request),
        Ok(Invocation::Api(invocation)) => rooms::run(&invocation),
        Ok(Invocation::Text(text)) => succeed(&text),
        Err(error) => refuse(&error),
    }
}

/// Prints to standard output; a closed standard output is ignored.
fn succeed(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn refuse(error: &dyn Display) -> ExitCode {
    print_error(error);
    ExitCode::from(ConfigError::EXIT_CODE)
}

fn fail(error: &dyn Display) -> ExitCode {
    print_error(&format_args!("switchboard: {error}"));
    ExitCode::FAILURE
}

/// A text of others for a terminal, as one line: without the characters that would control the
/// terminal or turn the direction of text.
fn printable(text: &str) -> String {
    let plain = text.chars().map(|char| match char {
        '\n' | '\r' | '\t' => ' ',
        char if is_user_char(char) => char,
        _ => char::REPLACEMENT_CHARACTER,
    });
    plain.collect()
}

/// Prints to standard error why the process ends; a closed standard error is ignored.
fn print_error(error: &dyn Display) {
    let _ = writeln!(io::stderr(), "{error}");
}
