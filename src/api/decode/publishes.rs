//! Publishes: into one room, with a key, into many rooms, in a batch.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{ApiRequest, bad, body, object, one, room, session};
use crate::api::{COMMANDS_PER_CALL, Call, Form};
use crate::model::id::{RoomName, UserName};
use crate::model::publication::{KEY_BYTES, Publication, Publish, PublishKey, Publisher};
use crate::protocol::{Command, CommandError};

/// The fields of all bodies; each route accepts some of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    room: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    rooms: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow, default, deserialize_with = "present")]
    key: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    ephemeral: Option<bool>,
    #[serde(borrow, default, deserialize_with = "present")]
    user: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    others: Option<Cow<'a, str>>,
}

/// The body of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    publishes: Vec<&'a RawValue>,
}

/// A null counts as a value: `data` may be null, and no other field may.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(json: D) -> Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

/// `POST /rooms/{room}/messages`
pub(crate) fn publish(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    let mut fields: Fields = body(request)?;
    fields.take_no_rooms()?;
    let room = request.room()?;
    one(fields.template(request)?.in_room(room))
}

/// `PUT /rooms/{room}/messages/{key}`
pub(crate) fn publish_with_key(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    let mut fields: Fields = body(request)?;
    fields.take_no_rooms()?;
    if fields.key.is_some() {
        return Err(bad("the key stands in the path; leave `key` out"));
    }
    if fields.ephemeral.is_some() {
        return Err(bad("what has a key is kept; leave `ephemeral` out"));
    }
    fields.key = Some(Cow::Borrowed(request.path_value(1)));
    let room = request.room()?;
    one(fields.template(request)?.in_room(room))
}

/// `POST /messages`
pub(crate) fn publish_to_many(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    let mut fields: Fields = body(request)?;
    if fields.room.is_some() {
        return Err(bad("send `rooms`, a list, instead of `room`"));
    }
    let names = fields
        .rooms
        .take()
        .ok_or_else(|| bad("send `rooms`: the rooms to publish to"))?;
    bounded("rooms", names.len())?;
    let mut rooms = Vec::with_capacity(names.len());
    for name in &names {
        rooms.push(room(name)?);
    }
    let mut seen = rooms.clone();
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(bad("name each of `rooms` once"));
    }
    // All rooms share one publication.
    let template = fields.template(request)?;
    let commands = rooms.into_iter().map(|room| template.clone().in_room(room));
    Ok(Call {
        commands: commands.collect(),
        form: Form::Results,
    })
}

/// `POST /batch`
pub(crate) fn batch(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    let Batch { publishes } = body(request)?;
    bounded("publishes", publishes.len())?;
    let mut commands = Vec::with_capacity(publishes.len());
    for (index, fields) in publishes.into_iter().enumerate() {
        let fields = object::<Fields>(fields.get());
        let publish = fields.and_then(|mut fields| fields.publish_of_batch(request));
        let named = |error: CommandError| CommandError {
            reason: format!("publishes[{index}]: {}", error.reason).into(),
            ..error
        };
        commands.push(publish.map_err(named)?);
    }
    Ok(Call {
        commands,
        form: Form::Results,
    })
}

/// A publish without its room.
#[derive(Clone)]
struct Template {
    key: Option<PublishKey>,
    ephemeral: bool,
    publication: Arc<Publication>,
}

impl Template {
    fn in_room(self, room: RoomName) -> Command {
        Command::Publish(Box::new(Publish {
            room,
            key: self.key,
            condition: None,
            ephemeral: self.ephemeral,
            others: false,
            publication: self.publication,
        }))
    }
}

impl Fields<'_> {
    fn take_no_rooms(&self) -> Result<(), CommandError> {
        if self.room.is_some() || self.rooms.is_some() {
            let reason = "the room stands in the path; leave `room` and `rooms` out";
            return Err(bad(reason));
        }
        Ok(())
    }

    fn publish_of_batch(&mut self, request: &ApiRequest<'_>) -> Result<Command, CommandError> {
        if self.rooms.is_some() {
            return Err(bad("send `room` instead of `rooms`"));
        }
        let name = self.room.take().ok_or_else(|| bad("send a `room`"))?;
        let room = room(&name)?;
        Ok(self.template(request)?.in_room(room))
    }

    fn template(&mut self, request: &ApiRequest<'_>) -> Result<Template, CommandError> {
        let key = match self.key.take() {
            Some(key) if !is_key(&key) => {
                let reason = "a key must be 1 to 64 of A-Z a-z 0-9 _ . : @ $ ~ + = -";
                return Err(bad(reason));
            }
            key => key.map(|key| PublishKey {
                publisher: Publisher::Backend,
                key: Arc::from(&*key),
            }),
        };
        let ephemeral = self.ephemeral.unwrap_or(false);
        if ephemeral && key.is_some() {
            return Err(bad("an ephemeral publish is not kept and takes no key"));
        }
        let data = self.data.take();
        let publication = Publication {
            user: self
                .user
                .take()
                .map(|user| UserName::new(&user))
                .transpose()?,
            time: request.unix_ms,
            except: self
                .others
                .take()
                .map(|name| session("others", &name))
                .transpose()?,
            event: None,
            data: data
                .ok_or_else(|| bad("send `data`: any JSON value"))?
                .into(),
        };
        Ok(Template {
            key,
            ephemeral,
            publication: Arc::new(publication),
        })
    }
}

/// Every allowed character is valid in a path without escaping.
fn is_key(key: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@$~+=-".contains(&byte);
    (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(letter)
}

fn bounded(name: &str, count: usize) -> Result<(), CommandError> {
    if !(1..=COMMANDS_PER_CALL).contains(&count) {
        let reason = format!("`{name}` must have 1 to {COMMANDS_PER_CALL} entries");
        return Err(bad(reason));
    }
    Ok(())
}
