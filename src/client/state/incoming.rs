//! What follows from the frames of the server.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Again, ClientState, ConnectionEnd, JoinedRoom, Pending, RETRY, answer};
use crate::client::{ClientError, ConnectionState};
use crate::model::id::{Position, RoomName};
use crate::model::room_event::RoomEvent;
use crate::protocol::native::receive::{Content, ServerFrame, Success};
use crate::protocol::{Code, CommandError};

impl ClientState {
    /// Handles a frame of the server.
    ///
    /// # Errors
    /// The connection must end.
    pub(in crate::client) fn frame(
        &mut self,
        now: Instant,
        received: ServerFrame,
    ) -> Result<(), ConnectionEnd> {
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
                return Err(ConnectionEnd::Reconnect {
                    reason,
                    after: Some(retry),
                });
            }
            (Content::Ok(_) | Content::Error(_) | Content::Other, _) => {}
        }
        Ok(())
    }

    /// A frame without content, such as a ping, shows that the server is there.
    pub(in crate::client) fn alive(&mut self, now: Instant) {
        self.last_frame = now;
    }

    fn room(&mut self, name: Option<String>) -> Option<&mut JoinedRoom> {
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

    fn on_error(
        &mut self,
        now: Instant,
        pending: Pending,
        error: CommandError,
    ) -> Result<(), ConnectionEnd> {
        match pending {
            Pending::Auth if error.code == Code::Unavailable => {
                return Err(ConnectionEnd::Reconnect {
                    reason: error.to_string(),
                    after: None,
                });
            }
            Pending::Auth => return Err(ConnectionEnd::Final(ClientError::Refused(error))),
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

    fn on_event(&mut self, name: Option<String>, event: RoomEvent) -> Result<(), ConnectionEnd> {
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
}

impl JoinedRoom {
    /// Moves behind a message. `Ok(false)` if it was received before.
    ///
    /// # Errors
    /// Messages are missing in front of it; the next connection recovers them.
    fn advance(&mut self, offset: u64) -> Result<bool, ConnectionEnd> {
        let Some(position) = &mut self.position else {
            return Ok(true);
        };
        if offset <= position.offset {
            return Ok(false);
        }
        if offset > position.offset + 1 {
            return Err(ConnectionEnd::Reconnect {
                reason: format!("message {} is missing", position.offset + 1),
                after: None,
            });
        }
        position.offset = offset;
        Ok(true)
    }
}
