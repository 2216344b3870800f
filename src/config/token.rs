//! The options of the commands `switchboard token`, which signs a token for trials and scripts, and
//! `switchboard token read`. In production the service that authenticates the users signs tokens.

use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use super::arity::{many, maybe, one, required};
use super::client_commands::flag;
use super::identity::{SecretFile, TokenKey, secret_file, token_key};
use super::kinds::claim;
use super::numbers::{HOUR, MINUTE, SECOND, show_time, time};
use super::options::{OptionSpec, Options, options};
use super::parser::ValueParser;
use super::sources::{self, Variables};
use super::values::{ConfigError, Values};
use crate::model::id::UserName;
use crate::model::pattern::Pattern;
use crate::model::secret::Secret;

options! {
    /// The token to sign: the options of `switchboard token`, checked.
    pub struct TokenRequest {}

    "Options" {
        /// The file with the nodes' secret
        token_secret_file: SecretFile = required(secret_file(), NO_SECRET), "FILE", "";
    }

    "Options", variables: false {
        /// The user (sub)
        user: UserName = one(user_name()), "NAME", "";

        /// How long it is good
        expires: Duration = one(lifetime()), "TIME", "1h";

        /// Whom it is for (aud)
        audience: Option<String> = maybe(claim()), "NAME", "";

        /// Who issues it (iss)
        issuer: Option<String> = maybe(claim()), "NAME", "";

        /// Rooms in which the user may do everything
        rooms: Vec<Pattern> = many(patterns()), "PATTERN", "";

        /// Rooms that the user may join
        join: Vec<Pattern> = many(patterns()), "PATTERN", "";

        /// Rooms in which the user may publish
        publish: Vec<Pattern> = many(patterns()), "PATTERN", "";

        /// Rooms whose history the user may read
        history: Vec<Pattern> = many(patterns()), "PATTERN", "";

        /// Rooms in which the user may see who is there
        members: Vec<Pattern> = many(patterns()), "PATTERN", "";
    }
}

options! {
    /// How to judge a token: the options of `switchboard token read`, checked. They are those of
    /// the nodes.
    pub struct TokenReadRequest {
        /// The token; `None`: it is in standard input.
        pub token: Option<Secret<String>>,
        /// Whether the output is JSON.
        pub json: bool,
    }

    "Options" {
        /// The file with the nodes' secret, to verify the signature
        token_secret_file: Option<SecretFile> = maybe(secret_file()), "FILE", "";

        /// A file with a public key of the issuer, to verify the signature
        token_key: Vec<TokenKey> = many(token_key()), "[KID=]FILE", "";

        /// The audiences that the nodes accept; without it any audience
        token_audience: Vec<String> = many(claim()), "NAME", "";

        /// The issuers that the nodes accept; without it any issuer
        token_issuer: Vec<String> = many(claim()), "NAME", "";

        /// The longest that a token may live, as the nodes have it
        token_lifetime: Duration = one(time(MINUTE, 720 * HOUR)), "TIME", "24h";
    }
}

const NO_SECRET: &str = "is needed: the file whose secret the nodes have";

fn user_name() -> ValueParser<UserName> {
    ValueParser::new(UserName::new, UserName::to_string)
}

/// The help does not show its bounds.
fn lifetime() -> ValueParser<Duration> {
    let lifetime = time(SECOND, 8760 * HOUR);
    ValueParser::new(move |text| lifetime.parse(text), |time| show_time(*time))
}

fn patterns() -> ValueParser<Pattern> {
    let parse = |text: &str| Pattern::new(text).ok_or("fits no room name");
    ValueParser::new(parse, Pattern::to_string)
}

pub(super) fn command() -> Command {
    Command::new("token")
        .about("Make a token to sign in with, and print it")
        .after_help(
            "Patterns are names of rooms in which * stands for any text; for rooms that begin with \
             $ or @ they begin with that sign. Repeat an option, or separate by commas.",
        )
        .args(TokenRequest::specs().iter().map(OptionSpec::arg))
        .mut_arg("user", |user| user.required(true))
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
        .subcommand(read_command())
}

fn read_command() -> Command {
    let token = Arg::new("token").value_name("TOKEN").help(
        "The token; without it or with - it is read from standard input, where other users of the \
         machine do not see it",
    );
    Command::new("read")
        .about("Show the claims of a token: who, until when, for what, and whether nodes accept it")
        .after_help(
            "Exit codes: 0 accepted, or not verified and in order; 1 refused, such as expired or \
             forged; 2 wrong usage.",
        )
        .args([token, flag("json", "Print one JSON object")])
        .args(TokenReadRequest::specs().iter().map(OptionSpec::arg))
}

impl TokenReadRequest {
    pub(super) fn read(mut flags: ArgMatches, variables: &Variables) -> Result<Self, ConfigError> {
        let token = flags.remove_one::<String>("token");
        let (options, mut values) = (Self::specs(), Values::default());
        variables.put(&options, &mut values);
        sources::from_flags(&mut flags, &options, &mut values);
        let taken = Self::take(&mut values).ok_or(ConfigError::Invalid(values.problems))?;
        Ok(Self {
            token: token.filter(|token| token != "-").map(Secret::new),
            json: flags.get_flag("json"),
            ..taken
        })
    }
}

impl TokenRequest {
    pub(super) fn read(mut flags: ArgMatches, variables: &Variables) -> Result<Self, ConfigError> {
        let (options, mut values) = (Self::specs(), Values::default());
        variables.put(&options, &mut values);
        sources::from_flags(&mut flags, &options, &mut values);
        let taken = Self::take(&mut values).ok_or(ConfigError::Invalid(values.problems));
        taken.map(Self::with_rooms)
    }

    /// Adds the rooms of `--rooms` to those of every right.
    fn with_rooms(mut self) -> Self {
        let rights = [
            &mut self.join,
            &mut self.publish,
            &mut self.history,
            &mut self.members,
        ];
        for patterns in rights {
            patterns.extend_from_slice(&self.rooms);
        }
        self
    }
}
