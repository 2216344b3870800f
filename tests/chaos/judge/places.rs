//! The position of each publication: what was attempted, acknowledged and received, whether all
//! clients received the same at each position, and whether acknowledged publications are still
//! there after faults that must not lose them.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::epochs::Epochs;
use crate::history::{Event, Fate, Loss, Position};

/// How many single findings are printed; the others are only counted.
const NOTES: usize = 5;

/// A publication's name: its publisher, and its number among the publisher's.
pub type Name = (usize, u64);

#[derive(Default)]
pub struct Places {
    publications: HashMap<Name, Publication>,
    pub epochs: Epochs,
    /// Clients, with the rooms in which they recover in an ended epoch.
    behind: HashMap<usize, HashSet<String>>,
    unexpected: usize,
    lost: usize,
    pub notes: Vec<String>,
}

#[derive(Default)]
struct Publication {
    room: String,
    acknowledged: Option<Position>,
    /// It was acknowledged before the last `Saved`.
    saved: bool,
    refused: bool,
    /// Where it was received, and whether by a client that was behind.
    seen: BTreeSet<(Position, bool)>,
    /// Its positions; known at the end.
    places: BTreeSet<Position>,
}

impl Places {
    pub fn take(&mut self, event: &Event) {
        self.epochs.take(event);
        match event {
            Event::Saved => {
                let acknowledged = self.publications.values_mut();
                acknowledged.for_each(|it| it.saved = it.acknowledged.is_some());
            }
            Event::Invoke {
                client, room, seq, ..
            } => {
                let publication = Publication {
                    room: room.clone(),
                    ..Publication::default()
                };
                self.publications.insert((*client, *seq), publication);
            }
            Event::Fail { client, seq, .. } => {
                if let Some(publication) = self.publications.get_mut(&(*client, *seq)) {
                    publication.refused = true;
                }
            }
            Event::Ok {
                client,
                room,
                seq,
                epoch,
                offset,
            } => {
                let at = Position {
                    epoch: epoch.clone(),
                    offset: *offset,
                };
                self.stands((*client, *seq), room, at.clone(), false);
                if let Some(publication) = self.publications.get_mut(&(*client, *seq)) {
                    publication.acknowledged = Some(at);
                }
            }
            Event::Receive {
                client,
                room,
                epoch,
                offset,
                publisher,
                seq,
                fate: Fate::Taken | Fate::Double | Fate::Beyond,
            } => {
                // Before the reply to a join (`Stale`) the client cannot know the epoch of a
                // message.
                let at = Position {
                    epoch: epoch.clone(),
                    offset: *offset,
                };
                let behind = self.is_behind(*client, room);
                self.stands((*publisher, *seq), room, at, behind);
            }
            Event::Joined {
                client,
                room,
                epoch,
                recovered,
                ..
            } => {
                let rooms = self.behind.entry(*client).or_default();
                if *recovered == Some(true) && !self.epochs.is_newest(room, epoch) {
                    rooms.insert(room.clone());
                } else {
                    rooms.remove(room);
                }
            }
            Event::Gap { client, room, .. } => {
                if let Some(rooms) = self.behind.get_mut(client) {
                    rooms.remove(room);
                }
            }
            _ => {}
        }
    }

    /// Whether a client recovers in an epoch of this room that has ended.
    pub fn is_behind(&self, client: usize, room: &str) -> bool {
        let rooms = self.behind.get(&client);
        rooms.is_some_and(|rooms| rooms.contains(room))
    }

    fn stands(&mut self, name: Name, room: &str, at: Position, behind: bool) {
        let Some(publication) = self.publications.get_mut(&name) else {
            return self.is_unexpected(format!("{room} {at:?}: {name:?} was never published"));
        };
        if publication.room != room {
            return self
                .is_unexpected(format!("{name:?} is in {room}, where it was not published"));
        }
        publication.seen.insert((at, behind));
    }

    /// The position of a message that a client received at `at`.
    pub fn resolve(&self, name: Name, room: &str, at: &Position, behind: bool) -> Position {
        let publication = self.publications.get(&name);
        let acknowledged = publication.and_then(|it| it.acknowledged.as_ref());
        self.epochs.resolve(room, at, behind, acknowledged)
    }

