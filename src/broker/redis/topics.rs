//! The state of this node's subscriptions, and the requests that bring Redis to the wanted state.
//! Plain logic: the subscription's task sends the requests and reports the confirmations.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::model::id::RoomName;

/// The most lingering topics, so that a client that joins and leaves ever new rooms does not
/// accumulate them.
const MAX_LINGERING: usize = 10_000;

/// The state of one topic. A topic without a subscription has no entry.
///
/// ```text
///   no entry ─────── follow ──────▶ Subscribing
///   Subscribing ──── unfollow ────▶ no entry        if the request was not sent yet
///               ──── confirmed ───▶ Subscribed      if it is still wanted
///               ──── confirmed ───▶ Lingering       if it was unfollowed meanwhile
///   Subscribed ───── unfollow ────▶ Lingering
///   Lingering ────── follow ──────▶ Subscribed
///             ────── timeout ─────▶ Unsubscribing
///   Unsubscribing ── follow ──────▶ Subscribed      if the request was not sent yet
///                 ── confirmed ───▶ no entry
///                 ── confirmed ───▶ Subscribing     if it was followed meanwhile
/// ```
///
/// `sent` is whether the request has been sent; a topic has at most one in flight. `wanted` is
/// whether the room has members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Subscribing { sent: bool, wanted: bool },
    Subscribed,
    Lingering { until: Instant },
    Unsubscribing { sent: bool, wanted: bool },
}

/// The next request to Redis.
#[derive(Debug, PartialEq, Eq)]
pub enum SubscriptionRequest {
    Subscribe(Vec<RoomName>),
    Unsubscribe(Vec<RoomName>),
}

/// All topics of this node.
#[derive(Debug)]
pub struct Topics {
    topics: HashMap<RoomName, Topic>,
    /// Rooms in `Subscribing { sent: false }`, in the order of their follows. Rooms in other states
    /// may be in it and are skipped.
    to_subscribe: VecDeque<RoomName>,
    /// Likewise for `Unsubscribing`.
    to_unsubscribe: VecDeque<RoomName>,
    /// When each linger ends. Topics that were followed again are skipped.
    lingering: VecDeque<(Instant, RoomName)>,
    linger: Duration,
}

impl Topics {
    /// Topics linger for this long after their last member has left.
    pub fn new(linger: Duration) -> Self {
        Self {
            topics: HashMap::new(),
            to_subscribe: VecDeque::new(),
            to_unsubscribe: VecDeque::new(),
            lingering: VecDeque::new(),
            linger,
        }
    }

    /// The room has members. `true`: the topic is already subscribed, so the caller reports
    /// `Following` at once.
    pub fn follow(&mut self, room: &RoomName) -> bool {
        match self.topics.get_mut(room) {
            None => {
                self.queue_subscribe(room.clone());
                false
            }
            Some(Topic::Subscribed) => true,
            Some(Topic::Subscribing { wanted, .. })
            | Some(Topic::Unsubscribing { sent: true, wanted }) => {
                *wanted = true;
                false
            }
            Some(topic @ (Topic::Lingering { .. } | Topic::Unsubscribing { sent: false, .. })) => {
                *topic = Topic::Subscribed;
                true
            }
        }
    }

    /// The room's last member left.
    pub fn unfollow(&mut self, room: &RoomName, now: Instant) {
        match self.topics.get_mut(room) {
            Some(Topic::Subscribed) => self.start_linger(room, now),
            // Not sent yet, so it is removed. Clients that come and go during an outage of Redis
            // leave no entries.
            Some(Topic::Subscribing { sent: false, .. }) => {
                self.topics.remove(room);
                self.drop_stale();
            }
            Some(Topic::Subscribing { wanted, .. } | Topic::Unsubscribing { wanted, .. }) => {
                *wanted = false;
            }
            Some(Topic::Lingering { .. }) | None => {}
        }
    }

