//! Whether a second thread for the node's tasks costs anything: the same node with one and with
//! two, at a fixed rate, in turn and several times. Both may use every core, so only the number of
//! threads differs.

use crate::support::machine::{self, Role};
use crate::support::open_loop::{Measured, measure};
use crate::support::server::Server;
use crate::support::table::{Table, ratio};
use crate::support::{Outcome, median, size, wanted};

/// Members, and messages a second.
const ROOMS: [(usize, u32); 2] = [(100, 200), (1000, 40)];

const THREADS: [usize; 2] = [1, 2];

const COLUMNS: [&str; 9] = [
    "members",
    "per s",
    "threads",
    "p50 ms",
    "p99",
    "CPU µs per delivery",
    "CPU to one",
    "p99 to one",
    "others' CPU",
];

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    let table = Table::begin("Threads for the node's tasks, at a fixed rate", &COLUMNS);
    for (members, rate) in ROOMS {
        if !wanted(&members.to_string()) {
            continue;
        }
        let mut rounds: [Vec<Measured>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..size(3, 5) {
            for (threads, rounds) in THREADS.into_iter().zip(&mut rounds) {
                let node = Server::start_node(Role::Everywhere, &[], Some(threads))?;
                rounds.push(measure(&[&node], &[], members, rate)?);
            }
        }
        let middling = |rounds: &[Measured], figure: fn(&Measured) -> f64| {
            median(rounds.iter().map(figure).collect())
        };
        let one = &rounds[0];
        for (threads, rounds) in THREADS.into_iter().zip(&rounds) {
            let cost = middling(rounds, Measured::cost);
            let late = middling(rounds, |round| round.at(0.99));
            table.row(&[
                members.to_string(),
                rate.to_string(),
                threads.to_string(),
                format!("{:.2}", middling(rounds, |round| round.at(0.5))),
                format!("{late:.2}"),
                format!("{cost:.2}"),
                ratio(cost, Some(middling(one, Measured::cost))),
                ratio(late, Some(middling(one, |round| round.at(0.99)))),
                rounds
                    .last()
                    .map_or(String::new(), |round| round.spent.noise()),
            ]);
        }
    }
    Ok(())
}
