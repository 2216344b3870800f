//! The message that every bench sends: 128 bytes of data, which begin with the number of the
//! message in its room. So each receiver can check that nothing is missing, double or out of order.

/// Bytes of the data, as a JSON string with its quotes.
const DATA: usize = 128;

/// Digits of the number.
const DIGITS: usize = 8;

/// The data of message `number`, without its quotes.
pub fn data(number: u32) -> String {
    let pad = DATA - 2 - DIGITS;
    format!("{number:08}{:x<pad$}", "")
}

/// The number in a delivered message; `tail` is what stands behind its data.
pub fn number(text: &[u8], tail: &[u8]) -> Option<u32> {
    let data = text.strip_suffix(tail)?;
    digits(&data[data.len().checked_sub(DATA - 2)?..])
}

/// The number with which data begins.
pub fn digits(data: &[u8]) -> Option<u32> {
    data.get(..DIGITS)?.iter().try_fold(0u32, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        Some(number * 10 + u32::from(digit))
    })
}
