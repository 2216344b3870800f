//! Members that stay connected through the fault: one gap for each room, at the end of what
//! survived, and no message a second time.

use super::faults::Fault;
use super::stream::Event;
use super::world::{AFTER, KEPT, ROOMS, TAIL, World, after, after_text, before};
use crate::support::run;

#[test]
fn members_get_one_gap_after_a_clean_restart() {
    run(members_get_one_gap(Fault::CleanRestart));
}

#[test]
fn members_get_one_gap_after_a_restart_from_an_older_snapshot() {
    run(members_get_one_gap(Fault::OlderSnapshot));
}

#[test]
fn members_get_one_gap_after_a_coordinated_failover() {
    run(members_get_one_gap(Fault::Failover));
}

#[test]
fn members_get_one_gap_after_a_failover_to_a_lagging_replica() {
    run(members_get_one_gap(Fault::CrashFailover));
}

#[test]
fn members_get_one_gap_after_flushall() {
    run(members_get_one_gap(Fault::FlushAll));
}

async fn members_get_one_gap(fault: Fault) {
    let mut world = World::start(fault).await;
    let mut members = world.members().await;
    let old = world.publish_before(&mut members).await;
    world.inject();
    // No client publishes: the nodes compare their rooms by themselves.
    world.until_detected(&mut members).await;
    for member in members.iter().filter(|_| fault != Fault::FlushAll) {
        for room in ROOMS {
            let gap = vec![Event::gap(&member.epoch(room), fault.end())];
            let all = [before(room, 1..=KEPT + TAIL), gap];
            member.expect(room, &all.concat());
        }
    }
    let new = world.publish_after(&old).await;
    for member in &mut members {
        for (room, new) in ROOMS.into_iter().zip(&new) {
            member.until_message(room, &after_text(room, AFTER)).await;
            let gap = vec![Event::gap(new, fault.end())];
            let all = [before(room, 1..=KEPT + TAIL), gap, after(room, fault.end())];
            member.expect(room, &all.concat());
        }
        member.expect_nothing_more(&ROOMS).await;
    }
}
