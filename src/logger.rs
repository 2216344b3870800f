//! The log: femme's ndjson lines (`level`, `time`, `msg`, then keys and values) on standard output.
//!
//! femme writes to stdout under its lock and unwraps each write: a closed stdout would panic the
//! task that logs, and a stdout without a reader would block all of them. femme accepts no other
//! writer, so the logger replaces file descriptor 1 by a pipe, which the thread `log-drain` always
//! reads. That thread queues up to [`WAITING_LIMIT`] bytes for a second thread, the only one that
//! writes to the real stdout. Lines that do not fit, or cannot be written, are dropped and counted.
//! `Cargo.toml` builds femme without debug assertions in every profile, because with them it writes
//! an unescaped, coloured format.
//!
//! ```text
//! log::info! ─▶ femme ─▶ fd 1, a pipe ─▶ drain ─▶ waiting lines, bounded ─▶ print ─▶ real stdout
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, PipeReader, Read, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use log::LevelFilter;
use rustix::event::{PollFd, PollFlags, poll};

/// How many bytes may wait for a slow stdout: some ten thousand lines, seconds of a busy log. As
/// many again may be in the batch that is being written.
pub const WAITING_LIMIT: usize = 4 << 20;

/// How long dropping a [`Logger`] waits at most for the last lines.
pub const LAST_LINES: Duration = Duration::from_secs(1);

/// A line that no logger writes (JSON has no raw zero): where [`Logger::flush`] was called.
const MARK: &[u8] = b"\0\n";

/// The log while it is open. When it is dropped, lines logged before are on stdout, unless that
/// takes longer than [`LAST_LINES`]; later ones are accepted, but may be lost when the process
/// ends.
#[derive(Debug)]
pub struct Logger {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Lines that never reached stdout, since the start.
    dropped: AtomicU64,
}

/// The state that the threads share. Bytes are counted from the start: `accepted` by the one that
/// drains, `settled` (written or given up) by the one that prints.
#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    accepted: u64,
    settled: u64,
    /// Flushes asked for, marks seen, and what was accepted at the last mark.
    flushes: u64,
    marks: u64,
    marked: u64,
    /// Dropped lines that are not yet reported on stdout.
    unreported: u64,
    /// Whether the last write failed. Only a new line is a reason to try again.
    broken: bool,
}

/// Makes femme the `log` crate's logger, with lines up to `level`, and stands between it and the
/// real stdout. Everything that the process prints to stdout from now on goes the same way.
///
/// # Errors
/// When there is no descriptor or thread left. Nothing has changed then.
///
/// # Panics
/// When a logger has been started before.
pub fn start(level: LevelFilter) -> io::Result<Logger> {
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let (reader, writer) = io::pipe()?;
    let shared = Arc::new(Shared::default());
    let (drainer, printer) = (shared.clone(), shared.clone());
    thread::Builder::new()
        .name("log-drain".into())
        .spawn(move || drainer.drain(reader))?;
    thread::Builder::new()
        .name("log-print".into())
        .spawn(move || printer.print(stdout))?;
    rustix::stdio::dup2_stdout(&writer)?;
    femme::with_level(level);
    Ok(Logger { shared })
}

