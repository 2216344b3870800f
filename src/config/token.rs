//! The options of the command `switchboard token`, which signs a token for trials and scripts. In
//! production the service that authenticates the users signs tokens.

use std::time::Duration;

use clap::{ArgMatches, Command};

use super::arity::{many, maybe, one, required};
use super::identity::{SecretFile, secret_file};
use super::kinds::claim;
use super::numbers::{HOUR, SECOND, show_time, time};
use super::options::{OptionSpec, Options, options};
use super::parser::ValueParser;
use super::sources::{self, Variables};
use super::values::{ConfigError, Values};
use crate::model::id::UserName;
use crate::model::pattern::Pattern;

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
