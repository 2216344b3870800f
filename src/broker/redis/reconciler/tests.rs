//! The ledger against a naive store: whatever is refused, lost or done late, the store ends up with
//! what is wanted, and a node that dies at any moment leaves no member in a room that its records
//! do not name.

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
fn who(number: u8) -> Who {
    match number {
        CONNECTION => Who::Connection(Sender {
            incarnation: Incarnation(0x2a),
            session: SessionId(7),
        }),
        number => user(number).into(),
    }
}

fn user(number: u8) -> Option<UserName> {
    (number > 0).then(|| UserName::new(&format!("u{number}")).unwrap())
}

fn here(in_room: u8, of: u8, connections: u32) -> SetPresence {
    SetPresence {
        room: room(in_room),
        user: user(of),
        connections,
        info: None,
    }
}

/// How an ask goes.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    Refused,
    LostButDone,
    LostAndLate,
    LostAndNever,
}

#[derive(Clone, Debug)]
enum Step {
    SetPresence(u8, u8, u32),
    Batch(usize, Vec<Fate>),
    /// Time goes on, for the store and for the node.
    Wait(u64),
    /// One of the late asks is done.
    Late(usize),
    /// The store has lost everything.
    Flush,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Done),
        1 => Just(Fate::Refused),
        1 => Just(Fate::LostButDone),
        1 => Just(Fate::LostAndLate),
        1 => Just(Fate::LostAndNever),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3u8, 0..4u8, 0..3u32).prop_map(|(room, user, count)| Step::SetPresence(room, user, count)),
        8 => (1..4usize, proptest::collection::vec(fate(), 4)).prop_map(|(max, fates)| Step::Batch(max, fates)),
        3 => (1..5u64).prop_map(Step::Wait),
        3 => any::<usize>().prop_map(Step::Late),
        1 => Just(Step::Flush),
    ]
}

const LEASE: u64 = 10;

struct World {
    ledger: PresenceReconciler,
    start: Instant,
    /// In seconds, of the store and of the node.
    clock: u64,
    wanted: BTreeMap<(RoomName, Who), u32>,
    store: BTreeMap<(RoomName, Who), (u32, u32)>,
    records: HashMap<RoomName, u64>,
    /// Which lease: counts the losses.
    lease: u32,
    late: Vec<(u32, u64, Ask)>,
}

