//! The physical limit: what a server made for nothing but this can do on this machine with this
//! kernel. One thread, bare epoll, no heartbeats, no history, no limits, no checks. It speaks the
//! native protocol with frames of a node's length.
//!
//! *Plain* sends each message to each member at once, in one `send`. *Merging* reads what all its
//! sockets hold, then sends each member its room's messages of that pass, in one `send`. Two of
//! either are tied by a `relay` through Redis. *Logging* is plain, and its relay also writes the
//! log that a node writes.

mod relay;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use slab::Slab;

use self::relay::Relay;
use crate::support::Outcome;
use crate::support::frames;
use crate::support::server::Kind;

const LISTENER: u64 = u64::MAX;
const PUBLISHES: u64 = u64::MAX - 1;
const SUBSCRIPTION: u64 = u64::MAX - 2;

/// As long as a node's.
const WELCOME: &str = concat!(
    r#"{"type":"welcome","session":"0123456789abcdef-00001","node":"bench","#,
    r#""user":null,"heartbeat":25}"#
);
const EPOCH: &str = "0123456789abc";
const TIME: &str = "1764000000123";

struct Limit {
    merging: bool,
    epoll: OwnedFd,
    peers: Slab<Peer>,
    rooms: HashMap<String, usize>,
    members: Vec<Room>,
    /// Rooms and peers with something to send at the end of the pass.
    unsent: Vec<usize>,
    answered: Vec<usize>,
    /// To the other nodes, if it is not alone.
    relay: Option<Relay>,
}

struct Peer {
    socket: TcpStream,
    upgraded: bool,
    room: Option<usize>,
    /// The beginning of a frame.
    rest: Vec<u8>,
    /// What the kernel did not take, or an answer that waits for the end of the pass.
    unsent: Vec<u8>,
}

#[derive(Default)]
struct Room {
    name: String,
    peers: Vec<usize>,
    offset: u64,
    /// Frames of this pass.
    frames: Vec<u8>,
}

/// Serves until it is killed, with the Redis on another port if there is one.
pub fn run(kind: Kind, port: u16, redis: Option<u16>) -> Outcome {
    switchboard::runtime::raise_file_limit()?;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let token = EventData::new_u64(LISTENER);
    epoll::add(&epoll, &listener, token, EventFlags::IN)?;
    let relay = redis
        .map(|port| Relay::connect(port, kind == Kind::Logging))
        .transpose()?;
    if let Some(relay) = &relay {
        let tokens = [PUBLISHES, SUBSCRIPTION].map(EventData::new_u64);
        epoll::add(&epoll, &relay.publishes, tokens[0], EventFlags::IN)?;
        epoll::add(&epoll, &relay.subscription, tokens[1], EventFlags::IN)?;
    }
    let limit = Limit {
        merging: kind == Kind::Merging,
        epoll,
        peers: Slab::new(),
        rooms: HashMap::new(),
        members: Vec::new(),
        unsent: Vec::new(),
        answered: Vec::new(),
        relay,
    };
    limit.serve(&listener)
}

