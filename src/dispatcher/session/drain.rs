//! The drain of a node: every client is disconnected with a reconnect delay. The disconnects are
//! spread over a time that grows with their number, so that the other nodes receive a steady stream
//! of reconnects.

use std::time::{Duration, Instant};

use crate::broker::{PresenceRequest, Request};
use crate::dispatcher::{Dispatcher, Now, TICK};
use crate::model::id::SessionId;
use crate::protocol::Push;
use crate::protocol::disconnect::Disconnect;

/// The fastest pace of disconnects: a node accepts about three times as many connections.
const PER_SESSION: Duration = Duration::from_millis(1);

/// The state of a drain.
pub(crate) struct Drain {
    started: Instant,
    /// The time over which the disconnects are spread.
    spread: Duration,
    /// After this no session waits for a publish result any more.
    publish_deadline: Instant,
    total: usize,
    /// Sessions not yet disconnected, in the order they were opened.
    left: Vec<SessionId>,
    /// The node's presence is no longer renewed.
    retired: bool,
}

impl Dispatcher {
    pub(in crate::dispatcher) fn on_drain(&mut self, now: Now, time: Duration) {
        let mut left: Vec<SessionId> = self.sessions.keys().copied().collect();
        // Sorted, because equal events must have equal effects.
        left.sort_unstable();
        let spread = (PER_SESSION * left.len() as u32).min(time / 2);
        let publish_deadline = now.instant + time / 2;
        let total = left.len();
        self.draining = Some(Drain {
            started: now.instant,
            spread,
            publish_deadline,
            total,
            left,
            retired: false,
        });
        self.drain_next(now);
    }

    /// Disconnects the sessions that are due until the next tick. A session that waits for a
    /// publish result goes later.
    pub(in crate::dispatcher) fn drain_next(&mut self, now: Now) {
        let Some(drain) = &mut self.draining else {
            return;
        };
        let passed = now.instant.duration_since(drain.started) + TICK;
        let share = passed.as_secs_f64() / drain.spread.as_secs_f64().max(f64::MIN_POSITIVE);
        let due = (drain.total as f64 * share.min(1.0)).ceil() as usize;
        let mut go = due.saturating_sub(drain.total - drain.left.len());
        let (publish_deadline, spread) = (drain.publish_deadline, drain.spread);
        let candidates = std::mem::take(&mut drain.left);
        let mut left = Vec::new();
        for session in candidates {
            let waits = |pending| pending > 0 && now.instant < publish_deadline;
            match self.sessions.get(&session).map(|client| client.pending) {
                None => go = go.saturating_sub(1),
                Some(pending) if go == 0 || waits(pending) => left.push(session),
                Some(_) => {
                    go -= 1;
                    self.disconnect_for_drain(now, session, spread);
                }
            }
        }
        let is_last = left.is_empty();
        if let Some(drain) = &mut self.draining {
            drain.left = left;
            if is_last && !std::mem::replace(&mut drain.retired, true) {
                self.retire_presence();
            }
        }
    }

    /// While sessions are open, the node renews its lease, however long the drain takes. Then its
    /// members stay for the grace: a user who reconnects to another node within it stays present.
    fn retire_presence(&mut self) {
        let grace = self.turn.settings.presence.grace;
        self.turn
            .requests
            .push(Request::Presence(PresenceRequest::Retire(grace)));
    }

    /// Whether the drain is complete: no session is open, and no API call waits, or the deadline of
    /// publishes has passed.
    pub(in crate::dispatcher) fn is_drained(&self, now: Now) -> bool {
        let Some(drain) = &self.draining else {
            return false;
        };
        let calls_are_over =
            self.turn.pending.calls.len() == 0 || now.instant >= drain.publish_deadline;
        self.sessions.is_empty() && self.closing.is_empty() && calls_are_over
    }

    pub(in crate::dispatcher) fn disconnect_for_drain(
        &mut self,
        now: Now,
        session: SessionId,
        spread: Duration,
    ) {
        let jitter = spread.max(Duration::from_millis(50)).as_millis() as u64;
        let retry = Duration::from_millis(self.random.u64(..=jitter));
        if let Some(client) = self.sessions.get(&session) {
            let bye = client.protocol.encoder().push(&Push::Bye {
                reason: "draining",
                retry,
            });
            client.outbox.offer(bye);
        }
        self.disconnect(now, session, Disconnect::Draining);
    }
}
