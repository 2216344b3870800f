//! The wire format between nodes in Redis: the body of a publication in a room's log, and the
//! message on a topic. Both begin with the version of their [`Format`], so that nodes of two
//! versions can run side by side: a node writes the newest format that all live nodes read, and
//! never skips a format it does not know ([`WireError::Newer`]).
//!
//! ```text
//! body    = FORMAT JSON      {"u":"ada","t":1764000000123,"x":"INCARNATION:SESSION","d":DATA}
//!         | FORMAT JSON BYTES, from format 2: with `"b":LENGTH` in place of `d`
//! message = FORMAT " " EPOCH " " OFFSET " " body
//! ```
//!
//! The script writes the message; an ephemeral one has offset 0 and an epoch of zeros. Changes of
//! presence use the topic too: see [`change`]. For a user's connection see [`connection`].
//!
//! `u` is absent without a user, and `x` without an excepted session. Names that nodes of a former
//! version refuse are `n` instead of `u`: those nodes deliver the message without a user rather
//! than drop it. Format 2 adds `e`, the name
//! of the event, and binary data, which follow the JSON. Members that a later node adds to the JSON
//! are ignored. Bytes from Redis are untrusted: they are checked like a client's.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::broker::{Change, Payload, Publication, Sender};
use crate::model::epochs::{Ends, MAX_ENDS};
use crate::model::id::{Epoch, Incarnation, SessionId, UserName};
use crate::model::percent;

pub mod change;
pub mod connection;
mod format;

pub use crate::model::wire_format::Format;
pub use format::split_version;

pub use crate::model::publication::MAX_OFFSET;

/// The longest body, in bytes. Data that is accepted from a client must be accepted from Redis, and
/// `--max-message` is at most 16 MiB; the rest of the body takes less than 1 KiB.
pub const MAX_BODY_BYTES: usize = (16 << 20) + 4096;

/// `EPOCH` and `OFFSET` at their longest, the version and three blanks.
const ENVELOPE_BYTES: usize = 16 + 16 + 4;

/// Why bytes from Redis are not a publication. The reader counts them and continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not junk: a node of a later version wrote it. It must not be skipped.
    #[error("written in format {0}, which is newer than this node reads; upgrade this node")]
    Newer(Format),
    #[error("longer than a publication can be")]
    TooLong,
    #[error("no publication: {0}")]
    Malformed(&'static str),
}

impl WireError {
    const NO_VERSION: Self = WireError::Malformed("it begins with no version");
}

const NOT_JSON: WireError = WireError::Malformed("not the JSON of a publication");

/// A message on a room's topic.
#[derive(Debug)]
pub enum TopicMessage {
    Message {
        epoch: Epoch,
        offset: u64,
        publication: Publication,
    },
    Ephemeral(Publication),
    Changed(Change),
}

/// The members of a body; data is kept as text.
#[derive(Deserialize)]
struct BodyJson<'a> {
    #[serde(borrow, default)]
    u: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    n: Option<Cow<'a, str>>,
    t: u64,
    #[serde(borrow, default)]
    x: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    e: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    d: Option<&'a RawValue>,
    #[serde(default)]
    b: Option<usize>,
}

/// A null is data like any other value.
fn present<'de: 'a, 'a, D>(json: D) -> Result<Option<&'a RawValue>, D::Error>
where
    D: Deserializer<'de>,
{
    <&RawValue>::deserialize(json).map(Some)
}

/// The lowest format that can express a publication.
pub fn lowest_format(publication: &Publication) -> Format {
    match (&publication.data, &publication.event) {
        (Payload::Json(_), None) => Format::FIRST,
        _ => Format::SECOND,
    }
}

/// The longest name of a user in `u`.
const FORMER_NAME_BYTES: usize = 64;

/// Whether nodes of a former version accept the name of a user.
fn is_former_name(user: &UserName) -> bool {
    user.as_str().len() <= FORMER_NAME_BYTES && user.as_str().bytes().all(percent::is_plain)
}

