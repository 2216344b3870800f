//! The reconciler against a naive store. If updates are refused, lost or applied late, the store
//! still ends up with the wanted state, and a node that dies at any moment leaves no member in a
//! room that its records do not name.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::model::id::{Incarnation, SessionId};

/// The number that stands for one connection of a user.
const CONNECTION: u8 = 3;

fn room(number: u8) -> RoomName {
    RoomName::new(&format!("r{number}")).unwrap()
}

/// The user without a name is number 0.
fn key(number: u8) -> MemberKey {
    match number {
        CONNECTION => MemberKey::Connection(Sender {
            incarnation: Incarnation(0x2a),
            session: SessionId(7),
        }),
        number => user(number).into(),
    }
}

fn user(number: u8) -> Option<UserName> {
    (number > 0).then(|| UserName::new(&format!("u{number}")).unwrap())
}

fn presence(in_room: u8, of: u8, connections: u32) -> SetPresence {
    SetPresence {
        room: room(in_room),
        user: user(of),
        connections,
        info: None,
    }
}

/// What happens to an update.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    Refused,
    LostButApplied,
    LostAndLate,
    LostAndNever,
}

#[derive(Clone, Debug)]
enum Step {
    SetPresence(u8, u8, u32),
    Batch(usize, Vec<Fate>),
    /// The clocks of the store and the node advance.
    Wait(u64),
    /// One of the late updates is applied.
    Late(usize),
    /// The store loses all data.
    Flush,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Done),
        1 => Just(Fate::Refused),
        1 => Just(Fate::LostButApplied),
        1 => Just(Fate::LostAndLate),
        1 => Just(Fate::LostAndNever),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3u8, 0..4u8, 0..3u32)
            .prop_map(|(room, user, count)| Step::SetPresence(room, user, count)),
        8 => (1..4usize, proptest::collection::vec(fate(), 4))
            .prop_map(|(max, fates)| Step::Batch(max, fates)),
        3 => (1..5u64).prop_map(Step::Wait),
        3 => any::<usize>().prop_map(Step::Late),
        1 => Just(Step::Flush),
    ]
}

const LEASE: u64 = 10;

struct World {
    reconciler: PresenceReconciler,
    start: Instant,
    /// In seconds, of the store and of the node.
    clock: u64,
    wanted: BTreeMap<(RoomName, MemberKey), u32>,
    store: BTreeMap<(RoomName, MemberKey), (u32, u32)>,
    records: HashMap<RoomName, u64>,
    /// The number of the lease: counts the losses.
    lease: u32,
    late: Vec<(u32, u64, PresenceUpdate)>,
}

impl World {
    fn new() -> Self {
        Self {
            reconciler: PresenceReconciler::default(),
            start: Instant::now(),
            clock: 1,
            wanted: BTreeMap::new(),
            store: BTreeMap::new(),
            records: HashMap::new(),
            lease: 1,
            late: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.clock)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::SetPresence(in_room, user, connections) => {
                self.wanted.insert((room(in_room), key(user)), connections);
                self.reconciler
                    .set(room(in_room), key(user), connections, None);
            }
            Step::Batch(max, fates) => self.batch(max, &fates),
            Step::Wait(seconds) => {
                self.clock += seconds;
                self.reconciler.set_clock(self.clock);
            }
            Step::Late(number) => {
                if !self.late.is_empty() {
                    let at = number % self.late.len();
                    let (lease, until, update) = self.late.swap_remove(at);
                    self.apply(lease, until, &update);
                }
            }
            Step::Flush => {
                self.store.clear();
                self.records.clear();
                self.lease += 1;
                self.reconciler.resend_all();
            }
        }
    }

    fn batch(&mut self, max: usize, fates: &[Fate]) {
        let updates = self.reconciler.take(max, 2, self.now());
        assert!(updates.len() <= max);
        let until = self.clock + LEASE;
        for (update, fate) in updates.into_iter().zip(fates.iter().cycle()) {
            match fate {
                Fate::Done | Fate::LostButApplied => self.apply(self.lease, until, &update),
                Fate::LostAndLate => self.late.push((self.lease, until, update.clone())),
                Fate::Refused | Fate::LostAndNever => {}
            }
            let result = match fate {
                Fate::Done => UpdateResult::Done,
                Fate::Refused => UpdateResult::Refused,
                _ => UpdateResult::Unanswered { until },
            };
            self.reconciler.finished(update, result);
        }
    }

    fn apply(&mut self, lease: u32, until: u64, update: &PresenceUpdate) {
        match update {
            PresenceUpdate::AddRoom { number, room } if lease == self.lease => {
                let record = self.records.entry(room.clone()).or_default();
                *record = (*record).max(*number);
            }
            PresenceUpdate::RemoveRoom { number } if lease == self.lease => {
                self.records.retain(|_, record| record != number);
            }
            PresenceUpdate::SetMembers { room, members } if self.clock <= until => {
                for it in members {
                    let key = (room.clone(), it.key.clone());
                    match it.connections {
                        0 => self.store.remove(&key),
                        count => self.store.insert(key, (count, lease)),
                    };
                }
            }
            _ => {}
        }
    }

    fn check(&self) {
        for ((room, key), (_, lease)) in &self.store {
            let named = self.records.contains_key(room) || *lease != self.lease;
            assert!(
                named,
                "{key:?} would stay in {room} if the node died: {:?}",
                self.records
            );
        }
    }

    fn run_out(&mut self) {
        for _ in 0..3 {
            self.step(Step::Wait(LEASE + 1));
            while !self.late.is_empty() {
                self.step(Step::Late(0));
            }
            for _ in 0..30 {
                self.clock += 1;
                self.batch(64, &[Fate::Done]);
                self.check();
            }
        }
    }
}

