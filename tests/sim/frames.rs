//! How a client handles each frame that it receives, and what it reports to the oracle.

use serde::Deserialize;
use switchboard::model::id::{Epoch, Position};

use super::client::{Action, Ask, Client, Context, RoomState, STEADY_AFTER, Timer, jitter};
use super::oracle::{Kind, Outcome};
use super::view::Listed;

/// All fields of all frames that the server sends.
#[derive(Debug, Deserialize)]
pub struct Frame<'a> {
    #[serde(rename = "type")]
    pub kind: &'a str,
    id: Option<u64>,
    pub room: Option<&'a str>,
    epoch: Option<Epoch>,
    pub offset: Option<u64>,
    recovered: Option<bool>,
    #[serde(borrow)]
    data: Option<(u64, &'a str)>,
    own: Option<bool>,
    code: Option<&'a str>,
    retry: Option<u64>,
    heartbeat: Option<u64>,
    #[serde(borrow)]
    messages: Option<Vec<Past<'a>>>,
    pub user: Option<&'a str>,
    pub version: Option<u64>,
    pub members: Option<Vec<Listed>>,
    pub anonymous: Option<u64>,
    pub more: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Past<'a> {
    offset: u64,
    #[serde(borrow)]
    data: (u64, &'a str),
}

impl Client {
    pub fn receives(&mut self, text: &str, context: &mut Context<'_>) {
        let frame: Frame<'_> = match serde_json::from_str(text) {
            Ok(frame) => frame,
            Err(error) => {
                return context
                    .oracle
                    .violate(Kind::Unexpected, format!("{error}: {text}"));
            }
        };
        let Some(conn) = &mut self.conn else { return };
        conn.received_at = context.now;
        conn.pinged = None;
        if let Some(ask) = frame.id.and_then(|id| conn.pending.remove(&id)) {
            return self.answered(ask, &frame, context);
        }
        if frame.id.is_some() {
            context
                .oracle
                .violate(Kind::Duplicated, format!("an answer to nothing: {text}"));
        }
        let room = frame
            .room
            .and_then(|name| self.names.iter().position(|room| room.as_str() == name));
        if room.is_none() && frame.room.is_some_and(|name| name.starts_with('@')) {
            // The personal room: nothing is published there, and its presence events are not
            // checked.
            return;
        }
        match (frame.kind, room) {
            ("welcome", _) => {
                conn.heartbeat = Some(frame.heartbeat.unwrap_or(25) * 1000);
                self.actions
                    .push(Action::Later(STEADY_AFTER, Timer::Steady));
                self.watch(context);
            }
            ("message", Some(room)) => self.message(room, &frame, context),
            ("gap", Some(room)) => self.gap(room, &frame, context),
            ("joined" | "left", Some(room)) => self.presence_event(room, &frame, context),
            ("members", Some(room)) => self.ask_members(room),
            ("bye", _) => {
                let retry = frame.retry.unwrap_or(0);
                conn.return_at = Some(context.now + retry);
                self.actions.push(Action::Later(retry, Timer::Bye));
            }
            _ => context.oracle.violate(Kind::Unexpected, text.to_owned()),
        }
    }

    pub fn message(&mut self, index: usize, frame: &Frame<'_>, context: &mut Context<'_>) {
        let value = frame.data.map(|data| data.0);
        let client = self.id;
        let Some(conn) = self.conn.as_mut() else {
            return;
        };
        let Some(offset) = frame.offset else {
            if let (Some(value), Some(_)) = (value, &self.rooms[index]) {
                let again = !conn.ephemerals.insert(value);
                context.oracle.sees_ephemeral(client, index, value, again);
            }
            return;
        };
        let wire = &mut conn.wire[index];
        // Checks the node's frames before the client's own rules drop some of them.
        match wire {
            Some(at) if offset == at.offset + 1 => at.offset = offset,
            _ => {
                let kind = match wire {
                    Some(at) if offset == at.offset => Kind::Duplicated,
                    Some(at) if offset < at.offset => Kind::Disordered,
                    Some(_) => Kind::Lost,
                    None => Kind::Unexpected,
                };
                let text = format!("client {client} in r{index}: frame {offset} after {wire:?}");
                context.oracle.violate(kind, text);
            }
        }
        let Some(room) = self.rooms[index]
            .as_mut()
            .filter(|room| room.state == RoomState::Joined)
        else {
            return;
        };
        let Some(at) = room.position.as_mut() else {
            return;
        };
        if offset <= at.offset {
            return;
        }
        if offset > at.offset + 1 {
            return self.hole(index, context);
        }
        at.offset = offset;
        room.hole = None;
        let value = if frame.own == Some(true) { None } else { value };
        let former = value.and_then(|value| context.oracle.seen_at(client, index, value));
        // A retry with the same key may publish again what a lost tail contained.
        let again = former.is_some_and(|former| !context.redis.is_lost(index, former));
        context.oracle.sees(client, index, *at, value, again);
    }

    pub fn hole(&mut self, index: usize, context: &mut Context<'_>) {
        let Some(room) = &mut self.rooms[index] else {
            return;
        };
        let offset = room.position.map(|at| at.offset);
        if room.hole == offset {
            return self.drop_connection(None, context);
        }
        room.hole = offset;
        self.send_join(index);
    }

    pub fn gap(&mut self, index: usize, frame: &Frame<'_>, context: &mut Context<'_>) {
        let (Some(epoch), Some(offset)) = (frame.epoch, frame.offset) else {
            return context
                .oracle
                .violate(Kind::Unexpected, format!("{frame:?}"));
        };
        let at = Position { epoch, offset };
        let former = self
            .conn
            .as_mut()
            .and_then(|conn| conn.wire[index].replace(at));
        match former {
            Some(former) => self.check_gap(index, former, at, context),
            None => context
                .oracle
                .violate(Kind::Unexpected, format!("{frame:?}")),
        }
        if let Some(room) = self.rooms[index]
            .as_mut()
            .filter(|room| room.state == RoomState::Joined)
        {
            room.position = Some(at);
            context.oracle.move_to(self.id, index, at);
        }
    }

    fn check_gap(
        &mut self,
        index: usize,
        former: Position,
        at: Position,
        context: &mut Context<'_>,
    ) {
        context.oracle.figures.gaps += 1;
        if !context.redis.has_lost(index, former, context.instant) {
            let text = format!(
                "client {} in r{index} at {former:?} received a gap to {at:?}",
                self.id
            );
            context.oracle.violate(Kind::FalseAlarm, text);
            return;
        }
        let gap_at = context.redis.gap_at(index, former, context.instant);
        if let Some(expected) = gap_at.filter(|gap| gap.epoch == at.epoch)
            && (at != expected || former.offset < at.offset)
        {
            let text = format!(
                "client {} in r{index} at {former:?} received a gap to {at:?}, not {expected:?}: \
                 more than what was lost",
                self.id
            );
            context.oracle.violate(Kind::Lost, text);
        }
    }

    pub fn answered(&mut self, ask: Ask, frame: &Frame<'_>, context: &mut Context<'_>) {
        let error = (frame.kind == "error").then(|| frame.code.unwrap_or("error"));
        match ask {
            Ask::Join { room, life, since } => {
                self.joined(room, life, since, frame, error, context)
            }
            Ask::Leave(room) => {
                if let Some(conn) = &mut self.conn {
                    conn.wire[room] = None;
                }
            }
            Ask::Publish(room, value) => self.published(room, value, frame, error, context),
            Ask::Ephemeral(value) => {
                let outcome = error.map_or(Outcome::Attempted, |_| Outcome::Unknown);
                context.oracle.answered(value, outcome);
            }
            Ask::History(room) => self.history(room, frame, context),
            Ask::Members(room, number) => self.listed(room, number, frame, context),
            Ask::Auth | Ask::Ping => {}
        }
    }

    pub fn history(&mut self, room: usize, frame: &Frame<'_>, context: &mut Context<'_>) {
        let (Some(epoch), Some(messages)) = (frame.epoch, &frame.messages) else {
            return;
        };
        let ascending = messages
            .windows(2)
            .all(|pair| pair[1].offset == pair[0].offset + 1);
        let wrong = messages.iter().find(|past| {
            let offset = past.offset;
            context.redis.rooms[room]
                .truth
                .at(Position { epoch, offset })
                != Some(past.data.0)
        });
        if !ascending || wrong.is_some() {
            context
                .oracle
                .violate(Kind::Unexpected, format!("history of r{room}: {frame:?}"));
        }
    }

    pub fn joined(
        &mut self,
        index: usize,
        life: u64,
        since: Option<Position>,
        frame: &Frame<'_>,
        error: Option<&str>,
        context: &mut Context<'_>,
    ) {
        if error.is_some() {
            if let Some(conn) = &mut self.conn {
                conn.wire[index] = None;
            }
            let Some(room) = self.rooms[index].as_mut().filter(|room| room.life == life) else {
                return;
            };
            let wait = jitter(context.random, room.tries);
            room.tries += 1;
            return self.actions.push(Action::Later(wait, Timer::Join(index)));
        }
        let (Some(epoch), Some(offset)) = (frame.epoch, frame.offset) else {
            return context
                .oracle
                .violate(Kind::Unexpected, format!("{frame:?}"));
        };
        let at = Position { epoch, offset };
        if let Some(conn) = &mut self.conn {
            conn.wire[index] = Some(at);
        }
        if let Some(since) = since {
            match frame.recovered {
                Some(true) if since != at => {
                    let text = format!(
                        "client {} in r{index}: {since:?} recovered as {at:?}",
                        self.id
                    );
                    context.oracle.violate(Kind::Lost, text);
                }
                Some(true) => context.oracle.figures.recovered += 1,
                Some(false) => self.check_gap(index, since, at, context),
                None => context
                    .oracle
                    .violate(Kind::Unexpected, format!("{frame:?}")),
            }
        }
        let Some(room) = self.rooms[index].as_mut().filter(|room| room.life == life) else {
            return;
        };
        room.tries = 0;
        room.state = RoomState::Joined;
        room.position = Some(at);
        self.ask_members(index);
        if since.is_none() {
            context.oracle.join(self.id, index, at);
        } else if frame.recovered != Some(true) {
            context.oracle.move_to(self.id, index, at);
        }
    }

    pub fn published(
        &mut self,
        index: usize,
        value: u64,
        frame: &Frame<'_>,
        error: Option<&str>,
        context: &mut Context<'_>,
    ) {
        let outcome = match (error, frame.epoch, frame.offset) {
            (None, Some(epoch), Some(offset)) => Outcome::Acknowledged(Position { epoch, offset }),
            (None, ..) => {
                return context
                    .oracle
                    .violate(Kind::Unexpected, format!("{frame:?}"));
            }
            (Some("unavailable"), ..) => Outcome::Refused,
            (Some(_), ..) => Outcome::Unknown,
        };
        let room = self.rooms[index].as_mut();
        let mut first = room.and_then(|room| room.queue.front_mut());
        let Some(entry) = first.take_if(|entry| entry.value == value) else {
            return context.oracle.answered(value, outcome);
        };
        if error.is_some() && entry.keyed {
            let wait = jitter(context.random, entry.tries);
            entry.tries += 1;
            return self.actions.push(Action::Later(wait, Timer::Pump(index)));
        }
        context.oracle.answered(value, outcome);
        if let Some(room) = &mut self.rooms[index] {
            room.queue.pop_front();
        }
        self.pump(index);
    }
}