/// The body of a publication in this format, which is at least its [`lowest_format`].
pub fn encode_body(publication: &Publication, format: Format) -> Vec<u8> {
    let mut body = String::with_capacity(publication.data.size() + 160);
    body.push(format.digit());
    body.push('{');
    match &publication.user {
        // These need no escapes.
        Some(user) if is_former_name(user) => body.extend(["\"u\":\"", user.as_str(), "\","]),
        Some(user) => {
            let name = serde_json::to_string(user.as_str()).unwrap_or_default();
            body.extend(["\"n\":", &name, ","]);
        }
        None => {}
    }
    // Writing into a String cannot fail.
    let _ = write!(body, "\"t\":{}", publication.time);
    if let Some(Sender {
        incarnation,
        session,
    }) = publication.except
    {
        let _ = write!(body, ",\"x\":\"{incarnation}:{session}\"");
    }
    if let Some(event) = &publication.event {
        let event = serde_json::to_string(event).unwrap_or_default();
        body.extend([",\"e\":", &event]);
    }
    match &publication.data {
        Payload::Json(json) => {
            body.extend([",\"d\":", json.get(), "}"]);
            body.into_bytes()
        }
        Payload::Binary(bytes) => {
            let _ = write!(body, ",\"b\":{}}}", bytes.len());
            let mut body = body.into_bytes();
            body.extend_from_slice(bytes);
            body
        }
    }
}

/// The message of an ephemeral publication, which the node itself publishes.
pub fn encode_ephemeral(publication: &Publication, format: Format) -> Vec<u8> {
    let mut message = format!("{format} {} 0 ", Epoch::UNKNOWN).into_bytes();
    message.extend(encode_body(publication, format));
    message
}

/// Reads a body, from a log or from a message, in any format up to `newest`.
pub fn decode_body(bytes: &[u8], newest: Format) -> Result<Publication, WireError> {
    if bytes.len() > MAX_BODY_BYTES {
        return Err(WireError::TooLong);
    }
    let (format, rest) = split_version(bytes, newest)?;
    // Format 1 has nothing behind its JSON.
    let (json, behind) = match format {
        Format::FIRST => (rest, &[][..]),
        _ => split_json(rest)?,
    };
    let text = std::str::from_utf8(json).map_err(|_| WireError::Malformed("not UTF-8"))?;
    let body: BodyJson<'_> = serde_json::from_str(text).map_err(|_| NOT_JSON)?;
    let data = match (body.d, body.b) {
        (Some(json), None) if behind.is_empty() => Payload::Json(json.to_owned()),
        (None, Some(length)) if behind.len() == length && format > Format::FIRST => {
            Payload::Binary(Bytes::copy_from_slice(behind))
        }
        _ => return Err(NOT_JSON),
    };
    let user = body
        .u
        .or(body.n)
        .map(|name| UserName::new(&name))
        .transpose()
        .map_err(|_| WireError::Malformed("a user name breaks the rules"))?;
    Ok(Publication {
        user,
        time: body.t,
        except: body.x.map(|text| decode_sender(&text)).transpose()?,
        event: body
            .e
            .filter(|_| format > Format::FIRST)
            .map(|name| (&*name).into()),
        data,
    })
}

/// The first JSON value, and the bytes behind it.
fn split_json(bytes: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Ok(bytes.split_at(values.byte_offset())),
        _ => Err(NOT_JSON),
    }
}

/// Reads a message of a topic, in any format up to `newest`.
pub fn decode_message(bytes: &[u8], newest: Format) -> Result<TopicMessage, WireError> {
    if bytes.len() > MAX_BODY_BYTES + ENVELOPE_BYTES {
        return Err(WireError::TooLong);
    }
    // Without the blank it is not a message of any format.
    if bytes.get(1) != Some(&b' ') {
        return Err(WireError::NO_VERSION);
    }
    let (_, rest) = split_version(bytes, newest)?;
    let rest = &rest[1..];
    if let Some(change) = rest.strip_prefix(change::BEGIN) {
        return change::decode(change).map(TopicMessage::Changed);
    }
    let mut parts = rest.splitn(3, |&byte| byte == b' ');
    let (Some(epoch), Some(offset), Some(body)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(WireError::Malformed(
            "a message has epoch, offset and a body",
        ));
    };
    let epoch = decode_epoch(epoch);
    let offset = decode_offset(offset).ok_or(WireError::Malformed("the offset is no number"))?;
    match (epoch, offset) {
        (Epoch::UNKNOWN, 0) => Ok(TopicMessage::Ephemeral(decode_body(body, newest)?)),
        (Epoch::UNKNOWN, _) => Err(WireError::Malformed("an offset without an epoch")),
        (_, 0) => Err(WireError::Malformed("an epoch without an offset")),
        (epoch, offset) => Ok(TopicMessage::Message {
            epoch,
            offset,
            publication: decode_body(body, newest)?,
        }),
    }
}

