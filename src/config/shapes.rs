//! How many values an option takes: one, perhaps one, many, or one that is filled in later.

use super::kinds::Kind;

/// A text that was refused, and why.
pub(super) type Refused = (String, String);

/// How many values an option takes. No text means the default of a `Maybe`, `Many` or
/// `Filled`.
pub(super) trait Shape {
    type Value;
    type Kind: Kind;
    const MANY: bool = false;
    fn kind(&self) -> &Self::Kind;
    fn read(&self, texts: &[String]) -> Result<Self::Value, Vec<Refused>>;
    /// `None` if the option is not set, so that there is nothing to show.
    fn show(&self, value: &Self::Value) -> Option<toml::Value>;
}

fn read_one<K: Kind>(kind: &K, text: &str) -> Result<K::Value, Vec<Refused>> {
    kind.parse(text)
        .map_err(|reason| vec![(kind.echo(text), reason)])
}

/// Exactly one value. Of several texts (a list in the file) none is taken.
fn single(texts: &[String]) -> Result<&str, Vec<Refused>> {
    match texts {
        [text] => Ok(text),
        _ => Err(vec![(
            format!("({} values)", texts.len()),
            "takes exactly one value".into(),
        )]),
    }
}

pub(super) struct One<K>(pub K);

impl<K: Kind> Shape for One<K> {
    type Value = K::Value;
    type Kind = K;
    fn kind(&self) -> &K {
        &self.0
    }
    fn read(&self, texts: &[String]) -> Result<K::Value, Vec<Refused>> {
        read_one(&self.0, single(texts)?)
    }
    fn show(&self, value: &K::Value) -> Option<toml::Value> {
        Some(self.0.show(value))
    }
}

pub(super) struct Maybe<K>(pub K);

impl<K: Kind> Shape for Maybe<K> {
    type Value = Option<K::Value>;
    type Kind = K;
    fn kind(&self) -> &K {
        &self.0
    }
    fn read(&self, texts: &[String]) -> Result<Option<K::Value>, Vec<Refused>> {
        match texts {
            [] => Ok(None),
            texts => read_one(&self.0, single(texts)?).map(Some),
        }
    }
    fn show(&self, value: &Option<K::Value>) -> Option<toml::Value> {
        value.as_ref().map(|value| self.0.show(value))
    }
}

/// A text that stays empty until it is filled in from the others.
pub(super) struct Filled<K>(pub K);

impl<K: Kind<Value = String>> Shape for Filled<K> {
    type Value = String;
    type Kind = K;
    fn kind(&self) -> &K {
        &self.0
    }
    fn read(&self, texts: &[String]) -> Result<String, Vec<Refused>> {
        match texts {
            [] => Ok(String::new()),
            texts => read_one(&self.0, single(texts)?),
        }
    }
    fn show(&self, value: &String) -> Option<toml::Value> {
        Some(self.0.show(value))
    }
}

pub(super) struct Many<K>(pub K);

impl<K: Kind> Shape for Many<K> {
    type Value = Vec<K::Value>;
    type Kind = K;
    const MANY: bool = true;
    fn kind(&self) -> &K {
        &self.0
    }
    fn read(&self, texts: &[String]) -> Result<Vec<K::Value>, Vec<Refused>> {
        let (mut values, mut refused) = (Vec::new(), Vec::new());
        for text in texts {
            match read_one(&self.0, text) {
                Ok(value) => values.push(value),
                Err(more) => refused.extend(more),
            }
        }
        if refused.is_empty() {
            Ok(values)
        } else {
            Err(refused)
        }
    }
    fn show(&self, values: &Vec<K::Value>) -> Option<toml::Value> {
        Some(toml::Value::Array(
            values.iter().map(|value| self.0.show(value)).collect(),
        ))
    }
}
