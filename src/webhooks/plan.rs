//! What a deliverer is about to do: what it holds, what it has told and the broker does not know
//! yet, and when it may try again. Plain logic; the task around it waits and sends.

use std::time::{Duration, Instant};

use super::backoff;
use crate::model::webhook_event::{WebhookEvent, WebhookEventId};

/// After so many failures in a row a node lets others try: perhaps it alone cannot reach the
/// receiver.
const STUBBORN: u32 = 3;

/// So long after it has asked a node is sure that what it holds is its own: a request that begins
/// in this time ends before [`CLAIM`](crate::model::webhook_event::CLAIM), when another node may
/// take it. A node that was frozen, or is cut off from the broker, asks first.
const SURE: Duration = Duration::from_secs(5);

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Plan {
    held: Vec<WebhookEvent>,
    /// When the question was asked whose answer `held` is.
    asked: Option<Instant>,
    /// Told, and not yet forgotten by the broker; never more than one batch.
    done: Vec<WebhookEventId>,
    /// Attempts that failed in a row.
    failures: u32,
    /// No attempt before this.
    rest: Option<Instant>,
}

impl Plan {
    /// What the broker may forget.
    pub fn done(&self) -> &[WebhookEventId] {
        &self.done
    }

    /// The broker, when it was asked, has forgotten these and says what this node holds. That
    /// counts: what it says no more has been given to another node, or given up.
    pub fn turned(
        &mut self,
        asked: Instant,
        forgotten: &[WebhookEventId],
        mut held: Vec<WebhookEvent>,
    ) {
        self.asked = Some(asked);
        self.done.retain(|id| !forgotten.contains(id));
        held.retain(|notice| !self.done.contains(&notice.id));
        self.held = held;
    }

    /// What is to be told now, if it is time.
    pub fn batch(&self, now: Instant) -> Option<&[WebhookEvent]> {
        let resting = self.rest.is_some_and(|end| now < end);
        let sure = self.asked.is_some_and(|asked| now < asked + SURE);
        (sure && !resting && !self.held.is_empty()).then_some(&self.held)
    }

    /// The receiver has these.
    pub fn delivered(&mut self, ids: &[WebhookEventId]) {
        self.held.retain(|notice| !ids.contains(&notice.id));
        self.done.extend(ids);
        self.failures = 0;
        self.rest = None;
    }

    /// The receiver did not take the batch. `part` (0 to 1) is the jitter; answers how long it is
    /// left alone.
    pub fn failed(&mut self, now: Instant, part: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = backoff::wait(self.failures, part);
        self.rest = Some(now + wait);
        wait
    }

    /// How long it still leaves the receiver alone, when it has failed so often that another node
    /// should try meanwhile.
    pub fn gives_way(&self, now: Instant) -> Option<Duration> {
        let rest = self.rest?.saturating_duration_since(now);
        (self.failures >= STUBBORN && !rest.is_zero()).then_some(rest)
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::RoomName;
    use crate::model::webhook_event::{CLAIM, Change};
    use crate::webhooks::post;

    fn notices(times: std::ops::Range<u64>) -> Vec<WebhookEvent> {
        let notice = |time| WebhookEvent {
            id: WebhookEventId { time, number: 0 },
            change: Change::Occupied,
            room: RoomName::new("r").unwrap(),
        };
        times.map(notice).collect()
    }

    fn ids(notices: &[WebhookEvent]) -> Vec<WebhookEventId> {
        notices.iter().map(|notice| notice.id).collect()
    }

    #[test]
    fn what_was_told_is_not_told_again_while_the_broker_does_not_answer() {
        let (now, all) = (Instant::now(), notices(0..3));
        let mut plan = Plan::default();
        plan.turned(now, &[], all.clone());
        assert_eq!(plan.batch(now), Some(&all[..]));
        plan.delivered(&ids(&all[..2]));
        assert_eq!(plan.batch(now), Some(&all[2..]));
        // An answer to a question that was asked before.
        plan.turned(now, &[], all.clone());
        assert_eq!(plan.batch(now), Some(&all[2..]));
        plan.turned(now, &ids(&all[..2]), notices(2..5));
        assert_eq!(plan.batch(now), Some(&notices(2..5)[..]));
        assert!(plan.done().is_empty());
    }

    #[test]
    fn what_the_broker_no_longer_says_is_no_longer_told() {
        let mut plan = Plan::default();
        let now = Instant::now();
        plan.turned(now, &[], notices(0..3));
        plan.turned(now, &[], Vec::new());
        assert_eq!(plan.batch(now), None);
    }

    #[test]
    fn a_request_that_begins_ends_before_another_node_may_begin() {
        let (asked, mut plan) = (Instant::now(), Plan::default());
        plan.turned(asked, &[], notices(0..1));
        let last = asked + SURE - Duration::from_millis(1);
        assert!(plan.batch(last).is_some());
        assert_eq!(plan.batch(asked + SURE), None, "it asks first");
        assert!(SURE + post::PATIENCE <= CLAIM);
    }

    #[test]
    fn after_three_failures_others_may_try_while_it_rests() {
        let start = Instant::now();
        let mut plan = Plan::default();
        plan.turned(start, &[], notices(0..1));
        for _ in 1..STUBBORN {
            plan.failed(start, 1.0);
            assert_eq!(plan.gives_way(start), None);
        }
        let rest = plan.failed(start, 1.0);
        assert_eq!(plan.gives_way(start), Some(rest));
        assert_eq!(plan.gives_way(start + rest), None);
        plan.turned(start + rest, &[], notices(0..1));
        assert!(plan.batch(start + rest).is_some());
        plan.delivered(&[]);
        assert_eq!(plan.gives_way(start), None);
    }

    #[test]
    fn after_a_failure_the_batch_rests_longer_each_time_until_one_succeeds() {
        let (start, all) = (Instant::now(), notices(0..1));
        let mut plan = Plan::default();
        plan.turned(start, &[], all.clone());
        let first = plan.failed(start, 1.0);
        assert_eq!(plan.batch(start + first - Duration::from_millis(1)), None);
        assert!(plan.batch(start + first).is_some());
        assert!(plan.failed(start, 1.0) > first && plan.is_failing());
        // A new batch rests too: it is the receiver that is spared.
        plan.turned(start, &[], notices(7..8));
        assert_eq!(plan.batch(start), None);
        plan.delivered(&ids(&all));
        assert!(plan.batch(start).is_some() && !plan.is_failing());
        assert_eq!(plan.failed(start, 1.0), first);
    }
}
