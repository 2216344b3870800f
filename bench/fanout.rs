//! Fan-out latency over loopback, in an open loop, for rooms of several sizes: beside the plain
//! limit on one node, then on two nodes through one Redis.

use crate::support::machine::{self, Role};
use crate::support::open_loop::{Measured, measure};
use crate::support::server::{Kind, Server};
use crate::support::table::{Table, ratio};
use crate::support::{Outcome, wanted};

/// Members, and messages a second: few enough that one core is idle most of the time, because
/// latency under overload is the length of a queue.
const ROOMS: [(usize, u32); 4] = [(10, 100), (100, 100), (1000, 20), (5000, 4)];

const COLUMNS: [&str; 12] = [
    "members",
    "per s",
    "server     ",
    "p50 ms",
    "p90",
    "p99",
    "p99.9",
    "max",
    "CPU µs per delivery",
    "p50 to plain",
    "p99 to plain",
    "CPU to plain",
];

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    let rooms = || {
        let rooms = ROOMS.into_iter();
        rooms.filter(|(members, _)| wanted(&members.to_string()))
    };
    let table = begin("Fan-out latency, one node, its broker in memory");
    for (members, rate) in rooms() {
        let plain = Server::start(Kind::Plain)?;
        let limit = measure(&[&plain], &[], members, rate)?;
        drop(plain);
        row(&table, Kind::Plain.name(), members, rate, &limit, None);
        let node = Server::start(Kind::Node)?;
        let ours = measure(&[&node], &[], members, rate)?;
        row(
            &table,
            Kind::Node.name(),
            members,
            rate,
            &ours,
            Some(&limit),
        );
    }
    let table = begin("Fan-out latency, two nodes through one Redis, half of the members on each");
    for (members, rate) in rooms() {
        let mut limit = None;
        for kind in [Kind::Plain, Kind::Logging, Kind::Node] {
            let redis = Server::start_redis()?;
            let start = |role| match kind {
                Kind::Node => Server::start_with_redis(&redis, role),
                _ => Server::start_limit(kind, Some(&redis), role),
            };
            let nodes = [start(Role::Server)?, start(Role::SecondServer)?];
            let measured = measure(&nodes.each_ref(), &[&redis], members, rate)?;
            row(
                &table,
                kind.name(),
                members,
                rate,
                &measured,
                limit.as_ref(),
            );
            limit.get_or_insert(measured);
        }
    }
    Ok(())
}

fn begin(title: &str) -> Table {
    let mut columns = COLUMNS.to_vec();
    columns.push("others' CPU");
    Table::begin(title, &columns)
}

fn row(
    table: &Table,
    server: &str,
    members: usize,
    rate: u32,
    measured: &Measured,
    limit: Option<&Measured>,
) {
    let show = |quantile| format!("{:.2}", measured.at(quantile));
    table.row(&[
        members.to_string(),
        rate.to_string(),
        server.to_string(),
        show(0.5),
        show(0.9),
        show(0.99),
        show(0.999),
        show(1.0),
        format!("{:.2}", measured.cost()),
        ratio(measured.at(0.5), limit.map(|limit| limit.at(0.5))),
        ratio(measured.at(0.99), limit.map(|limit| limit.at(0.99))),
        ratio(measured.cost(), limit.map(Measured::cost)),
        measured.spent.noise(),
    ]);
}
