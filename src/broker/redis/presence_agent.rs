//! What the node does for presence in Redis, as errands: it keeps its lease, says who is here, and
//! takes out what dead nodes have said. Plain logic that joins [`Lease`], [`PresenceReconciler`]
//! and [`Reaper`]; `presence` carries the errands out.

use std::time::{Duration, Instant};

use super::formats::WriteFormat;
use super::lease::{self, Lease, LeaseId, News, Renewal};
use super::reaper::{Reaper, Step};
use crate::broker::redis::reconciler::{Ask, End, PresenceReconciler, Who};
use crate::broker::redis::wire::{self, Format};
use crate::broker::{Change, Connected, SetPresence};
use crate::model::id::{Incarnation, RoomName};

/// How many asks go into one batch, and about how many users: some milliseconds of Redis' time at
/// most.
const ASKS: usize = 64;
const USERS: usize = 512;

/// How many rooms of a dead node are worked on in one batch.
const STEPS: usize = 32;

/// How long to wait after a refusal.
const PAUSE: Duration = Duration::from_millis(250);

/// How long after a loss the lists in Redis are not believed. Its first change in a room tells
/// every node that has members there, and they say them again at once; a node that must connect
/// first may take a second.
const REFILL: Duration = Duration::from_millis(1500);

/// One command.
#[derive(Clone, Debug)]
pub enum PresenceCommand {
    /// With the newest format this node reads.
    Lease(Renewal, Format),
    /// Under this lease, which ends then as far as is known.
    Say {
        lease: LeaseId,
        ends: u64,
        ask: Ask,
    },
    Reap(Step),
}

/// How it went.
#[derive(Debug)]
pub enum Reply {
    /// With the leases that are over.
    Lease(lease::Answer, Vec<String>),
    Done,
    /// Done; the versions of the room's list before and after it.
    Said(u64, u64),
    /// Refused, because the lease may be over.
    Late,
    Rooms(Vec<Vec<u8>>),
    Cursor(String),
    /// Nothing was done, and it is no use to ask again at once.
    Refused,
    /// Nothing was done; ask again.
    Again,
    /// Nobody knows.
    Lost,
}

/// See the head of this file.
#[derive(Debug)]
pub struct PresenceAgent {
    lease: Lease,
    format: WriteFormat,
    ledger: PresenceReconciler,
    reaper: Reaper,
    /// A word came too late: nothing more is said until the lease has been asked about.
    late: bool,
    /// Nothing is asked before.
    pause: Option<Instant>,
    /// On this connection the lease was found as it should be.
    found: bool,
    /// The lease was lost, and nobody has asked yet.
    loss: bool,
    /// Until then the nodes say again what Redis has lost.
    refill: Option<Instant>,
    random: fastrand::Rng,
}

impl PresenceAgent {
    pub fn new(run: Incarnation, newest: Format, span: Duration, seed: u64, now: Instant) -> Self {
        Self {
            lease: Lease::new(run, span, now),
            format: WriteFormat::new(newest, span),
            ledger: PresenceReconciler::default(),
            reaper: Reaper::default(),
            late: false,
            pause: None,
            found: false,
            loss: false,
            refill: None,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The dispatcher says who is here. Not after [`PresenceAgent::retire`].
    pub fn here(&mut self, here: SetPresence) {
        if !self.lease.is_retiring() {
            self.ledger.here(here);
        }
    }

    /// The dispatcher says that one of a user's connections is there, or no more. Not after
    /// [`PresenceAgent::retire`].
    pub fn is_connected(&mut self, connected: Connected) {
        let Connected {
            user,
            connection,
            live,
        } = connected;
        if !self.lease.is_retiring() {
            let known = live.then(|| wire::connection::encode(&connection));
            let who = Who::Connection(connection.session);
            self.ledger.want(user.room(), who, live.into(), known);
        }
    }

    /// What was said stands for this long and no longer.
    pub fn retire(&mut self, span: Duration, now: Instant) {
        self.lease.retire(span, now);
        self.reaper.stop();
    }

    /// The connection is new: is the lease still there?
    pub fn connected(&mut self, now: Instant) {
        self.pause = None;
        self.found = false;
        self.format.reset();
        self.lease.hurry(now);
    }

    /// The format to write now.
    pub fn format(&self, now: Instant) -> Format {
        self.format.at(now)
    }

    /// There is no connection.
    pub fn disconnected(&mut self) {
        self.found = false;
    }

    /// A change was told in a room.
    pub fn on_change(&mut self, room: &RoomName, change: &Change, now: Instant) {
        if self.ledger.on_change(room, change) {
            self.refill = Some(now + REFILL);
        }
    }

    /// Whether the lease was lost since this was last asked: other data may be lost too.
    pub fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.loss)
    }

