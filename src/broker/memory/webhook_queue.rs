//! The notices that a node without Redis keeps in its own memory until they are delivered: what the
//! stream is to a cluster. Plain logic; [`memory`](super) appends and answers.

use std::collections::VecDeque;

use crate::model::id::RoomName;
use crate::model::webhook_event::{
    AGE, Ask, BATCH, Change, ClaimMode, MEMORY_LENGTH, Turn, Wanted, WebhookEvent, WebhookEventId,
};

/// WebhookQueue in order, bounded in length and age.
#[derive(Debug)]
pub struct WebhookQueue {
    wanted: Option<Wanted>,
    kept: VecDeque<WebhookEvent>,
    /// So many of the first were handed out and are not done.
    held: usize,
    last: WebhookEventId,
    /// Given up since this was last told.
    dropped: u64,
}

impl WebhookQueue {
    /// Nothing is kept of what is not wanted.
    pub fn new(wanted: Option<Wanted>) -> Self {
        Self {
            wanted,
            kept: VecDeque::new(),
            held: 0,
            last: WebhookEventId { time: 0, number: 0 },
            dropped: 0,
        }
    }

    /// A room has changed; `now` is in milliseconds since 1970.
    pub fn append(&mut self, room: &RoomName, change: Change, now: u64) {
        let wanted = self.wanted.as_ref();
        if !wanted.is_some_and(|wanted| wanted.watches(room)) {
            return;
        }
        if self.kept.len() >= MEMORY_LENGTH {
            self.drop_first();
        }
        self.last = self.last.following(now);
        self.kept.push_back(WebhookEvent {
            id: self.last,
            change,
            room: room.clone(),
        });
    }

    /// Forgets what is done or too old, and answers.
    pub fn turn(&mut self, ask: &Ask, now: u64) -> Turn {
        let mut left: Vec<WebhookEvent> = self.kept.drain(..self.held).collect();
        left.retain(|notice| !ask.done.contains(&notice.id));
        self.held = left.len();
        for notice in left.into_iter().rev() {
            self.kept.push_front(notice);
        }
        let oldest = u128::from(now).saturating_sub(AGE.as_millis());
        let is_old = |notice: &WebhookEvent| u128::from(notice.id.time) < oldest;
        while self.kept.front().is_some_and(is_old) {
            self.drop_first();
        }
        match ask.word {
            ClaimMode::Take if self.held == 0 => self.held = self.kept.len().min(BATCH),
            ClaimMode::Take | ClaimMode::Keep => {}
            ClaimMode::Leave => self.held = 0,
        }
        Turn {
            held: self.kept.iter().take(self.held).cloned().collect(),
            dropped: std::mem::take(&mut self.dropped),
        }
    }

    fn drop_first(&mut self) {
        self.kept.pop_front();
        self.held = self.held.saturating_sub(1);
        self.dropped += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pattern::Pattern;

    const NOW: u64 = 1_764_000_000_000;

    fn notices(rooms: &[&str]) -> WebhookQueue {
        WebhookQueue::new(Some(Wanted {
            rooms: rooms.iter().filter_map(|text| Pattern::new(text)).collect(),
            asks: flume::bounded(1).1,
        }))
    }

    fn room(number: usize) -> RoomName {
        RoomName::new(&format!("r{number}")).unwrap()
    }

    fn ask(done: &[WebhookEvent], word: ClaimMode) -> Ask {
        Ask {
            done: done.iter().map(|notice| notice.id).collect(),
            word,
            answer: flume::bounded(1).0,
        }
    }

    #[test]
    fn what_is_held_is_repeated_until_it_is_done() {
        let mut notices = notices(&[]);
        for number in 0..BATCH + 2 {
            notices.append(&room(number), Change::Occupied, NOW);
        }
        let first = notices.turn(&ask(&[], ClaimMode::Take), NOW);
        assert_eq!(first.held.len(), BATCH);
        assert!(first.held.is_sorted_by_key(|notice| notice.id));
        assert_eq!(notices.turn(&ask(&[], ClaimMode::Take), NOW), first);
        let rest = notices.turn(&ask(&first.held[1..], ClaimMode::Take), NOW);
        assert_eq!(rest.held, first.held[..1]);
        assert_eq!(
            notices.turn(&ask(&rest.held, ClaimMode::Keep), NOW),
            Turn::default()
        );
        let second = notices.turn(&ask(&[], ClaimMode::Take), NOW);
        assert_eq!(second.held.len(), 2);
        assert_eq!(
            notices.turn(&ask(&[], ClaimMode::Leave), NOW),
            Turn::default()
        );
        assert_eq!(notices.turn(&ask(&[], ClaimMode::Take), NOW), second);
    }

    #[test]
    fn the_oldest_are_dropped_and_counted_once() {
        let mut notices = notices(&[]);
        notices.append(&room(0), Change::Vacated, NOW);
        assert_eq!(notices.turn(&ask(&[], ClaimMode::Take), NOW).held.len(), 1);
        for number in 1..MEMORY_LENGTH + 3 {
            notices.append(&room(number), Change::Vacated, NOW);
        }
        let turn = notices.turn(&ask(&[], ClaimMode::Take), NOW);
        assert_eq!((turn.held[0].room.as_str(), turn.dropped), ("r3", 3));
        assert_eq!(notices.turn(&ask(&[], ClaimMode::Take), NOW).dropped, 0);
        let late = NOW + u64::try_from(AGE.as_millis()).unwrap() + 1;
        let late = notices.turn(&ask(&[], ClaimMode::Take), late);
        assert_eq!((late.held.len(), late.dropped), (0, MEMORY_LENGTH as u64));
    }

    #[test]
    fn only_what_is_wanted_is_kept() {
        let mut wanted = notices(&["r1*"]);
        let mut nobody = WebhookQueue::new(None);
        for number in 0..20 {
            wanted.append(&room(number), Change::Occupied, NOW);
            nobody.append(&room(number), Change::Occupied, NOW);
        }
        let count =
            |notices: &mut WebhookQueue| notices.turn(&ask(&[], ClaimMode::Take), NOW).held.len();
        assert_eq!((count(&mut wanted), count(&mut nobody)), (11, 0));
    }
}
