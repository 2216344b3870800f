//! Durations, sizes and counts: numbers between two bounds, the first two with units.

use std::time::Duration;

use super::parser::ValueParser;

pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;
pub(super) const GIB: usize = 1024 * MIB;
pub(super) const TENTH: Duration = Duration::from_millis(100);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// Values between two bounds, both included.
fn bounded<T: PartialOrd + Copy + 'static, S: Into<toml::Value> + 'static>(
    (from, to): (T, T),
    read: fn(&str) -> Result<T, &'static str>,
    write: fn(T) -> String,
    show: fn(T) -> S,
) -> ValueParser<T> {
    let (least, greatest) = (write(from), write(to));
    let range = Some((least.clone(), greatest.clone()));
    let parse = move |text: &str| {
        let value = read(text)?;
        if from <= value && value <= to {
            return Ok(value);
        }
        Err(format!("must lie between {least} and {greatest}"))
    };
    let mut parser = ValueParser::new(parse, move |value| show(*value));
    parser.range = range;
    parser
}

/// Splits `64KiB` into the number and the unit.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// A duration.
pub(super) fn time(from: Duration, to: Duration) -> ValueParser<Duration> {
    bounded((from, to), parse_time, show_time, show_time)
}

fn parse_time(text: &str) -> Result<Duration, &'static str> {
    let millis = number_and_unit(text).and_then(|(number, unit)| match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "" if number == 0 => Some(0),
        _ => None,
    });
    let wrong = "is not a duration; write a number and a unit, like 500ms, 25s, 5m or 2h";
    millis.map(Duration::from_millis).ok_or(wrong)
}

/// In the largest unit that loses nothing (of whole milliseconds).
pub(super) fn show_time(time: Duration) -> String {
    let millis = time.as_millis();
    match [(3_600_000, "h"), (60_000, "m"), (1000, "s")]
        .into_iter()
        .find(|(n, _)| millis.is_multiple_of(*n))
    {
        Some(_) if millis == 0 => "0s".into(),
        Some((n, unit)) => format!("{}{unit}", millis / n),
        None => format!("{millis}ms"),
    }
}

/// A number of bytes.
pub(super) fn size(from: usize, to: usize) -> ValueParser<usize> {
    bounded((from, to), parse_size, show_size, show_size)
}

fn parse_size(text: &str) -> Result<usize, &'static str> {
    let bytes = number_and_unit(text).and_then(|(number, unit)| {
        let number = usize::try_from(number).ok()?;
        match unit {
            "" | "B" => Some(number),
            "KiB" => number.checked_mul(KIB),
            "MiB" => number.checked_mul(MIB),
            "GiB" => number.checked_mul(GIB),
            _ => None,
        }
    });
    bytes.ok_or("is not a size; write a number of bytes, like 65536, or 64KiB, 1MiB or 2GiB")
}

/// In the largest unit that loses nothing.
pub(super) fn show_size(size: usize) -> String {
    match [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")]
        .into_iter()
        .find(|(n, _)| size.is_multiple_of(*n))
    {
        Some((n, unit)) if size > 0 => format!("{}{unit}", size / n),
        _ => size.to_string(),
    }
}

/// A plain number, which is a number in TOML too.
pub(super) fn count(from: usize, to: usize) -> ValueParser<usize> {
    let read = |text: &str| text.parse().map_err(|_| "is not a whole number");
    let write = |number: usize| number.to_string();
    bounded((from, to), read, write, |number| {
        i64::try_from(number).unwrap_or(i64::MAX)
    })
}
