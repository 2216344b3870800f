//! Which topics this node is subscribed to, and what must be asked of Redis to make that true. Plain logic: the
//! subscription's task asks it what to send and tells it what was confirmed.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::id::RoomName;

/// The state of one topic. A topic that is off is not listed.
///
/// ```text
///          follow                confirmed          unfollow             linger over
///   off ──────────▶ Subscribing ──────────▶ On ───────────────▶ Lingering ─────────▶ Unsubscribing ───▶ off
///                     ▲    │                 ▲                     │ │                   │  confirmed
///                     │    └─ unfollowed: ───┼─────────────────────┼▶│                   │
///                     │       it lingers     └────── follow ───────┘                     │
///                     └──────────────────── followed meanwhile ──────────────────────────┘
/// ```
///
/// `asked` is whether the request has been sent; at most one is under way per topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Subscribing { asked: bool, wanted: bool },
    On,
    Lingering { until: Instant },
    Unsubscribing { asked: bool, wanted: bool },
}

/// What to send to Redis next.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    Subscribe(Vec<RoomName>),
    Unsubscribe(Vec<RoomName>),
}

/// All topics of this node.
#[derive(Debug)]
pub struct Topics {
    topics: HashMap<RoomName, Topic>,
    /// Rooms in `Subscribing { asked: false }`, in the order of their follows; others may stand in it and are skipped.
    to_subscribe: VecDeque<RoomName>,
    /// Likewise for `Unsubscribing`.
    to_unsubscribe: VecDeque<RoomName>,
    /// When a linger ends; entries of topics that were followed again are skipped.
    lingering: VecDeque<(Instant, RoomName)>,
    linger: Duration,
}

impl Topics {
    /// Topics linger for so long after their last member left.
    pub fn new(linger: Duration) -> Self {
        Self {
            topics: HashMap::new(),
            to_subscribe: VecDeque::new(),
            to_unsubscribe: VecDeque::new(),
            lingering: VecDeque::new(),
            linger,
        }
    }

    /// The room has members. `true`: the topic is subscribed already, and `Following` can be said at once.
    pub fn follow(&mut self, room: &RoomName) -> bool {
        match self.topics.get_mut(room) {
            None => {
                self.queue_subscribe(room.clone());
                false
            }
            Some(Topic::On) => true,
            Some(Topic::Subscribing { wanted, .. })
            | Some(Topic::Unsubscribing {
                asked: true,
                wanted,
            }) => {
                *wanted = true;
                false
            }
            Some(topic @ (Topic::Lingering { .. } | Topic::Unsubscribing { asked: false, .. })) => {
                *topic = Topic::On;
                true
            }
        }
    }

    /// The room's last member left.
    pub fn unfollow(&mut self, room: &RoomName, now: Instant) {
        match self.topics.get_mut(room) {
            Some(Topic::On) => self.start_linger(room, now),
            Some(Topic::Subscribing { wanted, .. } | Topic::Unsubscribing { wanted, .. }) => {
                *wanted = false;
            }
            Some(Topic::Lingering { .. }) | None => {}
        }
    }

    /// The room, if its messages are to be passed on.
    pub fn followed(&self, room: &str) -> Option<&RoomName> {
        match self.topics.get_key_value(room) {
            Some((room, Topic::On)) => Some(room),
            _ => None,
        }
    }

    /// Redis has confirmed a subscription. A room comes back: say `Following` of it now.
    pub fn subscribed(&mut self, room: &str, now: Instant) -> Option<RoomName> {
        let (room, topic) = self.topics.get_key_value(room)?;
        let room = room.clone();
        match topic {
            Topic::Subscribing {
                asked: true,
                wanted: true,
            } => {
                self.topics.insert(room.clone(), Topic::On);
                Some(room)
            }
            Topic::Subscribing {
                asked: true,
                wanted: false,
            } => {
                self.start_linger(&room, now);
                None
            }
            _ => None,
        }
    }

    /// Redis has confirmed the end of a subscription.
    pub fn unsubscribed(&mut self, room: &str) {
        match self.topics.get_key_value(room) {
            Some((
                _,
                Topic::Unsubscribing {
                    asked: true,
                    wanted: false,
                },
            )) => {
                self.topics.remove(room);
            }
            Some((
                room,
                Topic::Unsubscribing {
                    asked: true,
                    wanted: true,
                },
            )) => self.queue_subscribe(room.clone()),
            _ => {}
        }
    }

