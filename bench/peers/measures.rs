//! What is asked of everyone. Each figure is taken of servers started for it alone: a processor's
//! microseconds, bytes, milliseconds, of which less is better, and thousands of deliveries a
//! second.

use super::{Contender, Figure};
use crate::idle;
use crate::support::closed_loop::{self, Case, Measured};
use crate::support::machine::Role;
use crate::support::server::Server;
use crate::support::{Outcome, open_loop, size};

/// What an answer is called.
pub struct Title {
    pub text: &'static str,
    /// Then it is in the picture too.
    pub less_is_better: bool,
}

const fn less(text: &'static str) -> Title {
    Title {
        text,
        less_is_better: true,
    }
}

const fn more(text: &'static str) -> Title {
    Title {
        text,
        less_is_better: false,
    }
}

/// One question, which has two answers.
pub struct Measure {
    /// As `BENCH_CASE` names it.
    pub name: &'static str,
    /// Of each answer.
    pub titles: &'static [Title],
    what: What,
}

enum What {
    /// Processor time per delivery on so many nodes, in microseconds; then thousands of deliveries
    /// a second.
    Flood(usize, Case),
    /// Processor time to let a connection in and into a room, in microseconds; then its bytes while
    /// it is idle.
    Connections,
    /// The middle and the tail of the latency on two nodes, in milliseconds: so many members, so
    /// many messages a second.
    Latency(usize, u32),
}

pub const MEASURES: [Measure; 11] = [
    Measure {
        name: "1x1000x1",
        titles: &[
            less("CPU µs per delivery: 1 × 1,000, 1 in flight"),
            more("k deliveries/s: 1 × 1,000, 1 in flight"),
        ],
        what: What::Flood(1, Case::of(1, 1000, 1)),
    },
    Measure {
        name: "1x1000x16",
        titles: &[
            less("CPU µs per delivery: 1 × 1,000, 16 in flight"),
            more("k deliveries/s: 1 × 1,000, 16 in flight"),
        ],
        what: What::Flood(1, Case::of(1, 1000, 16)),
    },
    Measure {
        name: "1x1000x64",
        titles: &[
            less("CPU µs per delivery: 1 × 1,000, 64 in flight"),
            more("k deliveries/s: 1 × 1,000, 64 in flight"),
        ],
        what: What::Flood(1, Case::of(1, 1000, 64)),
    },
    Measure {
        name: "1x5000x16",
        titles: &[
            less("CPU µs per delivery: 1 × 5,000, 16 in flight"),
            more("k deliveries/s: 1 × 5,000, 16 in flight"),
        ],
        what: What::Flood(1, Case::of(1, 5000, 16)),
    },
    Measure {
        name: "1x5000x64",
        titles: &[
            less("CPU µs per delivery: 1 × 5,000, 64 in flight"),
            more("k deliveries/s: 1 × 5,000, 64 in flight"),
        ],
        what: What::Flood(1, Case::of(1, 5000, 64)),
    },
    Measure {
        name: "200x10x4",
        titles: &[
            less("CPU µs per delivery: 200 × 10, 4 in flight"),
            more("k deliveries/s: 200 × 10, 4 in flight"),
        ],
        what: What::Flood(1, Case::of(200, 10, 4)),
    },
    Measure {
        name: "connections",
        titles: &[
            less("CPU µs per connection made"),
            less("bytes per idle connection"),
        ],
        what: What::Connections,
    },
    Measure {
        name: "2-1x1000x16",
        titles: &[
            less("two nodes, CPU µs: 1 × 1,000, 16 in flight"),
            more("two nodes, k deliveries/s: 1 × 1,000, 16 in flight"),
        ],
        what: What::Flood(2, Case::of(1, 1000, 16)),
    },
    Measure {
        name: "2-1x1000x64",
        titles: &[
            less("two nodes, CPU µs: 1 × 1,000, 64 in flight"),
            more("two nodes, k deliveries/s: 1 × 1,000, 64 in flight"),
        ],
        what: What::Flood(2, Case::of(1, 1000, 64)),
    },
    Measure {
        name: "2-200x10x4",
        titles: &[
            less("two nodes, CPU µs: 200 × 10, 4 in flight"),
            more("two nodes, k deliveries/s: 200 × 10, 4 in flight"),
        ],
        what: What::Flood(2, Case::of(200, 10, 4)),
    },
    Measure {
        name: "2-latency",
        titles: &[
            less("two nodes, p50 ms: 10 members, 50 per s"),
            less("two nodes, p99 ms: 10 members, 50 per s"),
        ],
        what: What::Latency(10, 50),
    },
];

impl Measure {
    /// One figure for each title.
    pub fn take(&self, contender: &Contender) -> Outcome<Vec<Figure>> {
        let figures = match self.what {
            What::Flood(1, case) => {
                let server = contender.start(None, Role::Server)?;
                flooded(&closed_loop::measure(&[&server], &[], case)?)
            }
            What::Flood(_, case) => {
                let (redis, nodes) = two(contender)?;
                flooded(&closed_loop::measure(&nodes.each_ref(), &[&redis], case)?)
            }
            What::Latency(members, rate) => {
                let (redis, nodes) = two(contender)?;
                let nodes = nodes.each_ref();
                let measured = open_loop::measure(&nodes, &[&redis], members, rate)?;
                let at = |quantile| Figure::of(measured.at(quantile), &measured.spent);
                vec![at(0.5), at(0.99)]
            }
            What::Connections => {
                let server = contender.start(None, Role::Server)?;
                let measured = idle::measure(&server, size(2_000, 10_000))?;
                vec![
                    Figure::of(measured.make, &measured.made),
                    // Neighbours change how long something takes, but not how much memory.
                    Figure {
                        value: measured.resident,
                        noisy: false,
                    },
                ]
            }
        };
        Ok(figures)
    }
}

fn flooded(measured: &Measured) -> Vec<Figure> {
    [measured.cost(), measured.rate()]
        .map(|value| Figure::of(value, &measured.spent))
        .to_vec()
}

/// A Redis, and two nodes that speak to it.
fn two(contender: &Contender) -> Outcome<(Server, [Server; 2])> {
    let redis = Server::start_redis()?;
    let nodes = [
        contender.start(Some(&redis), Role::Server)?,
        contender.start(Some(&redis), Role::SecondServer)?,
    ];
    Ok((redis, nodes))
}
