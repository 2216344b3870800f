//! The texts of the options, by name and source, and the errors about them. The lists of
//! options and their sources use these types.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use super::arity::Arity;

/// The prefix of every variable.
pub(super) const PREFIX: &str = "SWITCHBOARD_";

/// `log_level` as the command line writes it.
pub(super) fn kebab(name: &str) -> String {
    name.replace('_', "-")
}

/// The variable of an option.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('-', "_").to_ascii_uppercase())
}

/// The source of a text.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Flag,
    Variable(String),
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag => write!(f, "the command line"),
            Source::Variable(name) => write!(f, "{name}"),
            Source::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why an option is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The option's name, in kebab case, without dashes in front.
    pub option: String,
    /// The value given (without passwords) and its source; `None` if a required option is not
    /// given, or two options contradict each other.
    pub got: Option<(String, String)>,
    /// What the value must be.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (option, reason) = (&self.option, &self.reason);
        match &self.got {
            Some((got, source)) => {
                write!(f, "--{option} {got}: {reason} (got {got}, from {source})")
            }
            None => write!(f, "--{option}: {reason}"),
        }
    }
}

/// Why the configuration is refused. The program prints it and exits with
/// [`ConfigError::EXIT_CODE`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is invalid; the text explains why and shows the usage.
    #[error("{0}")]
    Usage(String),
    /// The file given by `--config` cannot be read, is not TOML, or has unknown keys.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file as it was given.
        path: PathBuf,
        /// What to correct in it, by line or key.
        reason: String,
    },
    /// Refused values, one line each.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// The exit code for a command line or a configuration that cannot be used.
    pub const EXIT_CODE: u8 = 2;
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The texts of the options, by name in snake case, and the problems found in them.
#[derive(Default)]
pub(super) struct Values {
    pub(super) texts: HashMap<String, (Vec<String>, Source)>,
    pub(super) problems: Vec<Problem>,
}

impl Values {
    /// The value of an option, or its default. `None` if it is refused, which becomes a problem, so
    /// that the other options can be checked too.
    pub(super) fn take<A: Arity>(
        &mut self,
        name: &str,
        arity: &A,
        default: &str,
    ) -> Option<A::Value> {
        let (texts, source) = match self.texts.remove(name) {
            Some((texts, source)) => (texts, Some(source)),
            None if default.is_empty() => (Vec::new(), None),
            None => (vec![default.to_owned()], None),
        };
        let refused = match arity.read(&texts) {
            Ok(value) => return Some(value),
            Err(refused) => refused,
        };
        self.problems
            .extend(refused.into_iter().map(|(text, reason)| Problem {
                option: kebab(name),
                got: source.as_ref().map(|source| (text, source.to_string())),
                reason,
            }));
        None
    }

    pub(super) fn put(&mut self, option: &str, texts: Vec<String>, source: Source) {
        self.texts.insert(option.replace('-', "_"), (texts, source));
    }
}
