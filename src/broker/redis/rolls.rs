//! What Redis' answers about presence mean: pages of members, and how errands went.

use redis::{ServerError, Value};

use super::announcer::{Errand, Reply};
use super::answers::{bytes, read_offset};
use super::lease::{Answer, Answered};
use super::reaper::Step;
use crate::broker::ledger::Ask;
use crate::broker::wire;
use crate::broker::{Member, Roll};

/// As many fields as the script looks at for one page: what says more is not the script.
const MOST_JUNK: u64 = 1001;

/// Reads a page of members, and how many fields of the room were junk.
pub fn read(answer: Value) -> Option<(Roll, usize)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [version, count, anonymous, more, junk, page] = <[Value; 6]>::try_from(parts).ok()?;
    let Value::Array(page) = page else {
        return None;
    };
    let mut junk = usize::try_from(read_offset(&junk)?.min(MOST_JUNK)).ok()?;
    let mut count = read_offset(&count)?;
    let mut members = Vec::with_capacity(page.len() / 3);
    for member in page.chunks_exact(3) {
        match read_member(member) {
            Some(member) => members.push(member),
            None => {
                junk += 1;
                count = count.saturating_sub(1);
            }
        }
    }
    let roll = Roll {
        version: read_offset(&version)?,
        members,
        count,
        anonymous: read_offset(&anonymous)?,
        more: read_offset(&more)? > 0,
    };
    Some((roll, junk))
}

fn read_member(values: &[Value]) -> Option<Member> {
    let [user, connections, info] = values else {
        return None;
    };
    wire::change::decode_member(bytes(user)?, bytes(connections)?, bytes(info)?).ok()
}

/// Reads how an errand went. The error, if there is one, is for the log.
pub fn judge(errand: &Errand, answer: Value) -> (Reply, Option<String>) {
    let foreign = || {
        (
            Reply::Refused,
            Some("an answer that is not ours".to_owned()),
        )
    };
    if let Value::ServerError(error) = &answer {
        return judge_error(error);
    }
    let reply = match errand {
        Errand::Lease(_) => read_lease(answer),
        Errand::Say {
            ask: Ask::Say { .. },
            ..
        } => match answer {
            Value::Nil => Some(Reply::Late),
            Value::Array(versions) => match &versions[..] {
                [before, after] => read_offset(before)
                    .zip(read_offset(after))
                    .map(|(before, after)| Reply::Said(before, after)),
                _ => None,
            },
            _ => None,
        },
        Errand::Reap(Step::Rooms { .. }) => match answer {
            Value::Array(rooms) => {
                let rooms = rooms.iter().map(|room| bytes(room).map(<[u8]>::to_vec));
                rooms.collect::<Option<_>>().map(Reply::Rooms)
            }
            _ => None,
        },
        Errand::Reap(Step::Reap { .. }) => text(&answer).map(Reply::Cursor),
        Errand::Say { .. } | Errand::Reap(_) => Some(Reply::Done),
    };
    reply.map_or_else(foreign, |reply| (reply, None))
}

/// An error raised by our script itself may have left a part of its work; asking again completes it.
fn judge_error(error: &ServerError) -> (Reply, Option<String>) {
    let details = error.details().unwrap_or_default();
    match error.code() {
        "NOSCRIPT" => (Reply::Again, None),
        "LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN" | "CLUSTERDOWN" | "READONLY" => {
            (Reply::Refused, None)
        }
        code => (Reply::Refused, Some(format!("{code} {details}"))),
    }
}

fn read_lease(answer: Value) -> Option<Reply> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [state, clock, ends, former, replid, over] = <[Value; 6]>::try_from(parts).ok()?;
    let state = match bytes(&state)? {
        b"held" => Answered::Held {
            ends: read_offset(&ends)?,
            former: read_offset(&former),
        },
        b"lapsed" => Answered::Lapsed,
        b"lost" => Answered::Lost,
        _ => return None,
    };
    let Value::Array(over) = over else {
        return None;
    };
    let answer = Answer {
        state,
        clock: read_offset(&clock)?,
        replid: text(&replid)?,
    };
    Some(Reply::Lease(answer, over.iter().filter_map(text).collect()))
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
    fn a_member_that_cannot_be_read_is_counted_and_left_out() {
        let page = bulks(&[
            "ada",
            "2",
            "{\"a\":1}",
            "b b",
            "1",
            "",
            "cy",
            "0",
            "",
            "dot",
            "1",
            "[1]",
            "eve",
            "1",
            "",
        ]);
        let mut answer: Vec<Value> = ["7", "9", "3", "1", "1"].map(bulk).into();
        answer.push(page);
        let (roll, junk) = read(Value::Array(answer)).unwrap();
        let names: Vec<_> = roll.members.iter().map(|it| it.user.as_str()).collect();
        assert_eq!((names, junk), (vec!["ada", "eve"], 4));
        assert_eq!((roll.version, roll.count, roll.anonymous), (7, 6, 3));
        assert!(roll.more);
        for junk in [bulk("x"), Value::Nil, bulks(&["1"; 6]), bulks(&["1"; 5])] {
            assert!(read(junk).is_none());
        }
    }

    #[test]
    fn a_lease_is_held_lapsed_or_lost() {
        for (state, expected) in [("held", true), ("lapsed", true), ("x", false)] {
            let mut answer: Vec<Value> = [state, "5", "10", "", "abc"].map(bulk).into();
            answer.push(bulks(&["a", "b"]));
            assert_eq!(read_lease(Value::Array(answer)).is_some(), expected);
        }
    }
}
