//! Rooms full of clients, and a publisher for each. Every delivery is checked: each member must
//! receive each message of its room once and in order, or the bench ends.

use std::collections::VecDeque;
use std::time::Instant;

use super::Outcome;
use super::dialogue::{ConnectionKind, Dialogue, Received};
use super::frames;
use super::load::{Load, TIMEOUT};
use super::server::Server;

/// Clients in rooms.
pub struct Talk {
    load: Load,
    dialogue: Dialogue,
    rooms: Vec<Room>,
    /// By client; the publishers come after the members and are in no room.
    members: Vec<Member>,
    /// Messages that have reached a member.
    pub deliveries: u64,
    frames: Vec<u8>,
}

struct Room {
    name: String,
    publisher: usize,
    members: u32,
    published: u32,
    /// Messages before this number have reached all members.
    done: u32,
    /// How many members each message from there on has reached.
    arrived: VecDeque<u32>,
}

struct Member {
    room: usize,
    next: u32,
}

impl Talk {
    /// Connects `members` clients for each of so many rooms, in turn to each of the servers, and a
    /// publisher for each room.
    pub fn begin(servers: &[&Server], rooms: usize, members: usize) -> Outcome<Self> {
        let mut load = Load::new()?;
        let mut indexes = Vec::new();
        for (server_index, server) in servers.iter().enumerate() {
            let share = (0..rooms * members).filter(|index| index % servers.len() == server_index);
            let share: Vec<usize> = share.collect();
            load.members(server, share.len(), |client| name(share[client] / members))?;
            indexes.extend(share);
        }
        let members_of = indexes.iter().map(|index| Member {
            room: index / members,
            next: 0,
        });
        let room = |(room, publisher)| Room {
            name: name(room),
            publisher,
            members: members as u32,
            published: 0,
            done: 0,
            arrived: VecDeque::new(),
        };
        let publishers = load.connect_as(servers[0], rooms, |room| {
            ConnectionKind::Publisher(name(room))
        })?;
        Ok(Self {
            load,
            dialogue: servers[0].dialogue,
            rooms: publishers.enumerate().map(room).collect(),
            members: members_of.collect(),
            deliveries: 0,
            frames: Vec::new(),
        })
    }

    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// Publishes the next messages of a room, in one write.
    pub fn publish(&mut self, room: usize, count: u32) -> Outcome {
        let room = &mut self.rooms[room];
        self.frames.clear();
        for _ in 0..count {
            let command = self.dialogue.publish(&room.name, room.published);
            frames::masked_text(command.as_bytes(), &mut self.frames);
            room.published += 1;
            room.arrived.push_back(0);
        }
        self.load.send(room.publisher, &self.frames)
    }

    /// Messages of a room that have not reached all members.
    pub fn in_flight(&self, room: usize) -> u32 {
        self.rooms[room].published - self.rooms[room].done
    }

    /// Waits for messages, but not beyond `until`. `delivered` gets the number of each message that
    /// reaches a member, and when.
    pub fn poll(&mut self, until: Instant, mut delivered: impl FnMut(u32, Instant)) -> Outcome {
        let Self {
            load,
            rooms,
            members,
            deliveries,
            ..
        } = self;
        load.poll(until, |client, received, when| match received {
            Received::Message(number) => {
                let member = members
                    .get_mut(client)
                    .ok_or("a client that is no member received a message")?;
                if number != member.next {
                    let next = member.next;
                    return Err(format!("received message {number}, expected {next}").into());
                }
                member.next += 1;
                *deliveries += 1;
                rooms[member.room].arrived(number)?;
                delivered(number, when);
                Ok(())
            }
            Received::Done | Received::Ignored => Ok(()),
            Received::Unexpected(other) => Err(String::from_utf8_lossy(other).into()),
            other => Err(format!("received {other:?}, expected a message").into()),
        })
    }

    /// Waits until every publication has reached all members.
    pub fn finish(&mut self, mut delivered: impl FnMut(u32, Instant)) -> Outcome {
        let mut deadline = Instant::now() + TIMEOUT;
        while let Some(room) = self.rooms.iter().position(Room::waits) {
            let before = self.deliveries;
            self.poll(deadline, &mut delivered)?;
            // Only deliveries extend the deadline, not pings; and their number is finite.
            if self.deliveries > before {
                deadline = Instant::now() + TIMEOUT;
            } else if Instant::now() > deadline {
                return Err(self.rooms[room].missing().into());
            }
        }
        Ok(())
    }
}

impl Room {
    fn arrived(&mut self, number: u32) -> Outcome {
        let place = (number - self.done) as usize;
        *self
            .arrived
            .get_mut(place)
            .ok_or("a message that was never published")? += 1;
        while self.arrived.front() == Some(&self.members) {
            self.arrived.pop_front();
            self.done += 1;
        }
        Ok(())
    }

    fn waits(&self) -> bool {
        self.done < self.published
    }

    fn missing(&self) -> String {
        let Self {
            name,
            done,
            published,
            members,
            ..
        } = self;
        let reached = self.arrived.front().unwrap_or(&0);
        format!(
            "message {done} of {published} in {name} has reached {reached} of {members} members, \
             and no more within {} s",
            TIMEOUT.as_secs()
        )
    }
}

fn name(room: usize) -> String {
    format!("room-{room:03}")
}