    /// Judges the positions at the end of the history.
    pub fn finish(&mut self) {
        let mut standing: HashMap<(String, Position), Name> = HashMap::new();
        let (mut notes, mut lost) = (Vec::new(), Vec::new());
        let epochs = &self.epochs;
        for (name, publication) in &mut self.publications {
            let (room, acknowledged) = (&publication.room, publication.acknowledged.as_ref());
            let seen = publication.seen.iter();
            let places = seen.map(|(at, behind)| epochs.resolve(room, at, *behind, acknowledged));
            publication.places = places.collect();
            for at in &publication.places {
                let place = (room.clone(), at.clone());
                let first = *standing.entry(place).or_insert(*name);
                if first != *name {
                    notes.push(format!(
                        "{room} {at:?} is {first:?} for one and {name:?} for another"
                    ));
                }
            }
            let Some(at) = acknowledged else { continue };
            let must_survive = match epochs.worst(room) {
                None | Some(Loss::Nothing) => true,
                Some(Loss::Tail) => publication.saved,
                Some(Loss::Everything) => false,
            };
            if must_survive && epochs.is_lost(room, at) {
                lost.push(format!(
                    "{name:?} was acknowledged at {at:?} of {room}, and a later epoch begins before"
                ));
            }
        }
        self.lost = lost.len();
        self.notes.extend(lost.into_iter().take(NOTES));
        notes.into_iter().for_each(|note| self.is_unexpected(note));
    }

    fn is_unexpected(&mut self, note: String) {
        self.unexpected += 1;
        if self.notes.len() < NOTES {
            self.notes.push(note);
        }
    }

    pub fn attempted(&self) -> usize {
        self.publications.len()
    }

    /// Rooms and positions of all that was acknowledged.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&str, &Position)> {
        (self.publications.values()).filter_map(|publication| {
            Some((&*publication.room, publication.acknowledged.as_ref()?))
        })
    }

    pub fn refused(&self) -> usize {
        self.publications
            .values()
            .filter(|publication| publication.refused)
            .count()
    }

    /// Without a reply, and received.
    pub fn recovered(&self) -> usize {
        let seen = |publication: &&Publication| {
            publication.acknowledged.is_none()
                && !publication.refused
                && !publication.places.is_empty()
        };
        self.publications.values().filter(seen).count()
    }

    /// Refused publications that a client received count too.
    pub fn unexpected(&self) -> usize {
        let denied =
            |publication: &&Publication| publication.refused && !publication.places.is_empty();
        self.unexpected + self.publications.values().filter(denied).count()
    }

    /// Acknowledged, and lost by faults that must not lose it.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// What must be in a room's history: the acknowledged publications that are not lost.
    pub fn survivors(&self, room: &str) -> HashMap<u64, Name> {
        let all = self.publications.iter();
        let of_the_room = all.filter(|(_, publication)| publication.room == room);
        let survivor = |(name, publication): (&Name, &Publication)| {
            let at = publication.acknowledged.as_ref()?;
            (!self.epochs.is_lost(room, at)).then_some((at.offset, *name))
        };
        of_the_room.filter_map(survivor).collect()
    }

    /// Whether this was published to this room, and not refused.
    pub fn is_of(&self, room: &str, name: Name) -> bool {
        let publication = self.publications.get(&name);
        publication.is_some_and(|it| it.room == room && !it.refused)
    }

    /// Publications at two positions although the first is not lost.
    pub fn duplicated(&self) -> usize {
        let twice = |publication: &&Publication| {
            let (room, places) = (&publication.room, &publication.places);
            let mut places: Vec<&Position> = places.iter().collect();
            places.sort_by_key(|at| (self.epochs.age(room, &at.epoch), at.offset));
            let is_lost = |pair: &[&Position]| self.epochs.may_repeat(room, pair[0], pair[1]);
            !places.windows(2).all(is_lost)
        };
        self.publications.values().filter(twice).count()
    }

    /// Publications of one publisher to one room that are before an earlier one: the publisher
    /// waits for each reply before the next.
    pub fn disordered(&self) -> usize {
        let mut standing: Vec<(usize, &str, &str, u64, u64)> = Vec::new();
        for ((publisher, seq), publication) in &self.publications {
            let room = publication.room.as_str();
            let places = publication.places.iter();
            standing.extend(places.map(|at| (*publisher, room, &*at.epoch, *seq, at.offset)));
        }
        standing.sort_unstable();
        let swapped = |pair: &&[(usize, &str, &str, u64, u64)]| {
            let (first, second) = (pair[0], pair[1]);
            let one_line = (first.0, first.1, first.2) == (second.0, second.1, second.2);
            one_line && first.4 > second.4
        };
        standing.windows(2).filter(swapped).count()
    }
}
