//! Rooms full of clients, and a publisher for each. Every delivery is checked: each member must
//! hear each message of its room once and in order, or the bench ends.

use std::collections::VecDeque;
use std::time::Instant;

use super::Outcome;
use super::dialogue::{Dialogue, Heard, Seat};
use super::frames;
use super::load::{Load, PATIENCE};
use super::server::Server;

/// Clients in rooms.
pub struct Talk {
    load: Load,
    dialogue: Dialogue,
    rooms: Vec<Room>,
    /// By client; the publishers are behind the members and in no room.
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
    /// Messages before this number have reached everyone.
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
        let mut seats = Vec::new();
        for (index, server) in servers.iter().enumerate() {
            let share = (0..rooms * members).filter(|seat| seat % servers.len() == index);
            let share: Vec<usize> = share.collect();
            load.members(server, share.len(), |place| name(share[place] / members))?;
            seats.extend(share);
        }
        let members_of = seats.iter().map(|seat| Member {
            room: seat / members,
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
        let publishers = load.seat(servers[0], rooms, |room| Seat::Publisher(name(room)))?;
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
            let said = self.dialogue.publish(&room.name, room.published);
            frames::masked_text(said.as_bytes(), &mut self.frames);
            room.published += 1;
            room.arrived.push_back(0);
        }
        self.load.send(room.publisher, &self.frames)
    }

    /// Messages of a room that have not reached everyone.
    pub fn in_flight(&self, room: usize) -> u32 {
        self.rooms[room].published - self.rooms[room].done
    }

    /// Waits for something to happen, but not beyond `until`. `delivered` gets the number of each
    /// message that reaches a member, and when.
    pub fn poll(&mut self, until: Instant, mut delivered: impl FnMut(u32, Instant)) -> Outcome {
        let Self {
            load,
            rooms,
            members,
            deliveries,
            ..
        } = self;
        load.poll(until, |client, heard, when| match heard {
            Heard::Message(number) => {
                let member = members.get_mut(client).ok_or("a stranger hears the room")?;
                if number != member.next {
                    let next = member.next;
                    return Err(format!("message {number} came where {next} was due").into());
                }
                member.next += 1;
                *deliveries += 1;
                rooms[member.room].arrived(number)?;
                delivered(number, when);
                Ok(())
            }
            Heard::Done | Heard::Aside => Ok(()),
            Heard::Strange(other) => Err(String::from_utf8_lossy(other).into()),
            other => Err(format!("{other:?} came where messages are due").into()),
        })
    }

    /// Waits until everything published has reached everyone.
    pub fn finish(&mut self, mut delivered: impl FnMut(u32, Instant)) -> Outcome {
        let mut deadline = Instant::now() + PATIENCE;
        while let Some(room) = self.rooms.iter().position(Room::waits) {
            let before = self.deliveries;
            self.poll(deadline, &mut delivered)?;
            // Whoever only pings does not renew it, and of deliveries there are only so many.
            if self.deliveries > before {
                deadline = Instant::now() + PATIENCE;
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
        *self.arrived.get_mut(place).ok_or("nobody said that")? += 1;
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
            "message {done} of {published} in {name} has reached {reached} of {members} members, and no more within {} s",
            PATIENCE.as_secs()
        )
    }
}

fn name(room: usize) -> String {
    format!("room-{room:03}")
}
