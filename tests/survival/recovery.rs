//! Clients that were away during the fault and return with a position from before it.

use super::faults::Fault;
use super::stream::{At, Event, Member};
use super::world::{AFTER, Epochs, KEPT, ROOMS, TAIL, World, after, before};
use crate::support::run;

/// An epoch that no room ever had.
pub const UNKNOWN: &str = "0123456789abcdef";

/// Where the client was when it went away.
const SEEN: u64 = 2;

#[test]
fn recovery_goes_on_across_a_clean_restart() {
    run(recovery_goes_on(Fault::CleanRestart));
}

#[test]
fn recovery_goes_on_across_a_restart_from_an_older_snapshot() {
    run(recovery_goes_on(Fault::OlderSnapshot));
}

#[test]
fn recovery_goes_on_across_a_coordinated_failover() {
    run(recovery_goes_on(Fault::Failover));
}

#[test]
fn recovery_goes_on_across_a_failover_to_a_lagging_replica() {
    run(recovery_goes_on(Fault::CrashFailover));
}

#[test]
fn recovery_is_refused_after_flushall() {
    run(recovery_goes_on(Fault::FlushAll));
}

/// A client that returns: what the reply must contain, and what must follow.
struct Return {
    member: Member,
    room: &'static str,
    then: Vec<Event>,
}

/// Positions of returning clients, and the state of the room then.
struct Room<'a> {
    name: &'static str,
    old: &'a str,
    new: &'a str,
    end: u64,
    top: u64,
}

/// What a position is, and the position; whether it is recovered and where the client is put; and
/// what follows.
type Case = (&'static str, At, (bool, At), Vec<Event>);

impl Room<'_> {
    fn cases(&self, fault: Fault) -> Vec<Case> {
        let Room { name, old, new, .. } = *self;
        let (end, top) = (self.end, self.top);
        let followed = |first: u64| -> Vec<Event> {
            let all = after(name, end).into_iter();
            let is_new = |event: &Event| matches!(event, Event::Message(at, _) if *at >= first);
            all.filter(is_new).collect()
        };
        let gap = vec![Event::gap(new, end)];
        let at_top = (false, At::new(new, top));
        let unknown = "in an unknown epoch";
        let new_ones = followed(top + 1);
        let unknown = (unknown, At::new(UNKNOWN, SEEN), at_top.clone(), new_ones);
        if fault == Fault::FlushAll {
            // Redis has lost the record of this epoch.
            let since = At::new(old, SEEN);
            let flushed = ("in the old epoch", since, at_top, followed(top + 1));
            return vec![flushed, unknown];
        }
        let mut cases = Vec::new();
        let since = At::new(old, SEEN);
        let left = before(name, SEEN + 1..=end);
        let then = [left, gap.clone(), followed(end + 1)].concat();
        cases.push(("before the end", since.clone(), (true, since), then));
        let since = At::new(old, end);
        let then = [gap, followed(end + 1)].concat();
        cases.push(("at the end", since.clone(), (true, since), then));
        if fault.loses_tail() {
            let ahead = At::new(old, KEPT + TAIL);
            let put_back = (false, At::new(new, end));
            cases.push(("ahead of the end", ahead, put_back, followed(end + 1)));
        }
        cases.push(unknown);
        cases
    }
}

async fn recovery_goes_on(fault: Fault) {
    let mut world = World::start(fault).await;
    let mut members = world.members().await;
    let old = world.publish_before(&mut members).await;
    world.inject();
    world.until_detected(&mut members).await;
    let mut returned = Vec::new();
    if fault != Fault::FlushAll {
        // Some return before anything is published in the new epoch, some after it.
        let new = epochs_of(&mut members).await;
        returned.extend(return_all(&world, &old, &new, fault.end()).await);
    }
    let new = world.publish_after(&old).await;
    let top = fault.end() + AFTER;
    returned.extend(return_all(&world, &old, &new, top).await);
    for room in ROOMS {
        let at = world.publish(room, "last").await;
        assert_eq!(at.offset, top + 1, "{room}: {at}");
    }
    for Return {
        mut member,
        room,
        then,
    } in returned
    {
        member.until_message(room, "last").await;
        let last = vec![Event::Message(top + 1, "last".into())];
        member.expect(room, &[then, last].concat());
        member.expect_nothing_more(&[room]).await;
    }
}

/// The members' present position.
async fn epochs_of(members: &mut [Member; 2]) -> Epochs {
    let mut epochs = Epochs::default();
    for (room, epoch) in ROOMS.into_iter().zip(&mut epochs) {
        let [first, second] = members;
        *epoch = first.epoch(room);
        assert_eq!(*epoch, second.epoch(room), "{room}: one epoch for everyone");
    }
    epochs
}

/// On both nodes a client for each position in each room.
async fn return_all(world: &World, old: &Epochs, new: &Epochs, top: u64) -> Vec<Return> {
    let mut returned = Vec::new();
    for ((name, old), new) in ROOMS.into_iter().zip(old).zip(new) {
        let end = world.fault.end();
        let room = Room {
            name,
            old,
            new,
            end,
            top,
        };
        for node in 0..world.nodes.len() {
            for (stood, since, expected, then) in room.cases(world.fault) {
                let what = format!("returned to {name} on n{} with {since}, {stood}", node + 1);
                let mut member = world.ada(node).await;
                let answer = member.return_to(name, &since).await;
                assert_eq!(answer, expected, "{what}: (recovered, position)");
                member.name = what;
                let room = name;
                returned.push(Return { member, room, then });
            }
        }
    }
    returned
}
