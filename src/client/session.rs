//! The state of a client without I/O: what it has joined, what waits for an answer, and the frames
//! and events that follow from each frame, request and moment.
//!
//! A request exists from its call to its answer; a connection only carries it. After a reconnect
//! the client signs in, joins its rooms from their positions, and sends every unanswered request
//! again. Publishes of one room are sent one after the other, because a server promises order only
//! for those that are sent after the answer to the former.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Answer, ClientCredentials, ClientError, ClientPublish, ConnectionState};
use crate::model::id::{Position, RoomName};
use crate::model::member::{MemberPage, MembersQuery};
use crate::model::publication::HistoryQuery;
use crate::model::room_event::RoomEvent;
use crate::protocol::native::receive::{Content, HistoryMessages, Received, Success};
use crate::protocol::{Code, CommandError};

/// How long a client waits before it repeats what was refused for the moment.
const RETRY: Duration = Duration::from_secs(1);

/// How long a publish is repeated. Servers remember its key for five minutes; after that a
/// repetition could add the message a second time.
const KEY_LIFE: Duration = Duration::from_secs(270);

/// How long the answer to a command may take, before the connection counts as broken.
const ANSWER: Duration = Duration::from_secs(30);

/// How much longer than its heartbeat a server may be silent: the slowest mobile networks need
/// seconds.
const SILENCE: Duration = Duration::from_secs(10);

/// A heartbeat before the server has named its own.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// A request to the client.
#[derive(Debug)]
pub(super) enum Input {
    Publish {
        room: RoomName,
        data: Box<RawValue>,
        options: ClientPublish,
        answer: Answer<Option<Position>>,
    },
    Join {
        room: RoomName,
        since: Option<Position>,
        events: Events,
        answer: Answer<Position>,
    },
    History {
        query: HistoryQuery,
        answer: Answer<HistoryMessages>,
    },
    Members {
        query: MembersQuery,
        answer: Answer<MemberPage>,
    },
}

type Events = flume::Sender<Result<RoomEvent, ClientError>>;

/// A room that is joined, or being joined.
#[derive(Debug)]
struct Room {
    events: Events,
    /// Answered when the first join is.
    joining: Option<Answer<Position>>,
    position: Option<Position>,
}

/// A publish that is not yet answered.
#[derive(Debug)]
struct QueuedPublish {
    data: Box<RawValue>,
    key: Option<String>,
    ephemeral: bool,
    /// When it is given up.
    until: Instant,
    answer: Answer<Option<Position>>,
}

/// A command whose answer is awaited on this connection.
#[derive(Debug)]
enum Pending {
    Auth,
    Join(RoomName),
    Publish(RoomName),
    Query(Query),
}

#[derive(Debug)]
enum Query {
    History(HistoryQuery, Answer<HistoryMessages>),
    Members(MembersQuery, Answer<MemberPage>),
}

/// Something to repeat on this connection.
#[derive(Debug)]
enum Again {
    Join(RoomName),
    Publish(RoomName),
}

/// How far the present connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Offline,
    /// Connected; the answer to the sign-in is awaited.
    SigningIn,
    Ready,
}

/// Why the client gives up a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Connect again, at once or after this time.
    Reconnect {
        reason: String,
        after: Option<Duration>,
    },
    /// The client has ended.
    Final(ClientError),
}

/// A command as a client sends it.
#[derive(Default, Serialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ephemeral: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Session {
    credentials: Option<ClientCredentials>,
    phase: Phase,
    last_id: u64,
    /// The commands that this connection must answer, and until when.
    pending: HashMap<u64, (Instant, Pending)>,
    rooms: BTreeMap<RoomName, Room>,
    publishes: BTreeMap<RoomName, VecDeque<QueuedPublish>>,
    /// Queries that wait for a connection.
    queries: VecDeque<Query>,
    /// What is repeated on this connection, and when.
    again: Vec<(Instant, Again)>,
    heartbeat: Duration,
    /// When the last frame of the server came.
    last_frame: Instant,
    /// Texts to send.
    frames: VecDeque<String>,
    /// Events to deliver, in order.
    events: VecDeque<(Events, RoomName, Result<RoomEvent, ClientError>)>,
    states: VecDeque<ConnectionState>,
}

