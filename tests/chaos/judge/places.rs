//! Which publication stands where: what was attempted, acknowledged and seen, and whether all who saw a place saw the same there.

use std::collections::{BTreeSet, HashMap};

use crate::history::{Event, Fate, Position};

/// How many single findings are told; the rest is only counted.
const NOTES: usize = 5;

/// A publication's name: who published it, and the how-manieth it was.
type Name = (usize, u64);

#[derive(Default)]
pub struct Places {
    publications: HashMap<Name, Publication>,
    /// Room and position, and what stands there.
    standing: HashMap<(String, Position), Name>,
    /// The epochs of each room in the order in which they were first heard of.
    epochs: HashMap<String, Vec<String>>,
    losses: bool,
    unexpected: usize,
    pub notes: Vec<String>,
}

#[derive(Default)]
struct Publication {
    room: String,
    acknowledged: Option<Position>,
    refused: bool,
    places: BTreeSet<Position>,
}

impl Places {
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Fault { loses: Some(_), .. } => self.losses = true,
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
                self.stands((*client, *seq), room, at.clone());
                if let Some(publication) = self.publications.get_mut(&(*client, *seq)) {
                    publication.acknowledged = Some(at);
                }
            }
            Event::Receive {
                room,
                epoch,
                offset,
                publisher,
                seq,
                fate: Fate::Taken | Fate::Double | Fate::Beyond,
                ..
            } => {
                // Before a join is answered (`Stale`) the client cannot know of which epoch a message is.
                let at = Position {
                    epoch: epoch.clone(),
                    offset: *offset,
                };
                self.stands((*publisher, *seq), room, at);
            }
            Event::Joined { room, epoch, .. } | Event::Gap { room, epoch, .. } => {
                self.epoch(room, epoch);
            }
            _ => {}
        }
    }

    fn epoch(&mut self, room: &str, epoch: &str) {
        let epochs = match self.epochs.get_mut(room) {
            Some(epochs) => epochs,
            None => self.epochs.entry(room.to_owned()).or_default(),
        };
        if !epochs.iter().any(|known| known == epoch) {
            epochs.push(epoch.to_owned());
        }
    }

    fn stands(&mut self, name: Name, room: &str, at: Position) {
        self.epoch(room, &at.epoch);
        let Some(publication) = self.publications.get_mut(&name) else {
            return self.is_unexpected(format!("{room} {at:?}: {name:?} was never published"));
        };
        if publication.room != room {
            return self
                .is_unexpected(format!("{name:?} is in {room}, where it was not published"));
        }
        publication.places.insert(at.clone());
        let first = *self
            .standing
            .entry((room.to_owned(), at.clone()))
            .or_insert(name);
        if first != name {
            self.is_unexpected(format!(
                "{room} {at:?} is {first:?} for one and {name:?} for another"
            ));
        }
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

    /// Never answered, and seen.
    pub fn recovered(&self) -> usize {
        let seen = |publication: &&Publication| {
            publication.acknowledged.is_none()
                && !publication.refused
                && !publication.places.is_empty()
        };
        self.publications.values().filter(seen).count()
    }

    /// What was refused and seen nevertheless counts too.
    pub fn unexpected(&self) -> usize {
        let denied =
            |publication: &&Publication| publication.refused && !publication.places.is_empty();
        self.unexpected + self.publications.values().filter(denied).count()
    }

    /// Publications that stand in two places. Where Redis forgot what it had, the second place is a repair.
    pub fn duplicated(&self) -> usize {
        let twice = |publication: &&Publication| {
            let mut epochs: Vec<&str> = publication
                .places
                .iter()
                .map(|at| at.epoch.as_str())
                .collect();
            let all = epochs.len();
            epochs.dedup();
            all > epochs.len() || (all > 1 && !self.losses)
        };
        self.publications.values().filter(twice).count()
    }

    /// Publications of one publisher to one room that stand before an earlier one: it waits for each answer before the next.
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

    /// Which of a room's epochs this is; later ones are greater.
    pub fn age(&self, room: &str, epoch: &str) -> usize {
        let epochs = self.epochs.get(room);
        epochs
            .and_then(|epochs| epochs.iter().position(|known| known == epoch))
            .unwrap_or(0)
    }
}
