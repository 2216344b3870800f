//! What is asked of everyone. Each figure is taken of servers started for it alone, and less is better in all of them: a processor's
//! microseconds, bytes, milliseconds.

use super::{Contender, Figure};
use crate::idle;
use crate::support::closed_loop::{self, Case};
use crate::support::machine::Role;
use crate::support::server::Server;
use crate::support::{Outcome, open_loop, size};

/// One question, which may have two answers.
pub struct Measure {
    /// As `BENCH_CASE` names it.
    pub name: &'static str,
    /// Of each answer.
    pub titles: &'static [&'static str],
    what: What,
}

enum What {
    /// Processor time per delivery on so many nodes, in microseconds.
    Flood(usize, Case),
    /// Processor time to let a connection in and into a room, in microseconds; then its bytes while it is idle.
    Connections,
    /// The middle and the tail of the latency on two nodes, in milliseconds: so many members, so many messages a second.
    Latency(usize, u32),
}

pub const MEASURES: [Measure; 9] = [
    Measure {
        name: "1x1000x1",
        titles: &["CPU µs per delivery: 1 × 1,000, 1 in flight"],
        what: What::Flood(1, Case::of(1, 1000, 1)),
    },
    Measure {
        name: "1x1000x16",
        titles: &["CPU µs per delivery: 1 × 1,000, 16 in flight"],
        what: What::Flood(1, Case::of(1, 1000, 16)),
    },
    Measure {
        name: "1x1000x64",
        titles: &["CPU µs per delivery: 1 × 1,000, 64 in flight"],
        what: What::Flood(1, Case::of(1, 1000, 64)),
    },
    Measure {
        name: "1x5000x16",
        titles: &["CPU µs per delivery: 1 × 5,000, 16 in flight"],
        what: What::Flood(1, Case::of(1, 5000, 16)),
    },
    Measure {
        name: "200x10x4",
        titles: &["CPU µs per delivery: 200 × 10, 4 in flight"],
        what: What::Flood(1, Case::of(200, 10, 4)),
    },
    Measure {
        name: "connections",
        titles: &["CPU µs per connection made", "bytes per idle connection"],
        what: What::Connections,
    },
    Measure {
        name: "2-1x1000x16",
        titles: &["two nodes, CPU µs: 1 × 1,000, 16 in flight"],
        what: What::Flood(2, Case::of(1, 1000, 16)),
    },
    Measure {
        name: "2-200x10x4",
        titles: &["two nodes, CPU µs: 200 × 10, 4 in flight"],
        what: What::Flood(2, Case::of(200, 10, 4)),
    },
    Measure {
        name: "2-latency",
        titles: &[
            "two nodes, p50 ms: 10 members, 50 per s",
            "two nodes, p99 ms: 10 members, 50 per s",
        ],
        what: What::Latency(10, 50),
    },
];

impl Measure {
    /// One figure for each title; none, if the contender has no part in this.
    pub fn take(&self, contender: &Contender) -> Outcome<Vec<Figure>> {
        let figures = match self.what {
            What::Flood(1, case) => {
                let server = contender.start(None, Role::Server)?;
                let measured = closed_loop::measure(&[&server], &[], case)?;
                vec![Figure::of(measured.cost(), &measured.spent)]
            }
            What::Flood(..) | What::Latency(..) if !contender.has_redis() => Vec::new(),
            What::Flood(_, case) => {
                let (nodes, redis) = two(contender)?;
                let measured = closed_loop::measure(&nodes.each_ref(), &[&redis], case)?;
                vec![Figure::of(measured.cost(), &measured.spent)]
            }
            What::Latency(members, rate) => {
                let (nodes, redis) = two(contender)?;
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

/// Two nodes, and the Redis to which they speak and which ends after them.
fn two(contender: &Contender) -> Outcome<([Server; 2], Server)> {
    let redis = Server::start_redis()?;
    let nodes = [
        contender.start(Some(&redis), Role::Server)?,
        contender.start(Some(&redis), Role::SecondServer)?,
    ];
    Ok((nodes, redis))
}
