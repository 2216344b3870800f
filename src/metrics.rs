//! The metrics of a node. Counters and gauges are plain atomics, shared by `Arc`, that any task may
//! change without waiting; almost nothing in the node depends on their values. [`Metrics::figures`]
//! lists them all for the exposition.

mod delays;
pub mod exposition;
pub mod process;
pub mod report;

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use delays::{Counts, Delays};

use crate::protocol::Code;
use crate::protocol::disconnect::Disconnect;

/// One counter or gauge. Changes to different metrics may become visible in any order.
#[derive(Debug, Default)]
pub struct Metric(AtomicU64);

impl Metric {
    /// Adds `count` and wraps around at 2⁶⁴, which a counter does not reach.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Subtracts `count`, for gauges. It must have been added before.
    pub fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// Sets the value, for gauges that only one task changes.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram of durations, with buckets ten times as wide as the previous one.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Metric; Self::BOUNDS.len() + 1],
    nanoseconds: Metric,
}

impl Histogram {
    /// The upper bounds of the buckets; the last bucket has none.
    const BOUNDS: [Duration; 6] = [
        Duration::from_micros(10),
        Duration::from_micros(100),
        Duration::from_millis(1),
        Duration::from_millis(10),
        Duration::from_millis(100),
        Duration::from_secs(1),
    ];

    /// Counts one duration.
    pub fn observe(&self, time: Duration) {
        let bucket = Self::BOUNDS
            .iter()
            .take_while(|bound| time > **bound)
            .count();
        self.buckets[bucket].add(1);
        self.nanoseconds.add(time.as_nanos() as u64);
    }

    /// The count of each bucket, with its upper bound; the last has none.
    pub fn read(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = Self::BOUNDS.into_iter().map(Some).chain([None]);
        bounds.zip(self.buckets.iter().map(Metric::get))
    }

    /// The sum of all durations.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.get())
    }
}

/// A closed set of label values, each with its own counter.
pub trait MetricLabel: Copy + 'static {
    /// The name of the label.
    const NAME: &'static str;
    /// All values, each at its [`index`](Self::index).
    const ALL: &'static [Self];
    fn index(self) -> usize;
    fn value(self) -> Cow<'static, str>;
}

/// One counter per label value.
#[derive(Debug)]
pub struct By<L> {
    counts: Box<[Metric]>,
    label: PhantomData<L>,
}

impl<L: MetricLabel> By<L> {
    /// Increments the counter of this value.
    pub fn count(&self, label: L) {
        if let Some(count) = self.counts.get(label.index()) {
            count.add(1);
        }
    }

    /// The count of one value.
    pub fn get(&self, label: L) -> u64 {
        self.counts.get(label.index()).map_or(0, Metric::get)
    }
}

impl<L: MetricLabel> Default for By<L> {
    fn default() -> Self {
        Self {
            counts: L::ALL.iter().map(|_| Metric::default()).collect(),
            label: PhantomData,
        }
    }
}

/// Why a connection or a request was refused before it became a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCause {
    /// The node's limit of connections is reached.
    Connections,
    /// The limit of connections of the client's address is reached.
    Address,
    /// The node's limit of concurrent calls of the HTTP API is reached.
    Calls,
    /// The node is stopping, or cannot reach Redis.
    NotReady,
    /// A head, a request target or a field list above its limit.
    Head,
    /// A head or a body that did not arrive in time.
    Timeout,
    /// A body above the limit.
    Body,
    /// A page of another origin.
    Origin,
    /// A token that is not accepted.
    Token,
    /// A connection that a hook of the embedding program refuses.
    Hook,
    /// Any other request that breaks a rule.
    Request,
}

impl MetricLabel for RefusalCause {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &[
        Self::Connections,
        Self::Address,
        Self::Calls,
        Self::NotReady,
        Self::Head,
        Self::Timeout,
        Self::Body,
        Self::Origin,
        Self::Token,
        Self::Hook,
        Self::Request,
    ];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> Cow<'static, str> {
        match self {
            Self::Connections => "connections",
            Self::Address => "address",
            Self::Calls => "calls",
            Self::NotReady => "not_ready",
            Self::Head => "head",
            Self::Timeout => "timeout",
            Self::Body => "body",
            Self::Origin => "origin",
            Self::Token => "token",
            Self::Hook => "hook",
            Self::Request => "request",
        }
        .into()
    }
}

impl MetricLabel for Disconnect {
    const NAME: &'static str = "code";
    const ALL: &'static [Self] = &Disconnect::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> Cow<'static, str> {
        self.code().to_string().into()
    }
}

impl MetricLabel for Code {
    const NAME: &'static str = "code";
    const ALL: &'static [Self] = &Code::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> Cow<'static, str> {
        self.as_str().into()
    }
}

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
}

/// One sample. Samples of one name are adjacent and differ in the label's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// In snake case, without the prefix `switchboard_`.
    pub name: &'static str,
    /// One sentence or more.
    pub help: &'static str,
    pub kind: MetricKind,
    /// Name and value; neither needs escaping.
    pub label: Option<(&'static str, Cow<'static, str>)>,
    pub value: u64,
}