impl Session {
    pub(super) fn new(now: Instant, credentials: Option<ClientCredentials>) -> Self {
        Self {
            credentials,
            phase: Phase::Offline,
            last_id: 0,
            pending: HashMap::new(),
            rooms: BTreeMap::new(),
            publishes: BTreeMap::new(),
            queries: VecDeque::new(),
            again: Vec::new(),
            heartbeat: HEARTBEAT,
            last_frame: now,
            frames: VecDeque::new(),
            events: VecDeque::new(),
            states: VecDeque::new(),
        }
    }

    /// The next text to send.
    pub(super) fn next_frame(&mut self) -> Option<String> {
        self.frames.pop_front()
    }

    /// The next event to deliver, and the room that is left if its receiver is dropped.
    pub(super) fn next_event(
        &mut self,
    ) -> Option<(Events, RoomName, Result<RoomEvent, ClientError>)> {
        self.events.pop_front()
    }

    pub(super) fn next_state(&mut self) -> Option<ConnectionState> {
        self.states.pop_front()
    }

    /// There is a connection: sign in.
    pub(super) fn connected(&mut self, now: Instant) {
        self.last_frame = now;
        let Some(credentials) = self.credentials.clone() else {
            self.ready(now);
            return;
        };
        self.phase = Phase::SigningIn;
        let (token, user) = match &credentials {
            ClientCredentials::Token(token) => (Some(token.expose().as_str()), None),
            ClientCredentials::User(user) => (None, Some(user.as_str())),
        };
        let frame = Frame {
            kind: "auth",
            token,
            user,
            ..Frame::default()
        };
        self.command(now, Pending::Auth, frame);
    }

    /// Sends everything that waits for a connection.
    fn ready(&mut self, now: Instant) {
        self.phase = Phase::Ready;
        let rooms: Vec<RoomName> = self.rooms.keys().cloned().collect();
        rooms.into_iter().for_each(|room| self.send_join(now, room));
        let rooms: Vec<RoomName> = self.publishes.keys().cloned().collect();
        rooms
            .into_iter()
            .for_each(|room| self.send_publish(now, room));
        for query in std::mem::take(&mut self.queries) {
            self.send_query(now, query);
        }
    }

    /// The connection has ended. What it has not answered waits for the next one.
    pub(super) fn lost(&mut self, reason: String) {
        self.offline();
        self.states.push_back(ConnectionState::Lost { reason });
    }

    fn offline(&mut self) {
        self.phase = Phase::Offline;
        self.frames.clear();
        self.again.clear();
        let mut pending: Vec<_> = self.pending.drain().collect();
        pending.sort_unstable_by_key(|(id, _)| *id);
        for (_, (_, pending)) in pending {
            if let Pending::Query(query) = pending {
                self.queries.push_back(query);
            }
        }
    }

    /// The client has ended: everything that waits fails.
    pub(super) fn fail(&mut self, error: &ClientError) {
        self.offline();
        for (name, room) in std::mem::take(&mut self.rooms) {
            self.end_room(name, room, error.clone());
        }
        for publish in std::mem::take(&mut self.publishes).into_values().flatten() {
            answer(&publish.answer, Err(error.clone()));
        }
        for query in std::mem::take(&mut self.queries) {
            query.refuse(error.clone());
        }
    }

    fn end_room(&mut self, name: RoomName, room: Room, error: ClientError) {
        match room.joining {
            Some(joining) => answer(&joining, Err(error)),
            None => self.events.push_back((room.events, name, Err(error))),
        }
    }

