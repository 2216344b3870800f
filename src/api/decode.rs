//! Requests read: from path, query and JSON to a [`Call`]. Unknown and doubled fields and parameters are errors, so that a
//! misspelt option never passes for a missing one.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::routes::Route;
use super::{COMMANDS_PER_CALL, Call, Command, Form, Publish};
use crate::control::{Deed, Order};
use crate::id::{RoomName, UserName};
use crate::protocol::{Code, CommandError, HISTORY_DEFAULT, HISTORY_LIMIT, depth};
use crate::publication::{KEY_BYTES, MAX_OFFSET, Publication, Sender};

/// What is told of an error of JSON at most, in characters.
const REASON_CHARS: usize = 200;

/// A request to a route, with its body.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What the path holds for the segments in braces.
    pub held: Vec<&'a str>,
    pub query: Option<&'a str>,
    pub body: &'a [u8],
    /// How deeply arrays and objects of the body may be nested.
    pub depth: usize,
    /// When it came: milliseconds since 1970.
    pub unix_ms: u64,
}

impl Route {
    /// Understands a request to this route.
    ///
    /// # Errors
    /// [`Code::BadRequest`] with a sentence on what is wrong, [`Code::Forbidden`] for rooms of the server's own.
    pub fn read(&self, asked: &Asked<'_>) -> Result<Call, CommandError> {
        (self.read)(asked)
    }
}

/// The fields that bodies have; each route takes some.
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

/// A null is a value like any other: data may be null, and nothing else may.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(json: D) -> Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

/// `POST /rooms/{room}/messages`
pub(super) fn publish(asked: &Asked<'_>) -> Result<Call, CommandError> {
    let mut fields: Fields = body(asked)?;
    fields.take_no_rooms()?;
    let room = asked.room()?;
    one(Command::Publish(fields.said(asked)?.in_room(room)))
}

/// `PUT /rooms/{room}/messages/{key}`
pub(super) fn publish_with_key(asked: &Asked<'_>) -> Result<Call, CommandError> {
    let mut fields: Fields = body(asked)?;
    fields.take_no_rooms()?;
    if fields.key.is_some() {
        return Err(bad("the key stands in the path; leave `key` out"));
    }
    if fields.ephemeral.is_some() {
        return Err(bad("what has a key is kept; leave `ephemeral` out"));
    }
    fields.key = asked.held.get(1).map(|key| Cow::Borrowed(*key));
    let room = asked.room()?;
    one(Command::Publish(fields.said(asked)?.in_room(room)))
}

/// `POST /messages`
pub(super) fn publish_to_many(asked: &Asked<'_>) -> Result<Call, CommandError> {
    let mut fields: Fields = body(asked)?;
    if fields.room.is_some() {
        return Err(bad("send `rooms`, a list, instead of `room`"));
    }
    let names = fields
        .rooms
        .take()
        .ok_or_else(|| bad("send `rooms`: the rooms to say it in"))?;
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
    // All rooms share what is said.
    let said = fields.said(asked)?;
    let commands = rooms
        .into_iter()
        .map(|room| Command::Publish(said.clone().in_room(room)));
    Ok(Call {
        commands: commands.collect(),
        form: Form::Results,
    })
}

/// `POST /batch`
pub(super) fn batch(asked: &Asked<'_>) -> Result<Call, CommandError> {
    let Batch { publishes } = body(asked)?;
    bounded("publishes", publishes.len())?;
    let mut commands = Vec::with_capacity(publishes.len());
    for (index, fields) in publishes.into_iter().enumerate() {
        let fields = object::<Fields>(fields.get());
        let publish = fields.and_then(|mut fields| fields.publish_of_batch(asked));
        let named = |error: CommandError| CommandError {
            reason: format!("publishes[{index}]: {}", error.reason).into(),
            ..error
        };
        commands.push(Command::Publish(publish.map_err(named)?));
    }
    Ok(Call {
        commands,
        form: Form::Results,
    })
}

