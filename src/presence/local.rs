//! This node's part of presence: how many sessions each user has in each room on this node, and
//! which changes to announce. A user without sessions is in its *grace* first, so that the reload
//! of a page announces nothing.
//!
//! ```text
//!              join                  leave (the last)
//!  absent ─────────────▶ here ─────────────────────▶ in grace ──── time is over ───▶ absent
//!                         ▲  join: not announced        │            (0 is announced)
//!                         └─────────────────────────────┘
//! ```

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::broker::SetPresence;
use crate::model::id::{RoomName, UserName};
use crate::model::member::Info;

/// Maximum number of users in their grace, about 40 MiB; beyond it the oldest is announced early.
/// Far more than leave a node within seconds; it bounds the memory that clients can take by joining
/// and leaving.
const IN_GRACE: usize = 262_144;

/// A user in a room; `None` stands for all anonymous sessions.
type UserKey = (RoomName, Option<UserName>);

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct LocalPresence {
    grace: Duration,
    users: HashMap<UserKey, LocalUser>,
    /// Users in their grace, by its end. The number makes the key unique.
    leaving: BTreeMap<Leaving, UserKey>,
    last_number: u64,
    /// Users whose state has changed since [`announce`](LocalPresence::announce), each once.
    changed: Vec<UserKey>,
}

type Leaving = (Instant, u64);

#[derive(Debug, Default)]
struct LocalUser {
    /// Sessions on this node.
    connections: u32,
    /// The number of connections that was announced last.
    announced: u32,
    info: Option<Info>,
    /// This `info` has not been announced yet.
    is_info_new: bool,
    /// It is in `changed`.
    is_changed: bool,
    grace: Option<Leaving>,
}