    pub(super) fn input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Publish {
                room,
                data,
                options,
                answer,
            } => self.on_publish(now, room, data, options, answer),
            Input::Join {
                room,
                since,
                events,
                answer,
            } => self.on_join(now, room, since, events, answer),
            Input::History { query, answer } => {
                self.on_query(now, Query::History(query, answer));
            }
            Input::Members { query, answer } => {
                self.on_query(now, Query::Members(query, answer));
            }
        }
    }

    fn on_publish(
        &mut self,
        now: Instant,
        room: RoomName,
        data: Box<RawValue>,
        options: ClientPublish,
        answer: Answer<Option<Position>>,
    ) {
        let queue = self.publishes.entry(room.clone()).or_default();
        queue.push_back(QueuedPublish {
            data,
            key: options.key,
            ephemeral: options.ephemeral,
            until: now + KEY_LIFE,
            answer,
        });
        if queue.len() == 1 && self.phase == Phase::Ready {
            self.send_publish(now, room);
        }
    }

    fn on_join(
        &mut self,
        now: Instant,
        name: RoomName,
        since: Option<Position>,
        events: Events,
        joining: Answer<Position>,
    ) {
        if self.rooms.contains_key(&name) {
            let reason = "the client has joined this room already";
            let error = CommandError::new(Code::BadRequest, reason);
            answer(&joining, Err(ClientError::Refused(error)));
            return;
        }
        let room = Room {
            events,
            joining: Some(joining),
            position: since,
        };
        self.rooms.insert(name.clone(), room);
        if self.phase == Phase::Ready {
            self.send_join(now, name);
        }
    }

    fn on_query(&mut self, now: Instant, query: Query) {
        if self.phase == Phase::Ready {
            self.send_query(now, query);
        } else {
            self.queries.push_back(query);
        }
    }

    /// The receiver of a room's events is gone.
    pub(super) fn leave(&mut self, name: &RoomName) {
        if self.rooms.remove(name).is_some() && self.phase == Phase::Ready {
            let frame = Frame {
                kind: "leave",
                room: Some(name.as_str()),
                ..Frame::default()
            };
            self.send(&frame);
        }
    }

    fn send_join(&mut self, now: Instant, name: RoomName) {
        let Some(room) = self.rooms.get(&name) else {
            return;
        };
        let frame = Frame {
            kind: "join",
            room: Some(name.as_str()),
            since: room.position,
            ..Frame::default()
        };
        self.command(now, Pending::Join(name.clone()), frame);
    }

    /// Sends the first publish of a room's queue.
    fn send_publish(&mut self, now: Instant, room: RoomName) {
        let Some(publish) = self.publishes.get(&room).and_then(VecDeque::front) else {
            return;
        };
        let (key, data) = (publish.key.clone(), publish.data.clone());
        let ephemeral = publish.ephemeral.then_some(true);
        let frame = Frame {
            kind: "publish",
            room: Some(room.as_str()),
            key: key.as_deref(),
            ephemeral,
            data: Some(&data),
            ..Frame::default()
        };
        self.command(now, Pending::Publish(room.clone()), frame);
    }

    fn send_query(&mut self, now: Instant, query: Query) {
        let text;
        let frame = match &query {
            Query::History(query, _) => {
                text = query.room.clone();
                Frame {
                    kind: "history",
                    room: Some(text.as_str()),
                    before: query.before,
                    limit: Some(query.limit),
                    ..Frame::default()
                }
            }
            Query::Members(query, _) => {
                text = query.room.clone();
                Frame {
                    kind: "members",
                    room: Some(text.as_str()),
                    limit: Some(query.limit),
                    ..Frame::default()
                }
            }
        };
        let after = match &query {
            Query::Members(query, _) => query.after.clone(),
            Query::History(..) => None,
        };
        let after = after.as_ref().map(|user| user.as_str());
        self.command(now, Pending::Query(query), Frame { after, ..frame });
    }

    /// Sends a command whose answer is awaited.
    fn command(&mut self, now: Instant, pending: Pending, frame: Frame<'_>) {
        self.last_id += 1;
        let id = self.last_id;
        self.pending.insert(id, (now + ANSWER, pending));
        self.send(&Frame {
            id: Some(id),
            ..frame
        });
    }

    fn send(&mut self, frame: &Frame<'_>) {
        // Writing plain structs to memory cannot fail.
        self.frames
            .push_back(serde_json::to_string(frame).unwrap_or_default());
    }

    /// Handles a frame of the server.
    ///
    /// # Errors
    /// The connection must end.
    pub(super) fn frame(&mut self, now: Instant, received: Received) -> Result<(), End> {
        self.last_frame = now;
        let pending = received.id.and_then(|id| self.pending.remove(&id));
        let pending = pending.map(|(_, pending)| pending);
        match (received.content, pending) {
            (Content::Ok(success), Some(pending)) => self.on_ok(now, pending, success),
            (Content::Error(error), Some(pending)) => return self.on_error(now, pending, error),
            (Content::Welcome { node, heartbeat }, _) => {
                self.heartbeat = heartbeat;
                self.states.push_back(ConnectionState::Connected { node });
            }
            (Content::Event(event), _) => return self.on_event(received.room, event),
            (Content::Own { offset }, _) => {
                if let (Some(room), Some(offset)) = (self.room(received.room), offset) {
                    return room.advance(offset).map(drop);
                }
            }
            (Content::Removed { reason }, _) => self.on_removed(received.room, reason),
            (Content::Bye { reason, retry }, _) => {
                return Err(End::Reconnect {
                    reason,
                    after: Some(retry),
                });
            }
            (Content::Ok(_) | Content::Error(_) | Content::Other, _) => {}
        }
        Ok(())
    }

    /// A frame without content, such as a ping, shows that the server is there.
    pub(super) fn alive(&mut self, now: Instant) {
        self.last_frame = now;
    }

    fn room(&mut self, name: Option<String>) -> Option<&mut Room> {
        self.rooms.get_mut(name?.as_str())
    }

    fn on_ok(&mut self, now: Instant, pending: Pending, success: Success) {
        match pending {
            Pending::Auth => self.ready(now),
            Pending::Join(name) => self.on_joined(name, &success),
            Pending::Publish(room) => self.published(now, room, Ok(success.position)),
            Pending::Query(query) => query.answer(success),
        }
    }

    fn on_joined(&mut self, name: RoomName, success: &Success) {
        let (Some(room), Some(position)) = (self.rooms.get_mut(&name), success.position) else {
            return;
        };
        room.position = Some(position);
        if let Some(joining) = room.joining.take() {
            answer(&joining, Ok(position));
        }
        if success.recovered == Some(false) {
            let event = Ok(RoomEvent::Gap(position));
            self.events.push_back((room.events.clone(), name, event));
        }
    }

    /// Answers the first publish of a room, and sends the next one.
    fn published(
        &mut self,
        now: Instant,
        room: RoomName,
        result: Result<Option<Position>, ClientError>,
    ) {
        let Some(queue) = self.publishes.get_mut(&room) else {
            return;
        };
        if let Some(publish) = queue.pop_front() {
            answer(&publish.answer, result);
        }
        if queue.is_empty() {
            self.publishes.remove(&room);
        } else {
            self.send_publish(now, room);
        }
    }

    fn on_error(&mut self, now: Instant, pending: Pending, error: CommandError) -> Result<(), End> {
        match pending {
            Pending::Auth if error.code == Code::Unavailable => {
                return Err(End::Reconnect {
                    reason: error.to_string(),
                    after: None,
                });
            }
            Pending::Auth => return Err(End::Final(ClientError::Refused(error))),
            Pending::Join(name) if error.code == Code::Unavailable => {
                self.again.push((now + RETRY, Again::Join(name)));
            }
            Pending::Join(name) => {
                if let Some(room) = self.rooms.remove(&name) {
                    self.end_room(name, room, ClientError::Refused(error));
                }
            }
            Pending::Publish(room) => self.on_publish_error(now, room, error),
            Pending::Query(query) => query.refuse(ClientError::Refused(error)),
        }
        Ok(())
    }

    /// Repeats a publish that may succeed later. Without a key it could be stored twice.
    fn on_publish_error(&mut self, now: Instant, room: RoomName, error: CommandError) {
        let publish = self.publishes.get(&room).and_then(VecDeque::front);
        let repeats = publish.is_some_and(|publish| match error.code {
            Code::Unavailable => true,
            Code::Unknown => publish.key.is_some(),
            _ => false,
        });
        if repeats {
            self.again.push((now + RETRY, Again::Publish(room)));
        } else {
            self.published(now, room, Err(ClientError::Refused(error)));
        }
    }

    fn on_event(&mut self, name: Option<String>, event: RoomEvent) -> Result<(), End> {
        let Some((name, room)) = name.and_then(|name| {
            let (name, _) = self.rooms.get_key_value(name.as_str())?;
            let name = name.clone();
            self.rooms.get_mut(&name).map(|room| (name, room))
        }) else {
            return Ok(());
        };
        match &event {
            RoomEvent::Message(message) => {
                if let Some(offset) = message.offset
                    && !room.advance(offset)?
                {
                    return Ok(());
                }
            }
            RoomEvent::Gap(position) => room.position = Some(*position),
            _ => {}
        }
        self.events
            .push_back((room.events.clone(), name, Ok(event)));
        Ok(())
    }

    fn on_removed(&mut self, name: Option<String>, reason: String) {
        let Some(name) = name.and_then(|name| RoomName::new(&name).ok()) else {
            return;
        };
        if let Some(room) = self.rooms.remove(&name) {
            self.end_room(name, room, ClientError::Removed(reason));
        }
    }

    /// Repeats and gives up what is due.
    ///
    /// # Errors
    /// The connection must end.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), End> {
        if self.phase == Phase::Offline {
            self.give_up(now);
            return Ok(());
        }
        let is_silent = now > self.last_frame + self.heartbeat + SILENCE;
        if is_silent || self.pending.values().any(|(until, _)| now > *until) {
            return Err(End::Reconnect {
                reason: "the server does not answer".into(),
                after: None,
            });
        }
        let (due, later) = std::mem::take(&mut self.again)
            .into_iter()
            .partition(|(time, _)| now >= *time);
        self.again = later;
        let due: Vec<(Instant, Again)> = due;
        for (_, again) in due {
            match again {
                Again::Join(room) => self.send_join(now, room),
                Again::Publish(room) => self.send_publish(now, room),
            }
        }
        Ok(())
    }

    /// Fails the publishes whose keys a server may have forgotten.
    fn give_up(&mut self, now: Instant) {
        self.publishes.retain(|_, queue| {
            while queue.front().is_some_and(|publish| now > publish.until) {
                if let Some(publish) = queue.pop_front() {
                    answer(&publish.answer, Err(ClientError::Unknown));
                }
            }
            !queue.is_empty()
        });
    }
}

