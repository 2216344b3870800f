//! A line of progress on standard error, if that is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::meter::Meter;

/// The length of the bar.
const WIDTH: usize = 30;

/// Returns to the start of the line and deletes it (ECMA-48: EL).
const START_OF_LINE: &str = "\r\x1b[K";

pub(super) struct Progress {
    is_terminal: bool,
    /// When the last line was drawn, and the counts in it.
    last: (Duration, u64, u64),
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            last: (Duration::ZERO, 0, 0),
        }
    }

    pub(super) fn draw(&mut self, now: Duration, end: Duration, meter: &Meter) {
        if !self.is_terminal {
            return;
        }
        let (publishes, deliveries) = (meter.publishes(), meter.delivered());
        let (then, publishes_then, deliveries_then) = self.last;
        let seconds = now.saturating_sub(then).as_secs_f64().max(0.001);
        let rate = |count: u64| count as f64 / seconds;
        let filled = (WIDTH as f64 * now.as_secs_f64() / end.as_secs_f64()) as usize;
        let bar = format!("{:<WIDTH$}", "=".repeat(filled.min(WIDTH)));
        let line = format!(
            "{START_OF_LINE}[{bar}] {:.0} of {:.0} s  {:.0} publishes/s  {:.0} deliveries/s",
            now.as_secs_f64(),
            end.as_secs_f64(),
            rate(publishes - publishes_then),
            rate(deliveries - deliveries_then)
        );
        self.last = (now, publishes, deliveries);
        print(&line);
    }

    pub(super) fn clear(&self) {
        if self.is_terminal {
            print(START_OF_LINE);
        }
    }
}

fn print(text: &str) {
    let mut out = io::stderr().lock();
    // A terminal that is gone needs no progress.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
