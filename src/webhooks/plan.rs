//! The state of webhook delivery: the events that the node holds, the delivered ones that the
//! broker has not yet removed, and when the node may retry. Plain logic; the task around it waits
//! and sends.

use std::time::{Duration, Instant};

use super::backoff;
use crate::model::webhook_event::{WebhookEvent, WebhookEventId};

/// After so many failures in a row a node lets others try: perhaps it alone cannot reach the
/// receiver.
const MAX_FAILURES: u32 = 3;

/// How long after a claim was sent its events are certainly this node's: a request that begins in
/// this time ends before [`CLAIM`](crate::model::webhook_event::CLAIM), when another node may
/// claim them. A node that was frozen, or is partitioned from the broker, claims again first.
const OWNED: Duration = Duration::from_secs(5);

/// The events held and delivered, and the backoff.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    held: Vec<WebhookEvent>,
    /// When the claim was sent that `held` is the answer to.
    claimed: Option<Instant>,
    /// Delivered, and not yet removed by the broker; at most one batch.
    done: Vec<WebhookEventId>,
    /// Failed attempts in a row.
    failures: u32,
    /// No attempt before this.
    rest: Option<Instant>,
}

impl Plan {
    /// The events that the broker may remove.
    pub(crate) fn done(&self) -> &[WebhookEventId] {
        &self.done
    }

    /// Takes the broker's answer: it has removed the `removed` events, and lists the events that
    /// this node holds. The list is authoritative: an event that is no longer in it was assigned to
    /// another node, or dropped.
    pub(crate) fn on_answer(
        &mut self,
        claimed: Instant,
        removed: &[WebhookEventId],
        mut held: Vec<WebhookEvent>,
    ) {
        self.claimed = Some(claimed);
        self.done.retain(|id| !removed.contains(id));
        held.retain(|event| !self.done.contains(&event.id));
        self.held = held;
    }

    /// The batch to send now, if one is due.
    pub(crate) fn batch(&self, now: Instant) -> Option<&[WebhookEvent]> {
        let resting = self.rest.is_some_and(|end| now < end);
        let owned = self.claimed.is_some_and(|claimed| now < claimed + OWNED);
        (owned && !resting && !self.held.is_empty()).then_some(&self.held)
    }

    /// The receiver has accepted these events.
    pub(crate) fn delivered(&mut self, ids: &[WebhookEventId]) {
        self.held.retain(|event| !ids.contains(&event.id));
        self.done.extend(ids);
        self.failures = 0;
        self.rest = None;
    }

    /// The receiver did not accept the batch. `part` (0 to 1) is the jitter. Returns the backoff.
    pub(crate) fn failed(&mut self, now: Instant, part: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = backoff::wait(self.failures, part);
        self.rest = Some(now + wait);
        wait
    }

    /// The remaining backoff, if the node has failed so often that another one should try in the
    /// meantime.
    pub(crate) fn gives_way(&self, now: Instant) -> Option<Duration> {
        let rest = self.rest?.saturating_duration_since(now);
        (self.failures >= MAX_FAILURES && !rest.is_zero()).then_some(rest)
    }

    /// Whether the last attempt failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::RoomName;
    use crate::model::webhook_event::{CLAIM, RoomChange};
    use crate::webhooks::post;

    fn events(times: std::ops::Range<u64>) -> Vec<WebhookEvent> {
        let event = |time| WebhookEvent {
            id: WebhookEventId { time, number: 0 },
            change: RoomChange::Occupied,
            room: RoomName::new("r").unwrap(),
        };
        times.map(event).collect()
    }

    fn ids(events: &[WebhookEvent]) -> Vec<WebhookEventId> {
        events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn delivered_events_are_not_sent_again_while_the_broker_does_not_answer() {
        let (now, all) = (Instant::now(), events(0..3));
        let mut plan = Plan::default();
        plan.on_answer(now, &[], all.clone());
        assert_eq!(plan.batch(now), Some(&all[..]));
        plan.delivered(&ids(&all[..2]));
        assert_eq!(plan.batch(now), Some(&all[2..]));
        // An answer to an earlier claim.
        plan.on_answer(now, &[], all.clone());
        assert_eq!(plan.batch(now), Some(&all[2..]));
        plan.on_answer(now, &ids(&all[..2]), events(2..5));
        assert_eq!(plan.batch(now), Some(&events(2..5)[..]));
        assert!(plan.done().is_empty());
    }

    #[test]
    fn events_that_the_broker_no_longer_lists_are_not_sent() {
        let mut plan = Plan::default();
        let now = Instant::now();
        plan.on_answer(now, &[], events(0..3));
        plan.on_answer(now, &[], Vec::new());
        assert_eq!(plan.batch(now), None);
    }

    #[test]
    fn request_ends_before_another_node_may_begin() {
        let (claimed, mut plan) = (Instant::now(), Plan::default());
        plan.on_answer(claimed, &[], events(0..1));
        let last = claimed + OWNED - Duration::from_millis(1);
        assert!(plan.batch(last).is_some());
        assert_eq!(plan.batch(claimed + OWNED), None, "it claims again first");
        assert!(OWNED + post::TIMEOUT <= CLAIM);
    }

    #[test]
    fn other_nodes_may_try_after_three_failures() {
        let start = Instant::now();
        let mut plan = Plan::default();
        plan.on_answer(start, &[], events(0..1));
        for _ in 1..MAX_FAILURES {
            plan.failed(start, 1.0);
            assert_eq!(plan.gives_way(start), None);
        }
        let rest = plan.failed(start, 1.0);
        assert_eq!(plan.gives_way(start), Some(rest));
        assert_eq!(plan.gives_way(start + rest), None);
        plan.on_answer(start + rest, &[], events(0..1));
        assert!(plan.batch(start + rest).is_some());
        plan.delivered(&[]);
        assert_eq!(plan.gives_way(start), None);
    }

    #[test]
    fn backoff_grows_with_each_failure_until_a_success() {
        let (start, all) = (Instant::now(), events(0..1));
        let mut plan = Plan::default();
        plan.on_answer(start, &[], all.clone());
        let first = plan.failed(start, 1.0);
        assert_eq!(plan.batch(start + first - Duration::from_millis(1)), None);
        assert!(plan.batch(start + first).is_some());
        assert!(plan.failed(start, 1.0) > first && plan.is_failing());
        // The backoff applies to a new batch too: it protects the receiver.
        plan.on_answer(start, &[], events(7..8));
        assert_eq!(plan.batch(start), None);
        plan.delivered(&ids(&all));
        assert!(plan.batch(start).is_some() && !plan.is_failing());
        assert_eq!(plan.failed(start, 1.0), first);
    }
}
