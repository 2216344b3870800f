//! Helpers of the presence tests: requests that set presence, and a table of a room's members as a
//! dispatcher keeps it, which detects missed changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use switchboard::broker::{
    BrokerEvent, Change, Info, MemberPage, MembersQuery, MembersRequest, PresenceRequest, Refused,
    Request, SetPresence, Source,
};
use switchboard::model::id::UserName;

use super::node::{BrokerNode, name};
use crate::support::DEADLINE;

pub fn user(name: &str) -> UserName {
    UserName::new(name).expect(name)
}

pub fn info(json: &str) -> Option<Info> {
    (!json.is_empty()).then(|| RawValue::from_string(json.into()).expect(json).into())
}

impl BrokerNode {
    /// Sets the number of connections of a user; `""` stands for anonymous connections.
    pub fn here(&self, room: &str, who: &str, connections: u32) {
        self.here_with(room, who, connections, "");
    }

    pub fn here_with(&self, room: &str, who: &str, connections: u32, shown: &str) {
        let here = SetPresence {
            room: name(room),
            user: (!who.is_empty()).then(|| user(who)),
            connections,
            info: info(shown),
        };
        assert!(
            self.broker
                .send(Request::Presence(PresenceRequest::SetPresence(here)))
        );
    }

    pub fn retire(&self, span: Duration) {
        assert!(
            self.broker
                .send(Request::Presence(PresenceRequest::Retire(span)))
        );
    }

    pub fn try_members(
        &mut self,
        room: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<MemberPage, Refused> {
        let asked = self.ask(|ticket| {
            let query = MembersQuery {
                room: name(room),
                after: after.map(user),
                limit,
            };
            Request::Presence(PresenceRequest::Members(MembersRequest {
                ticket,
                source: Source::Node,
                query,
            }))
        });
        self.wait("page of members", |event| match event {
            BrokerEvent::MemberPage { ticket, result } if *ticket == asked => Some(result.clone()),
            _ => None,
        })
    }

    pub fn members(&mut self, room: &str) -> MemberPage {
        self.try_members(room, None, 1000).expect("a page")
    }

    /// The next change in a room.
    pub fn change(&mut self, room: &str) -> Change {
        self.wait("change", |event| match event {
            BrokerEvent::Changed { room: it, change } if it.as_str() == room => {
                Some(change.clone())
            }
            _ => None,
        })
    }

    /// Waits until the list of a room is this, as `ada:2 bob:1`.
    pub fn until_members(&mut self, room: &str, wanted: &str) {
        let start = Instant::now();
        loop {
            // While the list is not whole, a query is refused.
            let is = match self.try_members(room, None, 1000) {
                Ok(page) => list(&page),
                Err(why) => why.to_string(),
            };
            if is == wanted {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{room}: {is:?}, not {wanted:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A page as a line of text.
pub fn list(page: &MemberPage) -> String {
    let members = page.members.iter();
    let words: Vec<_> = members
        .map(|it| format!("{}:{}", it.user, it.connections))
        .collect();
    words.join(" ")
}

/// A follower's copy of the members of a room.
pub struct Table {
    room: String,
    pub version: u64,
    members: BTreeMap<String, u32>,
    /// Every change, as `ada 0>1`.
    pub seen: Vec<String>,
    /// How often a change was missed and the list was read again.
    pub missed: usize,
    /// Members found gone or new when the list was read.
    pub found: Vec<String>,
}

impl Table {
    /// Follows the room and reads its list.
    pub fn of(node: &mut BrokerNode, room: &str) -> Self {
        node.follow(room);
        let mut table = Self {
            room: room.into(),
            version: 0,
            members: BTreeMap::new(),
            seen: Vec::new(),
            missed: 0,
            found: Vec::new(),
        };
        table.read(node);
        table.found.clear();
        table
    }

    fn read(&mut self, node: &mut BrokerNode) {
        let page = node.members(&self.room);
        self.version = page.version;
        let former = std::mem::take(&mut self.members);
        self.members = (page.members.iter())
            .map(|it| (it.user.to_string(), it.connections))
            .collect();
        let gone = former.keys().filter(|it| !self.members.contains_key(*it));
        let new = self.members.keys().filter(|it| !former.contains_key(*it));
        self.found.extend(gone.map(|it| format!("-{it}")));
        self.found.extend(new.map(|it| format!("+{it}")));
    }

    fn take(&mut self, node: &mut BrokerNode, change: &Change) {
        if change.version <= self.version {
            return;
        }
        self.seen.push(format!(
            "{} {}>{}",
            change.user, change.was, change.connections
        ));
        if change.from != self.version {
            self.missed += 1;
            return self.read(node);
        }
        let user = change.user.to_string();
        let was = self.members.get(&user).copied().unwrap_or(0);
        assert_eq!(was, change.was, "{change:?}");
        self.version = change.version;
        match change.connections {
            0 => self.members.remove(&user),
            count => self.members.insert(user, count),
        };
    }

    /// Handles the events received so far.
    pub fn turn(&mut self, node: &mut BrokerNode) {
        for event in node.rest() {
            match event {
                BrokerEvent::Changed { room, change } if room.as_str() == self.room => {
                    self.take(node, &change);
                }
                BrokerEvent::Following(room) if room.as_str() == self.room => self.read(node),
                _ => {}
            }
        }
    }

    pub fn list(&self) -> String {
        let words: Vec<_> = self
            .members
            .iter()
            .map(|(user, count)| format!("{user}:{count}"))
            .collect();
        words.join(" ")
    }

    /// Continues until the list is this.
    pub fn until(&mut self, node: &mut BrokerNode, wanted: &str) {
        let start = Instant::now();
        self.turn(node);
        while self.list() != wanted {
            let (is, seen) = (self.list(), &self.seen);
            assert!(
                start.elapsed() < DEADLINE,
                "{is:?}, not {wanted:?}; seen: {seen:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
            self.turn(node);
        }
    }

    /// Continues for this time.
    pub fn watch(&mut self, node: &mut BrokerNode, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.turn(node);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
