//! The message of a change of a room's presence, which scripts publish on the room's topic:
//!
//! ```text
//! message = FORMAT " here " FROM " " VERSION " " USER " " WAS " " CONNECTIONS " " INFO
//! ```
//!
//! USER is the encoded name, as in the list of members, so that it has no blank and is no field of
//! the list's own. INFO may be empty.

use serde_json::value::RawValue;

use super::{WireError, decode_offset};
use crate::model::id::UserName;
use crate::model::member::{Change, INFO_BYTES, Info, Member};

/// The text after the version in the message of a change.
pub const BEGIN: &[u8] = b"here ";

/// Reads what follows [`BEGIN`].
pub fn decode(bytes: &[u8]) -> Result<Change, WireError> {
    let mut parts = bytes.splitn(6, |&byte| byte == b' ');
    let mut next = || {
        parts
            .next()
            .ok_or(WireError::Malformed("a change has six parts"))
    };
    let (from, version, user) = (next()?, next()?, next()?);
    let (was, connections, info) = (next()?, next()?, next()?);
    let whole = WireError::Malformed("a version is no number");
    let (Some(from), Some(version)) = (decode_offset(from), decode_offset(version)) else {
        return Err(whole);
    };
    if from >= version {
        return Err(WireError::Malformed("a version goes up"));
    }
    Ok(Change {
        from,
        version,
        user: decode_user(user)?,
        was: decode_connections(was)?,
        connections: decode_connections(connections)?,
        info: decode_info(info)?,
    })
}

/// Reads a member of a list; it has a connection.
pub fn decode_member(user: &[u8], connections: &[u8], info: &[u8]) -> Result<Member, WireError> {
    let member = Member {
        user: decode_user(user)?,
        connections: decode_connections(connections)?,
        info: decode_info(info)?,
    };
    match member.connections {
        0 => Err(WireError::Malformed("a member without a connection")),
        _ => Ok(member),
    }
}

fn decode_user(bytes: &[u8]) -> Result<UserName, WireError> {
    let name = std::str::from_utf8(bytes).ok();
    name.and_then(UserName::decode)
        .ok_or(WireError::Malformed("a user name breaks the rules"))
}

fn decode_connections(bytes: &[u8]) -> Result<u32, WireError> {
    let number = decode_offset(bytes).and_then(|number| u32::try_from(number).ok());
    number.ok_or(WireError::Malformed("no number of connections"))
}

/// Reads the info of a user; `None` for no bytes.
pub fn decode_info(bytes: &[u8]) -> Result<Option<Info>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() > INFO_BYTES {
        return Err(WireError::TooLong);
    }
    let wrong = WireError::Malformed("an info is a JSON object");
    let text = std::str::from_utf8(bytes).map_err(|_| wrong)?;
    let info: Box<RawValue> = serde_json::from_str(text).map_err(|_| wrong)?;
    if info.get().starts_with('{') {
        Ok(Some(Info::from(info)))
    } else {
        Err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Format, TopicMessage, decode_message};
    use super::*;

    #[test]
    fn change_reads_back() {
        let Ok(TopicMessage::Changed(change)) = decode_message(
            br#"1 here 7 1764000000000000 ada 0 2 {"name": "Ada L"}"#,
            Format::FIRST,
        ) else {
            panic!("it is one");
        };
        assert_eq!((change.from, change.version), (7, 1_764_000_000_000_000));
        assert_eq!((change.user.as_str(), change.was), ("ada", 0));
        assert_eq!(change.connections, 2);
        assert_eq!(change.info.unwrap().get(), r#"{"name": "Ada L"}"#);
        let Ok(TopicMessage::Changed(change)) =
            decode_message(b"1 here 0 1 a:b 1 0 ", Format::FIRST)
        else {
            panic!("it is one");
        };
        assert!(change.info.is_none() && change.connections == 0);
    }

    #[test]
    fn changes_that_are_not_ours_are_refused() {
        let long = format!("0 1 ada 0 1 {{\"a\":\"{}\"}}", "x".repeat(INFO_BYTES));
        for junk in [
            "",
            "0 1 ada 0 1",
            "1 1 ada 0 1 ",
            "x 1 ada 0 1 ",
            "0 01 ada 0 1 ",
            "0 1 a@da 0 1 ",
            "0 1 a%7cb 0 1 ",
            "0 1 @version 0 1 ",
            "0 1 ada 0 -1 ",
            "0 1 ada 0 4294967296 ",
            "0 1 ada 0 1 [1]",
            "0 1 ada 0 1 {\"a\":}",
            "0 1 ada 0 1 {} x",
            &long,
        ] {
            assert!(decode(junk.as_bytes()).is_err(), "{junk}");
        }
        assert!(decode(b"0 1 ada 0 1 {\"a\":\"\xff\"}").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, tail: String) {
            let _ = decode(&bytes);
            let _ = decode(format!("0 1 ada 0 1 {tail}").as_bytes());
        }
    }
}
