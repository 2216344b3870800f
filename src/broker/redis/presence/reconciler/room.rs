//! The wanted and the confirmed state of one room.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::{MemberKey, MemberState};
use crate::model::member::Info;

/// How often a room's anonymous connections are sent at most: no event reports them, so they need
/// not be exact.
const COUNT_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct ReconciledRoom {
    pub record: Record,
    pub users: HashMap<MemberKey, WantedState>,
    /// Members to send.
    pub pending: BTreeSet<MemberKey>,
    /// Members of updates whose answers were lost and that may be applied before `until`.
    pub unconfirmed: BTreeSet<MemberKey>,
    pub until: u64,
    /// The greatest version of the list that was seen.
    pub version: u64,
    /// The version of the last change that was received.
    pub pushed: u64,
    pub queued: bool,
    /// The room is in `delayed`.
    pub is_delayed: bool,
    /// When the count of anonymous connections was sent last.
    counted: Option<Instant>,
}

/// The store's record that this node has members in the room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Record {
    #[default]
    Absent,
    Sent(u64),
    Present(u64),
}

/// The wanted state of a member.
#[derive(Debug)]
pub(super) struct WantedState {
    pub connections: u32,
    pub info: Option<Info>,
    /// It was sent at least once, so the store may have data of the member.
    pub sent: bool,
}

impl ReconciledRoom {
    /// Takes at most `max` pending members.
    pub(super) fn take(&mut self, max: usize, now: Instant) -> Vec<MemberState> {
        let mut members = Vec::new();
        let early = self.counted.is_some_and(|at| now < at + COUNT_EVERY);
        let next = self
            .pending
            .iter()
            .filter(|key| !early || **key != MemberKey::Anonymous);
        let next: Vec<MemberKey> = next.take(max).cloned().collect();
        for key in next {
            self.pending.remove(&key);
            let Some(entry) = self.users.get_mut(&key) else {
                continue;
            };
            entry.sent = true;
            if key == MemberKey::Anonymous {
                self.counted = Some(now);
            }
            members.push(MemberState {
                connections: entry.connections,
                info: entry.info.clone(),
                key,
            });
        }
        members
    }

    /// When the count of anonymous connections may be sent again, if it is pending, not yet due and
    /// not yet in `delayed`.
    pub(super) fn wait_for_count(&mut self, now: Instant) -> Option<Instant> {
        let due = self.counted? + COUNT_EVERY;
        let delay = self.pending.contains(&MemberKey::Anonymous) && now < due && !self.is_delayed;
        self.is_delayed |= delay;
        delay.then_some(due)
    }
}
