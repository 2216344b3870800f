//! The state of a client without I/O: what it has joined, what waits for an answer, and the frames
//! and events that follow from each frame, request and moment.
//!
//! A request exists from its call to its answer; a connection only carries it. After a reconnect
//! the client signs in, joins its rooms from their positions, and sends every unanswered request
//! again. Publishes of one room are sent one after the other, because a server promises order only
//! for those that are sent after the answer to the former.

mod commands;
mod incoming;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::{AnswerSender, ClientCredentials, ClientError, ClientPublish, ConnectionState};
use crate::model::id::{Position, RoomName};
use crate::model::member::{MemberPage, MembersQuery};
use crate::model::publication::HistoryQuery;
use crate::model::room_event::RoomEvent;
use crate::protocol::native::receive::{HistoryMessages, Success};
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
pub(super) enum ClientCall {
    Publish {
        room: RoomName,
        data: Box<RawValue>,
        options: ClientPublish,
        answer: AnswerSender<Option<Position>>,
    },
    Join {
        room: RoomName,
        since: Option<Position>,
        events: Events,
        answer: AnswerSender<Position>,
    },
    History {
        query: HistoryQuery,
        answer: AnswerSender<HistoryMessages>,
    },
    Members {
        query: MembersQuery,
        answer: AnswerSender<MemberPage>,
    },
}

type Events = flume::Sender<Result<RoomEvent, ClientError>>;

/// A room that is joined, or being joined.
#[derive(Debug)]
struct JoinedRoom {
    events: Events,
    /// Answered when the first join is.
    joining: Option<AnswerSender<Position>>,
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
    answer: AnswerSender<Option<Position>>,
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
    History(HistoryQuery, AnswerSender<HistoryMessages>),
    Members(MembersQuery, AnswerSender<MemberPage>),
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
pub(super) enum ConnectionEnd {
    /// Connect again, at once or after this time.
    Reconnect {
        reason: String,
        after: Option<Duration>,
    },
    /// The client has ended.
    Final(ClientError),
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct ClientState {
    credentials: Option<ClientCredentials>,
    phase: Phase,
    last_id: u64,
    /// The commands that this connection must answer, and until when.
    pending: HashMap<u64, (Instant, Pending)>,
    rooms: BTreeMap<RoomName, JoinedRoom>,
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

impl ClientState {
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
        self.send_auth(now, &credentials);
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

    fn end_room(&mut self, name: RoomName, room: JoinedRoom, error: ClientError) {
        match room.joining {
            Some(joining) => answer(&joining, Err(error)),
            None => self.events.push_back((room.events, name, Err(error))),
        }
    }

    pub(super) fn input(&mut self, now: Instant, input: ClientCall) {
        match input {
            ClientCall::Publish {
                room,
                data,
                options,
                answer,
            } => self.on_publish(now, room, data, options, answer),
            ClientCall::Join {
                room,
                since,
                events,
                answer,
            } => self.on_join(now, room, since, events, answer),
            ClientCall::History { query, answer } => {
                self.on_query(now, Query::History(query, answer));
            }
            ClientCall::Members { query, answer } => {
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
        answer: AnswerSender<Option<Position>>,
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
        joining: AnswerSender<Position>,
    ) {
        if self.rooms.contains_key(&name) {
            let reason = "the client has joined this room already";
            let error = CommandError::new(Code::BadRequest, reason);
            answer(&joining, Err(ClientError::Refused(error)));
            return;
        }
        let room = JoinedRoom {
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
            self.send_leave(name);
        }
    }

    /// Repeats and gives up what is due.
    ///
    /// # Errors
    /// The connection must end.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), ConnectionEnd> {
        if self.phase == Phase::Offline {
            self.give_up(now);
            return Ok(());
        }
        let is_silent = now > self.last_frame + self.heartbeat + SILENCE;
        if is_silent || self.pending.values().any(|(until, _)| now > *until) {
            return Err(ConnectionEnd::Reconnect {
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
fn answer<T>(sender: &AnswerSender<T>, result: Result<T, ClientError>) {
    let _ = sender.try_send(result);
}

fn no_answer() -> ClientError {
    let reason = "the server answers another command";
    ClientError::Refused(CommandError::new(Code::BadRequest, reason))
}

#[cfg(test)]
mod tests;
