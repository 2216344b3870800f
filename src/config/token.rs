//! The options of the command `switchboard token`, which signs a token for trials and scripts. In
//! production the service that authenticates the users signs tokens.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::identity::{Claim, SecretFile, SecretIn};
use super::kinds::{HOUR, Kind, SECOND, Time};
use super::values::{ConfigError, Problem, variable};
use crate::model::id::UserName;
use crate::model::pattern::Pattern;

const SECRET: &str = "token-secret-file";

/// The bounds of `--expires`.
const LIFETIME: Time = Time(SECOND, Duration::from_secs(8760 * HOUR.as_secs()));

/// The token to sign.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRequest {
    pub secret: SecretFile,
    pub user: UserName,
    pub lifetime: Duration,
    pub audience: Option<String>,
    pub issuer: Option<String>,
    pub join: Vec<Pattern>,
    pub publish: Vec<Pattern>,
    pub history: Vec<Pattern>,
    pub members: Vec<Pattern>,
}

pub(super) fn command() -> Command {
    let one = |name: &'static str, value: &'static str, help: &str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .help(help.to_owned())
    };
    let many = |name, help| {
        let arg = one(name, "PATTERN", help);
        arg.action(ArgAction::Append).value_delimiter(',')
    };
    Command::new("token")
        .about("Make a token to sign in with, and print it")
        .after_help(
            "Patterns are names of rooms in which * stands for any text; for rooms that begin with \
             $ or @ they begin with that sign. Repeat an option, or separate by commas.",
        )
        .arg(one(
            SECRET,
            "FILE",
            &format!(
                "The file with the nodes' secret [env: {}]",
                variable(SECRET)
            ),
        ))
        .arg(one("user", "NAME", "The user (sub)").required(true))
        .arg(
            one("expires", "TIME", "How long it is good [default: 1h]")
                .default_value("1h")
                .hide_default_value(true),
        )
        .arg(one("audience", "NAME", "Whom it is for (aud)"))
        .arg(one("issuer", "NAME", "Who issues it (iss)"))
        .arg(many("rooms", "Rooms in which the user may do everything"))
        .arg(many("join", "Rooms that the user may join"))
        .arg(many("publish", "Rooms in which the user may publish"))
        .arg(many("history", "Rooms whose history the user may read"))
        .arg(many(
            "members",
            "Rooms in which the user may see who is there",
        ))
}

/// `secret_file`: the value of the variable for the file with the secret.
pub(super) fn read(
    mut flags: ArgMatches,
    secret_file: Option<String>,
) -> Result<TokenRequest, ConfigError> {
    let mut problems = Vec::new();
    let mut take = |name: &str| {
        flags
            .remove_many::<String>(name)
            .map(Vec::from_iter)
            .unwrap_or_default()
    };
    let mut refuse = |option: &str, got: Option<&str>, reason: String| {
        problems.push(Problem {
            option: option.into(),
            got: got.map(|got| (got.into(), "the command line".into())),
            reason,
        });
    };
    let path = take(SECRET).pop().or(secret_file);
    let secret = match path.as_deref().map(|path| SecretIn.parse(path)) {
        Some(Ok(secret)) => Some(secret),
        Some(Err(reason)) => {
            refuse(SECRET, path.as_deref(), reason);
            None
        }
        None => {
            refuse(
                SECRET,
                None,
                "is needed: the file whose secret the nodes have".into(),
            );
            None
        }
    };
    let name = take("user").pop().unwrap_or_default();
    let user = UserName::new(&name).map_err(|error| refuse("user", Some(&name), error.to_string()));
    let time = take("expires").pop().unwrap_or_default();
    let lifetime = LIFETIME
        .parse(&time)
        .map_err(|reason| refuse("expires", Some(&time), reason));
    let mut claim = |name: &str| {
        let text = take(name).pop()?;
        Claim
            .parse(&text)
            .map_err(|reason| refuse(name, Some(&text), reason))
            .ok()
    };
    let (audience, issuer) = (claim("audience"), claim("issuer"));
    let mut patterns = |name: &str| {
        let texts = take(name).into_iter();
        let read = texts.filter_map(|text| {
            let pattern = Pattern::new(&text);
            if pattern.is_none() {
                refuse(name, Some(&text), "fits no room name".into());
            }
            pattern
        });
        read.collect::<Vec<_>>()
    };
    let all = patterns("rooms");
    let mut with_all = |name| [patterns(name), all.clone()].concat();
    let (join, publish) = (with_all("join"), with_all("publish"));
    let (history, members) = (with_all("history"), with_all("members"));
    match (secret, user, lifetime) {
        (Some(secret), Ok(user), Ok(lifetime)) if problems.is_empty() => Ok(TokenRequest {
            secret,
            user,
            lifetime,
            audience,
            issuer,
            join,
            publish,
            history,
            members,
        }),
        _ => Err(ConfigError::Invalid(problems)),
    }
}
