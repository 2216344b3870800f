//! The end of a schedule: whether everyone has come to rest, and what is told of those who have
//! not.

use super::client::Client;
use super::oracle::Kind;
use super::world::World;

impl World {
    /// Whether everyone has come to rest at the top of each room.
    pub fn rests(&mut self) -> bool {
        let now = self.instant();
        let tops: Vec<_> = (0..self.names.len())
            .map(|room| self.redis.standing(room, now).0)
            .collect();
        let at_top = |client: &Client| {
            let mut rooms = client.rooms.iter().zip(&tops);
            rooms.all(|(room, top)| room.as_ref().is_none_or(|room| room.position == Some(*top)))
        };
        !self.redis.rooms.iter().any(|room| room.tail_lost)
            && self.presence_rests()
            && self
                .clients
                .iter()
                .all(|client| client.rests() && at_top(client))
            && self
                .nodes
                .iter()
                .all(|node| node.alive && node.dispatcher.load().is_idle())
    }

    /// Every node tells the same of who is here, and it is the truth.
    pub fn judge_lists(&mut self) {
        for room in 0..self.names.len() {
            let (users, anonymous) = self.truly_here(room);
            for client in &self.clients {
                let Some(here) = &client.rooms[room] else {
                    continue;
                };
                let told = (here.view.connections(), here.view.anonymous);
                if told != (users.clone(), u64::from(anonymous)) {
                    let id = client.id;
                    let text =
                        format!("client {id} in r{room}: {told:?}, not {users:?}, {anonymous}");
                    self.oracle.violate(Kind::Ghost, text);
                }
            }
        }
    }

    pub fn find_restless(&mut self, when: &str) {
        let now = self.instant();
        let mut text = format!("{when}:");
        for room in 0..self.names.len() {
            text += &format!(
                "\n  r{room} stands at {:?}",
                self.redis.standing(room, now).0
            );
            let (listed, truth) = (self.redis.presence.listed(room), self.truly_here(room));
            text += &format!(", with {listed:?} of {truth:?}");
        }
        for (index, client) in self.clients.iter().enumerate() {
            text += &format!("\n  client {index} on {:?}: {client:?}", self.links[index]);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            text += &format!(
                "\n  node {index}, alive {}: {:?}",
                node.alive,
                node.dispatcher.load()
            );
        }
        self.oracle.violate(Kind::Stuck, text);
    }

    /// Everyone asks anew who is here.
    pub fn ask_lists(&mut self) {
        for node in &mut self.nodes {
            node.fail_reads = 0;
        }
        for client in 0..self.clients.len() {
            for room in 0..self.names.len() {
                self.clients[client].ask_members(room);
            }
            self.carry_out(client);
        }
    }

    pub fn say_last_words(&mut self) {
        for room in 0..self.names.len() {
            let joined = |client: &Client| client.rooms[room].is_some();
            if let Some(index) = self.clients.iter().position(joined) {
                self.clients[index].say(room, true, false, &mut self.oracle);
                self.carry_out(index);
            }
        }
    }
}
