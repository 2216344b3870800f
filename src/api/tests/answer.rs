//! The responses to calls.

use serde_json::{Value, json};

use super::{GET, POST, api_request, body, segments};
use crate::api::*;
use crate::http::{Method, Response};
use crate::model::cluster_query::{Connection, ConnectionPage, QueryResult, RoomCount, RoomPage};
use crate::model::id::{Epoch, Position, RoomName, UserName};
use crate::model::publication::Sender;
use crate::model::source::CallerId;
use crate::protocol::Code;

#[test]
fn error_codes_map_to_statuses_and_only_unavailable_has_retry_after() {
    let table = [
        (Code::BadRequest, 400),
        (Code::Unauthorized, 401),
        (Code::Expired, 401),
        (Code::Forbidden, 403),
        (Code::Limit, 429),
        (Code::Unavailable, 503),
        (Code::Unknown, 504),
        (Code::Full, 507),
    ];
    for (code, wanted) in table {
        let response = refused(&CommandError::new(code, "Why."));
        assert_eq!(response.status.as_u16(), wanted);
        assert_eq!(
            body(&response),
            json!({"code": code.as_str(), "reason": "Why."})
        );
        let retry = response.header("Retry-After").is_some();
        assert_eq!(retry, code == Code::Unavailable, "{code:?}");
    }
}

/// A call, and its commands' answers as the dispatcher would give them.
fn answered(method: Method, path: &str, body: &str, answers: &[Option<Answer>]) -> Response {
    let segments = segments(path);
    let RouteMatch::Route(route, path_values) = find(&method, &segments) else {
        panic!("{path}")
    };
    let (commands, mut waiting) = route
        .read(&api_request(&path_values, None, body))
        .unwrap()
        .into_parts();
    assert_eq!(commands.len(), answers.len());
    for (place, answer) in answers.iter().enumerate() {
        waiting.sent(place);
        if let Some(answer) = answer {
            waiting.put(place, answer.clone());
        }
    }
    waiting.response()
}

#[test]
fn missing_answer_is_unknown_for_a_write_and_unavailable_for_a_read() {
    let published = answered(POST, "/rooms/a/messages", r#"{"data":1}"#, &[None]);
    assert_eq!(published.status.as_u16(), 504);
    let read = answered(GET, "/rooms/a/messages", "", &[None]);
    assert_eq!(read.status.as_u16(), 503);
    let batch = r#"{"publishes":[{"room":"a","data":1},{"room":"b","data":1}]}"#;
    let call = publishes_waiting(batch);
    assert_eq!(
        body(&call)["results"][0]["code"],
        "unavailable",
        "never sent"
    );
}

fn publishes_waiting(batch: &str) -> Response {
    let segments = segments("/batch");
    let RouteMatch::Route(route, path_values) = find(&POST, &segments) else {
        panic!()
    };
    let (_, mut waiting) = route
        .read(&api_request(&path_values, None, batch))
        .unwrap()
        .into_parts();
    waiting.sent(0);
    waiting.not_sent(0);
    waiting.response()
}

#[test]
fn results_are_in_order_and_the_call_fails_only_if_all_fail() {
    let ok = || {
        Some(Ok(Bytes::from_static(
            br#"{"room":"a","epoch":"e","offset":1}"#,
        )))
    };
    let full = || {
        Some(Err(CommandError::from(
            crate::model::publication::Refused::Full,
        )))
    };
    let batch = r#"{"publishes":[{"room":"a","data":1},{"room":"b","data":1}]}"#;
    let some = answered(POST, "/batch", batch, &[ok(), full()]);
    assert_eq!(some.status.as_u16(), 200);
    let results = body(&some);
    assert_eq!(results["results"][0]["offset"], 1);
    assert_eq!(results["results"][1]["room"], "b");
    assert_eq!(results["results"][1]["code"], "full");
    let none = answered(POST, "/batch", batch, &[full(), None]);
    assert_eq!(none.status.as_u16(), 507);
    assert_eq!(body(&none)["results"][1]["code"], "unknown");
}

#[test]
fn answers_carry_their_index_and_late_ones_are_dropped() {
    let (sender, answers) = flume::bounded(2);
    let room = RoomName::new("a").unwrap();
    let position = Some(Position {
        epoch: Epoch::new(1),
        offset: 3,
    });
    let reply = Reply::Published {
        room: &room,
        position,
    };
    let caller = ApiCaller::new(CallerId::LOCAL, 1, sender);
    caller.reply(&reply);
    let (place, answer) = answers.try_recv().unwrap();
    let answer: Value = serde_json::from_slice(&answer.unwrap()).unwrap();
    assert_eq!(place, 1);
    assert_eq!(
        answer,
        json!({"room": "a", "epoch": "0000000000000001", "offset": 3})
    );
    drop(answers);
    caller.reply(&reply);
}

fn encoded(result: &QueryResult) -> Value {
    let (sender, answers) = flume::bounded(1);
    ApiCaller::new(CallerId::LOCAL, 0, sender).reply(&Reply::QueryResult(result));
    let (_, answer) = answers.try_recv().unwrap();
    serde_json::from_slice(&answer.unwrap()).unwrap()
}

#[test]
fn query_results_omit_unknown_fields() {
    let count = |room: &str, anonymous| RoomCount {
        room: RoomName::new(room).unwrap(),
        connections: 3,
        users: 2,
        anonymous,
    };
    let position = Position {
        epoch: Epoch::new(0x2a),
        offset: 0,
    };
    let lobby = json!({"room": "lobby", "connections": 3, "users": 2, "anonymous": 1});
    let mut here = lobby.clone();
    (here["epoch"], here["offset"]) = (json!("000000000000002a"), json!(0));
    assert_eq!(encoded(&QueryResult::Room(count("lobby", 1), None)), lobby);
    assert_eq!(
        encoded(&QueryResult::Room(count("lobby", 1), Some(position))),
        here
    );

    let page = RoomPage {
        rooms: vec![count("lobby", 1), count("tea", 0)],
        more: true,
    };
    let tea = json!({"room": "tea", "connections": 3, "users": 2, "anonymous": 0});
    let wanted = json!({"rooms": [lobby, tea], "more": true});
    assert_eq!(encoded(&QueryResult::Rooms(page)), wanted);
    let none = QueryResult::Rooms(RoomPage::default());
    assert_eq!(encoded(&none), json!({"rooms": [], "more": false}));

    let info: Box<serde_json::value::RawValue> = serde_json::from_str(r#"{"n":1}"#).unwrap();
    let connection = |session: &str, info| Connection {
        session: Sender::parse(session).unwrap(),
        node: "a".into(),
        info,
    };
    let page = ConnectionPage {
        user: UserName::new("ada").unwrap(),
        connections: vec![
            connection("713ea423d53a9559-1", Some(info.into())),
            connection("713ea423d53a9559-2", None),
        ],
        count: 7,
        more: true,
    };
    let listed = json!([
        {"session": "713ea423d53a9559-1", "node": "a", "info": {"n": 1}},
        {"session": "713ea423d53a9559-2", "node": "a"},
    ]);
    let wanted = json!({"user": "ada", "connections": listed, "count": 7, "more": true});
    assert_eq!(encoded(&QueryResult::Connections(page)), wanted);
}
