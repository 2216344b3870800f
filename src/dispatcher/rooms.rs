//! An index of memberships in both directions: the members of a room, contiguous for the fan-out,
//! and the rooms of a session. A join or leave costs the same in a room of ten members as in one of
//! ten thousand.

use std::collections::HashMap;

use slab::Slab;
use smallvec::SmallVec;

use crate::model::id::{NumberMap, RoomName, SessionId};

/// A room's index in this structure, valid until the room is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RoomKey(u32);

impl RoomKey {
    fn of(place: usize) -> Self {
        Self(index(place))
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Half as long as a pointer, because every membership has two. No node has four billion rooms or
/// members.
fn index(place: usize) -> u32 {
    u32::try_from(place).expect("fewer than four billion")
}

/// The effect of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// The room's first local member: its topic must be followed.
    First,
    Another,
    /// The session was a member already; nothing has changed.
    Already,
}

/// The effect of a leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The room has no local member any more: its topic can be unfollowed.
    Last,
    Others,
    NotMember,
}

/// All rooms of a node. `T` is the node's state of a room, `M` that of a membership.
#[derive(Debug)]
pub(super) struct Rooms<T, M> {
    rooms: Slab<Room<T, M>>,
    names: HashMap<RoomName, RoomKey>,
    /// The memberships of each session; absent if it is in no room. Two fit without an allocation:
    /// the personal room and one more, which is the usual case.
    places: NumberMap<SessionId, SmallVec<[Place; 2]>>,
}

/// A room with at least one local member, or about to have its first.
#[derive(Debug)]
pub(super) struct Room<T, M> {
    pub key: RoomKey,
    pub name: RoomName,
    pub state: T,
    pub members: Vec<Member<M>>,
}

#[derive(Debug)]
pub(super) struct Member<M> {
    pub session: SessionId,
    pub value: M,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    room: RoomKey,
    /// Index into the room's members.
    slot: u32,
}

impl<T, M> Default for Rooms<T, M> {
    fn default() -> Self {
        Self {
            rooms: Slab::new(),
            names: HashMap::new(),
            places: NumberMap::default(),
        }
    }
}

impl<T, M> Rooms<T, M> {
    /// The number of rooms.
    pub(super) fn len(&self) -> usize {
        self.rooms.len()
    }

    pub(super) fn find(&self, name: &RoomName) -> Option<RoomKey> {
        self.names.get(name).copied()
    }

    /// The room of this name, created with `state` if it is new.
    pub(super) fn find_or_add(&mut self, name: &RoomName, state: impl FnOnce() -> T) -> RoomKey {
        if let Some(key) = self.find(name) {
            return key;
        }
        let entry = self.rooms.vacant_entry();
        let key = RoomKey::of(entry.key());
        let (name, state) = (name.clone(), state());
        self.names.insert(name.clone(), key);
        entry.insert(Room {
            key,
            name,
            state,
            members: Vec::new(),
        });
        key
    }

    pub(super) fn get(&self, key: RoomKey) -> Option<&Room<T, M>> {
        self.rooms.get(key.index())
    }

    /// The room of this key, unless it was removed.
    pub(super) fn get_mut(&mut self, key: RoomKey) -> Option<&mut Room<T, M>> {
        self.rooms.get_mut(key.index())
    }

    /// The first room at or after an index, wrapping round, and the index at which to continue.
    pub(super) fn next_key(&self, from: usize) -> Option<(RoomKey, usize)> {
        let found = (from..self.rooms.capacity()).find(|index| self.rooms.contains(*index));
        let index = found.or_else(|| self.rooms.iter().next().map(|(index, _)| index))?;
        Some((RoomKey::of(index), index + 1))
    }

    pub(super) fn join(&mut self, key: RoomKey, session: SessionId, value: M) -> Joined {
        let places = self.places.entry(session).or_default();
        if places.iter().any(|place| place.room == key) {
            return Joined::Already;
        }
        let members = &mut self.rooms[key.index()].members;
        places.push(Place {
            room: key,
            slot: index(members.len()),
        });
        members.push(Member { session, value });
        if members.len() == 1 {
            Joined::First
        } else {
            Joined::Another
        }
    }

    /// Removes a session from a room and returns the state of its membership.
    pub(super) fn leave(&mut self, key: RoomKey, session: SessionId) -> (Left, Option<M>) {
        let Some(places) = self.places.get_mut(&session) else {
            return (Left::NotMember, None);
        };
        let Some(index) = places.iter().position(|place| place.room == key) else {
            return (Left::NotMember, None);
        };
        let place = places.swap_remove(index);
        if places.is_empty() {
            self.places.remove(&session);
        }
        let (left, member) = self.vacate(place);
        (left, Some(member))
    }

