//! The report of a node, published once a second in the room `$nodes` to the clients that may join
//! it. `docs/nodes.md` lists the fields with their units. An unknown value is `null`, never a
//! number.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::metrics::{Counts, Metrics};
use crate::model::id::Incarnation;
use crate::model::publication::Publication;
use crate::model::readiness::ReadinessState;

/// The interval between two reports.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// The number of reports that the delivery percentile covers: enough for rare slow deliveries, few
/// enough that the end of a slow period shows soon.
const WINDOW: usize = 5;

/// The reported percentile of the delivery time.
const PERCENTILE: f64 = 0.99;

/// The fields of a report, in this order.
#[derive(Debug, Serialize)]
struct Report<'a> {
    node: &'a str,
    incarnation: String,
    version: &'static str,
    state: &'static str,
    uptime_s: u64,
    connections: u64,
    sessions: u64,
    rooms: u64,
    messages_in_per_s: f64,
    messages_out_per_s: f64,
    delivery_p99_ms: Option<f64>,
    redis_round_trip_ms: Option<f64>,
    resident_bytes: Option<u64>,
}

/// Creates a node's reports; each covers the time since the previous one.
#[derive(Debug)]
pub(crate) struct Reporter {
    node: String,
    incarnation: Incarnation,
    started: Instant,
    previous: Totals,
    /// Earlier readings of the delivery times, the oldest first.
    delays: VecDeque<Counts>,
}

/// The counters at the time of a report.
#[derive(Debug)]
struct Totals {
    at: Instant,
    published: u64,
    delivered: u64,
}

impl Totals {
    fn read(at: Instant, metrics: &Metrics) -> Self {
        Self {
            at,
            published: metrics.published_total.get(),
            delivered: metrics.delivered_total.get(),
        }
    }
}

impl Reporter {
    /// For a node that starts now.
    pub(crate) fn new(
        now: Instant,
        node: &str,
        incarnation: Incarnation,
        metrics: &Metrics,
    ) -> Self {
        Self {
            node: node.into(),
            incarnation,
            started: now,
            previous: Totals::read(now, metrics),
            delays: [metrics.deliveries.counts()].into(),
        }
    }

    /// The next report. `unix_ms`: milliseconds since 1970; `resident_bytes`: memory held in RAM.
    pub(crate) fn report(
        &mut self,
        now: Instant,
        unix_ms: u64,
        metrics: &Metrics,
        state: ReadinessState,
        resident_bytes: Option<u64>,
    ) -> Publication {
        let current = Totals::read(now, metrics);
        let previous = std::mem::replace(&mut self.previous, current);
        let seconds = now.duration_since(previous.at).as_secs_f64();
        let per_second = |count: u64| round(count as f64 / seconds.max(f64::MIN_POSITIVE), 10.0);
        let delay = self.delay(metrics);
        let report = Report {
            node: &self.node,
            incarnation: self.incarnation.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            state: name(state),
            uptime_s: now.duration_since(self.started).as_secs(),
            connections: metrics.connections_open.get(),
            sessions: metrics.sessions_open.get(),
            rooms: metrics.rooms_open.get(),
            messages_in_per_s: per_second(self.previous.published - previous.published),
            messages_out_per_s: per_second(self.previous.delivered - previous.delivered),
            delivery_p99_ms: delay.map(milliseconds),
            redis_round_trip_ms: match metrics.redis_round_trip_microseconds.get() {
                0 => None,
                time => Some(milliseconds(Duration::from_micros(time))),
            },
            resident_bytes,
        };
        Publication {
            user: None,
            time: unix_ms,
            except: None,
            event: None,
            // Writing texts and finite numbers to memory cannot fail.
            data: serde_json::value::to_raw_value(&report)
                .unwrap_or_default()
                .into(),
        }
    }

