//! What a client makes of what it hears: pushes, and the answers to what it asked.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::Members;
use super::{Asked, Lost, STEADY_AFTER, Serving, Timer, dropped, jitter};
use crate::history::{Event, Fate, Kept, Position};

/// What a server says; which fields there are depends on the type.
#[derive(Deserialize)]
struct Said<'a> {
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

impl Said<'_> {
    fn position(&self) -> Option<Position> {
        Some(Position {
            epoch: self.epoch.as_deref()?.to_owned(),
            offset: self.offset?,
        })
    }
}

/// Who published a message, and which of its publications it is.
#[derive(Clone, Copy, Deserialize)]
struct Data {
    p: usize,
    n: u64,
}

impl Serving<'_> {
    pub(super) fn said(&mut self, text: &str) -> Result<(), Lost> {
        let Ok(said) = serde_json::from_str::<Said<'_>>(text) else {
            self.strange(text);
            return Ok(());
        };
        if let Some(id) = said.id {
            match self.asked.remove(&id) {
                Some(asked) => {
                    self.timers.retain(|(_, timer)| *timer != Timer::Answer(id));
                    self.answered(asked, &said, text);
                }
                None => self.strange(text),
            }
            return Ok(());
        }
        match &*said.kind {
            "welcome" => self.welcomed(&said),
            "message" => return self.message(&said, text),
            // Nothing is ever said in the personal rooms here, so that nothing in them is lost to
            // anyone.
            "gap"
                if said
                    .room
                    .as_deref()
                    .is_some_and(|room| room.starts_with('@')) => {}
            "gap" => self.gap(&said, text),
            "bye" => {
                let wait = Duration::from_millis(said.retry.unwrap_or(0));
                self.return_at = Some(Instant::now() + wait);
                self.after(wait, Timer::Leave);
            }
            // The place in the personal room comes later where it was not known when the client
            // signed in.
            "ok" => {}
            "joined" | "left" => self.told(&said, text),
            "members" => self.ask_anew(&said, text),
            _ => self.strange(text),
        }
        Ok(())
    }

    fn strange(&mut self, text: &str) {
        let (client, said) = (self.client.number, text.chars().take(300).collect());
        self.client.recorder.note(Event::Strange { client, said });
    }

    fn welcomed(&mut self, said: &Said<'_>) {
        let node = said.node.as_deref().unwrap_or_default().to_owned();
        self.timers.retain(|(_, timer)| *timer != Timer::Greeting);
        self.heartbeat = Duration::from_secs(said.heartbeat.unwrap_or(25));
        self.after(STEADY_AFTER, Timer::Steady);
        self.after(self.heartbeat, Timer::Watch);
        self.node = Some(node.clone());
        let client = self.client.number;
        self.client.recorder.note(Event::Open { client, node });
    }

    fn message(&mut self, said: &Said<'_>, text: &str) -> Result<(), Lost> {
        let (Some(name), Some(offset), Some(data)) = (said.room.as_deref(), said.offset, said.data)
        else {
            self.strange(text);
            return Ok(());
        };
        let Some(room) = self.client.rooms.get_mut(name) else {
            self.strange(text);
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

    fn told(&mut self, said: &Said<'_>, text: &str) {
        let (Some(room), Some(user), Some(version)) =
            (said.room.as_deref(), said.user.as_deref(), said.version)
        else {
            return self.strange(text);
        };
        self.client.recorder.note(Event::Told {
            client: self.client.number,
            room: room.to_owned(),
            user: user.to_owned(),
            here: said.kind == "joined",
            version,
        });
    }

    /// Too much has changed among a room's members. The harness asks for the list at the end.
    fn ask_anew(&mut self, said: &Said<'_>, text: &str) {
        let Some(room) = said.room.as_deref().filter(|_| said.version.is_some()) else {
            return self.strange(text);
        };
        self.client.recorder.note(Event::AskAnew {
            client: self.client.number,
            room: room.to_owned(),
        });
    }

    fn gap(&mut self, said: &Said<'_>, text: &str) {
        let (Some(name), Some(position)) = (said.room.as_deref(), said.position()) else {
            return self.strange(text);
        };
        let Some(room) = self.client.rooms.get_mut(name) else {
            return self.strange(text);
        };
        // While a join is on its way, its answer is what counts.
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

    fn answered(&mut self, asked: Asked, said: &Said<'_>, text: &str) {
        let error = (said.kind == "error").then(|| said.code.as_deref().unwrap_or("error"));
        let passing = matches!(error, Some("unknown" | "unavailable" | "rate"));
        match asked {
            Asked::Ping => {}
            Asked::Auth if passing => {
                let wait = jitter(&mut self.client.random, 0);
                self.after(wait, Timer::Authenticate);
            }
            Asked::Auth => {
                if error.is_some() {
                    return self.strange(text);
                }
                self.signed_in = true;
                let client = self.client.number;
                if let Some(user) = self.client.user.clone() {
                    self.client.recorder.note(Event::SignedIn { client, user });
                }
                let rooms: Vec<String> = self.client.rooms.keys().cloned().collect();
                rooms.iter().for_each(|room| self.pump(room));
            }
            Asked::Join { room, .. } if passing => {
                let tries = self.client.rooms.get_mut(&room).map_or(0, |room| {
                    room.tries += 1;
                    room.tries - 1
                });
                let wait = jitter(&mut self.client.random, tries);
                self.after(wait, Timer::Join(room));
            }
            Asked::Join { room, since } => match said.position().filter(|_| error.is_none()) {
                Some(answer) => self.joined(room, since, answer, said),
                None => self.strange(text),
            },
            Asked::Publish { room, seq } => self.published(room, seq, said, error),
            // It is asked again.
            Asked::Members { .. } | Asked::History { .. } if passing => {}
            Asked::History { room, known } => match (&said.messages, said.more) {
                (Some(page), Some(more)) => {
                    let epoch = said.epoch.as_deref().map(str::to_owned);
                    self.history_page(room, epoch, page, known, more);
                }
                _ => self.strange(text),
            },
            Asked::Members { room } => match (&said.members, said.version, said.anonymous) {
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
                _ => self.strange(text),
            },
        }
    }

    /// Puts a page before those that are known, and asks for the one before it if there is more.
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
        // A page without messages would be asked for again and again.
        if more && all.len() > known.len() {
            self.ask_history(room, all);
        } else {
            let histories = &mut self.client.glance().histories;
            histories.insert(room, (epoch, all));
        }
    }

    fn joined(&mut self, name: String, since: Option<Position>, answer: Position, said: &Said<'_>) {
        if let Some(room) = self.client.rooms.get_mut(&name) {
            room.joined(answer.clone(), since.as_ref(), said.recovered == Some(true));
        }
        self.client.recorder.note(Event::Joined {
            client: self.client.number,
            room: name,
            top: said.top.unwrap_or(answer.offset),
            epoch: answer.epoch,
            offset: answer.offset,
            since,
            recovered: said.recovered,
        });
    }

    fn published(&mut self, name: String, seq: u64, said: &Said<'_>, error: Option<&str>) {
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
        match (error, said.position()) {
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
