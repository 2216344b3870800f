//! Keeps this node's revocations equal to the set in the broker. The node reads the set when it
//! starts, once a minute, after each loss of its subscription and when data may have been lost. It
//! applies the revocations it did not have and writes back those that the set lacks. A write that
//! added some is published in the log of revocations, so that all nodes apply it at once.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::broker::{
    Confirm, LogRequest, ReadRevocations, Refused, Request, RevocationRetention, Revoke,
    StoredRevocations,
};
use crate::dispatcher::pending::{PendingPublish, PendingRevocation};
use crate::dispatcher::{Dispatcher, Now, ReplyTo};
use crate::model::control::{ControlAction, ControlCommand};
use crate::model::id::{Ticket, UserName};
use crate::model::revocations::{Cutoff, Verdict};
use crate::model::source::Source;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::{CommandError, Reply};

/// How long a starting node waits for the others to write their revocations, if the set may be
/// incomplete.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it waits at least: after a loss of all data it cannot detect the others, which have to
/// connect, renew their leases (each tries once a second) and write.
const SETTLE: Duration = Duration::from_secs(2);

/// How often it reads the set meanwhile.
const POLL: Duration = Duration::from_millis(250);

/// Maximum number of users in one write: a few milliseconds of Redis' time.
const BATCH: usize = 1000;

/// Maximum number of notifications in flight.
const NOTIFICATIONS: usize = 64;

/// The state of this node's synchronization with the set.
///
/// ```text
///            the set is confirmed, no node is left to wait for, or CONFIRM_TIMEOUT is over
/// starting ────────────────────────────────────────────────────────────────────────▶ known
/// ```
#[derive(Default)]
pub(crate) struct RevocationSync {
    /// The node has read which tokens are revoked.
    pub known: bool,
    /// A read of the set is due.
    due: bool,
    reading: Option<Ticket>,
    /// When a starting node first found the set unconfirmed, and when it reads it again.
    unconfirmed: Option<Instant>,
    next_look: Option<Instant>,
    /// It continued before the other nodes had confirmed.
    force: bool,
    /// Users whose revocations the set may lack, and whether other nodes may lack them too.
    unwritten: VecDeque<(UserName, bool)>,
    /// To be sent once all of `unwritten` is written.
    confirm: Option<Confirm>,
    writing: Option<Writing>,
    /// Users whose revocations are to be published again, and how many of those are in flight.
    unpublished: VecDeque<UserName>,
    under_way: usize,
}

/// A write in flight.
struct Writing {
    ticket: Ticket,
    users: Vec<(UserName, bool)>,
    confirm: Option<Confirm>,
}

impl RevocationSync {
    /// Makes a comparison of the set with this node's revocations due.
    pub(crate) fn compare(&mut self) {
        self.due = true;
    }
}

impl Dispatcher {
    /// Whether the node has read which tokens are revoked, so that it can accept tokens.
    pub fn has_revocations(&self) -> bool {
        self.control.revoked.known && self.control.sync.known
    }

    /// A backend revokes tokens: the set is written first, then all nodes are notified, then the
    /// backend is answered.
    pub(in crate::dispatcher) fn publish_revocation(
        &mut self,
        now: Now,
        reply_to: &ReplyTo,
        command: ControlCommand,
        cutoff: Cutoff,
    ) -> Result<(), CommandError> {
        let cutoffs = vec![(command.user.clone(), cutoff)];
        let source = reply_to.source();
        self.admit(reply_to)?;
        let reply_to = reply_to.clone();
        let pending = PendingRevocation::Command { reply_to, command };
        let ticket = self.turn.pending.revocation(pending);
        let retention = self.revocation_retention(now);
        self.turn
            .requests
            .push(Request::Log(LogRequest::Revoke(Revoke {
                ticket,
                source,
                cutoffs,
                confirm: None,
                retention,
            })));
        Ok(())
    }

    /// Handles the reply to a write.
    pub(in crate::dispatcher) fn on_revoked(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: Result<Vec<UserName>, Refused>,
    ) {
        match (self.turn.pending.revocations.remove(&ticket), result) {
            (Some(PendingRevocation::Command { reply_to, command }), Ok(_)) => {
                self.publish_command(now, reply_to, command);
            }
            (Some(PendingRevocation::Command { reply_to, .. }), Err(refused)) => {
                self.release(&reply_to);
                self.reply(&reply_to, &Reply::Error(&refused.into()));
            }
            (Some(PendingRevocation::WriteBack), result) => self.written_back(now, ticket, result),
            (Some(PendingRevocation::Read) | None, _) => {}
        }
    }

