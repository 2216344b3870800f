//! Several faults one after the other: positions of each ended epoch stay valid, a client that
//! returns gets all that is left once and one gap, and the last eight ended epochs are remembered.

use super::faults::{Fault, Redis};
use super::stream::{At, Event, Member};
use super::world::World;
use crate::support::redis_server::{Options, RedisServer};
use crate::support::run;

const ROOM: &str = "lobby";

/// Messages in each epoch.
const EACH: u64 = 3;

fn text(offset: u64) -> String {
    format!("message {offset}")
}

fn messages(offsets: std::ops::RangeInclusive<u64>) -> Vec<Event> {
    offsets
        .map(|offset| Event::Message(offset, text(offset)))
        .collect()
}

/// Publishes the next messages, which must be of one epoch; the epoch.
async fn publish(world: &mut World, offsets: std::ops::RangeInclusive<u64>) -> String {
    let first = *offsets.start();
    let mut epoch = String::new();
    for offset in offsets {
        let at = world.publish(ROOM, &text(offset)).await;
        if offset == first {
            epoch.clone_from(&at.epoch);
        }
        assert_eq!(at, At::new(&epoch, offset), "offsets go on");
    }
    epoch
}

/// A client that returns with this position, which must be recovered.
async fn recovered(world: &World, node: usize, since: At) -> Member {
    let mut member = world.ada(node).await;
    member.name = format!("returned on n{} with {since}", node + 1);
    let answer = member.return_to(ROOM, &since).await;
    assert_eq!(
        answer,
        (true, since),
        "{}: (recovered, position)",
        member.name
    );
    member
}

#[test]
fn epochs_of_three_clean_restarts_are_recovered_with_one_gap() {
    run(async {
        let mut world = World::start(Fault::CleanRestart).await;
        let mut members = world.members().await;
        let mut epochs = vec![publish(&mut world, 1..=EACH).await];
        let mut seen = messages(1..=EACH);
        for round in 1..=3 {
            let end = round * EACH;
            for member in &mut members {
                member.until_message(ROOM, &text(end)).await;
            }
            world.inject();
            let epoch = publish(&mut world, end + 1..=end + EACH).await;
            assert!(
                !epochs.contains(&epoch),
                "a restart ends the epoch: {epochs:?}"
            );
            seen.push(Event::gap(&epoch, end));
            seen.extend(messages(end + 1..=end + EACH));
            epochs.push(epoch);
        }
        let top = 4 * EACH;
        // A node that has not detected the last restart sends a gap of its own for it.
        for member in &mut members {
            member.until_message(ROOM, &text(top)).await;
        }
        let mut returned = Vec::new();
        for node in 0..world.nodes.len() {
            for (index, epoch) in epochs[..3].iter().enumerate() {
                // One message of its epoch was seen, or all of them.
                for offset in [index as u64 * EACH + 1, (index as u64 + 1) * EACH] {
                    let member = recovered(&world, node, At::new(epoch, offset)).await;
                    returned.push((member, offset, (index as u64 + 1) * EACH));
                }
            }
        }
        world.publish(ROOM, "last").await;
        let last = vec![Event::Message(top + 1, "last".into())];
        // The gap comes at the end of the epoch that the client names, and leads into the present
        // one: a client that breaks off behind it and returns again gets no message twice.
        for (mut member, offset, end) in returned {
            member.until_message(ROOM, "last").await;
            let gap = vec![Event::gap(&epochs[3], end)];
            let left = [messages(offset + 1..=end), gap, messages(end + 1..=top)];
            member.expect(ROOM, &[left.concat(), last.clone()].concat());
            member.expect_nothing_more(&[ROOM]).await;
        }
        for member in &mut members {
            member.until_message(ROOM, "last").await;
            member.expect(ROOM, &[seen.clone(), last.clone()].concat());
            member.expect_nothing_more(&[ROOM]).await;
        }
    });
}

#[test]
fn epochs_are_remembered_until_eight_more_have_ended() {
    run(async {
        let options = Options::default().arg("--enable-debug-command yes");
        let redis = Redis::Single(RedisServer::with(options));
        let mut world = World::on(redis, Fault::CleanRestart).await;
        let mut members = world.members().await;
        let mut epochs = vec![publish(&mut world, 1..=1).await];
        let mut seen = messages(1..=1);
        for end in 1..=9 {
            // No connection is lost: the nodes detect it by the next message.
            let changed: String = world.redis.master().query(&["DEBUG", "CHANGE-REPL-ID"]);
            assert_eq!(changed, "OK");
            epochs.push(publish(&mut world, end + 1..=end + 1).await);
            seen.push(Event::gap(&epochs[end as usize], end));
            seen.extend(messages(end + 1..=end + 1));
            for member in &mut members {
                member.until_message(ROOM, &text(end + 1)).await;
                member.expect(ROOM, &seen);
            }
        }
        let mut forgotten = world.ada(1).await;
        let answer = forgotten.return_to(ROOM, &At::new(&epochs[0], 1)).await;
        let top = (false, At::new(&epochs[9], 10));
        assert_eq!(answer, top, "of nine ended epochs the first is forgotten");
        let mut oldest = recovered(&world, 1, At::new(&epochs[1], 2)).await;
        oldest.until_message(ROOM, &text(10)).await;
        oldest.expect(
            ROOM,
            &[vec![Event::gap(&epochs[9], 2)], messages(3..=10)].concat(),
        );
        for member in members.iter_mut().chain([&mut forgotten, &mut oldest]) {
            member.expect_nothing_more(&[ROOM]).await;
        }
    });
}
