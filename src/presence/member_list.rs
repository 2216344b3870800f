//! Who is in one room, over all nodes, as this node's members were told: a version, and the list
//! that it belongs to. Plain logic: changes and pages of the list go in, what members are to be
//! told comes out, in the order of versions, whatever the subscription missed.
//!
//! ```text
//!             following                       versions are equal
//!  ┌────────┐ ─────────▶ compare (read of no members) ─────────▶ settled
//!  │ settled│                │ they differ                          ▲
//!  └────────┘ ─────────▶ list (pages, from the first on) ───────────┘
//!             a hole           changes meanwhile wait, and come behind it
//! ```
//! A room whose list does not fit into the node's memory has only the version. Its members are told
//! of changes as they come, and where changes were missed, that they must ask anew.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::model::id::UserName;
use crate::model::member::{Change, Info, Member, MemberPage};

/// Members of one read at most.
const PAGE: usize = 1000;

/// How many changes wait for the list that is being read. Beyond it reading begins again: the list
/// has them.
const AHEAD: usize = 4096;

/// What a member occupies besides its name and its info, in bytes, near enough to keep a bound.
const OVERHEAD: usize = 128;

/// What the members of the room are to be told. The version is that of the change, or of the list
/// in which it was found.
#[derive(Clone, Debug)]
pub enum MemberChange {
    Joined {
        user: UserName,
        info: Option<Info>,
        version: u64,
    },
    Left {
        user: UserName,
        version: u64,
    },
    /// What has changed cannot be told; the list is to be asked for anew.
    Anew {
        version: u64,
    },
}

impl MemberChange {
    pub fn version(&self) -> u64 {
        match self {
            MemberChange::Joined { version, .. }
            | MemberChange::Left { version, .. }
            | MemberChange::Anew { version } => *version,
        }
    }
}

/// What is to be read next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    pub after: Option<UserName>,
    pub limit: usize,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct MemberList {
    /// What the members were told last; `None` until the first list is here.
    version: Option<u64>,
    /// The list at `version`; `None` if it is not here or does not fit.
    table: Option<Table>,
    /// The version of the list's last page: until the changes up to here have come, some of the
    /// list is ahead of `version`.
    last_page: u64,
    /// How many users there are, and how many sessions that have not said who they are, by the
    /// newest read.
    count: u64,
    anonymous: u64,
    want: Want,
    /// A read is under way; `Stale` when what happened since makes its answer worthless.
    asked: Asked,
    /// The pages of the list so far, and the version of the first.
    pages: Option<(u64, Table)>,
    /// Heard while a list is being read.
    ahead: VecDeque<Change>,
}

/// What is wanted of the next read, the greater including the smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    #[default]
    Nothing,
    /// The counts.
    Counts,
    /// Whether something was missed.
    Compare,
    List,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asked {
    #[default]
    No,
    Yes(Want),
    Stale,
}

#[derive(Debug, Default)]
struct Table {
    members: BTreeMap<UserName, (u32, Option<Info>)>,
    weight: usize,
}

impl Table {
    /// What the user had before.
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

