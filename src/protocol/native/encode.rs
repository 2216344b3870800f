//! Encodes replies, pushes and messages as whole frames: replies and pushes with serde, messages,
//! which are the most frequent, by hand.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::id::{Epoch, Position, RoomName, UserName};
use crate::model::member::Member;
use crate::model::publication::{Payload, Publication};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::encoder::Encoder;
use crate::protocol::{Message, Push, Reply, RequestId, frame};

/// The JSON of replies and pushes; messages are encoded by hand below.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Json<'a> {
    Ok {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        #[serde(flatten)]
        answer: Answer<'a>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        code: &'a str,
        reason: &'a str,
    },
    Welcome {
        session: &'a str,
        node: &'a str,
        user: Option<&'a str>,
        heartbeat: u64,
    },
    Gap {
        room: &'a str,
        epoch: Epoch,
        offset: u64,
    },
    Joined {
        room: &'a str,
        user: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        info: Option<&'a RawValue>,
        version: u64,
    },
    Left {
        room: &'a str,
        user: &'a str,
        version: u64,
    },
    Members {
        room: &'a str,
        version: u64,
    },
    Removed {
        room: &'a str,
        reason: &'a str,
    },
    Bye {
        reason: &'a str,
        retry: u64,
    },
}

/// The fields of an `ok`; `None` is left out.
#[derive(Default, Serialize)]
struct Answer<'a> {
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
    messages: Option<Vec<Past<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<Listed<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anonymous: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<bool>,
}

/// A message in an answer to `history`.
#[derive(Serialize)]
struct Past<'a> {
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(flatten)]
    data: Data<'a>,
}

/// The data of a message: JSON as it is, bytes in Base64 (RFC 4648 section 4).
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Data<'a> {
    Data(&'a RawValue),
    Binary(String),
}

impl<'a> Data<'a> {
    fn new(payload: &'a Payload) -> Self {
        match payload {
            Payload::Json(json) => Data::Data(json),
            Payload::Binary(bytes) => Data::Binary(BASE64_STANDARD.encode(bytes)),
        }
    }
}

impl<'a> Past<'a> {
    fn new(offset: u64, publication: &'a Publication) -> Self {
        let user = publication.user.as_ref().map(UserName::as_str);
        Past {
            offset,
            user,
            time: publication.time,
            event: publication.event.as_deref(),
            data: Data::new(&publication.data),
        }
    }
}

/// A user in an answer to `members`.
#[derive(Serialize)]
struct Listed<'a> {
    user: &'a str,
    connections: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
}

impl<'a> Listed<'a> {
    fn new(member: &'a Member) -> Self {
        Listed {
            user: member.user.as_str(),
            connections: member.connections,
            info: member.info.as_deref(),
        }
    }
}

/// Encodes replies, pushes and messages of the native protocol.
pub struct NativeEncoder;

impl Encoder for NativeEncoder {
    fn reply(&self, id: Option<RequestId>, reply: &Reply<'_>) -> Bytes {
        let id = id.map(|id| id.0);
        encode(&match reply {
            Reply::Pong => Json::Pong { id },
            Reply::Error(error) => Json::Error {
                id,
                code: error.code.as_str(),
                reason: &error.reason,
            },
            reply => Json::Ok {
                id,
                answer: answer(reply),
            },
        })
    }

    fn push(&self, push: &Push<'_>) -> Bytes {
        encode(&json_of(push))
    }

    /// Encoded by hand because every delivery passes here; the alphabets of names need no escaping.
    fn message(&self, message: &Message<'_>, frames: &mut BytesMut) {
        let publication = message.publication;
        frames.reserve(publication.data.size() + 192);
        frame::text(frames, |out| {
            head(message.room, message.offset, out);
            if let Some(user) = &publication.user {
                out.put_slice(b",\"user\":\"");
                out.put_slice(user.as_str().as_bytes());
                out.put_slice(b"\"");
            }
            out.put_slice(b",\"time\":");
            number(publication.time, out);
            if let Some(event) = &publication.event {
                out.put_slice(b",\"event\":");
                quoted(event, out);
            }
            payload(&publication.data, out);
            out.put_slice(b"}");
        });
    }

    fn own_message(&self, room: &RoomName, offset: Option<u64>, frames: &mut BytesMut) {
        frame::text(frames, |out| {
            head(room, offset, out);
            out.put_slice(b",\"own\":true}");
        });
    }

    fn ping(&self) -> Bytes {
        frame::EMPTY_PING
    }

    fn close(&self, disconnect: Disconnect) -> Bytes {
        frame::close(disconnect)
    }
}

/// The fields of a reply without `type` and `id`, as one JSON object, for the HTTP API.
pub fn bare(reply: &Reply<'_>) -> Bytes {
    // Cannot fail, as in `encode`.
    serde_json::to_vec(&answer(reply))
        .unwrap_or_default()
        .into()
}

