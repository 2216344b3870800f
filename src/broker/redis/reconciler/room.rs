//! What is wanted and what is known of one room.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::{Said, Who};
use crate::model::member::Info;

/// How often a room's anonymous connections are counted anew at most: nobody is told of them, so
/// they need not be exact.
const COUNT_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Room {
    pub record: Record,
    pub users: HashMap<Who, Entry>,
    /// What of it is to be said.
    pub unsaid: BTreeSet<Who>,
    /// Of whom something may yet be done that was asked before, and until when.
    pub doubt: BTreeSet<Who>,
    pub until: u64,
    /// A version that the list has had.
    pub version: u64,
    pub queued: bool,
    /// It stands in `later`.
    pub waits: bool,
    /// When the anonymous were counted last.
    counted: Option<Instant>,
}

/// Whether the store knows that this node is in the room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Record {
    #[default]
    Off,
    Asked(u64),
    On(u64),
}

/// What is wanted.
#[derive(Debug)]
pub struct Entry {
    pub connections: u32,
    pub info: Option<Info>,
    /// It was asked at least once: the store may have something of the user.
    pub asked: bool,
}

impl Room {
    /// What is to be said now of at most so many.
    pub fn say(&mut self, max: usize, now: Instant) -> Vec<Said> {
        let mut said = Vec::new();
        let early = self.counted.is_some_and(|at| now < at + COUNT_EVERY);
        let next = self
            .unsaid
            .iter()
            .filter(|who| !early || **who != Who::Anonymous);
        let next: Vec<Who> = next.take(max).cloned().collect();
        for who in next {
            self.unsaid.remove(&who);
            let Some(entry) = self.users.get_mut(&who) else {
                continue;
            };
            entry.asked = true;
            if who == Who::Anonymous {
                self.counted = Some(now);
            }
            said.push(Said {
                connections: entry.connections,
                info: entry.info.clone(),
                who,
            });
        }
        said
    }

    /// When the anonymous may be counted again, if that is to be waited for and is not yet.
    pub fn wait_for_count(&mut self, now: Instant) -> Option<Instant> {
        let due = self.counted? + COUNT_EVERY;
        let waits = self.unsaid.contains(&Who::Anonymous) && now < due && !self.waits;
        self.waits |= waits;
        waits.then_some(due)
    }
}
