//! Fan-out latency over loopback, in an open loop: messages are sent when they are due, whatever became of the former,
//! and each delivery's latency counts from the moment its message was *due*. So a server that stalls pays for all that
//! it kept waiting (no coordinated omission).

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::support::machine::{self, Role};
use crate::support::server::{Kind, Server};
use crate::support::table::{Table, ratio};
use crate::support::talk::Talk;
use crate::support::watch::{Spent, Watch};
use crate::support::{Outcome, size};

/// Members, and messages a second: few enough that one core is idle most of the time, because latency under overload is
/// the length of a queue.
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

struct Measured {
    /// Microseconds.
    latency: Histogram<u64>,
    spent: Spent,
    deliveries: u64,
}

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    let table = begin("Fan-out latency, one node, its broker in memory");
    for (members, rate) in ROOMS {
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
    for (members, rate) in ROOMS {
        let redis = Server::start_redis()?;
        let first = Server::start_with_redis(&redis, Role::Server)?;
        let second = Server::start_with_redis(&redis, Role::SecondServer)?;
        let ours = measure(&[&first, &second], &[&redis], members, rate)?;
        row(&table, "two nodes", members, rate, &ours, None);
    }
    Ok(())
}

fn begin(title: &str) -> Table {
    let mut columns = COLUMNS.to_vec();
    columns.push("others' CPU");
    Table::begin(title, &columns)
}

fn measure(
    servers: &[&Server],
    helpers: &[&Server],
    members: usize,
    rate: u32,
) -> Outcome<Measured> {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let mut talk = Talk::begin(&addresses, 1, members)?;
    let period = Duration::from_secs(1) / rate;
    // The first messages find cold caches everywhere; they are sent alike and not counted.
    let warm_up = rate.max(4) / 2;
    let count = warm_up + rate * size(4, 30);
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    let start = Instant::now() + period;
    let due = |number: u32| start + period * number;
    let mut watch = None;
    let mut before = 0;
    for next in 0..count {
        while Instant::now() < due(next) {
            talk.poll(due(next), |number, when| {
                note(&mut latency, number, warm_up, when, due(number))
            })?;
        }
        if next == warm_up {
            before = talk.deliveries;
            watch = Some(Watch::begin(servers, helpers));
        }
        talk.publish(0, 1)?;
    }
    while talk.in_flight(0) > 0 {
        let patience = Instant::now() + Duration::from_secs(20);
        talk.poll(patience, |number, when| {
            note(&mut latency, number, warm_up, when, due(number))
        })?;
        if Instant::now() >= patience {
            return Err("messages are missing at the end".into());
        }
    }
    let spent = watch.ok_or("nothing was measured")?.end();
    Ok(Measured {
        latency,
        spent,
        deliveries: talk.deliveries - before,
    })
}

fn note(latency: &mut Histogram<u64>, number: u32, warm_up: u32, when: Instant, due: Instant) {
    if number >= warm_up {
        latency.saturating_record(when.saturating_duration_since(due).as_micros() as u64);
    }
}

fn row(
    table: &Table,
    server: &str,
    members: usize,
    rate: u32,
    measured: &Measured,
    limit: Option<&Measured>,
) {
    let at = |measured: &Measured, quantile| {
        measured.latency.value_at_quantile(quantile) as f64 / 1000.0
    };
    let cost = |measured: &Measured| measured.spent.micros_per(measured.deliveries);
    let show = |quantile| format!("{:.2}", at(measured, quantile));
    table.row(&[
        members.to_string(),
        rate.to_string(),
        server.to_string(),
        show(0.5),
        show(0.9),
        show(0.99),
        show(0.999),
        show(1.0),
        format!("{:.2}", cost(measured)),
        ratio(at(measured, 0.5), limit.map(|limit| at(limit, 0.5))),
        ratio(at(measured, 0.99), limit.map(|limit| at(limit, 0.99))),
        ratio(cost(measured), limit.map(cost)),
        measured.spent.noise(),
    ]);
}