    /// What has to be told to those who know the older list.
    fn changes_since(&self, old: &Table, version: u64, changes: &mut Vec<MemberChange>) {
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
    /// The topic was (re)subscribed: something may have been missed.
    pub fn make_due(&mut self) {
        let want = self.version.map_or(Want::List, |_| Want::Compare);
        self.want(want);
        self.start_over();
    }

    /// The counts are wanted as they are now; an answer under way is as good.
    pub fn want_counts(&mut self) {
        if !matches!(self.asked, Asked::Yes(_)) {
            self.want(Want::Counts);
        }
    }

    fn want(&mut self, want: Want) {
        self.want = self.want.max(want);
    }

    fn start_over(&mut self) {
        self.pages = None;
        if self.asked != Asked::No {
            self.asked = Asked::Stale;
        }
    }

    /// Whether a read is wanted and none is under way.
    pub fn is_due(&self) -> bool {
        self.want != Want::Nothing && self.asked == Asked::No
    }

    /// Whether the members are known, or known not to fit: a question for them can be answered.
    pub fn is_known(&self) -> bool {
        self.version.is_some()
    }

    /// Whether the list is here.
    pub fn has_list(&self) -> bool {
        self.table.is_some()
    }

    /// What it occupies, in bytes.
    pub fn weight(&self) -> usize {
        let pages = self.pages.as_ref().map_or(0, |(_, table)| table.weight);
        pages + self.table.as_ref().map_or(0, |table| table.weight)
    }

    /// The question to ask now; the caller asks it.
    pub fn ask(&mut self) -> ListQuery {
        self.asked = Asked::Yes(self.want);
        let last = self
            .pages
            .as_ref()
            .and_then(|(_, table)| table.members.last_key_value());
        ListQuery {
            after: last.map(|(user, _)| user.clone()),
            limit: if self.want == Want::List { PAGE } else { 0 },
        }
    }

    /// The question was not answered; what was wanted still is, but for the counts.
    pub fn failed(&mut self) {
        self.asked = Asked::No;
        if self.want == Want::Counts {
            self.want = Want::Nothing;
        }
    }

    /// Bytes of the changes that wait for the list.
    pub fn ahead_weight(&self) -> usize {
        self.ahead.len() * OVERHEAD
    }

    /// Somebody's connections are more or fewer. `may_wait`: whether there is memory for changes
    /// that wait for a list.
    pub fn receive(&mut self, change: Change, may_wait: bool, changes: &mut Vec<MemberChange>) {
        match self.version {
            Some(version) if self.want != Want::List => {
                if change.from == version {
                    self.apply(change, changes);
                } else if change.version > version {
                    self.want(Want::List);
                    self.start_over();
                    self.ahead.push_back(change);
                }
            }
            _ if may_wait && self.ahead.len() < AHEAD => self.ahead.push_back(change),
            _ => {
                self.ahead.clear();
                self.want(Want::List);
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

    /// A read was answered. What is to be told is put out in order. `memory`: how many bytes more
    /// it may occupy.
    pub fn answer(&mut self, page: MemberPage, memory: usize, changes: &mut Vec<MemberChange>) {
        let asked = std::mem::take(&mut self.asked);
        self.anonymous = page.anonymous;
        let Asked::Yes(asked) = asked else { return };
        if asked != Want::List {
            if self.table.is_none() {
                self.count = page.count;
            }
            if asked == self.want {
                self.want = Want::Nothing;
            }
            if asked == Want::Compare && self.version != Some(page.version) {
                self.want(Want::List);
            }
            return;
        }
        let (version, mut pages) = self
            .pages
            .take()
            .unwrap_or((page.version, Table::default()));
        for Member {
            user,
            connections,
            info,
        } in page.members
        {
            pages.set(user, connections, info);
        }
        // What is known to come counts too: a room that is too large costs one page and not all of
        // them.
        let fits = pages.weight.max(page.count as usize * OVERHEAD) <= memory;
        if fits && page.more {
            self.pages = Some((version, pages));
            return;
        }
        self.want = Want::Nothing;
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

    /// Lets come what waited for the list, as far as it goes on without a hole.
    fn catch_up(&mut self, changes: &mut Vec<MemberChange>) {
        while let Some(change) = self.ahead.pop_front() {
            match self.version {
                Some(version) if change.from == version => self.apply(change, changes),
                Some(version) if change.version <= version => {}
                _ => {
                    // The next list has it. Keeping it could mean to ask for ever about something
                    // that a store which went back no longer has.
                    self.ahead.clear();
                    self.want(Want::List);
                }
            }
        }
    }

    /// Gives the list up, because it does not fit into the node's memory any more.
    pub fn give_up(&mut self) {
        let is_mixed = self.version.is_some_and(|version| version < self.last_page);
        if self.table.take().is_some() && is_mixed {
            // Without the list nobody knows any more which of the changes to come were told with
            // it.
            self.want(Want::List);
        }
        if self.pages.is_some() {
            self.start_over();
        }
    }

    /// A part of the list, if it is here: the members behind `after`, at most `limit`, and no more
    /// than `bytes` of them but for the first.
    pub fn page(&self, after: Option<&UserName>, limit: usize, bytes: usize) -> Option<MemberPage> {
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

/// Leaves out the members that are more than fit into so many bytes; one always stays.
pub fn fit(page: &mut MemberPage, bytes: usize) {
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
