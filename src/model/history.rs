//! The history of a room: a [`Run`] of publications without holes, the [`Log`] of a room in the
//! memory broker, and the [`Recent`] messages that a node caches so that returning clients cause no
//! read.

mod recent;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::model::epochs::{Ends, PositionStatus};
use crate::model::id::{Epoch, Position};
use crate::model::publication::{KEY_TTL, Page, Publication, PublishKey, Range, Refused};
use crate::model::retention::LogLimits;
pub(crate) use recent::Recent;

/// Publications at consecutive offsets: `first`, `first + 1`, …
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    first: u64,
    entries: VecDeque<Arc<Publication>>,
    weight: usize,
}

impl Run {
    /// An empty run that begins at this offset.
    fn at(first: u64) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// The offset after the last one.
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The approximate bytes held, by [`Publication::weight`].
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// Appends the next message.
    fn push(&mut self, publication: Arc<Publication>) {
        self.weight += publication.weight();
        self.entries.push_back(publication);
    }

    /// Drops the oldest message.
    fn pop(&mut self) {
        if let Some(publication) = self.entries.pop_front() {
            self.weight -= publication.weight();
            self.first += 1;
        }
    }

    /// Drops the newest message.
    fn pop_newest(&mut self) {
        if let Some(publication) = self.entries.pop_back() {
            self.weight -= publication.weight();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has the message with this offset.
    pub(crate) fn covers(&self, offset: u64) -> bool {
        offset >= self.first && offset - self.first < self.entries.len() as u64
    }

    /// The messages after `offset`, ascending, at most `limit`; empty if it does not have the next
    /// one.
    pub(crate) fn after(
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
    pub(crate) fn before(
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

/// The memory that logs take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    pub messages: usize,
    /// The remembered keys of publications.
    pub keys: usize,
}

/// A room's log in the memory broker: the data that Redis would keep of it.
#[derive(Clone, Debug)]
pub struct Log {
    top: Position,
    ends: Ends,
    run: Run,
    /// When all messages expire; each new one renews it.
    expires: Instant,
    /// The keys of publications with their positions and the digests of what was sent, and the keys
    /// in the order of expiry.
    keys: HashMap<PublishKey, (Position, u128)>,
    keys_by_age: VecDeque<(Instant, PublishKey)>,
    keys_weight: usize,
}

impl Log {
    pub fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            top: Position { epoch, offset: 0 },
            ends: Ends::default(),
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

    /// The position of the room.
    pub fn top(&self) -> Position {
        self.top
    }

    /// What a position means to the log.
    pub fn status(&self, at: Position) -> PositionStatus {
        self.ends.status(at, self.top)
    }

    /// The approximate bytes that its messages and keys take.
    pub fn weight(&self) -> Weight {
        Weight {
            messages: self.run.weight(),
            keys: self.keys_weight,
        }
    }

    /// Drops the oldest eighth of its messages, at least one.
    pub fn drop_oldest(&mut self) {
        let kept = self.run.weight() / 8 * 7;
        while !self.run.is_empty() && self.run.weight() > kept {
            self.run.pop();
        }
        self.run.entries.shrink_to(2 * self.run.len());
    }

    /// The position of an earlier publication with this key, if it is remembered and still valid.
    ///
    /// # Errors
    /// [`Refused::KeyReused`] if that one had other data.
    pub fn position_of(
        &mut self,
        key: &PublishKey,
        publication: &Publication,
        now: Instant,
    ) -> Result<Option<Position>, Refused> {
        self.expire_keys(now);
        match self.keys.get(key) {
            Some((at, digest)) if self.status(*at) == PositionStatus::Valid => {
                let is_same = *digest == publication.digest();
                is_same.then_some(Some(*at)).ok_or(Refused::KeyReused)
            }
            _ => Ok(None),
        }
    }

    /// Ends the epoch at the newest offset, because the end of the log may be lost. The messages
    /// stay, and the next epoch continues with the next offset.
    pub fn end_epoch(&mut self, next: Epoch) {
        self.ends.push(self.top.epoch, self.top.offset);
        self.top.epoch = next;
    }

    /// Removes expired messages and keys, which would otherwise stay until the room is used again.
    pub fn tidy(&mut self, now: Instant) {
        self.expire(now);
        self.expire_keys(now);
    }

    fn expire_keys(&mut self, now: Instant) {
        while let Some((expires, old)) = self.keys_by_age.front()
            && *expires <= now
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
        let digest = key.as_ref().map_or(0, |_| publication.digest());
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
            self.keys.insert(key, (self.top, digest));
        }
        self.top
    }

    /// Reads a page. Ends the epoch before that if the range proves that the log has lost its end.
    pub fn read(&mut self, range: Range, limit: usize, next: Epoch, now: Instant) -> Page {
        if let Range::After(Position { epoch, offset }) = range
            && epoch == self.top.epoch
            && offset > self.top.offset
        {
            self.end_epoch(next);
        }
        self.page(range, limit, now)
    }

    /// The part of the log that a range names.
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
            Range::After(delivered) => {
                let behind = self.ends.page_begins_behind(delivered, self.top);
                let behind = behind.max(first - 1);
                self.run.after(behind, limit).map(owned).collect()
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
            ends: self.ends.clone(),
            expires_in: self.expires.saturating_duration_since(now),
            messages,
        }
    }

    /// When its messages expire.
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
    use crate::model::epochs::MAX_ENDS;
    use crate::model::publication::Publisher;
    use std::time::Duration;

    fn offsets<'a>(messages: impl Iterator<Item = (u64, &'a Arc<Publication>)>) -> Vec<u64> {
        messages
            .inspect(|(offset, publication)| assert_eq!(*offset, publication.time))
            .map(|m| m.0)
            .collect()
    }

