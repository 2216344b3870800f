//! JSON that every reader accepts, after RFC 7493 (I-JSON). JSON proper also has half surrogate
//! pairs (`"\ud83d"`) and numbers beyond doubles (`1e400`); strict readers refuse a whole page of
//! messages because of one of them, so no client may send them.

/// What readers would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonTextError {
    #[error("an escape like \\ud83d is half of a character; send both halves or neither")]
    Surrogate,
    #[error("a number is beyond the range of a double; send it as a string")]
    Number,
}

/// Integers with fewer digits are in the range of a double, which ends at 1.8 × 10³⁰⁸.
const SAFE_DIGITS: usize = 308;

/// Checks a text that is valid JSON; of other texts the answer means nothing.
///
/// Nearly all texts have no escape, no exponent and no 309 digits in a row, which is found out much
/// faster than by a parser.
pub(crate) fn check(text: &str) -> Result<(), JsonTextError> {
    if is_suspicious(text.as_bytes()) {
        scan(text)
    } else {
        Ok(())
    }
}

/// Whether a text may have what [`check`] refuses: `\u` with a surrogate, a digit in front of an
/// `e`, or many digits. Both passes count instead of stopping, so that the compiler uses vectors.
fn is_suspicious(text: &[u8]) -> bool {
    let pairs = text.iter().zip(text.iter().skip(1));
    let special = |(first, second): &(&u8, &u8)| {
        let exponent = first.is_ascii_digit() & (**second | 0x20 == b'e');
        exponent | ((**first == b'\\') & (**second == b'u'))
    };
    pairs.filter(special).count() > 0 || has_long_run(text)
}

/// Of more than [`SAFE_DIGITS`] digits in a row one stands at a multiple of that length.
fn has_long_run(text: &[u8]) -> bool {
    let mut every = text.iter().skip(SAFE_DIGITS).step_by(SAFE_DIGITS);
    every.any(u8::is_ascii_digit)
}

fn scan(text: &str) -> Result<(), JsonTextError> {
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = match first {
            b'"' => behind_string(behind)?,
            b'-' | b'0'..=b'9' => behind_number(rest)?,
            _ => behind,
        };
    }
    Ok(())
}

/// What follows the end of a string whose first quote is gone.
fn behind_string(mut rest: &[u8]) -> Result<&[u8], JsonTextError> {
    while let [first, behind @ ..] = rest {
        rest = match (first, behind) {
            (b'"', _) => return Ok(behind),
            (b'\\', [b'u', digits @ ..]) => behind_escape(digits)?,
            (b'\\', [_, behind @ ..]) => behind,
            _ => behind,
        };
    }
    Ok(rest)
}

/// What follows `XXXX` of an escape, and the second half of its pair (RFC 8259 section 7).
fn behind_escape(digits: &[u8]) -> Result<&[u8], JsonTextError> {
    let Some((unit, behind)) = utf16_unit(digits) else {
        return Ok(digits);
    };
    match unit {
        0xd800..=0xdbff => {
            let second = behind.strip_prefix(b"\\u").and_then(utf16_unit);
            match second {
                Some((0xdc00..=0xdfff, behind)) => Ok(behind),
                _ => Err(JsonTextError::Surrogate),
            }
        }
        0xdc00..=0xdfff => Err(JsonTextError::Surrogate),
        _ => Ok(behind),
    }
}

fn utf16_unit(digits: &[u8]) -> Option<(u32, &[u8])> {
    let (unit, behind) = digits.split_at_checked(4)?;
    let mut value = 0;
    for digit in unit {
        value = value << 4 | char::from(*digit).to_digit(16)?;
    }
    Some((value, behind))
}

/// What follows a number.
fn behind_number(text: &[u8]) -> Result<&[u8], JsonTextError> {
    let of_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let end = text.iter().position(|byte| !of_number(byte));
    let (number, behind) = text.split_at(end.unwrap_or(text.len()));
    let number = std::str::from_utf8(number).unwrap_or_default();
    let may_be_large = number.len() > SAFE_DIGITS || number.contains(['e', 'E']);
    if may_be_large && number.parse().is_ok_and(f64::is_infinite) {
        return Err(JsonTextError::Number);
    }
    Ok(behind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_surrogate_pairs_are_refused_in_strings_and_names() {
        for text in [
            r#""\ud83d""#,
            r#""\uD83D""#,
            r#""\ude00""#,
            r#""\ud83dx\ude00""#,
            r#""\ud83d\ud83d\ude00""#,
            r#""\ud83d\n""#,
            r#"{"a":["\\\udfff"]}"#,
            r#"{"\ud83d":1}"#,
        ] {
            assert_eq!(check(text), Err(JsonTextError::Surrogate), "{text}");
        }
        for text in [
            r#""\ud83d\ude00""#,
            r#""\ud83d\ude00\uD83D\uDE00""#,
            r#""\\ud83d""#,
            r#""\u0041\"\ue000""#,
            r#""😀""#,
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn numbers_beyond_doubles_are_refused_outside_of_strings() {
        let digits = |count| "9".repeat(count);
        for text in [
            "1e400",
            "-1E+309",
            "[0,1e309]",
            r#"{"n":0.1e310,"e":1}"#,
            &digits(309),
            &format!("[1,-{},1]", digits(400)),
            &format!("[\"{}\",{}]", digits(300), digits(310)),
            &format!("{}e99", digits(250)),
        ] {
            assert_eq!(check(text), Err(JsonTextError::Number), "{text}");
        }
        for text in [
            r#""1e400""#,
            r#"["a\"1e400",2]"#,
            "1e308",
            "-1.7976931348623157e308",
            "1e-400",
            "0e999",
            &digits(308),
            &format!("0.{}", digits(400)),
            &format!("\"{}\"", digits(400)),
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    proptest! {
        /// A strict reader decides: that of `serde_json` for values, in which nothing is kept as
        /// text.
        #[test]
        fn check_agrees_with_a_strict_reader(
            parts in proptest::collection::vec(
                "\\\\u(d83d|de00|0041|DBFF|dc00|e000)|\\\\\\\\|\\\\\"|[a1e]|\\\\n", 0..6),
            number in "-?[1-9][0-9]{0,2}(\\.[0-9])?([eE]-?[23][0-9]{0,2})?|[1-9][0-9]{300,320}",
        ) {
            let text = format!("{{\"{}\":[{number}]}}", parts.concat());
            let is_read = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(check(&text).is_ok(), is_read, "{}", text);
        }
    }
}
