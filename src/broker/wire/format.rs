//! The format version with which every body, message and notice begins: one digit from 1 to 9.

use std::fmt;

use super::WireError;

/// A version of the formats in [`wire`](super). To add one: raise [`Format::NEWEST`], and add an arm
/// to the `match` of each encoder and decoder whose format changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Format(u8);

impl Format {
    /// The only format of the nodes that announce none.
    pub const FIRST: Self = Self(1);
    /// The newest format of this version of Switchboard. It reads this one and all before it.
    pub const NEWEST: Self = Self(1);

    /// `None` unless the number is a digit from 1 to 9.
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            1..=9 => Some(Self(number)),
            _ => None,
        }
    }

    pub fn number(self) -> u8 {
        self.0
    }

    /// The digit that stands for it in Redis.
    pub fn digit(self) -> char {
        char::from(b'0' + self.0)
    }

    /// Splits off the version. A version above `newest` is an error of its own kind, because its
    /// text must not be skipped.
    pub fn split(bytes: &[u8], newest: Self) -> Result<(Self, &[u8]), WireError> {
        let (first, rest) = bytes.split_first().ok_or(WireError::NO_VERSION)?;
        match Self::new(first.wrapping_sub(b'0')) {
            Some(format) if format > newest => Err(WireError::Newer(format)),
            Some(format) => Ok((format, rest)),
            None => Err(WireError::NO_VERSION),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_read_up_to_the_newest_that_the_node_knows() {
        let [first, second] = [1, 2].map(|number| Format::new(number).unwrap());
        assert_eq!(Format::split(b"1{}", first), Ok((first, &b"{}"[..])));
        assert_eq!(Format::split(b"1{}", second), Ok((first, &b"{}"[..])));
        assert_eq!(Format::split(b"2{}", second), Ok((second, &b"{}"[..])));
        assert_eq!(Format::split(b"2{}", first), Err(WireError::Newer(second)));
        for junk in ["", "{}", "0{}", "x", "\0"] {
            let split = Format::split(junk.as_bytes(), second);
            assert_eq!(split, Err(WireError::NO_VERSION), "{junk:?}");
        }
    }
}
