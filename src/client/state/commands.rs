//! The commands that the client sends: the one place that writes them.

use std::time::Instant;

use serde::Serialize;
use serde_json::value::RawValue;

use std::collections::VecDeque;

use super::{ANSWER, ClientState, Pending, Query};
use crate::client::ClientCredentials;
use crate::model::id::{Position, RoomName};

/// A command as a client sends it.
#[derive(Default, Serialize)]
struct CommandFrame<'a> {
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

impl ClientState {
    pub(super) fn send_auth(&mut self, now: Instant, credentials: &ClientCredentials) {
        let (token, user) = match credentials {
            ClientCredentials::Token(token) => (Some(token.expose().as_str()), None),
            ClientCredentials::User(user) => (None, Some(user.as_str())),
        };
        let frame = CommandFrame {
            kind: "auth",
            token,
            user,
            ..CommandFrame::default()
        };
        self.command(now, Pending::Auth, frame);
    }

    /// The reply has no number, and so needs no handling.
    pub(super) fn send_leave(&mut self, name: &RoomName) {
        let frame = CommandFrame {
            kind: "leave",
            room: Some(name.as_str()),
            ..CommandFrame::default()
        };
        self.send(&frame);
    }

    pub(super) fn send_join(&mut self, now: Instant, name: RoomName) {
        let Some(room) = self.rooms.get(&name) else {
            return;
        };
        let frame = CommandFrame {
            kind: "join",
            room: Some(name.as_str()),
            since: room.position,
            ..CommandFrame::default()
        };
        self.command(now, Pending::Join(name.clone()), frame);
    }

    /// Sends the first publish of a room's queue.
    pub(super) fn send_publish(&mut self, now: Instant, room: RoomName) {
        let Some(publish) = self.publishes.get(&room).and_then(VecDeque::front) else {
            return;
        };
        let (key, data) = (publish.key.clone(), publish.data.clone());
        let ephemeral = publish.ephemeral.then_some(true);
        let frame = CommandFrame {
            kind: "publish",
            room: Some(room.as_str()),
            key: key.as_deref(),
            ephemeral,
            data: Some(&data),
            ..CommandFrame::default()
        };
        self.command(now, Pending::Publish(room.clone()), frame);
    }

    pub(super) fn send_query(&mut self, now: Instant, query: Query) {
        let text;
        let frame = match &query {
            Query::History(query, _) => {
                text = query.room.clone();
                CommandFrame {
                    kind: "history",
                    room: Some(text.as_str()),
                    before: query.before,
                    limit: Some(query.limit),
                    ..CommandFrame::default()
                }
            }
            Query::Members(query, _) => {
                text = query.room.clone();
                CommandFrame {
                    kind: "members",
                    room: Some(text.as_str()),
                    limit: Some(query.limit),
                    ..CommandFrame::default()
                }
            }
        };
        let after = match &query {
            Query::Members(query, _) => query.after.clone(),
            Query::History(..) => None,
        };
        let after = after.as_ref().map(|user| user.as_str());
        self.command(now, Pending::Query(query), CommandFrame { after, ..frame });
    }

    /// Sends a command whose answer is awaited.
    fn command(&mut self, now: Instant, pending: Pending, frame: CommandFrame<'_>) {
        self.last_id += 1;
        let id = self.last_id;
        self.pending.insert(id, (now + ANSWER, pending));
        self.send(&CommandFrame {
            id: Some(id),
            ..frame
        });
    }

    fn send(&mut self, frame: &CommandFrame<'_>) {
        // Writing plain structs to memory cannot fail.
        self.frames
            .push_back(serde_json::to_string(frame).unwrap_or_default());
    }
}
