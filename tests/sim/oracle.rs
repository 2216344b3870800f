//! The judge. It is told what clients attempt, what they are answered and what they see, knows the
//! truth of the store, and speaks in Jepsen's terms: lost, duplicated, disordered, unexpected,
//! unknown but seen, told gaps, false alarms.

use std::collections::{HashMap, HashSet};

use switchboard::model::id::{Epoch, Position};

use super::redis::Truth;

/// What may not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A hole that nobody was told of, or something acknowledged that is not in the log.
    Lost,
    Duplicated,
    Disordered,
    /// Seen and never said, or refused and yet done.
    Unexpected,
    /// A loss was told where nothing was lost.
    FalseAlarm,
    /// A request without an answer, a client or a node that does not come to rest.
    Stuck,
    /// A client that reads promptly was closed as slow.
    FalseSlow,
    /// Somebody is listed who is not there, or not who is.
    Ghost,
}

#[derive(Debug)]
pub struct Violation {
    pub kind: Kind,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Attempted,
    Acknowledged(Position),
    /// Nothing has happened, says the server.
    Refused,
    Unknown,
}

/// One publication: a value is said once.
#[derive(Debug)]
pub struct Saying {
    pub room: usize,
    pub client: usize,
    pub ephemeral: bool,
    pub outcome: Outcome,
}

/// What happened in a schedule, or in many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub attempted: u64,
    pub acknowledged: u64,
    pub unknown: u64,
    pub unknown_seen: u64,
    pub seen: u64,
    pub told: u64,
    pub recovered: u64,
    pub slow: u64,
    pub connections: u64,
    pub reads: u64,
    /// Joinings and leavings that a client was told.
    pub comings: u64,
}

impl Figures {
    pub fn add(&mut self, other: Figures) {
        self.attempted += other.attempted;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.unknown_seen += other.unknown_seen;
        self.seen += other.seen;
        self.told += other.told;
        self.recovered += other.recovered;
        self.slow += other.slow;
        self.connections += other.connections;
        self.reads += other.reads;
        self.comings += other.comings;
    }
}

/// What one client knows of one room, as its callbacks saw it.
#[derive(Debug, Default)]
struct View {
    /// Where each value was seen.
    seen: HashMap<u64, Position>,
    at: Option<Position>,
    /// Values of this epoch, to be compared with the truth.
    places: Vec<(Epoch, u64, Option<u64>)>,
}

#[derive(Default)]
pub struct Oracle {
    pub sayings: Vec<Saying>,
    views: HashMap<(usize, usize), View>,
    pub violations: Vec<Violation>,
    pub figures: Figures,
}

impl Oracle {
    pub fn violate(&mut self, kind: Kind, text: String) {
        self.violations.push(Violation { kind, text });
    }

    /// A new publication; its value is the number of the saying.
    pub fn attempt(&mut self, client: usize, room: usize, ephemeral: bool) -> u64 {
        self.figures.attempted += 1;
        self.sayings.push(Saying {
            room,
            client,
            ephemeral,
            outcome: Outcome::Attempted,
        });
        self.sayings.len() as u64 - 1
    }

    pub fn answered(&mut self, value: u64, outcome: Outcome) {
        match outcome {
            Outcome::Acknowledged(_) => self.figures.acknowledged += 1,
            Outcome::Unknown => self.figures.unknown += 1,
            Outcome::Attempted | Outcome::Refused => {}
        }
        self.sayings[value as usize].outcome = outcome;
    }

    /// A client that has seen nothing yet enters a room. A node may be behind others.
    pub fn enters(&mut self, client: usize, room: usize, at: Position) {
        let view = self.views.entry((client, room)).or_default();
        view.seen.clear();
        view.at = Some(at);
    }

    /// A client was told of a loss and stands here now.
    pub fn stands(&mut self, client: usize, room: usize, at: Position) {
        let view = self.views.entry((client, room)).or_default();
        view.at = Some(at);
    }

    /// Where a client has seen a value before.
    pub fn seen_at(&self, client: usize, room: usize, value: u64) -> Option<Position> {
        self.views.get(&(client, room))?.seen.get(&value).copied()
    }

    /// A client's callback got a message; `None` stands for its own, which it did not want back.
    /// `again`: it got it before, and the log has not lost it meanwhile.
    pub fn sees(
        &mut self,
        client: usize,
        room: usize,
        at: Position,
        value: Option<u64>,
        again: bool,
    ) {
        self.figures.seen += 1;
        let view = self.views.entry((client, room)).or_default();
        let former = view.at.replace(at);
        view.places.push((at.epoch, at.offset, value));
        if let Some(value) = value {
            view.seen.insert(value, at);
        }
        let text = format!("client {client} in r{room}: {value:?} at {at:?} after {former:?}");
        let kind = match former {
            Some(former) if former.epoch != at.epoch => Kind::Lost,
            Some(former) if at.offset <= former.offset => Kind::Disordered,
            Some(former) if at.offset != former.offset + 1 => Kind::Lost,
            None => Kind::Unexpected,
            Some(_) if again => Kind::Duplicated,
            Some(_) => return,
        };
        self.violate(kind, text);
    }

    pub fn sees_ephemeral(&mut self, client: usize, room: usize, value: u64, again: bool) {
        let fits = self
            .sayings
            .get(value as usize)
            .is_some_and(|saying| saying.room == room && saying.ephemeral);
        if !fits || again {
            self.violate(
                Kind::Duplicated,
                format!("client {client} in r{room}: ephemeral {value}"),
            );
        }
    }

    /// The schedule is over: everything that was seen, and everything that was answered, is
    /// compared with the truth.
    pub fn judge(&mut self, truth: &[&Truth]) {
        let mut wrong = Vec::new();
        let mut seen = HashSet::new();
        for ((client, room), view) in &self.views {
            for (epoch, offset, value) in &view.places {
                let (epoch, offset) = (*epoch, *offset);
                let said = truth[*room].at(Position { epoch, offset });
                let own = said.is_some_and(|said| self.sayings[said as usize].client == *client);
                if said.is_none()
                    || (value.is_some() && said != *value)
                    || (value.is_none() && !own)
                {
                    wrong.push((
                        Kind::Unexpected,
                        format!("client {client} in r{room} saw {value:?} at {epoch}:{offset}, where {said:?} was said"),
                    ));
                }
                seen.extend(said);
            }
        }
        let mut places: HashMap<u64, Vec<Epoch>> = HashMap::new();
        for truth in truth {
            for ((epoch, _), value) in &truth.values {
                places.entry(*value).or_default().push(*epoch);
            }
        }
        for (value, saying) in self.sayings.iter().enumerate() {
            let value = value as u64;
            let mut epochs = places.remove(&value).unwrap_or_default();
            let count = epochs.len();
            epochs.sort_unstable();
            epochs.dedup();
            if epochs.len() != count {
                wrong.push((Kind::Duplicated, format!("{value} is twice in an epoch")));
            }
            match saying.outcome {
                Outcome::Acknowledged(at)
                    if !saying.ephemeral && truth[saying.room].at(at) != Some(value) =>
                {
                    wrong.push((
                        Kind::Lost,
                        format!("{value} was acknowledged at {at:?} and is not there"),
                    ));
                }
                Outcome::Refused if count > 0 => {
                    wrong.push((
                        Kind::Unexpected,
                        format!("{value} was refused and is there"),
                    ));
                }
                Outcome::Unknown | Outcome::Attempted if seen.contains(&value) => {
                    self.figures.unknown_seen += 1;
                }
                _ => {}
            }
        }
        for (kind, text) in wrong {
            self.violate(kind, text);
        }
    }
}
