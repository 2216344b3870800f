//! An open loop: messages are sent when they are due, whatever became of the former, and each
//! delivery's latency counts from the moment its message was *due*. So a server that stalls pays
//! for all that it kept waiting (no coordinated omission).

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::server::Server;
use super::talk::Talk;
use super::watch::{Spent, Watch};
use super::{Outcome, size};

/// What an open loop has shown.
pub struct Measured {
    /// Microseconds.
    latency: Histogram<u64>,
    pub spent: Spent,
    deliveries: u64,
}

impl Measured {
    /// A quantile of the latency, in milliseconds.
    pub fn at(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Processor time per delivery, in microseconds.
    pub fn cost(&self) -> f64 {
        self.spent.micros_per(self.deliveries)
    }
}

/// Publishes so many messages a second to so many members of one room, and records the latency.
pub fn measure(
    servers: &[&Server],
    helpers: &[&Server],
    members: usize,
    rate: u32,
) -> Outcome<Measured> {
    let mut talk = Talk::begin(servers, 1, members)?;
    let period = Duration::from_secs(1) / rate;
    // The first messages find cold caches everywhere; they are sent alike and not counted.
    let warm_up = rate.max(4) / 2;
    let count = warm_up + rate * size(4, 30);
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    let start = Instant::now() + period;
    let due = |number: u32| start + period * number;
    let mut watch = None;
    let mut before = 0;
    for next in 0..count {
        while Instant::now() < due(next) {
            talk.poll(due(next), |number, when| {
                note(&mut latency, number, warm_up, when, due(number))
            })?;
        }
        if next == warm_up {
            before = talk.deliveries;
            watch = Some(Watch::begin(servers, helpers));
        }
        talk.publish(0, 1)?;
    }
    talk.finish(|number, when| note(&mut latency, number, warm_up, when, due(number)))?;
    let spent = watch.ok_or("nothing was measured")?.end();
    Ok(Measured {
        latency,
        spent,
        deliveries: talk.deliveries - before,
    })
}

fn note(latency: &mut Histogram<u64>, number: u32, warm_up: u32, when: Instant, due: Instant) {
    if number >= warm_up {
        latency.saturating_record(when.saturating_duration_since(due).as_micros() as u64);
    }
}
