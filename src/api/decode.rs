//! Decodes requests: from path, query and JSON to a [`Call`]. Unknown and duplicate fields and
//! parameters are errors, so that a misspelt option is never mistaken for a missing one.

pub(super) mod publishes;
pub(super) mod reads;
pub(super) mod users;

use std::borrow::Cow;

use serde::Deserialize;
use url::form_urlencoded;

use super::{Call, Form};
use crate::model::id::{RoomName, UserName};
use crate::model::json_text;
use crate::model::publication::Sender;
use crate::protocol::{Code, Command, CommandError, depth, json};

/// The longest description of a JSON error, in characters.
const REASON_CHARS: usize = 200;

/// What stands in a path in place of a room or user that the query names.
const IN_QUERY: &str = "-";

/// A request to a route, with its body.
#[derive(Debug)]
pub struct ApiRequest<'a> {
    /// The values of the path parameters (the segments in braces).
    pub path_values: Vec<Cow<'a, str>>,
    pub query: Option<Cow<'a, str>>,
    pub body: &'a [u8],
    /// How deeply arrays and objects of the body may be nested.
    pub depth: usize,
    /// When the request arrived: milliseconds since 1970.
    pub unix_ms: u64,
}

impl ApiRequest<'_> {
    /// A room or user that a proxy would not pass on in the path (`.`, or with a slash) is named by
    /// the query instead: `/rooms/-/messages?room=team/1`. `parameters` are those of the path.
    pub(super) fn with_names_of_query<'b>(
        &'b self,
        parameters: impl Iterator<Item = &'b str>,
    ) -> Result<ApiRequest<'b>, CommandError> {
        let mut request = ApiRequest {
            path_values: self
                .path_values
                .iter()
                .map(|value| Cow::Borrowed(&**value))
                .collect(),
            query: self.query.as_deref().map(Cow::Borrowed),
            ..*self
        };
        for (parameter, value) in parameters.zip(&mut request.path_values) {
            let query = request.query.as_deref().unwrap_or_default();
            let mut pairs: Vec<&str> = query.split('&').collect();
            let named = |pair: &&str| pair.split('=').next() == Some(parameter);
            let named = pairs.iter().position(named);
            let Some(index) = named.filter(|_| parameter != "key") else {
                continue;
            };
            let pair = pairs.remove(index);
            if value != IN_QUERY {
                return Err(bad(format!(
                    "the {parameter} stands in the path already; `{IN_QUERY}` there lets \
                     `?{parameter}=` name it"
                )));
            }
            let decoded = form_urlencoded::parse(pair.as_bytes()).next();
            *value = decoded.map_or(Cow::Borrowed(""), |(_, name)| name.into_owned().into());
            let rest = Some(pairs.join("&")).filter(|_| !pairs.is_empty());
            request.query = rest.map(Cow::Owned);
        }
        Ok(request)
    }

    /// The path parameter with this index.
    fn path_value(&self, index: usize) -> &str {
        self.path_values.get(index).map_or("", |value| value)
    }

    /// The room in the path, which is its first parameter.
    fn room(&self) -> Result<RoomName, CommandError> {
        room(self.path_value(0))
    }

    /// The user in the path, which is its first parameter.
    fn user(&self) -> Result<UserName, CommandError> {
        Ok(UserName::new(self.path_value(0))?)
    }
}

/// The values of these query parameters, in this order. `what` is the error that lists them.
fn parameters<'a, const COUNT: usize>(
    request: &'a ApiRequest<'_>,
    names: [&str; COUNT],
    what: &'static str,
) -> Result<[Option<Cow<'a, str>>; COUNT], CommandError> {
    let mut values = [const { None }; COUNT];
    let query = request.query.as_deref().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
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

fn body<'a, T: Deserialize<'a>>(request: &'a ApiRequest<'_>) -> Result<T, CommandError> {
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
        return Err(servers());
    }
    Ok(room)
}

/// The refusal of a room of the server.
fn servers() -> CommandError {
    let reason = "rooms that begin with $ belong to the server";
    CommandError::new(Code::Forbidden, reason)
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