/// Generates from the list of metrics the struct and the iterator over all. An item is `/// help`,
/// then a field: first each [`Metric`], after a semicolon each [`By`] label, after another the
/// histograms, which the iterator leaves out. Names that end in `total` are counters.
macro_rules! metrics {
    (
        $( $(#[doc = $help:literal])+ pub $name:ident: Metric, )+;
        $( $(#[doc = $by_help:literal])+ pub $by:ident: By<$label:ty>, )+;
        $( $(#[doc = $time_help:literal])+ pub $time:ident: $times:ty, )+
    ) => {
        /// The metrics of one node since it started. Names that end in `total` are counters.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $( $(#[doc = $help])+ pub $name: Metric, )+
            $( $(#[doc = $by_help])+ pub $by: By<$label>, )+
            $( $(#[doc = $time_help])+ pub $time: $times, )+
        }

        impl Metrics {
            /// All metrics with their current values.
            pub fn figures(&self) -> impl Iterator<Item = Figure> {
                let single = [$(
                    figure(stringify!($name), concat!($($help),+), &self.$name),
                )+];
                let all = single.into_iter();
                $(
                    let of = figures(stringify!($by), concat!($($by_help),+), &self.$by);
                    let all = all.chain(of);
                )+
                all
            }
        }
    };
}

metrics! {
    /// Connections that are open now, of any protocol.
    pub connections_open: Metric,
    /// Sessions that are open now.
    pub sessions_open: Metric,
    /// Calls of the HTTP API that the node is executing now.
    pub calls_open: Metric,
    /// Rooms in which the node has members now.
    pub rooms_open: Metric,
    /// Connections that were accepted.
    pub connections_total: Metric,
    /// Publications of this node's clients that the broker has confirmed.
    pub published_total: Metric,
    /// Messages put into an outbox: one publication to ten members counts ten.
    pub delivered_total: Metric,
    /// How often a reader paused because its session exceeded its rate.
    pub paused_total: Metric,
    /// Panics that ended one connection each.
    pub panics_total: Metric,
    /// Redis publish-to-subscribe round trip, in microseconds; 0 if unknown, and without Redis.
    pub redis_round_trip_microseconds: Metric,
    /// Reads from Redis that wait for their turn or for an answer.
    pub redis_reads_waiting: Metric,
    /// Reads of members that wait until the nodes have sent Redis again what it had lost.
    pub redis_reads_parked: Metric,
    /// For how many seconds Redis has answered no read although some wait; 0 while reads move.
    pub redis_reads_stalled_seconds: Metric,
    /// 1 while Redis refuses writes because its memory is full, its disk fails or replicas are
    /// missing.
    pub redis_refuses_writes: Metric,
    /// Connections to Redis that were restored after one was lost.
    pub redis_reconnects_total: Metric,
    /// Events that the webhook receiver has accepted.
    pub webhooks_sent_total: Metric,
    /// Requests that the webhook receiver did not accept; they are retried.
    pub webhooks_failed_total: Metric,
    /// Events that were dropped before the webhook receiver had accepted them: too many, or too
    /// old.
    pub webhooks_dropped_total: Metric,
    /// Entries read or received from Redis that no Switchboard node can have written.
    pub junk_total: Metric,
    ;
    /// Connections and requests that were refused, by reason.
    pub refused_total: By<RefusalCause>,
    /// Connections that this node has ended, by close code.
    pub disconnected_total: By<Disconnect>,
    /// Commands that were answered with an error, by its code.
    pub errors_total: By<Code>,
    ;
    /// How long the dispatcher's turns took.
    pub turns: Histogram,
    /// From when the broker received a publication until it was offered to all outboxes of this
    /// node's members.
    pub deliveries: Delays,
}

fn figure(name: &'static str, help: &'static str, metric: &Metric) -> Figure {
    let kind = if name.ends_with("_total") {
        MetricKind::Counter
    } else {
        MetricKind::Gauge
    };
    Figure {
        name,
        help: help.trim_start(),
        kind,
        label: None,
        value: metric.get(),
    }
}

fn figures<L: MetricLabel>(
    name: &'static str,
    help: &'static str,
    by: &By<L>,
) -> impl Iterator<Item = Figure> {
    L::ALL
        .iter()
        .zip(&by.counts)
        .map(move |(label, metric)| Figure {
            label: Some((L::NAME, label.value())),
            ..figure(name, help, metric)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_add_and_subtract() {
        let metrics = Metrics::default();
        metrics.connections_open.add(3);
        metrics.connections_open.sub(2);
        assert_eq!(metrics.connections_open.get(), 1);
        assert_eq!(metrics.connections_total.get(), 0);
    }

    fn each_stands_at_its_index<L: MetricLabel>() {
        for (index, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), index, "{}", label.value());
        }
    }

    #[test]
    fn label_values_have_their_own_counters() {
        each_stands_at_its_index::<RefusalCause>();
        each_stands_at_its_index::<Disconnect>();
        each_stands_at_its_index::<Code>();
        let metrics = Metrics::default();
        metrics.refused_total.count(RefusalCause::Request);
        metrics.disconnected_total.count(Disconnect::Stalled);
        metrics.errors_total.count(Code::Full);
        assert_eq!(metrics.refused_total.get(RefusalCause::Request), 1);
        let counted: Vec<_> = metrics
            .figures()
            .filter(|figure| figure.value > 0)
            .collect();
        let labels = counted.iter().map(|figure| figure.label.clone().unwrap());
        let expected = [("reason", "request"), ("code", "3005"), ("code", "full")];
        assert!(labels.eq(expected.map(|(name, value)| (name, value.into()))));
    }

    #[test]
    fn metrics_have_distinct_names_and_help() {
        let metrics = Metrics::default();
        let mut seen = Vec::new();
        for Figure {
            name,
            help,
            kind,
            label,
            ..
        } in metrics.figures()
        {
            assert!(
                help.ends_with('.') && !help.starts_with(' '),
                "{name}: {help}"
            );
            assert_eq!(kind == MetricKind::Counter, name.ends_with("_total"));
            seen.push((name, label));
        }
        let count = seen.len();
        let mut names: Vec<_> = seen.iter().map(|(name, _)| *name).collect();
        names.dedup();
        assert_eq!(names.len(), 22, "those of one name follow each other");
        seen.sort_by_key(|row| format!("{row:?}"));
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
