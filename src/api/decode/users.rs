//! What is done with a user's connections.

use serde::Deserialize;

use super::{Asked, bad, body, no_query, one, parameters, room};
use crate::api::{Call, Command};
use crate::control::{Cutoff, Deed, Order};
use crate::id::RoomName;
use crate::protocol::{Code, CommandError};

/// `DELETE /users/{user}/connections`
pub fn disconnect(asked: &Asked<'_>) -> Result<Call, CommandError> {
    let what = "the one parameter is `forbid_return`, true or false";
    let [forbid] = parameters(asked, ["forbid_return"], what)?;
    let deed = match forbid.as_deref() {
        Some("true") => Deed::Revoke(Cutoff::at(asked.unix_ms)),
        Some("false") | None => Deed::Disconnect,
        Some(_) => return Err(bad(what)),
    };
    order(asked, deed)
}

/// `PUT /users/{user}/rooms/{room}`
pub fn join(asked: &Asked<'_>) -> Result<Call, CommandError> {
    if !asked.body.is_empty() {
        let Nothing {} = body(asked)?;
    }
    order(asked, Deed::Join(chosen_room(asked)?))
}

/// `DELETE /users/{user}/rooms/{room}`
pub fn leave(asked: &Asked<'_>) -> Result<Call, CommandError> {
    order(asked, Deed::Leave(chosen_room(asked)?))
}

/// The body of what has none: nothing, or an empty object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn order(asked: &Asked<'_>, deed: Deed) -> Result<Call, CommandError> {
    let user = asked.user()?;
    one(Command::Order(Order { user, deed }))
}

/// The room in the path, which is its second part in braces: one that a user can be brought into or taken out of.
fn chosen_room(asked: &Asked<'_>) -> Result<RoomName, CommandError> {
    if asked.query.is_some() {
        return Err(no_query());
    }
    let room = room(asked.held.get(1).copied().unwrap_or_default())?;
    if room.owner().is_some() {
        let reason = "a user is in its own personal room always, and in no other's";
        return Err(CommandError::new(Code::Forbidden, reason));
    }
    Ok(room)
}