/// `GET /rooms/{room}/messages`
pub(super) fn history(asked: &Asked<'_>) -> Result<Call, CommandError> {
    let room = asked.room()?;
    let (mut before, mut limit) = (None, None);
    for (name, value) in url::form_urlencoded::parse(asked.query.unwrap_or_default().as_bytes()) {
        let taken = match &*name {
            "before" => before.replace(offset(&value)?).is_some(),
            "limit" => limit.replace(whole("limit", &value)?).is_some(),
            _ => return Err(bad("the parameters are `before` and `limit`")),
        };
        if taken {
            return Err(bad("send each parameter once"));
        }
    }
    let limit = usize::try_from(limit.unwrap_or(HISTORY_DEFAULT as u64)).unwrap_or(usize::MAX);
    if !(1..=HISTORY_LIMIT).contains(&limit) {
        return Err(bad("`limit` must lie between 1 and 100"));
    }
    one(Command::History {
        room,
        before,
        limit,
    })
}

/// `DELETE /users/{user}/connections`
pub(super) fn disconnect(asked: &Asked<'_>) -> Result<Call, CommandError> {
    let mut forbid = None;
    for (name, value) in url::form_urlencoded::parse(asked.query.unwrap_or_default().as_bytes()) {
        let taken = match (&*name, &*value) {
            ("forbid_return", "true") => forbid.replace(true).is_some(),
            ("forbid_return", "false") => forbid.replace(false).is_some(),
            _ => return Err(bad("the one parameter is `forbid_return`, true or false")),
        };
        if taken {
            return Err(bad("send each parameter once"));
        }
    }
    asked.order(match forbid {
        Some(true) => Deed::Revoke,
        _ => Deed::Disconnect,
    })
}

/// `PUT /users/{user}/rooms/{room}`
pub(super) fn join(asked: &Asked<'_>) -> Result<Call, CommandError> {
    if !asked.body.is_empty() {
        let Nothing {} = body(asked)?;
    }
    asked.order(Deed::Join(asked.chosen_room()?))
}

/// `DELETE /users/{user}/rooms/{room}`
pub(super) fn leave(asked: &Asked<'_>) -> Result<Call, CommandError> {
    asked.order(Deed::Leave(asked.chosen_room()?))
}

/// The body of what has none: nothing, or an empty object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// What is said, wherever it is said.
#[derive(Clone)]
struct Said {
    key: Option<Arc<str>>,
    ephemeral: bool,
    publication: Arc<Publication>,
}

impl Said {
    fn in_room(self, room: RoomName) -> Publish {
        Publish {
            room,
            key: self.key,
            ephemeral: self.ephemeral,
            publication: self.publication,
        }
    }
}

impl Fields<'_> {
    fn take_no_rooms(&self) -> Result<(), CommandError> {
        match self.room.is_some() || self.rooms.is_some() {
            true => Err(bad(
                "the room stands in the path; leave `room` and `rooms` out",
            )),
            false => Ok(()),
        }
    }

    fn publish_of_batch(&mut self, asked: &Asked<'_>) -> Result<Publish, CommandError> {
        if self.rooms.is_some() {
            return Err(bad("send `room` instead of `rooms`"));
        }
        let name = self.room.take().ok_or_else(|| bad("send a `room`"))?;
        let room = room(&name)?;
        Ok(self.said(asked)?.in_room(room))
    }

    fn said(&mut self, asked: &Asked<'_>) -> Result<Said, CommandError> {
        let key = match self.key.take() {
            Some(key) if !is_key(&key) => {
                let reason = "a key must be 1 to 64 of A-Z a-z 0-9 _ . : @ $ ~ + = -";
                return Err(bad(reason));
            }
            key => key.map(|key| Arc::from(&*key)),
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
            time: asked.unix_ms,
            except: self.others.take().map(|name| session(&name)).transpose()?,
            data: data.ok_or_else(|| bad("send `data`: any JSON value"))?,
        };
        Ok(Said {
            key,
            ephemeral,
            publication: Arc::new(publication),
        })
    }
}

