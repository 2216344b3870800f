//! The messages of a room that a node caches for returning clients: the newest ones, and the pages
//! that were read when many clients returned together, so that the later or slower of them cause no
//! reads of their own.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::Run;
use crate::model::publication::Publication;

/// Messages of a room up to the one that the node delivered last, in runs with holes between them.
/// Cached messages serve returning clients without a read; evicted ones are read again.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Ascending; none is empty, and between two of them at least one message is missing. The last
    /// one grows with what is delivered.
    runs: Vec<Run>,
    /// When they expire in the log, without another publish.
    pub expires: Option<Instant>,
}

impl Recent {
    /// Whether the log no longer has these messages.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        !self.runs.is_empty() && self.expires.is_some_and(|expires| expires <= now)
    }

    /// The approximate bytes held, by [`Publication::weight`].
    pub(crate) fn weight(&self) -> usize {
        self.runs.iter().map(Run::weight).sum()
    }

    /// The run that holds the message with this offset.
    pub(crate) fn run_at(&self, offset: u64) -> Option<&Run> {
        let behind = self.runs.partition_point(|run| run.first <= offset);
        let run = self.runs[..behind].last()?;
        run.covers(offset).then_some(run)
    }

    /// The offsets around this one, which is not held, that are not held either: from the run
    /// before, or from this one when there is none before, to the run behind.
    pub(crate) fn hole_at(&self, offset: u64) -> Range<u64> {
        let behind = self.runs.partition_point(|run| run.first <= offset);
        let start = self.runs[..behind].last().map_or(offset, Run::end);
        let end = self.runs.get(behind).map_or(u64::MAX, |run| run.first);
        start..end
    }

    /// Adds a message that was delivered.
    pub(crate) fn push(&mut self, offset: u64, publication: Arc<Publication>) {
        match self.runs.last_mut() {
            Some(newest) if newest.end() == offset => newest.push(publication),
            _ => {
                // Most rooms never have another run.
                self.runs.reserve_exact(1);
                self.insert(&[(offset, publication)], offset);
            }
        }
    }

    /// Adds a page of the log, which is ascending and without holes, as far as it was `delivered`.
    /// Runs that it touches become one run with it.
    pub(crate) fn insert(&mut self, page: &[(u64, Arc<Publication>)], delivered: u64) {
        let page = &page[..page.partition_point(|(offset, _)| *offset <= delivered)];
        let (Some((first, _)), Some((last, _))) = (page.first(), page.last()) else {
            return;
        };
        let from = self.runs.partition_point(|run| run.end() < *first);
        let to = self.runs.partition_point(|run| run.first <= last + 1);
        let mut touched = self.runs.drain(from..to).peekable();
        let mut joined = touched
            .next_if(|run| run.first <= *first)
            .unwrap_or_else(|| Run::at(*first));
        for mut run in touched.chain([Run::at(last + 1)]) {
            let missing = (joined.end() - first) as usize..(run.first - first) as usize;
            for (_, publication) in page.get(missing).unwrap_or_default() {
                joined.push(publication.clone());
            }
            joined.entries.append(&mut run.entries);
            joined.weight += run.weight;
        }
        self.runs.insert(from, joined);
    }

    /// Drops the older half, at least one message.
    pub(crate) fn shrink(&mut self) {
        let held: usize = self.runs.iter().map(Run::len).sum();
        for _ in 0..held.div_ceil(2) {
            self.pop();
        }
        if let Some(oldest) = self.runs.first_mut() {
            oldest.entries.shrink_to_fit();
        }
    }

    /// Keeps the messages that are among the newest `size` of the room.
    pub(crate) fn truncate(&mut self, size: usize) {
        let end = self.runs.last().map_or(0, Run::end);
        while self
            .runs
            .first()
            .is_some_and(|oldest| oldest.first + (size as u64) < end)
        {
            self.pop();
        }
    }

    /// Drops the messages above this offset.
    pub(crate) fn cut(&mut self, offset: u64) {
        while let Some(newest) = self.runs.last_mut()
            && newest.end() > offset + 1
        {
            newest.pop_newest();
            if newest.is_empty() {
                self.runs.pop();
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn pop(&mut self) {
        let Some(oldest) = self.runs.first_mut() else {
            return;
        };
        oldest.pop();
        if oldest.is_empty() {
            self.runs.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn page(offsets: std::ops::RangeInclusive<u64>) -> Vec<(u64, Arc<Publication>)> {
        offsets
            .map(|offset| (offset, Publication::numbered(offset)))
            .collect()
    }

    /// Everything held, looked up message by message.
    fn held(recent: &Recent) -> BTreeSet<u64> {
        let held = |offset: &u64| {
            let run = recent.run_at(*offset)?;
            let (found, publication) = run.after(offset - 1, 1).next()?;
            assert_eq!((found, publication.time), (*offset, *offset));
            Some(())
        };
        (1..200).filter(|offset| held(offset).is_some()).collect()
    }

    #[test]
    fn pages_and_newest_messages_become_one_run_when_they_meet() {
        let mut recent = Recent::default();
        recent.push(90, Publication::numbered(90));
        recent.insert(&page(10..=19), 90);
        recent.insert(&page(40..=49), 90);
        assert_eq!(recent.runs.len(), 3);
        assert_eq!(recent.hole_at(30), 20..40);
        assert_eq!(recent.hole_at(5), 5..10);
        recent.insert(&page(20..=95), 90);
        assert_eq!(recent.runs.len(), 1, "{:?}", recent.runs);
        assert_eq!(
            held(&recent),
            (10..=90).collect(),
            "and no more than was delivered"
        );
        recent.push(91, Publication::numbered(91));
        assert_eq!(recent.runs[0].len(), 82);
    }

    /// Against a naive model, a set of offsets.
    #[test]
    fn cached_messages_agree_with_a_naive_model_in_any_order() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut recent, mut model) = (Recent::default(), BTreeSet::new());
            let mut delivered = random.u64(1..60);
            for _ in 0..60 {
                match random.u8(..10) {
                    0..4 => {
                        delivered += 1;
                        recent.push(delivered, Publication::numbered(delivered));
                        model.insert(delivered);
                    }
                    4 => {
                        recent.shrink();
                        let newer = model.iter().skip(model.len().div_ceil(2));
                        model = newer.copied().collect();
                    }
                    5 if random.bool() => {
                        let offset = random.u64(0..=delivered);
                        recent.cut(offset);
                        model.retain(|held| *held <= offset);
                        delivered = delivered.min(offset);
                    }
                    5 => {
                        let size = random.usize(0..40);
                        recent.truncate(size);
                        let newest = model.last().copied().unwrap_or(0);
                        model.retain(|offset| offset + size as u64 > newest);
                    }
                    _ => {
                        let first = random.u64(1..=delivered + 2);
                        let last = first + random.u64(0..12);
                        recent.insert(&page(first..=last), delivered);
                        model.extend(first..=last.min(delivered));
                    }
                }
                assert_eq!(held(&recent), model, "seed {seed}");
                let weight: usize = model
                    .iter()
                    .map(|offset| Publication::numbered(*offset).weight())
                    .sum();
                assert_eq!(recent.weight(), weight, "seed {seed}");
                let apart = |pair: &[Run]| pair[0].end() < pair[1].first;
                assert!(recent.runs.windows(2).all(apart), "seed {seed}");
                assert!(recent.runs.iter().all(|run| !run.is_empty()), "seed {seed}");
            }
        }
    }
}
