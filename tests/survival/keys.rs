//! Publishes that are repeated with their key after the fault: answered with the first position and
//! not added again as long as the message survived, published anew once when it was lost.

use super::faults::Fault;
use super::stream::{At, Event, expect, history};
use super::world::{KEPT, ROOMS, TAIL, World, before, before_text, publish};
use crate::support::run;

#[test]
fn keys_survive_a_clean_restart() {
    run(keys_are_honoured(Fault::CleanRestart));
}

#[test]
fn keys_survive_a_restart_from_an_older_snapshot() {
    run(keys_are_honoured(Fault::OlderSnapshot));
}

#[test]
fn keys_survive_a_coordinated_failover() {
    run(keys_are_honoured(Fault::Failover));
}

#[test]
fn keys_survive_a_failover_to_a_lagging_replica() {
    run(keys_are_honoured(Fault::CrashFailover));
}

#[test]
fn keys_are_lost_with_their_messages_after_flushall() {
    run(keys_are_honoured(Fault::FlushAll));
}

async fn keys_are_honoured(fault: Fault) {
    let mut world = World::start(fault).await;
    let mut members = world.members().await;
    let old = world.publish_before(&mut members).await;
    world.inject();
    // The same user on either node.
    let mut publishers = [world.client(0, "pat").await, world.client(1, "pat").await];
    for (room, old) in ROOMS.into_iter().zip(&old) {
        let mut lost = Vec::new();
        let mut answers: Vec<At> = Vec::new();
        for offset in 1..=KEPT + TAIL {
            let text = before_text(room, offset);
            let [first, second] = &mut publishers;
            let answer = publish(first, room, &text, &text).await;
            let again = publish(second, room, &text, &text).await;
            assert_eq!(answer, again, "{text:?} is published once more at most");
            if offset <= fault.end() {
                let first_position = At::new(old, offset);
                assert_eq!(
                    answer, first_position,
                    "{text:?} survived: its first position"
                );
            } else {
                let next = fault.end() + lost.len() as u64 + 1;
                assert_eq!(
                    answer.offset, next,
                    "{text:?} was lost, and goes on: {answer}"
                );
                assert_ne!(answer.epoch, *old, "{text:?} was lost: {answer}");
                lost.push(Event::Message(next, text));
            }
            answers.push(answer);
        }
        let last = world.publish(room, "last").await;
        let end = fault.end() + lost.len() as u64;
        assert_eq!(last.offset, end + 1, "nothing else was added: {answers:?}");
        let last_message = vec![Event::Message(end + 1, "last".into())];
        let survived = before(room, 1..=fault.end());
        let all = [survived, lost.clone(), last_message.clone()].concat();
        let found = history(&mut members[1].client, room, Some(&last.epoch), 50).await;
        expect(&format!("history of {room}"), &found, &all);
        for member in &mut members {
            member.until_message(room, "last").await;
            let seen = before(room, 1..=KEPT + TAIL);
            let gap = vec![Event::gap(&last.epoch, fault.end())];
            let all = [seen, gap, lost.clone(), last_message.clone()].concat();
            member.expect(room, &all);
        }
    }
}
