//! The metrics of the node in the text format of Prometheus, version 0.0.4. A name that ends in
//! `_total` is a counter; the node's metrics begin with `switchboard_`, those of the process have
//! the names that are usual for exporters.

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::http::{Response, StatusCode};
use crate::metrics::process::Process;
use crate::metrics::{Figure, MetricKind, Metrics};

/// Values that are shown in addition to the metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub runtime: &'static str,
    pub ready: bool,
    /// Since the node started.
    pub uptime: Duration,
    /// Events that wait for the dispatcher.
    pub inbox: usize,
    pub process: Option<Process>,
}

/// The page with all metrics.
pub(crate) fn page(metrics: &Metrics, facts: &Facts) -> Response {
    let mut page = Exposition(String::with_capacity(8 * 1024));
    page.about_the_node(facts);
    let mut last = "";
    for figure in metrics.figures() {
        page.figure(&figure, last);
        last = figure.name;
    }
    page.histogram(
        "switchboard_turn_seconds",
        "How long the dispatcher's turns took.",
        metrics.turns.read(),
        metrics.turns.sum(),
    );
    page.histogram(
        "switchboard_delivery_seconds",
        "From the broker to the outboxes of this node's members, per publication.",
        metrics.deliveries.read(),
        metrics.deliveries.sum(),
    );
    if let Some(process) = &facts.process {
        page.about_the_process(process);
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Response::new(StatusCode::OK, kind, page.0).with("Cache-Control", "no-store")
}

struct Exposition(String);

impl Exposition {
    fn about_the_node(&mut self, facts: &Facts) {
        let build = format!(
            "switchboard_build_info{{version=\"{}\",runtime=\"{}\"}}",
            env!("CARGO_PKG_VERSION"),
            facts.runtime
        );
        self.head("switchboard_build_info", "What is running.", "gauge");
        self.line(&build, 1);
        let ready =
            "Whether the node takes clients: 1, or 0 while it stops or does not reach Redis.";
        self.single("switchboard_ready", ready, "gauge", u8::from(facts.ready));
        let uptime = "Seconds since the node began.";
        self.single(
            "switchboard_uptime_seconds",
            uptime,
            "gauge",
            facts.uptime.as_secs_f64(),
        );
        let inbox = "Events that wait for the dispatcher.";
        self.single("switchboard_inbox_events", inbox, "gauge", facts.inbox);
    }

    fn about_the_process(&mut self, process: &Process) {
        let cpu = "Processor time used, in seconds.";
        self.single(
            "process_cpu_seconds_total",
            cpu,
            "counter",
            process.cpu_seconds,
        );
        let resident = "Memory held in RAM, in bytes.";
        self.single(
            "process_resident_memory_bytes",
            resident,
            "gauge",
            process.resident_bytes,
        );
        let files = "Files and sockets that are open.";
        self.single("process_open_fds", files, "gauge", process.open_files);
        let started = "When the process started, in seconds since 1970.";
        self.single(
            "process_start_time_seconds",
            started,
            "gauge",
            process.started,
        );
    }

    /// Samples of one name share one head.
    fn figure(&mut self, figure: &Figure, last: &str) {
        let name = format!("switchboard_{}", figure.name);
        if figure.name != last {
            let kind = match figure.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
            };
            self.head(&name, figure.help, kind);
        }
        match &figure.label {
            Some((label, value)) => {
                self.line(&format!("{name}{{{label}=\"{value}\"}}"), figure.value);
            }
            None => self.line(&name, figure.value),
        }
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: impl Iterator<Item = (Option<Duration>, u64)>,
        sum: Duration,
    ) {
        self.head(name, help, "histogram");
        let mut count = 0;
        for (bound, observed) in buckets {
            count += observed;
            let bound = bound.map_or("+Inf".into(), |bound| bound.as_secs_f64().to_string());
            self.line(&format!("{name}_bucket{{le=\"{bound}\"}}"), count);
        }
        self.line(&format!("{name}_sum"), sum.as_secs_f64());
        self.line(&format!("{name}_count"), count);
    }

    fn single(&mut self, name: &str, help: &str, kind: &str, value: impl Display) {
        self.head(name, help, kind);
        self.line(name, value);
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing into a String cannot fail, here and below.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn lines_are_valid_for_prometheus_and_samples_are_unique() {
        let metrics = Metrics::default();
        metrics.published_total.add(7);
        for micros in [5, 50, 50, 5_000_000] {
            metrics.turns.observe(Duration::from_micros(micros));
            metrics.deliveries.observe(Duration::from_micros(micros));
        }
        let facts = Facts {
            runtime: "test",
            ready: true,
            uptime: Duration::from_millis(1500),
            inbox: 3,
            process: Process::read(),
        };
        let response = page(&metrics, &facts);
        let text = String::from_utf8(response.body.to_vec()).unwrap();
        let (mut family, mut seen) = (String::new(), HashSet::new());
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# HELP ") {
                let (name, help) = head.split_once(' ').unwrap();
                family = name.to_owned();
                assert!(
                    help.ends_with('.') && seen.insert(name.to_owned()),
                    "{line}"
                );
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, family);
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                assert!(sample.starts_with(&family), "{line} under {family}");
                assert!(value.parse::<f64>().unwrap() >= 0.0, "{line}");
                assert!(
                    seen.insert(format!("sample {sample}")),
                    "{line} stands twice"
                );
            }
        }
        for wanted in [
            "switchboard_ready 1",
            "switchboard_uptime_seconds 1.5",
            "switchboard_inbox_events 3",
            "switchboard_published_total 7",
            "switchboard_turn_seconds_bucket{le=\"0.00001\"} 1",
            "switchboard_turn_seconds_bucket{le=\"0.0001\"} 3",
            "switchboard_turn_seconds_bucket{le=\"1\"} 3",
            "switchboard_turn_seconds_bucket{le=\"+Inf\"} 4",
            "switchboard_turn_seconds_sum 5.000105",
            "switchboard_turn_seconds_count 4",
            "switchboard_delivery_seconds_bucket{le=\"0.000016\"} 1",
            "switchboard_delivery_seconds_bucket{le=\"0.000064\"} 3",
            "switchboard_delivery_seconds_bucket{le=\"+Inf\"} 4",
            "switchboard_delivery_seconds_count 4",
        ] {
            assert!(
                text.lines().any(|line| line == wanted),
                "{wanted} in {text}"
            );
        }
        assert!(text.contains("process_resident_memory_bytes "));
    }
}
