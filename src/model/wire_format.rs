//! The version of the formats in which nodes write to each other: one digit from 1 to 9, with which
//! every body, message and webhook event begins.

use std::fmt;

/// A version of the formats. To add one: raise [`Format::NEWEST`], and decide in each encoder and
/// decoder whose format changes by the format that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Format(u8);

impl Format {
    /// The only format of the nodes that announce none.
    pub const FIRST: Self = Self(1);
    /// Publications may have binary data and the name of an event.
    pub const SECOND: Self = Self(2);
    /// The newest format of this version of Switchboard. It reads this one and all before it.
    pub const NEWEST: Self = Self::SECOND;

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
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
