//! Throughput: a fixed number of messages in flight per room. One in flight shows what a single
//! delivery costs; many show what merging them saves.

use crate::support::closed_loop::{Case, Measured, measure};
use crate::support::machine::{self, Role};
use crate::support::server::{Kind, Server};
use crate::support::table::{Table, ratio};
use crate::support::{Outcome, wanted};

const CASES: [Case; 8] = [
    Case::of(1, 1000, 1),
    Case::of(1, 1000, 16),
    Case::of(1, 1000, 64),
    Case::of(1, 5000, 1),
    Case::of(1, 5000, 16),
    Case::of(1, 5000, 64),
    Case::of(200, 10, 1),
    Case::of(200, 10, 4),
];

const COLUMNS: [&str; 11] = [
    "rooms",
    "members",
    "in flight",
    "server     ",
    "k deliveries/s",
    "CPU µs each",
    "rate to merging",
    "CPU to merging",
    "CPU to plain",
    "Redis µs per message",
    "others' CPU",
];

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    let cases = || CASES.into_iter().filter(|case| wanted(&case.name()));
    let table = Table::begin("Flood, one node, its broker in memory", &COLUMNS);
    for case in cases() {
        let plain = one(Kind::Plain, case)?;
        row(&table, Kind::Plain.name(), case, &plain, None);
        let merging = one(Kind::Merging, case)?;
        row(&table, Kind::Merging.name(), case, &merging, None);
        let node = one(Kind::Node, case)?;
        let limits = Some((&plain, &merging));
        row(&table, Kind::Node.name(), case, &node, limits);
    }
    let table = Table::begin("Flood, two nodes through one Redis", &COLUMNS);
    for case in cases() {
        let redis = Server::start_redis()?;
        let first = Server::start_with_redis(&redis, Role::Server)?;
        let second = Server::start_with_redis(&redis, Role::SecondServer)?;
        let nodes = measure(&[&first, &second], &[&redis], case)?;
        row(&table, "two nodes", case, &nodes, None);
    }
    Ok(())
}

fn one(kind: Kind, case: Case) -> Outcome<Measured> {
    let server = Server::start(kind)?;
    measure(&[&server], &[], case)
}

fn row(
    table: &Table,
    server: &str,
    case: Case,
    measured: &Measured,
    limits: Option<(&Measured, &Measured)>,
) {
    let redis = measured.spent.redis_micros_per(measured.messages(case));
    table.row(&[
        case.rooms.to_string(),
        case.members.to_string(),
        case.in_flight.to_string(),
        server.to_string(),
        format!("{:.0}", measured.rate()),
        format!("{:.3}", measured.cost()),
        ratio(measured.rate(), limits.map(|(_, merging)| merging.rate())),
        ratio(measured.cost(), limits.map(|(_, merging)| merging.cost())),
        ratio(measured.cost(), limits.map(|(plain, _)| plain.cost())),
        if redis > 0.0 {
            format!("{redis:.0}")
        } else {
            "–".into()
        },
        measured.spent.noise(),
    ]);
}
