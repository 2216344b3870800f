//! What happens to Redis: emptied, restarted, frozen, busy, failed over, out of memory, and away from the start.

use std::time::{Duration, Instant};

use ::redis::Value;
use futures::FutureExt;

use super::{Scenario, forgotten, unnoticed, whole};
use crate::bars::Bars;
use crate::cluster::{Plan, figure, http_status, info};
use crate::history::Loses;
use crate::proxy::{Flow, Way};
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
            title: "redis_comes_back_empty_and_everyone_is_told",
            act: |world| restart_empty(world).boxed_local(),
            ..lost_data
        },
        Scenario {
            name: "B2",
            title: "redis_comes_back_from_its_append_only_file_and_everyone_is_told",
            plan: Plan {
                redis: &["--appendonly yes"],
                ..Plan::PLAIN
            },
            act: |world| restart_from_disk(world).boxed_local(),
            ..lost_data
        },
        Scenario {
            name: "B2RDB",
            title: "redis_comes_back_from_old_data_and_everyone_is_told",
            act: |world| restart_from_old_data(world).boxed_local(),
            ..lost_data
        },
        Scenario {
            name: "B3",
            title: "killed_connections_to_redis_are_noticed_by_nobody",
            bars: |_| Bars {
                during_p99: Some(1_000),
                ..unnoticed()
            },
            act: |world| kill_connections(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B4",
            title: "a_redis_frozen_for_three_seconds_costs_only_time",
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
            title: "a_redis_frozen_for_fifteen_seconds_closes_no_socket",
            bars: |_| unnoticed(),
            act: |world| freeze_long(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B6",
            title: "a_busy_redis_costs_only_time",
            bars: |_| Bars {
                during_p99: Some(2_500),
                ..unnoticed()
            },
            act: |world| busy(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B7",
            title: "a_failover_to_a_replica_that_lags_is_told",
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
            title: "a_demoted_master_whose_sockets_live_is_left",
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
            title: "a_redis_without_memory_refuses_and_loses_nothing",
            bars: |_| unnoticed(),
            act: |world| out_of_memory(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B10",
            title: "a_subscription_cut_by_its_output_limit_is_refilled",
            plan: Plan {
                redis: &["--client-output-buffer-limit pubsub 65536 0 0"],
                ..Plan::PLAIN
            },
            // The four members of the room for great messages may be too slow for what comes at once.
            bars: |_| whole(),
            before: |world| bulk_members(world).boxed_local(),
            act: |world| overflow(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "B11",
            title: "deleted_keys_are_told_and_stop_no_room",
            act: |world| delete_keys(world).boxed_local(),
            ..lost_data
        },
        Scenario {
            name: "B12",
            title: "a_node_waits_for_a_redis_that_is_not_there_yet",
            plan: Plan {
                redis_absent: true,
                ..Plan::PLAIN
            },
            bars: |_| whole(),
            before: |world| late(world).boxed_local(),
            ..Scenario::PLAIN
        },
    ]
}

async fn restart_empty(world: &mut World) {
    world.losing_fault("Redis: SHUTDOWN NOSAVE", Loses::Everywhere);
    // It answers by hanging up.
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
    world.losing_fault(what, Loses::Everywhere);
    world.cluster.kill_redis(0);
    world.absent(true);
    world.sleep(1.0).await;
    world.absent(false);
    world.cluster.run_redis(0).await;
    world.healed();
}

async fn restart_from_old_data(world: &mut World) {
    world.cluster.ask::<String>(&["SAVE"]);
    world.sleep(1.5).await;
    let what = "Redis: kill -9, back with data of 1.5 s before";
    world.losing_fault(what, Loses::Everywhere);
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
        let what = format!("node {} says that it is not ready", slot.label);
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
        world.cluster.tell(&["DEBUG", "SLEEP", "1"]);
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
        let said = info(&world.cluster.redis[0], "replication");
        figure(&said, "master_repl_offset")
    };
    let before = written(world);
    if let Some(link) = &world.cluster.replication {
        link.set_both(Flow::Hold);
    }
    // With the load going on, that is far more than three publications.
    world.sleep(0.5).await;
    let lag = written(world) - before;
    let what = format!("the master is killed; its replica lags {lag} bytes and is promoted");
    world.losing_fault(what, Loses::Everywhere);
    world.cluster.kill_redis(0);
    world.cluster.redis[1].query::<String>(&["REPLICAOF", "NO", "ONE"]);
    world.healed();
}

async fn demote(world: &mut World) {
    let what = "the replica is promoted, and its master made a replica";
    world.losing_fault(what, Loses::Everywhere);
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

/// Members on each node in a room for great messages.
async fn bulk_members(world: &mut World) {
    for _ in 0..4 {
        world.start_client(&["bulk".to_owned()]);
    }
}

async fn overflow(world: &mut World) {
    world.fault("node b does not read from Redis until Redis cuts it off");
    let on_a = |number: &usize| world.clients[*number].glance().node.as_deref() == Some("a");
    let publishers: Vec<usize> = (0..8).filter(on_a).collect();
    let cuts = || {
        let stats = info(&world.cluster.redis[0], "stats");
        figure(&stats, "client_output_buffer_limit_disconnections")
    };
    world.cluster.nodes[1].hold_redis(Some(Way::ToClient), Flow::Hold);
    // The kernel's own buffers take some megabytes before Redis notices.
    let start = Instant::now();
    let mut round = 0;
    while cuts() == 0 && start.elapsed() < Duration::from_secs(30) {
        let publisher = publishers.get(round % publishers.len().max(1));
        world.publish_one(*publisher.unwrap_or(&0), "bulk", 40_000);
        round += 1;
        world.sleep(0.015).await;
    }
    let cuts = cuts();
    world.cluster.nodes[1].hold_redis(None, Flow::Pass);
    world.healed();
    let what = format!("Redis has cut the subscription off after {round} messages of 40 kB");
    world.recorder.check(&what, cuts > 0, cuts);
}

async fn delete_keys(world: &mut World) {
    world.losing_fault("FLUSHALL", Loses::Everywhere);
    world.cluster.ask::<String>(&["FLUSHALL"]);
    world.sleep(1.0).await;
    let room = world.rooms()[0].clone();
    let what = format!("the meta key of {room} is deleted");
    world.losing_fault(what, Loses::In(room.clone()));
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
