//! The sources of options: the command line, variables, the file. All three yield texts by option
//! name, so that each value is parsed and checked in one way, and an error can name its source.

use std::ffi::OsString;
use std::path::Path;

use clap::ArgMatches;

use super::options::OptionSpec;
use super::values::{PREFIX, Source, Values, variable};

/// Flags replace what other sources have set.
pub(super) fn from_flags(flags: &mut ArgMatches, options: &[OptionSpec], values: &mut Values) {
    for option in options {
        if let Some(texts) = flags.remove_many::<String>(&option.name) {
            let texts = texts.flat_map(|text| option.split(&text)).collect();
            values.put(&option.name, texts, Source::Flag);
        }
    }
}

/// The variables that begin with our prefix and are not empty.
pub(super) struct Variables(Vec<(String, String)>);

impl Variables {
    pub(super) fn with_prefix(all: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        // A value that is not Unicode becomes a text that its option refuses.
        let plain = |text: OsString| text.to_string_lossy().into_owned();
        let ours = all
            .into_iter()
            .map(|(name, value)| (plain(name), plain(value)));
        let mut ours: Vec<_> = ours
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .collect();
        ours.sort();
        Self(ours)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(variable, _)| variable == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn put(&self, options: &[OptionSpec], values: &mut Values) {
        for option in options {
            let Some(variable) = &option.variable else {
                continue;
            };
            if let Some(text) = self.get(variable) {
                let source = Source::Variable(variable.clone());
                values.put(&option.name, option.split(text), source);
            }
        }
    }

    /// The warnings about variables that no option has. They are not errors: orchestrators set
    /// some for every service's name.
    pub(super) fn unknown<'a>(&self, options: impl Iterator<Item = &'a OptionSpec>) -> Vec<String> {
        let config = variable("config");
        let variables: Vec<_> = options
            .filter_map(|option| option.variable.as_ref())
            .collect();
        let known = |name: &String| *name == config || variables.contains(&name);
        let unknown = self.0.iter().filter(|(name, _)| !known(name));
        unknown
            .map(|(name, _)| format!("{name} is set, but is not an option"))
            .collect()
    }
}

/// # Errors
/// The line that is no TOML, unknown keys, or a key that has a value of the wrong type.
pub(super) fn from_file(
    text: &str,
    path: &Path,
    options: &[OptionSpec],
    values: &mut Values,
) -> Result<(), String> {
    let table: toml::Table =
        toml::from_str(text).map_err(|error| line_and_message(text, &error))?;
    let known = |key: &str| options.iter().any(|option| option.name == key);
    let keys = table.keys().map(String::as_str);
    let unknown: Vec<&str> = keys.filter(|key| !known(key)).collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        return Err(format!("these keys are not options: {unknown}"));
    }
    for option in options {
        if let Some(value) = table.get(&option.name) {
            let texts = texts(option, value)?;
            values.put(&option.name, texts, Source::File(path.to_owned()));
        }
    }
    Ok(())
}

/// The full message of the `toml` crate would show the line, which may contain a password.
fn line_and_message(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.unwrap_or_default().matches('\n').count() + 1;
    format!("line {line}: {}", error.message())
}

fn texts(option: &OptionSpec, value: &toml::Value) -> Result<Vec<String>, String> {
    let texts = match value {
        toml::Value::Array(parts) => parts.iter().map(plain).collect(),
        value => plain(value).map(|text| option.split(&text)),
    };
    let wanted = if option.many {
        "texts"
    } else {
        "a text, a number, true or false"
    };
    texts.ok_or_else(|| format!("the key {} takes {wanted}", option.name))
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
