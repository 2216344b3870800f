//! A room as a client knows it: where it stands, and the publishes that wait for their answers.

use std::collections::VecDeque;

use crate::history::{Fate, Position};

#[derive(Debug, Default)]
pub struct Room {
    pub state: State,
    pub position: Option<Position>,
    pub queue: VecDeque<Entry>,
    /// Joins in a row that were answered "not now".
    pub tries: u32,
    /// The offset at which a hole was last met.
    pub hole: Option<u64>,
    /// Only published to, never joined.
    pub foreign: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Waiting,
    Joining,
    Joined,
}

/// A publish that has no answer.
#[derive(Debug)]
pub struct Entry {
    pub seq: u64,
    pub key: String,
    pub size: usize,
    /// On its way on the present connection.
    pub sent: bool,
    pub tries: u32,
}

impl Entry {
    pub fn new(seq: u64, key: String, size: usize) -> Self {
        Self {
            seq,
            key,
            size,
            sent: false,
            tries: 0,
        }
    }
}

impl Room {
    pub fn foreign() -> Self {
        Self {
            foreign: true,
            ..Self::default()
        }
    }

    pub fn wanted(&self) -> bool {
        !self.foreign
    }

    pub fn is_joined(&self) -> bool {
        self.state == State::Joined
    }

    /// The connection is gone.
    pub fn lost(&mut self) {
        self.state = State::Waiting;
        if let Some(first) = self.queue.front_mut() {
            first.sent = false;
        }
    }

    /// The answer to a join; true if the room is whole.
    pub fn joined(&mut self, answer: Position, since: Option<&Position>, recovered: bool) {
        let whole = since.filter(|since| recovered && since.epoch == answer.epoch);
        let offset = whole.map_or(answer.offset, |since| answer.offset.max(since.offset));
        self.position = Some(Position { offset, ..answer });
        self.state = State::Joined;
        self.tries = 0;
    }

    /// What becomes of a message.
    pub fn take(&mut self, offset: u64) -> Fate {
        let Some(position) = self
            .position
            .as_mut()
            .filter(|_| self.state == State::Joined)
        else {
            return Fate::Stale;
        };
        if offset <= position.offset {
            return Fate::Double;
        }
        if offset > position.offset + 1 {
            return Fate::Beyond;
        }
        position.offset = offset;
        self.hole = None;
        Fate::Taken
    }
}
