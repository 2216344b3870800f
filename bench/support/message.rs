//! The message that every bench sends: 128 bytes of data, which begin with the number of the message in its room. So each
//! receiver can check that nothing is missing, double or out of order.

use super::frames;

/// Bytes of the JSON string, quotes included.
const DATA: usize = 128;

/// Digits of the number.
const DIGITS: usize = 8;

/// What stands behind the data in a message: the string's quote and the object's end.
const TAIL: usize = 2;

/// Appends the frame by which a client publishes message `number`.
pub fn publish(room: &str, number: u32, out: &mut Vec<u8>) {
    let pad = DATA - 2 - DIGITS;
    let text = format!(
        r#"{{"type":"publish","id":{number},"room":"{room}","data":"{number:08}{:x<pad$}"}}"#,
        ""
    );
    frames::masked_text(text.as_bytes(), out);
}

/// The number in a delivered message.
pub fn number(payload: &[u8]) -> Option<u32> {
    let start = payload.len().checked_sub(TAIL + DATA - 2)?;
    payload[start..start + DIGITS]
        .iter()
        .try_fold(0u32, |number, digit| {
            let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
            Some(number * 10 + u32::from(digit))
        })
}
