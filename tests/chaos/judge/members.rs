//! Who was where: counted from the connections and joins in the history, and compared with what the
//! nodes said at the end; and whether each client heard of everyone's coming and leaving in turn.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::history::Event;

const NOTES: usize = 8;

#[derive(Default)]
pub struct LocalPresence {
    clients: HashMap<usize, Client>,
    /// Lists that were asked for, and those that were wrong.
    pub lists: usize,
    pub wrong: usize,
    /// Comings and leavings that clients were told of, and those out of turn.
    pub told: usize,
    pub out_of_turn: usize,
    pub notes: Vec<String>,
}

/// A client's present connection.
#[derive(Default)]
struct Client {
    user: Option<String>,
    rooms: BTreeMap<String, Heard>,
}

/// What a client was told since it joined a room: the last of each user, and the highest version.
#[derive(Default)]
struct Heard {
    here: HashMap<String, bool>,
    version: u64,
}

impl LocalPresence {
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Open { client, .. } | Event::Closed { client, .. } => {
                self.clients.remove(client);
            }
            Event::SignedIn { client, user } => self.client(*client).user = Some(user.clone()),
            Event::Joined { client, room, .. } => {
                let rooms = &mut self.client(*client).rooms;
                rooms.insert(room.clone(), Heard::default());
            }
            Event::Told {
                client,
                room,
                user,
                here,
                version,
            } => self.told(*client, room, user, *here, *version),
            Event::AskAnew { client, room } => {
                let rooms = &mut self.client(*client).rooms;
                if let Some(heard) = rooms.get_mut(room) {
                    *heard = Heard::default();
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

    fn told(&mut self, client: usize, room: &str, user: &str, here: bool, version: u64) {
        self.told += 1;
        let rooms = &mut self.client(client).rooms;
        // The answer to the join may still be on its way; it begins anew.
        let Some(heard) = rooms.get_mut(room) else {
            return;
        };
        let before = heard.here.insert(user.to_owned(), here);
        let old = version < heard.version;
        heard.version = heard.version.max(version);
        if before == Some(here) || old {
            self.out_of_turn += 1;
            let what = if here { "joined" } else { "left" };
            self.note(format!(
                "client {client} in {room}: {user} {what} at version {version}, which is out of turn"
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
            "client {client} in {room}: listed wrongly are {differ:?}; {anonymous} anonymous, not {visitors}"
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