    /// Removes a room. Rooms are created by the first join and removed after the last leave, so
    /// clients cannot make them pile up.
    pub(super) fn remove(&mut self, key: RoomKey) -> Option<Room<T, M>> {
        let room = self.rooms.try_remove(key.index())?;
        debug_assert!(room.members.is_empty());
        self.names.remove(&room.name);
        if self.rooms.is_empty() {
            self.rooms = Slab::new();
            self.names.shrink_to_fit();
        }
        Some(room)
    }

    /// The number of rooms that the session is in.
    pub(super) fn count_of(&self, session: SessionId) -> usize {
        self.places.get(&session).map_or(0, SmallVec::len)
    }

    /// Whether the session is a member of the room.
    pub(super) fn has(&self, key: RoomKey, session: SessionId) -> bool {
        self.places
            .get(&session)
            .is_some_and(|places| places.iter().any(|place| place.room == key))
    }

    /// The state of a session's membership.
    pub(super) fn member_mut(&mut self, key: RoomKey, session: SessionId) -> Option<&mut M> {
        let places = self.places.get(&session)?;
        let place = places.iter().find(|place| place.room == key)?;
        let members = &mut self.rooms.get_mut(key.index())?.members;
        members
            .get_mut(place.slot as usize)
            .map(|member| &mut member.value)
    }

    /// The rooms that the session is in.
    pub(super) fn rooms_of(&self, session: SessionId) -> Vec<RoomKey> {
        let places = self.places.get(&session).into_iter().flatten();
        places.map(|place| place.room).collect()
    }

    /// Empties a slot. The last member moves into it, and the index of that member is updated.
    fn vacate(&mut self, place: Place) -> (Left, M) {
        let members = &mut self.rooms[place.room.index()].members;
        let left = members.swap_remove(place.slot as usize);
        if let Some(moved) = members.get(place.slot as usize) {
            let places = self.places.get_mut(&moved.session);
            for other in places.into_iter().flatten() {
                if other.room == place.room {
                    other.slot = place.slot;
                }
            }
        }
        if members.capacity() > 4 * members.len() + 16 {
            members.shrink_to(2 * members.len());
        }
        let last = members.is_empty();
        (if last { Left::Last } else { Left::Others }, left.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn rooms_agree_with_a_naive_model_under_random_operations() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut rooms: Rooms<(), u64> = Rooms::default();
            let mut model: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
            for _ in 0..300 {
                let name = format!("r{}", random.u8(..6));
                let session = random.u64(..8);
                match random.u8(..5) {
                    0..3 => {
                        let key = rooms.find_or_add(&RoomName::new(&name).unwrap(), || ());
                        let joined = rooms.join(key, SessionId(session), session);
                        let members = model.entry(name).or_default();
                        let expected = match (members.len(), members.insert(session)) {
                            (_, false) => Joined::Already,
                            (0, true) => Joined::First,
                            (_, true) => Joined::Another,
                        };
                        assert_eq!(joined, expected, "seed {seed}");
                    }
                    3 => {
                        let Some(key) = rooms.find(&RoomName::new(&name).unwrap()) else {
                            continue;
                        };
                        let members = model.get_mut(&name).unwrap();
                        let expected = match (members.remove(&session), members.len()) {
                            (false, _) => Left::NotMember,
                            (true, 0) => Left::Last,
                            (true, _) => Left::Others,
                        };
                        let (left, member) = rooms.leave(key, SessionId(session));
                        assert_eq!(left, expected, "seed {seed}");
                        assert_eq!(member.is_some(), left != Left::NotMember);
                        if expected == Left::Last {
                            rooms.remove(key);
                            model.remove(&name);
                        }
                    }
                    _ => {
                        for key in rooms.rooms_of(SessionId(session)) {
                            let (left, member) = rooms.leave(key, SessionId(session));
                            assert_eq!(member, Some(session));
                            let name = rooms.get_mut(key).unwrap().name.to_string();
                            let members = model.get_mut(&name).unwrap();
                            assert!(members.remove(&session));
                            assert_eq!(left == Left::Last, members.is_empty(), "seed {seed}");
                            if left == Left::Last {
                                rooms.remove(key);
                                model.remove(&name);
                            }
                        }
                        assert!(model.values().all(|members| !members.contains(&session)));
                    }
                }
                assert_eq!(rooms.len(), model.len());
                for (name, members) in &model {
                    let key = rooms.find(&RoomName::new(name).unwrap()).unwrap();
                    let listed: BTreeSet<u64> = rooms
                        .get_mut(key)
                        .unwrap()
                        .members
                        .iter()
                        .map(|member| member.value)
                        .collect();
                    assert_eq!(&listed, members, "seed {seed}");
                    for session in members {
                        assert!(rooms.has(key, SessionId(*session)), "seed {seed}");
                        let member = rooms.member_mut(key, SessionId(*session));
                        assert_eq!(member.copied(), Some(*session), "seed {seed}");
                    }
                }
            }
        }
    }
}
