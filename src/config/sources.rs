//! Where options come from: the command line, variables, the file. All three give texts under the
//! option's name, so that each value is read and judged in one way, and an error can say its
//! source.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::error::ErrorKind;

use super::options::{PREFIX, Spec, command, kebab, variable};
use super::shapes::Shape;
use super::token::{self, TokenOrder};

/// Where a text stands.
#[derive(Clone, Debug)]
enum Source {
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

/// Why one option is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The option's name, in kebab case, without dashes in front.
    pub option: String,
    /// The value given (without passwords) and where it stands; `None` where two options do not
    /// fit.
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

/// Why there is no configuration. The program prints it and ends with [`ConfigError::EXIT_CODE`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is not one of ours; the text explains it and names the usage.
    #[error("{0}")]
    Usage(String),
    /// The file given by `--config` cannot be read, is not TOML, or has keys that are no options.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file as it was given.
        path: PathBuf,
        /// What to correct in it, by line or key.
        reason: String,
    },
    /// Values that are refused, one line each.
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

/// What was said about the options, by their name in snake case, and what came of it.
#[derive(Default)]
pub(super) struct Values {
    texts: HashMap<String, (Vec<String>, Source)>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) check_only: bool,
}

impl Values {
    /// The value of an option, or its default. A text that is refused becomes a problem, and the
    /// default stands in so that the others can be judged too.
    pub(super) fn take<S: Shape>(&mut self, name: &str, shape: &S, default: &str) -> S::Value {
        if let Some((texts, source)) = self.texts.remove(name) {
            match shape.read(&texts) {
                Ok(value) => return value,
                Err(refused) => self
                    .problems
                    .extend(refused.into_iter().map(|(got, reason)| Problem {
                        option: kebab(name),
                        got: Some((got, source.to_string())),
                        reason,
                    })),
            }
        }
        let texts: Vec<String> = Some(default)
            .filter(|text| !text.is_empty())
            .map(String::from)
            .into_iter()
            .collect();
        shape
            .read(&texts)
            .expect("the defaults are valid, as a test proves")
    }

    fn put(&mut self, option: &Spec, texts: Vec<String>, source: Source) {
        self.texts
            .insert(option.name.replace('-', "_"), (texts, source));
    }
}

/// What the command line asks for, before any value is judged.
pub(super) enum Asked {
    Serve(Values),
    Token(Box<TokenOrder>),
    Text(String),
}

pub(super) fn read(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: impl FnOnce(&Path) -> io::Result<String>,
    options: &[Spec],
) -> Result<Asked, ConfigError> {
    let mut matches = match command(options).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            let text = error.render().to_string();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Asked::Text(text)),
                _ => Err(ConfigError::Usage(text)),
            };
        }
    };
    let (asked, mut flags) = matches
        .remove_subcommand()
        .expect("clap requires a subcommand");
    let variables = Variables::of_ours(variables);
    if asked == "token" {
        let order = token::read(flags, variables.get("token-secret-file"))?;
        return Ok(Asked::Token(Box::new(order)));
    }
    let mut values = Values {
        check_only: flags.get_flag("check-config"),
        ..Values::default()
    };

    // From the weakest source to the strongest; each overwrites what was said before.
    let file = flags
        .remove_one::<String>("config")
        .or_else(|| variables.get("config"));
    if let Some(path) = file.map(PathBuf::from) {
        let told = read_file(&path).map_err(|error| error.to_string());
        told.and_then(|text| from_file(&text, &path, options, &mut values))
            .map_err(|reason| ConfigError::File { path, reason })?;
    }
    variables.put(options, &mut values);
    from_flags(&mut flags, options, &mut values);
    Ok(Asked::Serve(values))
}

fn from_flags(flags: &mut ArgMatches, options: &[Spec], values: &mut Values) {
    for option in options {
        if let Some(texts) = flags.remove_many::<String>(&option.name) {
            values.put(option, texts.collect(), Source::Flag);
        }
    }
}

/// The variables that begin with our prefix and are not empty.
struct Variables(Vec<(String, String)>);

impl Variables {
    fn of_ours(all: impl IntoIterator<Item = (OsString, OsString)>) -> Variables {
        // What is not Unicode becomes a text that its option refuses.
        let plain = |text: OsString| text.to_string_lossy().into_owned();
        let ours = all
            .into_iter()
            .map(|(name, value)| (plain(name), plain(value)));
        let mut ours: Vec<_> = ours
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .collect();
        ours.sort();
        Variables(ours)
    }

    fn get(&self, option: &str) -> Option<String> {
        let wanted = variable(option);
        self.0
            .iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value.clone())
    }

    /// An unknown variable is no error: orchestrators invent some for every service's name.
    fn put(self, options: &[Spec], values: &mut Values) {
        for (name, value) in self.0 {
            match options.iter().find(|option| variable(&option.name) == name) {
                Some(option) => values.put(option, split(option, &value), Source::Variable(name)),
                None if name == variable("config") => {}
                None => values
                    .warnings
                    .push(format!("{name} is set, but is not an option")),
            }
        }
    }
}

fn split(option: &Spec, text: &str) -> Vec<String> {
    match option.many {
        true => text.split(',').map(|part| part.trim().to_owned()).collect(),
        false => vec![text.to_owned()],
    }
}

fn from_file(text: &str, path: &Path, options: &[Spec], values: &mut Values) -> Result<(), String> {
    // The crate's own message would show the line, which may hold a password.
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let before = error
            .span()
            .and_then(|span| text.get(..span.start))
            .unwrap_or_default();
        format!(
            "line {}: {}",
            before.matches('\n').count() + 1,
            error.message()
        )
    })?;
    let known = |key: &String| options.iter().any(|option| option.name == *key);
    let unknown: Vec<_> = table
        .keys()
        .filter(|key| !known(key))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        return Err(format!(
            "these keys are not options: {}",
            unknown.join(", ")
        ));
    }
    for option in options {
        let Some(value) = table.get(&option.name) else {
            continue;
        };
        let texts = match value {
            toml::Value::Array(parts) => parts.iter().map(plain).collect(),
            value => plain(value).map(|text| split(option, &text)),
        };
        let wanted = if option.many {
            "texts"
        } else {
            "a text, a number, true or false"
        };
        let texts = texts.ok_or_else(|| format!("the key {} takes {wanted}", option.name))?;
        values.put(option, texts, Source::File(path.to_owned()));
    }
    Ok(())
}

/// The text of a value that is neither list nor table nor time.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}
