//! Reads pages of members from the answers of Redis.

use redis::Value;

use crate::broker::MemberPage;
use crate::broker::redis::values::{bytes, read_offset};
use crate::broker::redis::wire;

/// The most fields that the script scans for one page. A greater number is not from the script.
const MOST_JUNK: u64 = 1001;

/// Reads a page of members, and how many fields of the room were junk.
pub(crate) fn read(answer: Value) -> Option<(MemberPage, usize)> {
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
pub(crate) struct RawPage<T> {
    pub version: u64,
    pub entries: Vec<T>,
    pub count: u64,
    pub anonymous: u64,
    pub more: bool,
}

/// Reads a page whose entries are a name, a number of connections and an info; those that cannot be
/// read are junk and do not count.
pub(crate) fn read_list<T>(
    parts: Vec<Value>,
    entry: impl Fn(&[u8], &[u8], &[u8]) -> Option<T>,
) -> Option<(RawPage<T>, usize)> {
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
    let list = RawPage {
        version: read_offset(&version)?,
        entries,
        count,
        anonymous: read_offset(&anonymous)?,
        more: read_offset(&more)? > 0,
    };
    Some((list, junk))
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
}
