//! The link between two limits: a PUBLISH, or the node's script that writes the log too; and one
//! subscription to all rooms, on a connection of its own. It ends the server when Redis closes.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use crate::support::{Outcome, script};

const TOPIC: &str = "room:";

/// A Redis that takes longer is broken.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Both connections block, but are only read when they are readable, and Redis reads everything
/// that is written.
pub struct Relay {
    pub publishes: TcpStream,
    pub subscription: TcpStream,
    /// The digest of the script, if the log is written.
    script: Option<String>,
    /// The beginning of an incomplete message.
    rest: Vec<u8>,
    /// Commands of this pass.
    unsent: Vec<u8>,
    /// Publishes without a reply of Redis, in order: the peer, and the command's id and room.
    unanswered: VecDeque<(usize, String, usize)>,
    /// Lines of an incomplete reply.
    lines: usize,
}

/// A published message, as ranges of the bytes read.
pub struct Message {
    pub room: Range<usize>,
    pub data: Range<usize>,
    /// Where the next message begins.
    pub end: usize,
}

impl Relay {
    /// Connects; returns when it is subscribed to all rooms.
    pub fn connect(port: u16, logging: bool) -> Outcome<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connect = || -> Outcome<TcpStream> {
            let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok(stream)
        };
        let load = || -> redis::RedisResult<String> {
            let client = redis::Client::open(format!("redis://{address}"))?;
            let mut command = redis::cmd("SCRIPT");
            command.arg("LOAD").arg(script::TEXT);
            let mut connection = client.get_connection_with_timeout(TIMEOUT)?;
            connection.set_read_timeout(Some(TIMEOUT))?;
            command.query(&mut connection)
        };
        let script = logging.then(load).transpose()?;
        let (publishes, mut subscription) = (connect()?, connect()?);
        let mut command = Vec::new();
        encode(&["PSUBSCRIBE", &format!("{TOPIC}*")], &mut command);
        subscription.write_all(&command)?;
        let mut confirmed = Vec::new();
        while !confirmed.ends_with(b":1\r\n") {
            let mut some = [0; 64];
            match subscription.read(&mut some)? {
                0 => return Err("Redis closed the connection".into()),
                read => confirmed.extend_from_slice(&some[..read]),
            }
        }
        Ok(Self {
            publishes,
            subscription,
            script,
            rest: Vec::new(),
            unsent: Vec::new(),
            unanswered: VecDeque::new(),
            lines: 0,
        })
    }

    /// Queues a publish for `flush`, with the peer that waits for its reply.
    pub fn publish(&mut self, peer: usize, id: &str, name: &str, room: usize, data: &str) {
        let topic = format!("{TOPIC}{name}");
        match &self.script {
            Some(digest) => {
                let keys = script::keys(name);
                let arguments = script::call(digest, &keys, &topic, data);
                encode(&arguments, &mut self.unsent);
            }
            None => encode(&["PUBLISH", &topic, data], &mut self.unsent),
        }
        self.unanswered.push_back((peer, id.into(), room));
    }

    /// Sends the queued publishes in one write.
    pub fn flush(&mut self) -> Outcome {
        if !self.unsent.is_empty() {
            self.publishes.write_all(&self.unsent)?;
            self.unsent.clear();
        }
        Ok(())
    }

    /// Reads Redis' replies; returns the peers that waited for them, in order.
    pub fn answered(&mut self, buffer: &mut [u8]) -> Outcome<Vec<(usize, String, usize)>> {
        let read = self.publishes.read(buffer)?;
        if read == 0 || buffer[0] == b'-' {
            return Err("Redis refused a PUBLISH or closed the connection".into());
        }
        // A reply is an integer, or an array of two bulk strings; a split one is counted when its
        // end arrives.
        let each = if self.script.is_some() { 5 } else { 1 };
        self.lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
        let ends = (self.lines / each).min(self.unanswered.len());
        self.lines %= each;
        Ok(self.unanswered.drain(..ends).collect())
    }

    /// Reads messages, after the kept bytes; returns how many bytes there are.
    pub fn read(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let kept = self.rest.len();
        buffer[..kept].copy_from_slice(&self.rest);
        match self.subscription.read(&mut buffer[kept..])? {
            0 => Err("Redis closed the connection".into()),
            read => Ok(kept + read),
        }
    }

    /// How many fields the script writes before the data: the version, the epoch and the offset.
    pub fn fields(&self) -> usize {
        if self.script.is_some() { 3 } else { 0 }
    }

    /// Keeps the beginning of a message.
    pub fn keep(&mut self, rest: &[u8]) {
        self.rest.clear();
        self.rest.extend_from_slice(rest);
    }
}

/// The first message from `at` on, if it is complete: an array of "pmessage", the pattern, the
/// topic, and the data after so many fields.
pub fn message(bytes: &[u8], at: usize, fields: usize) -> Option<Message> {
    let (_, at) = number(bytes, at)?;
    let (_, at) = bulk(bytes, at)?;
    let (_, at) = bulk(bytes, at)?;
    let (topic, at) = bulk(bytes, at)?;
    let (mut data, end) = bulk(bytes, at)?;
    let room = topic.start + TOPIC.len()..topic.end;
    for _ in 0..fields {
        data.start += 1 + bytes[data.clone()].iter().position(|byte| *byte == b' ')?;
    }
    Some(Message { room, data, end })
}

/// A bulk string, and where the next element begins.
fn bulk(bytes: &[u8], at: usize) -> Option<(Range<usize>, usize)> {
    let (length, start) = number(bytes, at)?;
    let end = start + length;
    (bytes.len() >= end + 2).then_some((start..end, end + 2))
}

/// The number after a type byte, and where its line ends.
fn number(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let line = bytes.get(at + 1..)?;
    let length = line.iter().position(|byte| *byte == b'\r')?;
    let number = std::str::from_utf8(&line[..length]).ok()?.parse().ok()?;
    Some((number, at + 1 + length + 2))
}

fn encode(arguments: &[&str], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        out.extend_from_slice(format!("${}\r\n{argument}\r\n", argument.len()).as_bytes());
    }
}
