//! Figures of a process from /proc: processor time and memory.

use std::fs;
use std::time::Duration;

/// Processor time of all threads that live, to the nanosecond: /proc/PID/stat knows only hundredths
/// of a second.
pub fn cpu(pid: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Duration::ZERO;
    };
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

/// Bytes of memory that are resident.
pub fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        let field = line.strip_prefix("Rss:")?;
        field.trim().trim_end_matches(" kB").parse::<u64>().ok()
    });
    kib.unwrap_or(0) * 1024
}

/// How many files are open.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |files| files.count())
}
