//! Faults of nodes: killed, stopped in turn, frozen, and next to nodes of another version.

use std::time::Duration;

use futures::FutureExt;
use rustix::process::Signal;

use super::{Scenario, unnoticed, whole};
use crate::bars::Bars;
use crate::client::{ControlCommand, Handle};
use crate::presence;
use crate::world::World;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "A1",
            title: "clients_of_a_killed_node_return_soon_and_miss_nothing",
            bars: |_| Bars {
                back_p99: Some(3_000),
                ..whole()
            },
            act: |world| kill_one(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "A2",
            title: "rolling_restart_loses_nothing",
            bars: |_| Bars {
                back_all: Some(20_000),
                ..whole()
            },
            act: |world| restart_in_turn(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "A3",
            title: "frozen_node_continues_without_a_loss",
            bars: |_| whole(),
            act: |world| freeze(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "A4",
            title: "kill_of_all_nodes_loses_nothing",
            bars: |_| Bars {
                back_all: Some(20_000),
                ..whole()
            },
            act: |world| kill_all(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "A6",
            title: "messages_of_another_version_affect_no_client",
            bars: |_| unnoticed(),
            act: |world| another_version(world).boxed_local(),
            ..Scenario::PLAIN
        },
        Scenario {
            name: "A8",
            title: "members_lost_in_a_kill_leave_every_list",
            bars: |_| whole(),
            act: |world| kill_with_clients(world).boxed_local(),
            ..Scenario::PLAIN
        },
    ]
}

async fn kill_one(world: &mut World) {
    let victim = world.random.usize(..2);
    let label = world.cluster.nodes[victim].label;
    let clients = world.clients_on(label);
    world.fault(format!("kill -9 of node {label} with {clients} clients"));
    world.cluster.nodes[victim].kill();
    world.sleep(3.0).await;
    world.cluster.start_node(victim).await;
    world.healed();
}

/// Every other client of the node ends with it.
async fn kill_with_clients(world: &mut World) {
    let victim = world.random.usize(..2);
    let label = world.cluster.nodes[victim].label;
    let theirs = |client: &&Handle| client.glance().node.as_deref() == Some(label);
    let gone: Vec<&Handle> = world.clients.iter().filter(theirs).step_by(2).collect();
    world.fault(format!(
        "kill -9 of node {label} and of {} clients",
        gone.len()
    ));
    world.cluster.nodes[victim].kill();
    gone.iter()
        .for_each(|client| client.order(ControlCommand::Away));
    let took = presence::until_listed(&world.clients, Duration::from_secs(30)).await;
    world.within("they are listed nowhere", took, Duration::from_secs(15));
    gone.iter()
        .for_each(|client| client.order(ControlCommand::Return));
    world.cluster.start_node(victim).await;
    world.healed();
}

async fn restart_in_turn(world: &mut World) {
    for index in 0..2 {
        let label = world.cluster.nodes[index].label;
        let clients = world.clients_on(label);
        world.fault(format!("SIGTERM of node {label} with {clients} clients"));
        let (status, took) = world.cluster.nodes[index].terminate().await;
        let what = format!("node {label} ends with exit code 0");
        world.recorder.check(&what, status.success(), status);
        let what = format!("node {label} ends");
        world.within(&what, Some(took), Duration::from_secs(30));
        world.cluster.start_node(index).await;
        let slot = &world.cluster.nodes[index];
        let ready = slot.until_ready(true, Duration::from_secs(10)).await;
        let what = format!("node {label} is ready again");
        world.within(&what, ready, Duration::from_secs(5));
        world.sleep(1.0).await;
    }
    world.healed();
}

async fn freeze(world: &mut World) {
    let victim = world.random.usize(..2);
    let label = world.cluster.nodes[victim].label;
    world.fault(format!("SIGSTOP of node {label} for 15 s"));
    world.cluster.nodes[victim].signal(Signal::STOP);
    world.sleep(15.0).await;
    world.cluster.nodes[victim].signal(Signal::CONT);
    world.healed();
}

async fn kill_all(world: &mut World) {
    world.fault("kill -9 of both nodes");
    for slot in &mut world.cluster.nodes {
        slot.kill();
    }
    world.sleep(1.0).await;
    for index in 0..2 {
        world.cluster.start_node(index).await;
    }
    world.healed();
}

/// There is one version of the wire format between nodes; these messages imitate the next one.
async fn another_version(world: &mut World) {
    world.fault("messages of an unknown version, in every room");
    for _ in 0..20 {
        for room in world.rooms() {
            let topic = format!("switchboard:{{{room}}}");
            for payload in ["2 0123456789abcdef 7 {\"new\":true}", "", "1 nonsense"] {
                world.cluster.ask::<i64>(&["PUBLISH", &topic, payload]);
            }
        }
        world.sleep(0.05).await;
    }
    world.healed();
}
