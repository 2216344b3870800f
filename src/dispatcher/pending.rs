//! The requests to the broker that have not been answered yet. Each kind of reply has a map of its
//! own, from the ticket of the request to what the reply is for.

use crate::broker::MembersQuery;
use crate::dispatcher::ReplyTo;
use crate::dispatcher::read_scheduler::LogKey;
use crate::dispatcher::rooms::RoomKey;
use crate::model::control::ControlCommand;
use crate::model::id::{NumberMap, RoomName, Ticket, UserName};
use crate::model::source::{CallerId, Source};

/// See the head of this file.
#[derive(Default)]
pub(super) struct PendingRequests {
    last_ticket: u64,
    pub publishes: NumberMap<Ticket, PendingPublish>,
    pub reads: NumberMap<Ticket, PendingRead>,
    pub member_reads: NumberMap<Ticket, PendingMembers>,
    pub cluster_queries: NumberMap<Ticket, ReplyTo>,
    pub revocations: NumberMap<Ticket, PendingRevocation>,
    /// How many of them are commands of callers.
    pub calls: PendingCalls,
}

/// The numbers of commands of callers that wait for a reply. Callers without any have no entry.
#[derive(Default)]
pub(super) struct PendingCalls {
    counts: NumberMap<CallerId, usize>,
    all: usize,
}

impl PendingCalls {
    /// Of all callers.
    pub(super) fn len(&self) -> usize {
        self.all
    }

    pub(super) fn of(&self, caller: CallerId) -> usize {
        self.counts.get(&caller).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, caller: CallerId) {
        *self.counts.entry(caller).or_default() += 1;
        self.all += 1;
    }

    pub(super) fn sub(&mut self, caller: CallerId) {
        if let Some(count) = self.counts.get_mut(&caller) {
            *count -= 1;
            self.all -= 1;
            if *count == 0 {
                self.counts.remove(&caller);
            }
        }
    }
}

/// What a publish is for.
pub(super) enum PendingPublish {
    Command {
        reply_to: ReplyTo,
        room: RoomName,
        ephemeral: bool,
    },
    /// A command about a user.
    Control {
        reply_to: ReplyTo,
        command: ControlCommand,
    },
    /// The node publishes the revocation of a user again.
    Republish(UserName),
    /// The node publishes its report.
    Report,
}

/// What a read of a log is for.
pub(super) enum PendingRead {
    History {
        reply_to: ReplyTo,
        room: RoomName,
    },
    /// The node closes a hole, or finds the position of the log. The source may be a session whose
    /// join waits for it.
    Sequencer(LogKey, Source),
    /// All members of the room that are behind share the page; it was read for this source.
    Seek(RoomKey, Source),
}

/// What a read of a member list is for.
pub(super) enum PendingMembers {
    Query {
        reply_to: ReplyTo,
        query: MembersQuery,
    },
    /// The node keeps the list of the room; it was read for this source.
    List(RoomKey, Source),
}

/// What a read or a write of the set of revocations is for.
pub(super) enum PendingRevocation {
    /// A backend revokes tokens. The command is published when the set has them.
    Command {
        reply_to: ReplyTo,
        command: ControlCommand,
    },
    /// The node writes what the set lacks.
    WriteBack,
    /// The node compares the set with its own revocations.
    Read,
}

impl PendingRequests {
    pub(super) fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    pub(super) fn len(&self) -> usize {
        self.publishes.len()
            + self.reads.len()
            + self.member_reads.len()
            + self.cluster_queries.len()
            + self.revocations.len()
    }

    pub(super) fn publish(&mut self, pending: PendingPublish) -> Ticket {
        let ticket = self.next_ticket();
        self.publishes.insert(ticket, pending);
        ticket
    }

    pub(super) fn read(&mut self, pending: PendingRead) -> Ticket {
        let ticket = self.next_ticket();
        self.reads.insert(ticket, pending);
        ticket
    }

    pub(super) fn read_members(&mut self, pending: PendingMembers) -> Ticket {
        let ticket = self.next_ticket();
        self.member_reads.insert(ticket, pending);
        ticket
    }

    pub(super) fn cluster_query(&mut self, reply_to: ReplyTo) -> Ticket {
        let ticket = self.next_ticket();
        self.cluster_queries.insert(ticket, reply_to);
        ticket
    }

    pub(super) fn revocation(&mut self, pending: PendingRevocation) -> Ticket {
        let ticket = self.next_ticket();
        self.revocations.insert(ticket, pending);
        ticket
    }
}
