//! Names of users as plain ASCII, for the name of a personal room, a field in Redis or a message
//! whose parts are divided by blanks: every byte outside `A-Z a-z 0-9 _ . : -` is `%XX`. Each name
//! has exactly one such text, so two names never meet; a name of those characters alone stays as it
//! is.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a byte stands for itself. `%` does not.
pub fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte)
}

/// The text of a name.
pub fn encode(name: &str) -> Cow<'_, str> {
    if name.bytes().all(is_plain) {
        return Cow::Borrowed(name);
    }
    let mut text = String::with_capacity(name.len() + 16);
    for byte in name.bytes() {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    Cow::Owned(text)
}

/// The name of a text; `None` unless [`encode`] returns this very text for it.
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    if text.bytes().all(is_plain) {
        return Some(Cow::Borrowed(text));
    }
    let name = String::from_utf8(unescape(text)).ok()?;
    (encode(&name) == text).then_some(Cow::Owned(name))
}

/// The text that people mean who write some bytes of a name as they are and others as `%XX`.
pub fn normalize(text: &str) -> Option<String> {
    let name = String::from_utf8(unescape(text)).ok()?;
    Some(encode(&name).into_owned())
}

/// Replaces `%XX` by the byte; a `%` without two hexadecimal digits stays.
fn unescape(text: &str) -> Vec<u8> {
    let (mut rest, mut bytes) = (text.as_bytes(), Vec::with_capacity(text.len()));
    while let [first, behind @ ..] = rest {
        let digits = behind.get(..2).filter(|_| *first == b'%');
        let escaped = digits.and_then(|digits| Some(hex(digits[0])? << 4 | hex(digits[1])?));
        bytes.push(escaped.unwrap_or(*first));
        rest = escaped.map_or(behind, |_| &behind[2..]);
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_stay_and_other_bytes_are_escaped() {
        for (name, text) in [
            ("ada", "ada"),
            ("A_z.0:-", "A_z.0:-"),
            ("auth0|5f7c", "auth0%7C5f7c"),
            ("ada@example.com", "ada%40example.com"),
            ("100%", "100%25"),
            ("%41", "%2541"),
            ("é", "%C3%A9"),
            ("O'Neil (100%)!~*", "O%27Neil%20%28100%25%29%21%7E%2A"),
            ("%3A%7C", "%253A%257C"),
            ("a b", "a%20b"),
        ] {
            assert_eq!(encode(name), text);
            assert_eq!(decode(text).as_deref(), Some(name));
        }
    }

    #[test]
    fn text_that_is_not_the_one_of_a_name_is_refused() {
        // Lower case, a plain byte, no digits, half a character, a byte that must be escaped.
        for text in ["a%7c", "%41", "%", "%4", "%4g", "%C3", "a@b", "é"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn normal_form_takes_bytes_either_way() {
        for text in ["a|b", "a%7Cb", "a%7cb", "%61|b"] {
            assert_eq!(normalize(text).as_deref(), Some("a%7Cb"), "{text}");
        }
        assert_eq!(normalize("100%").as_deref(), Some("100%25"));
        assert_eq!(normalize("%FF"), None);
    }

    proptest! {
        #[test]
        fn names_read_back_and_never_meet(one: String, other: String) {
            let text = encode(&one);
            let read = decode(&text);
            prop_assert_eq!(read.as_deref(), Some(&*one));
            prop_assert_eq!(text == encode(&other), one == other);
            prop_assert!(text.bytes().all(|byte| is_plain(byte) || byte == b'%'));
        }

        #[test]
        fn text_reads_back_or_is_refused(text in "[a%0-9A-Fé@]{0,12}") {
            if let Some(name) = decode(&text) {
                prop_assert_eq!(&encode(&name), &text);
            }
        }
    }
}
