//! What was said in a room: a [`Run`] of publications without holes, the [`Log`] that the memory broker keeps of a
//! room, and the [`Recent`] messages that a node keeps so that returning clients cost no read.

mod recent;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::id::{Epoch, Position};
use crate::publication::{KEY_TTL, Page, Publication, PublishKey, Range};
use crate::retention::LogLimits;
pub use recent::Recent;

/// Publications at consecutive offsets: `first`, `first + 1`, …
#[derive(Clone, Debug, Default)]
pub struct Run {
    first: u64,
    entries: VecDeque<Arc<Publication>>,
    weight: usize,
}

impl Run {
    /// An empty run that begins here.
    fn at(first: u64) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// The offset behind the last one.
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Bytes held, as far as [`Publication::weight`] knows.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Adds the message that follows.
    fn push(&mut self, publication: Arc<Publication>) {
        self.weight += publication.weight();
        self.entries.push_back(publication);
    }

    /// Gives up the oldest message.
    fn pop(&mut self) {
        if let Some(publication) = self.entries.pop_front() {
            self.weight -= publication.weight();
            self.first += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the message with this offset is here.
    pub fn covers(&self, offset: u64) -> bool {
        offset >= self.first && offset - self.first < self.entries.len() as u64
    }

    /// The messages after `offset`, ascending, at most `limit`; empty when the next one is not here.
    pub fn after(
        &self,
        offset: u64,
        limit: usize,
    ) -> impl Iterator<Item = (u64, &Arc<Publication>)> {
        let skip = if self.covers(offset + 1) {
            (offset + 1 - self.first) as usize
        } else {
            self.len()
        };
        self.numbered(skip, limit)
    }

    /// The newest messages below `offset`, ascending, at most `limit`.
    pub fn before(
        &self,
        offset: u64,
        limit: usize,
    ) -> impl Iterator<Item = (u64, &Arc<Publication>)> {
        let end = (offset.saturating_sub(self.first) as usize).min(self.len());
        let skip = end.saturating_sub(limit);
        self.numbered(skip, end - skip)
    }

    fn numbered(
        &self,
        skip: usize,
        limit: usize,
    ) -> impl Iterator<Item = (u64, &Arc<Publication>)> {
        let first = self.first + skip as u64;
        (first..).zip(self.entries.iter().skip(skip)).take(limit)
    }
}

/// What logs occupy, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    pub messages: usize,
    /// The remembered keys of publications.
    pub keys: usize,
}

/// A room's log in the memory broker: everything Redis would keep of it.
#[derive(Clone, Debug)]
pub struct Log {
    top: Position,
    run: Run,
    /// When the messages are forgotten, all at once; renewed by each.
    expires: Instant,
    /// Keys of publications and what they got, and the same in the order they are forgotten.
    keys: HashMap<PublishKey, u64>,
    keys_by_age: VecDeque<(Instant, PublishKey)>,
    keys_weight: usize,
}

impl Log {
    pub fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            top: Position { epoch, offset: 0 },
            run: Run::default(),
            expires: now,
            keys: HashMap::new(),
            keys_by_age: VecDeque::new(),
            keys_weight: 0,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.top.epoch
    }

    /// Where the room stands.
    pub fn top(&self) -> Position {
        self.top
    }

    /// Bytes that its messages and its keys occupy, near enough.
    pub fn weight(&self) -> Weight {
        Weight {
            messages: self.run.weight(),
            keys: self.keys_weight,
        }
    }

    /// Gives up the oldest eighth of its messages, at least one.
    pub fn give_up_some(&mut self) {
        let kept = self.run.weight() / 8 * 7;
        while !self.run.is_empty() && self.run.weight() > kept {
            self.run.pop();
        }
        self.run.entries.shrink_to(2 * self.run.len());
    }

    /// The offset that this key got before, if it is remembered.
    pub fn offset_of(&mut self, key: &PublishKey, now: Instant) -> Option<u64> {
        self.forget_keys(now);
        self.keys.get(key).copied()
    }

    /// Gives up what is too old, without which it would stay until the room is used again.
    pub fn tidy(&mut self, now: Instant) {
        self.expire(now);
        self.forget_keys(now);
    }

    fn forget_keys(&mut self, now: Instant) {
        while let Some((forgotten, old)) = self.keys_by_age.front()
            && *forgotten <= now
        {
            self.keys_weight -= old.weight();
            self.keys.remove(old);
            self.keys_by_age.pop_front();
        }
    }

    /// Appends at the next offset, which it returns.
    pub fn append(
        &mut self,
        publication: Arc<Publication>,
        key: Option<PublishKey>,
        limits: LogLimits,
        now: Instant,
    ) -> Position {
        self.expire(now);
        self.top.offset += 1;
        if self.run.is_empty() {
            self.run = Run::at(self.top.offset);
        }
        self.run.push(publication);
        if self.run.len() > limits.size {
            self.run.pop();
        }
        self.expires = now + limits.age;
        if let Some(key) = key {
            self.keys_weight += key.weight();
            self.keys_by_age.push_back((now + KEY_TTL, key.clone()));
            self.keys.insert(key, self.top.offset);
        }
        self.top
    }

