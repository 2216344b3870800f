//! Control commands for a user's connections.

use serde::Deserialize;

use super::{ApiRequest, bad, body, no_query, one, parameters, room};
use crate::api::Call;
use crate::model::control::{ControlAction, ControlCommand, Cutoff};
use crate::model::id::RoomName;
use crate::model::identity::{LEEWAY, milliseconds};
use crate::protocol::{Code, Command, CommandError};

/// `DELETE /users/{user}/connections`
pub(crate) fn disconnect(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    let what = "the parameters are `forbid_return`, true or false, and with true `issued_before`";
    let [forbid, before] = parameters(request, ["forbid_return", "issued_before"], what)?;
    let forbids = match forbid.as_deref() {
        Some("true") => true,
        Some("false") | None => false,
        Some(_) => return Err(bad(what)),
    };
    let action = match before {
        Some(_) if !forbids => {
            return Err(bad("`issued_before` goes with `forbid_return=true` only"));
        }
        Some(time) => ControlAction::Revoke(Cutoff::issued_before(issued_before(
            &time,
            request.unix_ms,
        )?)),
        None if forbids => ControlAction::Revoke(Cutoff::at(request.unix_ms)),
        None => ControlAction::Disconnect,
    };
    control(request, action)
}

/// A time of the issuer's clock, as tokens have it in `iat`, in milliseconds.
fn issued_before(text: &str, now: u64) -> Result<u64, CommandError> {
    let what = "`issued_before` is a time in seconds since 1970, like a token's `iat`; \
                it may have a fraction";
    let is_decimal = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = text
        .parse()
        .ok()
        .filter(|_| is_decimal)
        .ok_or_else(|| bad(what))?;
    let time = milliseconds(seconds);
    if time == 0 {
        return Err(bad(what));
    }
    if time > now.saturating_add(LEEWAY) {
        let reason = "`issued_before` is more than 5 seconds ahead of this server's clock; \
                      it is in seconds since 1970";
        return Err(bad(reason));
    }
    Ok(time)
}

/// `PUT /users/{user}/rooms/{room}`
pub(crate) fn join(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    if !request.body.is_empty() {
        let EmptyBody {} = body(request)?;
    }
    control(request, ControlAction::Join(chosen_room(request)?))
}

/// `DELETE /users/{user}/rooms/{room}`
pub(crate) fn leave(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    control(request, ControlAction::Leave(chosen_room(request)?))
}

/// An empty JSON object, for a route without fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

fn control(request: &ApiRequest<'_>, action: ControlAction) -> Result<Call, CommandError> {
    let user = request.user()?;
    let command = ControlCommand { user, action };
    one(Command::Control(Box::new(command)))
}

/// The room in the path, which is its second parameter: one that a user can be added to or removed
/// from.
fn chosen_room(request: &ApiRequest<'_>) -> Result<RoomName, CommandError> {
    if request.query.is_some() {
        return Err(no_query());
    }
    let room = room(request.path_value(1))?;
    if room.is_personal() {
        let reason = "a user is in its own personal room always, and in no other's";
        return Err(CommandError::new(Code::Forbidden, reason));
    }
    Ok(room)
}