impl World {
    fn new() -> Self {
        Self {
            ledger: PresenceReconciler::default(),
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
                self.wanted.insert((room(in_room), who(user)), connections);
                self.ledger
                    .want(room(in_room), who(user), connections, None);
            }
            Step::Batch(max, fates) => self.batch(max, &fates),
            Step::Wait(seconds) => {
                self.clock += seconds;
                self.ledger.settle(self.clock);
            }
            Step::Late(number) => {
                if !self.late.is_empty() {
                    let at = number % self.late.len();
                    let (lease, until, ask) = self.late.swap_remove(at);
                    self.done(lease, until, &ask);
                }
            }
            Step::Flush => {
                self.store.clear();
                self.records.clear();
                self.lease += 1;
                self.ledger.anew();
            }
        }
    }

    fn batch(&mut self, max: usize, fates: &[Fate]) {
        let asks = self.ledger.take(max, 2, self.now());
        assert!(asks.len() <= max);
        let until = self.clock + LEASE;
        for (ask, fate) in asks.into_iter().zip(fates.iter().cycle()) {
            match fate {
                Fate::Done | Fate::LostButDone => self.done(self.lease, until, &ask),
                Fate::LostAndLate => self.late.push((self.lease, until, ask.clone())),
                Fate::Refused | Fate::LostAndNever => {}
            }
            let end = match fate {
                Fate::Done => End::Done,
                Fate::Refused => End::Refused,
                _ => End::Lost { until },
            };
            self.ledger.ended(ask, end);
        }
    }

    fn done(&mut self, lease: u32, until: u64, ask: &Ask) {
        match ask {
            Ask::Enter { number, room } if lease == self.lease => {
                let record = self.records.entry(room.clone()).or_default();
                *record = (*record).max(*number);
            }
            Ask::Quit { number } if lease == self.lease => {
                self.records.retain(|_, record| record != number);
            }
            Ask::Say { room, said } if self.clock <= until => {
                for it in said {
                    let key = (room.clone(), it.who.clone());
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
        for ((room, who), (_, lease)) in &self.store {
            let named = self.records.contains_key(room) || *lease != self.lease;
            assert!(
                named,
                "{who:?} would stay in {room} if the node died: {:?}",
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
    fn the_store_ends_up_with_what_is_wanted(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        world.run_out();
        let wanted = world.wanted.iter().filter(|(_, count)| **count > 0);
        let wanted: BTreeMap<_, _> = wanted.map(|(key, count)| (key.clone(), (*count, world.lease))).collect();
        let store = world.store;
        let rooms = wanted.keys().map(|(room, _)| room.clone());
        let mut rooms: Vec<_> = rooms.collect();
        rooms.dedup();
        let mut kept: Vec<_> = world.ledger.rooms.keys().cloned().collect();
        kept.sort();
        prop_assert_eq!(&kept, &rooms, "nothing of the others is remembered");
        for (key, count) in &wanted {
            prop_assert_eq!(store.get(key).map(|it| it.0), Some(count.0), "{:?}", key);
        }
        prop_assert_eq!(store.len(), wanted.len(), "{:?}", store);
    }
}

fn asked(asks: &[Ask]) -> Vec<String> {
    let words = |ask: &Ask| match ask {
        Ask::Enter { number, room } => format!("enter {room} {number}"),
        Ask::Quit { number } => format!("quit {number}"),
        Ask::Say { room, said } => said.iter().fold(format!("say {room}"), |text, it| {
            let name = match &it.who {
                Who::Anonymous => "-".to_owned(),
                Who::User(user) => user.to_string(),
                Who::Connection(session) => format!("@{session}"),
            };
            format!("{text} {name}:{}", it.connections)
        }),
    };
    asks.iter().map(words).collect()
}

/// Takes what there is, and it is done.
fn turn(ledger: &mut PresenceReconciler, now: Instant) -> Vec<String> {
    let asks = ledger.take(64, 512, now);
    let words = asked(&asks);
    for ask in asks {
        let end = match &ask {
            Ask::Say { .. } => End::Said {
                before: 7,
                after: 7,
            },
            _ => End::Done,
        };
        ledger.ended(ask, end);
    }
    words
}

#[test]
fn a_room_is_entered_before_anyone_in_it_is_named_and_quit_after_the_last() {
    let (mut ledger, now) = (PresenceReconciler::default(), Instant::now());
    ledger.here(here(0, 1, 1));
    ledger.here(here(0, 2, 1));
    assert_eq!(turn(&mut ledger, now), ["enter r0 1"]);
    assert_eq!(turn(&mut ledger, now), ["say r0 u1:1 u2:1"]);
    assert_eq!(turn(&mut ledger, now), [""; 0], "nothing changes");
    ledger.here(here(0, 1, 1));
    assert_eq!(
        turn(&mut ledger, now),
        [""; 0],
        "and the same again is nothing"
    );
    ledger.here(here(0, 1, 0));
    ledger.here(here(0, 2, 0));
    assert_eq!(turn(&mut ledger, now), ["say r0 u1:0 u2:0"]);
    assert_eq!(turn(&mut ledger, now), ["quit 1"]);
    assert_eq!(turn(&mut ledger, now), [""; 0]);
}

#[test]
fn the_anonymous_are_counted_once_a_second_and_delay_nobody() {
    let (mut ledger, start) = (PresenceReconciler::default(), Instant::now());
    let after = |millis| start + Duration::from_millis(millis);
    ledger.here(here(0, 0, 1));
    turn(&mut ledger, start);
    assert_eq!(turn(&mut ledger, start), ["say r0 -:1"]);
    for count in 2..10 {
        ledger.here(here(0, 0, count));
        assert_eq!(turn(&mut ledger, after(500)), [""; 0]);
    }
    ledger.here(here(0, 1, 1));
    assert_eq!(turn(&mut ledger, after(900)), ["say r0 u1:1"]);
    assert_eq!(turn(&mut ledger, after(1000)), ["say r0 -:9"]);
    assert_eq!(turn(&mut ledger, after(5000)), [""; 0]);
}

#[test]
fn a_batch_is_bounded_by_asks_and_by_users() {
    let (mut ledger, now) = (PresenceReconciler::default(), Instant::now());
    for user in 1..=200 {
        ledger.here(here(0, user, 1));
    }
    turn(&mut ledger, now);
    let said = |asks: &[Ask]| -> Vec<usize> {
        let counts = asks.iter().map(|ask| match ask {
            Ask::Say { said, .. } => said.len(),
            _ => 0,
        });
        counts.collect()
    };
    assert_eq!(said(&ledger.take(9, 100, now)), [64, 36]);
    assert_eq!(said(&ledger.take(1, 100, now)), [64]);
    assert_eq!(said(&ledger.take(9, 100, now)), [36]);
}

#[test]
fn who_comes_and_goes_while_the_store_is_away_leaves_nothing_behind() {
    let mut ledger = PresenceReconciler::default();
    for number in 0..10_000 {
        let mut it = here(0, 1, 1);
        it.room = RoomName::new(&format!("r{number}")).unwrap();
        ledger.here(it.clone());
        it.connections = 0;
        ledger.here(it);
    }
    assert!(ledger.rooms.is_empty());
    assert!(ledger.queue.len() < 100, "{}", ledger.queue.len());
    assert!(ledger.take(9, 9, Instant::now()).is_empty());
}

#[test]
fn what_a_change_contradicts_is_said_again() {
    let (mut ledger, now) = (PresenceReconciler::default(), Instant::now());
    ledger.here(here(0, 1, 2));
    ledger.here(here(0, 2, 1));
    turn(&mut ledger, now);
    turn(&mut ledger, now);
    let change = |from, version, connections| Change {
        from,
        version,
        user: user(1).unwrap(),
        was: 3,
        connections,
        info: None,
    };
    // What was said is at version 7, so an earlier change knows nothing of it, and nor does whoever
    // begins there.
    for (from, version, connections, lost, said) in [
        (0, 6, 1, false, None),
        (6, 7, 1, false, None),
        (7, 8, 2, false, None),
        (8, 9, 1, false, Some("say r0 u1:2")),
        (0, 8, 1, true, Some("say r0 u1:2 u2:1")),
        (6, 8, 2, true, Some("say r0 u1:2 u2:1")),
    ] {
        let heard = ledger.on_change(&room(0), &change(from, version, connections));
        assert_eq!(heard, lost, "{from} {version}");
        assert_eq!(turn(&mut ledger, now), Vec::from_iter(said));
    }
    ledger.here(here(0, 1, 5));
    let [ask] = &ledger.take(9, 9, now)[..] else {
        panic!("one")
    };
    let end = End::Said {
        before: 0,
        after: 9,
    };
    assert!(ledger.ended(ask.clone(), end), "its own word shows it too");
    assert_eq!(turn(&mut ledger, now), ["say r0 u1:5 u2:1"]);
}

#[test]
fn an_info_that_changes_is_said() {
    let (mut ledger, now) = (PresenceReconciler::default(), Instant::now());
    let mut it = here(0, 1, 1);
    ledger.here(it.clone());
    turn(&mut ledger, now);
    turn(&mut ledger, now);
    it.info = Some(RawValue::from_string("{\"a\":1}".into()).unwrap().into());
    ledger.here(it.clone());
    assert_eq!(turn(&mut ledger, now), ["say r0 u1:1"]);
    ledger.here(it);
    assert_eq!(turn(&mut ledger, now), [""; 0]);
}