    fn written_back(&mut self, now: Now, ticket: Ticket, result: Result<Vec<UserName>, Refused>) {
        let sync = &mut self.control.sync;
        let Some(writing) = sync.writing.take_if(|writing| writing.ticket == ticket) else {
            return;
        };
        match result {
            Ok(changed) => {
                let unpublished = writing
                    .users
                    .into_iter()
                    .filter(|(_, unpublished)| *unpublished);
                let unpublished = unpublished.map(|(user, _)| user);
                let unpublished = unpublished.filter(|user| changed.contains(user));
                sync.unpublished.extend(unpublished);
                self.sync_revocations(now);
            }
            // Written again at the next tick.
            Err(_) => {
                for user in writing.users.into_iter().rev() {
                    sync.unwritten.push_front(user);
                }
                sync.confirm = sync.confirm.take().or(writing.confirm);
            }
        }
    }

    /// Starts the requests that are due.
    pub(in crate::dispatcher) fn sync_revocations(&mut self, now: Now) {
        let is_open = self.turn.settings.rights.open;
        let sync = &mut self.control.sync;
        if is_open || !self.control.revoked.known {
            // A node in open mode verifies no tokens. Any other node reads the log first.
            sync.known |= is_open;
            return;
        }
        let looks = sync.next_look.is_some_and(|at| now.instant >= at);
        if (sync.due || looks) && sync.reading.is_none() {
            (sync.due, sync.next_look) = (false, None);
            let is_starting = !sync.known;
            let ticket = self.turn.pending.revocation(PendingRevocation::Read);
            self.control.sync.reading = Some(ticket);
            let retention = self.revocation_retention(now);
            let read = ReadRevocations {
                ticket,
                is_starting,
                retention,
            };
            self.turn
                .requests
                .push(Request::Log(LogRequest::ReadRevocations(read)));
        }
        self.write_back(now);
        self.publish_again(now);
    }

    fn write_back(&mut self, now: Now) {
        let retention = self.revocation_retention(now);
        let control = &mut self.control;
        if control.sync.writing.is_some() {
            return;
        }
        let (mut users, mut cutoffs) = (Vec::new(), Vec::new());
        while users.len() < BATCH
            && let Some((user, unpublished)) = control.sync.unwritten.pop_front()
        {
            if let Some(cutoff) = control.revocations.cutoff(&user, now.unix_ms) {
                cutoffs.push((user.clone(), cutoff));
                users.push((user, unpublished));
            }
        }
        let is_last = control.sync.unwritten.is_empty();
        let confirm = control.sync.confirm.take_if(|_| is_last);
        if users.is_empty() && confirm.is_none() {
            return;
        }
        let ticket = self.turn.pending.revocation(PendingRevocation::WriteBack);
        control.sync.writing = Some(Writing {
            ticket,
            users,
            confirm: confirm.clone(),
        });
        self.turn
            .requests
            .push(Request::Log(LogRequest::Revoke(Revoke {
                ticket,
                source: Source::Node,
                cutoffs,
                confirm,
                retention,
            })));
    }

    /// Handles the reply to a read.
    pub(in crate::dispatcher) fn on_revocations(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: Result<StoredRevocations, Refused>,
    ) {
        self.turn.pending.revocations.remove(&ticket);
        let sync = &mut self.control.sync;
        if sync
            .reading
            .take_if(|expected| *expected == ticket)
            .is_none()
        {
            return;
        }
        let Ok(stored) = result else {
            // Read again at the next tick.
            sync.due = true;
            return;
        };
        for (user, cutoff) in &stored.cutoffs {
            self.revoke(now, user, *cutoff);
        }
        let was_known = self.control.sync.known;
        if was_known || stored.is_confirmed || self.stops_waiting(now, &stored) {
            self.control.sync.known = true;
            self.compare_with(now, stored, was_known);
        }
        self.sync_revocations(now);
    }

