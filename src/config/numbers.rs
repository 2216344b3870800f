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

/// Splits `64KiB` or `64 KiB` into the number and the unit.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
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
        "d" => number.checked_mul(24 * 3_600_000),
        "w" => number.checked_mul(7 * 24 * 3_600_000),
        "" if number == 0 => Some(0),
        _ => None,
    });
    let wrong = "is not a duration; write a whole number and a unit (ms, s, m, h, d or w), like \
                 500ms, 25s, 5m, 2h or 30d";
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

/// The units in any case: `kB` is 1000 bytes (IEC 80000-13), `KiB` 1024, and so is `k` alone, as in
/// the configurations of nginx and the limits of containers.
fn parse_size(text: &str) -> Result<usize, &'static str> {
    let bytes = number_and_unit(text).and_then(|(number, unit)| {
        let number = usize::try_from(number).ok()?;
        let factor = match &*unit.to_ascii_lowercase() {
            "" | "b" => 1,
            "kb" => 1000,
            "mb" => 1000 * 1000,
            "gb" => 1000 * 1000 * 1000,
            "k" | "kib" => KIB,
            "m" | "mib" => MIB,
            "g" | "gib" => GIB,
            _ => return None,
        };
        number.checked_mul(factor)
    });
    let wrong = "is not a size; write a whole number of bytes, like 65536, or with a unit: 64KiB, \
                 1MiB or 2GiB by 1024, 64kB, 1MB or 2GB by 1000";
    bytes.ok_or(wrong)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_units_that_people_write() {
        for (text, seconds) in [
            ("500ms", 0.5),
            ("10s", 10.0),
            ("5m", 300.0),
            ("12h", 43_200.0),
            ("30d", 2_592_000.0),
            ("1w", 604_800.0),
            ("2 d", 172_800.0),
            ("0", 0.0),
        ] {
            assert_eq!(
                parse_time(text),
                Ok(Duration::from_secs_f64(seconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "d",
            "1.5h",
            "-1s",
            "1y",
            "1M",
            "1h30m",
            "1d ",
            "18446744073709551615d",
        ] {
            assert!(parse_time(text).unwrap_err().contains("30d"), "{text}");
        }
    }

    #[test]
    fn sizes_have_the_units_that_people_write() {
        for (text, bytes) in [
            ("65536", 65_536),
            ("10B", 10),
            ("512k", 512 * KIB),
            ("512K", 512 * KIB),
            ("512kB", 512_000),
            ("512KB", 512_000),
            ("512KiB", 512 * KIB),
            ("64m", 64 * MIB),
            ("64MB", 64_000_000),
            ("64MiB", 64 * MIB),
            ("1g", GIB),
            ("1GB", 1_000_000_000),
            ("1gib", GIB),
            ("1 GiB", GIB),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "1.5GB",
            "-1",
            "1TiB",
            "1 Gi",
            "many",
            "17179869184GiB",
        ] {
            assert!(parse_size(text).unwrap_err().contains("2GB"), "{text}");
        }
    }

    #[test]
    fn shown_values_read_back() {
        for time in [0, 1, 1500, 60_000, 86_400_000, 90_000_000].map(Duration::from_millis) {
            assert_eq!(parse_time(&show_time(time)), Ok(time));
        }
        for size in [0, 1, 1000, KIB, 1500 * KIB, GIB] {
            assert_eq!(parse_size(&show_size(size)), Ok(size));
        }
    }
}
