//! The history of a room after the fault: what survived, and what was published since.

use serde_json::{Value, json};

use super::faults::Fault;
use super::stream::{expect, history, until_read};
use super::world::{ROOMS, World, after, before};
use crate::support::{Backend, run};

/// A page that ends within an epoch, so that another one begins in a former epoch.
const SMALL_PAGE: u64 = 2;

#[test]
fn history_survives_a_clean_restart() {
    run(history_is_what_survived(Fault::CleanRestart));
}

#[test]
fn history_survives_a_restart_from_an_older_snapshot() {
    run(history_is_what_survived(Fault::OlderSnapshot));
}

#[test]
fn history_survives_a_coordinated_failover() {
    run(history_is_what_survived(Fault::Failover));
}

#[test]
fn history_survives_a_failover_to_a_lagging_replica() {
    run(history_is_what_survived(Fault::CrashFailover));
}

#[test]
fn history_begins_anew_after_flushall() {
    run(history_is_what_survived(Fault::FlushAll));
}

async fn history_is_what_survived(fault: Fault) {
    let mut world = World::start(fault).await;
    // The lobby has no members, so no node follows it.
    let mut readers = [world.ada(0).await, world.ada(1).await];
    let old = world.publish_before(&mut []).await;
    world.inject();
    for (index, reader) in readers.iter_mut().enumerate() {
        for room in ROOMS {
            let found = history(&mut reader.client, room, None, 50).await;
            let who = format!("history of {room} on n{}, before any publish", index + 1);
            expect(&who, &found, &before(room, 1..=fault.end()));
        }
    }
    let new = world.publish_after(&old).await;
    for (index, reader) in readers.iter_mut().enumerate() {
        for (room, epoch) in ROOMS.into_iter().zip(&new) {
            let all = [before(room, 1..=fault.end()), after(room, fault.end())].concat();
            // A node that follows the room answers from its recent messages, and receives the
            // newest one a moment after its publisher has been answered.
            until_read(&mut reader.client, room, all.last()).await;
            for page in [50, SMALL_PAGE] {
                let found = history(&mut reader.client, room, Some(epoch), page).await;
                let who = format!("history of {room} on n{}, in pages of {page}", index + 1);
                expect(&who, &found, &all);
            }
            let mut backend = Backend::connect(world.nodes[index].address).await;
            let path = format!("/rooms/{room}/messages");
            let answer = backend.ok("GET", &path, Value::Null).await;
            assert_eq!(answer["epoch"], json!(epoch), "{answer}");
            let listed = answer["messages"].as_array().map_or(0, Vec::len);
            assert_eq!(listed, all.len(), "the API lists as many: {answer}");
        }
    }
}
