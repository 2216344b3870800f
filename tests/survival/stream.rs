//! What clients receive, in order: the messages and gaps of a room, and the pages of its history.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::runtime;

use super::world::call;
use crate::support::{DEADLINE, TestClient, within};

/// A position as the server names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    pub epoch: String,
    pub offset: u64,
}

impl At {
    pub fn new(epoch: &str, offset: u64) -> Self {
        let epoch = epoch.to_owned();
        Self { epoch, offset }
    }

    /// The `epoch` and `offset` of a reply or push.
    pub fn of(frame: &Value) -> Self {
        let position = || {
            Some(Self::new(
                frame["epoch"].as_str()?,
                frame["offset"].as_u64()?,
            ))
        };
        position().unwrap_or_else(|| panic!("no position: {frame}"))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}, {}}}", self.epoch, self.offset)
    }
}

/// An event that a member of a room receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Message(u64, String),
    Gap(At),
}

impl Event {
    pub fn gap(epoch: &str, offset: u64) -> Self {
        Event::Gap(At::new(epoch, offset))
    }

    fn is_message(&self, wanted: &str) -> bool {
        matches!(self, Event::Message(_, text) if text == wanted)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Message(offset, text) => write!(f, "{offset} {text:?}"),
            Event::Gap(at) => write!(f, "GAP {at}"),
        }
    }
}

/// Compares the received events with the expected ones; a failure prints both.
pub fn expect(name: &str, found: &[Event], expected: &[Event]) {
    let lines = |events: &[Event]| -> String {
        let lines = events.iter().map(|event| format!("\n    {event}"));
        lines.collect()
    };
    assert!(
        found == expected,
        "{name}\n  must receive:{}\n  received:{}\n",
        lines(expected),
        lines(found)
    );
}

/// A client with a record of each of its rooms.
pub struct Member {
    pub name: String,
    pub client: TestClient,
    record: BTreeMap<String, Vec<Event>>,
}

impl Member {
    pub fn new(name: String, client: TestClient) -> Self {
        Self {
            name,
            client,
            record: BTreeMap::new(),
        }
    }

    /// Receives messages and gaps of a room up to the message with this text.
    pub async fn until_message(&mut self, room: &str, text: &str) {
        self.until(room, text, |event| event.is_message(text)).await;
    }

    /// Receives messages and gaps of a room up to the next gap.
    pub async fn until_gap(&mut self, room: &str) {
        self.until(room, "a gap", |event| matches!(event, Event::Gap(_)))
            .await;
    }

    async fn until(&mut self, room: &str, what: &str, is_last: impl Fn(&Event) -> bool) {
        let record = self.record.entry(room.to_owned()).or_default();
        loop {
            let next = runtime::timeout(DEADLINE, self.client.message_or_gap(room)).await;
            let Ok(frame) = next else {
                panic!(
                    "{} in {room}: no {what:?}; before: {record:#?}, and besides: {:?}",
                    self.name,
                    self.client.received().collect::<Vec<_>>()
                );
            };
            record.push(event(&frame));
            if record.last().is_some_and(&is_last) {
                return;
            }
        }
    }

    /// Asserts that it received exactly these events in a room since the record began.
    pub fn expect(&self, room: &str, expected: &[Event]) {
        let found = self.record.get(room).map_or(&[][..], Vec::as_slice);
        expect(&format!("{} in {room}", self.name), found, expected);
    }

    /// The epoch of the last gap of a room.
    pub fn epoch(&self, room: &str) -> String {
        let record = self.record.get(room).map_or(&[][..], Vec::as_slice);
        let gaps = record.iter().rev().filter_map(|event| match event {
            Event::Gap(at) => Some(at.epoch.clone()),
            Event::Message(..) => None,
        });
        gaps.take(1).collect()
    }

    /// Asserts that no further message or gap of these rooms arrives.
    pub async fn expect_nothing_more(&mut self, rooms: &[&str]) {
        self.client.call(json!({"type": "ping"})).await;
        let concerns =
            |frame: &&Value| is_event(frame) && rooms.iter().any(|r| frame["room"] == *r);
        let more: Vec<&Value> = self.client.received().filter(concerns).collect();
        assert!(more.is_empty(), "{} received besides: {more:?}", self.name);
    }

    /// Joins a room at a position, and returns the reply: whether it is recovered, and the
    /// position. The record of the room starts again.
    pub async fn return_to(&mut self, room: &str, since: &At) -> (bool, At) {
        let since = json!({"epoch": since.epoch, "offset": since.offset});
        let join = json!({"type": "join", "room": room, "since": since});
        let answer = call(&mut self.client, join).await;
        assert_eq!(answer["type"], "ok", "{} in {room}: {answer}", self.name);
        self.record.remove(room);
        let recovered = answer["recovered"].as_bool();
        let recovered = recovered.unwrap_or_else(|| panic!("no `recovered`: {answer}"));
        (recovered, At::of(&answer))
    }
}

fn is_event(frame: &Value) -> bool {
    frame["type"] == "message" || frame["type"] == "gap"
}

fn event(frame: &Value) -> Event {
    match frame["type"].as_str() {
        Some("gap") => Event::Gap(At::of(frame)),
        _ => message(frame),
    }
}

fn message(frame: &Value) -> Event {
    let fields = || {
        Some((
            frame["offset"].as_u64()?,
            frame["data"].as_str()?.to_owned(),
        ))
    };
    let (offset, text) = fields().unwrap_or_else(|| panic!("no message: {frame}"));
    Event::Message(offset, text)
}

/// A room's whole history, read backwards in pages of this size; each page must name this epoch.
pub async fn history(
    client: &mut TestClient,
    room: &str,
    epoch: Option<&str>,
    page: u64,
) -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    let mut ask = json!({"type": "history", "room": room, "limit": page});
    loop {
        let answer = call(client, ask.clone()).await;
        assert_eq!(answer["type"], "ok", "history of {room}: {answer}");
        if let Some(epoch) = epoch {
            assert_eq!(answer["epoch"], epoch, "history of {room}: {answer}");
        }
        let messages = answer["messages"].as_array().expect("a list");
        let messages: Vec<Event> = messages.iter().map(message).collect();
        let first = messages.first().cloned();
        all.splice(0..0, messages);
        match first {
            Some(Event::Message(offset, _)) if answer["more"] == true => {
                ask["before"] = json!(offset);
            }
            _ => return all,
        }
    }
}

/// Waits until the newest message in the history of a room is this one.
pub async fn until_read(client: &mut TestClient, room: &str, newest: Option<&Event>) {
    let wait = async {
        while last_message(client, room).await.as_ref() != newest {
            runtime::sleep(Duration::from_millis(10)).await;
        }
    };
    within(&format!("the newest message of {room}"), wait).await;
}

async fn last_message(client: &mut TestClient, room: &str) -> Option<Event> {
    let ask = json!({"type": "history", "room": room, "limit": 1});
    let answer = call(client, ask).await;
    answer["messages"].as_array()?.last().map(message)
}
