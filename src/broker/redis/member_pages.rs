//! Reads the answers of Redis about presence: pages of members, and the results of presence
//! commands.

use redis::{ServerError, Value};

use super::answers::{bytes, read_offset};
use super::lease::{Answer, Answered};
use super::presence_agent::{PresenceCommand, Reply};
use super::reaper::Step;
use crate::broker::MemberPage;
use crate::broker::redis::reconciler::PresenceUpdate;
use crate::broker::redis::wire::{self, Format};

/// The most fields that the script scans for one page. A greater number is not from the script.
const MOST_JUNK: u64 = 1001;

/// Reads a page of members, and how many fields of the room were junk.
pub fn read(answer: Value) -> Option<(MemberPage, usize)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let (list, junk) = read_list(parts, |name, connections, info| {
        wire::change::decode_member(name, connections, info).ok()
    })?;
    let page = MemberPage {
        version: list.version,
        members: list.entries,
        count: list.count,
        anonymous: list.anonymous,
        more: list.more,
    };
    Some((page, junk))
}

/// A page of members or of a user's connections, as the script returns it.
pub struct List<T> {
    pub version: u64,
    pub entries: Vec<T>,
    pub count: u64,
    pub anonymous: u64,
    pub more: bool,
}

/// Reads a page whose entries are a name, a number of connections and an info; those that cannot be
/// read are junk and do not count.
pub fn read_list<T>(
    parts: Vec<Value>,
    entry: impl Fn(&[u8], &[u8], &[u8]) -> Option<T>,
) -> Option<(List<T>, usize)> {
    let [version, count, anonymous, more, junk, page] = <[Value; 6]>::try_from(parts).ok()?;
    let Value::Array(page) = page else {
        return None;
    };
    let mut junk = usize::try_from(read_offset(&junk)?.min(MOST_JUNK)).ok()?;
    let mut count = read_offset(&count)?;
    let mut entries = Vec::with_capacity(page.len() / 3);
    for values in page.chunks_exact(3) {
        let texts = values.iter().map(bytes).collect::<Option<Vec<_>>>();
        let read = match texts.as_deref() {
            Some([name, connections, info]) => entry(name, connections, info),
            _ => None,
        };
        match read {
            Some(read) => entries.push(read),
            None => {
                junk += 1;
                count = count.saturating_sub(1);
            }
        }
    }
    let list = List {
        version: read_offset(&version)?,
        entries,
        count,
        anonymous: read_offset(&anonymous)?,
        more: read_offset(&more)? > 0,
    };
    Some((list, junk))
}

/// Reads the result of a command. The error, if there is one, is for the log.
pub fn judge(command: &PresenceCommand, answer: Value) -> (Reply, Option<String>) {
    let foreign = || {
        (
            Reply::Refused,
            Some("the answer is not from our script".to_owned()),
        )
    };
    if let Value::ServerError(error) = &answer {
        return judge_error(error);
    }
    let reply = match command {
        PresenceCommand::Lease(..) => read_lease(answer),
        PresenceCommand::Update {
            update: PresenceUpdate::SetMembers { .. },
            ..
        } => match answer {
            Value::Nil => Some(Reply::LeaseOver),
            Value::Array(versions) => match &versions[..] {
                [before, after] => read_offset(before)
                    .zip(read_offset(after))
                    .map(|(before, after)| Reply::Applied(before, after)),
                _ => None,
            },
            _ => None,
        },
        PresenceCommand::Reap(Step::Rooms { .. }) => match answer {
            Value::Array(rooms) => {
                let rooms = rooms.iter().map(|room| bytes(room).map(<[u8]>::to_vec));
                rooms.collect::<Option<_>>().map(Reply::Rooms)
            }
            _ => None,
        },
        PresenceCommand::Reap(Step::Reap { .. }) => text(&answer).map(Reply::Cursor),
        PresenceCommand::Update { .. } | PresenceCommand::Reap(_) => Some(Reply::Done),
    };
    reply.map_or_else(foreign, |reply| (reply, None))
}

/// An error raised by our script itself may have left a part of its work; a retry completes it.
fn judge_error(error: &ServerError) -> (Reply, Option<String>) {
    let details = error.details().unwrap_or_default();
    match error.code() {
        "NOSCRIPT" => (Reply::Retry, None),
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
    let [state, clock, ends, former, replid, over, lowest] = <[Value; 7]>::try_from(parts).ok()?;
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
        lowest_format: Format::new(read_offset(&lowest)?.try_into().ok()?)?,
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
    fn member_that_cannot_be_read_is_counted_and_left_out() {
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
        let (page, junk) = read(Value::Array(answer)).unwrap();
        let names: Vec<_> = page.members.iter().map(|it| it.user.as_str()).collect();
        assert_eq!((names, junk), (vec!["ada", "eve"], 4));
        assert_eq!((page.version, page.count, page.anonymous), (7, 6, 3));
        assert!(page.more);
        for junk in [bulk("x"), Value::Nil, bulks(&["1"; 6]), bulks(&["1"; 5])] {
            assert!(read(junk).is_none());
        }
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
