//! Encodes replies, pushes and messages as whole frames: replies and pushes with serde, messages,
//! which are the most frequent, by hand.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::id::{Epoch, RoomName, UserName};
use crate::model::publication::Payload;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::encoder::Encoder;
use crate::protocol::json::ReplyFields;
use crate::protocol::{ClientLimits, Message, Push, Reply, RequestId, frame};

/// The JSON of replies and pushes; messages are encoded by hand below.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Json<'a> {
    Ok {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        #[serde(flatten)]
        fields: ReplyFields<'a>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        code: &'a str,
        reason: &'a str,
    },
    Welcome {
        session: &'a str,
        node: &'a str,
        user: Option<&'a str>,
        heartbeat: u64,
        limits: ClientLimits,
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
        code: &'a str,
        reason: &'a str,
    },
    Bye {
        reason: &'a str,
        retry: u64,
    },
}

/// Encodes replies, pushes and messages of the native protocol.
pub struct NativeEncoder;

impl Encoder for NativeEncoder {
    fn reply(&self, id: Option<RequestId>, reply: &Reply<'_>) -> Bytes {
        encode(&match reply {
            Reply::Pong => Json::Pong { id },
            Reply::Error(error) => Json::Error {
                id,
                code: error.code.as_str(),
                reason: &error.reason,
            },
            reply => Json::Ok {
                id,
                fields: ReplyFields::of(reply),
            },
        })
    }

    fn push(&self, push: &Push<'_>) -> Bytes {
        encode(&json_of(push))
    }

    /// Encoded by hand because every delivery passes here; the name of a room needs no escapes.
    fn message(&self, message: &Message<'_>, frames: &mut BytesMut) {
        let publication = message.publication;
        frames.reserve(publication.data.size() + 192);
        frame::text(frames, |out| {
            head(message.room, message.offset, out);
            if let Some(user) = &publication.user {
                out.put_slice(b",\"user\":");
                quoted(user.as_str(), out);
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

fn json_of<'a>(push: &Push<'a>) -> Json<'a> {
    match push {
        Push::Welcome {
            session,
            node,
            user,
            heartbeat,
            limits,
        } => Json::Welcome {
            session,
            node,
            user: user.map(UserName::as_str),
            heartbeat: heartbeat.as_secs().max(1),
            limits: *limits,
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
        Push::Removed { room, why, reason } => Json::Removed {
            room: room.as_str(),
            code: why.as_str(),
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
