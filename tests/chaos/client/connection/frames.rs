//! How a client handles the frames that it receives: pushes, and replies to its requests.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::Members;
use super::{Lost, Pending, STEADY_AFTER, Serving, Timer, dropped, jitter};
use crate::history::{Event, Fate, Kept, Position};

/// A frame of the server; which fields it has depends on its type.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<u64>,
    #[serde(borrow)]
    room: Option<Cow<'a, str>>,
    #[serde(borrow)]
    epoch: Option<Cow<'a, str>>,
    offset: Option<u64>,
    top: Option<u64>,
    recovered: Option<bool>,
    data: Option<Data>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    retry: Option<u64>,
    #[serde(borrow)]
    node: Option<Cow<'a, str>>,
    heartbeat: Option<u64>,
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
    version: Option<u64>,
    members: Option<Vec<Listed>>,
    anonymous: Option<u32>,
    messages: Option<Vec<Past>>,
    more: Option<bool>,
}

/// A message of a room's history.
#[derive(Clone, Copy, Deserialize)]
struct Past {
    offset: u64,
    data: Data,
}

/// One of a room's members.
#[derive(Deserialize)]
struct Listed {
    user: String,
    connections: u32,
}

impl Frame<'_> {
    fn position(&self) -> Option<Position> {
        Some(Position {
            epoch: self.epoch.as_deref()?.to_owned(),
            offset: self.offset?,
        })
    }
}

/// The publisher of a message, and the number of the publication.
#[derive(Clone, Copy, Deserialize)]
struct Data {
    p: usize,
    n: u64,
}

