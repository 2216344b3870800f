//! What a scenario must achieve. The bars stand in the first line of its history, so that a run can
//! be judged again.

use serde::{Deserialize, Serialize};

/// Who must be told that something was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Nobody: a gap would be a false alarm.
    #[default]
    Nobody,
    /// Every member of every room, because nothing of the old log is left.
    Everyone,
    /// Whoever it concerns; the judge knows them by what they missed.
    Concerned,
}

/// Times are milliseconds; none means that the scenario says nothing about it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Bars {
    pub told: Told,
    /// No client may lose its connection.
    pub sockets_stay: bool,
    /// From a connection's end until the client is in all its rooms again, for 99 of 100.
    pub back_p99: Option<u64>,
    /// The same for the last of all.
    pub back_all: Option<u64>,
    /// After the last fault, until something is heard again in every room.
    pub works_again: Option<u64>,
    /// The 99th percentile of publish call to callback for what is published during the fault.
    pub during_p99: Option<u64>,
    /// The same afterwards, as a multiple of its quiet value before.
    pub after_ratio: Option<f64>,
    /// Something the harness itself breaks: the judge must turn red for this reason.
    pub mutation: Option<Mutation>,
}

impl Bars {
    /// The same with more time for everything.
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

/// What the proxy before the nodes does to whole frames, to see whether the judge notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mutation {
    Drop,
    Double,
    Swap,
}

/// Below this a latency is the machine's scheduler, not the node's.
pub const NOISE_MS: f64 = 50.0;