impl Asked<'_> {
    /// The room in the path, which is its first part in braces.
    fn room(&self) -> Result<RoomName, CommandError> {
        room(self.held.first().copied().unwrap_or_default())
    }

    /// What is to be done with the user in the path, which is its first part in braces.
    fn order(&self, deed: Deed) -> Result<Call, CommandError> {
        let user = UserName::new(self.held.first().copied().unwrap_or_default())?;
        one(Command::Order(Order { user, deed }))
    }

    /// The room in the path, which is its second part in braces: one that a user can be brought into or taken out of.
    fn chosen_room(&self) -> Result<RoomName, CommandError> {
        if self.query.is_some() {
            return Err(no_query());
        }
        let room = room(self.held.get(1).copied().unwrap_or_default())?;
        if room.owner().is_some() {
            let reason = "a user is in its own personal room always, and in no other's";
            return Err(CommandError::new(Code::Forbidden, reason));
        }
        Ok(room)
    }
}

fn body<'a, T: Deserialize<'a>>(asked: &Asked<'a>) -> Result<T, CommandError> {
    if asked.query.is_some() {
        return Err(no_query());
    }
    let text = std::str::from_utf8(asked.body).map_err(|_| bad("send the body as UTF-8"))?;
    if depth::is_deeper(text, asked.depth) {
        let reason = format!("nest arrays and objects at most {} deep", asked.depth);
        return Err(bad(reason));
    }
    object(text)
}

fn no_query() -> CommandError {
    bad("this takes no parameters behind a question mark")
}

/// Reads an object. A list would also do for serde, which would take its entries for the fields in order.
fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, CommandError> {
    let what = "send one JSON object with the fields of this call";
    if !json.trim_ascii_start().starts_with('{') {
        return Err(bad(what));
    }
    serde_json::from_str(json).map_err(|error| {
        // It may repeat a name or a text of any length.
        let why: String = error.to_string().chars().take(REASON_CHARS).collect();
        bad(format!("{what}: {why}"))
    })
}

fn one(command: Command) -> Result<Call, CommandError> {
    Ok(Call {
        commands: vec![command],
        form: Form::One,
    })
}

/// A room that backends may use: all but the server's own. Personal rooms are open to them.
fn room(name: &str) -> Result<RoomName, CommandError> {
    let room = RoomName::new(name)?;
    if name.starts_with('$') {
        let reason = "rooms that begin with $ belong to the server";
        return Err(CommandError::new(Code::Forbidden, reason));
    }
    Ok(room)
}

fn session(name: &str) -> Result<Sender, CommandError> {
    let reason = "`others` must name a session as its welcome does, like 713ea423d53a9559-1";
    Sender::parse(name).ok_or_else(|| bad(reason))
}

/// Every character may stand in a path as it is.
fn is_key(key: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@$~+=-".contains(&byte);
    (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(letter)
}

fn offset(digits: &str) -> Result<u64, CommandError> {
    match whole("before", digits)? {
        offset @ ..=MAX_OFFSET => Ok(offset),
        _ => Err(bad("`before` must be at most 2^53")),
    }
}

fn whole(name: &str, digits: &str) -> Result<u64, CommandError> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| plain);
    number.ok_or_else(|| bad(format!("`{name}` must be a whole number")))
}

fn bounded(name: &str, count: usize) -> Result<(), CommandError> {
    match (1..=COMMANDS_PER_CALL).contains(&count) {
        true => Ok(()),
        false => Err(bad(format!(
            "`{name}` must have 1 to {COMMANDS_PER_CALL} entries"
        ))),
    }
}

fn bad(reason: impl Into<Cow<'static, str>>) -> CommandError {
    CommandError::new(Code::BadRequest, reason)
}
