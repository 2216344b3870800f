//! The nesting depth of a JSON text, without parsing it: all members of a room must be able to read
//! its messages, and JSON readers have different depth limits (some 128, some 1,000).

/// Whether arrays and objects are nested more than `most` deep. The text need not be
/// JSON.
pub(crate) fn is_deeper(text: &str, most: usize) -> bool {
    let opening = |byte: &u8| matches!(byte, b'[' | b'{');
    // Nearly every text has fewer brackets than that in all, and counting them is quick.
    text.as_bytes().iter().filter(|byte| opening(byte)).count() > most && depth(text) > most
}

fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_brackets_outside_of_strings_count() {
        let table = [
            ("", 0),
            ("7", 0),
            ("[]", 1),
            (r#"{"a":{"b":[1,2]},"c":[[]]}"#, 3),
            ("[],[],[]", 1),
            (r#"["[[[[", "\"[[["]"#, 1),
            (r#"["\\", [[]]]"#, 3),
            (r#"{"[":"]"}"#, 1),
            ("]]]][", 1),
            (r#""[["#, 0),
        ];
        for (text, expected) in table {
            assert_eq!(depth(text), expected, "{text}");
            assert!(!is_deeper(text, expected), "{text}");
            assert!(expected == 0 || is_deeper(text, expected - 1), "{text}");
        }
    }

    #[test]
    fn depth_is_exact_for_the_output_of_serde() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..500 {
            let (mut value, mut expected) = (serde_json::json!("\"]}[{\\"), 0);
            for _ in 0..random.u32(0..40) {
                value = match random.u32(0..3) {
                    0 => serde_json::json!([1, value, "["]),
                    1 => serde_json::json!({"{\"": value, "b": 1}),
                    _ => continue,
                };
                expected += 1;
            }
            assert_eq!(depth(&value.to_string()), expected, "{value}");
        }
    }
}
