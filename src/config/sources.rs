//! The sources of options: the command line, variables, the file. All three yield texts by option
//! name, so that each value is parsed and checked in one way, and an error can name its source.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::error::ErrorKind;

use super::options::{Spec, command};
use super::token::{self, TokenRequest};
use super::values::{ConfigError, PREFIX, Source, Values, variable};

/// The command given, before any value is checked.
pub(super) enum Invocation {
    Serve(Values),
    Token(Box<TokenRequest>),
    Text(String),
}

pub(super) fn read(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: impl FnOnce(&Path) -> io::Result<String>,
    options: &[Spec],
) -> Result<Invocation, ConfigError> {
    let mut matches = match command(options).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            let text = error.render().to_string();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Invocation::Text(text)),
                _ => Err(ConfigError::Usage(text)),
            };
        }
    };
    let (subcommand, mut flags) = matches
        .remove_subcommand()
        .expect("clap requires a subcommand");
    let variables = Variables::with_prefix(variables);
    if subcommand == "token" {
        let order = token::read(flags, variables.get("token-secret-file"))?;
        return Ok(Invocation::Token(Box::new(order)));
    }
    let mut values = Values {
        check_only: flags.get_flag("check-config"),
        ..Values::default()
    };

    // From the weakest source to the strongest; each overwrites the values of the previous ones.
    let file = flags
        .remove_one::<String>("config")
        .or_else(|| variables.get("config"));
    if let Some(path) = file.map(PathBuf::from) {
        let text = read_file(&path).map_err(|error| error.to_string());
        text.and_then(|text| from_file(&text, &path, options, &mut values))
            .map_err(|reason| ConfigError::File { path, reason })?;
    }
    variables.put(options, &mut values);
    from_flags(&mut flags, options, &mut values);
    Ok(Invocation::Serve(values))
}

fn from_flags(flags: &mut ArgMatches, options: &[Spec], values: &mut Values) {
    for option in options {
        if let Some(texts) = flags.remove_many::<String>(&option.name) {
            values.put(&option.name, texts.collect(), Source::Flag);
        }
    }
}

/// The variables that begin with our prefix and are not empty.
struct Variables(Vec<(String, String)>);

impl Variables {
    fn with_prefix(all: impl IntoIterator<Item = (OsString, OsString)>) -> Variables {
        // A value that is not Unicode becomes a text that its option refuses.
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

    /// An unknown variable is not an error: orchestrators set some for every service's name.
    fn put(self, options: &[Spec], values: &mut Values) {
        for (name, value) in self.0 {
            match options.iter().find(|option| variable(&option.name) == name) {
                Some(option) => {
                    values.put(&option.name, split(option, &value), Source::Variable(name))
                }
                None if name == variable("config") => {}
                None => values
                    .warnings
                    .push(format!("{name} is set, but is not an option")),
            }
        }
    }
}

fn split(option: &Spec, text: &str) -> Vec<String> {
    if option.many {
        text.split(',').map(|part| part.trim().to_owned()).collect()
    } else {
        vec![text.to_owned()]
    }
}

fn from_file(text: &str, path: &Path, options: &[Spec], values: &mut Values) -> Result<(), String> {
    // The full message of the `toml` crate would show the line, which may contain a password.
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
        values.put(&option.name, texts, Source::File(path.to_owned()));
    }
    Ok(())
}

/// The text of a string, a number or a boolean.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}
