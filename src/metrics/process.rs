//! Data about this process, read from `/proc/self` (proc(5)). Without `/proc` all values are
//! unknown.

use std::fs;

/// The process as it is now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Process {
    /// Processor time used so far, in seconds, of all threads.
    pub cpu_seconds: f64,
    /// Memory held in RAM, in bytes.
    pub resident_bytes: u64,
    /// Files and sockets that are open, the one through which they were counted included.
    pub open_files: u64,
    /// When it started: seconds since 1970.
    pub started: f64,
}

impl Process {
    /// Reads everything, in about as long as an accept takes.
    pub(crate) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let stat = Stat::parse(&stat)?;
        Some(Self {
            cpu_seconds: stat.cpu_ticks as f64 / ticks,
            resident_bytes: stat.resident_pages * rustix::param::page_size() as u64,
            open_files: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            started: boot_time(&boot)? as f64 + stat.started_ticks as f64 / ticks,
        })
    }
}

/// Memory held in RAM, in bytes: one of the above, read alone in a few microseconds however many
/// files are open.
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    /// Since the machine has booted.
    started_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// The second field is the program's name in brackets, and may itself hold brackets and blanks:
    /// the others are counted from its end, where the state is the first.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(11)? + field(12)?,
            started_ticks: field(19)?,
            resident_pages: field(21)?,
        })
    }
}

/// The line `btime` of `/proc/stat`: seconds since 1970.
fn boot_time(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn names_with_brackets_and_spaces_shift_no_field() {
        let text = "7 (a) b ( c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 3 0 9001 111 222 \
                    18446744073709551615 1\n";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            (stat.cpu_ticks, stat.started_ticks, stat.resident_pages),
            (200, 9001, 222)
        );
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(
            boot_time("cpu 1 2\nbtime 1764000000\nprocesses 3\n"),
            Some(1_764_000_000)
        );
    }

    #[test]
    fn this_process_is_known() {
        let process = Process::read().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(process.resident_bytes > 1 << 20 && process.open_files >= 3);
        let alone = resident_bytes().unwrap() as f64;
        let share = alone / process.resident_bytes as f64;
        assert!((0.5..2.0).contains(&share), "{alone} bytes");
        assert!((0.0..100_000.0).contains(&process.cpu_seconds));
        let age = now.as_secs_f64() - process.started;
        assert!((-2.0..100_000.0).contains(&age), "{age}");
    }
}
