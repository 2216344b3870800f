//! Reads the format version with which every body, message and webhook event begins.

use super::WireError;
use crate::model::wire_format::Format;

/// Splits off the version. A version above `newest` is an error of its own kind, because its
/// text must not be skipped.
pub fn split_version(bytes: &[u8], newest: Format) -> Result<(Format, &[u8]), WireError> {
    let (first, rest) = bytes.split_first().ok_or(WireError::NO_VERSION)?;
    match Format::new(first.wrapping_sub(b'0')) {
        Some(format) if format > newest => Err(WireError::Newer(format)),
        Some(format) => Ok((format, rest)),
        None => Err(WireError::NO_VERSION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_read_up_to_the_newest_that_the_node_knows() {
        let [first, second] = [1, 2].map(|number| Format::new(number).unwrap());
        assert_eq!(split_version(b"1{}", first), Ok((first, &b"{}"[..])));
        assert_eq!(split_version(b"1{}", second), Ok((first, &b"{}"[..])));
        assert_eq!(split_version(b"2{}", second), Ok((second, &b"{}"[..])));
        assert_eq!(split_version(b"2{}", first), Err(WireError::Newer(second)));
        for junk in ["", "{}", "0{}", "x", "\0"] {
            let split = split_version(junk.as_bytes(), second);
            assert_eq!(split, Err(WireError::NO_VERSION), "{junk:?}");
        }
    }
}