    /// Whether a starting node continues with an unconfirmed set.
    fn stops_waiting(&mut self, now: Now, stored: &StoredRevocations) -> bool {
        let sync = &mut self.control.sync;
        let since = *sync.unconfirmed.get_or_insert(now.instant);
        let waited = now.instant.saturating_duration_since(since);
        if waited >= CONFIRM_TIMEOUT && stored.awaited > 0 {
            log::warn!(
                nodes = stored.awaited;
                "Redis may have lost revocations, and other nodes have not written theirs in time; \
                 continuing without them"
            );
            sync.force = true;
            return true;
        }
        if waited >= SETTLE && stored.awaited == 0 {
            return true;
        }
        sync.next_look = Some(now.instant + POLL);
        false
    }

    /// Writes back what the set lacks, and confirms the set if it is unconfirmed. `was_known`:
    /// other nodes may lack it too.
    fn compare_with(&mut self, now: Now, stored: StoredRevocations, was_known: bool) {
        let control = &mut self.control;
        let there: HashMap<&UserName, Cutoff> = stored
            .cutoffs
            .iter()
            .map(|(user, cutoff)| (user, *cutoff))
            .collect();
        control.sync.unwritten.clear();
        for (user, cutoff) in control.revocations.iter(now.unix_ms) {
            if there.get(user).is_none_or(|there| *there < cutoff) {
                control.sync.unwritten.push_back((user.clone(), was_known));
            }
        }
        let force = std::mem::take(&mut control.sync.force);
        control.sync.confirm = (!stored.is_confirmed).then_some(Confirm {
            data_set: stored.data_set,
            force,
        });
    }

    /// Applies a revocation to the tokens and sessions of this node.
    pub(in crate::dispatcher) fn revoke(&mut self, now: Now, user: &UserName, cutoff: Cutoff) {
        let known = self.control.revocations.cutoff(user, now.unix_ms);
        if known.is_some_and(|known| known >= cutoff) {
            return;
        }
        let added = (self.control.revocations).add(user.clone(), cutoff, now.unix_ms);
        if let Some(forgotten) = added.forgotten {
            log::error!(user = forgotten.as_str(); "too many revocations: the oldest was dropped");
        }
        for session in self.sessions_of(user) {
            let client = self.sessions.get(&session);
            let identity = client.and_then(|client| client.identity.as_ref());
            let issued = identity.and_then(|identity| identity.times?.issued);
            match cutoff.verdict(issued) {
                Verdict::Valid => {}
                Verdict::Doubtful => self.disconnect(now, session, Disconnect::Doubtful),
                Verdict::Revoked => self.disconnect(now, session, Disconnect::Revoked),
            }
        }
    }

    /// Applies a revocation that was published in the log.
    pub(in crate::dispatcher) fn revocation_published(
        &mut self,
        now: Now,
        user: UserName,
        cutoff: Cutoff,
        time: u64,
    ) {
        let known = self.control.revocations.cutoff(&user, now.unix_ms);
        let by_former_version = cutoff.through() != time;
        // A node of version 0.1 that publishes its revocations again has kept the time alone.
        if by_former_version && known.is_some_and(|known| known.through() == time) {
            return;
        }
        self.revoke(now, &user, cutoff);
        // Nodes of version 0.1 write no set. A revocation received before the set was read is
        // compared with it then.
        if self.control.sync.known && by_former_version && known.is_none_or(|known| known < cutoff)
        {
            self.control.sync.unwritten.push_back((user, false));
        }
    }

    /// Publishes the revocations that had to be written back, a bounded number at a time: other
    /// nodes may lack them.
    fn publish_again(&mut self, now: Now) {
        while self.control.sync.under_way < NOTIFICATIONS
            && let Some(user) = self.control.sync.unpublished.pop_front()
        {
            let Some(cutoff) = self.control.revocations.cutoff(&user, now.unix_ms) else {
                continue;
            };
            self.control.sync.under_way += 1;
            let action = ControlAction::Revoke(cutoff);
            let command = ControlCommand { user, action };
            let (room, publication) = (command.log().room(), command.to_publication(now.unix_ms));
            let pending = PendingPublish::Republish(command.user);
            let ticket = self.turn.pending.publish(pending);
            self.publish_control(ticket, Source::Node, room, publication);
        }
    }

    /// A revocation was published again. If that failed, it is published once more at the next
    /// tick.
    pub(in crate::dispatcher) fn on_republished(&mut self, user: UserName, is_safe: bool) {
        self.control.sync.under_way -= 1;
        if !is_safe {
            self.control.sync.unpublished.push_back(user);
        }
    }

    fn revocation_retention(&self, now: Now) -> RevocationRetention {
        RevocationRetention {
            now: now.unix_ms,
            lifetime: self.control.remembered,
        }
    }
}
