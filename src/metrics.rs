//! What a node counts about itself. Counters and gauges are plain atomics, shared by `Arc`, that
//! any task may change without waiting; nobody decides anything by them. [`Metrics::figures`] names
//! them all, for whoever shows them.

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

/// A closed set of reasons, of which each has a figure of its own.
pub trait Label: Copy + 'static {
    /// What the reasons are called.
    const NAME: &'static str;
    /// All of them, each at its [`index`](Self::index).
    const ALL: &'static [Self];
    fn index(self) -> usize;
    fn value(self) -> Cow<'static, str>;
}

/// One counter per reason.
#[derive(Debug)]
pub struct By<L> {
    counts: Box<[Metric]>,
    label: PhantomData<L>,
}

impl<L: Label> By<L> {
    /// Counts one more.
    pub fn count(&self, label: L) {
        if let Some(count) = self.counts.get(label.index()) {
            count.add(1);
        }
    }

    /// The figure of one reason.
    pub fn get(&self, label: L) -> u64 {
        self.counts.get(label.index()).map_or(0, Metric::get)
    }
}

impl<L: Label> Default for By<L> {
    fn default() -> Self {
        Self {
            counts: L::ALL.iter().map(|_| Metric::default()).collect(),
            label: PhantomData,
        }
    }
}

/// Why a connection or a request was turned away before it became a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many connections as the node may have.
    Connections,
    /// As many connections as one address may have.
    Address,
    /// As many calls of the HTTP API under way as the node may have.
    Calls,
    /// The node is stopping, or does not reach Redis.
    NotReady,
    /// A head, a request target or a field list above its limit.
    Head,
    /// A head or a body that did not come in time.
    Timeout,
    /// A body above the limit.
    Body,
    /// A page of another origin.
    Origin,
    /// A token that is not accepted.
    Token,
    /// Any other request that breaks a rule.
    Request,
}

impl Label for Refused {
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
            Self::Request => "request",
        }
        .into()
    }
}

impl Label for Disconnect {
    const NAME: &'static str = "code";
    const ALL: &'static [Self] = &Disconnect::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> Cow<'static, str> {
        self.code().to_string().into()
    }
}

impl Label for Code {
    const NAME: &'static str = "code";
    const ALL: &'static [Self] = &Code::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> Cow<'static, str> {
        self.as_str().into()
    }
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

/// Makes of the list of figures the struct and the iterator over all. An item is `/// help`, then a
/// field like any other: a [`Metric`], after a semicolon those [`By`] reason, after another times,
/// which the iterator leaves out. Those that end in `total` only grow.
macro_rules! metrics {
    (
        $( $(#[doc = $help:literal])+ pub $name:ident: Metric, )+;
        $( $(#[doc = $by_help:literal])+ pub $by:ident: By<$label:ty>, )+;
        $( $(#[doc = $time_help:literal])+ pub $time:ident: $times:ty, )+
    ) => {
        /// The figures of one node since it started. Those that end in `total` only grow.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $( $(#[doc = $help])+ pub $name: Metric, )+
            $( $(#[doc = $by_help])+ pub $by: By<$label>, )+
            $( $(#[doc = $time_help])+ pub $time: $times, )+
        }

        impl Metrics {
            /// All figures as they are now.
            pub fn figures(&self) -> impl Iterator<Item = Figure> {
                let single = [$(
                    figure(stringify!($name), concat!($($help),+), &self.$name),
                )+];
                let all = single.into_iter();
                $( let all = all.chain(figures(stringify!($by), concat!($($by_help),+), &self.$by)); )+
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
    /// Calls of the HTTP API that the node carries out now.
    pub calls_open: Metric,
    /// Rooms in which the node has members now.
    pub rooms_open: Metric,
    /// Connections that were accepted.
    pub connections_total: Metric,
    /// Publications of this node's clients that the broker has confirmed.
    pub published_total: Metric,
    /// Messages put into an outbox: one publication to ten members counts ten.
    pub delivered_total: Metric,
    /// How often a reader paused because its session had used up its rate.
    pub paused_total: Metric,
    /// Panics that ended one connection each.
    pub panics_total: Metric,
    /// Microseconds until the node's last word to itself came back through Redis; 0 while none
    /// does, and without Redis.
    pub redis_round_trip_microseconds: Metric,
    /// Connections to Redis that were made anew after one was lost.
    pub redis_reconnects_total: Metric,
    /// Events that the receiver of webhooks has taken.
    pub webhooks_sent_total: Metric,
    /// Requests that the receiver of webhooks did not take; they are repeated.
    pub webhooks_failed_total: Metric,
    /// Events that were given up before the receiver of webhooks had taken them: too many, or too
    /// old.
    pub webhooks_dropped_total: Metric,
    /// Entries found in Redis, or heard from it, that no node of ours can have written.
    pub junk_total: Metric,
    ;
    /// Connections and requests that were turned away, by reason.
    pub refused_total: By<Refused>,
    /// Connections that this node has ended, by close code.
    pub disconnected_total: By<Disconnect>,
    /// Commands that were answered with an error, by its code.
    pub errors_total: By<Code>,
    ;
    /// How long the dispatcher's turns took.
    pub turns: Histogram,
    /// From when the broker had a publication in hand until all outboxes of this node's members had
    /// been offered it.
    pub deliveries: Delays,
}

fn figure(name: &'static str, help: &'static str, metric: &Metric) -> Figure {
    let kind = match name.ends_with("_total") {
        true => Kind::Counter,
        false => Kind::Gauge,
    };
    Figure {
        name,
        help: help.trim_start(),
        kind,
        label: None,
        value: metric.get(),
    }
}

fn figures<L: Label>(
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
    fn a_figure_is_what_was_added_less_what_was_taken() {
        let metrics = Metrics::default();
        metrics.connections_open.add(3);
        metrics.connections_open.sub(2);
        assert_eq!(metrics.connections_open.get(), 1);
        assert_eq!(metrics.connections_total.get(), 0);
    }

    fn each_stands_at_its_index<L: Label>() {
        for (index, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), index, "{}", label.value());
        }
    }

    #[test]
    fn every_reason_has_a_figure_of_its_own() {
        each_stands_at_its_index::<Refused>();
        each_stands_at_its_index::<Disconnect>();
        each_stands_at_its_index::<Code>();
        let metrics = Metrics::default();
        metrics.refused_total.count(Refused::Request);
        metrics.disconnected_total.count(Disconnect::Stalled);
        metrics.errors_total.count(Code::Full);
        assert_eq!(metrics.refused_total.get(Refused::Request), 1);
        let counted: Vec<_> = metrics
            .figures()
            .filter(|figure| figure.value > 0)
            .collect();
        let labels = counted.iter().map(|figure| figure.label.clone().unwrap());
        let expected = [("reason", "request"), ("code", "3005"), ("code", "full")];
        assert!(labels.eq(expected.map(|(name, value)| (name, value.into()))));
    }

    #[test]
    fn figures_are_named_explained_and_told_apart() {
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
            assert_eq!(kind == Kind::Counter, name.ends_with("_total"));
            seen.push((name, label));
        }
        let count = seen.len();
        let mut names: Vec<_> = seen.iter().map(|(name, _)| *name).collect();
        names.dedup();
        assert_eq!(names.len(), 18, "those of one name follow each other");
        seen.sort_by_key(|row| format!("{row:?}"));
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