    /// The naive model of a log: the entries that survived, each with its epoch, and the epochs in
    /// order.
    #[derive(Clone, Debug)]
    struct Naive {
        entries: Vec<(Epoch, u64)>,
        epochs: Vec<Epoch>,
    }

    impl Naive {
        /// The epochs that are remembered.
        fn remembered(&self) -> &[Epoch] {
            &self.epochs[self.epochs.len().saturating_sub(MAX_ENDS + 1)..]
        }

        /// The kept offsets that a member at the position has not seen.
        fn page(&self, first: u64, range: Range, limit: usize) -> Vec<u64> {
            let kept = self.entries.iter().filter(|(_, offset)| *offset >= first);
            let place = |epoch| self.remembered().iter().position(|known| *known == epoch);
            match range {
                Range::Top => vec![],
                Range::After(at) => {
                    let has_seen = |(epoch, offset): &(Epoch, u64)| match place(at.epoch) {
                        Some(of_position) => {
                            let is_later = place(*epoch).is_some_and(|it| it > of_position);
                            !is_later && *offset <= at.offset
                        }
                        None => Some(epoch) != self.epochs.last(),
                    };
                    let unseen = kept.filter(|entry| !has_seen(entry));
                    unseen.map(|(_, offset)| *offset).take(limit).collect()
                }
                Range::Before(end) => {
                    let end = end.unwrap_or(u64::MAX);
                    let mut below: Vec<u64> = kept.map(|(_, offset)| *offset).collect();
                    below.retain(|offset| *offset < end);
                    below.split_off(below.len().saturating_sub(limit))
                }
            }
        }
    }