impl LocalPresence {
    /// `grace`: how long a user without sessions still counts as present; zero: not at all.
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            grace,
            users: HashMap::new(),
            leaving: BTreeMap::new(),
            last_number: 0,
            changed: Vec::new(),
        }
    }

    /// How many users are in their grace.
    #[cfg(test)]
    pub(crate) fn in_grace(&self) -> usize {
        self.leaving.len()
    }

    /// One more session of the user is in the room. The newest `info` replaces older ones.
    pub(crate) fn join(&mut self, room: &RoomName, user: Option<&UserName>, info: Option<&Info>) {
        let key = (room.clone(), user.cloned());
        let local = self.users.entry(key.clone()).or_default();
        local.connections += 1;
        if let Some(leaving) = local.grace.take() {
            self.leaving.remove(&leaving);
        }
        self.set_info(key, info);
    }

    /// The `info` of a user in the room has changed.
    pub(crate) fn update_info(&mut self, room: &RoomName, user: &UserName, info: Option<&Info>) {
        let key = (room.clone(), Some(user.clone()));
        if self.users.contains_key(&key) {
            self.set_info(key, info);
        }
    }

    fn set_info(&mut self, key: UserKey, info: Option<&Info>) {
        let local = self.users.entry(key.clone()).or_default();
        if let Some(info) = info
            && local
                .info
                .as_ref()
                .is_none_or(|old| old.get() != info.get())
        {
            local.info = Some(info.clone());
            local.is_info_new = true;
        }
        self.mark_changed(key);
    }

    /// One session of the user has left the room. If it was the last, the grace begins.
    pub(crate) fn leave(&mut self, now: Instant, room: &RoomName, user: Option<&UserName>) {
        self.remove_session(Some(now), room, user);
    }

    /// One session of the user has left the room without a grace, because it now counts as another
    /// user.
    pub(crate) fn leave_without_grace(&mut self, room: &RoomName, user: Option<&UserName>) {
        self.remove_session(None, room, user);
    }

    fn remove_session(&mut self, now: Option<Instant>, room: &RoomName, user: Option<&UserName>) {
        let key = (room.clone(), user.cloned());
        let Some(local) = self.users.get_mut(&key) else {
            return;
        };
        local.connections = local.connections.saturating_sub(1);
        // A user that was never announced needs no grace.
        if local.connections == 0
            && local.announced > 0
            && local.grace.is_none()
            && !self.grace.is_zero()
            && let Some(now) = now
        {
            self.last_number += 1;
            let leaving = (now + self.grace, self.last_number);
            local.grace = Some(leaving);
            self.leaving.insert(leaving, key.clone());
            if self.leaving.len() > IN_GRACE {
                self.end_first();
            }
        }
        self.mark_changed(key);
    }

    fn mark_changed(&mut self, key: UserKey) {
        if let Some(local) = self.users.get_mut(&key)
            && !std::mem::replace(&mut local.is_changed, true)
        {
            self.changed.push(key);
        }
    }

    /// Ends the graces that are over.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((leaving, _)) = self.leaving.first_key_value()
            && leaving.0 <= now
        {
            self.end_first();
        }
        if self.leaving.is_empty() && self.users.is_empty() {
            self.users.shrink_to_fit();
        }
    }

    fn end_first(&mut self) {
        let Some((_, key)) = self.leaving.pop_first() else {
            return;
        };
        if let Some(local) = self.users.get_mut(&key) {
            local.grace = None;
        }
        self.mark_changed(key);
    }

    /// Publishes the changes since the last call, each user of a room once.
    pub(crate) fn announce(&mut self, mut publish: impl FnMut(SetPresence)) {
        for key in self.changed.drain(..) {
            let Some(local) = self.users.get_mut(&key) else {
                continue;
            };
            local.is_changed = false;
            if local.grace.is_some() {
                continue;
            }
            let (connections, is_info_new) =
                (local.connections, std::mem::take(&mut local.is_info_new));
            if connections != local.announced || (is_info_new && connections > 0) {
                local.announced = connections;
                let (room, user) = key.clone();
                let info = local.info.clone().filter(|_| connections > 0);
                publish(SetPresence {
                    room,
                    user,
                    connections,
                    info,
                });
            }
            if connections == 0 {
                self.users.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    const SECOND: Duration = Duration::from_secs(1);

    fn room(n: u8) -> RoomName {
        RoomName::new(&format!("r{n}")).unwrap()
    }

    fn user(n: u8) -> Option<UserName> {
        (n > 0).then(|| UserName::new(&format!("u{n}")).unwrap())
    }

    fn announced(presence: &mut LocalPresence) -> Vec<(String, u32)> {
        let mut announced = Vec::new();
        presence.announce(|change| {
            let name = change
                .user
                .map_or("anonymous".into(), |user| user.to_string());
            announced.push((name, change.connections));
        });
        announced
    }

    #[test]
    fn reload_within_the_grace_announces_nothing_and_a_longer_absence_one_leave() {
        let start = Instant::now();
        let mut presence = LocalPresence::new(5 * SECOND);
        let (room, ada) = (room(1), user(1));
        presence.join(&room, ada.as_ref(), None);
        assert_eq!(announced(&mut presence), [("u1".into(), 1)]);
        presence.leave(start, &room, ada.as_ref());
        presence.expire(start + 4 * SECOND);
        assert_eq!(announced(&mut presence), []);
        presence.join(&room, ada.as_ref(), None);
        presence.expire(start + 60 * SECOND);
        assert_eq!(announced(&mut presence), [], "the user came back in time");
        presence.leave(start + 60 * SECOND, &room, ada.as_ref());
        presence.expire(start + 65 * SECOND);
        presence.expire(start + 70 * SECOND);
        assert_eq!(announced(&mut presence), [("u1".into(), 0)]);
        assert!(presence.users.is_empty());
    }

    #[test]
    fn second_device_is_announced_at_once_both_ways() {
        let now = Instant::now();
        let mut presence = LocalPresence::new(5 * SECOND);
        let (room, ada) = (room(1), user(1));
        presence.join(&room, ada.as_ref(), None);
        announced(&mut presence);
        presence.join(&room, ada.as_ref(), None);
        assert_eq!(announced(&mut presence), [("u1".into(), 2)]);
        presence.leave(now, &room, ada.as_ref());
        assert_eq!(announced(&mut presence), [("u1".into(), 1)]);
    }

    #[test]
    fn authenticated_session_leaves_the_anonymous_at_once() {
        let mut presence = LocalPresence::new(5 * SECOND);
        let (room, ada) = (room(1), user(1));
        presence.join(&room, None, None);
        assert_eq!(announced(&mut presence), [("anonymous".into(), 1)]);
        presence.leave_without_grace(&room, None);
        presence.join(&room, ada.as_ref(), None);
        let announced = announced(&mut presence);
        assert_eq!(announced, [("anonymous".into(), 0), ("u1".into(), 1)]);
    }

    #[test]
    fn newest_info_is_announced_and_an_equal_one_is_not() {
        let mut presence = LocalPresence::new(5 * SECOND);
        let (room, ada) = (room(1), user(1));
        let info = |text: &str| -> Info { RawValue::from_string(text.into()).unwrap().into() };
        let mut infos = Vec::new();
        for text in ["{\"a\":1}", "{\"a\":1}", "{\"a\":2}"] {
            presence.update_info(&room, ada.as_ref().unwrap(), Some(&info(text)));
            if infos.is_empty() {
                presence.join(&room, ada.as_ref(), Some(&info(text)));
            }
            presence.announce(|change| infos.push(change.info.unwrap().get().to_owned()));
        }
        assert_eq!(infos, ["{\"a\":1}", "{\"a\":2}"]);
    }

    #[test]
    fn users_in_grace_are_bounded_and_the_oldest_is_announced_early() {
        let now = Instant::now();
        let mut presence = LocalPresence::new(5 * SECOND);
        let room = room(1);
        let users = (0..=IN_GRACE).map(|n| UserName::new(&n.to_string()).unwrap());
        for user in users.clone() {
            presence.join(&room, Some(&user), None);
        }
        assert_eq!(announced(&mut presence).len(), IN_GRACE + 1);
        for user in users {
            presence.leave(now, &room, Some(&user));
        }
        assert_eq!(presence.in_grace(), IN_GRACE);
        assert_eq!(announced(&mut presence), [("0".into(), 0)]);
    }

    /// The naive model: every session by itself, and when each user had its last session.
    #[test]
    fn announcements_agree_with_a_naive_model_under_random_operations() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let grace = random.u32(..3) * SECOND;
            let mut presence = LocalPresence::new(grace);
            let mut now = Instant::now();
            // The sessions as (room, user), and since when a pair has none.
            let mut sessions: Vec<(u8, u8)> = Vec::new();
            let mut empty_since: BTreeMap<(u8, u8), Instant> = BTreeMap::new();
            let mut announced: BTreeMap<(u8, u8), u32> = BTreeMap::new();
            for _ in 0..200 {
                let (at, who) = (random.u8(..2), random.u8(..3));
                match random.u8(..8) {
                    0..3 => {
                        presence.join(&room(at), user(who).as_ref(), None);
                        sessions.push((at, who));
                        empty_since.remove(&(at, who));
                    }
                    3..6 if !sessions.is_empty() => {
                        let (at, who) = sessions.swap_remove(random.usize(..sessions.len()));
                        presence.leave(now, &room(at), user(who).as_ref());
                        if !sessions.contains(&(at, who)) {
                            empty_since.insert((at, who), now);
                        }
                    }
                    6 => now += SECOND / 2,
                    _ => {}
                }
                if random.bool() {
                    continue;
                }
                presence.expire(now);
                presence.announce(|change| {
                    let number = |text: &str| text[1..].parse::<u8>().unwrap();
                    let who = change.user.as_ref().map_or(0, |user| number(user.as_str()));
                    let key = (number(change.room.as_str()), who);
                    let former = announced.insert(key, change.connections);
                    assert_ne!(former.unwrap_or(0), change.connections, "seed {seed}");
                });
                for at in 0..2 {
                    for who in 0..3 {
                        let count = sessions.iter().filter(|one| **one == (at, who)).count() as u32;
                        let known = announced.get(&(at, who)).copied().unwrap_or(0);
                        let since = empty_since.get(&(at, who));
                        let may_wait = since.is_some_and(|since| now < *since + grace);
                        if count > 0 || !may_wait {
                            assert_eq!(known, count, "seed {seed}");
                        }
                    }
                }
                assert!(presence.in_grace() <= empty_since.len());
            }
        }
    }
}
