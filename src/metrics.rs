//! What a node counts about itself. Counters and gauges are plain atomics, shared by `Arc`, that any
//! task may change without waiting; nobody decides anything by them.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One figure. The order of changes to different figures is not kept.
#[derive(Debug, Default)]
pub struct Metric(AtomicU64);

impl Metric {
    /// Adds `count` and wraps around at 2⁶⁴, which a counter does not reach.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes `count` away, for gauges. What is taken must have been added before.
    pub fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// Makes the figure `count`, for gauges that one task alone changes.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The figure now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, in buckets ten times as wide as the former.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Metric; Self::BOUNDS.len() + 1],
    nanoseconds: Metric,
}

impl Histogram {
    /// What the buckets hold at most, the last one aside.
    const BOUNDS: [Duration; 6] = [
        Duration::from_micros(10),
        Duration::from_micros(100),
        Duration::from_millis(1),
        Duration::from_millis(10),
        Duration::from_millis(100),
        Duration::from_secs(1),
    ];

    /// Counts one more that took so long.
    pub fn observe(&self, time: Duration) {
        let bucket = Self::BOUNDS
            .iter()
            .take_while(|bound| time > **bound)
            .count();
        self.buckets[bucket].add(1);
        self.nanoseconds.add(time.as_nanos() as u64);
    }

    /// What each bucket holds, by its bound; the last has none.
    pub fn read(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = Self::BOUNDS.into_iter().map(Some).chain([None]);
        bounds.zip(self.buckets.iter().map(Metric::get))
    }

    /// How long all of it took.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.get())
    }
}

/// The figures of one node since it started. Those that end in `total` only grow.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections that are open now, of any protocol.
    pub connections_open: Metric,
    /// Sessions that are open now.
    pub sessions_open: Metric,
    /// Rooms in which the node has members now.
    pub rooms_open: Metric,
    /// How long the dispatcher's turns took.
    pub turns: Histogram,
    /// Connections that were accepted.
    pub connections_total: Metric,
    /// Connections and requests that were turned away by a limit or because the node was not ready.
    pub refused_total: Metric,
    /// Publications of this node's clients that the broker has confirmed.
    pub published_total: Metric,
    /// Messages put into an outbox: one publication to ten members counts ten.
    pub delivered_total: Metric,
    /// Sessions that were disconnected because their outbox was full.
    pub disconnected_slow_total: Metric,
    /// Panics that ended one connection each.
    pub panics_total: Metric,
    /// Connections to Redis that were made anew after one was lost.
    pub redis_reconnects_total: Metric,
    /// Entries found in Redis, or heard from it, that no node of ours can have written.
    pub junk_total: Metric,
}

/// Whether a figure only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

/// One figure as it is shown. Those of one name follow each other and differ in the label's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// In snake case, without the project's name in front.
    pub name: &'static str,
    /// One sentence or more.
    pub help: &'static str,
    pub kind: Kind,
    /// Name and value; neither needs escapes.
    pub label: Option<(&'static str, Cow<'static, str>)>,
    pub value: u64,
}

impl Metrics {
    /// All figures as they are now.
    pub fn figures(&self) -> impl Iterator<Item = Figure> {
        [
            (
                "connections_open",
                "Connections that are open now.",
                &self.connections_open,
            ),
            (
                "sessions_open",
                "Sessions that are open now.",
                &self.sessions_open,
            ),
            (
                "rooms_open",
                "Rooms in which the node has members now.",
                &self.rooms_open,
            ),
            (
                "connections_total",
                "Connections that were accepted.",
                &self.connections_total,
            ),
            (
                "refused_total",
                "Connections and requests that were turned away.",
                &self.refused_total,
            ),
            (
                "published_total",
                "Publications that the broker has confirmed.",
                &self.published_total,
            ),
            (
                "delivered_total",
                "Messages put into an outbox.",
                &self.delivered_total,
            ),
            (
                "disconnected_slow_total",
                "Sessions that were disconnected as slow.",
                &self.disconnected_slow_total,
            ),
            (
                "panics_total",
                "Panics that ended one connection each.",
                &self.panics_total,
            ),
            (
                "redis_reconnects_total",
                "Connections to Redis that were made anew.",
                &self.redis_reconnects_total,
            ),
            (
                "junk_total",
                "Entries of Redis that no node of ours has written.",
                &self.junk_total,
            ),
        ]
        .into_iter()
        .map(|(name, help, metric)| Figure {
            name,
            help,
            kind: match name.ends_with("_total") {
                true => Kind::Counter,
                false => Kind::Gauge,
            },
            label: None,
            value: metric.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_what_was_added_less_what_was_taken() {
        let metrics = Metrics::default();
        metrics.connections_open.add(3);
        metrics.connections_open.sub(2);
        assert_eq!(metrics.connections_open.get(), 1);
        assert_eq!(metrics.connections_total.get(), 0);
    }
}
