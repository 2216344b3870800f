//! What a node does for presence in Redis, as commands: it renews its lease, writes its members,
//! and removes the members of dead nodes. Plain logic that joins [`Lease`], [`PresenceReconciler`]
//! and [`Reaper`]; the shard sends the commands.

use std::time::{Duration, Instant};

use super::lease::{Lease, LeaseAnswer, LeaseChange, LeaseId, Renewal};
use super::reaper::{ReapStep, Reaper};
use super::reconciler::{MemberKey, PresenceReconciler, PresenceUpdate, UpdateResult};
use crate::broker::redis::formats::WriteFormat;
use crate::broker::redis::wire::{self, Format};
use crate::broker::{Change, Connected, SetPresence};
use crate::model::id::{Incarnation, RoomName};

/// The most updates in one batch, and the most members in them: some milliseconds of Redis' time.
const UPDATES: usize = 64;
const MEMBERS: usize = 512;

/// The most rooms of a dead node in one batch.
const STEPS: usize = 32;

/// How long to wait after a refusal.
const PAUSE: Duration = Duration::from_millis(250);

/// How long after a loss the lists in Redis count as incomplete. The first change of a room shows
/// the loss to every node that has members there, and they send them again at once; a node that
/// must connect first may take a second.
const REFILL: Duration = Duration::from_millis(1500);

/// One command.
#[derive(Clone, Debug)]
pub enum PresenceCommand {
    /// With the newest format this node reads.
    Lease(Renewal, Format),
    /// Under this lease, with the latest known time of its end.
    Update {
        lease: LeaseId,
        ends: u64,
        update: PresenceUpdate,
    },
    Reap(ReapStep),
}

/// The result of a command.
#[derive(Debug)]
pub enum PresenceReply {
    /// With the leases that are over.
    Lease(LeaseAnswer, Vec<String>),
    Done,
    /// Done; the versions of the room's list before and after it.
    Applied(u64, u64),
    /// Refused, because the lease may be over.
    LeaseOver,
    Rooms(Vec<Vec<u8>>),
    Cursor(String),
    /// Not done, and a retry at once would fail too.
    Refused,
    /// Not known.
    Unanswered,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct PresenceAgent {
    lease: Lease,
    format: WriteFormat,
    reconciler: PresenceReconciler,
    reaper: Reaper,
    /// The number of commands without a result.
    in_flight: usize,
    /// An update was refused because the lease may be over: no more are sent until it is renewed.
    lease_in_doubt: bool,
    /// No command is sent before this time.
    pause: Option<Instant>,
    /// The lease was renewed or taken on this connection.
    lease_confirmed: bool,
    /// The lease was lost since the last [`PresenceAgent::take_loss`].
    lease_lost: bool,
    /// Until then the nodes send again what Redis has lost.
    refill: Option<Instant>,
    random: fastrand::Rng,
}

impl PresenceAgent {
    pub(crate) fn new(
        run: Incarnation,
        newest: Format,
        span: Duration,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            lease: Lease::new(run, span, now),
            format: WriteFormat::new(newest, span),
            reconciler: PresenceReconciler::default(),
            reaper: Reaper::default(),
            in_flight: 0,
            lease_in_doubt: false,
            pause: None,
            lease_confirmed: false,
            lease_lost: false,
            refill: None,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Sets a user's connections on this node. Ignored after [`PresenceAgent::retire`].
    pub(crate) fn set_presence(&mut self, presence: SetPresence) {
        if !self.lease.is_retiring() {
            self.reconciler.set_presence(presence);
        }
    }

    /// Adds or removes one connection of a user. Ignored after [`PresenceAgent::retire`].
    pub(crate) fn set_connection(&mut self, connected: Connected) {
        let Connected {
            user,
            connection,
            live,
        } = connected;
        if !self.lease.is_retiring() {
            let info = live.then(|| wire::connection::encode(&connection));
            let key = MemberKey::Connection(connection.session);
            self.reconciler.set(user.room(), key, live.into(), info);
        }
    }

    /// The members of this node stay for `span` and no longer.
    pub(crate) fn retire(&mut self, span: Duration, now: Instant) {
        self.lease.retire(span, now);
        self.reaper.stop();
    }

    /// The connection is new, so the lease is renewed at once.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.pause = None;
        self.lease_confirmed = false;
        self.format.reset();
        self.lease.renew_now(now);
    }

    /// The format to write now.
    pub(crate) fn format(&self, now: Instant) -> Format {
        self.format.at(now)
    }

    /// There is no connection.
    pub(crate) fn disconnected(&mut self) {
        self.lease_confirmed = false;
    }

    /// A change of a room was received.
    pub(crate) fn on_change(&mut self, room: &RoomName, change: &Change, now: Instant) {
        if self.reconciler.on_change(room, change) {
            self.refill = Some(now + REFILL);
        }
    }

