//! What each client received in each of its rooms, checked twice: on the socket, where the server
//! promises order without holes, and in the application, after the client has recovered what it
//! could.

use std::collections::{BTreeSet, HashMap};

use super::places::{Name, Places};
use crate::history::{Event, Fate, Loss, Position};

const NOTES: usize = 8;

#[derive(Default)]
pub struct Streams {
    streams: HashMap<(usize, String), Stream>,
    found: Found,
    repeats: Vec<Repeat>,
}

/// A publication that a client's application received twice, and where. Whether that is allowed is
/// known at the end.
struct Repeat {
    client: usize,
    room: String,
    name: Name,
    sightings: [Sighting; 2],
}

/// A position, and whether the client was then recovering in an ended epoch.
type Sighting = (Position, bool);

#[derive(Default)]
pub struct Found {
    pub memberships: usize,
    pub lost: usize,
    pub duplicated: usize,
    pub disordered: usize,
    pub unexpected: usize,
    pub gaps: usize,
    pub notified_members: usize,
    pub false_alarms: usize,
    pub notes: Vec<String>,
}

impl Found {
    fn note(&mut self, note: impl FnOnce() -> String) {
        if self.notes.len() < NOTES {
            self.notes.push(note());
        }
    }
}

/// One client in one room.
#[derive(Default)]
struct Stream {
    /// The first position, and the application's position.
    start: Option<Position>,
    position: Option<Position>,
    /// The last offset on the present connection.
    wire: Option<u64>,
    /// Offsets that the wire skipped, and that have not arrived since.
    missing: BTreeSet<u64>,
    gaps: usize,
    end: Option<Position>,
    /// What the application received, and the last position of each.
    taken: HashMap<Name, Sighting>,
}

impl Streams {
    /// Takes an event, after `places` has taken it.
    pub fn take(&mut self, event: &Event, places: &Places) {
        match event {
            Event::Joined {
                client,
                room,
                epoch,
                offset,
                since,
                recovered,
                ..
            } => {
                let answer = Position {
                    epoch: epoch.clone(),
                    offset: *offset,
                };
                self.joined(*client, room, answer, since.as_ref(), *recovered, places);
            }
            Event::Gap {
                client,
                room,
                epoch,
                offset,
            } => {
                let position = Position {
                    epoch: epoch.clone(),
                    offset: *offset,
                };
                self.gap(*client, room, position, places);
            }
            Event::Receive {
                client,
                room,
                epoch,
                offset,
                publisher,
                seq,
                fate,
            } => {
                let at = Position {
                    epoch: epoch.clone(),
                    offset: *offset,
                };
                if *fate == Fate::Taken {
                    let sighting = (at.clone(), places.is_behind(*client, room));
                    self.taken(*client, room, (*publisher, *seq), sighting);
                }
                self.receive(*client, room, &at, *fate);
            }
            Event::End {
                client,
                room,
                position,
            } => self.stream(*client, room).end.clone_from(position),
            _ => {}
        }
    }

    fn stream(&mut self, client: usize, room: &str) -> &mut Stream {
        self.streams.entry((client, room.to_owned())).or_default()
    }

    fn joined(
        &mut self,
        client: usize,
        room: &str,
        answer: Position,
        since: Option<&Position>,
        recovered: Option<bool>,
        places: &Places,
    ) {
        self.settle_wire(client, room);
        let stream = self.stream(client, room);
        stream.wire = Some(answer.offset);
        let Some(since) = since else {
            stream.start.get_or_insert_with(|| answer.clone());
            stream.position = Some(answer);
            return;
        };
        if recovered != Some(true) {
            return self.gap(client, room, answer, places);
        }
        let skipped = answer.offset.saturating_sub(since.offset);
        if answer.epoch != since.epoch {
            self.found.unexpected += 1;
            self.found.note(|| {
                format!(
                    "client {client} in {room}: recovered from {since:?} to {answer:?}, \
                     another epoch"
                )
            });
        } else if skipped > 0 {
            self.found.lost += skipped as usize;
            self.found.note(|| {
                format!(
                    "client {client} in {room}: recovered at {answer:?}, \
                     and its position was {since:?}"
                )
            });
        }
    }

    /// The client received a gap, or a join that is not recovered: this is its position now.
    fn gap(&mut self, client: usize, room: &str, position: Position, places: &Places) {
        self.settle_wire(client, room);
        let expected = places.epochs.ended(room);
        let stream = self.stream(client, room);
        stream.gaps += 1;
        stream.wire = Some(position.offset);
        let former = stream.position.replace(position.clone());
        let is_false_alarm = stream.gaps > expected;
        self.found.gaps += 1;
        if is_false_alarm {
            self.found.false_alarms += 1;
            self.found.note(|| {
                format!(
                    "client {client} in {room}: gap from {former:?} to {position:?} without fault"
                )
            });
        }
        let worst = places.epochs.worst(room);
        let Some(former) = former.filter(|_| worst != Some(Loss::Everything)) else {
            return;
        };
        // The rest of an ended epoch comes before the gap, and the gap is at its end.
        let skipped = position.offset.saturating_sub(former.offset);
        if skipped > 0 {
            self.found.lost += skipped as usize;
            self.found.note(|| {
                format!(
                    "client {client} in {room}: a gap from {former:?} to {position:?} \
                     skips messages that survived"
                )
            });
        }
        if position.offset < former.offset && worst != Some(Loss::Tail) {
            self.found.unexpected += 1;
            self.found.note(|| {
                format!(
                    "client {client} in {room}: a gap goes back from {former:?} \
                     to {position:?}, and nothing was lost"
                )
            });
        }
    }

