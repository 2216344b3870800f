//! The native protocol: one JSON object per text frame, flat, `type` first; `id` is echoed in the reply. The JSON
//! of clients lives in this file and nowhere else.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Asked, Code, Command, CommandError, HISTORY_DEFAULT, HISTORY_LIMIT, Incoming, Message, Publish,
    Push, Reply, RequestId, frame,
};
use crate::id::{Epoch, Position, RoomName, UserName};
use crate::identity::Credentials;
use crate::member::{INFO_BYTES, Info, Member};
use crate::publication::{KEY_BYTES, Publication};
use crate::secret::Secret;

/// The largest `id`: what a double holds exactly.
const MAX_ID: u64 = (1 << 53) - 1;

/// How many members one `members` may ask for, and what it gets when it does not say.
const MEMBERS_LIMIT: usize = 1000;
const MEMBERS_DEFAULT: usize = 100;

/// A frame from a client: every field that any command has. Unknown and doubled fields are errors, so
/// that a misspelt option never passes for a missing one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<u64>,
    #[serde(borrow)]
    room: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
    since: Option<Position>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    ephemeral: Option<bool>,
    others: Option<bool>,
    before: Option<u64>,
    #[serde(borrow)]
    after: Option<Cow<'a, str>>,
    limit: Option<usize>,
    info: Option<Box<RawValue>>,
}

/// Keeps `"data":null` apart from no data: null is a value like any other.
fn present<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(json).map(Some)
}

/// Reads one frame's text.
pub fn decode(text: &str) -> Incoming {
    let mut fields: Fields = match object(text) {
        Ok(fields) => fields,
        Err(error) => {
            return Incoming {
                id: id_of(text),
                asked: Err(error),
            };
        }
    };
    let id = fields.id.map(RequestId);
    let asked = match id {
        Some(RequestId(id)) if id > MAX_ID => Err(bad("`id` must be a whole number below 2^53")),
        _ => fields
            .asked()
            .and_then(|asked| fields.nothing_left().map(|()| asked)),
    };
    Incoming { id, asked }
}

/// What becomes of a frame that is nested too deeply.
pub fn too_deep(text: &str, depth: usize) -> Incoming {
    Incoming {
        id: id_of(text),
        asked: Err(bad(format!(
            "nest arrays and objects at most {depth} deep, the command included"
        ))),
    }
}

/// The `id` of a frame that is otherwise wrong, so that its error finds its way.
fn id_of(text: &str) -> Option<RequestId> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: Option<u64>,
    }
    let fields: OnlyId = object(text).ok()?;
    fields.id.filter(|id| *id <= MAX_ID).map(RequestId)
}

fn bad(reason: impl Into<Cow<'static, str>>) -> CommandError {
    CommandError::new(Code::BadRequest, reason)
}

/// Reads an object. A list would also do for serde, which would take its entries for the fields in order.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, CommandError> {
    let what = "send one JSON object with a known `type` and its fields";
    if !text.trim_ascii_start().starts_with('{') {
        return Err(bad(what));
    }
    serde_json::from_str(text).map_err(|error| bad(format!("{what}: {error}")))
}