    /// Whether the lists in Redis are whole, as far as this node can know.
    pub fn trusts(&self, now: Instant) -> bool {
        let known = self.found || self.lease.is_retiring();
        known && self.refill.is_none_or(|until| now >= until)
    }

    /// What is to be asked now; nothing else may be under way.
    pub fn take(&mut self, now: Instant) -> Vec<PresenceCommand> {
        if self.pause.is_some_and(|until| now < until) {
            return Vec::new();
        }
        self.pause = None;
        let renewal = self.lease.ask(self.ledger.doubt(), now);
        let newest = self.format.newest();
        let renewal = renewal.map(|renewal| PresenceCommand::Lease(renewal, newest));
        let mut commands: Vec<PresenceCommand> = renewal.into_iter().collect();
        if let (Some(ends), false) = (self.lease.ends(), self.late) {
            let lease = self.lease.id();
            let asks = self.ledger.take(ASKS, USERS, now);
            commands.extend(
                asks.into_iter()
                    .map(|ask| PresenceCommand::Say { lease, ends, ask }),
            );
        }
        commands.extend(
            self.reaper
                .take(STEPS)
                .into_iter()
                .map(PresenceCommand::Reap),
        );
        commands
    }

    /// An errand has ended so.
    pub fn ended(&mut self, errand: PresenceCommand, reply: Reply, now: Instant) {
        if matches!(reply, Reply::Refused) {
            self.pause = Some(now + PAUSE);
        }
        match errand {
            PresenceCommand::Lease(renewal, _) => self.renewed(&renewal, reply, now),
            PresenceCommand::Say { ends, ask, .. } => self.said(ask, ends, &reply, now),
            PresenceCommand::Reap(step) => self.stepped(step, reply),
        }
    }

    fn renewed(&mut self, renewal: &Renewal, reply: Reply, now: Instant) {
        let Reply::Lease(answer, over) = reply else {
            self.format.reset();
            return self.lease.unanswered(renewal, now);
        };
        self.late = false;
        if self.lease.answered(renewal, &answer, now) == News::Over {
            log::warn!(lease:% = renewal.lease, state:? = answer.state; "the lease is over; announcing all members anew");
            self.ledger.anew();
            self.loss = true;
            self.refill = Some(now + REFILL);
        }
        self.found = self.lease.ends().is_some();
        self.ledger.settle(answer.clock);
        let steady = self.lease.may_reap(now);
        self.format.answered(answer.lowest_format, steady, now);
        match steady {
            true => self.reaper.found(over, self.random.usize(..)),
            false => self.reaper.stop(),
        }
    }

    fn said(&mut self, ask: Ask, until: u64, reply: &Reply, now: Instant) {
        let end = match reply {
            Reply::Done => End::Done,
            Reply::Said(before, after) => End::Said {
                before: *before,
                after: *after,
            },
            Reply::Lost => End::Lost { until },
            Reply::Late => {
                self.late = true;
                self.lease.hurry(now);
                End::Refused
            }
            _ => End::Refused,
        };
        if self.ledger.ended(ask, end) {
            self.refill = Some(now + REFILL);
        }
    }

    fn stepped(&mut self, step: Step, reply: Reply) {
        let lease = match &step {
            Step::Rooms { lease } | Step::Bury { lease } => lease,
            Step::Reap { lease, .. } | Step::Strike { lease, .. } => lease,
        };
        if self.reaper.lease() != Some(lease) {
            return;
        }
        match (step, reply) {
            (Step::Rooms { lease }, Reply::Rooms(rooms)) => self.reaper.rooms(lease, rooms),
            (Step::Reap { lease, room, .. }, Reply::Cursor(cursor)) => {
                self.reaper.reaped(lease, room, cursor);
            }
            (Step::Strike { lease, .. }, Reply::Done) => self.reaper.struck(lease),
            (Step::Bury { lease }, Reply::Done) => {
                log::info!(lease = lease.as_str(); "took out the members of a node that is gone");
                self.reaper.stop();
            }
            _ => self.reaper.stop(),
        }
    }
}