    /// Ends the lingers that are over.
    pub fn tick(&mut self, now: Instant) {
        while let Some((until, _)) = self.lingering.front()
            && *until <= now
        {
            let Some((until, room)) = self.lingering.pop_front() else {
                return;
            };
            if self.topics.get(&room) == Some(&Topic::Lingering { until }) {
                let leaving = Topic::Unsubscribing {
                    asked: false,
                    wanted: false,
                };
                self.topics.insert(room.clone(), leaving);
                self.to_unsubscribe.push_back(room);
            }
        }
    }

    /// The next request, of at most `max` topics, which counts as sent.
    pub fn ask(&mut self, max: usize) -> Option<Ask> {
        let mut rooms = Vec::new();
        while rooms.len() < max
            && let Some(room) = self.to_subscribe.pop_front()
        {
            match self.topics.get_mut(&room) {
                Some(Topic::Subscribing {
                    asked,
                    wanted: true,
                }) if !*asked => {
                    *asked = true;
                    rooms.push(room);
                }
                Some(Topic::Subscribing { asked: false, .. }) => {
                    self.topics.remove(&room);
                }
                _ => {}
            }
        }
        if !rooms.is_empty() {
            return Some(Ask::Subscribe(rooms));
        }
        while rooms.len() < max
            && let Some(room) = self.to_unsubscribe.pop_front()
        {
            if let Some(Topic::Unsubscribing { asked, .. }) = self.topics.get_mut(&room)
                && !*asked
            {
                *asked = true;
                rooms.push(room);
            }
        }
        (!rooms.is_empty()).then_some(Ask::Unsubscribe(rooms))
    }

    /// The connection is gone, and every subscription with it: what is wanted is asked for anew.
    pub fn lost(&mut self) {
        self.to_subscribe.clear();
        self.to_unsubscribe.clear();
        self.lingering.clear();
        self.topics.retain(|room, topic| {
            let wanted = match topic {
                Topic::On => true,
                Topic::Lingering { .. } => false,
                Topic::Subscribing { wanted, .. } | Topic::Unsubscribing { wanted, .. } => *wanted,
            };
            if wanted {
                *topic = Topic::Subscribing {
                    asked: false,
                    wanted: true,
                };
                self.to_subscribe.push_back(room.clone());
            }
            wanted
        });
    }

    fn queue_subscribe(&mut self, room: RoomName) {
        let topic = Topic::Subscribing {
            asked: false,
            wanted: true,
        };
        self.topics.insert(room.clone(), topic);
        self.to_subscribe.push_back(room);
    }

