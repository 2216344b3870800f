//! Decodes commands: one object of known fields is one command, or an error with a sentence on what
//! to send instead.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::id::{Position, RoomName, UserName};
use crate::model::identity::Credentials;
use crate::model::json_text;
use crate::model::member::{INFO_BYTES, Info, MembersQuery};
use crate::model::publication::{
    HistoryQuery, KEY_BYTES, Publication, Publish, PublishKey, Publisher,
};
use crate::model::secret::Secret;
use crate::protocol::decoder::{Decoded, DecodedRequest, Decoder, FramePayload};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::request_id::ID_BYTES;
use crate::protocol::{
    ClientRequest, Code, Command, CommandError, HISTORY_DEFAULT, HISTORY_LIMIT, Protocol,
    RequestId, depth, json,
};

/// The largest and the default `limit` of a `members` command.
const MEMBERS_LIMIT: usize = 1000;
const MEMBERS_DEFAULT: usize = 100;

/// A frame from a client: every field that any command has. Unknown and duplicate fields are
/// errors, so that a misspelt option is never mistaken for a missing one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
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

/// Distinguishes `"data":null` from missing data: null counts as a value.
fn present<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(json).map(Some)
}

/// Decodes commands of the native protocol: one to a text frame. It has no state.
pub(crate) struct NativeDecoder;

impl Decoder for NativeDecoder {
    const PROTOCOL: Protocol = Protocol::Native;

    fn decode(
        &mut self,
        payload: FramePayload<'_>,
        depth: usize,
        decoded: &mut Decoded,
    ) -> Result<(), Disconnect> {
        let FramePayload::Text(text) = payload else {
            return Err(Disconnect::Binary);
        };
        let refused = if depth::is_deeper(text, depth) {
            Some(bad(format!(
                "nest arrays and objects at most {depth} deep, the command included"
            )))
        } else {
            json_text::check(text)
                .err()
                .map(|error| bad(error.to_string()))
        };
        decoded.requests.push(match refused {
            Some(error) => refusal(text, error),
            None => decode(text),
        });
        Ok(())
    }
}

/// Decodes one frame's text.
pub fn decode(text: &str) -> DecodedRequest {
    let mut fields: Fields = match object(text) {
        Ok(fields) => fields,
        Err(error) => return refusal(text, error),
    };
    let id = fields.id.and_then(RequestId::new);
    let request = if id.is_none() && fields.id.is_some() {
        Err(bad(format!(
            "`id` must be a number of at most {ID_BYTES} characters, in the range of a double"
        )))
    } else {
        fields
            .request()
            .and_then(|request| fields.nothing_left().map(|()| request))
    };
    DecodedRequest { id, request }
}

/// The error for a frame from which no command is read.
fn refusal(text: &str, error: CommandError) -> DecodedRequest {
    DecodedRequest {
        id: id_of(text),
        request: Err(error),
    }
}

/// The `id` of a frame that is otherwise invalid, so that the client can match its error.
fn id_of(text: &str) -> Option<RequestId> {
    #[derive(Deserialize)]
    struct OnlyId<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    let fields: OnlyId<'_> = object(text).ok()?;
    RequestId::new(fields.id?)
}

fn bad(reason: impl Into<Cow<'static, str>>) -> CommandError {
    CommandError::new(Code::BadRequest, reason)
}

/// Reads an object. A list would also do for serde, which would take its entries for the fields in
/// order.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, CommandError> {
    let what = "send one JSON object with a known `type` and its fields";
    if !text.trim_ascii_start().starts_with('{') {
        return Err(bad(what));
    }
    serde_json::from_str(text).map_err(|error| bad(format!("{what}: {}", json::describe(&error))))
}

impl Fields<'_> {
    fn request(&mut self) -> Result<ClientRequest, CommandError> {
        match &*self.kind {
            "auth" => Ok(ClientRequest::Auth(self.credentials()?)),
            _ => Ok(ClientRequest::Command(self.command()?)),
        }
    }

    fn command(&mut self) -> Result<Command, CommandError> {
        match &*self.kind {
            "join" => Ok(Command::Join {
                room: self.room()?,
                since: self.since.take(),
                identity: None,
            }),
            "leave" => Ok(Command::Leave { room: self.room()? }),
            "publish" => Ok(Command::Publish(Box::new(self.publish()?))),
            "history" => Ok(Command::History(HistoryQuery {
                room: self.room()?,
                before: self.before.take(),
                limit: self.limit(HISTORY_DEFAULT, HISTORY_LIMIT)?,
            })),
            "members" => Ok(Command::Members(MembersQuery {
                room: self.room()?,
                after: self.after()?,
                limit: self.limit(MEMBERS_DEFAULT, MEMBERS_LIMIT)?,
            })),
            "ping" => Ok(Command::Ping),
            _ => Err(bad(
                "`type` must be auth, join, leave, publish, history, members or ping",
            )),
        }
    }

    fn publish(&mut self) -> Result<Publish, CommandError> {
        let room = self.room()?;
        let key = self.key()?.map(|key| PublishKey {
            publisher: Publisher::Anonymous,
            key,
        });
        let data = self.data.take();
        let data = data.ok_or_else(|| bad("a publish needs `data`: any JSON value"))?;
        // The dispatcher stamps the sender and the time.
        let publication = Publication {
            user: None,
            time: 0,
            except: None,
            event: None,
            data: data.into(),
        };
        let publish = Publish {
            room,
            key,
            condition: None,
            ephemeral: self.ephemeral.take().unwrap_or(false),
            others: self.others.take().unwrap_or(false),
            publication: Arc::new(publication),
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

    fn key(&mut self) -> Result<Option<Arc<str>>, CommandError> {
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

    /// Fails if a field is left that the command does not have.
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
