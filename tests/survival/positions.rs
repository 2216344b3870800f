//! Positions that clients name, however absurd, end no epoch: afterwards the epoch is the same for
//! all clients, none receives a gap, and offsets go on.

use super::faults::Fault;
use super::recovery::UNKNOWN;
use super::stream::{At, Event, Member};
use super::world::{AFTER, KEPT, TAIL, World, after, before};
use crate::support::run;

/// The greatest offset that there can be.
const GREATEST: u64 = (1 << 53) - 1;

/// A room with members on both nodes.
const FOLLOWED: &str = "lobby";

/// A room without members, so that a node has to read it from Redis. Each position has one.
fn quiet(case: usize) -> String {
    format!("quiet-{case}")
}

#[test]
fn positions_that_clients_name_end_no_epoch() {
    run(async {
        let mut world = World::start(Fault::CleanRestart).await;
        let mut members = world.members().await;
        let [old, _] = world.publish_before(&mut members).await;
        let top = KEPT + TAIL;
        let cases = [
            (At::new(&old, GREATEST), top),
            (At::new(&old, top + 1), top),
            (At::new(UNKNOWN, GREATEST), top),
            (At::new(UNKNOWN, 0), top),
        ];
        let mut returned = return_all(&world, FOLLOWED, &old, &cases).await;
        for (case, at) in cases.iter().enumerate() {
            let room = quiet(case);
            let mut epoch = String::new();
            for offset in 1..=top {
                epoch = world.publish(&room, &format!("{offset}")).await.epoch;
            }
            let mut at = at.clone();
            if at.0.epoch == old {
                at.0.epoch.clone_from(&epoch);
            }
            returned.extend(return_all(&world, &room, &epoch, &[at]).await);
            expect_epoch(&world, &room, &At::new(&epoch, top)).await;
            let next = world.publish(&room, "last").await;
            assert_eq!(next, At::new(&epoch, top + 1), "{room} goes on");
        }
        expect_epoch(&world, FOLLOWED, &At::new(&old, top)).await;
        let next = world.publish(FOLLOWED, "last").await;
        assert_eq!(next, At::new(&old, top + 1), "{FOLLOWED} goes on");
        let last = vec![Event::Message(top + 1, "last".into())];
        for (mut member, room) in returned {
            member.until_message(&room, "last").await;
            member.expect(&room, &last);
            member.expect_nothing_more(&[&room]).await;
        }
        for member in &mut members {
            member.until_message(FOLLOWED, "last").await;
            member.expect(
                FOLLOWED,
                &[before(FOLLOWED, 1..=top), last.clone()].concat(),
            );
        }
    });
}

#[test]
fn positions_that_clients_name_after_a_clean_restart_end_no_epoch() {
    run(positions_end_no_epoch(Fault::CleanRestart));
}

#[test]
fn positions_that_clients_name_after_a_lost_tail_end_no_epoch() {
    run(positions_end_no_epoch(Fault::OlderSnapshot));
}

async fn positions_end_no_epoch(fault: Fault) {
    let mut world = World::start(fault).await;
    let mut members = world.members().await;
    let olds = world.publish_before(&mut members).await;
    world.inject();
    world.until_detected(&mut members).await;
    let [new, _] = world.publish_after(&olds).await;
    let [old, _] = olds;
    let (end, top) = (fault.end(), fault.end() + AFTER);
    let cases = [
        (At::new(&old, GREATEST), end),
        (At::new(&new, GREATEST), top),
        (At::new(&new, top + 1), top),
        (At::new(UNKNOWN, GREATEST), top),
    ];
    let returned = return_all(&world, FOLLOWED, &new, &cases).await;
    expect_epoch(&world, FOLLOWED, &At::new(&new, top)).await;
    let next = world.publish(FOLLOWED, "last").await;
    assert_eq!(next, At::new(&new, top + 1), "{FOLLOWED} goes on");
    let last = vec![Event::Message(top + 1, "last".into())];
    for (mut member, room) in returned {
        member.until_message(&room, "last").await;
        let missed = if member.name.contains(&old) {
            after(&room, end)
        } else {
            vec![]
        };
        member.expect(&room, &[missed, last.clone()].concat());
        member.expect_nothing_more(&[&room]).await;
    }
    for member in &mut members {
        member.until_message(FOLLOWED, "last").await;
        let gap = vec![Event::gap(&new, end)];
        let seen = [before(FOLLOWED, 1..=KEPT + TAIL), gap, after(FOLLOWED, end)];
        member.expect(FOLLOWED, &[seen.concat(), last.clone()].concat());
    }
}

/// On both nodes a client that names each of these positions. None is recovered, and each is set to
/// its offset in the present epoch.
async fn return_all(
    world: &World,
    room: &str,
    epoch: &str,
    cases: &[(At, u64)],
) -> Vec<(Member, String)> {
    let mut returned = Vec::new();
    for (since, offset) in cases {
        for node in 0..world.nodes.len() {
            let mut member = world.ada(node).await;
            member.name = format!("returned to {room} on n{} with {since}", node + 1);
            let answer = member.return_to(room, since).await;
            let expected = (false, At::new(epoch, *offset));
            assert_eq!(answer, expected, "{}: (recovered, position)", member.name);
            returned.push((member, room.to_owned()));
        }
    }
    returned
}

/// A client that joins the room, on either node, is set to this position.
async fn expect_epoch(world: &World, room: &str, top: &At) {
    for node in 0..world.nodes.len() {
        let mut newcomer = world.ada(node).await;
        let joined = newcomer.client.join(room).await;
        assert_eq!(At::of(&joined), *top, "{room} on n{}: {joined}", node + 1);
    }
}