/// The fields of an `ok`. Neither a pong nor an error has any.
fn answer<'a>(reply: &Reply<'a>) -> Answer<'a> {
    match reply {
        // Clients cannot query the cluster, so a result has no form here.
        Reply::Pong | Reply::Error(_) | Reply::QueryResult(_) => Answer::default(),
        Reply::Authenticated(is) => Answer {
            user: Some(is.user.as_str()),
            room: Some(is.room.as_str()),
            epoch: is.position.map(|position| position.epoch),
            offset: is.position.map(|position| position.offset),
            expires: is.expires.map(|time| time.as_secs()),
            ..Answer::default()
        },
        Reply::CommandAccepted { user, room } => Answer {
            user: Some(user.as_str()),
            room: room.map(RoomName::as_str),
            ..Answer::default()
        },
        Reply::Left { room } => Answer {
            room: Some(room.as_str()),
            ..Answer::default()
        },
        Reply::Joined(joined) => Answer {
            top: (joined.top != joined.position.offset).then_some(joined.top),
            recovered: joined.recovered,
            ..Answer::at(joined.room, joined.position)
        },
        Reply::Published {
            room,
            position: Some(position),
        } => Answer::at(room, *position),
        Reply::Published {
            room,
            position: None,
        } => Answer {
            room: Some(room.as_str()),
            ..Answer::default()
        },
        Reply::History {
            room,
            position,
            messages,
            more,
        } => Answer {
            room: Some(room.as_str()),
            epoch: Some(position.epoch),
            messages: Some(
                messages
                    .iter()
                    .map(|(offset, past)| Past::new(*offset, past))
                    .collect(),
            ),
            more: Some(*more),
            ..Answer::default()
        },
        Reply::Members { room, page } => Answer {
            room: Some(room.as_str()),
            version: Some(page.version),
            members: Some(page.members.iter().map(Listed::new).collect()),
            count: Some(page.count),
            anonymous: Some(page.anonymous),
            more: Some(page.more),
            ..Answer::default()
        },
    }
}

impl<'a> Answer<'a> {
    fn at(room: &'a RoomName, position: Position) -> Self {
        Answer {
            room: Some(room.as_str()),
            epoch: Some(position.epoch),
            offset: Some(position.offset),
            ..Answer::default()
        }
    }
}

fn json_of<'a>(push: &Push<'a>) -> Json<'a> {
    match push {
        Push::Welcome {
            session,
            node,
            user,
            heartbeat,
        } => Json::Welcome {
            session,
            node,
            user: user.map(UserName::as_str),
            heartbeat: heartbeat.as_secs().max(1),
        },
        Push::Gap { room, position } => Json::Gap {
            room: room.as_str(),
            epoch: position.epoch,
            offset: position.offset,
        },
        Push::Joined {
            room,
            user,
            info,
            version,
        } => Json::Joined {
            room: room.as_str(),
            user: user.as_str(),
            info: info.map(|info| &**info),
            version: *version,
        },
        Push::Left {
            room,
            user,
            version,
        } => Json::Left {
            room: room.as_str(),
            user: user.as_str(),
            version: *version,
        },
        Push::Members { room, version } => Json::Members {
            room: room.as_str(),
            version: *version,
        },
        Push::Removed { room, reason } => Json::Removed {
            room: room.as_str(),
            reason,
        },
        Push::Bye { reason, retry } => Json::Bye {
            reason,
            retry: retry.as_millis() as u64,
        },
    }
}

fn encode(json: &Json<'_>) -> Bytes {
    let mut frames = BytesMut::with_capacity(192);
    frame::text(&mut frames, |out| {
        // Writing plain structs to memory cannot fail: there is no map whose keys are not strings.
        let written = serde_json::to_writer(out.writer(), json);
        debug_assert!(written.is_ok());
    });
    frames.freeze()
}

fn head(room: &RoomName, offset: Option<u64>, out: &mut BytesMut) {
    out.put_slice(b"{\"type\":\"message\",\"room\":\"");
    out.put_slice(room.as_str().as_bytes());
    out.put_slice(b"\"");
    if let Some(offset) = offset {
        out.put_slice(b",\"offset\":");
        number(offset, out);
    }
}

fn number(number: u64, out: &mut BytesMut) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The member with the data: JSON as it is, bytes in Base64 (RFC 4648 section 4).
fn payload(payload: &Payload, out: &mut BytesMut) {
    match payload {
        Payload::Json(json) => {
            out.put_slice(b",\"data\":");
            out.put_slice(json.get().as_bytes());
        }
        Payload::Binary(bytes) => {
            out.put_slice(b",\"binary\":\"");
            out.put_slice(BASE64_STANDARD.encode(bytes).as_bytes());
            out.put_slice(b"\"");
        }
    }
}

/// Any text as a JSON string.
fn quoted(text: &str, out: &mut BytesMut) {
    // Writing a text to memory cannot fail.
    let written = serde_json::to_writer(out.writer(), text);
    debug_assert!(written.is_ok());
}