proptest! {
    #[test]
    fn store_ends_up_with_the_wanted_state(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        world.run_out();
        let wanted = world.wanted.iter().filter(|(_, count)| **count > 0);
        let lease = world.lease;
        let wanted = wanted.map(|(key, count)| (key.clone(), (*count, lease)));
        let wanted: BTreeMap<_, _> = wanted.collect();
        let store = world.store;
        let rooms = wanted.keys().map(|(room, _)| room.clone());
        let mut rooms: Vec<_> = rooms.collect();
        rooms.dedup();
        let mut kept: Vec<_> = world.reconciler.rooms.keys().cloned().collect();
        kept.sort();
        prop_assert_eq!(&kept, &rooms, "the reconciler keeps no other room");
        for (key, count) in &wanted {
            prop_assert_eq!(store.get(key).map(|it| it.0), Some(count.0), "{:?}", key);
        }
        prop_assert_eq!(store.len(), wanted.len(), "{:?}", store);
    }
}

fn texts(updates: &[PresenceUpdate]) -> Vec<String> {
    let text = |update: &PresenceUpdate| match update {
        PresenceUpdate::AddRoom { number, room } => format!("add {room} {number}"),
        PresenceUpdate::RemoveRoom { number } => format!("remove {number}"),
        PresenceUpdate::SetMembers { room, members } => {
            members.iter().fold(format!("set {room}"), |text, it| {
                let name = match &it.key {
                    MemberKey::Anonymous => "-".to_owned(),
                    MemberKey::User(user) => user.to_string(),
                    MemberKey::Connection(session) => format!("@{session}"),
                };
                format!("{text} {name}:{}", it.connections)
            })
        }
    };
    updates.iter().map(text).collect()
}

/// Takes all updates and applies them.
fn turn(reconciler: &mut PresenceReconciler, now: Instant) -> Vec<String> {
    let updates = reconciler.take(64, 512, now);
    let texts = texts(&updates);
    for update in updates {
        let result = match &update {
            PresenceUpdate::SetMembers { .. } => UpdateResult::Applied {
                before: 7,
                after: 7,
            },
            _ => UpdateResult::Done,
        };
        reconciler.finished(update, result);
    }
    texts
}

#[test]
fn room_record_is_added_before_the_first_member_and_removed_after_the_last() {
    let (mut reconciler, now) = (PresenceReconciler::default(), Instant::now());
    reconciler.set_presence(presence(0, 1, 1));
    reconciler.set_presence(presence(0, 2, 1));
    assert_eq!(turn(&mut reconciler, now), ["add r0 1"]);
    assert_eq!(turn(&mut reconciler, now), ["set r0 u1:1 u2:1"]);
    assert_eq!(turn(&mut reconciler, now), [""; 0], "nothing changes");
    reconciler.set_presence(presence(0, 1, 1));
    assert_eq!(
        turn(&mut reconciler, now),
        [""; 0],
        "setting the same state again sends nothing"
    );
    reconciler.set_presence(presence(0, 1, 0));
    reconciler.set_presence(presence(0, 2, 0));
    assert_eq!(turn(&mut reconciler, now), ["set r0 u1:0 u2:0"]);
    assert_eq!(turn(&mut reconciler, now), ["remove 1"]);
    assert_eq!(turn(&mut reconciler, now), [""; 0]);
}

