//! The members of one room over all nodes, as this node has sent them to its members: a version,
//! and the list at that version. Plain logic: changes and pages of the list go in, changes for the
//! members come out, in the order of versions, whatever the subscription missed.
//!
//! ```text
//!             following                       versions are equal
//!  ┌────────┐ ─────────▶ compare (read of no members) ─────────▶ settled
//!  │ settled│                │ versions differ                      ▲
//!  └────────┘ ─────────▶ list (pages, from the first on) ───────────┘
//!             a hole           later changes wait and are applied after it
//! ```
//! A room whose list does not fit into the node's memory has only the version. Its members receive
//! changes as they come, and after a missed change a push that asks them to query the list again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::model::id::UserName;
use crate::model::member::{Change, Info, Member, MemberPage};

/// Maximum number of members in one read.
const PAGE: usize = 1000;

/// Maximum number of changes that wait for the list being read. Beyond it the read begins again:
/// the list contains them.
const AHEAD: usize = 4096;

/// Approximate memory of a member besides its name and its info, in bytes.
const OVERHEAD: usize = 128;

/// A change that the room's members receive. The version is that of the change, or of the list in
/// which it was found.
#[derive(Clone, Debug)]
pub(crate) enum MemberChange {
    Joined {
        user: UserName,
        info: Option<Info>,
        version: u64,
    },
    Left {
        user: UserName,
        version: u64,
    },
    /// The changes are unknown; clients must query the list again.
    Anew {
        version: u64,
    },
}

impl MemberChange {
    pub(crate) fn version(&self) -> u64 {
        match self {
            MemberChange::Joined { version, .. }
            | MemberChange::Left { version, .. }
            | MemberChange::Anew { version } => *version,
        }
    }
}

/// The next read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListQuery {
    pub after: Option<UserName>,
    pub limit: usize,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct MemberList {
    /// The version that the members have; `None` until the first list has been read.
    version: Option<u64>,
    /// The list at `version`; `None` if it has not been read or does not fit.
    table: Option<MemberTable>,
    /// The version of the list's last page: until the changes up to it have arrived, a part of the
    /// list is ahead of `version`.
    last_page: u64,
    /// The number of users, and of anonymous sessions, by the newest read.
    count: u64,
    anonymous: u64,
    want: ListRead,
    /// The read in flight; `Stale` if its reply has been invalidated since.
    in_flight: InFlight,
    /// The pages of the list so far, and the version of the first.
    pages: Option<(u64, MemberTable)>,
    /// Changes received while a list is being read.
    ahead: VecDeque<Change>,
}

/// What the next read must return; a greater value includes the smaller ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum ListRead {
    #[default]
    Nothing,
    /// The counts.
    Counts,
    /// The version, to detect missed changes.
    Compare,
    List,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum InFlight {
    #[default]
    No,
    Yes(ListRead),
    Stale,
}

#[derive(Debug, Default)]
struct MemberTable {
    members: BTreeMap<UserName, (u32, Option<Info>)>,
    weight: usize,
}

impl MemberTable {
    /// Sets a user's connections, and returns the former number.
    fn set(&mut self, user: UserName, connections: u32, info: Option<Info>) -> u32 {
        let weigh = |user: &UserName, info: &Option<Info>| {
            OVERHEAD + user.as_str().len() + info.as_ref().map_or(0, |info| info.get().len())
        };
        let weight = weigh(&user, &info);
        let place = self.members.entry(user);
        let former = match &place {
            Entry::Occupied(old) => {
                self.weight -= weigh(old.key(), &old.get().1);
                old.get().0
            }
            Entry::Vacant(_) => 0,
        };
        if connections > 0 {
            self.weight += weight;
            *place.or_default() = (connections, info);
        } else if let Entry::Occupied(old) = place {
            old.remove();
        }
        former
    }

