//! Which topics this node is subscribed to, and what must be asked of Redis to make that true.
//! Plain logic: the subscription's task asks it what to send and tells it what was confirmed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::model::id::RoomName;

/// How many topics linger at most: whoever joins and leaves ever new rooms does not make them pile
/// up.
const MAX_LINGERING: usize = 10_000;

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
    /// Rooms in `Subscribing { asked: false }`, in the order of their follows; others may stand in
    /// it and are skipped.
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

    /// The room has members. `true`: the topic is subscribed already, and `Following` can be said
    /// at once.
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
            // Not asked for yet: as if it had never been wanted. While Redis is away clients may
            // come and go as they like.
            Some(Topic::Subscribing { asked: false, .. }) => {
                self.topics.remove(room);
                self.forget_stale();
            }
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

    /// Ends the lingers that are over, and the oldest of too many.
    pub fn tick(&mut self, now: Instant) {
        while let Some((until, _)) = self.lingering.front()
            && (*until <= now || self.lingering.len() > MAX_LINGERING)
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

    /// Names of rooms that are no longer wanted stay in the line until they outnumber the others.
    fn forget_stale(&mut self) {
        if self.to_subscribe.len() > 2 * self.topics.len() + 64 {
            let mut seen = HashSet::new();
            let topics = &self.topics;
            self.to_subscribe.retain(|room| {
                let topic = topics.get(room);
                matches!(topic, Some(Topic::Subscribing { asked: false, .. }))
                    && seen.insert(room.clone())
            });
        }
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
mod tests;
