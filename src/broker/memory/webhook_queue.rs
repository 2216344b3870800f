//! The webhook events that a node without Redis keeps in its memory until they are delivered; the
//! counterpart of the stream in Redis. Plain logic; [`memory`](super) appends and answers.

use std::collections::VecDeque;

use crate::model::id::RoomName;
use crate::model::webhook_event::{
    AGE, BATCH, ClaimMode, ClaimedEvents, MEMORY_LENGTH, RoomChange, WebhookEvent, WebhookEventId,
    WebhookPoll, WebhookSubscription,
};

/// Webhook events in order, bounded in length and age.
#[derive(Debug)]
pub(super) struct WebhookQueue {
    wanted: Option<WebhookSubscription>,
    events: VecDeque<WebhookEvent>,
    /// How many of the first were handed out and are not done.
    held: usize,
    last: WebhookEventId,
    /// Events dropped since the last turn.
    dropped: u64,
}

impl WebhookQueue {
    /// A queue that keeps the wanted events only.
    pub(super) fn new(wanted: Option<WebhookSubscription>) -> Self {
        Self {
            wanted,
            events: VecDeque::new(),
            held: 0,
            last: WebhookEventId { time: 0, number: 0 },
            dropped: 0,
        }
    }

    /// Appends a change of a room; `now` is in milliseconds since 1970.
    pub(super) fn append(&mut self, room: &RoomName, change: RoomChange, now: u64) {
        let wanted = self.wanted.as_ref();
        if !wanted.is_some_and(|wanted| wanted.watches(room)) {
            return;
        }
        if self.events.len() >= MEMORY_LENGTH {
            self.drop_first();
        }
        self.last = self.last.following(now);
        self.events.push_back(WebhookEvent {
            id: self.last,
            change,
            room: room.clone(),
        });
    }

    /// Removes events that are done or too old, and returns the events to deliver.
    pub(super) fn turn(&mut self, poll: &WebhookPoll, now: u64) -> ClaimedEvents {
        let mut left: Vec<WebhookEvent> = self.events.drain(..self.held).collect();
        left.retain(|event| !poll.done.contains(&event.id));
        self.held = left.len();
        for event in left.into_iter().rev() {
            self.events.push_front(event);
        }
        let oldest = u128::from(now).saturating_sub(AGE.as_millis());
        let is_old = |event: &WebhookEvent| u128::from(event.id.time) < oldest;
        while self.events.front().is_some_and(is_old) {
            self.drop_first();
        }
        match poll.mode {
            ClaimMode::Take if self.held == 0 => self.held = self.events.len().min(BATCH),
            ClaimMode::Take | ClaimMode::Keep => {}
            ClaimMode::Leave => self.held = 0,
        }
        ClaimedEvents {
            events: self.events.iter().take(self.held).cloned().collect(),
            dropped: std::mem::take(&mut self.dropped),
        }
    }

    fn drop_first(&mut self) {
        self.events.pop_front();
        self.held = self.held.saturating_sub(1);
        self.dropped += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pattern::Pattern;

    const NOW: u64 = 1_764_000_000_000;

    fn queue(rooms: &[&str]) -> WebhookQueue {
        WebhookQueue::new(Some(WebhookSubscription {
            rooms: rooms.iter().filter_map(|text| Pattern::new(text)).collect(),
            polls: flume::bounded(1).1,
        }))
    }

    fn room(number: usize) -> RoomName {
        RoomName::new(&format!("r{number}")).unwrap()
    }

    fn poll(done: &[WebhookEvent], mode: ClaimMode) -> WebhookPoll {
        WebhookPoll {
            done: done.iter().map(|event| event.id).collect(),
            mode,
            answer: flume::bounded(1).0,
        }
    }

    #[test]
    fn held_events_are_repeated_until_they_are_done() {
        let mut events = queue(&[]);
        for number in 0..BATCH + 2 {
            events.append(&room(number), RoomChange::Occupied, NOW);
        }
        let first = events.turn(&poll(&[], ClaimMode::Take), NOW);
        assert_eq!(first.events.len(), BATCH);
        assert!(first.events.is_sorted_by_key(|event| event.id));
        assert_eq!(events.turn(&poll(&[], ClaimMode::Take), NOW), first);
        let rest = events.turn(&poll(&first.events[1..], ClaimMode::Take), NOW);
        assert_eq!(rest.events, first.events[..1]);
        assert_eq!(
            events.turn(&poll(&rest.events, ClaimMode::Keep), NOW),
            ClaimedEvents::default()
        );
        let second = events.turn(&poll(&[], ClaimMode::Take), NOW);
        assert_eq!(second.events.len(), 2);
        assert_eq!(
            events.turn(&poll(&[], ClaimMode::Leave), NOW),
            ClaimedEvents::default()
        );
        assert_eq!(events.turn(&poll(&[], ClaimMode::Take), NOW), second);
    }

    #[test]
    fn oldest_events_are_dropped_and_counted_once() {
        let mut events = queue(&[]);
        events.append(&room(0), RoomChange::Vacated, NOW);
        assert_eq!(
            events.turn(&poll(&[], ClaimMode::Take), NOW).events.len(),
            1
        );
        for number in 1..MEMORY_LENGTH + 3 {
            events.append(&room(number), RoomChange::Vacated, NOW);
        }
        let turn = events.turn(&poll(&[], ClaimMode::Take), NOW);
        assert_eq!((turn.events[0].room.as_str(), turn.dropped), ("r3", 3));
        assert_eq!(events.turn(&poll(&[], ClaimMode::Take), NOW).dropped, 0);
        let late = NOW + u64::try_from(AGE.as_millis()).unwrap() + 1;
        let late = events.turn(&poll(&[], ClaimMode::Take), late);
        assert_eq!((late.events.len(), late.dropped), (0, MEMORY_LENGTH as u64));
    }

    #[test]
    fn only_wanted_events_are_kept() {
        let mut wanted = queue(&["r1*"]);
        let mut disabled = WebhookQueue::new(None);
        for number in 0..20 {
            wanted.append(&room(number), RoomChange::Occupied, NOW);
            disabled.append(&room(number), RoomChange::Occupied, NOW);
        }
        let count =
            |events: &mut WebhookQueue| events.turn(&poll(&[], ClaimMode::Take), NOW).events.len();
        assert_eq!((count(&mut wanted), count(&mut disabled)), (11, 0));
    }
}
