//! Requests read: from path, query and JSON to a [`Call`]. Unknown and doubled fields and
//! parameters are errors, so that a misspelt option never passes for a missing one.

pub mod publishes;
pub mod reads;
pub mod users;

use std::borrow::Cow;

use serde::Deserialize;

use super::routes::Route;
use super::{Call, Command, Form};
use crate::model::id::{RoomName, UserName};
use crate::model::publication::Sender;
use crate::protocol::{Code, CommandError, depth};

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
    /// [`Code::BadRequest`] with a sentence on what is wrong, [`Code::Forbidden`] for rooms of the
    /// server's own.
    pub fn read(&self, asked: &Asked<'_>) -> Result<Call, CommandError> {
        (self.read)(asked)
    }
}

impl Asked<'_> {
    /// The room in the path, which is its first part in braces.
    fn room(&self) -> Result<RoomName, CommandError> {
        room(self.held.first().copied().unwrap_or_default())
    }

    /// The user in the path, which is its first part in braces.
    fn user(&self) -> Result<UserName, CommandError> {
        Ok(UserName::new(
            self.held.first().copied().unwrap_or_default(),
        )?)
    }
}

/// The values of these parameters, in this order. `what` tells which there are.
fn parameters<'a, const COUNT: usize>(
    asked: &Asked<'a>,
    names: [&str; COUNT],
    what: &'static str,
) -> Result<[Option<Cow<'a, str>>; COUNT], CommandError> {
    let mut values = [const { None }; COUNT];
    for (name, value) in url::form_urlencoded::parse(asked.query.unwrap_or_default().as_bytes()) {
        let place = names.iter().position(|known| *known == name);
        let place = place.ok_or_else(|| bad(what))?;
        if values[place].replace(value).is_some() {
            return Err(bad("send each parameter once"));
        }
    }
    Ok(values)
}

fn no_query() -> CommandError {
    bad("this takes no parameters behind a question mark")
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

/// Reads an object. A list would also do for serde, which would take its entries for the fields in
/// order.
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
    if room.is_the_servers() {
        let reason = "rooms that begin with $ belong to the server";
        return Err(CommandError::new(Code::Forbidden, reason));
    }
    Ok(room)
}

/// A session, given for `what`.
fn session(what: &str, name: &str) -> Result<Sender, CommandError> {
    Sender::parse(name).ok_or_else(|| {
        bad(format!(
            "`{what}` must name a session as its welcome does, like 713ea423d53a9559-1"
        ))
    })
}

fn bad(reason: impl Into<Cow<'static, str>>) -> CommandError {
    CommandError::new(Code::BadRequest, reason)
}