    /// The room, if its messages are to be forwarded.
    pub fn followed(&self, room: &str) -> Option<&RoomName> {
        match self.topics.get_key_value(room) {
            Some((room, Topic::Subscribed)) => Some(room),
            _ => None,
        }
    }

    /// Redis has confirmed a subscription. Returns the room if the caller must report `Following`.
    pub fn subscribed(&mut self, room: &str, now: Instant) -> Option<RoomName> {
        let (room, topic) = self.topics.get_key_value(room)?;
        let room = room.clone();
        match topic {
            Topic::Subscribing {
                sent: true,
                wanted: true,
            } => {
                self.topics.insert(room.clone(), Topic::Subscribed);
                Some(room)
            }
            Topic::Subscribing {
                sent: true,
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
                    sent: true,
                    wanted: false,
                },
            )) => {
                self.topics.remove(room);
            }
            Some((
                room,
                Topic::Unsubscribing {
                    sent: true,
                    wanted: true,
                },
            )) => self.queue_subscribe(room.clone()),
            _ => {}
        }
    }

    /// Ends the lingers that have timed out, and the oldest of too many.
    pub fn tick(&mut self, now: Instant) {
        while let Some((until, _)) = self.lingering.front()
            && (*until <= now || self.lingering.len() > MAX_LINGERING)
        {
            let Some((until, room)) = self.lingering.pop_front() else {
                return;
            };
            if self.topics.get(&room) == Some(&Topic::Lingering { until }) {
                let leaving = Topic::Unsubscribing {
                    sent: false,
                    wanted: false,
                };
                self.topics.insert(room.clone(), leaving);
                self.to_unsubscribe.push_back(room);
            }
        }
    }

    /// The next request, of at most `max` topics, which counts as sent.
    pub fn next_request(&mut self, max: usize) -> Option<SubscriptionRequest> {
        let mut rooms = Vec::new();
        while rooms.len() < max
            && let Some(room) = self.to_subscribe.pop_front()
        {
            match self.topics.get_mut(&room) {
                Some(Topic::Subscribing { sent, wanted: true }) if !*sent => {
                    *sent = true;
                    rooms.push(room);
                }
                Some(Topic::Subscribing { sent: false, .. }) => {
                    self.topics.remove(&room);
                }
                _ => {}
            }
        }
        if !rooms.is_empty() {
            return Some(SubscriptionRequest::Subscribe(rooms));
        }
        while rooms.len() < max
            && let Some(room) = self.to_unsubscribe.pop_front()
        {
            if let Some(Topic::Unsubscribing { sent, .. }) = self.topics.get_mut(&room)
                && !*sent
            {
                *sent = true;
                rooms.push(room);
            }
        }
        (!rooms.is_empty()).then_some(SubscriptionRequest::Unsubscribe(rooms))
    }

    /// The connection is gone, and all subscriptions with it: wanted topics are subscribed again.
    pub fn lost(&mut self) {
        self.to_subscribe.clear();
        self.to_unsubscribe.clear();
        self.lingering.clear();
        self.topics.retain(|room, topic| {
            let wanted = match topic {
                Topic::Subscribed => true,
                Topic::Lingering { .. } => false,
                Topic::Subscribing { wanted, .. } | Topic::Unsubscribing { wanted, .. } => *wanted,
            };
            if wanted {
                *topic = Topic::Subscribing {
                    sent: false,
                    wanted: true,
                };
                self.to_subscribe.push_back(room.clone());
            }
            wanted
        });
    }

    /// Names of rooms that are no longer wanted stay in the queue until they outnumber the others.
    fn drop_stale(&mut self) {
        if self.to_subscribe.len() > 2 * self.topics.len() + 64 {
            let mut seen = HashSet::new();
            let topics = &self.topics;
            self.to_subscribe.retain(|room| {
                let topic = topics.get(room);
                matches!(topic, Some(Topic::Subscribing { sent: false, .. }))
                    && seen.insert(room.clone())
            });
        }
    }

    fn queue_subscribe(&mut self, room: RoomName) {
        let topic = Topic::Subscribing {
            sent: false,
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
