//! A token that was revoked before the fault is refused after it, on each node that lived through
//! it and on one that starts later.

use serde_json::Value;

use super::faults::Fault;
use super::world::{ROOMS, World};
use crate::support::{Backend, NodeProcess, run};

#[test]
fn revocations_survive_a_clean_restart() {
    run(revocations_survive(Fault::CleanRestart));
}

#[test]
fn revocations_survive_a_restart_from_an_older_snapshot() {
    run(revocations_survive(Fault::OlderSnapshot));
}

#[test]
fn revocations_survive_a_coordinated_failover() {
    run(revocations_survive(Fault::Failover));
}

#[test]
fn revocations_survive_a_failover_to_a_lagging_replica() {
    run(revocations_survive(Fault::CrashFailover));
}

#[test]
fn revocations_survive_flushall() {
    run(revocations_survive(Fault::FlushAll));
}

#[test]
fn revocations_survive_a_clean_restart_without_any_node() {
    run(revocations_survive_without_nodes(Fault::CleanRestart));
}

#[test]
fn revocations_survive_a_coordinated_failover_without_any_node() {
    run(revocations_survive_without_nodes(Fault::Failover));
}

/// The close code after which clients do not reconnect.
const REVOKED: u16 = 3500;

async fn revocations_survive(fault: Fault) {
    let mut world = World::start(fault).await;
    let mut members = world.members().await;
    world.publish_before(&mut members).await;
    // Some faults lose the revocations, like the tail of the log; the nodes still have them.
    let eve = revoke_eve(&world).await;
    world.inject();
    if fault != Fault::FlushAll {
        // It may start before the others have detected the fault.
        world.start_node("n3").await;
    }
    for node in world.nodes.iter().rev() {
        expect_refused(node, &eve, "at once").await;
    }
    world.until_detected(&mut members).await;
    // Both nodes detect the fault with this message at the latest.
    for room in ROOMS {
        world.publish(room, "after").await;
        for member in &mut members {
            member.until_message(room, "after").await;
        }
    }
    world.start_node("n4").await;
    for node in world.nodes.iter().rev() {
        expect_refused(node, &eve, "when the nodes have detected the fault").await;
        expect_accepted(node, &world.token("bob")).await;
    }
}

/// What Redis has kept holds although no node lived through the fault.
async fn revocations_survive_without_nodes(fault: Fault) {
    let mut world = World::start(fault).await;
    world.publish_before(&mut []).await;
    let eve = revoke_eve(&world).await;
    world.stop_nodes().await;
    world.inject();
    let token = world.token("bob");
    let node = world.start_node("n3").await;
    expect_refused(node, &eve, "on a node that knows it from Redis alone").await;
    expect_accepted(node, &token).await;
}

/// Revokes Eve's token, and waits until the node that serves it has closed her connection.
async fn revoke_eve(world: &World) -> String {
    let mut hers = world.client(1, "eve").await;
    let mut backend = Backend::connect(world.nodes[0].address).await;
    let path = "/users/eve/connections?forbid_return=true";
    backend.ok("DELETE", path, Value::Null).await;
    let closed = hers.closed().await.map(|(code, _)| code);
    assert_eq!(closed, Some(REVOKED), "the connection that she had");
    world.token("eve")
}

async fn expect_accepted(node: &NodeProcess, token: &str) {
    let answer = node.client().await.sign_in(token).await;
    assert_eq!(answer["type"], "ok", "no other user is refused: {answer}");
}

async fn expect_refused(node: &NodeProcess, token: &str, when: &str) {
    let mut client = node.client().await;
    let answer = client.sign_in(token).await;
    let node = &client.welcome["node"];
    assert_eq!(
        answer["code"], "unauthorized",
        "on {node}, {when}: {answer}"
    );
    let closed = client.closed().await.map(|(code, _)| code);
    assert_eq!(closed, Some(REVOKED), "{when}");
}
