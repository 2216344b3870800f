//! JSON that strict readers refuse (half surrogate pairs, numbers beyond doubles) is `bad_request`
//! at every entrance, so that no client's page of messages or members has it.

use async_tungstenite::tungstenite::Message;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use switchboard::{ErrorCode, PublishOptions};

use crate::support::http::HttpClient;
use crate::support::{TestNode, run};

/// Values of JSON that `serde_json::Value`, which is strict, cannot hold.
const REFUSED: [&str; 7] = [
    r#""\ud83d""#,
    r#""\ude00\ud83d""#,
    r#"{"\udbff":1}"#,
    r#"[["text \uD83D\n"]]"#,
    "1e400",
    r#"{"n":[-1E+999]}"#,
    r#"[0.1e311,"1e400"]"#,
];

/// Values close to those that every reader accepts.
const ACCEPTED: [&str; 4] = [
    r#""\ud83d\ude00""#,
    r#""1e400 \\ud83d""#,
    "[1e308,1e-400]",
    r#"{"hex":"12e45678"}"#,
];

#[test]
fn websocket_refuses_json_that_strict_readers_refuse() {
    run(async {
        let node = TestNode::start().await;
        let mut ada = node.client().await;
        for value in REFUSED {
            for frame in [
                format!(r#"{{"type":"publish","id":7,"room":"lobby","data":{value}}}"#),
                format!(
                    r#"{{"type":"publish","id":7,"room":"lobby","ephemeral":true,"data":{value}}}"#
                ),
                format!(r#"{{"type":"auth","id":7,"user":"ada","info":{{"v":{value}}}}}"#),
            ] {
                ada.send_raw(Message::text(frame.clone())).await;
                assert_eq!(ada.reply(7).await["code"], "bad_request", "{frame}");
            }
        }
        for value in ACCEPTED {
            let frame = format!(r#"{{"type":"publish","id":7,"room":"lobby","data":{value}}}"#);
            ada.send_raw(Message::text(frame)).await;
            assert_eq!(ada.reply(7).await["type"], "ok", "{value}");
        }
        let read = json!({"type": "history", "room": "lobby"});
        let page = ada.call(read).await;
        let data = page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| &message["data"]);
        let expected: Vec<Value> = ACCEPTED
            .iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        assert_eq!(
            data.collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>()
        );
    });
}

#[test]
fn http_api_refuses_json_that_strict_readers_refuse() {
    run(async {
        let node = TestNode::start().await;
        let mut backend = HttpClient::connect(node.address).await;
        for value in REFUSED {
            let calls = [
                (
                    "POST /rooms/lobby/messages",
                    format!(r#"{{"data":{value}}}"#),
                ),
                (
                    "PUT /rooms/lobby/messages/k",
                    format!(r#"{{"data":{value}}}"#),
                ),
                (
                    "POST /messages",
                    format!(r#"{{"rooms":["lobby"],"data":{value}}}"#),
                ),
                (
                    "POST /batch",
                    format!(
                        r#"{{"publishes":[{{"room":"a","data":1}},{{"room":"b","data":{value}}}]}}"#
                    ),
                ),
            ];
            for (call, body) in calls {
                let fields = format!(
                    "Host: {}\r\nContent-Type: application/json\r\nContent-Length: {}",
                    node.address,
                    body.len()
                );
                backend
                    .send(format!("{call} HTTP/1.1\r\n{fields}\r\n\r\n{body}"))
                    .await;
                let answer = backend.answer().await;
                assert_eq!(answer.status, 400, "{call} {body}: {answer:?}");
                assert_eq!(answer.json()["code"], "bad_request", "{call} {body}");
            }
        }
    });
}

#[test]
fn program_with_a_node_inside_cannot_publish_json_that_strict_readers_refuse() {
    run(async {
        let node = TestNode::start().await;
        for value in REFUSED {
            let data = RawValue::from_string(value.into()).unwrap();
            let options = PublishOptions::default;
            let kept = node.server().publish("lobby", &data, options()).await;
            assert_eq!(kept.unwrap_err().code, ErrorCode::BadRequest, "{value}");
            let passing = node
                .server()
                .publish_ephemeral("lobby", &data, options())
                .await;
            assert_eq!(passing.unwrap_err().code, ErrorCode::BadRequest, "{value}");
        }
    });
}
