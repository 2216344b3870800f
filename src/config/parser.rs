//! How the value of an option is parsed from text and shown again: the type that all kinds of
//! value share. `numbers.rs` and `kinds.rs` have a function for each kind; values with a type of
//! their own have it beside the type. `arity.rs` defines how many values an option takes.

type Parse<T> = Box<dyn Fn(&str) -> Result<T, String>>;

/// Parses and shows the values of one kind.
pub(super) struct ValueParser<T> {
    parse: Parse<T>,
    show: Box<dyn Fn(&T) -> toml::Value>,
    /// Removes secrets from a text that an error message repeats.
    redact: fn(&str) -> String,
    /// The least and the greatest value, for `--help`.
    pub(super) range: Option<(String, String)>,
    /// Whether the flag may have no value, which means `true`.
    pub(super) bare: bool,
    /// Whether a comma ends a value of a list if this text follows it.
    pub(super) begins_value: fn(&str) -> bool,
}

impl<T> ValueParser<T> {
    /// The errors of `parse` are the end of a sentence that begins with the option and the text.
    pub(super) fn new<E: ToString, S: Into<toml::Value>>(
        parse: impl Fn(&str) -> Result<T, E> + 'static,
        show: impl Fn(&T) -> S + 'static,
    ) -> Self {
        Self {
            parse: Box::new(move |text| parse(text).map_err(|error| error.to_string())),
            show: Box::new(move |value| show(value).into()),
            redact: str::to_owned,
            range: None,
            bare: false,
            begins_value: |_| true,
        }
    }

    /// Removes secrets from texts by `redact` before errors repeat them.
    pub(super) fn redacted(self, redact: fn(&str) -> String) -> Self {
        Self { redact, ..self }
    }

    pub(super) fn parse(&self, text: &str) -> Result<T, String> {
        (self.parse)(text)
    }

    pub(super) fn show(&self, value: &T) -> toml::Value {
        (self.show)(value)
    }

    pub(super) fn redact(&self, text: &str) -> String {
        (self.redact)(text)
    }
}