    /// The application received a message: at most once, also across gaps.
    fn taken(&mut self, client: usize, room: &str, name: Name, sighting: Sighting) {
        let former = self
            .stream(client, room)
            .taken
            .insert(name, sighting.clone());
        if let Some(former) = former {
            self.repeats.push(Repeat {
                client,
                room: room.to_owned(),
                name,
                sightings: [former, sighting],
            });
        }
    }

    /// Offsets that this connection skipped do not arrive any more.
    fn settle_wire(&mut self, client: usize, room: &str) {
        let missing = std::mem::take(&mut self.stream(client, room).missing);
        if !missing.is_empty() {
            self.found.lost += missing.len();
            self.found
                .note(|| format!("client {client} in {room}: {missing:?} never came"));
        }
    }

    fn receive(&mut self, client: usize, room: &str, at: &Position, fate: Fate) {
        let Position { epoch, offset } = at;
        let offset = *offset;
        let stream = self.streams.entry((client, room.to_owned())).or_default();
        let found = &mut self.found;
        if stream.missing.remove(&offset) {
            found.disordered += 1;
            found.note(|| format!("client {client} in {room}: {offset} came late"));
        } else if fate != Fate::Stale {
            let wire = stream.wire.unwrap_or(0);
            if offset <= wire {
                found.duplicated += 1;
                found.note(|| {
                    format!("client {client} in {room}: {offset} came again after {wire}")
                });
            } else {
                // An absurd offset must not create a set of millions.
                stream.missing.extend((wire + 1..offset).take(10_000));
                stream.wire = Some(offset);
            }
        }
        if fate != Fate::Taken {
            return;
        }
        let position = stream.position.get_or_insert_with(|| Position {
            epoch: epoch.clone(),
            offset: 0,
        });
        let next = position.offset + 1;
        if position.epoch != *epoch || offset != next {
            let before = position.clone();
            match offset.cmp(&next) {
                std::cmp::Ordering::Less => found.duplicated += 1,
                _ => found.lost += (offset - next).max(1) as usize,
            }
            found.note(|| {
                format!(
                    "the application of client {client} in {room} received {epoch} {offset} \
                     after {before:?}"
                )
            });
        }
        position.clone_from(at);
    }

    /// Compares the position of each client with what was acknowledged.
    pub fn finish(mut self, places: &Places) -> Found {
        let mut acknowledged: HashMap<&str, Vec<(usize, &Position)>> = HashMap::new();
        for (room, at) in places.acknowledged() {
            let age = places.epochs.age(room, &at.epoch);
            acknowledged.entry(room).or_default().push((age, at));
        }
        let keys: Vec<(usize, String)> = self.streams.keys().cloned().collect();
        for (client, room) in &keys {
            self.settle_wire(*client, room);
            let stream = &self.streams[&(*client, room.clone())];
            let found = &mut self.found;
            found.memberships += 1;
            found.notified_members += usize::from(stream.gaps > 0);
            if stream.end != stream.position {
                found.unexpected += 1;
                found.note(|| {
                    format!(
                        "client {client} in {room} ends at {:?}, not {:?}",
                        stream.end, stream.position
                    )
                });
            }
            let Some(end) = &stream.position else {
                continue;
            };
            let age = places.epochs.age(room, &end.epoch);
            let all = acknowledged
                .get(room.as_str())
                .map_or(&[][..], Vec::as_slice);
            // Messages of former epochs were received, or the client received a gap.
            let unseen = all
                .iter()
                .filter(|(of, at)| *of > age || (*of == age && at.offset > end.offset))
                .count();
            if unseen > 0 {
                found.lost += unseen;
                found.note(|| {
                    format!(
                        "client {client} in {room} ends at {end:?}, \
                     and misses {unseen} that were acknowledged"
                    )
                });
            }
        }
        self.judge_repeats(places);
        self.found
    }

    /// `Places` checks publications at two positions; this checks one position that was delivered
    /// twice, with a gap in between.
    fn judge_repeats(&mut self, places: &Places) {
        let found = &mut self.found;
        for repeat in &self.repeats {
            let Repeat {
                client, room, name, ..
            } = repeat;
            let sightings = repeat.sightings.each_ref();
            let [first, second] =
                sightings.map(|(at, behind)| places.resolve(*name, room, at, *behind));
            if first == second {
                found.duplicated += 1;
                found.note(|| {
                    format!(
                        "client {client} in {room} got {name:?} twice: at {first:?}, across a gap"
                    )
                });
            }
        }
    }
}
