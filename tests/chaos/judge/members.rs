//! The members of each room: counted from the connections and joins in the history, and compared
//! with the nodes' lists at the end. Also whether each client's presence events were in order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::history::Event;

const NOTES: usize = 8;

#[derive(Default)]
pub struct ExpectedMembers {
    clients: HashMap<usize, Client>,
    /// Lists that were requested, and how many were wrong.
    pub lists: usize,
    pub wrong: usize,
    /// Presence events that clients received, and how many were out of order.
    pub events: usize,
    pub out_of_order: usize,
    pub notes: Vec<String>,
}

/// A client's present connection.
#[derive(Default)]
struct Client {
    user: Option<String>,
    rooms: BTreeMap<String, Received>,
}

/// The presence events since a client joined a room: the last of each user, the highest version.
#[derive(Default)]
struct Received {
    here: HashMap<String, bool>,
    version: u64,
}

impl ExpectedMembers {
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Open { client, .. } | Event::Closed { client, .. } => {
                self.clients.remove(client);
            }
            Event::SignedIn { client, user } => self.client(*client).user = Some(user.clone()),
            Event::Joined { client, room, .. } => {
                let rooms = &mut self.client(*client).rooms;
                rooms.insert(room.clone(), Received::default());
            }
            Event::PresenceChange {
                client,
                room,
                user,
                here,
                version,
            } => self.presence_event(*client, room, user, *here, *version),
            Event::MembersReset { client, room } => {
                let rooms = &mut self.client(*client).rooms;
                if let Some(received) = rooms.get_mut(room) {
                    *received = Received::default();
                }
            }
            Event::Members {
                client,
                room,
                users,
                anonymous,
                ..
            } => self.listed(*client, room, users, *anonymous),
            _ => {}
        }
    }

    fn client(&mut self, client: usize) -> &mut Client {
        self.clients.entry(client).or_default()
    }

    fn presence_event(&mut self, client: usize, room: &str, user: &str, here: bool, version: u64) {
        self.events += 1;
        let rooms = &mut self.client(client).rooms;
        // The reply to the join may still be under way; it starts a new list.
        let Some(received) = rooms.get_mut(room) else {
            return;
        };
        let before = received.here.insert(user.to_owned(), here);
        let old = version < received.version;
        received.version = received.version.max(version);
        if before == Some(here) || old {
            self.out_of_order += 1;
            let what = if here { "joined" } else { "left" };
            self.note(format!(
                "client {client} in {room}: {user} {what} out of order, at version {version}"
            ));
        }
    }

    fn listed(&mut self, client: usize, room: &str, users: &BTreeMap<String, u32>, anonymous: u32) {
        self.lists += 1;
        let mut expected: BTreeMap<&str, u32> = BTreeMap::new();
        let mut visitors = 0;
        for here in self.clients.values() {
            match &here.user {
                _ if !here.rooms.contains_key(room) => {}
                Some(user) => *expected.entry(user).or_default() += 1,
                None => visitors += 1,
            }
        }
        let found: BTreeMap<&str, u32> = users
            .iter()
            .map(|(user, connections)| (user.as_str(), *connections))
            .collect();
        if found == expected && anonymous == visitors {
            return;
        }
        let differ: BTreeSet<_> = (expected
            .iter()
            .filter(|(user, n)| found.get(*user) != Some(n)))
        .chain(
            found
                .iter()
                .filter(|(user, n)| expected.get(*user) != Some(n)),
        )
        .map(|(user, _)| *user)
        .collect();
        let note = format!(
            "client {client} in {room}: wrong entries for {differ:?}; \
             {anonymous} anonymous, not {visitors}"
        );
        self.wrong += 1;
        self.note(note);
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES {
            self.notes.push(note);
        }
    }
}
