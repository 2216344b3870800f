//! Faults of the network: a node cut off from Redis, wholly or in one direction, clients that
//! vanish, nginx reloaded or killed, and connections that end in the middle of a message.

use std::time::{Duration, Instant};

use futures::FutureExt;
use switchboard::runtime;

use super::{Scenario, unnoticed, whole};
use crate::bars::Bars;
use crate::cluster::Plan;
use crate::proxy::{Flow, Way};
use crate::raw::Raw;
use crate::world::World;

/// How soon a node must detect that it is cut off.
const DETECTED: Duration = Duration::from_secs(5);

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "C1",
            title: "node_cut_off_from_redis_keeps_its_clients",
            bars: |_| unnoticed(),
            act: |world| partition(world, None).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "C2",
            title: "node_that_receives_nothing_from_redis_keeps_its_clients",
            bars: |_| unnoticed(),
            act: |world| partition(world, Some(Way::ToClient)).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "C3",
            title: "vanished_clients_are_closed_after_a_heartbeat",
            plan: Plan {
                node: &["--heartbeat", "4s", "--pong-timeout", "2s"],
                ..Plan::PLAIN
            },
            bars: |_| unnoticed(),
            act: |world| vanish(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "C6",
            title: "nginx_reload_loses_nothing",
            bars: |_| Bars {
                back_all: Some(20_000),
                ..whole()
            },
            act: |world| reload(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "C7",
            title: "nginx_kill_loses_nothing",
            bars: |_| Bars {
                back_all: Some(20_000),
                ..whole()
            },
            act: |world| kill_nginx(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "C8",
            title: "half_frames_and_slow_links_lose_nothing",
            bars: |_| whole(),
            act: |world| half_frames(world).boxed_local(),
            ..Scenario::PLAIN
        },
    ]
}

async fn partition(world: &mut World, way: Option<Way>) {
    let seconds = if world.load.long { 20 } else { 10 };
    let slot = &world.cluster.nodes[0];
    let what = match way {
        None => "nothing passes between node a and Redis",
        Some(_) => "nothing passes from Redis to node a",
    };
    world.fault(format!("{what} for {seconds} s"));
    let time = Duration::from_secs(seconds);
    slot.hold_redis(way, Flow::Hold);
    let start = Instant::now();
    let detected = slot.until_ready(false, time).await;
    world.within("node a reports that it is not ready", detected, DETECTED);
    runtime::sleep(time.saturating_sub(start.elapsed())).await;
    slot.hold_redis(None, Flow::Pass);
    world.healed();
    let ready = slot.until_ready(true, Duration::from_secs(10)).await;
    world.within("node a is ready again", ready, Duration::from_secs(1));
}

/// As TCP shows it to a node, a client without a network is one that never sends again.
async fn vanish(world: &mut World) {
    let count = world.load.clients / 2;
    let before = files(world);
    world.fault(format!("{count} clients connect and vanish"));
    let start = Instant::now();
    let vanished: Vec<Raw> = (0..count)
        .map(|_| Raw::join(world.cluster.nginx.address, "room0", None))
        .collect();
    while files(world) < before + count && start.elapsed() < Duration::from_secs(3) {
        runtime::sleep(Duration::from_millis(20)).await;
    }
    let peak = files(world);
    let held = peak >= before + count;
    world.recorder.check("they were there", held, peak - before);
    // A margin for what nginx and the harness have open for a moment.
    while files(world) > before + 4 && start.elapsed() < Duration::from_secs(30) {
        runtime::sleep(Duration::from_millis(50)).await;
    }
    let gone = (files(world) <= before + 4).then(|| start.elapsed());
    // The heartbeat, the time to answer it, one second, and how long a close waits for its echo.
    let bar = Duration::from_secs(4 + 2 + 1 + 5);
    world.within("their files are freed", gone, bar);
    world.healed();
    drop(vanished);
}

fn files(world: &World) -> usize {
    world.cluster.nodes.iter().map(|slot| slot.files()).sum()
}

async fn reload(world: &mut World) {
    for _ in 0..if world.load.long { 6 } else { 3 } {
        world.fault("nginx -s reload");
        world.cluster.nginx.reload();
        world.sleep(3.0).await;
    }
    // Old workers keep their tunnels for five seconds.
    world.sleep(3.0).await;
    world.healed();
}

async fn kill_nginx(world: &mut World) {
    world.fault("kill -9 of nginx");
    world.cluster.nginx.kill();
    world.sleep(1.0).await;
    world.cluster.nginx.run();
    world.healed();
}

/// Connections to Redis and to clients end in the middle of a message.
async fn half_frames(world: &mut World) {
    for way in [Way::ToClient, Way::ToServer, Way::ToClient] {
        world.fault("half a frame, then the end, between nginx and nodes, and to Redis");
        for slot in &world.cluster.nodes {
            slot.front.set(way, Flow::Half);
            slot.hold_redis(Some(way), Flow::Half);
        }
        world.sleep(0.2).await;
        for slot in &world.cluster.nodes {
            slot.front.set_both(Flow::Delay(Duration::from_millis(20)));
            slot.hold_redis(None, Flow::Delay(Duration::from_millis(5)));
        }
        world.sleep(2.0).await;
    }
    for slot in &world.cluster.nodes {
        slot.front.set_both(Flow::Pass);
        slot.hold_redis(None, Flow::Pass);
    }
    world.healed();
}