impl Room {
    /// Moves behind a message. `Ok(false)` if it was received before.
    ///
    /// # Errors
    /// Messages are missing in front of it; the next connection recovers them.
    fn advance(&mut self, offset: u64) -> Result<bool, End> {
        let Some(position) = &mut self.position else {
            return Ok(true);
        };
        if offset <= position.offset {
            return Ok(false);
        }
        if offset > position.offset + 1 {
            return Err(End::Reconnect {
                reason: format!("message {} is missing", position.offset + 1),
                after: None,
            });
        }
        position.offset = offset;
        Ok(true)
    }
}

impl Query {
    fn answer(self, success: Success) {
        match self {
            Query::History(_, sender) => {
                answer(&sender, success.page.ok_or_else(no_answer));
            }
            Query::Members(_, sender) => {
                answer(&sender, success.members.ok_or_else(no_answer));
            }
        }
    }

    fn refuse(self, error: ClientError) {
        match self {
            Query::History(_, sender) => answer(&sender, Err(error)),
            Query::Members(_, sender) => answer(&sender, Err(error)),
        }
    }
}

/// A caller that is gone needs no answer.
fn answer<T>(sender: &Answer<T>, result: Result<T, ClientError>) {
    let _ = sender.try_send(result);
}

fn no_answer() -> ClientError {
    let reason = "the server answers another command";
    ClientError::Refused(CommandError::new(Code::BadRequest, reason))
}

#[cfg(test)]
mod tests;
