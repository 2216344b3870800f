//! The thresholds of a scenario. The first line of its history contains them, so that a run can be
//! judged again.

use serde::{Deserialize, Serialize};

/// Which members must receive a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpectedGaps {
    /// No member: a gap is a false alarm.
    #[default]
    Never,
    /// Every member of every room, because nothing of the old log is left.
    Everywhere,
    /// The members that missed messages; the judge computes which those are.
    WhereLost,
}

/// Times are milliseconds; `None` means that the scenario sets no threshold.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Bars {
    pub gaps: ExpectedGaps,
    /// No client may lose its connection.
    pub sockets_stay: bool,
    /// From a connection's end until the client is in all its rooms again, 99th percentile.
    pub back_p99: Option<u64>,
    /// The same, for the slowest client.
    pub back_all: Option<u64>,
    /// From the last fault until a message is received in every room.
    pub works_again: Option<u64>,
    /// The 99th percentile of publish call to callback, for messages published during the fault.
    pub during_p99: Option<u64>,
    /// The same after the fault, as a multiple of its value before.
    pub after_ratio: Option<f64>,
    /// A mutation by the harness itself: the judge must report it as red.
    pub mutation: Option<Mutation>,
}

impl Bars {
    /// Multiplies every time by `slack`.
    pub fn with_slack(mut self, slack: u32) -> Self {
        let times = [
            &mut self.back_p99,
            &mut self.back_all,
            &mut self.works_again,
            &mut self.during_p99,
        ];
        for time in times.into_iter().flatten() {
            *time *= u64::from(slack);
        }
        if let Some(ratio) = &mut self.after_ratio {
            *ratio *= f64::from(slack);
        }
        self
    }
}

/// What the proxy before the nodes does to whole frames, to test that the judge detects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mutation {
    Drop,
    Double,
    Swap,
}

/// A latency below this is caused by the machine's scheduler, not by the node.
pub const NOISE_MS: f64 = 50.0;