impl Serving<'_> {
    pub(super) fn receive_text(&mut self, text: &str) -> Result<(), Lost> {
        let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else {
            self.unexpected(text);
            return Ok(());
        };
        if let Some(id) = frame.id {
            match self.pending.remove(&id) {
                Some(pending) => {
                    self.timers.retain(|(_, timer)| *timer != Timer::Answer(id));
                    self.answered(pending, &frame, text);
                }
                None => self.unexpected(text),
            }
            return Ok(());
        }
        match &*frame.kind {
            "welcome" => self.welcomed(&frame),
            "message" => return self.message(&frame, text),
            // The scenarios publish nothing to personal rooms, so a gap there loses nothing.
            "gap"
                if frame
                    .room
                    .as_deref()
                    .is_some_and(|room| room.starts_with('@')) => {}
            "gap" => self.gap(&frame, text),
            "bye" => {
                let wait = Duration::from_millis(frame.retry.unwrap_or(0));
                self.return_at = Some(Instant::now() + wait);
                self.after(wait, Timer::Leave);
            }
            // The position in the personal room arrives later, if it was unknown at sign-in.
            "ok" => {}
            "joined" | "left" => self.presence_event(&frame, text),
            "members" => self.members_reset(&frame, text),
            _ => self.unexpected(text),
        }
        Ok(())
    }

    fn unexpected(&mut self, text: &str) {
        let (client, text) = (self.client.number, text.chars().take(300).collect());
        self.client
            .recorder
            .note(Event::Unexpected { client, text });
    }

    fn welcomed(&mut self, frame: &Frame<'_>) {
        let node = frame.node.as_deref().unwrap_or_default().to_owned();
        self.timers.retain(|(_, timer)| *timer != Timer::Greeting);
        self.heartbeat = Duration::from_secs(frame.heartbeat.unwrap_or(25));
        self.after(STEADY_AFTER, Timer::Steady);
        self.after(self.heartbeat, Timer::Watch);
        self.node = Some(node.clone());
        let client = self.client.number;
        self.client.recorder.note(Event::Open { client, node });
    }

    fn message(&mut self, frame: &Frame<'_>, text: &str) -> Result<(), Lost> {
        let (Some(name), Some(offset), Some(data)) =
            (frame.room.as_deref(), frame.offset, frame.data)
        else {
            self.unexpected(text);
            return Ok(());
        };
        let Some(room) = self.client.rooms.get_mut(name) else {
            self.unexpected(text);
            return Ok(());
        };
        let position = room.position.clone();
        let fate = room.take(offset);
        let repeated = fate == Fate::Beyond && {
            let at = position.as_ref().map(|position| position.offset);
            std::mem::replace(&mut room.hole, at) == at
        };
        self.client.recorder.note(Event::Receive {
            client: self.client.number,
            room: name.to_owned(),
            epoch: position.map(|position| position.epoch).unwrap_or_default(),
            offset,
            publisher: data.p,
            seq: data.n,
            fate,
        });
        if repeated {
            return Err(dropped("the same hole twice"));
        }
        if fate == Fate::Beyond {
            self.join(name);
        }
        Ok(())
    }

    fn presence_event(&mut self, frame: &Frame<'_>, text: &str) {
        let (Some(room), Some(user), Some(version)) =
            (frame.room.as_deref(), frame.user.as_deref(), frame.version)
        else {
            return self.unexpected(text);
        };
        self.client.recorder.note(Event::PresenceChange {
            client: self.client.number,
            room: room.to_owned(),
            user: user.to_owned(),
            here: frame.kind == "joined",
            version,
        });
    }

    /// The node reports too many changes of a room's members. The harness requests the list at the
    /// end.
    fn members_reset(&mut self, frame: &Frame<'_>, text: &str) {
        let Some(room) = frame.room.as_deref().filter(|_| frame.version.is_some()) else {
            return self.unexpected(text);
        };
        self.client.recorder.note(Event::MembersReset {
            client: self.client.number,
            room: room.to_owned(),
        });
    }

    fn gap(&mut self, frame: &Frame<'_>, text: &str) {
        let (Some(name), Some(position)) = (frame.room.as_deref(), frame.position()) else {
            return self.unexpected(text);
        };
        let Some(room) = self.client.rooms.get_mut(name) else {
            return self.unexpected(text);
        };
        // While a join is pending, only its reply counts.
        if !room.is_joined() {
            return;
        }
        room.position = Some(position.clone());
        self.client.recorder.note(Event::Gap {
            client: self.client.number,
            room: name.to_owned(),
            epoch: position.epoch,
            offset: position.offset,
        });
    }

    fn answered(&mut self, pending: Pending, frame: &Frame<'_>, text: &str) {
        let error = (frame.kind == "error").then(|| frame.code.as_deref().unwrap_or("error"));
        let passing = matches!(error, Some("unknown" | "unavailable" | "rate"));
        match pending {
            Pending::Ping => {}
            Pending::Auth if passing => {
                let wait = jitter(&mut self.client.random, 0);
                self.after(wait, Timer::Authenticate);
            }
            Pending::Auth => {
                if error.is_some() {
                    return self.unexpected(text);
                }
                self.signed_in = true;
                let client = self.client.number;
                if let Some(user) = self.client.user.clone() {
                    self.client.recorder.note(Event::SignedIn { client, user });
                }
                let rooms: Vec<String> = self.client.rooms.keys().cloned().collect();
                rooms.iter().for_each(|room| self.pump(room));
            }
            Pending::Join { room, .. } if passing => {
                let tries = self.client.rooms.get_mut(&room).map_or(0, |room| {
                    room.tries += 1;
                    room.tries - 1
                });
                let wait = jitter(&mut self.client.random, tries);
                self.after(wait, Timer::Join(room));
            }
            Pending::Join { room, since } => match frame.position().filter(|_| error.is_none()) {
                Some(answer) => self.joined(room, since, answer, frame),
                None => self.unexpected(text),
            },
            Pending::Publish { room, seq } => self.published(room, seq, frame, error),
            // The harness repeats the request.
            Pending::Members { .. } | Pending::History { .. } if passing => {}
            Pending::History { room, known } => match (&frame.messages, frame.more) {
                (Some(page), Some(more)) => {
                    let epoch = frame.epoch.as_deref().map(str::to_owned);
                    self.history_page(room, epoch, page, known, more);
                }
                _ => self.unexpected(text),
            },
            Pending::Members { room } => match (&frame.members, frame.version, frame.anonymous) {
                (Some(members), Some(version), Some(anonymous)) => {
                    let users = members
                        .iter()
                        .map(|listed| (listed.user.clone(), listed.connections));
                    let members = Members {
                        version,
                        users: users.collect(),
                        anonymous,
                    };
                    self.client.glance().members.insert(room, members);
                }
                _ => self.unexpected(text),
            },
        }
    }

    /// Prepends a page to the known ones, and requests the one before it if there is more.
    fn history_page(
        &mut self,
        room: String,
        epoch: Option<String>,
        page: &[Past],
        known: Vec<Kept>,
        more: bool,
    ) {
        let page = page.iter().map(|past| Kept {
            offset: past.offset,
            publisher: past.data.p,
            seq: past.data.n,
        });
        let all: Vec<Kept> = page.chain(known.iter().copied()).collect();
        // An empty page would be requested for ever.
        if more && all.len() > known.len() {
            self.ask_history(room, all);
        } else {
            let histories = &mut self.client.glance().histories;
            histories.insert(room, (epoch, all));
        }
    }

    fn joined(
        &mut self,
        name: String,
        since: Option<Position>,
        answer: Position,
        frame: &Frame<'_>,
    ) {
        if let Some(room) = self.client.rooms.get_mut(&name) {
            room.joined(
                answer.clone(),
                since.as_ref(),
                frame.recovered == Some(true),
            );
        }
        self.client.recorder.note(Event::Joined {
            client: self.client.number,
            room: name,
            top: frame.top.unwrap_or(answer.offset),
            epoch: answer.epoch,
            offset: answer.offset,
            since,
            recovered: frame.recovered,
        });
    }

    fn published(&mut self, name: String, seq: u64, frame: &Frame<'_>, error: Option<&str>) {
        let Some(room) = self.client.rooms.get_mut(&name) else {
            return;
        };
        let Some(entry) = room.queue.front_mut().filter(|entry| entry.seq == seq) else {
            return;
        };
        if matches!(error, Some("unknown" | "unavailable" | "rate")) {
            entry.tries += 1;
            let tries = entry.tries - 1;
            let wait = jitter(&mut self.client.random, tries);
            return self.after(wait, Timer::Publish(name));
        }
        room.queue.pop_front();
        self.client.glance().unanswered -= 1;
        match (error, frame.position()) {
            (None, Some(at)) => self.client.recorder.note(Event::Ok {
                client: self.client.number,
                room: name.clone(),
                seq,
                epoch: at.epoch,
                offset: at.offset,
            }),
            (code, _) => self
                .client
                .fail(name.clone(), seq, code.unwrap_or("no position")),
        }
        self.pump(&name);
    }
}