    /// Whether the lease was lost since the last call. Other data may be lost too.
    pub(crate) fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.lease_lost)
    }

    /// Whether the lists in Redis are complete, as far as this node can detect.
    pub(crate) fn is_synced(&self, now: Instant) -> bool {
        let confirmed = self.lease_confirmed || self.lease.is_retiring();
        confirmed && self.refill.is_none_or(|until| now >= until)
    }

    /// The next batch of commands; none until the one before has its results.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<PresenceCommand> {
        if self.in_flight > 0 || self.pause.is_some_and(|until| now < until) {
            return Vec::new();
        }
        self.pause = None;
        let renewal = self
            .lease
            .next_renewal(self.reconciler.unconfirmed_until(), now);
        let newest = self.format.newest();
        let renewal = renewal.map(|renewal| PresenceCommand::Lease(renewal, newest));
        let mut commands: Vec<PresenceCommand> = renewal.into_iter().collect();
        if let (Some(ends), false) = (self.lease.ends(), self.lease_in_doubt) {
            let lease = self.lease.id();
            let updates = self.reconciler.take(UPDATES, MEMBERS, now);
            commands.extend(updates.into_iter().map(|update| PresenceCommand::Update {
                lease,
                ends,
                update,
            }));
        }
        commands.extend(
            self.reaper
                .take(STEPS)
                .into_iter()
                .map(PresenceCommand::Reap),
        );
        self.in_flight = commands.len();
        commands
    }

    /// A command has this result.
    pub(crate) fn finished(
        &mut self,
        command: PresenceCommand,
        reply: PresenceReply,
        now: Instant,
    ) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if matches!(reply, PresenceReply::Refused) {
            self.pause = Some(now + PAUSE);
        }
        match command {
            PresenceCommand::Lease(renewal, _) => self.renewed(&renewal, reply, now),
            PresenceCommand::Update { ends, update, .. } => {
                self.updated(update, ends, &reply, now);
            }
            PresenceCommand::Reap(step) => self.step_finished(step, reply),
        }
    }

    fn renewed(&mut self, renewal: &Renewal, reply: PresenceReply, now: Instant) {
        let PresenceReply::Lease(answer, over) = reply else {
            self.format.reset();
            return self.lease.unanswered(renewal, now);
        };
        self.lease_in_doubt = false;
        if self.lease.answered(renewal, &answer, now) == LeaseChange::Over {
            log::warn!(
                lease:% = renewal.lease, state:? = answer.state;
                "the lease is over; sending all members again"
            );
            self.reconciler.resend_all();
            self.lease_lost = true;
            self.refill = Some(now + REFILL);
        }
        self.lease_confirmed = self.lease.ends().is_some();
        self.reconciler.set_clock(answer.clock);
        let steady = self.lease.may_reap(now);
        self.format.answered(answer.lowest_format, steady, now);
        if steady {
            self.reaper.start(over, self.random.usize(..));
        } else {
            self.reaper.stop();
        }
    }

    fn updated(&mut self, update: PresenceUpdate, until: u64, reply: &PresenceReply, now: Instant) {
        let result = match reply {
            PresenceReply::Done => UpdateResult::Done,
            PresenceReply::Applied(before, after) => UpdateResult::Applied {
                before: *before,
                after: *after,
            },
            PresenceReply::Unanswered => UpdateResult::Unanswered { until },
            PresenceReply::LeaseOver => {
                self.lease_in_doubt = true;
                self.lease.renew_now(now);
                UpdateResult::Refused
            }
            _ => UpdateResult::Refused,
        };
        if self.reconciler.finished(update, result) {
            self.refill = Some(now + REFILL);
        }
    }

    fn step_finished(&mut self, step: ReapStep, reply: PresenceReply) {
        let lease = match &step {
            ReapStep::Rooms { lease } | ReapStep::RemoveLease { lease } => lease,
            ReapStep::Reap { lease, .. } | ReapStep::RemoveRoom { lease, .. } => lease,
        };
        if self.reaper.lease() != Some(lease) {
            return;
        }
        match (step, reply) {
            (ReapStep::Rooms { lease }, PresenceReply::Rooms(rooms)) => {
                self.reaper.rooms_found(lease, rooms)
            }
            (ReapStep::Reap { lease, room, .. }, PresenceReply::Cursor(cursor)) => {
                self.reaper.room_reaped(lease, room, cursor);
            }
            (ReapStep::RemoveRoom { lease, .. }, PresenceReply::Done) => {
                self.reaper.room_removed(lease)
            }
            (ReapStep::RemoveLease { lease }, PresenceReply::Done) => {
                log::info!(lease = lease.as_str(); "removed the members of a node that is gone");
                self.reaper.stop();
            }
            _ => self.reaper.stop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lease::LEASE;
    use super::*;

    #[test]
    fn next_batch_waits_for_the_results_of_the_one_before() {
        let now = Instant::now();
        let mut agent = PresenceAgent::new(Incarnation(1), Format::FIRST, LEASE, 1, now);
        let mut batch = agent.take(now);
        assert_eq!(batch.len(), 1, "the lease");
        let later = now + LEASE;
        assert!(agent.take(later).is_empty());
        agent.finished(batch.remove(0), PresenceReply::Unanswered, later);
        assert_eq!(agent.take(later).len(), 1);
    }
}
