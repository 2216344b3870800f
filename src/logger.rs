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
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use log::LevelFilter;
use rustix::event::{PollFd, PollFlags, poll};

/// How many bytes may wait for a slow stdout: some ten thousand lines, seconds of a busy log. As
/// many again may be in the batch that is being written.
pub(crate) const WAITING_LIMIT: usize = 4 << 20;

/// How long dropping a [`Logger`] waits at most for the last lines.
pub(crate) const LAST_LINES: Duration = Duration::from_secs(1);

/// The log while it is open. When it is dropped, lines logged before are on stdout, unless that
/// takes longer than [`LAST_LINES`]; later ones are discarded.
#[derive(Debug)]
pub(crate) struct Logger {
    #[cfg(test)]
    queue: Arc<LineQueue>,
    /// What file descriptor 1 is after the end: the pipe then has no writer, so it ends.
    null: File,
    /// Disconnected when the last line is written or given up.
    printed: mpsc::Receiver<()>,
}

/// The lines between the thread that reads the pipe and the one that writes to the real stdout.
#[derive(Debug, Default)]
struct LineQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: Vec<u8>,
    /// Lines that never reached stdout, since the start.
    dropped: u64,
    /// Those of them that are not yet reported on stdout.
    unreported: u64,
    /// Whether the last write failed. Only a new line is a reason to try again.
    broken: bool,
    /// Whether the pipe has ended.
    ended: bool,
}

/// The real stdout, written to in blocking mode.
struct Stdout(File);

/// Makes femme the `log` crate's logger, with lines up to `level`, and stands between it and the
/// real stdout. Everything that the process prints to stdout from now on goes the same way.
///
/// # Errors
/// When there is no descriptor, thread or `/dev/null`. Nothing has changed then.
///
/// # Panics
/// When a logger has been started before.
pub(crate) fn start(level: LevelFilter) -> io::Result<Logger> {
    let stdout = Stdout(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    let null = File::options().write(true).open("/dev/null")?;
    let (reader, writer) = io::pipe()?;
    let queue = Arc::new(LineQueue::default());
    let (drainer, printer) = (queue.clone(), queue.clone());
    let (printing, printed) = mpsc::channel();
    thread::Builder::new()
        .name("log-drain".into())
        .spawn(move || drainer.drain(reader))?;
    thread::Builder::new()
        .name("log-print".into())
        .spawn(move || {
            let _printing: mpsc::Sender<()> = printing;
            printer.print(stdout);
        })?;
    rustix::stdio::dup2_stdout(&writer)?;
    femme::with_level(level);
    Ok(Logger {
        #[cfg(test)]
        queue,
        null,
        printed,
    })
}

impl Logger {
    /// Ends the log: waits until every line logged so far is written or given up; `false` if that
    /// takes longer than `limit`.
    pub(crate) fn close(&self, limit: Duration) -> bool {
        // The pipe is always read, so this cannot stall.
        let flushed = io::stdout().flush().is_ok();
        let ended = rustix::stdio::dup2_stdout(&self.null).is_ok();
        let printed = || self.printed.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected);
        flushed && ended && printed()
    }

    /// How many lines never reached stdout.
    #[cfg(test)]
    pub(crate) fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.close(LAST_LINES);
    }
}

impl LineQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the pipe to its end and never waits for stdout.
    fn drain(&self, reader: PipeReader) {
        let mut reader = BufReader::with_capacity(64 << 10, reader);
        let mut line = Vec::new();
        // An endless line is taken in pieces.
        while let Ok(1..) = (&mut reader)
            .take(WAITING_LIMIT as u64)
            .read_until(b'\n', &mut line)
        {
            self.push(&line);
            line.clear();
        }
        self.lock().ended = true;
        self.changed.notify_one();
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        // Otherwise the other thread is at work, and looks again.
        if state.waiting.is_empty() {
            self.changed.notify_one();
        }
        if state.waiting.len() + line.len() <= WAITING_LIMIT {
            state.waiting.extend_from_slice(line);
        } else {
            state.count_dropped(1);
        }
    }

    /// Writes the queued lines to the real stdout, and behind them the number of dropped lines.
    fn print(&self, mut stdout: impl Write) {
        let mut torn = false;
        while let Some((lines, unreported)) = self.next() {
            let lost = write_lines(&mut stdout, &mut torn, &lines);
            let mut reported = lost == 0;
            if reported && unreported > 0 {
                let report = dropped_line(unreported);
                reported = write_lines(&mut stdout, &mut torn, report.as_bytes()) == 0;
            }
            let mut state = self.lock();
            state.count_dropped(lost);
            state.broken = !reported;
            if !reported {
                state.unreported += unreported;
            }
        }
    }

    /// Waits for something to write: lines, or the number of dropped ones. `None` when the pipe has
    /// ended and all is written.
    fn next(&self) -> Option<(Vec<u8>, u64)> {
        let idle = |state: &mut QueueState| !state.has_work() && !state.ended;
        let state = self.changed.wait_while(self.lock(), idle);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.has_work().then(|| {
            let lines = mem::take(&mut state.waiting);
            (lines, mem::take(&mut state.unreported))
        })
    }
}

impl QueueState {
    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || (self.unreported > 0 && !self.broken)
    }

    fn count_dropped(&mut self, lines: u64) {
        self.dropped += lines;
        self.unreported += lines;
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                // Another process that shares the real stdout may have made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let _ = poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None);
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines; returns the number of those that were not written completely. `torn` is whether
/// a failure has cut a line in two, as a full disk does: its end is written first.
fn write_lines(stdout: &mut impl Write, torn: &mut bool, lines: &[u8]) -> u64 {
    if *torn {
        *torn = write_some(stdout, b"\n") == 0;
    }
    let written = if *torn { 0 } else { write_some(stdout, lines) };
    if let Some(last) = lines[..written].last() {
        *torn = *last != b'\n';
    }
    let lost = lines[written..].iter().filter(|byte| **byte == b'\n');
    lost.count() as u64
}

/// Writes until all is written or a permanent error occurs; returns the number of bytes written.
fn write_some(stdout: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match stdout.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
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
