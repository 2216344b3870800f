//! The JSON fields of replies, which the native protocol and the HTTP API share.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::id::{Epoch, Position, RoomName, UserName};
use crate::model::member::Member;
use crate::model::publication::{Payload, Publication};
use crate::protocol::Reply;

/// Why JSON is refused, for the client, with the types by their names in JSON instead of Rust.
pub(crate) fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let Some((got, wanted)) = text.split_once(", expected ") else {
        return text;
    };
    let (kind, place) = wanted.split_at(wanted.find(" at line ").unwrap_or(wanted.len()));
    let kind = match kind {
        "u64" | "usize" => "a whole number from 0",
        "a sequence" => "a list",
        kind if kind.starts_with("struct ") => "an object",
        kind => kind,
    };
    format!("{got}, expected {kind}{place}")
}

/// The fields of a reply as one JSON object.
pub(crate) fn object(reply: &Reply<'_>) -> Bytes {
    // Writing plain structs to memory cannot fail: there is no map whose keys are not strings.
    serde_json::to_vec(&ReplyFields::of(reply))
        .unwrap_or_default()
        .into()
}

/// The fields of a successful reply; `None` is left out.
#[derive(Default, Serialize)]
pub(super) struct ReplyFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<HistoryFields<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<MemberFields<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anonymous: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<bool>,
}

/// A message in an answer to `history`.
#[derive(Serialize)]
struct HistoryFields<'a> {
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    /// In Base64 (RFC 4648 section 4).
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<String>,
}

impl<'a> HistoryFields<'a> {
    fn new(offset: u64, publication: &'a Publication) -> Self {
        let user = publication.user.as_ref().map(UserName::as_str);
        let (data, binary) = match &publication.data {
            Payload::Json(json) => (Some(&**json), None),
            Payload::Binary(bytes) => (None, Some(BASE64_STANDARD.encode(bytes))),
        };
        HistoryFields {
            offset,
            user,
            time: publication.time,
            event: publication.event.as_deref(),
            data,
            binary,
        }
    }
}

/// A user in an answer to `members`.
#[derive(Serialize)]
struct MemberFields<'a> {
    user: &'a str,
    connections: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
}

impl<'a> MemberFields<'a> {
    fn new(member: &'a Member) -> Self {
        MemberFields {
            user: member.user.as_str(),
            connections: member.connections,
            info: member.info.as_deref(),
        }
    }
}

impl<'a> ReplyFields<'a> {
    /// The fields of a successful reply. Neither a pong nor an error has any.
    pub(super) fn of(reply: &Reply<'a>) -> Self {
        match reply {
            // Clients cannot query the cluster, so a result has no form here.
            Reply::Pong | Reply::Error(_) | Reply::QueryResult(_) => ReplyFields::default(),
            Reply::Authenticated(is) => ReplyFields {
                user: Some(is.user.as_str()),
                room: Some(is.room.as_str()),
                epoch: is.position.map(|position| position.epoch),
                offset: is.position.map(|position| position.offset),
                expires: is.expires.map(|time| time.as_secs()),
                ..ReplyFields::default()
            },
            Reply::CommandAccepted { user, room } => ReplyFields {
                user: Some(user.as_str()),
                room: room.map(RoomName::as_str),
                ..ReplyFields::default()
            },
            Reply::Left { room } => ReplyFields {
                room: Some(room.as_str()),
                ..ReplyFields::default()
            },
            Reply::Joined(joined) => ReplyFields {
                top: (joined.top != joined.position.offset).then_some(joined.top),
                recovered: joined.recovered,
                ..ReplyFields::at(joined.room, joined.position)
            },
            Reply::Published {
                room,
                position: Some(position),
            } => ReplyFields::at(room, *position),
            Reply::Published {
                room,
                position: None,
            } => ReplyFields {
                room: Some(room.as_str()),
                ..ReplyFields::default()
            },
            Reply::History {
                room,
                position,
                messages,
                more,
            } => ReplyFields {
                room: Some(room.as_str()),
                epoch: Some(position.epoch),
                messages: Some(
                    messages
                        .iter()
                        .map(|(offset, past)| HistoryFields::new(*offset, past))
                        .collect(),
                ),
                more: Some(*more),
                ..ReplyFields::default()
            },
            Reply::Members { room, page } => ReplyFields {
                room: Some(room.as_str()),
                version: Some(page.version),
                members: Some(page.members.iter().map(MemberFields::new).collect()),
                count: Some(page.count),
                anonymous: Some(page.anonymous),
                more: Some(page.more),
                ..ReplyFields::default()
            },
        }
    }

    fn at(room: &'a RoomName, position: Position) -> Self {
        ReplyFields {
            room: Some(room.as_str()),
            epoch: Some(position.epoch),
            offset: Some(position.offset),
            ..ReplyFields::default()
        }
    }
}
