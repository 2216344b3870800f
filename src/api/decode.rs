//! Decodes requests: from path, query and JSON to a [`Call`]. Unknown and duplicate fields and
//! parameters are errors, so that a misspelt option is never mistaken for a missing one.

pub(super) mod publishes;
pub(super) mod reads;
pub(super) mod users;

use std::borrow::Cow;

use serde::Deserialize;

use super::{Call, Form};
use crate::model::id::{RoomName, UserName};
use crate::model::json_text;
use crate::model::publication::Sender;
use crate::protocol::{Code, Command, CommandError, depth, json};

/// The longest description of a JSON error, in characters.
const REASON_CHARS: usize = 200;

/// A request to a route, with its body.
#[derive(Debug)]
pub struct ApiRequest<'a> {
    /// The values of the path parameters (the segments in braces).
    pub path_values: Vec<&'a str>,
    pub query: Option<&'a str>,
    pub body: &'a [u8],
    /// How deeply arrays and objects of the body may be nested.
    pub depth: usize,
    /// When the request arrived: milliseconds since 1970.
    pub unix_ms: u64,
}

impl ApiRequest<'_> {
    /// The room in the path, which is its first parameter.
    fn room(&self) -> Result<RoomName, CommandError> {
        room(self.path_values.first().copied().unwrap_or_default())
    }

    /// The user in the path, which is its first parameter.
    fn user(&self) -> Result<UserName, CommandError> {
        Ok(UserName::new(
            self.path_values.first().copied().unwrap_or_default(),
        )?)
    }
}

/// The values of these query parameters, in this order. `what` is the error that lists them.
fn parameters<'a, const COUNT: usize>(
    request: &ApiRequest<'a>,
    names: [&str; COUNT],
    what: &'static str,
) -> Result<[Option<Cow<'a, str>>; COUNT], CommandError> {
    let mut values = [const { None }; COUNT];
    for (name, value) in url::form_urlencoded::parse(request.query.unwrap_or_default().as_bytes()) {
        let index = names.iter().position(|known| *known == name);
        let index = index.ok_or_else(|| bad(what))?;
        if values[index].replace(value).is_some() {
            return Err(bad("send each parameter once"));
        }
    }
    Ok(values)
}

fn no_query() -> CommandError {
    bad("this takes no parameters behind a question mark")
}

fn body<'a, T: Deserialize<'a>>(request: &ApiRequest<'a>) -> Result<T, CommandError> {
    if request.query.is_some() {
        return Err(no_query());
    }
    let text = std::str::from_utf8(request.body).map_err(|_| bad("send the body as UTF-8"))?;
    if depth::is_deeper(text, request.depth) {
        let reason = format!("nest arrays and objects at most {} deep", request.depth);
        return Err(bad(reason));
    }
    json_text::check(text).map_err(|error| bad(error.to_string()))?;
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
        // The error may quote a name or a text of any length.
        let why: String = json::describe(&error).chars().take(REASON_CHARS).collect();
        bad(format!("{what}: {why}"))
    })
}

fn one(command: Command) -> Result<Call, CommandError> {
    Ok(Call {
        commands: vec![command],
        form: Form::One,
    })
}

/// A room that backends may use: every room except the server's own; personal rooms are allowed.
fn room(name: &str) -> Result<RoomName, CommandError> {
    let room = RoomName::new(name)?;
    if room.is_the_servers() {
        let reason = "rooms that begin with $ belong to the server";
        return Err(CommandError::new(Code::Forbidden, reason));
    }
    Ok(room)
}

/// The session named by the parameter or field `what`.
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