    /// Adds the changes from an older list to this one.
    fn changes_since(&self, old: &MemberTable, version: u64, changes: &mut Vec<MemberChange>) {
        for user in old
            .members
            .keys()
            .filter(|user| !self.members.contains_key(*user))
        {
            let user = user.clone();
            changes.push(MemberChange::Left { user, version });
        }
        for (user, (_, info)) in &self.members {
            if !old.members.contains_key(user) {
                let (user, info) = (user.clone(), info.clone());
                changes.push(MemberChange::Joined {
                    user,
                    info,
                    version,
                });
            }
        }
    }
}

impl MemberList {
    /// The topic was (re)subscribed: changes may have been missed.
    pub(crate) fn make_due(&mut self) {
        let want = self.version.map_or(ListRead::List, |_| ListRead::Compare);
        self.want(want);
        self.start_over();
    }

    /// Asks for the present counts; a reply in flight will do.
    pub(crate) fn want_counts(&mut self) {
        if !matches!(self.in_flight, InFlight::Yes(_)) {
            self.want(ListRead::Counts);
        }
    }

    fn want(&mut self, want: ListRead) {
        self.want = self.want.max(want);
    }

    fn start_over(&mut self) {
        self.pages = None;
        if self.in_flight != InFlight::No {
            self.in_flight = InFlight::Stale;
        }
    }

    /// Whether a read is wanted and none is in flight.
    pub(crate) fn is_due(&self) -> bool {
        self.want != ListRead::Nothing && self.in_flight == InFlight::No
    }

    /// Whether a members query can be answered: the list has been read, or it does not fit.
    pub(crate) fn is_known(&self) -> bool {
        self.version.is_some()
    }

    /// Whether the list is in memory.
    pub(crate) fn has_list(&self) -> bool {
        self.table.is_some()
    }