impl Limit {
    fn serve(mut self, listener: &TcpListener) -> Outcome {
        let mut ready: Vec<epoll::Event> = Vec::with_capacity(1024);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            ready.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &ready {
                match event.data.u64() {
                    LISTENER => self.accept(listener)?,
                    PUBLISHES => self.acknowledge(&mut buffer)?,
                    SUBSCRIPTION => self.receive_published(&mut buffer)?,
                    peer => self.serve_peer(peer as usize, event.flags, &mut buffer)?,
                }
            }
            self.send_merged()?;
        }
    }

    fn accept(&mut self, listener: &TcpListener) -> Outcome {
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let entry = self.peers.vacant_entry();
            let token = EventData::new_u64(entry.key() as u64);
            epoll::add(&self.epoll, &socket, token, EventFlags::IN)?;
            entry.insert(Peer {
                socket,
                upgraded: false,
                room: None,
                rest: Vec::new(),
                unsent: Vec::new(),
            });
        }
        Ok(())
    }

    fn serve_peer(&mut self, index: usize, flags: EventFlags, buffer: &mut [u8]) -> Outcome {
        let Some(peer) = self.peers.get_mut(index) else {
            return Ok(());
        };
        if flags.contains(EventFlags::OUT) {
            let unsent = std::mem::take(&mut peer.unsent);
            watch(&self.epoll, peer, index, EventFlags::IN)?;
            send(&self.epoll, peer, index, &unsent)?;
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return Ok(());
        }
        let kept = peer.rest.len();
        buffer[..kept].copy_from_slice(&peer.rest);
        let read = match peer.socket.read(&mut buffer[kept..]) {
            Ok(read @ 1..) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Ok(0) | Err(_) => {
                self.drop_peer(index);
                return Ok(());
            }
        };
        let bytes = &mut buffer[..kept + read];
        let mut at = 0;
        if !peer.upgraded {
            let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
                peer.rest = bytes.to_vec();
                return Ok(());
            };
            at = head + 4;
            peer.upgraded = true;
            let answer = upgrade(&bytes[..head])?;
            send(&self.epoll, peer, index, &answer)?;
        }
        while let Some(frame) = frames::first(&bytes[at..]) {
            let payload = &mut bytes[at + frame.start..at + frame.end];
            at += frame.end;
            frames::unmask(payload, frame.mask.unwrap_or_default());
            if frame.kind == frames::Kind::Text {
                self.execute(index, std::str::from_utf8(payload)?)?;
            }
        }
        if let Some(peer) = self.peers.get_mut(index) {
            peer.rest.clear();
            peer.rest.extend_from_slice(&bytes[at..]);
        }
        Ok(())
    }

    fn execute(&mut self, index: usize, text: &str) -> Outcome {
        let id = between(text, "\"id\":", ",").ok_or("a command without id")?;
        let name = between(text, "\"room\":\"", "\"").ok_or("a command without room")?;
        let room = self.room(name);
        if text.starts_with(r#"{"type":"join""#) {
            self.members[room].peers.push(index);
            self.peers[index].room = Some(room);
        } else {
            let data = text
                .split_once("\"data\":")
                .ok_or("a publish without data")?
                .1;
            let data = &data[..data.len() - 1];
            if let Some(relay) = &mut self.relay {
                relay.publish(index, id, name, room, data);
                return if self.merging { Ok(()) } else { relay.flush() };
            }
            self.deliver(room, data)?;
        }
        self.answer(index, id, room)
    }

    /// Sends publishers the replies to what Redis has acknowledged.
    fn acknowledge(&mut self, buffer: &mut [u8]) -> Outcome {
        let Some(relay) = &mut self.relay else {
            return Ok(());
        };
        for (peer, id, room) in relay.answered(buffer)? {
            self.answer(peer, &id, room)?;
        }
        Ok(())
    }

    /// Delivers what any node has published.
    fn receive_published(&mut self, buffer: &mut [u8]) -> Outcome {
        let (read, fields) = match &mut self.relay {
            Some(relay) => (relay.read(buffer)?, relay.fields()),
            None => return Ok(()),
        };
        let mut at = 0;
        while let Some(message) = relay::message(&buffer[..read], at, fields) {
            let room = self.room(std::str::from_utf8(&buffer[message.room])?);
            self.deliver(room, std::str::from_utf8(&buffer[message.data])?)?;
            at = message.end;
        }
        if let Some(relay) = &mut self.relay {
            relay.keep(&buffer[at..read]);
        }
        Ok(())
    }

    fn room(&mut self, name: &str) -> usize {
        if let Some(room) = self.rooms.get(name) {
            return *room;
        }
        self.rooms.insert(name.into(), self.members.len());
        self.members.push(Room {
            name: name.into(),
            ..Room::default()
        });
        self.members.len() - 1
    }

    fn deliver(&mut self, index: usize, data: &str) -> Outcome {
        let room = &mut self.members[index];
        room.offset += 1;
        let message = format!(
            r#"{{"type":"message","room":"{}","offset":{},"time":{TIME},"data":{data}}}"#,
            room.name, room.offset
        );
        if room.frames.is_empty() {
            self.unsent.push(index);
        }
        frames::text(message.as_bytes(), &mut room.frames);
        if self.merging {
            Ok(())
        } else {
            self.send_rooms()
        }
    }

    /// Sends the rooms' messages since the last call.
    fn send_rooms(&mut self) -> Outcome {
        for index in self.unsent.drain(..) {
            let room = &mut self.members[index];
            for peer in &room.peers {
                if let Some(member) = self.peers.get_mut(*peer) {
                    send(&self.epoll, member, *peer, &room.frames)?;
                }
            }
            room.frames.clear();
        }
        Ok(())
    }

    fn answer(&mut self, index: usize, id: &str, room: usize) -> Outcome {
        let Some(peer) = self.peers.get_mut(index) else {
            return Ok(());
        };
        let Room { name, offset, .. } = &self.members[room];
        let answer = format!(
            r#"{{"type":"ok","id":{id},"room":"{name}","epoch":"{EPOCH}","offset":{offset}}}"#
        );
        if self.merging {
            if peer.unsent.is_empty() {
                self.answered.push(index);
            }
            frames::text(answer.as_bytes(), &mut peer.unsent);
            return Ok(());
        }
        let mut frame = Vec::new();
        frames::text(answer.as_bytes(), &mut frame);
        send(&self.epoll, peer, index, &frame)
    }

    fn send_merged(&mut self) -> Outcome {
        if let Some(relay) = &mut self.relay {
            relay.flush()?;
        }
        self.send_rooms()?;
        for index in self.answered.drain(..) {
            if let Some(peer) = self.peers.get_mut(index) {
                let answers = std::mem::take(&mut peer.unsent);
                send(&self.epoll, peer, index, &answers)?;
            }
        }
        Ok(())
    }

    fn drop_peer(&mut self, index: usize) {
        let peer = self.peers.remove(index);
        if let Some(room) = peer.room {
            self.members[room].peers.retain(|member| *member != index);
        }
    }
}

/// Sends what the kernel takes, and keeps the rest until it takes more.
fn send(epoll: &OwnedFd, peer: &mut Peer, index: usize, bytes: &[u8]) -> Outcome {
    let sent = if peer.unsent.is_empty() {
        // The next read detects a closed peer.
        (&peer.socket).write(bytes).unwrap_or(0)
    } else {
        0
    };
    if sent < bytes.len() {
        peer.unsent.extend_from_slice(&bytes[sent..]);
        watch(epoll, peer, index, EventFlags::IN | EventFlags::OUT)?;
    }
    Ok(())
}

fn watch(epoll: &OwnedFd, peer: &Peer, index: usize, flags: EventFlags) -> Outcome {
    let token = EventData::new_u64(index as u64);
    Ok(epoll::modify(epoll, &peer.socket, token, flags)?)
}

/// The 101 and the welcome.
fn upgrade(head: &[u8]) -> Outcome<Vec<u8>> {
    let head = std::str::from_utf8(head)?;
    let key = between(head, "Sec-WebSocket-Key: ", "\r").or_else(|| {
        let (_, key) = head.split_once("Sec-WebSocket-Key: ")?;
        Some(key)
    });
    let accept = derive_accept_key(key.ok_or("a head without a key")?.as_bytes());
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes();
    frames::text(WELCOME.as_bytes(), &mut answer);
    Ok(answer)
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(begin)?.1.split_once(end)?.0)
}
