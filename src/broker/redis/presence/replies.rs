//! Reads the answers of Redis to the commands of the presence agent.

use redis::Value;

use super::agent::{PresenceCommand, PresenceReply};
use super::lease::{LeaseAnswer, LeaseStatus};
use super::reaper::ReapStep;
use super::reconciler::PresenceUpdate;
use crate::broker::redis::values::{bytes, read_offset};
use crate::broker::redis::wire::Format;

/// Reads the answer to a command that Redis has done.
pub(crate) fn read(command: &PresenceCommand, answer: Value) -> Option<PresenceReply> {
    match command {
        PresenceCommand::Lease(..) => read_lease(answer),
        PresenceCommand::Update {
            update: PresenceUpdate::SetMembers { .. },
            ..
        } => read_versions(&answer),
        PresenceCommand::Reap(ReapStep::Rooms { .. }) => read_rooms(&answer),
        PresenceCommand::Reap(ReapStep::Reap { .. }) => text(&answer).map(PresenceReply::Cursor),
        PresenceCommand::Update { .. } | PresenceCommand::Reap(_) => Some(PresenceReply::Done),
    }
}

fn read_versions(answer: &Value) -> Option<PresenceReply> {
    match answer {
        Value::Nil => Some(PresenceReply::LeaseOver),
        Value::Array(versions) => {
            let [before, after] = &versions[..] else {
                return None;
            };
            let (before, after) = (read_offset(before)?, read_offset(after)?);
            Some(PresenceReply::Applied(before, after))
        }
        _ => None,
    }
}

fn read_rooms(answer: &Value) -> Option<PresenceReply> {
    let Value::Array(rooms) = answer else {
        return None;
    };
    let rooms = rooms.iter().map(|room| bytes(room).map(<[u8]>::to_vec));
    rooms.collect::<Option<_>>().map(PresenceReply::Rooms)
}

fn read_lease(answer: Value) -> Option<PresenceReply> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [state, clock, ends, former, replid, over, lowest] = <[Value; 7]>::try_from(parts).ok()?;
    let state = match bytes(&state)? {
        b"held" => LeaseStatus::Held {
            ends: read_offset(&ends)?,
            former: read_offset(&former),
        },
        b"lapsed" => LeaseStatus::Lapsed,
        b"lost" => LeaseStatus::Lost,
        _ => return None,
    };
    let Value::Array(over) = over else {
        return None;
    };
    let answer = LeaseAnswer {
        state,
        clock: read_offset(&clock)?,
        replid: text(&replid)?,
        lowest_format: Format::new(read_offset(&lowest)?.try_into().ok()?)?,
    };
    Some(PresenceReply::Lease(
        answer,
        over.iter().filter_map(text).collect(),
    ))
}

fn text(value: &Value) -> Option<String> {
    String::from_utf8(bytes(value)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn bulks(texts: &[&str]) -> Value {
        Value::Array(texts.iter().map(|text| bulk(text)).collect())
    }

    #[test]
    fn lease_is_held_lapsed_or_lost() {
        for (state, expected) in [("held", true), ("lapsed", true), ("x", false)] {
            let mut answer: Vec<Value> = [state, "5", "10", "", "abc"].map(bulk).into();
            answer.push(bulks(&["a", "b"]));
            answer.push(bulk("1"));
            assert_eq!(read_lease(Value::Array(answer)).is_some(), expected);
        }
    }
}
