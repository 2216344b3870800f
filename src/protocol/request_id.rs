//! The number that a client gives to a command. The reply repeats its text, so that a client finds
//! it however it writes numbers.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// The longest text, in bytes: that of the longest double, `-1.7976931348623157e+308`.
pub(crate) const ID_BYTES: usize = 24;

/// Any JSON number of at most [`ID_BYTES`], as the client wrote it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    text: [u8; ID_BYTES],
    length: u8,
}

impl RequestId {
    /// `json` is a JSON value. `None` for one that is no number, is longer, or is beyond the range
    /// of doubles, which some readers of the reply would refuse.
    pub(crate) fn new(json: &RawValue) -> Option<Self> {
        let number = json.get();
        let is_number = number.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        if !is_number || !number.parse().is_ok_and(f64::is_finite) {
            return None;
        }
        let mut text = [0; ID_BYTES];
        text.get_mut(..number.len())?
            .copy_from_slice(number.as_bytes());
        let length = u8::try_from(number.len()).ok()?;
        Some(Self { text, length })
    }

    fn as_str(&self) -> &str {
        let text = self.text.get(..usize::from(self.length));
        text.and_then(|text| std::str::from_utf8(text).ok())
            .unwrap_or_default()
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = serde_json::from_str::<&RawValue>(self.as_str());
        json.map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestId({})", self.as_str())
    }
}

impl From<u32> for RequestId {
    fn from(number: u32) -> Self {
        let digits = number.to_string();
        let mut text = [0; ID_BYTES];
        for (byte, digit) in text.iter_mut().zip(digits.bytes()) {
            *byte = digit;
        }
        let length = digits.len() as u8;
        Self { text, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<RequestId> {
        RequestId::new(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn any_number_is_repeated_as_it_was_written() {
        for text in [
            "0",
            "7",
            "-1",
            "-0",
            "1.5",
            "1.50",
            "1e3",
            "1E-400",
            "9007199254740993",
            "-1.7976931348623157e+308",
        ] {
            let id = read(text).unwrap();
            assert_eq!(serde_json::to_string(&id).unwrap(), text);
        }
    }

    #[test]
    fn other_values_and_numbers_out_of_range_are_refused() {
        let long = "1234567890123456789012345";
        for text in [
            "\"7\"", "true", "null", "[1]", "{}", "1e400", "-1e400", long,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