impl Logger {
    /// Waits until every line logged so far is written or given up; `false` if that takes longer
    /// than `limit`.
    pub fn flush(&self, limit: Duration) -> bool {
        let mut state = self.shared.lock();
        state.flushes += 1;
        let ticket = state.flushes;
        drop(state);
        // The mark follows the earlier lines. The pipe is always read, so this cannot stall.
        if io::stdout().lock().write_all(MARK).is_err() {
            return false;
        }
        let pending = |state: &mut State| state.marks < ticket || state.settled < state.marked;
        let waited = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), limit, pending);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// How many lines never reached stdout.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.flush(LAST_LINES);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the pipe for ever and never waits for stdout. The pipe cannot end: fd 1 is its writing
    /// end.
    fn drain(&self, reader: PipeReader) {
        let mut reader = BufReader::with_capacity(64 << 10, reader);
        let mut line = Vec::new();
        // An endless line is taken in pieces.
        while let Ok(1..) = (&mut reader)
            .take(WAITING_LIMIT as u64)
            .read_until(b'\n', &mut line)
        {
            self.accept(&line);
            line.clear();
        }
    }

    fn accept(&self, line: &[u8]) {
        let mut state = self.lock();
        // Other output without a line end may precede a mark.
        let (line, mark) = match line.strip_suffix(MARK) {
            Some(front) => (front, true),
            None => (line, false),
        };
        let wake = mark || state.waiting.is_empty();
        if state.waiting.len() + line.len() <= WAITING_LIMIT {
            state.waiting.extend_from_slice(line);
            state.accepted += line.len() as u64;
        } else {
            state.unreported += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if mark {
            state.marks += 1;
            state.marked = state.accepted;
        }
        if wake {
            self.changed.notify_all();
        }
    }

    /// Writes the queued lines to the real stdout, for ever, and behind them the number of dropped
    /// lines.
    fn print(&self, mut stdout: File) {
        // Whether a failure has cut a line in two, as a full disk does.
        let mut torn = false;
        loop {
            let (mut batch, unreported) = self.next();
            let accepted = batch.len() as u64;
            if unreported > 0 {
                batch.extend_from_slice(dropped_line(unreported).as_bytes());
            }
            if torn {
                batch.insert(0, b'\n');
            }
            let written = write_some(&mut stdout, &batch);
            let whole = written == batch.len();
            let lost = lost_lines(&batch, written, torn, unreported > 0);
            torn = if written == 0 {
                torn
            } else {
                batch[written - 1] != b'\n'
            };
            self.settle(accepted, whole, lost, unreported);
        }
    }

    /// Waits for queued lines; returns them and the number of dropped lines.
    fn next(&self) -> (Vec<u8>, u64) {
        let idle =
            |state: &mut State| state.waiting.is_empty() && (state.unreported == 0 || state.broken);
        let state = self.changed.wait_while(self.lock(), idle);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        (
            mem::take(&mut state.waiting),
            mem::take(&mut state.unreported),
        )
    }

    /// Records the outcome of a batch of `accepted` bytes and a report of `unreported` dropped
    /// lines. The report is the end of the batch, so it is lost unless the `whole` batch was
    /// written.
    fn settle(&self, accepted: u64, whole: bool, lost: u64, unreported: u64) {
        let mut state = self.lock();
        state.settled += accepted;
        state.broken = !whole;
        if !whole {
            state.unreported += unreported + lost;
            self.dropped.fetch_add(lost, Ordering::Relaxed);
        }
        self.changed.notify_all();
    }
}

/// The number of log lines that were not written completely when only `written` bytes of a batch
/// were. The line end in front that closes a `torn` line, and the report behind, do not count.
fn lost_lines(batch: &[u8], written: usize, torn: bool, report: bool) -> u64 {
    let ends = batch[written..]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count() as u64;
    let front = torn && written == 0;
    let behind = report && written < batch.len();
    ends.saturating_sub(u64::from(front) + u64::from(behind))
}

/// Writes until all is written or a permanent error occurs; returns the number of bytes written.
fn write_some(stdout: &mut File, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match stdout.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process that shares the real stdout may have made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(&*stdout, PollFlags::OUT)], None);
            }
            Err(_) => break,
        }
    }
    written
}

/// The only line that femme does not write, because behind a full queue it would be dropped too.
fn dropped_line(dropped: u64) -> String {
    let time = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    format!(
        "{{\"level\":40,\"time\":{time},\"msg\":\"log lines dropped\",\"dropped\":{dropped}}}\n"
    )
}

#[cfg(test)]
mod tests;
