//! Faults of Redis: emptied, restarted, frozen, busy, failed over, out of memory, and away
//! from the start.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ::redis::Value;
use futures::FutureExt;

use super::{Scenario, forgotten, unnoticed, whole};
use crate::bars::Bars;
use crate::cluster::{Plan, figure, http_status, info};
use crate::history::{Loss, Rooms};
use crate::proxy::Flow;
use crate::world::World;

pub fn scenarios() -> Vec<Scenario> {
    let follower = Plan {
        replica: true,
        ..Plan::PLAIN
    };
    let lost_data = Scenario {
        bars: |_| Bars {
            works_again: Some(1_000),
            ..forgotten()
        },
        ..Scenario::PLAIN
    };
    vec![
        Scenario {
            name: "B1",
            title: "redis_emptied_sends_every_member_a_gap",
            act: |world| restart_empty(world).boxed_local(),
            ..lost_data
        },
        Scenario {
            name: "B2",
            title: "redis_restart_from_its_append_only_file_sends_gaps",
            plan: Plan {
                redis: &["--appendonly yes"],
                ..Plan::PLAIN
            },
            act: |world| restart_from_disk(world).boxed_local(),
            ..lost_data
        },
        Scenario {
            name: "B2RDB",
            title: "redis_restart_from_old_data_sends_gaps",
            act: |world| restart_from_old_data(world).boxed_local(),
            ..lost_data
        },
        Scenario {
            name: "B3",
            title: "killed_connections_to_redis_affect_no_client",
            bars: |_| Bars {
                during_p99: Some(1_000),
                ..unnoticed()
            },
            act: |world| kill_connections(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B4",
            title: "redis_frozen_for_three_seconds_costs_only_time",
            bars: |_| Bars {
                works_again: Some(2_000),
                after_ratio: Some(1.5),
                ..unnoticed()
            },
            act: |world| freeze_shortly(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B5",
            title: "redis_frozen_for_fifteen_seconds_closes_no_socket",
            bars: |_| unnoticed(),
            act: |world| freeze_long(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B6",
            title: "busy_redis_costs_only_time",
            bars: |_| Bars {
                during_p99: Some(2_500),
                ..unnoticed()
            },
            act: |world| busy(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B7",
            title: "failover_to_a_lagging_replica_sends_gaps",
            plan: follower,
            bars: |_| Bars {
                works_again: Some(3_000),
                ..forgotten()
            },
            act: |world| fail_over(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B8",
            title: "demoted_master_with_open_sockets_is_abandoned",
            plan: follower,
            bars: |_| Bars {
                works_again: Some(5_000),
                ..forgotten()
            },
            act: |world| demote(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B9",
            title: "redis_without_memory_refuses_and_loses_nothing",
            bars: |_| unnoticed(),
            act: |world| out_of_memory(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B10",
            title: "subscription_cut_by_its_output_limit_is_refilled",
            plan: Plan {
                redis: &["--client-output-buffer-limit pubsub 65536 0 0"],
                ..Plan::PLAIN
            },
            bars: |_| unnoticed(),
            before: |world| bulk_members(world).boxed_local(),
            act: |world| overflow(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B11",
            title: "deleted_keys_send_gaps_and_stop_no_room",
            act: |world| delete_keys(world).boxed_local(),
            ..lost_data
        },
        Scenario {
            name: "B12",
            title: "node_waits_for_a_redis_that_is_not_up_yet",
            plan: Plan {
                redis_absent: true,
                ..Plan::PLAIN
            },
            bars: |_| whole(),
            before: |world| late(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B13",
            title: "clean_restart_of_redis_loses_nothing_and_sends_gaps",
            plan: Plan {
                redis: &["--appendonly yes --appendfsync always"],
                ..Plan::PLAIN
            },
            act: |world| restart_cleanly(world).boxed_local(),
            ..lost_data
        },
        Scenario {
            name: "B14",
            title: "coordinated_failover_loses_nothing_and_sends_gaps",
            plan: follower,
            bars: |_| Bars {
                works_again: Some(5_000),
                ..forgotten()
            },
            act: |world| fail_over_together(world).boxed_local(),
            ..Scenario::PLAIN
        },
    ]
}

async fn restart_empty(world: &mut World) {
    world.ending_fault(
        "Redis: SHUTDOWN NOSAVE",
        Rooms::Everywhere,
        Loss::Everything,
    );
    // It replies by closing the connection.
    let _ = world.cluster.redis[0].try_query::<Value>(&["SHUTDOWN", "NOSAVE"]);
    world.cluster.kill_redis(0);
    world.absent(true);
    world.sleep(5.0).await;
    world.absent(false);
    world.cluster.run_redis(0).await;
    world.healed();
}

async fn restart_from_disk(world: &mut World) {
    let what = "Redis: kill -9, back with its append-only file";
    world.ending_fault(what, Rooms::Everywhere, Loss::Tail);
    world.cluster.kill_redis(0);
    world.absent(true);
    world.sleep(1.0).await;
    world.absent(false);
    world.cluster.run_redis(0).await;
    world.healed();
}

async fn restart_cleanly(world: &mut World) {
    let what = "Redis: SHUTDOWN, back with its append-only file, which is synced at each write";
    world.ending_fault(what, Rooms::Everywhere, Loss::Nothing);
    world.cluster.shut_down_redis(0);
    world.absent(true);
    world.sleep(1.0).await;
    world.absent(false);
    world.cluster.run_redis(0).await;
    world.healed();
}

async fn restart_from_old_data(world: &mut World) {
    world.saved();
    world.cluster.ask::<String>(&["SAVE"]);
    world.sleep(1.5).await;
    let what = "Redis: kill -9, back with data of 1.5 s before";
    world.ending_fault(what, Rooms::Everywhere, Loss::Tail);
    world.cluster.kill_redis(0);
    world.absent(true);
    world.sleep(1.0).await;
    world.absent(false);
    world.cluster.run_redis(0).await;
    world.healed();
}

async fn kill_connections(world: &mut World) {
    let times = if world.load.long { 10 } else { 4 };
    for _ in 0..times {
        for kind in ["pubsub", "normal"] {
            world.fault(format!("CLIENT KILL TYPE {kind}"));
            world.cluster.ask::<i64>(&["CLIENT", "KILL", "TYPE", kind]);
        }
        world.sleep(2.0).await;
    }
    world.healed();
}

async fn freeze_shortly(world: &mut World) {
    world.fault("Redis: SIGSTOP for 3 s");
    world.cluster.redis[0].pause();
    world.absent(true);
    world.sleep(3.0).await;
    world.absent(false);
    world.cluster.redis[0].resume();
    world.healed();
}

async fn freeze_long(world: &mut World) {
    world.fault("Redis: SIGSTOP for 15 s");
    world.cluster.redis[0].pause();
    world.absent(true);
    let start = Instant::now();
    for slot in &world.cluster.nodes {
        let limit = Duration::from_secs(14).saturating_sub(start.elapsed());
        let found = slot.until_ready(false, limit).await;
        let what = format!("node {} reports that it is not ready", slot.label);
        let took = found.map(|_| start.elapsed());
        world.within(&what, took, Duration::from_secs(5));
    }
    let left = Duration::from_secs(15).saturating_sub(start.elapsed());
    world.sleep(left.as_secs_f64()).await;
    world.absent(false);
    world.cluster.redis[0].resume();
    world.healed();
    for slot in &world.cluster.nodes {
        let ready = slot.until_ready(true, Duration::from_secs(10)).await;
        let what = format!("node {} is ready again", slot.label);
        world.within(&what, ready, Duration::from_secs(1));
    }
}

async fn busy(world: &mut World) {
    let before: Vec<u64> = world
        .cluster
        .nodes
        .iter()
        .map(|slot| slot.memory())
        .collect();
    for _ in 0..2 {
        world.fault("Redis: DEBUG SLEEP 1");
        world.cluster.spawn_command(&["DEBUG", "SLEEP", "1"]);
        world.sleep(if world.load.long { 5.0 } else { 2.5 }).await;
    }
    world.fault("Redis: CLIENT PAUSE 2000 WRITE");
    world
        .cluster
        .ask::<String>(&["CLIENT", "PAUSE", "2000", "WRITE"]);
    world.sleep(2.0).await;
    world.healed();
    for (slot, before) in world.cluster.nodes.iter().zip(before) {
        let more = slot.memory().saturating_sub(before);
        let what = format!("node {} takes at most 64 MiB more", slot.label);
        world
            .recorder
            .check(&what, more <= 64, format!("{more} MiB"));
    }
}

async fn fail_over(world: &mut World) {
    let written = |world: &World| {
        let info = info(&world.cluster.redis[0], "replication");
        figure(&info, "master_repl_offset")
    };
    world.saved();
    let before = written(world);
    until_replicated(world, before).await;
    if let Some(link) = &world.cluster.replication {
        link.set_both(Flow::Hold);
    }
    // With the load going on, that is far more than three publications.
    world.sleep(0.5).await;
    let lag = written(world) - before;
    let what = format!("the master is killed; its replica lags {lag} bytes and is promoted");
    world.ending_fault(what, Rooms::Everywhere, Loss::Tail);
    world.cluster.kill_redis(0);
    world.cluster.redis[1].query::<String>(&["REPLICAOF", "NO", "ONE"]);
    world.healed();
}

/// Waits until the replica has this offset of the master's stream.
async fn until_replicated(world: &World, written: u64) {
    let start = Instant::now();
    let received = || {
        let info = info(&world.cluster.redis[1], "replication");
        figure(&info, "slave_repl_offset")
    };
    while received() < written && start.elapsed() < Duration::from_secs(10) {
        world.sleep(0.01).await;
    }
    let found = received();
    let what = "the replica has what was acknowledged before it lags";
    world.recorder.check(what, found >= written, found);
}

/// A coordinated failover: Redis lets writes wait until the replica has everything, then exchanges
/// the roles.
async fn fail_over_together(world: &mut World) {
    world.ending_fault("Redis: FAILOVER", Rooms::Everywhere, Loss::Nothing);
    world.cluster.ask::<String>(&["FAILOVER"]);
    let start = Instant::now();
    let is_master = |world: &World| {
        let info = info(&world.cluster.redis[1], "replication");
        info.contains("role:master")
    };
    while !is_master(world) && start.elapsed() < Duration::from_secs(10) {
        world.sleep(0.01).await;
    }
    let took = is_master(world).then(|| start.elapsed());
    world.within("the roles are exchanged", took, Duration::from_secs(2));
    world.healed();
}

async fn demote(world: &mut World) {
    let what = "the replica is promoted, and its master made a replica";
    world.ending_fault(what, Rooms::Everywhere, Loss::Tail);
    // Writes wait, so that nothing is lost on the way.
    world
        .cluster
        .ask::<String>(&["CLIENT", "PAUSE", "400", "WRITE"]);
    world.sleep(0.2).await;
    let port = world.cluster.redis[1].port().to_string();
    world.cluster.redis[1].query::<String>(&["REPLICAOF", "NO", "ONE"]);
    world
        .cluster
        .ask::<String>(&["REPLICAOF", "127.0.0.1", &port]);
    world.healed();
}

async fn out_of_memory(world: &mut World) {
    world.fault("Redis: maxmemory reached");
    let limit = |world: &World, limit: &str| {
        world
            .cluster
            .ask::<String>(&["CONFIG", "SET", "maxmemory", limit]);
    };
    limit(world, "1mb");
    world.sleep(3.0).await;
    limit(world, "0");
    world.healed();
}

/// The number of rooms for large messages.
const BULK_ROOMS: usize = 4;

fn bulk_room(number: usize) -> String {
    format!("bulk{}", number % BULK_ROOMS)
}

/// Members of the rooms for large messages, on both nodes.
async fn bulk_members(world: &mut World) {
    for _ in 0..2 {
        for number in 0..BULK_ROOMS {
            world.start_client(&[bulk_room(number)]);
        }
    }
}

/// Redis closes a subscriber with more than 64 kB of pending output; a burst is ten times as much.
async fn overflow(world: &mut World) {
    let mut cuts = 0;
    for _ in 0..8 {
        let before = subscribers(world);
        for number in 0..8 * BULK_ROOMS {
            world.publish_one(number / BULK_ROOMS, &bulk_room(number), 20_000);
        }
        world.sleep(0.5).await;
        let more = before.difference(&subscribers(world)).count();
        world.fault(format!(
            "640 kB at once; Redis has cut off {more} subscriptions"
        ));
        cuts += more;
    }
    world.healed();
    world
        .recorder
        .check("Redis has cut subscriptions off", cuts > 0, cuts);
}

/// Redis' ids of its subscribers' connections.
fn subscribers(world: &World) -> BTreeSet<String> {
    let list: String = world.cluster.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    let number = |line: &str| Some(line.split_whitespace().next()?.to_owned());
    list.lines().filter_map(number).collect()
}

async fn delete_keys(world: &mut World) {
    world.ending_fault("FLUSHALL", Rooms::Everywhere, Loss::Everything);
    world.cluster.ask::<String>(&["FLUSHALL"]);
    world.sleep(1.0).await;
    let room = world.rooms()[0].clone();
    let what = format!("the meta key of {room} is deleted");
    // The record of former epochs is lost with it, although the log stays.
    world.ending_fault(what, Rooms::In(room.clone()), Loss::Everything);
    let meta = format!("switchboard:{{{room}}}:meta");
    world.cluster.ask::<i64>(&["DEL", &meta]);
    world.healed();
}

async fn late(world: &mut World) {
    world.fault("no Redis at the start");
    world.sleep(1.0).await;
    let slot = &world.cluster.nodes[0];
    for (path, wanted) in [("/readyz", 503), ("/healthz", 200), ("/", 200)] {
        let found = slot.status(path).await;
        let what = format!("{path} answers {wanted} without Redis");
        let held = found == Some(wanted);
        world.recorder.check(&what, held, format!("{found:?}"));
    }
    let door = http_status(world.cluster.nginx.address, "/readyz").await;
    let held = door == Some(503);
    world
        .recorder
        .check("nginx passes the 503 on", held, format!("{door:?}"));
    world.cluster.run_redis(0).await;
    let start = Instant::now();
    for slot in &world.cluster.nodes {
        let ready = slot.until_ready(true, Duration::from_secs(10)).await;
        let what = format!("node {} is ready after Redis came", slot.label);
        let took = ready.map(|_| start.elapsed());
        world.within(&what, took, Duration::from_secs(1));
    }
    world.healed();
}