    #[test]
    fn pages_agree_with_a_naive_model_across_ended_epochs_and_lost_tails() {
        let now = Instant::now();
        let limits = LogLimits {
            size: 7,
            age: Duration::from_secs(60),
        };
        for seed in 0..1000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut log = Log::new(Epoch::new(1), now);
            let mut naive = Naive {
                entries: vec![],
                epochs: vec![log.epoch()],
            };
            let mut snapshot = (log.clone(), naive.clone());
            let mut positions = vec![log.top()];
            let mut epochs = 1;
            for _ in 0..60 {
                match random.u8(..20) {
                    0 => snapshot = (log.clone(), naive.clone()),
                    kind @ (1 | 2) => {
                        if kind == 1 {
                            // Restored: the tail is lost, and epochs that began since the snapshot.
                            (log, naive) = snapshot.clone();
                        }
                        epochs += 1;
                        log.end_epoch(Epoch::new(epochs));
                        naive.epochs.push(log.epoch());
                    }
                    3..10 => {
                        let next = log.top().offset + 1;
                        let at = log.append(Publication::numbered(next), None, limits, now);
                        assert_eq!(at.offset, next);
                        naive.entries.push((at.epoch, at.offset));
                    }
                    _ => {}
                }
                positions.push(log.top());
                let top = naive.entries.last().map_or(0, |(_, offset)| *offset);
                let first = top.saturating_sub(6).max(1);
                let mut at = *random.choice(&positions).expect("there is one");
                if random.u8(..8) == 0 {
                    at.epoch = Epoch::new(999);
                }
                // A delivered position above the top of its epoch ends the epoch first.
                let is_evidence = at.epoch == log.epoch() && at.offset > top;
                let range = match random.u8(..3) {
                    0 => Range::Top,
                    1 if !is_evidence => Range::After(at),
                    _ => Range::Before(random.bool().then(|| random.u64(0..=top + 3))),
                };
                let limit = random.usize(0..10);
                let page = log.page(range, limit, now);
                assert_eq!((page.top.offset, page.first), (top, first), "seed {seed}");
                let got = offsets(page.messages.iter().map(|(o, p)| (*o, p)));
                let expected = naive.page(first, range, limit);
                assert_eq!(got, expected, "seed {seed}: {range:?} {limit} of {naive:?}");
            }
        }
    }

    #[test]
    fn delivered_positions_above_the_top_end_the_epoch_once() {
        let now = Instant::now();
        let limits = LogLimits {
            size: 10,
            age: Duration::from_secs(60),
        };
        let mut log = Log::new(Epoch::new(1), now);
        log.append(Publication::numbered(1), None, limits, now);
        let delivered = Position {
            epoch: log.epoch(),
            offset: 4,
        };
        for next in [2, 3] {
            let page = log.read(Range::After(delivered), 10, Epoch::new(next), now);
            assert_eq!((page.top.epoch, page.top.offset), (Epoch::new(2), 1));
            assert_eq!(page.ends.end_of(delivered.epoch), Some(1));
        }
        let absurd = Position {
            epoch: Epoch::new(7),
            offset: u64::MAX,
        };
        let page = log.read(Range::After(absurd), 10, Epoch::new(9), now);
        assert_eq!(
            page.top.epoch,
            Epoch::new(2),
            "an unknown epoch proves nothing"
        );
    }

    #[test]
    fn keys_are_found_across_ended_epochs_while_their_messages_are_there() {
        let now = Instant::now();
        let limits = LogLimits {
            size: 10,
            age: Duration::from_secs(60),
        };
        let key = |name: &str| PublishKey {
            publisher: Publisher::Anonymous,
            key: name.into(),
        };
        let mut log = Log::new(Epoch::new(1), now);
        let kept = log.append(Publication::numbered(1), Some(key("kept")), limits, now);
        let snapshot = log.clone();
        log.append(Publication::numbered(2), Some(key("lost")), limits, now);
        // A record that former versions keep apart can outlive its message.
        let keys = (log.keys.clone(), log.keys_by_age.clone());
        log = snapshot;
        (log.keys, log.keys_by_age) = keys;
        for next in 2..5 {
            log.end_epoch(Epoch::new(next));
            let [first, second] = [1, 2].map(Publication::numbered);
            assert_eq!(log.position_of(&key("kept"), &first, now), Ok(Some(kept)));
            assert_eq!(log.position_of(&key("lost"), &second, now), Ok(None));
        }
        for next in 5..=2 + MAX_ENDS as u64 {
            log.end_epoch(Epoch::new(next));
        }
        assert_eq!(
            log.position_of(&key("kept"), &Publication::numbered(1), now),
            Ok(None),
            "its epoch is forgotten"
        );
    }

    #[test]
    fn log_expires_as_a_whole_and_its_offsets_continue() {
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
    fn key_is_remembered_for_five_minutes_and_belongs_to_its_publisher() {
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
        let [sent, other_data] = [1, 2].map(Publication::numbered);
        let at = log.append(sent.clone(), Some(key.clone()), limits, start);
        let late = start + KEY_TTL - Duration::from_secs(1);
        assert_eq!(log.position_of(&key, &sent, late), Ok(Some(at)));
        let reused = log.position_of(&key, &other_data, late);
        assert_eq!(reused, Err(Refused::KeyReused));
        let other = PublishKey {
            publisher: crate::model::id::UserName::new("ada").ok().into(),
            key: "k".into(),
        };
        assert_eq!(log.position_of(&other, &sent, start), Ok(None));
        assert_eq!(log.position_of(&key, &sent, start + KEY_TTL), Ok(None));
    }

    #[test]
    fn unused_log_drops_its_messages_and_keys_in_time() {
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
