//! A client's list of the members of a room, by the rules of the protocol: each page of the list is
//! true at its version, and each `joined` and `left` of a higher version changes it, also one that
//! arrived before the page.

use std::collections::BTreeMap;

use serde::Deserialize;
use switchboard::model::id::UserName;
use switchboard::model::member::MembersQuery;
use switchboard::protocol::Command;

use super::client::{
    ANSWER_DEADLINE, Action, Ask, Client, Context, RoomState, Timer, USERS, jitter,
};
use super::frames::Frame;
use super::oracle::Kind;

/// A user in a reply to `members`.
#[derive(Debug, Deserialize)]
pub struct Listed {
    user: String,
    connections: u32,
}

#[derive(Debug, Default)]
pub struct View {
    /// The number of the requested list: replies for another number are late.
    number: u64,
    pages: Vec<Page>,
    is_complete: bool,
    /// The last push about each user: its version, and whether the user is in the room.
    pushed: BTreeMap<String, (u64, bool)>,
    pub anonymous: u64,
}

#[derive(Debug)]
struct Page {
    version: u64,
    users: BTreeMap<String, u32>,
    /// The last name that it covers; `None`: all that are left.
    last: Option<String>,
}

impl View {
    /// The view of one stay in a room: a reply to a request of a former stay is late.
    pub fn of_stay(stay: u64) -> Self {
        Self {
            number: stay << 32,
            ..Self::default()
        }
    }

    /// Whether the user is in the room, and by which version; `None` until the page that covers it
    /// has arrived.
    fn known(&self, user: &str) -> Option<(u64, bool)> {
        let covers = |page: &&Page| page.last.as_deref().is_none_or(|last| user <= last);
        let page = self.pages.iter().find(covers)?;
        let pushed = self
            .pushed
            .get(user)
            .filter(|pushed| pushed.0 > page.version);
        Some(
            pushed
                .copied()
                .unwrap_or((page.version, page.users.contains_key(user))),
        )
    }

    /// The users in the room, sorted, once the list is complete.
    pub fn users(&self) -> Option<impl Iterator<Item = &String>> {
        let listed = self.pages.iter().flat_map(|page| page.users.keys());
        let mut users: Vec<&String> = listed.chain(self.pushed.keys()).collect();
        users.sort_unstable();
        users.dedup();
        let is_here = |user: &&String| self.known(user).is_some_and(|(_, here)| here);
        self.is_complete.then(|| users.into_iter().filter(is_here))
    }

    /// The connections of each user, from the pages alone.
    pub fn connections(&self) -> BTreeMap<String, u32> {
        let all = self.pages.iter().flat_map(|page| page.users.clone());
        all.collect()
    }
}

impl Client {
    /// The names are few, so that some users have several connections. Some clients authenticate
    /// only after their joins, some never.
    pub fn user(&self) -> Option<UserName> {
        let name = USERS[self.id % USERS.len()];
        (self.id % 4 != 3).then(|| UserName::new(name).expect("a name"))
    }

    pub fn authenticate(&mut self) {
        let Some(user) = self.user() else { return };
        let Some(conn) = &mut self.conn else { return };
        let id = conn.ask(Ask::Auth);
        self.actions
            .push(Action::Later(ANSWER_DEADLINE, Timer::Answer(id)));
        self.actions.push(Action::SignIn(id, user));
    }

    /// Requests the list from its beginning.
    pub fn ask_members(&mut self, index: usize) {
        let Some(room) = &mut self.rooms[index] else {
            return;
        };
        let number = room.view.number + 1;
        room.view = View {
            number,
            ..View::default()
        };
        self.ask_page(index);
    }

    fn ask_page(&mut self, index: usize) {
        let Some(room) = self.rooms[index].as_ref() else {
            return;
        };
        if room.state != RoomState::Joined || room.view.is_complete {
            return;
        }
        let last = room.view.pages.last().and_then(|page| page.last.as_deref());
        let after = last.map(|last| UserName::new(last).expect("a name"));
        let number = room.view.number;
        let command = Command::Members(MembersQuery {
            room: self.names[index].clone(),
            after,
            limit: 2,
        });
        self.request(Ask::Members(index, number), command);
    }

    /// Handles a reply to `members`.
    pub fn listed(
        &mut self,
        index: usize,
        number: u64,
        frame: &Frame<'_>,
        context: &mut Context<'_>,
    ) {
        let Some(room) = self.rooms[index]
            .as_mut()
            .filter(|room| room.view.number == number)
        else {
            return;
        };
        let (Some(version), Some(members), Some(more)) =
            (frame.version, &frame.members, frame.more)
        else {
            let wait = jitter(context.random, 1);
            return self
                .actions
                .push(Action::Later(wait, Timer::Members(index, number)));
        };
        let last = members
            .last()
            .filter(|_| more)
            .map(|member| member.user.clone());
        if more && last.is_none() {
            context
                .oracle
                .violate(Kind::Unexpected, format!("an empty page: {frame:?}"));
        }
        let users = members
            .iter()
            .map(|member| (member.user.clone(), member.connections));
        let users = users.collect();
        room.view.anonymous = frame.anonymous.unwrap_or(0);
        room.view.pages.push(Page {
            version,
            users,
            last,
        });
        room.view.is_complete = !more;
        self.ask_page(index);
    }

    /// Requests the page again after a refusal, unless the list has been replaced.
    pub fn ask_members_again(&mut self, index: usize, number: u64) {
        if self.is_open()
            && self.rooms[index]
                .as_ref()
                .is_some_and(|room| room.view.number == number)
        {
            self.ask_page(index);
        }
    }

    /// Handles a `joined` or `left`.
    pub fn presence_event(&mut self, index: usize, frame: &Frame<'_>, context: &mut Context<'_>) {
        let (Some(user), Some(version)) = (frame.user, frame.version) else {
            return context
                .oracle
                .violate(Kind::Unexpected, format!("{frame:?}"));
        };
        let is_here = frame.kind == "joined";
        let joined = |room: &&mut super::client::Room| room.state == RoomState::Joined;
        let Some(room) = self.rooms[index].as_mut().filter(joined) else {
            return;
        };
        let known = room.view.known(user).filter(|_| room.view.is_complete);
        let former = room.view.pushed.insert(user.to_owned(), (version, is_here));
        let text = || format!("client {} in r{index}: {frame:?} after {former:?}", self.id);
        match former {
            Some((_, was_here)) if was_here == is_here => {
                context.oracle.violate(Kind::Duplicated, text());
            }
            Some((former, _)) if former > version => {
                context.oracle.violate(Kind::Disordered, text());
            }
            _ if known.is_some_and(|(since, _)| since >= version) => {}
            _ if version <= context.redis.presence.lost_up_to => {}
            // A client with a complete list receives no event that changes nothing.
            _ if known.is_some_and(|(_, was_here)| was_here == is_here) => {
                context.oracle.violate(Kind::WrongMembers, text());
            }
            _ => context.oracle.figures.presence_events += 1,
        }
    }
}
