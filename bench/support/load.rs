//! The load: thousands of clients on one thread over bare epoll, reading with one `recv` whatever
//! one wake-up finds. It must cost less than what it measures, so it is no example of how to write
//! a client.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::Outcome;
use super::dialogue::{ConnectionKind, Dialogue, Received};
use super::frames::{self, Kind};
use super::server::Server;

/// Connections opened at once: the kernel's `accept` queue holds some thousands.
const AT_ONCE: usize = 256;

/// Longer than anything that a working bench waits for.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// All clients of a bench.
pub struct Load {
    epoll: OwnedFd,
    clients: Vec<Client>,
    ready: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

struct Client {
    socket: TcpStream,
    dialogue: Dialogue,
    upgraded: bool,
    /// The beginning of an incomplete frame.
    rest: Vec<u8>,
}

impl Load {
    pub fn new() -> Outcome<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            clients: Vec::new(),
            ready: Vec::with_capacity(1024),
            buffer: vec![0; 256 * 1024],
        })
    }

    /// Connects `count` clients; returns when all are ready.
    pub fn connect(&mut self, server: &Server, count: usize) -> Outcome<Range<usize>> {
        self.connect_as(server, count, |_| ConnectionKind::Guest)
    }

    /// Connects clients, each with the kind that `kind` returns for its index; returns when all are
    /// ready.
    pub fn connect_as(
        &mut self,
        server: &Server,
        count: usize,
        kind: impl Fn(usize) -> ConnectionKind,
    ) -> Outcome<Range<usize>> {
        let all = self.clients.len()..self.clients.len() + count;
        while self.clients.len() < all.end {
            let some = AT_ONCE.min(all.end - self.clients.len());
            for _ in 0..some {
                let path = server.dialogue.path(&kind(self.clients.len() - all.start));
                self.add(server, &path)?;
            }
            self.until(some, |received| matches!(received, Received::Welcome))?;
        }
        Ok(all)
    }

    fn add(&mut self, server: &Server, path: &str) -> Outcome {
        let mut socket = TcpStream::connect_timeout(&server.address, TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let token = EventData::new_u64(self.clients.len() as u64);
        epoll::add(&self.epoll, &socket, token, EventFlags::IN)?;
        let head = frames::upgrade(path);
        socket.write_all(head.as_bytes())?;
        self.clients.push(Client {
            socket,
            dialogue: server.dialogue,
            upgraded: false,
            rest: Vec::new(),
        });
        Ok(())
    }

    /// Connects clients and joins each to the room that `room` returns for its index.
    pub fn members(
        &mut self,
        server: &Server,
        count: usize,
        room: impl Fn(usize) -> String,
    ) -> Outcome<Range<usize>> {
        let clients =
            self.connect_as(server, count, |index| ConnectionKind::Member(room(index)))?;
        self.join(clients.clone(), |client| room(client - clients.start))?;
        Ok(clients)
    }

    /// Joins each client to the room that `room` returns for it; returns when all have replies.
    pub fn join(&mut self, clients: Range<usize>, room: impl Fn(usize) -> String) -> Outcome {
        let dialogues: Vec<_> = self.clients.iter().map(|client| client.dialogue).collect();
        self.ask(clients, |client| dialogues[client].join(&room(client)))
    }

    /// Sends a command of each client, if it has one; returns when all have replies.
    pub fn ask(
        &mut self,
        clients: Range<usize>,
        command: impl Fn(usize) -> Option<String>,
    ) -> Outcome {
        let mut frame = Vec::new();
        let mut waiting = 0;
        for client in clients.clone() {
            if let Some(command) = command(client) {
                frame.clear();
                frames::masked_text(command.as_bytes(), &mut frame);
                self.send(client, &frame)?;
                waiting += 1;
            }
            if waiting == AT_ONCE || client + 1 == clients.end {
                let count = std::mem::take(&mut waiting);
                self.until(count, |received| matches!(received, Received::Done))?;
            }
        }
        Ok(())
    }

    /// Waits for `count` awaited messages; fails on any other that is not ignored.
    fn until(&mut self, count: usize, awaited: impl Fn(Received<'_>) -> bool) -> Outcome {
        let mut missing = count;
        let deadline = Instant::now() + TIMEOUT;
        while missing > 0 {
            self.poll(deadline, |_, received, _| {
                match received {
                    received if awaited(received) => missing -= 1,
                    Received::Ignored => {}
                    other => return Err(format!("unexpected: {other:?}").into()),
                }
                Ok(())
            })?;
            if Instant::now() >= deadline {
                return Err(format!("{missing} of {count} replies did not arrive").into());
            }
        }
        Ok(())
    }

    /// Sends frames from one client.
    pub fn send(&mut self, client: usize, frames: &[u8]) -> Outcome {
        write_all(&self.clients[client].socket, frames)
    }

    /// Waits for data, but not beyond `until`, and reads once from every readable client. `receive`
    /// gets the client, what it received, and when that was read.
    pub fn poll(
        &mut self,
        until: Instant,
        mut receive: impl FnMut(usize, Received<'_>, Instant) -> Outcome,
    ) -> Outcome {
        self.ready.clear();
        let timeout = wait_time(until);
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.ready {
            let index = event.data.u64() as usize;
            self.clients[index].read(&mut self.buffer, |received, when| {
                receive(index, received, when)
            })?;
        }
        Ok(())
    }
}

impl Client {
    fn read(
        &mut self,
        buffer: &mut [u8],
        mut receive: impl FnMut(Received<'_>, Instant) -> Outcome,
    ) -> Outcome {
        let rest = self.rest.len();
        buffer[..rest].copy_from_slice(&self.rest);
        let read = match (&self.socket).read(&mut buffer[rest..]) {
            Ok(0) => return Err("the server closed the connection".into()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let when = Instant::now();
        let bytes = &buffer[..rest + read];
        let mut at = 0;
        if !self.upgraded {
            let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
                return self.keep(bytes);
            };
            let head = String::from_utf8_lossy(&bytes[..end]);
            if !head.starts_with("HTTP/1.1 101") || !head.contains(frames::ACCEPT) {
                return Err(format!("the upgrade was refused: {head}").into());
            }
            self.upgraded = true;
            at = end + 4;
            self.take(self.dialogue.upgraded(), when, &mut receive)?;
        }
        while let Some(frame) = frames::first(&bytes[at..]) {
            let payload = &bytes[at + frame.start..at + frame.end];
            at += frame.end;
            match frame.kind {
                Kind::Text => {
                    for text in self.dialogue.texts(payload) {
                        self.take(self.dialogue.parse(text), when, &mut receive)?;
                    }
                }
                Kind::Ping => {
                    let mut pong = Vec::new();
                    frames::masked(frames::PONG, payload, &mut pong);
                    write_all(&self.socket, &pong)?;
                }
                other => return Err(format!("an unexpected frame: {other:?}").into()),
            }
        }
        self.keep(&bytes[at..])
    }

    /// Sends a required reply at once; passes everything else to the bench.
    fn take(
        &self,
        received: Received<'_>,
        when: Instant,
        receive: &mut impl FnMut(Received<'_>, Instant) -> Outcome,
    ) -> Outcome {
        let Received::Reply(reply) = received else {
            return receive(received, when);
        };
        let mut frame = Vec::new();
        frames::masked_text(reply.as_bytes(), &mut frame);
        write_all(&self.socket, &frame)
    }

    fn keep(&mut self, rest: &[u8]) -> Outcome {
        self.rest.clear();
        self.rest.extend_from_slice(rest);
        Ok(())
    }
}

/// The timeout here has a resolution of a millisecond: the last two are polled, so that a message
/// that is due is sent at once.
fn wait_time(until: Instant) -> Timespec {
    let left = until.saturating_duration_since(Instant::now());
    let whole = left.saturating_sub(Duration::from_millis(2)).as_millis() as i64;
    Timespec {
        tv_sec: whole / 1000,
        tv_nsec: whole % 1000 * 1_000_000,
    }
}

/// Writes to a non-blocking socket. A client's data fits into the kernel's buffer, unless the
/// server does not read for a while.
fn write_all(mut socket: &TcpStream, mut bytes: &[u8]) -> Outcome {
    let deadline = Instant::now() + TIMEOUT;
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
