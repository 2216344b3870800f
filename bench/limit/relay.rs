//! What carries the limit's messages between two of it: a PUBLISH, or the node's script that writes
//! the log too; and one subscription to all rooms, on a connection of its own. It ends the server
//! when Redis goes away.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use crate::support::{Outcome, script};

const TOPIC: &str = "room:";

/// A Redis that takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Both connections block, but are only read when they have something, and Redis takes in all that
/// is written.
pub struct Relay {
    pub publishes: TcpStream,
    pub subscription: TcpStream,
    /// What Redis calls the script, if the log is written.
    script: Option<String>,
    /// The beginning of a message whose end has not come yet.
    rest: Vec<u8>,
    /// Commands of this pass.
    unsent: Vec<u8>,
    /// Whose publishes Redis has not answered, in their order: who, and the command's id and room.
    unanswered: VecDeque<(usize, String, usize)>,
    /// Lines of an answer whose end has not come yet.
    lines: usize,
}

/// A message some server has published, as ranges of what was read.
pub struct Said {
    pub room: Range<usize>,
    pub data: Range<usize>,
    /// Where the next begins.
    pub end: usize,
}

impl Relay {
    /// Ready when it hears all rooms.
    pub fn connect(port: u16, logging: bool) -> Outcome<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connect = || -> Outcome<TcpStream> {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let load = || -> redis::RedisResult<String> {
            let client = redis::Client::open(format!("redis://{address}"))?;
            let mut command = redis::cmd("SCRIPT");
            command.arg("LOAD").arg(script::TEXT);
            let mut connection = client.get_connection_with_timeout(PATIENCE)?;
            connection.set_read_timeout(Some(PATIENCE))?;
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
                0 => return Err("Redis hung up".into()),
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

    /// Notes a publish for `flush`, and who waits for its answer.
    pub fn publish(&mut self, peer: usize, id: &str, name: &str, room: usize, data: &str) {
        let topic = format!("{TOPIC}{name}");
        match &self.script {
            Some(digest) => {
                let keys = script::keys(name);
                let words = script::call(digest, &keys, &topic, data);
                encode(&words, &mut self.unsent);
            }
            None => encode(&["PUBLISH", &topic, data], &mut self.unsent),
        }
        self.unanswered.push_back((peer, id.into(), room));
    }

    /// Sends what was noted, in one write.
    pub fn flush(&mut self) -> Outcome {
        if !self.unsent.is_empty() {
            self.publishes.write_all(&self.unsent)?;
            self.unsent.clear();
        }
        Ok(())
    }

    /// Reads Redis' answers; those who waited for them, in their order.
    pub fn answered(&mut self, buffer: &mut [u8]) -> Outcome<Vec<(usize, String, usize)>> {
        let read = self.publishes.read(buffer)?;
        if read == 0 || buffer[0] == b'-' {
            return Err("Redis refused a PUBLISH or hung up".into());
        }
        // An answer is a number, or an array of two strings with their lengths in front; one cut in
        // two is counted when its end comes.
        let each = if self.script.is_some() { 5 } else { 1 };
        self.lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
        let ends = (self.lines / each).min(self.unanswered.len());
        self.lines %= each;
        Ok(self.unanswered.drain(..ends).collect())
    }

    /// Reads what was published, behind what was kept; how many bytes there are.
    pub fn read(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let kept = self.rest.len();
        buffer[..kept].copy_from_slice(&self.rest);
        match self.subscription.read(&mut buffer[kept..])? {
            0 => Err("Redis hung up".into()),
            read => Ok(kept + read),
        }
    }

    /// How many words the script says in front of the data: how they are written, the epoch and the
    /// offset.
    pub fn words(&self) -> usize {
        if self.script.is_some() { 3 } else { 0 }
    }

    /// Keeps the beginning of a message.
    pub fn keep(&mut self, rest: &[u8]) {
        self.rest.clear();
        self.rest.extend_from_slice(rest);
    }
}

/// The first message from `at` on, if it is whole: an array of "pmessage", the pattern, the topic,
/// and the data behind so many words.
pub fn said(bytes: &[u8], at: usize, words: usize) -> Option<Said> {
    let (_, at) = number(bytes, at)?;
    let (_, at) = bulk(bytes, at)?;
    let (_, at) = bulk(bytes, at)?;
    let (topic, at) = bulk(bytes, at)?;
    let (mut data, end) = bulk(bytes, at)?;
    let room = topic.start + TOPIC.len()..topic.end;
    for _ in 0..words {
        data.start += 1 + bytes[data.clone()].iter().position(|byte| *byte == b' ')?;
    }
    Some(Said { room, data, end })
}

/// A string with its length in front, and where the next thing begins.
fn bulk(bytes: &[u8], at: usize) -> Option<(Range<usize>, usize)> {
    let (length, start) = number(bytes, at)?;
    let end = start + length;
    (bytes.len() >= end + 2).then_some((start..end, end + 2))
}

/// The number behind a sign, and where its line ends.
fn number(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let line = bytes.get(at + 1..)?;
    let length = line.iter().position(|byte| *byte == b'\r')?;
    let number = std::str::from_utf8(&line[..length]).ok()?.parse().ok()?;
    Some((number, at + 1 + length + 2))
}

fn encode(words: &[&str], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}
