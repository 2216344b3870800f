//! A user's connection in Redis: a field whose name no user can have, and JSON that describes the
//! connection.
//!
//! ```text
//! field = "@" INCARNATION "-" SESSION            JSON = {"node":"a","info":{"name":"Ada L"}}
//! ```
//!
//! `info` is absent if the client has none. Members that a later node adds are ignored.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{WireError, change};
use crate::model::cluster_query::Connection;
use crate::model::member::{INFO_BYTES, Info};
use crate::model::publication::Sender;

/// The longest JSON, in bytes: an info and a node's label.
const BYTES: usize = INFO_BYTES + 256;

#[derive(Deserialize, Serialize)]
struct ConnectionJson<'a> {
    #[serde(borrow)]
    node: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
}

/// The field of a connection.
pub fn field(session: Sender) -> String {
    format!("@{session}")
}

/// The JSON of a connection.
pub fn encode(connection: &Connection) -> Info {
    let value = ConnectionJson {
        node: Cow::Borrowed(&connection.node),
        info: connection.info.as_deref(),
    };
    // Writing texts and JSON to memory cannot fail.
    let json = serde_json::value::to_raw_value(&value).unwrap_or_default();
    json.into()
}

/// Reads a field and its JSON.
pub fn decode(field: &[u8], json: &[u8]) -> Result<Connection, WireError> {
    let name = std::str::from_utf8(field).ok();
    let session = name
        .and_then(|name| Sender::parse(name.strip_prefix('@')?))
        .ok_or(WireError::Malformed("no name of a session"))?;
    if json.len() > BYTES {
        return Err(WireError::TooLong);
    }
    let wrong = WireError::Malformed("not the JSON of a connection");
    let text = std::str::from_utf8(json).map_err(|_| wrong)?;
    let value: ConnectionJson<'_> = serde_json::from_str(text).map_err(|_| wrong)?;
    let info = value.info.map_or("", RawValue::get);
    Ok(Connection {
        session,
        node: value.node.into_owned(),
        info: change::decode_info(info.as_bytes())?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::id::{Incarnation, SessionId};

    #[test]
    fn connection_reads_back() {
        let session = Sender {
            incarnation: Incarnation(0x2a),
            session: SessionId(7),
        };
        for info in ["", r#"{"name": "Ada L"}"#] {
            let connection = Connection {
                session,
                node: "host-9090".into(),
                info: change::decode_info(info.as_bytes()).unwrap(),
            };
            let json = encode(&connection);
            let read = decode(field(session).as_bytes(), json.get().as_bytes()).unwrap();
            assert_eq!((read.session, read.node.as_str()), (session, "host-9090"));
            assert_eq!(read.info.as_ref().map_or("", |it| it.get()), info);
        }
        let later = br#"{"node":"a","zone":1}"#;
        assert!(decode(field(session).as_bytes(), later).is_ok());
    }

    #[test]
    fn malformed_connection_is_refused() {
        let field = "@000000000000002a-7";
        let long = format!(r#"{{"node":"{}"}}"#, "x".repeat(BYTES));
        let shown = format!(
            r#"{{"node":"a","info":{{"a":"{}"}}}}"#,
            "x".repeat(INFO_BYTES)
        );
        for (field, json) in [
            ("ada", r#"{"node":"a"}"#),
            ("@anonymous", r#"{"node":"a"}"#),
            ("@2a-7", r#"{"node":"a"}"#),
            (field, ""),
            (field, "{}"),
            (field, r#"{"node":1}"#),
            (field, r#"{"node":"a","info":[1]}"#),
            (field, &long),
            (field, &shown),
        ] {
            assert!(
                decode(field.as_bytes(), json.as_bytes()).is_err(),
                "{field} {json}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(field: Vec<u8>, json: Vec<u8>, tail: String) {
            let _ = decode(&field, &json);
            let _ = decode(b"@000000000000002a-7", format!("{{\"node\":\"{tail}\"}}").as_bytes());
        }
    }
}
