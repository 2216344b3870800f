//! Parses what a server of the native protocol sends, for the client and for the subscriptions of
//! an embedding program. Unknown types and fields are ignored, because a later server may send
//! them.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::model::id::{Epoch, Position, UserName};
use crate::model::member::{Member, MemberPage};
use crate::model::publication::Payload;
use crate::model::room_event::{Delivery, RoomEvent};
use crate::protocol::{Code, CommandError};

/// A frame from a server.
#[derive(Debug)]
pub(crate) struct ServerFrame {
    /// The number of the command that it answers, if any.
    pub(crate) id: Option<u64>,
    /// The room that it concerns, if any.
    pub(crate) room: Option<String>,
    pub(crate) content: Content,
}

/// The content of a frame.
#[derive(Debug)]
pub(crate) enum Content {
    /// The first frame of a connection.
    Welcome {
        node: String,
        /// How often the server sends a ping.
        heartbeat: Duration,
    },
    Ok(Success),
    Error(CommandError),
    Event(RoomEvent),
    /// The client's own message, which it excluded itself from.
    Own {
        offset: Option<u64>,
    },
    /// The server has removed the connection from the room.
    Removed {
        reason: String,
    },
    /// The server is about to close the connection, which may return after `retry`.
    Bye {
        reason: String,
        retry: Duration,
    },
    /// A frame that needs no action, or of a type that this client does not have.
    Other,
}

/// The fields of a successful reply; which it has depends on the command.
#[derive(Debug)]
pub(crate) struct Success {
    pub(crate) position: Option<Position>,
    /// `false`: messages behind the position that a join named are lost.
    pub(crate) recovered: Option<bool>,
    pub(crate) page: Option<HistoryMessages>,
    pub(crate) members: Option<MemberPage>,
}

/// The messages of a reply to `history`.
#[derive(Debug)]
pub struct HistoryMessages {
    /// `None`: the room has no log.
    pub epoch: Option<Epoch>,
    /// In the order of offsets, without holes.
    pub messages: Vec<Delivery>,
    /// Whether the room has older messages than these.
    pub more: bool,
}

/// The fields of all replies and pushes; each has some of them.
#[derive(Deserialize)]
struct FrameFields<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<u64>,
    room: Option<String>,
    epoch: Option<Epoch>,
    recovered: Option<bool>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    reason: Option<String>,
    version: Option<u64>,
    info: Option<Box<RawValue>>,
    own: Option<bool>,
    node: Option<String>,
    /// Seconds.
    heartbeat: Option<u64>,
    /// Milliseconds.
    retry: Option<u64>,
    messages: Option<Vec<MessageFields>>,
    members: Option<Vec<MemberEntry>>,
    count: Option<u64>,
    anonymous: Option<u64>,
    more: Option<bool>,
    offset: Option<u64>,
    user: Option<String>,
    time: Option<u64>,
    event: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    binary: Option<String>,
}

/// The fields of a message in a page.
#[derive(Deserialize)]
struct MessageFields {
    offset: Option<u64>,
    user: Option<String>,
    time: Option<u64>,
    event: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    binary: Option<String>,
}

#[derive(Deserialize)]
struct MemberEntry {
    user: String,
    connections: u32,
    info: Option<Box<RawValue>>,
}

/// A null counts as a value.
fn present<'de, D: Deserializer<'de>>(json: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(json).map(Some)
}

/// Parses the text of one frame. `None` if it is not what a server of this protocol sends.
pub(crate) fn receive(text: &[u8]) -> Option<ServerFrame> {
    let mut fields = serde_json::from_slice::<FrameFields<'_>>(text).ok()?;
    Some(ServerFrame {
        id: fields.id,
        room: fields.room.take(),
        content: fields.content()?,
    })
}

impl FrameFields<'_> {
    fn content(self) -> Option<Content> {
        Some(match &*self.kind {
            "message" if self.own == Some(true) => Content::Own {
                offset: self.offset,
            },
            "message" => Content::Event(RoomEvent::Message(self.message().delivery()?)),
            "ok" => Content::Ok(self.success()?),
            "error" => Content::Error(self.error()),
            "gap" => Content::Event(RoomEvent::Gap(self.position()?)),
            "joined" => Content::Event(RoomEvent::Joined {
                user: self.user()?,
                version: self.version?,
                info: self.info.map(Into::into),
            }),
            "left" => Content::Event(RoomEvent::Left {
                user: self.user()?,
                version: self.version?,
            }),
            "members" => Content::Event(RoomEvent::MembersChanged {
                version: self.version?,
            }),
            "removed" => Content::Removed {
                reason: self.reason.unwrap_or_default(),
            },
            "bye" => Content::Bye {
                reason: self.reason.unwrap_or_default(),
                retry: Duration::from_millis(self.retry.unwrap_or(0)),
            },
            "welcome" => Content::Welcome {
                node: self.node?,
                heartbeat: Duration::from_secs(self.heartbeat?),
            },
            _ => Content::Other,
        })
    }

    fn success(self) -> Option<Success> {
        let position = self.position();
        let more = self.more.unwrap_or(false);
        let page = match self.messages {
            None => None,
            Some(messages) => {
                let messages = messages.into_iter().map(MessageFields::delivery);
                Some(HistoryMessages {
                    epoch: self.epoch,
                    messages: messages.collect::<Option<_>>()?,
                    more,
                })
            }
        };
        let members = match self.members {
            None => None,
            Some(members) => {
                let members = members.into_iter().map(MemberEntry::member);
                Some(MemberPage {
                    version: self.version?,
                    members: members.collect::<Option<_>>()?,
                    count: self.count?,
                    anonymous: self.anonymous?,
                    more,
                })
            }
        };
        Some(Success {
            position,
            recovered: self.recovered,
            page,
            members,
        })
    }

    fn position(&self) -> Option<Position> {
        Some(Position {
            epoch: self.epoch?,
            offset: self.offset?,
        })
    }

    fn user(&self) -> Option<UserName> {
        user_name(self.user.as_deref())
    }

    fn message(self) -> MessageFields {
        MessageFields {
            offset: self.offset,
            user: self.user,
            time: self.time,
            event: self.event,
            data: self.data,
            binary: self.binary,
        }
    }

    /// A code of a later server counts as one that is useless to repeat.
    fn error(self) -> CommandError {
        let mut codes = Code::ALL.into_iter();
        let code = codes.find(|code| Some(code.as_str()) == self.code.as_deref());
        let reason = self.reason.unwrap_or_default();
        CommandError::new(code.unwrap_or(Code::BadRequest), reason)
    }
}

fn user_name(user: Option<&str>) -> Option<UserName> {
    UserName::new(user?).ok()
}

impl MessageFields {
    fn delivery(self) -> Option<Delivery> {
        Some(Delivery {
            offset: self.offset,
            user: user_name(self.user.as_deref()),
            time: self.time?,
            event: self.event.as_deref().map(Into::into),
            data: match (self.data, self.binary) {
                (Some(json), None) => json.into(),
                (None, Some(base64)) => {
                    Payload::Binary(BASE64_STANDARD.decode(base64).ok()?.into())
                }
                _ => return None,
            },
        })
    }
}

impl MemberEntry {
    fn member(self) -> Option<Member> {
        Some(Member {
            user: UserName::new(&self.user).ok()?,
            connections: self.connections,
            info: self.info.map(Into::into),
        })
    }
}
