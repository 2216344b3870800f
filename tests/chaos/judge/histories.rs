//! The history of each room at the end, compared with what was acknowledged: all that survived is
//! in it, each publication once, without holes.

use std::collections::{HashMap, HashSet};

use super::places::Places;
use crate::history::{Event, Kept};

const NOTES: usize = 4;

/// The number of messages that a room's log keeps. A shorter history begins with the room's first
/// message that survived.
const LOG: usize = 1000;

#[derive(Default)]
pub struct Histories {
    all: Vec<(usize, String, Vec<Kept>)>,
}

#[derive(Default)]
pub struct Found {
    pub read: usize,
    pub wrong: usize,
    pub notes: Vec<String>,
}

impl Histories {
    pub fn take(&mut self, event: &Event) {
        if let Event::History {
            client,
            room,
            messages,
            ..
        } = event
        {
            self.all.push((*client, room.clone(), messages.clone()));
        }
    }

    pub fn finish(self, places: &Places) -> Found {
        let mut found = Found {
            read: self.all.len(),
            ..Found::default()
        };
        for (client, room, messages) in &self.all {
            if let Some(fault) = fault(room, messages, places) {
                found.wrong += 1;
                if found.notes.len() < NOTES {
                    let note = format!("the history of {room} that client {client} read {fault}");
                    found.notes.push(note);
                }
            }
        }
        found
    }
}

/// Describes the error in a history; `None` if it is right.
fn fault(room: &str, messages: &[Kept], places: &Places) -> Option<String> {
    let steps = messages.windows(2);
    let mut holes = steps.filter(|pair| pair[1].offset != pair[0].offset + 1);
    if let Some(pair) = holes.next() {
        return Some(format!("has {} before {}", pair[0].offset, pair[1].offset));
    }
    let mut names = HashSet::new();
    for Kept {
        offset,
        publisher,
        seq,
    } in messages
    {
        let name = (*publisher, *seq);
        if !places.is_of(room, name) {
            return Some(format!("has {name:?} at {offset}, which it must not"));
        }
        if !names.insert(name) {
            return Some(format!("has {name:?} twice, the second time at {offset}"));
        }
    }
    let first = messages.first().map_or(0, |first| first.offset);
    let trimmed = if messages.len() < LOG { 0 } else { first };
    let listed: HashMap<u64, (usize, u64)> = messages
        .iter()
        .map(|it| (it.offset, (it.publisher, it.seq)))
        .collect();
    let survivors = places.survivors(room);
    let mut missing: Vec<_> = survivors
        .iter()
        .filter(|(offset, name)| **offset >= trimmed && listed.get(offset) != Some(name))
        .collect();
    missing.sort_unstable();
    let (offset, name) = missing.first()?;
    let count = missing.len();
    Some(format!(
        "lacks {count} that survived, the first is {name:?} at {offset}"
    ))
}