impl Fields<'_> {
    fn asked(&mut self) -> Result<Asked, CommandError> {
        match &*self.kind {
            "auth" => Ok(Asked::Auth(self.credentials()?)),
            _ => Ok(Asked::Command(self.command()?)),
        }
    }

    fn command(&mut self) -> Result<Command, CommandError> {
        match &*self.kind {
            "join" => Ok(Command::Join {
                room: self.room()?,
                since: self.since.take(),
            }),
            "leave" => Ok(Command::Leave { room: self.room()? }),
            "publish" => Ok(Command::Publish(self.publish()?)),
            "history" => Ok(Command::History {
                room: self.room()?,
                before: self.before.take(),
                limit: self.limit(HISTORY_DEFAULT, HISTORY_LIMIT)?,
            }),
            "members" => Ok(Command::Members {
                room: self.room()?,
                after: self.after()?,
                limit: self.limit(MEMBERS_DEFAULT, MEMBERS_LIMIT)?,
            }),
            "ping" => Ok(Command::Ping),
            _ => Err(bad(
                "`type` must be auth, join, leave, publish, history, members or ping",
            )),
        }
    }

    fn publish(&mut self) -> Result<Publish, CommandError> {
        let publish = Publish {
            room: self.room()?,
            key: self.key()?,
            data: self
                .data
                .take()
                .ok_or_else(|| bad("a publish needs `data`: any JSON value"))?,
            ephemeral: self.ephemeral.take().unwrap_or(false),
            others: self.others.take().unwrap_or(false),
        };
        if publish.ephemeral && publish.key.is_some() {
            return Err(bad("an ephemeral publish is not kept and takes no `key`"));
        }
        Ok(publish)
    }

    fn room(&mut self) -> Result<RoomName, CommandError> {
        let room = self
            .room
            .take()
            .ok_or_else(|| bad("this command needs a `room`"))?;
        Ok(RoomName::new(&room)?)
    }

    fn credentials(&mut self) -> Result<Credentials, CommandError> {
        match (self.user.take(), self.token.take()) {
            (Some(user), None) => Ok(Credentials::User {
                user: UserName::new(&user)?,
                info: self.info()?,
            }),
            (None, Some(token)) => Ok(Credentials::Token(Secret::new(token.into_owned()))),
            _ => Err(bad(
                "auth needs a `token`, or a `user` where the server is open",
            )),
        }
    }

    fn key(&mut self) -> Result<Option<std::sync::Arc<str>>, CommandError> {
        match self.key.take() {
            Some(key) if key.is_empty() || key.len() > KEY_BYTES => {
                Err(bad("`key` must have 1 to 64 bytes"))
            }
            key => Ok(key.map(|key| (&*key).into())),
        }
    }

    fn limit(&mut self, default: usize, most: usize) -> Result<usize, CommandError> {
        match self.limit.take().unwrap_or(default) {
            limit if (1..=most).contains(&limit) => Ok(limit),
            _ => Err(bad(format!("`limit` must lie between 1 and {most}"))),
        }
    }

    fn after(&mut self) -> Result<Option<UserName>, CommandError> {
        let after = self.after.take();
        Ok(after.map(|after| UserName::new(&after)).transpose()?)
    }

    fn info(&mut self) -> Result<Option<Info>, CommandError> {
        match self.info.take() {
            Some(info) if info.get().len() > INFO_BYTES || !info.get().starts_with('{') => {
                Err(bad(format!(
                    "`info` must be a JSON object of at most {INFO_BYTES} bytes"
                )))
            }
            info => Ok(info.map(Info::from)),
        }
    }

    /// Every field that the command did not take is one it does not have.
    fn nothing_left(&self) -> Result<(), CommandError> {
        let left = [
            ("room", self.room.is_some()),
            ("user", self.user.is_some()),
            ("token", self.token.is_some()),
            ("since", self.since.is_some()),
            ("key", self.key.is_some()),
            ("data", self.data.is_some()),
            ("ephemeral", self.ephemeral.is_some()),
            ("others", self.others.is_some()),
            ("before", self.before.is_some()),
            ("after", self.after.is_some()),
            ("limit", self.limit.is_some()),
            ("info", self.info.is_some()),
        ];
        match left.iter().find(|(_, is_left)| *is_left) {
            Some((field, _)) => Err(bad(format!("this command has no field `{field}`"))),
            None => Ok(()),
        }
    }
}

/// What the server says, as serde sees it; messages are written by hand below.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Said<'a> {
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

/// The fields of an `ok`; what is `None` is left out.
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
    data: &'a RawValue,
}