    /// Answers a read.
    pub fn page(&mut self, range: Range, limit: usize, now: Instant) -> Page {
        self.expire(now);
        let first = if self.run.is_empty() {
            self.top.offset + 1
        } else {
            self.run.first
        };
        let owned = |(offset, publication): (u64, &Arc<Publication>)| (offset, publication.clone());
        let messages = match range {
            Range::Top => Vec::new(),
            Range::After(since) => {
                let reached = since.epoch == self.top.epoch && since.offset + 1 >= first;
                let from = if reached { since.offset } else { first - 1 };
                self.run.after(from, limit).map(owned).collect()
            }
            Range::Before(offset) => self
                .run
                .before(offset.unwrap_or(u64::MAX), limit)
                .map(owned)
                .collect(),
        };
        Page {
            top: self.top,
            first,
            messages,
        }
    }

    /// When this log was last written to, as far as its age goes: what expires first was idle longest.
    pub fn expires(&self) -> Instant {
        self.expires
    }

    fn expire(&mut self, now: Instant) {
        if self.expires <= now {
            self.run = Run::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publication::Publisher;
    use std::time::Duration;

    fn offsets<'a>(messages: impl Iterator<Item = (u64, &'a Arc<Publication>)>) -> Vec<u64> {
        messages
            .inspect(|(offset, said)| assert_eq!(*offset, said.time))
            .map(|m| m.0)
            .collect()
    }

    /// The naive model: a plain list of offsets, searched from the front.
    fn naive(first: u64, top: u64, range: Range, limit: usize, epoch: Epoch) -> Vec<u64> {
        let all: Vec<u64> = (first..=top).collect();
        match range {
            Range::Top => vec![],
            Range::After(since) if since.epoch != epoch || since.offset + 1 < first => {
                all.into_iter().take(limit).collect()
            }
            Range::After(since) => all
                .into_iter()
                .filter(|o| *o > since.offset)
                .take(limit)
                .collect(),
            Range::Before(end) => {
                let mut newest: Vec<u64> = all
                    .into_iter()
                    .rev()
                    .filter(|o| *o < end.unwrap_or(u64::MAX))
                    .take(limit)
                    .collect();
                newest.reverse();
                newest
            }
        }
    }

    #[test]
    fn pages_agree_with_a_naive_model_under_random_operations() {
        let now = Instant::now();
        let limits = LogLimits {
            size: 7,
            age: Duration::from_secs(60),
        };
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let epoch = Epoch::new(seed + 1);
            let mut log = Log::new(epoch, now);
            let mut top = 0;
            for _ in 0..40 {
                if random.bool() {
                    top += 1;
                    assert_eq!(
                        log.append(Publication::numbered(top), None, limits, now)
                            .offset,
                        top
                    );
                }
                let first = if top == 0 {
                    1
                } else {
                    top.saturating_sub(6).max(1)
                };
                let since = Position {
                    epoch: if random.u8(..4) == 0 {
                        Epoch::new(999)
                    } else {
                        epoch
                    },
                    offset: random.u64(0..=top),
                };
                let range = match random.u8(..3) {
                    0 => Range::Top,
                    1 => Range::After(since),
                    _ => Range::Before(random.bool().then(|| random.u64(0..=top + 3))),
                };
                let limit = random.usize(0..10);
                let page = log.page(range, limit, now);
                assert_eq!((page.top.offset, page.first), (top, first), "seed {seed}");
                let got = offsets(page.messages.iter().map(|(o, p)| (*o, p)));
                assert_eq!(
                    got,
                    naive(first, top, range, limit, epoch),
                    "seed {seed}: {range:?} {limit}"
                );
            }
        }
    }

    #[test]
    fn a_log_expires_as_a_whole_and_its_offsets_go_on() {
        let start = Instant::now();
        let limits = LogLimits {
            size: 10,
            age: Duration::from_secs(5),
        };
        let mut log = Log::new(Epoch::new(1), start);
        log.append(Publication::numbered(1), None, limits, start);
        let later = start + Duration::from_secs(5);
        let page = log.page(Range::Before(None), 10, later);
        assert_eq!(
            (page.top.offset, page.first, page.messages.len()),
            (1, 2, 0)
        );
        assert_eq!(
            log.append(Publication::numbered(2), None, limits, later)
                .offset,
            2
        );
        assert_eq!(log.page(Range::Before(None), 10, later).first, 2);
    }

    #[test]
    fn a_key_is_remembered_for_five_minutes_and_belongs_to_its_publisher() {
        let start = Instant::now();
        let limits = LogLimits {
            size: 1,
            age: Duration::from_secs(1),
        };
        let key = PublishKey {
            publisher: Publisher::Anonymous,
            key: "k".into(),
        };
        let mut log = Log::new(Epoch::new(1), start);
        log.append(Publication::numbered(1), Some(key.clone()), limits, start);
        assert_eq!(
            log.offset_of(&key, start + KEY_TTL - Duration::from_secs(1)),
            Some(1)
        );
        let other = PublishKey {
            publisher: crate::id::UserName::new("ada").ok().into(),
            key: "k".into(),
        };
        assert_eq!(log.offset_of(&other, start), None);
        assert_eq!(log.offset_of(&key, start + KEY_TTL), None);
    }

    #[test]
    fn a_log_that_nobody_uses_gives_up_its_messages_and_keys_in_time() {
        let start = Instant::now();
        let limits = LogLimits {
            size: 10,
            age: Duration::from_secs(5),
        };
        let key = PublishKey {
            publisher: Publisher::Anonymous,
            key: "k".into(),
        };
        let mut log = Log::new(Epoch::new(1), start);
        log.append(Publication::numbered(1), Some(key), limits, start);
        log.tidy(start + KEY_TTL);
        assert!(log.run.is_empty() && log.keys.is_empty());
    }
}
