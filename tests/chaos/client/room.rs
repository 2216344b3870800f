//! A client's state of a room: its position, and the publishes without a reply.

use std::collections::VecDeque;

use crate::history::{Fate, Position};

#[derive(Debug, Default)]
pub struct Room {
    pub state: State,
    pub position: Option<Position>,
    pub queue: VecDeque<Entry>,
    /// Consecutive joins that were refused temporarily.
    pub tries: u32,
    /// The offset of the last hole.
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

/// A publish without a reply.
#[derive(Debug)]
pub struct Entry {
    pub seq: u64,
    pub key: String,
    pub size: usize,
    /// It was sent on the present connection.
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

    /// Handles the loss of the connection.
    pub fn lost(&mut self) {
        self.state = State::Waiting;
        if let Some(first) = self.queue.front_mut() {
            first.sent = false;
        }
    }

    /// Handles the reply to a join. Returns whether the room has no hole.
    pub fn joined(&mut self, answer: Position, since: Option<&Position>, recovered: bool) {
        let whole = since.filter(|since| recovered && since.epoch == answer.epoch);
        let offset = whole.map_or(answer.offset, |since| answer.offset.max(since.offset));
        self.position = Some(Position { offset, ..answer });
        self.state = State::Joined;
        self.tries = 0;
    }

    /// Decides the fate of a message.
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
