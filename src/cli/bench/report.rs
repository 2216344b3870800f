//! The result of a run, for people and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::meter::Meter;
use crate::config::BenchRequest;

#[derive(Serialize)]
pub(super) struct Report {
    connections: usize,
    publishers: usize,
    rooms: usize,
    seconds: f64,
    publishes: u64,
    unanswered: u64,
    deliveries: u64,
    missing: u64,
    publishes_per_second: f64,
    deliveries_per_second: f64,
    /// From when a publish was due to its answer.
    answer_us: Quantiles,
    /// From when a publish was due to each delivery.
    delivery_us: Quantiles,
}

#[derive(Serialize)]
struct Quantiles {
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Quantiles {
    fn of(quantile: impl Fn(f64) -> u64) -> Self {
        Self {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: quantile(1.0),
        }
    }
}

impl Report {
    pub(super) fn new(request: &BenchRequest, meter: &Meter, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        let (publishes, deliveries) = (meter.publishes(), meter.delivered());
        let connections = request.load.connections;
        Self {
            connections,
            publishers: request.load.publishers.min(connections),
            rooms: request.load.rooms.min(connections),
            seconds,
            publishes,
            unanswered: meter.unanswered(),
            deliveries,
            missing: meter.missing(),
            publishes_per_second: publishes as f64 / seconds,
            deliveries_per_second: deliveries as f64 / seconds,
            answer_us: Quantiles::of(|part| meter.answer_quantile(part)),
            delivery_us: Quantiles::of(|part| meter.delivery_quantile(part)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "connections {}, publishers {}, rooms {}, {:.1} s",
            self.connections, self.publishers, self.rooms, self.seconds
        )?;
        writeln!(
            f,
            "publishes   {} ({:.0}/s), without an answer {}",
            self.publishes, self.publishes_per_second, self.unanswered
        )?;
        writeln!(
            f,
            "deliveries  {} ({:.0}/s), missing {}",
            self.deliveries, self.deliveries_per_second, self.missing
        )?;
        writeln!(
            f,
            "{:<9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "ms", "p50", "p90", "p99", "p99.9", "max"
        )?;
        writeln!(f, "answer    {}", self.answer_us)?;
        write!(f, "delivery  {}", self.delivery_us)
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [self.p50, self.p90, self.p99, self.p999, self.max];
        let shown = all.map(|us| format!("{:>9.2}", us as f64 / 1000.0));
        f.write_str(&shown.join(" "))
    }
}