/// Reads an epoch; other bytes are [`Epoch::UNKNOWN`].
pub fn decode_epoch(bytes: &[u8]) -> Epoch {
    std::str::from_utf8(bytes).map_or(Epoch::UNKNOWN, Epoch::parse)
}

/// Reads the ended epochs of a log as a script writes them: ` EPOCH OFFSET`, any number of times.
/// Malformed text ends the list: epochs that cannot be read count as forgotten.
pub fn decode_ends(bytes: &[u8]) -> Ends {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let mut parts = text.split(' ').skip(1);
    let pairs = std::iter::from_fn(|| {
        let (epoch, offset) = (parts.next()?, parts.next()?);
        Some((Epoch::parse(epoch), decode_offset(offset.as_bytes())?))
    });
    pairs.take(MAX_ENDS).collect()
}

/// Reads an offset: decimal digits as a script writes them, without sign or leading zeros.
pub fn decode_offset(bytes: &[u8]) -> Option<u64> {
    let canonical = match bytes {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let offset = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (canonical && offset <= MAX_OFFSET).then_some(offset)
}

/// Replaces an entry that cannot be read in a page: `null`, so that the room has no permanent hole.
pub fn unreadable() -> Publication {
    Publication {
        user: None,
        time: 0,
        except: None,
        event: None,
        data: RawValue::NULL.to_owned().into(),
    }
}

fn decode_sender(text: &str) -> Result<Sender, WireError> {
    let wrong = WireError::Malformed("the excepted session is not INCARNATION:SESSION");
    let (incarnation, session) = text.split_once(':').ok_or(wrong)?;
    if incarnation.len() != 16 || !incarnation.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong);
    }
    if session.is_empty() || !session.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong);
    }
    Ok(Sender {
        incarnation: Incarnation(u64::from_str_radix(incarnation, 16).map_err(|_| wrong)?),
        session: SessionId(session.parse().map_err(|_| wrong)?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn publication(
        user: Option<&str>,
        time: u64,
        except: Option<(u64, u64)>,
        data: &str,
    ) -> Publication {
        Publication {
            user: user.map(|name| UserName::new(name).unwrap()),
            time,
            except: except.map(|(incarnation, session)| Sender {
                incarnation: Incarnation(incarnation),
                session: SessionId(session),
            }),
            event: None,
            data: RawValue::from_string(data.to_owned()).unwrap().into(),
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn body_is_versioned_compact_json() {
        let full = publication(Some("ada"), 1764, Some((0x2a, 7)), r#"{"text":"hi"}"#);
        assert_eq!(
            text(encode_body(&full, Format::FIRST)),
            r#"1{"u":"ada","t":1764,"x":"000000000000002a:7","d":{"text":"hi"}}"#
        );
        assert_eq!(
            text(encode_body(&publication(None, 0, None, "1"), Format::FIRST)),
            r#"1{"t":0,"d":1}"#
        );
    }

    #[test]
    fn name_that_former_nodes_refuse_is_a_member_that_they_ignore() {
        for name in [
            "auth0|5f7c",
            "ada@example.com",
            "\"\\",
            "愛",
            &"x".repeat(65),
        ] {
            let sent = publication(Some(name), 7, None, "1");
            let body = text(encode_body(&sent, Format::FIRST));
            let members: serde_json::Value = serde_json::from_str(&body[1..]).unwrap();
            assert_eq!(
                (members.get("u"), &members["n"]),
                (None, &name.into()),
                "{body}"
            );
            let read = decode_body(body.as_bytes(), Format::FIRST).unwrap();
            assert_eq!(read.user, sent.user);
        }
    }

    #[test]
    fn format_2_has_binary_data_and_an_event() {
        let mut sent = publication(Some("ada"), 7, None, "1");
        sent.event = Some("client-\"typing\"".into());
        let body = text(encode_body(&sent, Format::SECOND));
        assert_eq!(body, r#"2{"u":"ada","t":7,"e":"client-\"typing\"","d":1}"#);
        sent.data = Payload::Binary(Bytes::from_static(b"\x00}\xff"));
        let body = encode_body(&sent, Format::SECOND);
        assert!(body.ends_with(b",\"b\":3}\x00}\xff"));
        let read = decode_body(&body, Format::SECOND).unwrap();
        assert!(matches!(read.data, Payload::Binary(bytes) if bytes[..] == *b"\x00}\xff"));
        for cut in [
            &body[..body.len() - 1],
            b"2{\"t\":1,\"b\":0}x",
            b"2{\"t\":1,\"b\":0,\"d\":1}",
        ] {
            assert_eq!(decode_body(cut, Format::SECOND).unwrap_err(), NOT_JSON);
        }
    }

    #[test]
    fn bodies_that_are_not_ours_are_refused() {
        use WireError::{Malformed, Newer};
        let json = Malformed("not the JSON of a publication");
        let sender = Malformed("the excepted session is not INCARNATION:SESSION");
        let table: &[(&[u8], WireError)] = &[
            (b"", WireError::NO_VERSION),
            (b"{\"t\":1,\"d\":1}", WireError::NO_VERSION),
            (b"0{\"t\":1,\"d\":1}", WireError::NO_VERSION),
            (b"2{\"t\":1,\"d\":1}", Newer(Format::new(2).unwrap())),
            (b"1", json),
            (b"1{}", json),
            (b"1{\"t\":1}", json),
            (b"1{\"t\":-1,\"d\":1}", json),
            (b"1{\"t\":1,\"d\":}", json),
            (b"1{\"t\":1,\"d\":1}x", json),
            (b"1{\"t\":1,\"t\":2,\"d\":1}", json),
            (b"1{\"t\":1,\"d\":\"\xff\"}", Malformed("not UTF-8")),
            (
                b"1{\"u\":\"a\\u0001\",\"t\":1,\"d\":1}",
                Malformed("a user name breaks the rules"),
            ),
            (b"1{\"x\":\"7\",\"t\":1,\"d\":1}", sender),
            (b"1{\"x\":\"2a:7\",\"t\":1,\"d\":1}", sender),
            (b"1{\"x\":\"000000000000002a:+7\",\"t\":1,\"d\":1}", sender),
        ];
        for (bytes, expected) in table {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(
                decode_body(bytes, Format::FIRST).unwrap_err(),
                *expected,
                "{text}"
            );
        }
        let long = format!("1{{\"t\":1,\"d\":\"{}\"}}", "x".repeat(MAX_BODY_BYTES));
        assert_eq!(
            decode_body(long.as_bytes(), Format::FIRST).unwrap_err(),
            WireError::TooLong
        );
    }

    #[test]
    fn ends_read_back_and_junk_is_no_end() {
        let read = |text: &str| {
            let ends = decode_ends(text.as_bytes());
            (
                ends.end_of(Epoch::new(1)),
                ends.end_of(Epoch::new(2)),
                ends.start(),
            )
        };
        assert_eq!(read(""), (None, None, 0));
        let both = " 0000000000000001 5 0000000000000002 8";
        assert_eq!(read(both), (Some(5), Some(8), 8));
        assert_eq!(read(" 0000000000000000 4"), (None, None, 4));
        assert_eq!(read(" 0000000000000001 x"), (None, None, 0));
        assert_eq!(read(" 0000000000000001"), (None, None, 0));
        assert_eq!(read("\u{0}"), (None, None, 0));
    }

    #[test]
    fn every_format_that_the_node_knows_reads_back_and_a_newer_one_is_reported() {
        let formats = [1, 2, 3].map(|number| Format::new(number).unwrap());
        let newest = formats[1];
        for format in formats {
            let sent = publication(Some("ada"), 7, None, "true");
            let body = text(encode_body(&sent, format));
            let messages = [
                format!("{format} 000000000000002a 7 {body}"),
                format!("1 000000000000002a 7 {body}"),
                text(encode_ephemeral(&sent, format)),
            ];
            let read = messages.map(|it| decode_message(it.as_bytes(), newest).map(drop));
            let change = format!("{format} here 7 8 ada 0 1 ");
            let change = decode_message(change.as_bytes(), newest).map(drop);
            let body =
                decode_body(body.as_bytes(), newest).map(|it| it.data.json().unwrap().to_owned());
            if format <= newest {
                assert_eq!((read, change), ([Ok(()); 3], Ok(())));
                assert_eq!(body.unwrap(), "true");
            } else {
                let newer = WireError::Newer(format);
                assert_eq!((read, change), ([Err(newer); 3], Err(newer)));
                assert_eq!(body.unwrap_err(), newer);
            }
        }
        // Bytes that only begin like a version are not a message of any format.
        let junk = decode_message(b"31 000000000000002a 7 x", newest).unwrap_err();
        assert_eq!(junk, WireError::NO_VERSION);
    }

    #[test]
    fn null_is_data_and_members_of_a_later_node_are_ignored() {
        let null = decode_body(br#"1{"t":1,"d":null}"#, Format::FIRST).unwrap();
        assert_eq!(null.data.json(), Some("null"));
        let read = decode_body(br#"1{"t":1,"new":[1,{"a":2}],"d":true}"#, Format::FIRST).unwrap();
        assert_eq!(read.data.json(), Some("true"));
    }

    #[test]
    fn messages_carry_epoch_and_offset_or_neither() {
        let body = r#"1{"t":1,"d":1}"#;
        let epoch = Epoch::new(0x2a);
        match decode_message(format!("1 {epoch} 42 {body}").as_bytes(), Format::FIRST).unwrap() {
            TopicMessage::Message {
                epoch: epoch_read,
                offset: 42,
                ..
            } => assert_eq!(epoch_read, epoch),
            other => panic!("{other:?}"),
        }
        let ephemeral = encode_ephemeral(&publication(None, 1, None, "1"), Format::FIRST);
        assert!(matches!(
            decode_message(&ephemeral, Format::FIRST),
            Ok(TopicMessage::Ephemeral(_))
        ));
        for junk in [
            "".to_owned(),
            "hello".to_owned(),
            format!("1 {epoch} 42"),
            format!("1 {epoch} 0 {body}"),
            format!("1 {epoch} 042 {body}"),
            format!("1 {epoch} +42 {body}"),
            format!("1 {epoch} 99999999999999999999 {body}"),
            format!("1 {} 42 {body}", Epoch::UNKNOWN),
            format!("1 zz 42 {body}"),
            format!("1  {epoch} 42 {body}"),
        ] {
            let read = decode_message(junk.as_bytes(), Format::FIRST);
            assert!(read.is_err(), "{junk}");
        }
    }

    proptest! {
        #[test]
        fn encoded_message_reads_back(
            user in proptest::option::of("[^\\p{C}]{1,60}"),
            time: u64,
            except: Option<(u64, u64)>,
            text: String,
            event: Option<String>,
            bytes: Option<Vec<u8>>,
            epoch in 1..u64::MAX,
            offset in 1..=MAX_OFFSET,
        ) {
            let data = serde_json::to_string(&text).unwrap();
            let mut sent = publication(user.as_deref(), time, except, &data);
            sent.event = event.map(Into::into);
            sent.data = bytes.map_or(sent.data, |bytes| Payload::Binary(bytes.into()));
            let format = lowest_format(&sent);
            let mut message = format!("{format} {} {offset} ", Epoch::new(epoch)).into_bytes();
            message.extend(encode_body(&sent, format));
            match decode_message(&message, format).unwrap() {
                TopicMessage::Message { epoch: epoch_read, offset: at, publication } => {
                    prop_assert_eq!((epoch_read, at), (Epoch::new(epoch), offset));
                    prop_assert_eq!(publication.user, sent.user);
                    prop_assert_eq!(publication.time, time);
                    prop_assert_eq!(publication.except, sent.except);
                    prop_assert_eq!(publication.event, sent.event);
                    prop_assert_eq!(publication.data.json(), sent.data.json());
                    prop_assert_eq!(publication.data.size(), sent.data.size());
                }
                other => prop_assert!(false, "an offset got lost: {other:?}"),
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, tail: Vec<u8>) {
            let _ = decode_message(&bytes, Format::FIRST);
            let _ = decode_body(&bytes, Format::FIRST);
            let mut message = b"1 000000000000002a 7 1{\"t\":1,\"d\":".to_vec();
            message.extend(&tail);
            let _ = decode_message(&message, Format::FIRST);
        }
    }
}