    /// Its memory, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let pages = self.pages.as_ref().map_or(0, |(_, table)| table.weight);
        pages + self.table.as_ref().map_or(0, |table| table.weight)
    }

    /// Returns the next read, which the caller must start.
    pub(crate) fn next_read(&mut self) -> ListQuery {
        self.in_flight = InFlight::Yes(self.want);
        let last = self
            .pages
            .as_ref()
            .and_then(|(_, table)| table.members.last_key_value());
        ListQuery {
            after: last.map(|(user, _)| user.clone()),
            limit: if self.want == ListRead::List { PAGE } else { 0 },
        }
    }

    /// The read failed. What it was to return is still wanted, except the counts.
    pub(crate) fn failed(&mut self) {
        self.in_flight = InFlight::No;
        if self.want == ListRead::Counts {
            self.want = ListRead::Nothing;
        }
    }

    /// Bytes of the changes that wait for the list.
    pub(crate) fn ahead_weight(&self) -> usize {
        self.ahead.len() * OVERHEAD
    }

    /// A user's number of connections has changed. `may_wait`: whether there is memory for changes
    /// that wait for a list.
    pub(crate) fn receive(
        &mut self,
        change: Change,
        may_wait: bool,
        changes: &mut Vec<MemberChange>,
    ) {
        match self.version {
            Some(version) if self.want != ListRead::List => {
                if change.from == version {
                    self.apply(change, changes);
                } else if change.version > version {
                    self.want(ListRead::List);
                    self.start_over();
                    self.ahead.push_back(change);
                }
            }
            _ if may_wait && self.ahead.len() < AHEAD => self.ahead.push_back(change),
            _ => {
                self.ahead.clear();
                self.want(ListRead::List);
                self.start_over();
            }
        }
    }

    fn apply(&mut self, change: Change, changes: &mut Vec<MemberChange>) {
        let Change {
            version,
            user,
            was,
            connections,
            info,
            ..
        } = change;
        self.version = Some(version);
        let was = match &mut self.table {
            Some(table) => table.set(user.clone(), connections, info.clone()),
            None => was,
        };
        match (was, connections) {
            (0, 1..) => {
                self.count += 1;
                changes.push(MemberChange::Joined {
                    user,
                    info,
                    version,
                });
            }
            (1.., 0) => {
                self.count = self.count.saturating_sub(1);
                changes.push(MemberChange::Left { user, version });
            }
            _ => {}
        }
    }

    /// Handles the reply to a read, and adds the changes for the members in order. `memory`: how
    /// many more bytes the list may occupy.
    pub(crate) fn on_page(
        &mut self,
        page: MemberPage,
        memory: usize,
        changes: &mut Vec<MemberChange>,
    ) {
        let in_flight = std::mem::take(&mut self.in_flight);
        self.anonymous = page.anonymous;
        let InFlight::Yes(want) = in_flight else {
            return;
        };
        if want != ListRead::List {
            if self.table.is_none() {
                self.count = page.count;
            }
            if want == self.want {
                self.want = ListRead::Nothing;
            }
            if want == ListRead::Compare && self.version != Some(page.version) {
                self.want(ListRead::List);
            }
            return;
        }
        let (version, mut pages) = self
            .pages
            .take()
            .unwrap_or((page.version, MemberTable::default()));
        for Member {
            user,
            connections,
            info,
        } in page.members
        {
            pages.set(user, connections, info);
        }
        // Members still to be read count too: a list that is too large costs one page and not all
        // of them.
        let fits = pages.weight.max(page.count as usize * OVERHEAD) <= memory;
        if fits && page.more {
            self.pages = Some((version, pages));
            return;
        }
        self.want = ListRead::Nothing;
        self.count = if fits {
            pages.members.len() as u64
        } else {
            page.count
        };
        match (self.version, &self.table) {
            (Some(former), Some(old)) if fits && former <= version => {
                pages.changes_since(old, version, changes);
            }
            (Some(former), _) if former != version => changes.push(MemberChange::Anew { version }),
            _ => {}
        }
        self.version = Some(version);
        self.table = fits.then_some(pages);
        self.last_page = page.version;
        self.catch_up(changes);
    }

    /// Applies the changes that waited for the list, up to the first hole.
    fn catch_up(&mut self, changes: &mut Vec<MemberChange>) {
        while let Some(change) = self.ahead.pop_front() {
            match self.version {
                Some(version) if change.from == version => self.apply(change, changes),
                Some(version) if change.version <= version => {}
                _ => {
                    // The next list contains it. Keeping it could repeat the read for ever, if the
                    // store has lost data and no longer has it.
                    self.ahead.clear();
                    self.want(ListRead::List);
                }
            }
        }
    }

    /// Drops the list, because it no longer fits into the node's memory.
    pub(crate) fn give_up(&mut self) {
        let is_mixed = self.version.is_some_and(|version| version < self.last_page);
        if self.table.take().is_some() && is_mixed {
            // Without the list the node cannot decide which of the next changes its members already
            // have.
            self.want(ListRead::List);
        }
        if self.pages.is_some() {
            self.start_over();
        }
    }

    /// A page of the list, if the list is in memory: the members after `after`, at most `limit`,
    /// and at most `bytes` of them, but at least one.
    pub(crate) fn page(
        &self,
        after: Option<&UserName>,
        limit: usize,
        bytes: usize,
    ) -> Option<MemberPage> {
        let (version, table) = (self.version?, self.table.as_ref()?);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = table
            .members
            .range::<UserName, _>((start, Bound::Unbounded));
        let members = rest
            .by_ref()
            .take(limit)
            .map(|(user, (connections, info))| Member {
                user: user.clone(),
                connections: *connections,
                info: info.clone(),
            });
        let mut page = MemberPage {
            version,
            members: members.collect(),
            count: self.count,
            anonymous: self.anonymous,
            more: rest.next().is_some(),
        };
        fit(&mut page, bytes);
        Some(page)
    }
}

/// Removes the members that do not fit into so many bytes; one always stays.
pub(crate) fn fit(page: &mut MemberPage, bytes: usize) {
    let mut used = 0;
    let fits = |member: &&Member| {
        let info = member.info.as_ref().map_or(0, |info| info.get().len());
        used += member.user.as_str().len() + info + OVERHEAD;
        used <= bytes
    };
    let kept = page.members.iter().take_while(fits).count().max(1);
    page.more |= kept < page.members.len();
    page.members.truncate(kept);
}

#[cfg(test)]
mod tests;
