//! The epochs of each room: their order, the offset at which each begins, and what the faults may
//! have lost. A new epoch continues at the end of what survived of the former one, so its beginning
//! shows which positions of the former epochs are lost.
//!
//! ```text
//!   e   1  2  3  4  5          4 and 5 are a lost tail
//!   f            4  5  6       begins behind 3
//! ```

use std::collections::HashMap;

use crate::history::{Ends, Event, Loss, Position, Rooms};

#[derive(Default)]
pub struct Epochs {
    rooms: HashMap<String, Vec<Epoch>>,
    /// The worst loss so far, for all rooms and by room.
    worst: Option<Loss>,
    worst_in: HashMap<String, Loss>,
    /// How many epochs the faults have ended, for all rooms and by room.
    ended: usize,
    ended_in: HashMap<String, usize>,
}

struct Epoch {
    name: String,
    /// The first acknowledged offset in it. It comes from the log, so it is authoritative.
    acknowledged: Option<u64>,
    /// The lowest offset that a client was set to. It comes from a node, so it counts only if
    /// nothing was acknowledged.
    reported: Option<u64>,
}

impl Epochs {
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Fault {
                ends: Some(Ends { rooms, loss }),
                ..
            } => match rooms {
                Rooms::Everywhere => {
                    self.ended += 1;
                    self.worst = self.worst.max(Some(*loss));
                }
                Rooms::In(room) => {
                    *self.ended_in.entry(room.clone()).or_default() += 1;
                    let worst = self.worst_in.entry(room.clone()).or_insert(*loss);
                    *worst = (*worst).max(*loss);
                }
            },
            Event::Ok {
                room,
                epoch,
                offset,
                ..
            } => lower(&mut self.epoch(room, epoch).acknowledged, *offset),
            Event::Joined {
                room,
                epoch,
                offset,
                recovered: Some(false),
                ..
            }
            | Event::Gap {
                room,
                epoch,
                offset,
                ..
            } => lower(&mut self.epoch(room, epoch).reported, *offset),
            Event::Joined { room, epoch, .. } => {
                self.epoch(room, epoch);
            }
            _ => {}
        }
    }

    fn epoch(&mut self, room: &str, name: &str) -> &mut Epoch {
        if !self.rooms.contains_key(room) {
            self.rooms.insert(room.to_owned(), Vec::new());
        }
        let epochs = self.rooms.get_mut(room).expect("it was inserted");
        let index = epochs.iter().position(|known| known.name == name);
        let index = index.unwrap_or_else(|| {
            epochs.push(Epoch {
                name: name.to_owned(),
                acknowledged: None,
                reported: None,
            });
            epochs.len() - 1
        });
        &mut epochs[index]
    }

    fn of(&self, room: &str) -> &[Epoch] {
        self.rooms.get(room).map_or(&[], Vec::as_slice)
    }

    /// The index of an epoch among the room's; later ones are greater.
    pub fn age(&self, room: &str, epoch: &str) -> usize {
        let epochs = self.of(room).iter();
        epochs
            .enumerate()
            .find_map(|(age, known)| (known.name == epoch).then_some(age))
            .unwrap_or(0)
    }

    /// Whether this is the room's newest known epoch.
    pub fn is_newest(&self, room: &str, epoch: &str) -> bool {
        let newest = self.of(room).last();
        newest.is_none_or(|newest| newest.name == epoch)
    }

    /// How many epochs of a room the faults have ended so far.
    pub fn ended(&self, room: &str) -> usize {
        self.ended + self.ended_in.get(room).copied().unwrap_or(0)
    }

    /// The most that the faults so far may have lost of a room.
    pub fn worst(&self, room: &str) -> Option<Loss> {
        self.worst.max(self.worst_in.get(room).copied())
    }

    /// Whether a position was in a tail that the epoch of this age has lost.
    fn is_lost_by(&self, room: &str, at: &Position, age: usize) -> bool {
        let later = self.of(room).iter().take(age + 1);
        let mut later = later.skip(self.age(room, &at.epoch) + 1);
        later.any(|epoch| epoch.start().is_some_and(|start| start < at.offset))
    }

    /// Whether a position is no longer in the log, because its tail was lost.
    pub fn is_lost(&self, room: &str, at: &Position) -> bool {
        self.is_lost_by(room, at, usize::MAX - 1)
    }

    /// Whether a publication at `first` may be at `second` too: a retry with the same key publishes
    /// it again if the first position is lost.
    pub fn may_repeat(&self, room: &str, first: &Position, second: &Position) -> bool {
        let later = self.age(room, &second.epoch);
        match self.worst(room) {
            None | Some(Loss::Nothing) => false,
            Some(Loss::Tail) => self.is_lost_by(room, first, later),
            Some(Loss::Everything) => self.age(room, &first.epoch) < later,
        }
    }

    /// The position of a message that a client received while its position was in `at.epoch`. That
    /// is not the message's own epoch if the client is `behind` in an ended epoch and receives the
    /// rest of several epochs, or was set to the end of an epoch that is not the last ended one.
    pub fn resolve(
        &self,
        room: &str,
        at: &Position,
        behind: bool,
        acknowledged: Option<&Position>,
    ) -> Position {
        let Some(own) = acknowledged.filter(|own| own.offset == at.offset) else {
            return at.clone();
        };
        let (stood, age) = (self.age(room, &at.epoch), self.age(room, &own.epoch));
        let start = self.of(room).get(stood).and_then(Epoch::start);
        let earlier = age < stood && start.is_some_and(|start| at.offset <= start);
        let later = age > stood && behind;
        if earlier || later { own } else { at }.clone()
    }
}

impl Epoch {
    /// The offset after which it begins.
    fn start(&self) -> Option<u64> {
        let acknowledged = self.acknowledged.map(|first| first.saturating_sub(1));
        acknowledged.or(self.reported)
    }
}

fn lower(lowest: &mut Option<u64>, offset: u64) {
    *lowest = Some(lowest.map_or(offset, |lowest| lowest.min(offset)));
}
