//! The oracle. It records what clients attempt, which replies they get and what they receive,
//! compares that with the history of the store, and reports in Jepsen's terms: lost, duplicated,
//! disordered, unexpected, unknown but seen, reported gaps, false alarms.

use std::collections::{HashMap, HashSet};

use switchboard::model::id::{Epoch, Position};

use super::redis::Truth;

/// Kinds of violations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A hole without a reported gap, or an acknowledged publication that is not in the log.
    Lost,
    Duplicated,
    Disordered,
    /// Received and never published, or refused and yet executed.
    Unexpected,
    /// A gap was reported where nothing was lost.
    FalseAlarm,
    /// A request without a reply, or a client or node that does not settle.
    Stuck,
    /// A client that reads promptly was closed as slow.
    FalseSlow,
    /// The list of members holds a user that is not in the room, or lacks one that is.
    WrongMembers,
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
    /// The server replied that nothing was done.
    Refused,
    Unknown,
}

/// One attempted publication. Each value is published by one attempt only.
#[derive(Debug)]
pub struct Attempt {
    pub room: usize,
    pub client: usize,
    pub ephemeral: bool,
    pub outcome: Outcome,
}

/// Counts of one schedule, or of many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub attempted: u64,
    pub acknowledged: u64,
    pub unknown: u64,
    pub unknown_seen: u64,
    pub seen: u64,
    pub gaps: u64,
    pub recovered: u64,
    pub slow: u64,
    pub connections: u64,
    pub reads: u64,
    /// `joined` and `left` events that clients received.
    pub presence_events: u64,
}

impl Figures {
    pub fn add(&mut self, other: Figures) {
        self.attempted += other.attempted;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.unknown_seen += other.unknown_seen;
        self.seen += other.seen;
        self.gaps += other.gaps;
        self.recovered += other.recovered;
        self.slow += other.slow;
        self.connections += other.connections;
        self.reads += other.reads;
        self.presence_events += other.presence_events;
    }
}

/// What one client's callbacks received in one room.
#[derive(Debug, Default)]
struct View {
    /// The position at which each value was received.
    seen: HashMap<u64, Position>,
    at: Option<Position>,
    /// Every message received, to be compared with the store's history.
    received: Vec<(Epoch, u64, Option<u64>)>,
}

#[derive(Default)]
pub struct Oracle {
    pub attempts: Vec<Attempt>,
    views: HashMap<(usize, usize), View>,
    pub violations: Vec<Violation>,
    pub figures: Figures,
}

impl Oracle {
    pub fn violate(&mut self, kind: Kind, text: String) {
        self.violations.push(Violation { kind, text });
    }

    /// Records a new publication; its value is the index of the attempt.
    pub fn attempt(&mut self, client: usize, room: usize, ephemeral: bool) -> u64 {
        self.figures.attempted += 1;
        self.attempts.push(Attempt {
            room,
            client,
            ephemeral,
            outcome: Outcome::Attempted,
        });
        self.attempts.len() as u64 - 1
    }

    pub fn answered(&mut self, value: u64, outcome: Outcome) {
        match outcome {
            Outcome::Acknowledged(_) => self.figures.acknowledged += 1,
            Outcome::Unknown => self.figures.unknown += 1,
            Outcome::Attempted | Outcome::Refused => {}
        }
        self.attempts[value as usize].outcome = outcome;
    }

    /// A client without a position joins a room. Its node may be behind others.
    pub fn join(&mut self, client: usize, room: usize, at: Position) {
        let view = self.views.entry((client, room)).or_default();
        view.seen.clear();
        view.at = Some(at);
    }

    /// A client received a gap and continues from `at`.
    pub fn move_to(&mut self, client: usize, room: usize, at: Position) {
        let view = self.views.entry((client, room)).or_default();
        view.at = Some(at);
    }

    /// The position at which a client received a value before.
    pub fn seen_at(&self, client: usize, room: usize, value: u64) -> Option<Position> {
        self.views.get(&(client, room))?.seen.get(&value).copied()
    }

    /// A client's callback received a message; `None` is its own, delivered without its data.
    /// `again`: it received it before, and the log has not lost it since.
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
        view.received.push((at.epoch, at.offset, value));
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
            .attempts
            .get(value as usize)
            .is_some_and(|attempt| attempt.room == room && attempt.ephemeral);
        if !fits || again {
            self.violate(
                Kind::Duplicated,
                format!("client {client} in r{room}: ephemeral {value}"),
            );
        }
    }

    /// Compares everything that clients received, and every reply, with the store's history, after
    /// the end of the schedule.
    pub fn judge(&mut self, truth: &[&Truth]) {
        let mut wrong = Vec::new();
        let mut seen = HashSet::new();
        for ((client, room), view) in &self.views {
            for (epoch, offset, value) in &view.received {
                let (epoch, offset) = (*epoch, *offset);
                let stored = truth[*room].at(Position { epoch, offset });
                let own =
                    stored.is_some_and(|value| self.attempts[value as usize].client == *client);
                if stored.is_none()
                    || (value.is_some() && stored != *value)
                    || (value.is_none() && !own)
                {
                    wrong.push((
                        Kind::Unexpected,
                        format!(
                            "client {client} in r{room} saw {value:?} at {epoch}:{offset}, where \
                             {stored:?} is stored"
                        ),
                    ));
                }
                seen.extend(stored);
            }
        }
        let mut places: HashMap<u64, Vec<Epoch>> = HashMap::new();
        for truth in truth {
            for ((epoch, _), value) in &truth.values {
                places.entry(*value).or_default().push(*epoch);
            }
        }
        for (value, attempt) in self.attempts.iter().enumerate() {
            let value = value as u64;
            let mut epochs = places.remove(&value).unwrap_or_default();
            let count = epochs.len();
            epochs.sort_unstable();
            epochs.dedup();
            if epochs.len() != count {
                wrong.push((Kind::Duplicated, format!("{value} is twice in an epoch")));
            }
            match attempt.outcome {
                Outcome::Acknowledged(at)
                    if !attempt.ephemeral && truth[attempt.room].at(at) != Some(value) =>
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
