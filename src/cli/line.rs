//! Messages as lines: JSON as clients receive it, and a form for people.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::printable;
use crate::model::id::{Epoch, Position, RoomName};
use crate::model::publication::Payload;
use crate::model::room_event::Delivery;

/// A message as one JSON object.
#[derive(Serialize)]
pub(super) struct MessageLine<'a> {
    /// Only of a message that was pushed.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<String>,
}

impl<'a> MessageLine<'a> {
    /// As members receive it.
    pub(super) fn pushed(room: &'a RoomName, message: &'a Delivery) -> Self {
        Self {
            kind: Some("message"),
            room: Some(room.as_str()),
            ..Self::stored(message)
        }
    }

    /// As a page of history has it.
    pub(super) fn stored(message: &'a Delivery) -> Self {
        let (data, binary) = match &message.data {
            Payload::Json(json) => (Some(&**json), None),
            Payload::Binary(bytes) => (None, Some(BASE64_STANDARD.encode(bytes))),
        };
        Self {
            kind: None,
            room: None,
            offset: message.offset,
            user: message.user.as_ref().map(|user| user.as_str()),
            time: message.time,
            event: message.event.as_deref(),
            data,
            binary,
        }
    }
}

/// A gap, as members receive it.
#[derive(Serialize)]
pub(super) struct GapLine<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    room: &'a str,
    epoch: Epoch,
    offset: u64,
}

impl<'a> GapLine<'a> {
    pub(super) fn new(room: &'a RoomName, Position { epoch, offset }: Position) -> Self {
        Self {
            kind: "gap",
            room: room.as_str(),
            epoch,
            offset,
        }
    }
}

/// A message for people: the room if there are several, the offset (- for one that is not stored),
/// the author (- for none), and the data.
pub(super) fn readable(room: Option<&RoomName>, message: &Delivery) -> String {
    let room = room.map_or(String::new(), |room| format!("{room} "));
    let offset = message
        .offset
        .map_or("-".into(), |offset| offset.to_string());
    let user = message.user.as_ref().map_or("-", |user| user.as_str());
    let data = printable(&message.data.to_string());
    format!("{room}{offset} {user} {data}")
}
