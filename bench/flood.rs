//! Throughput: a fixed number of messages in flight per room, the next published when one has reached every member. One in flight
//! shows what a single delivery costs; many show what merging them saves.

use std::time::{Duration, Instant};

use crate::support::machine::{self, Role};
use crate::support::server::{Kind, Server};
use crate::support::table::{Table, ratio};
use crate::support::talk::Talk;
use crate::support::watch::{Spent, Watch};
use crate::support::{Outcome, size};

/// Rooms, members of each, messages in flight in each.
const CASES: [(usize, usize, u32); 8] = [
    (1, 1000, 1),
    (1, 1000, 16),
    (1, 1000, 64),
    (1, 5000, 1),
    (1, 5000, 16),
    (1, 5000, 64),
    (200, 10, 1),
    (200, 10, 4),
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

struct Measured {
    spent: Spent,
    deliveries: u64,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.deliveries as f64 / self.spent.wall.as_secs_f64() / 1000.0
    }

    fn cost(&self) -> f64 {
        self.spent.micros_per(self.deliveries)
    }
}

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    let table = Table::begin("Flood, one node, its broker in memory", &COLUMNS);
    for case in CASES {
        let plain = one(Kind::Plain, case)?;
        row(&table, Kind::Plain.name(), case, &plain, None);
        let merging = one(Kind::Merging, case)?;
        row(&table, Kind::Merging.name(), case, &merging, None);
        let node = one(Kind::Node, case)?;
        let limits = Some((&plain, &merging));
        row(&table, Kind::Node.name(), case, &node, limits);
    }
    let table = Table::begin("Flood, two nodes through one Redis", &COLUMNS);
    for case in CASES {
        let redis = Server::start_redis()?;
        let first = Server::start_with_redis(&redis, Role::Server)?;
        let second = Server::start_with_redis(&redis, Role::SecondServer)?;
        let nodes = measure(&[&first, &second], &[&redis], case)?;
        row(&table, "two nodes", case, &nodes, None);
    }
    Ok(())
}

fn one(kind: Kind, case: (usize, usize, u32)) -> Outcome<Measured> {
    let server = Server::start(kind)?;
    measure(&[&server], &[], case)
}

fn measure(
    servers: &[&Server],
    helpers: &[&Server],
    (rooms, members, in_flight): (usize, usize, u32),
) -> Outcome<Measured> {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let mut talk = Talk::begin(&addresses, rooms, members)?;
    flow(&mut talk, in_flight, Duration::from_millis(500))?;
    let before = talk.deliveries;
    let watch = Watch::begin(servers, helpers);
    flow(&mut talk, in_flight, Duration::from_secs(size(2, 10)))?;
    let spent = watch.end();
    let deliveries = talk.deliveries - before;
    talk.finish()?;
    Ok(Measured { spent, deliveries })
}

/// Keeps so many messages in flight for a while.
fn flow(talk: &mut Talk, in_flight: u32, time: Duration) -> Outcome {
    let end = Instant::now() + time;
    while Instant::now() < end {
        for room in 0..talk.rooms() {
            let free = in_flight - talk.in_flight(room);
            if free > 0 {
                talk.publish(room, free)?;
            }
        }
        talk.poll(end, |_, _| ())?;
    }
    Ok(())
}

fn row(
    table: &Table,
    server: &str,
    (rooms, members, in_flight): (usize, usize, u32),
    measured: &Measured,
    limits: Option<(&Measured, &Measured)>,
) {
    let messages = measured.deliveries / members as u64;
    let redis = measured.spent.redis_micros_per(messages);
    table.row(&[
        rooms.to_string(),
        members.to_string(),
        in_flight.to_string(),
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
