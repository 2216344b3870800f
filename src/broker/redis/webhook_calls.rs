//! The calls of `webhook_queue.lua`: their command, their answer, and the text of an event.

use std::time::Duration;

use redis::{Cmd, Value};

use super::names::Names;
use super::scripts::{Script, ScriptCaller, millis};
use crate::broker::redis::wire::{Format, WireError, split_version};
use crate::model::id::{Incarnation, RoomName};
use crate::model::webhook_event::{AGE, BATCH, CLAIM, ClaimMode, RoomChange, WebhookEventId};

/// After how long the group removes a silent node that holds no events. Until then it costs the
/// others next to nothing.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// The arguments of a call.
#[derive(Debug)]
pub struct WebhookCall {
    pub mode: ClaimMode,
    /// Events to be removed: they were delivered, or cannot be read.
    pub done: Vec<WebhookEventId>,
}

/// The answer to a call.
#[derive(Debug)]
pub struct WebhookEntries {
    /// How many events were dropped since the last call.
    pub dropped: u64,
    /// The ids and the texts of the events that the node holds.
    pub entries: Vec<(String, Vec<u8>)>,
}

/// The command of a call.
pub(super) fn command(
    call: &WebhookCall,
    run: Incarnation,
    names: &Names,
    caller: &mut ScriptCaller,
) -> Cmd {
    let mut command = caller.call(Script::WebhookStream);
    command
        .arg(2)
        .arg(&names.hooks()[..])
        .arg(run.to_string())
        .arg(match call.mode {
            ClaimMode::Take => "take",
            ClaimMode::Keep => "keep",
            ClaimMode::Leave => "leave",
        })
        .arg(BATCH)
        .arg(millis(CLAIM))
        .arg(millis(AGE))
        .arg(millis(FORGOTTEN));
    for id in &call.done {
        command.arg(id.to_string());
    }
    command
}

/// Reads the answer to a call.
pub(super) fn decode_answer(answer: Value) -> Option<WebhookEntries> {
    let (dropped, entries) = redis::from_redis_value(answer).ok()?;
    Some(WebhookEntries { dropped, entries })
}

/// Reads `1 occupied ROOM` or `1 vacated ROOM`; the digit is the version of the format.
pub(super) fn decode_event(
    body: &[u8],
    newest: Format,
) -> Result<(RoomChange, RoomName), WireError> {
    const JUNK: WireError = WireError::Malformed("no webhook event");
    let (_, body) = split_version(body, newest)?;
    let body = std::str::from_utf8(body).ok();
    let parts = body.and_then(|body| body.strip_prefix(' ')?.split_once(' '));
    let (name, room) = parts.ok_or(JUNK)?;
    let change = [RoomChange::Occupied, RoomChange::Vacated]
        .into_iter()
        .find(|change| change.name() == name)
        .ok_or(JUNK)?;
    Ok((change, RoomName::new(room).map_err(|_| JUNK)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are_not_ours_are_refused() {
        let first = Format::FIRST;
        let (change, room) = decode_event(b"1 vacated @ada", first).unwrap();
        assert_eq!((change, room.as_str()), (RoomChange::Vacated, "@ada"));
        let junk: [&[u8]; 6] = [
            b"",
            b"1 occupied",
            b"1 occupied ",
            b"1 OCCUPIED a",
            b"1 occupied a b",
            b"1 vacated \xff",
        ];
        for body in junk {
            let read = decode_event(body, first);
            assert!(matches!(read, Err(WireError::Malformed(_))), "{body:?}");
        }
        let second = Format::new(2).unwrap();
        let newer = decode_event(b"2 occupied a", first);
        assert_eq!(newer.unwrap_err(), WireError::Newer(second));
        assert!(decode_event(b"2 occupied a", second).is_ok());
    }
}
