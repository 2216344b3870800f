//! A closed loop: a fixed number of messages is in flight in each room, and the next is published
//! when one has reached every member.

use std::time::{Duration, Instant};

use super::server::Server;
use super::talk::Talk;
use super::watch::{Spent, Watch};
use super::{Outcome, size};

/// How many rooms, members of each, messages in flight in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub rooms: usize,
    pub members: usize,
    pub in_flight: u32,
}

impl Case {
    pub const fn of(rooms: usize, members: usize, in_flight: u32) -> Self {
        Self {
            rooms,
            members,
            in_flight,
        }
    }

    /// Its name in `BENCH_CASE`.
    pub fn name(self) -> String {
        format!("{}x{}x{}", self.rooms, self.members, self.in_flight)
    }
}

/// What a closed loop has shown.
pub struct Measured {
    pub spent: Spent,
    pub deliveries: u64,
}

impl Measured {
    /// Thousands of deliveries a second.
    pub fn rate(&self) -> f64 {
        self.deliveries as f64 / self.spent.wall.as_secs_f64() / 1000.0
    }

    /// Processor time per delivery, in microseconds.
    pub fn cost(&self) -> f64 {
        self.spent.micros_per(self.deliveries)
    }

    /// How many messages these deliveries were.
    pub fn messages(&self, case: Case) -> u64 {
        self.deliveries / case.members as u64
    }
}

/// Lets the clients of a case talk through these servers.
pub fn measure(servers: &[&Server], helpers: &[&Server], case: Case) -> Outcome<Measured> {
    let mut talk = Talk::begin(servers, case.rooms, case.members)?;
    continued(&mut talk, servers, helpers, case.in_flight)
}

/// The same, with clients that are connected already.
pub fn continued(
    talk: &mut Talk,
    servers: &[&Server],
    helpers: &[&Server],
    in_flight: u32,
) -> Outcome<Measured> {
    flow(talk, in_flight, Duration::from_millis(500))?;
    let before = talk.deliveries;
    let watch = Watch::begin(servers, helpers);
    flow(talk, in_flight, Duration::from_secs(size(2, 10)))?;
    let spent = watch.end();
    let deliveries = talk.deliveries - before;
    talk.finish(|_, _| ())?;
    Ok(Measured { spent, deliveries })
}

/// Keeps so many messages in flight for a while.
pub fn flow(talk: &mut Talk, in_flight: u32, time: Duration) -> Outcome {
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
