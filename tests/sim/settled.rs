//! The end of a schedule: whether all clients and nodes have settled, and a report of those that
//! have not.

use super::client::Client;
use super::oracle::Kind;
use super::world::World;

impl World {
    /// Whether all clients are idle at the top of their rooms, and all nodes are idle.
    pub fn is_settled(&mut self) -> bool {
        let now = self.instant();
        let tops: Vec<_> = (0..self.names.len())
            .map(|room| self.redis.bounds(room, now).0)
            .collect();
        let at_top = |client: &Client| {
            let mut rooms = client.rooms.iter().zip(&tops);
            rooms.all(|(room, top)| room.as_ref().is_none_or(|room| room.position == Some(*top)))
        };
        !self.redis.rooms.iter().any(|room| room.tail_lost)
            && self.presence_is_settled()
            && self
                .clients
                .iter()
                .all(|client| client.is_settled() && at_top(client))
            && self
                .nodes
                .iter()
                .all(|node| node.alive && node.dispatcher.load().is_idle())
    }

    /// Checks that every client's list of members is the same, and true.
    pub fn check_lists(&mut self) {
        for room in 0..self.names.len() {
            let (users, anonymous) = self.actual_members(room);
            for client in &self.clients {
                let Some(here) = &client.rooms[room] else {
                    continue;
                };
                let listed = (here.view.connections(), here.view.anonymous);
                if listed != (users.clone(), u64::from(anonymous)) {
                    let id = client.id;
                    let text =
                        format!("client {id} in r{room}: {listed:?}, not {users:?}, {anonymous}");
                    self.oracle.violate(Kind::WrongMembers, text);
                }
            }
        }
    }

    pub fn report_unsettled(&mut self, when: &str) {
        let now = self.instant();
        let mut text = format!("{when}:");
        for room in 0..self.names.len() {
            text += &format!("\n  r{room} is at {:?}", self.redis.bounds(room, now).0);
            let (listed, truth) = (self.redis.presence.listed(room), self.actual_members(room));
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

    /// Every client requests the members of its rooms again.
    pub fn request_lists(&mut self) {
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

    /// Publishes once more to each room.
    pub fn publish_last(&mut self) {
        for room in 0..self.names.len() {
            let joined = |client: &Client| client.rooms[room].is_some();
            if let Some(index) = self.clients.iter().position(joined) {
                self.clients[index].enqueue(room, true, false, &mut self.oracle);
                self.carry_out(index);
            }
        }
    }
}