    fn start_linger(&mut self, room: &RoomName, now: Instant) {
        let until = now + self.linger;
        self.topics.insert(room.clone(), Topic::Lingering { until });
        self.lingering.push_back((until, room.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    fn topics() -> (Topics, RoomName, Instant) {
        (
            Topics::new(Duration::from_secs(5)),
            room("lobby"),
            Instant::now(),
        )
    }

    #[test]
    fn a_follow_is_asked_for_once_and_confirmed() {
        let (mut topics, lobby, now) = topics();
        assert!(!topics.follow(&lobby));
        assert_eq!(topics.followed("lobby"), None);
        assert_eq!(topics.ask(10), Some(Ask::Subscribe(vec![lobby.clone()])));
        assert_eq!(topics.ask(10), None);
        assert_eq!(topics.subscribed("lobby", now), Some(lobby.clone()));
        assert_eq!(topics.subscribed("lobby", now), None, "said once");
        assert_eq!(topics.followed("lobby"), Some(&lobby));
    }

    #[test]
    fn a_topic_lingers_and_is_followed_again_without_asking() {
        let (mut topics, lobby, now) = topics();
        topics.follow(&lobby);
        topics.ask(1);
        topics.subscribed("lobby", now);
        topics.unfollow(&lobby, now);
        assert_eq!(topics.followed("lobby"), None, "nobody listens");
        topics.tick(now + Duration::from_secs(4));
        assert_eq!(topics.ask(1), None);
        assert!(topics.follow(&lobby), "it is subscribed still");
        topics.tick(now + Duration::from_secs(6));
        assert_eq!(topics.ask(1), None, "the old linger does not count");
        topics.unfollow(&lobby, now + Duration::from_secs(6));
        topics.tick(now + Duration::from_secs(11));
        assert_eq!(topics.ask(1), Some(Ask::Unsubscribe(vec![lobby.clone()])));
        assert!(!topics.follow(&lobby), "the request is on its way");
        assert_eq!(topics.ask(1), None, "one request at a time");
        topics.unsubscribed("lobby");
        assert_eq!(topics.ask(1), Some(Ask::Subscribe(vec![lobby])));
    }

    #[test]
    fn after_a_loss_only_what_is_wanted_is_asked_for() {
        let (mut topics, lobby, now) = topics();
        let (away, gone) = (room("away"), room("gone"));
        for name in [&lobby, &away, &gone] {
            topics.follow(name);
        }
        topics.ask(2);
        topics.subscribed("lobby", now);
        topics.subscribed("away", now);
        topics.unfollow(&away, now);
        topics.unfollow(&gone, now);
        topics.lost();
        assert_eq!(topics.ask(10), Some(Ask::Subscribe(vec![lobby])));
        assert_eq!(topics.ask(10), None);
        assert!(topics.topics.len() == 1);
    }

    /// The naive model: what Redis has, what the members want, what is on its way.
    #[derive(Default)]
    struct Model {
        subscribed: HashSet<String>,
        wanted: HashSet<String>,
        /// Follows that no `Following` has answered yet.
        waiting: HashSet<String>,
        on_its_way: Option<(bool, VecDeque<RoomName>)>,
    }

    #[test]
    fn random_operations_agree_with_a_naive_model() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut now = Instant::now();
            let mut topics = Topics::new(Duration::from_millis(50));
            let mut model = Model::default();
            for _ in 0..400 {
                now += Duration::from_millis(random.u64(0..20));
                step(&mut topics, &mut model, &mut random, now, seed);
            }
            // Quiet again: everything is confirmed and no linger is left.
            for _ in 0..100 {
                now += Duration::from_millis(60);
                topics.tick(now);
                confirm_all(&mut topics, &mut model, now, seed);
                send(&mut topics, &mut model, 3);
            }
            confirm_all(&mut topics, &mut model, now, seed);
            assert_eq!(model.subscribed, model.wanted, "seed {seed}");
            assert!(model.waiting.is_empty(), "seed {seed}: {:?}", model.waiting);
            assert_eq!(topics.topics.len(), model.wanted.len(), "seed {seed}");
        }
    }

    fn step(
        topics: &mut Topics,
        model: &mut Model,
        random: &mut fastrand::Rng,
        now: Instant,
        seed: u64,
    ) {
        let name = format!("r{}", random.u8(0..6));
        match random.u8(0..12) {
            0..4 => {
                model.wanted.insert(name.clone());
                if topics.follow(&room(&name)) {
                    assert!(model.subscribed.contains(&name), "seed {seed}: {name}");
                    model.waiting.remove(&name);
                } else {
                    model.waiting.insert(name);
                }
            }
            4..7 => {
                model.wanted.remove(&name);
                model.waiting.remove(&name);
                topics.unfollow(&room(&name), now);
            }
            7..9 => send(topics, model, random.usize(1..4)),
            9..11 => confirm(topics, model, now, seed),
            _ if random.u8(0..10) == 0 => {
                model.on_its_way = None;
                model.subscribed.clear();
                topics.lost();
                model.waiting = model.wanted.clone();
            }
            _ => topics.tick(now),
        }
        for name in &model.subscribed {
            if topics.followed(name).is_some() {
                assert!(model.wanted.contains(name), "seed {seed}: {name}");
            }
        }
    }

    fn send(topics: &mut Topics, model: &mut Model, max: usize) {
        if model.on_its_way.is_none() {
            model.on_its_way = topics.ask(max).map(|ask| match ask {
                Ask::Subscribe(rooms) => (true, rooms.into()),
                Ask::Unsubscribe(rooms) => (false, rooms.into()),
            });
        }
    }

    fn confirm(topics: &mut Topics, model: &mut Model, now: Instant, seed: u64) {
        let Some((subscribe, rooms)) = &mut model.on_its_way else {
            return;
        };
        let Some(room) = rooms.pop_front() else {
            model.on_its_way = None;
            return;
        };
        let name = room.as_str().to_owned();
        if *subscribe {
            assert!(model.subscribed.insert(name.clone()), "seed {seed}: twice");
            match topics.subscribed(&name, now) {
                Some(_) => assert!(model.waiting.remove(&name), "seed {seed}: {name}"),
                None => assert!(!model.wanted.contains(&name), "seed {seed}: {name}"),
            }
        } else {
            assert!(model.subscribed.remove(&name), "seed {seed}: not there");
            topics.unsubscribed(&name);
        }
    }

    fn confirm_all(topics: &mut Topics, model: &mut Model, now: Instant, seed: u64) {
        while model.on_its_way.is_some() {
            confirm(topics, model, now, seed);
        }
    }
}
