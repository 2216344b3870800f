//! How much processor time a stretch of time cost the servers, and how much of the machine others
//! took meanwhile.

use std::time::{Duration, Instant};

use super::server::Server;
use super::{machine, process};

/// Beyond this share of one core the neighbours are noted beside the figure.
const NOISE: f64 = 0.05;

/// A stretch of time that is being watched.
pub struct Watch<'a> {
    measured: Vec<&'a Server>,
    /// Ours, but not part of the figure: Redis.
    helpers: Vec<&'a Server>,
    began: Instant,
    measured_before: Duration,
    helpers_before: Duration,
    own_before: Duration,
    busy_before: Duration,
}

/// What it cost.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub wall: Duration,
    /// Of the servers measured, together.
    pub cpu: Duration,
    /// Of Redis.
    pub helpers: Duration,
    /// Cores that were busy with something that is not of this bench.
    pub others: f64,
}

impl<'a> Watch<'a> {
    pub fn begin(measured: &[&'a Server], helpers: &[&'a Server]) -> Self {
        Self {
            measured: measured.to_vec(),
            helpers: helpers.to_vec(),
            began: Instant::now(),
            measured_before: sum(measured),
            helpers_before: sum(helpers),
            own_before: process::cpu(std::process::id()),
            busy_before: machine::busy(),
        }
    }

    pub fn end(&self) -> Spent {
        let wall = self.began.elapsed();
        let cpu = sum(&self.measured) - self.measured_before;
        let helpers = sum(&self.helpers) - self.helpers_before;
        let own = process::cpu(std::process::id()) - self.own_before;
        let busy = machine::busy().saturating_sub(self.busy_before);
        let others = busy.saturating_sub(cpu + helpers + own);
        Spent {
            wall,
            cpu,
            helpers,
            others: others.as_secs_f64() / wall.as_secs_f64(),
        }
    }
}

impl Spent {
    /// Microseconds of the servers per thing done.
    pub fn micros_per(&self, count: u64) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count.max(1) as f64
    }

    /// Microseconds of Redis per thing done.
    pub fn redis_micros_per(&self, count: u64) -> f64 {
        self.helpers.as_secs_f64() * 1e6 / count.max(1) as f64
    }

    /// Whether the neighbours used so much of the machine that the figure needs a mark.
    pub fn is_noisy(&self) -> bool {
        self.others >= NOISE
    }

    /// Empty on a quiet machine.
    pub fn noise(&self) -> String {
        if !self.is_noisy() {
            return String::new();
        }
        format!("~{:.0} %", self.others * 100.0)
    }
}

fn sum(servers: &[&Server]) -> Duration {
    servers.iter().map(|server| server.cpu()).sum()
}