#[test]
fn anonymous_count_is_sent_once_a_second_and_delays_no_user() {
    let (mut reconciler, start) = (PresenceReconciler::default(), Instant::now());
    let after = |millis| start + Duration::from_millis(millis);
    reconciler.set_presence(presence(0, 0, 1));
    turn(&mut reconciler, start);
    assert_eq!(turn(&mut reconciler, start), ["set r0 -:1"]);
    for count in 2..10 {
        reconciler.set_presence(presence(0, 0, count));
        assert_eq!(turn(&mut reconciler, after(500)), [""; 0]);
    }
    reconciler.set_presence(presence(0, 1, 1));
    assert_eq!(turn(&mut reconciler, after(900)), ["set r0 u1:1"]);
    assert_eq!(turn(&mut reconciler, after(1000)), ["set r0 -:9"]);
    assert_eq!(turn(&mut reconciler, after(5000)), [""; 0]);
}

#[test]
fn batch_is_bounded_by_updates_and_by_members() {
    let (mut reconciler, now) = (PresenceReconciler::default(), Instant::now());
    for user in 1..=200 {
        reconciler.set_presence(presence(0, user, 1));
    }
    turn(&mut reconciler, now);
    let sizes = |updates: &[PresenceUpdate]| -> Vec<usize> {
        let counts = updates.iter().map(|update| match update {
            PresenceUpdate::SetMembers { members, .. } => members.len(),
            _ => 0,
        });
        counts.collect()
    };
    assert_eq!(sizes(&reconciler.take(9, 100, now)), [64, 36]);
    assert_eq!(sizes(&reconciler.take(1, 100, now)), [64]);
    assert_eq!(sizes(&reconciler.take(9, 100, now)), [36]);
}

#[test]
fn rooms_that_come_and_go_during_an_outage_are_forgotten() {
    let mut reconciler = PresenceReconciler::default();
    for number in 0..10_000 {
        let mut it = presence(0, 1, 1);
        it.room = RoomName::new(&format!("r{number}")).unwrap();
        reconciler.set_presence(it.clone());
        it.connections = 0;
        reconciler.set_presence(it);
    }
    assert!(reconciler.rooms.is_empty());
    assert!(reconciler.queue.len() < 100, "{}", reconciler.queue.len());
    assert!(reconciler.take(9, 9, Instant::now()).is_empty());
}

#[test]
fn members_that_a_change_contradicts_are_sent_again() {
    let (mut reconciler, now) = (PresenceReconciler::default(), Instant::now());
    reconciler.set_presence(presence(0, 1, 2));
    reconciler.set_presence(presence(0, 2, 1));
    turn(&mut reconciler, now);
    turn(&mut reconciler, now);
    let change = |from, version, connections| Change {
        from,
        version,
        user: user(1).unwrap(),
        was: 3,
        connections,
        info: None,
    };
    // The members were set at version 7. A change to an earlier version is older than that; one
    // from an earlier version shows that the list was lost.
    for (from, version, connections, lost, sent) in [
        (0, 6, 1, false, None),
        (6, 7, 1, false, None),
        (7, 8, 2, false, None),
        (8, 9, 1, false, Some("set r0 u1:2")),
        (0, 8, 1, true, Some("set r0 u1:2 u2:1")),
        (6, 8, 2, true, Some("set r0 u1:2 u2:1")),
    ] {
        let was_lost = reconciler.on_change(&room(0), &change(from, version, connections));
        assert_eq!(was_lost, lost, "{from} {version}");
        assert_eq!(turn(&mut reconciler, now), Vec::from_iter(sent));
    }
    reconciler.set_presence(presence(0, 1, 5));
    let [update] = &reconciler.take(9, 9, now)[..] else {
        panic!("one")
    };
    let result = UpdateResult::Applied {
        before: 0,
        after: 9,
    };
    assert!(
        reconciler.finished(update.clone(), result),
        "the answer to its own update shows the loss too"
    );
    assert_eq!(turn(&mut reconciler, now), ["set r0 u1:5 u2:1"]);
    // Another node's query emptied the list at version 20, and this node wrote at 21 before it
    // received that change.
    reconciler.on_change(&room(0), &change(9, 10, 5));
    let (before, after) = (20, 21);
    reconciler.finished(update.clone(), UpdateResult::Applied { before, after });
    assert!(reconciler.on_change(&room(0), &change(0, 20, 5)));
    assert_eq!(turn(&mut reconciler, now), ["set r0 u1:5 u2:1"]);
}

#[test]
fn changed_info_is_sent() {
    let (mut reconciler, now) = (PresenceReconciler::default(), Instant::now());
    let mut it = presence(0, 1, 1);
    reconciler.set_presence(it.clone());
    turn(&mut reconciler, now);
    turn(&mut reconciler, now);
    it.info = Some(RawValue::from_string("{\"a\":1}".into()).unwrap().into());
    reconciler.set_presence(it.clone());
    assert_eq!(turn(&mut reconciler, now), ["set r0 u1:1"]);
    reconciler.set_presence(it);
    assert_eq!(turn(&mut reconciler, now), [""; 0]);
}
