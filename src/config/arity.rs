//! How many values an option takes: exactly one, at most one, or any number.

use super::parser::ValueParser;

/// A text that was refused (without secrets), and why.
type RefusedText = (String, String);

/// How many values an option takes, and the type that holds them. An option that is not given and
/// has no default is read from no texts.
pub(super) trait Arity {
    type Item;
    type Value;
    const MANY: bool = false;
    fn parser(&self) -> &ValueParser<Self::Item>;
    fn read(&self, texts: &[String]) -> Result<Self::Value, Vec<RefusedText>>;
    /// `None` if the option is not set, so that there is nothing to show.
    fn show(&self, value: &Self::Value) -> Option<toml::Value>;
}

fn read_one<T>(parser: &ValueParser<T>, text: &str) -> Result<T, RefusedText> {
    let parsed = parser.parse(text);
    parsed.map_err(|reason| (parser.redact(text), reason))
}

/// Of several texts (a list in the file) none is taken.
fn refuse_all(texts: &[String], reason: &str) -> Vec<RefusedText> {
    vec![(format!("({} values)", texts.len()), reason.to_owned())]
}

const EXACTLY_ONE: &str = "takes exactly one value";

/// Exactly one value.
pub(super) struct One<T> {
    parser: ValueParser<T>,
    /// The value without a text, or the reason why it is refused.
    missing: Result<T, &'static str>,
}

pub(super) fn one<T>(parser: ValueParser<T>) -> One<T> {
    required(parser, EXACTLY_ONE)
}

/// One value without a default; `reason` is the error if it is not given.
pub(super) fn required<T>(parser: ValueParser<T>, reason: &'static str) -> One<T> {
    let missing = Err(reason);
    One { parser, missing }
}

/// A text that is empty if it is not given, and is completed later.
pub(super) fn one_or_empty(parser: ValueParser<String>) -> One<String> {
    let missing = Ok(String::new());
    One { parser, missing }
}

impl<T: Clone> Arity for One<T> {
    type Item = T;
    type Value = T;
    fn parser(&self) -> &ValueParser<T> {
        &self.parser
    }
    fn read(&self, texts: &[String]) -> Result<T, Vec<RefusedText>> {
        match texts {
            [text] => read_one(&self.parser, text).map_err(|refusal| vec![refusal]),
            [] => self
                .missing
                .clone()
                .map_err(|reason| refuse_all(&[], reason)),
            _ => Err(refuse_all(texts, EXACTLY_ONE)),
        }
    }
    fn show(&self, value: &T) -> Option<toml::Value> {
        Some(self.parser.show(value))
    }
}

/// One value or none.
pub(super) struct Maybe<T>(ValueParser<T>);

pub(super) fn maybe<T>(parser: ValueParser<T>) -> Maybe<T> {
    Maybe(parser)
}

impl<T> Arity for Maybe<T> {
    type Item = T;
    type Value = Option<T>;
    fn parser(&self) -> &ValueParser<T> {
        &self.0
    }
    fn read(&self, texts: &[String]) -> Result<Option<T>, Vec<RefusedText>> {
        match texts {
            [] => Ok(None),
            [text] => read_one(&self.0, text)
                .map(Some)
                .map_err(|refusal| vec![refusal]),
            _ => Err(refuse_all(texts, EXACTLY_ONE)),
        }
    }
    fn show(&self, value: &Option<T>) -> Option<toml::Value> {
        value.as_ref().map(|value| self.0.show(value))
    }
}

/// Any number of values.
pub(super) struct Many<T>(ValueParser<T>);

pub(super) fn many<T>(parser: ValueParser<T>) -> Many<T> {
    Many(parser)
}

impl<T> Arity for Many<T> {
    type Item = T;
    type Value = Vec<T>;
    const MANY: bool = true;
    fn parser(&self) -> &ValueParser<T> {
        &self.0
    }
    fn read(&self, texts: &[String]) -> Result<Vec<T>, Vec<RefusedText>> {
        let (mut values, mut refused) = (Vec::new(), Vec::new());
        for text in texts {
            match read_one(&self.0, text) {
                Ok(value) => values.push(value),
                Err(refusal) => refused.push(refusal),
            }
        }
        if refused.is_empty() {
            Ok(values)
        } else {
            Err(refused)
        }
    }
    fn show(&self, values: &Vec<T>) -> Option<toml::Value> {
        let values = values.iter().map(|value| self.0.show(value));
        Some(toml::Value::Array(values.collect()))
    }
}
