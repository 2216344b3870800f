//! The text of a frame from a client: it decodes to a command or to an error that can be sent, and
//! an accepted command decodes to the same when it is encoded again.

use serde_json::{Map, Value, json};
use switchboard::model::identity::Credentials;
use switchboard::model::member::MembersQuery;
use switchboard::model::publication::HistoryQuery;
use switchboard::protocol::encoder::Encoder;
use switchboard::protocol::native::{NativeEncoder, decode};
use switchboard::protocol::{ClientRequest, Command, Reply, RequestId};

pub fn any_command(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let read = decode(text);
    match &read.request {
        Ok(request) => {
            let again = decode(&written(read.id, request));
            assert_eq!(format!("{again:?}"), format!("{read:?}"));
        }
        Err(error) => {
            let frame = NativeEncoder.reply(read.id, &Reply::Error(error));
            // A reason names the fault, and repeats little of the input.
            assert!(frame.len() < 1024, "{} bytes: {error:?}", frame.len());
        }
    }
}

/// The command as a client would write it.
fn written(id: Option<RequestId>, request: &ClientRequest) -> String {
    let mut fields = Map::new();
    let mut add = |name: &str, value: Value| {
        fields.insert(name.into(), value);
    };
    let id = id.map(|id| ("id", serde_json::to_string(&id).expect("a number")));
    let mut data = None;
    let command = match request {
        ClientRequest::Auth(credentials) => {
            add("type", json!("auth"));
            match credentials {
                Credentials::User { user, info } => {
                    add("user", json!(user.as_str()));
                    info.iter().for_each(|info| add("info", json!(info)));
                }
                Credentials::Token(token) => add("token", json!(token.expose())),
            }
            return with_texts(Value::Object(fields), [id, None]);
        }
        ClientRequest::Command(command) => command,
    };
    match command {
        Command::Join { room, since, .. } => {
            add("type", json!("join"));
            add("room", json!(room.as_str()));
            if let Some(since) = since {
                add("since", json!(since));
            }
        }
        Command::Leave { room } => {
            add("type", json!("leave"));
            add("room", json!(room.as_str()));
        }
        Command::Publish(publish) => {
            add("type", json!("publish"));
            add("room", json!(publish.room.as_str()));
            add("ephemeral", json!(publish.ephemeral));
            add("others", json!(publish.others));
            if let Some(key) = &publish.key {
                add("key", json!(&*key.key));
            }
            data = Some(publish.publication.data.json().expect("JSON"));
        }
        Command::History(HistoryQuery {
            room,
            before,
            limit,
        }) => {
            add("type", json!("history"));
            add("room", json!(room.as_str()));
            add("limit", json!(limit));
            if let Some(before) = before {
                add("before", json!(before));
            }
        }
        Command::Members(MembersQuery { room, after, limit }) => {
            add("type", json!("members"));
            add("room", json!(room.as_str()));
            add("limit", json!(limit));
            if let Some(after) = after {
                add("after", json!(after.as_str()));
            }
        }
        Command::Ping => add("type", json!("ping")),
        Command::ClusterQuery(_) | Command::Control(_) => unreachable!("no client can send it"),
    }
    // Data and `id` stay the texts they were: as values they would lose digits.
    let data = data.map(|data| ("data", data.to_owned()));
    with_texts(Value::Object(fields), [data, id])
}

/// An object, which is not empty, with further fields.
fn with_texts(object: Value, fields: [Option<(&str, String)>; 2]) -> String {
    let mut text = object.to_string();
    text.pop();
    for (name, value) in fields.into_iter().flatten() {
        text += &format!(",\"{name}\":{value}");
    }
    text + "}"
}