impl<'a> Past<'a> {
    fn new(offset: u64, publication: &'a Publication) -> Self {
        let user = publication.user.as_ref().map(UserName::as_str);
        Past {
            offset,
            user,
            time: publication.time,
            data: &publication.data,
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

/// A reply as one frame.
pub fn reply(id: Option<RequestId>, reply: &Reply<'_>) -> Bytes {
    let id = id.map(|id| id.0);
    said(&match reply {
        Reply::Pong => Said::Pong { id },
        Reply::Error(error) => Said::Error {
            id,
            code: error.code.as_str(),
            reason: &error.reason,
        },
        reply => Said::Ok {
            id,
            answer: answer(reply),
        },
    })
}

/// The fields of a reply without `type` and `id`, as one JSON object: what the HTTP API answers.
pub fn bare(reply: &Reply<'_>) -> Bytes {
    // Cannot fail, as in `said`.
    serde_json::to_vec(&answer(reply))
        .unwrap_or_default()
        .into()
}

/// The fields of an `ok`. Neither a pong nor an error has any.
fn answer<'a>(reply: &Reply<'a>) -> Answer<'a> {
    match reply {
        Reply::Pong | Reply::Error(_) => Answer::default(),
        Reply::Authenticated(is) => Answer {
            user: Some(is.user.as_str()),
            room: Some(is.room.as_str()),
            epoch: is.position.map(|position| position.epoch),
            offset: is.position.map(|position| position.offset),
            expires: is.expires.map(|time| time.as_secs()),
            ..Answer::default()
        },
        Reply::Ordered { user, room } => Answer {
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
        Reply::Members { room, roll } => Answer {
            room: Some(room.as_str()),
            version: Some(roll.version),
            members: Some(roll.members.iter().map(Listed::new).collect()),
            count: Some(roll.count),
            anonymous: Some(roll.anonymous),
            more: Some(roll.more),
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

/// A push as one frame.
pub fn push(push: &Push<'_>) -> Bytes {
    said(&match push {
        Push::Welcome {
            session,
            node,
            user,
            heartbeat,
        } => Said::Welcome {
            session,
            node,
            user: user.map(UserName::as_str),
            heartbeat: heartbeat.as_secs().max(1),
        },
        Push::Gap { room, position } => Said::Gap {
            room: room.as_str(),
            epoch: position.epoch,
            offset: position.offset,
        },
        Push::Joined {
            room,
            user,
            info,
            version,
        } => Said::Joined {
            room: room.as_str(),
            user: user.as_str(),
            info: info.map(|info| &**info),
            version: *version,
        },
        Push::Left {
            room,
            user,
            version,
        } => Said::Left {
            room: room.as_str(),
            user: user.as_str(),
            version: *version,
        },
        Push::Members { room, version } => Said::Members {
            room: room.as_str(),
            version: *version,
        },
        Push::Removed { room, reason } => Said::Removed {
            room: room.as_str(),
            reason,
        },
        Push::Bye { reason, retry } => Said::Bye {
            reason,
            retry: retry.as_millis() as u64,
        },
    })
}

fn said(said: &Said<'_>) -> Bytes {
    let mut frames = BytesMut::with_capacity(192);
    frame::text(&mut frames, |out| {
        // Writing to memory what we composed ourselves cannot fail: no map has a key that is not text.
        let written = serde_json::to_writer(out.writer(), said);
        debug_assert!(written.is_ok());
    });
    frames.freeze()
}

/// Appends a message as one frame. Written by hand because every delivery in the house passes here; names
/// need no escapes, by their alphabets.
pub fn message(message: &Message<'_>, frames: &mut BytesMut) {
    let publication = message.publication;
    frames.reserve(publication.data.get().len() + 192);
    frame::text(frames, |out| {
        head(message.room, message.offset, out);
        if let Some(user) = &publication.user {
            out.put_slice(b",\"user\":\"");
            out.put_slice(user.as_str().as_bytes());
            out.put_slice(b"\"");
        }
        out.put_slice(b",\"time\":");
        number(publication.time, out);
        out.put_slice(b",\"data\":");
        out.put_slice(publication.data.get().as_bytes());
        out.put_slice(b"}");
    });
}

/// Appends what the sender sees of its own message when it wanted only the others to have it.
pub fn own_message(room: &RoomName, offset: Option<u64>, frames: &mut BytesMut) {
    frame::text(frames, |out| {
        head(room, offset, out);
        out.put_slice(b",\"own\":true}");
    });
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
