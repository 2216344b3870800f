//! Revocations in Redis: the commands of both scripts, their answers, and the score of a
//! [`Cutoff`].

use std::sync::Arc;

use redis::{Cmd, Value};

use super::names::Names;
use super::presence::lease::LONGEST;
use super::scripts::{Script, ScriptCaller, millis};
use super::values::{bytes, read_offset};
use crate::broker::redis::wire;
use crate::broker::{ReadRevocations, RevocationRetention, Revoke, StoredRevocations};
use crate::model::id::{Incarnation, UserName};
use crate::model::revocations::{Cutoff, MOST};

/// The command that writes revocations.
pub(super) fn write(
    request: &Revoke,
    run: Incarnation,
    names: &Names,
    caller: &mut ScriptCaller,
) -> Cmd {
    let mut command = begin(Script::Revoke, run, request.retention, names, caller);
    let confirm = request.confirm.as_ref();
    command
        .arg(MOST)
        .arg(confirm.map_or("", |confirm| &*confirm.data_set))
        .arg(u8::from(confirm.is_some_and(|confirm| confirm.force)));
    for (user, cutoff) in &request.cutoffs {
        command.arg(&*user.encoded()).arg(score(*cutoff));
    }
    command
}

/// The command that reads all revocations.
pub(super) fn read(
    request: &ReadRevocations,
    run: Incarnation,
    names: &Names,
    caller: &mut ScriptCaller,
) -> Cmd {
    let mut command = begin(Script::Revocations, run, request.retention, names, caller);
    command.arg(u8::from(request.is_starting));
    command
}

fn begin(
    script: Script,
    run: Incarnation,
    retention: RevocationRetention,
    names: &Names,
    caller: &mut ScriptCaller,
) -> Cmd {
    let mut command = caller.call(script);
    command.arg(3).arg(&names.revoked()[..]).arg(names.nodes());
    command
        .arg(run.to_string())
        .arg(millis(LONGEST))
        .arg(retention.now)
        .arg(retention.lifetime);
    command
}

/// The answer to a write: the users whose cutoffs were written.
pub(super) fn read_written(answer: Value) -> Option<Vec<UserName>> {
    let Value::Array(users) = answer else {
        return None;
    };
    Some(users.iter().filter_map(read_user).collect())
}

/// The answer to a read: the set, and how many of its entries were junk.
pub(super) fn read_all(answer: Value) -> Option<(StoredRevocations, usize)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [data_set, is_confirmed, awaited, entries] = <[Value; 4]>::try_from(parts).ok()?;
    let Value::Array(entries) = entries else {
        return None;
    };
    let read = |entry: &[Value]| Some((read_user(&entry[0])?, read_score(&entry[1])?));
    let cutoffs: Vec<_> = entries.chunks_exact(2).filter_map(read).collect();
    let junk = entries.len() / 2 - cutoffs.len();
    let stored = StoredRevocations {
        cutoffs,
        data_set: Arc::from(std::str::from_utf8(bytes(&data_set)?).ok()?),
        is_confirmed: read_offset(&is_confirmed)? > 0,
        awaited: read_offset(&awaited)?,
    };
    Some((stored, junk))
}

fn read_user(value: &Value) -> Option<UserName> {
    UserName::decode(std::str::from_utf8(bytes(value)?).ok()?)
}

/// The score of a cutoff, in the order of cutoffs: of two with one time, the exact one is greater.
fn score(cutoff: Cutoff) -> String {
    let half = if cutoff.is_exact() { ".5" } else { "" };
    // Doubles represent halves up to 2^52, which is far in the future.
    format!("{}{half}", cutoff.through().min(wire::MAX_OFFSET / 2))
}

fn read_score(value: &Value) -> Option<Cutoff> {
    let text = std::str::from_utf8(bytes(value)?).ok()?;
    let (through, half) = text.split_once('.').unwrap_or((text, ""));
    Some(Cutoff::new(through.parse().ok()?, !half.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutoff_is_read_from_its_score() {
        let text = |text: &str| Value::BulkString(text.into());
        for cutoff in [
            Cutoff::at(1_764_000_000_123),
            Cutoff::issued_before(1_764_000_000_123),
        ] {
            assert_eq!(read_score(&text(&score(cutoff))), Some(cutoff));
        }
        for junk in ["inf", "-inf", "nan", "-1", "", "1e+300"] {
            assert_eq!(read_score(&text(junk)), None, "{junk}");
        }
    }

    #[test]
    fn junk_in_the_set_is_counted_and_dropped() {
        let text = |text: &str| Value::BulkString(text.into());
        let entries = ["ada", "1764000000123", "a b", "7", "bob", "inf"].map(text);
        let answer = |entries: &[Value]| {
            let entries = Value::Array(entries.to_vec());
            Value::Array(vec![text("id"), text("0"), text("2"), entries])
        };
        let (stored, junk) = read_all(answer(&entries)).unwrap();
        assert_eq!((stored.cutoffs.len(), junk), (1, 2));
        assert_eq!((stored.is_confirmed, stored.awaited), (false, 2));
        assert!(read_all(Value::Array(vec![text("id")])).is_none());
        assert!(read_all(Value::Nil).is_none());
    }
}
