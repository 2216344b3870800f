//! What a node counts about itself. Counters and gauges are plain atomics, shared by `Arc`, that any
//! task may change without waiting; nobody decides anything by them.

use std::sync::atomic::{AtomicU64, Ordering};

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

    /// The figure now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The figures of one node since it started. Those that end in `total` only grow.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections that are open now, of any protocol.
    pub connections_open: Metric,
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
    /// Events that the receiver of webhooks has taken.
    pub webhooks_sent_total: Metric,
    /// Requests that the receiver of webhooks did not take; they are repeated.
    pub webhooks_failed_total: Metric,
    /// Events that were given up before the receiver of webhooks had taken them: too many, or too old.
    pub webhooks_dropped_total: Metric,
    /// Entries found in Redis, or heard from it, that no node of ours can have written.
    pub junk_total: Metric,
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
