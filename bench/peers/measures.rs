//! What is asked of everyone. Each figure is taken of servers started for it alone, and less is better in all of them: a processor's
//! microseconds, bytes, milliseconds.

use super::{Contender, Figure};
use crate::idle;
use crate::support::closed_loop::{self, Case};
use crate::support::machine::Role;
use crate::support::server::Server;
use crate::support::{Outcome, open_loop, size};

/// One question.
pub struct Measure {
    /// As `BENCH_CASE` names it.
    pub name: &'static str,
    pub title: &'static str,
    what: What,
}

enum What {
    /// Processor time per delivery on so many nodes, in microseconds.
    Flood(usize, Case),
    /// Processor time to let a connection in and into a room, in microseconds.
    Making,
    /// Bytes of an idle connection.
    Idle,
    /// A quantile of the latency between two nodes in an open loop, in milliseconds.
    Latency(f64),
}

pub const MEASURES: [Measure; 11] = [
    flood(
        "1x1000x1",
        "CPU µs per delivery, 1 × 1,000, 1 in flight",
        1,
        Case::of(1, 1000, 1),
    ),
    flood(
        "1x1000x16",
        "… 1 × 1,000, 16 in flight",
        1,
        Case::of(1, 1000, 16),
    ),
    flood(
        "1x1000x64",
        "… 1 × 1,000, 64 in flight",
        1,
        Case::of(1, 1000, 64),
    ),
    flood(
        "1x5000x16",
        "… 1 × 5,000, 16 in flight",
        1,
        Case::of(1, 5000, 16),
    ),
    flood(
        "200x10x1",
        "… 200 × 10, 1 in flight",
        1,
        Case::of(200, 10, 1),
    ),
    Measure {
        name: "making",
        title: "CPU µs per connection made",
        what: What::Making,
    },
    Measure {
        name: "idle",
        title: "bytes resident per idle connection",
        what: What::Idle,
    },
    flood(
        "2-1x1000x16",
        "two nodes: CPU µs, 1 × 1,000, 16 in flight",
        2,
        Case::of(1, 1000, 16),
    ),
    flood(
        "2-200x10x1",
        "two nodes: CPU µs, 200 × 10, 1 in flight",
        2,
        Case::of(200, 10, 1),
    ),
    Measure {
        name: "2-p50",
        title: "two nodes: p50 ms, 10 members, 50/s",
        what: What::Latency(0.5),
    },
    Measure {
        name: "2-p99",
        title: "two nodes: p99 ms, 10 members, 50/s",
        what: What::Latency(0.99),
    },
];

const fn flood(name: &'static str, title: &'static str, nodes: usize, case: Case) -> Measure {
    Measure {
        name,
        title,
        what: What::Flood(nodes, case),
    }
}

impl Measure {
    /// Nothing, if this is not for it.
    pub fn take(&self, contender: &Contender) -> Outcome<Option<Figure>> {
        let figure = match self.what {
            What::Flood(1, case) => {
                let server = contender.start(None, Role::Server)?;
                let measured = closed_loop::measure(&[&server], &[], case)?;
                Figure {
                    value: measured.cost(),
                    noisy: measured.spent.is_noisy(),
                }
            }
            What::Flood(..) | What::Latency(_) if !contender.has_redis() => return Ok(None),
            What::Flood(_, case) => {
                let (redis, nodes) = two(contender)?;
                let nodes = nodes.each_ref();
                let measured = closed_loop::measure(&nodes, &[&redis], case)?;
                Figure {
                    value: measured.cost(),
                    noisy: measured.spent.is_noisy(),
                }
            }
            What::Latency(quantile) => {
                let (redis, nodes) = two(contender)?;
                let measured = open_loop::measure(&nodes.each_ref(), &[&redis], 10, 50)?;
                Figure {
                    value: measured.at(quantile),
                    noisy: measured.spent.is_noisy(),
                }
            }
            What::Making | What::Idle => {
                let server = contender.start(None, Role::Server)?;
                let measured = idle::measure(&server, size(2_000, 10_000))?;
                Figure {
                    value: match self.what {
                        What::Making => measured.make,
                        _ => measured.resident,
                    },
                    noisy: measured.made.is_noisy(),
                }
            }
        };
        Ok(Some(figure))
    }

    /// A figure, with a mark if it may have been disturbed.
    pub fn show(&self, figure: Figure) -> String {
        let value = figure.value;
        let digits = match self.what {
            What::Idle => 0,
            What::Making => 1,
            _ => 2,
        };
        // Neighbours change how long something takes, and how much of a processor, but not how much memory.
        let mark = match (figure.noisy, &self.what) {
            (true, What::Idle) | (false, _) => "",
            (true, _) => "~",
        };
        format!("{mark}{value:.digits$}")
    }
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
