//! Slow readers, clients that never read, and herds that connect at once.

use std::time::{Duration, Instant};

use futures::FutureExt;
use switchboard::runtime;

use super::{Scenario, unnoticed};
use crate::bars::Bars;
use crate::client::{ControlCommand, Glance};
use crate::cluster::{Plan, info};
use crate::raw::Raw;
use crate::world::World;

/// Bytes of one publication in the room for great messages, and how many there are in a second: a
/// megabyte.
const BULK: usize = 20_000;
const BULK_RATE: u32 = 50;

/// Rooms that a herd joins.
const HERD_ROOMS: usize = 10;

/// Messages that each client of a herd missed.
const MISSED: usize = 1000;

pub fn scenarios() -> Vec<Scenario> {
    let direct = Plan {
        direct: true,
        ..Plan::PLAIN
    };
    vec![
        Scenario {
            name: "D1",
            title: "slow_reader_is_closed_alone",
            bars: |_| Bars {
                after_ratio: Some(1.5),
                ..unnoticed()
            },
            before: |world| bulk_member(world).boxed_local(),
            act: |world| slow_reader(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "D2",
            title: "client_that_never_reads_is_freed",
            before: |world| bulk_member(world).boxed_local(),
            act: |world| never_reads(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "D3",
            title: "thundering_herd_is_accepted",
            plan: direct,
            bars: |_| Bars {
                during_p99: Some(500),
                ..unnoticed()
            },
            act: |world| thunder(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "D4",
            title: "returning_herd_recovers_by_shared_reads",
            plan: direct,
            act: |world| recover(world).boxed_local(),
            no_load: true,
            ..Scenario::PLAIN
        },
    ]
}

/// A member that reads as fast as it can, in the room for great messages.
async fn bulk_member(world: &mut World) {
    world.start_client(&["bulk".to_owned()]);
}

/// A megabyte a second for so long; ends early when `enough` is true.
async fn bulk(world: &World, seconds: u32, mut enough: impl FnMut() -> bool) {
    let mut next = Instant::now();
    for round in 0..seconds * BULK_RATE {
        world.publish_one(round as usize % 8, "bulk", BULK);
        next += Duration::from_secs(1) / BULK_RATE;
        runtime::sleep(next.saturating_duration_since(Instant::now())).await;
        if enough() {
            return;
        }
    }
}

async fn slow_reader(world: &mut World) {
    let quiet = if world.load.long { 10 } else { 3 };
    bulk(world, quiet, || false).await;
    until_freed(world, "a client reads 1 kB/s in a room of 1 MB/s", 1000).await;
    bulk(world, quiet + 3, || false).await;
}

async fn never_reads(world: &mut World) {
    bulk(world, 1, || false).await;
    until_freed(world, "a client never reads in a room of 1 MB/s", 0).await;
}

/// Connects a client that reads at this rate, and publishes until the node has closed it. The
/// client itself would see the close only after everything that nginx and the kernel buffer.
async fn until_freed(world: &World, what: &str, rate: usize) {
    let files = || -> usize { world.cluster.nodes.iter().map(|slot| slot.files()).sum() };
    let memory = || {
        let nodes = world.cluster.nodes.iter();
        nodes.map(|slot| slot.memory()).max().unwrap_or(0)
    };
    let (before, memory_before) = (files(), memory());
    world.fault(what);
    let slow = Raw::join(world.cluster.nginx.address, "bulk", Some(rate));
    let start = Instant::now();
    let (mut seen, mut freed, mut peak) = (false, None, memory_before);
    bulk(world, 60, || {
        let now = files();
        seen |= now > before;
        peak = peak.max(memory());
        freed = (seen && now <= before).then(|| start.elapsed());
        freed.is_some()
    })
    .await;
    world.healed();
    // At this rate the kernel's and nginx's buffers take a dozen seconds, the outbox one, and a
    // close waits five.
    world.within("its file is freed", freed, Duration::from_secs(25));
    let found = format!("{memory_before} MiB, {peak} MiB");
    world
        .recorder
        .figure("a node's memory before, and at most", found);
    drop(slow);
}

fn herd_room(number: usize) -> String {
    format!("herd{}", number % HERD_ROOMS)
}

async fn thunder(world: &mut World) {
    let (first, herd) = (world.clients.len(), world.load.herd);
    world.fault(format!("{herd} clients come at once"));
    let start = Instant::now();
    for number in 0..herd {
        world.start_client(&[herd_room(number)]);
        if number % 100 == 99 {
            let due = Duration::from_secs(1).mul_f64(number as f64 / herd as f64);
            runtime::sleep(due.saturating_sub(start.elapsed())).await;
        }
    }
    let spread = format!("{:.1} s", start.elapsed().as_secs_f64());
    world.recorder.figure("the herd came within", spread);
    let limit = Duration::from_secs(60);
    let all = world.until_joined(first..first + herd, limit).await;
    let took = all.map(|_| start.elapsed());
    world.within("all of the herd are in", took, Duration::from_secs(20));
    world.healed();
}

async fn recover(world: &mut World) {
    let (first, herd) = (world.clients.len(), world.load.herd);
    for number in 0..herd {
        world.start_client(&[herd_room(number)]);
    }
    let all = first..first + herd;
    let limit = Duration::from_secs(60);
    let joined = world.until_joined(all.clone(), limit).await;
    world.within("all of the herd are in", joined, limit);
    let glances = |world: &World, holds: fn(&Glance) -> bool| {
        let herd = &world.clients[all.clone()];
        herd.iter().all(|client| holds(&client.glance()))
    };
    for client in &world.clients[all.clone()] {
        client.order(ControlCommand::Away);
    }
    while !glances(world, |glance| !glance.joined) {
        world.sleep(0.05).await;
    }
    // The nodes unsubscribe from rooms without members after five seconds, and drop their
    // recent messages.
    world.sleep(6.0).await;
    publish_missed(world).await;
    let before = log_reads(world);
    world.fault(format!(
        "{herd} clients return that missed {MISSED} messages each"
    ));
    let start = Instant::now();
    for client in &world.clients[all.clone()] {
        client.order(ControlCommand::Return);
    }
    let whole = |glance: &Glance| {
        let mut positions = glance.positions.values().flatten();
        glance.joined && positions.all(|position| position.offset >= MISSED as u64)
    };
    while !glances(world, whole) && start.elapsed() < Duration::from_secs(120) {
        world.sleep(0.05).await;
    }
    let took = glances(world, whole).then(|| start.elapsed());
    world.within("all have what they missed", took, Duration::from_secs(30));
    world.healed();
    let (reads, nodes) = (log_reads(world) - before, world.cluster.nodes.len());
    // Each node compares each of its rooms with the log once a minute besides.
    let rooms = (HERD_ROOMS + world.load.rooms) as f64;
    let compared = rooms * start.elapsed().as_secs_f64() / 60.0;
    let bar = nodes as u64 * (3 * HERD_ROOMS as u64 + compared.ceil() as u64);
    let what = format!(
        "at most {bar} reads: three for each of {HERD_ROOMS} rooms on {nodes} nodes, \
         and the comparisons"
    );
    world.recorder.check(&what, reads <= bar, reads);
}

async fn publish_missed(world: &World) {
    let unanswered = |most: usize| {
        let mut publishers = world.clients[..8].iter();
        publishers.any(|client| client.unanswered() > most)
    };
    for number in 0..MISSED * HERD_ROOMS {
        world.publish_one(number % 8, &herd_room(number), 100);
        while number % 50 == 49 && unanswered(50) {
            world.sleep(0.002).await;
        }
    }
    while unanswered(0) {
        world.sleep(0.02).await;
    }
}

/// How often Redis has read a log: no other script calls PTTL, and this one calls it once.
fn log_reads(world: &World) -> u64 {
    let stats = info(&world.cluster.redis[0], "commandstats");
    let line = |line: &str| {
        let calls = line.strip_prefix("cmdstat_pttl:calls=")?;
        calls.split(',').next()?.parse().ok()
    };
    stats.lines().find_map(line).unwrap_or(0)
}