    fn delay(&mut self, metrics: &Metrics) -> Option<Duration> {
        let counts = metrics.deliveries.counts();
        let oldest = if self.delays.len() < WINDOW {
            self.delays.front().cloned()
        } else {
            self.delays.pop_front()
        };
        let delay = counts.percentile_since(&oldest?, PERCENTILE);
        self.delays.push_back(counts);
        delay
    }
}

fn name(state: ReadinessState) -> &'static str {
    match state {
        ReadinessState::Ready => "ready",
        ReadinessState::NoBroker => "no_broker",
        ReadinessState::Stalled => "stalled",
        ReadinessState::Behind => "behind",
        ReadinessState::Unreadable => "unreadable",
        ReadinessState::Unusable => "unusable",
        ReadinessState::Draining => "draining",
    }
}

/// To a thousandth.
fn milliseconds(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1000.0, 1000.0)
}

fn round(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reporter(now: Instant, metrics: &Metrics) -> Reporter {
        Reporter::new(now, "a", Incarnation(0xa1), metrics)
    }

    fn report(reporter: &mut Reporter, now: Instant, metrics: &Metrics) -> Value {
        let publication = reporter.report(now, 7, metrics, ReadinessState::Ready, Some(4096));
        assert_eq!((publication.time, publication.user), (7, None));
        serde_json::from_str(publication.data.json().unwrap()).unwrap()
    }

    #[test]
    fn reports_have_rates_per_second_since_the_previous_report() {
        let (start, metrics) = (Instant::now(), Metrics::default());
        metrics.published_total.add(1000);
        let mut reporter = reporter(start, &metrics);
        metrics.published_total.add(3);
        metrics.delivered_total.add(45);
        metrics.connections_open.set(5);
        metrics.sessions_open.set(4);
        metrics.rooms_open.set(2);
        metrics.redis_round_trip_microseconds.set(420);
        metrics.deliveries.observe(Duration::from_micros(100));
        let first = report(&mut reporter, start + Duration::from_millis(1500), &metrics);
        assert_eq!(
            first,
            json!({
                "node": "a", "incarnation": "00000000000000a1",
                "version": env!("CARGO_PKG_VERSION"),
                "state": "ready", "uptime_s": 1, "connections": 5, "sessions": 4, "rooms": 2,
                "messages_in_per_s": 2.0, "messages_out_per_s": 30.0, "delivery_p99_ms": 0.104,
                "redis_round_trip_ms": 0.42, "resident_bytes": 4096,
            })
        );
        let second = report(&mut reporter, start + Duration::from_millis(2500), &metrics);
        assert_eq!(second["messages_in_per_s"], 0.0);
        assert_eq!(second["messages_out_per_s"], 0.0);
        assert_eq!(second["uptime_s"], 2);
    }

    #[test]
    fn unknown_values_are_null() {
        let (start, metrics) = (Instant::now(), Metrics::default());
        let mut reporter = reporter(start, &metrics);
        let publication = reporter.report(start, 7, &metrics, ReadinessState::NoBroker, None);
        let report: Value = serde_json::from_str(publication.data.json().unwrap()).unwrap();
        for field in ["delivery_p99_ms", "redis_round_trip_ms", "resident_bytes"] {
            assert_eq!(report.get(field), Some(&Value::Null), "{report}");
        }
        assert_eq!(report["state"], "no_broker");
        assert_eq!(report["messages_in_per_s"], 0.0, "in no time at all");
    }

    #[test]
    fn slow_deliveries_are_reported_for_five_seconds() {
        let (start, metrics) = (Instant::now(), Metrics::default());
        let mut reporter = reporter(start, &metrics);
        metrics.deliveries.observe(Duration::from_millis(80));
        let delays: Vec<bool> = (1..=7)
            .map(|second| report(&mut reporter, start + second * INTERVAL, &metrics))
            .map(|report| !report["delivery_p99_ms"].is_null())
            .collect();
        assert_eq!(delays, [true, true, true, true, true, false, false]);
    }
}
