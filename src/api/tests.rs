//! Tables of paths, requests, answers, keys and of who is let in; and the table of routes held against its description.

use serde_json::{Value, json};

use super::*;
use crate::control::Deed;
use crate::http::{HeadLimits, Method, Parsed, Refusal, Request, Response, parse_head};
use crate::id::{Epoch, Position};
use crate::keys::{Keys, KeysError};
use crate::protocol::Code;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn asked<'a>(held: &[&'a str], query: Option<&'a str>, body: &'a str) -> Asked<'a> {
    Asked {
        held: held.to_vec(),
        query,
        body: body.as_bytes(),
        depth: 64,
        unix_ms: 1_764_000_000_123,
    }
}

/// Reads a request as its route does.
fn read(
    method: Method,
    path: &str,
    query: Option<&str>,
    body: &str,
) -> Result<Vec<Command>, CommandError> {
    let Found::Route(route, held) = find(method, path) else {
        panic!("{path} is no route");
    };
    let call = route.read(&asked(&held, query, body))?;
    Ok(call.into_parts().0)
}

fn publishes(commands: &[Command]) -> Vec<&Publish> {
    let publish = |command: &'_ Command| matches!(command, Command::Publish(_));
    assert!(commands.iter().all(publish), "{commands:?}");
    let publishes = commands.iter().filter_map(|command| match command {
        Command::Publish(publish) => Some(publish),
        Command::History { .. } | Command::Order(_) => None,
    });
    publishes.collect()
}

fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

#[test]
fn every_path_is_a_route_another_method_or_nothing() {
    use Method::{Delete, Get, Head, Options, Post, Put};
    let table = [
        (Post, "/rooms/a/messages", "/rooms/{room}/messages a"),
        (Get, "/rooms/a/messages", "/rooms/{room}/messages a"),
        (Head, "/rooms/a/messages", "/rooms/{room}/messages a"),
        (
            Put,
            "/rooms/a/messages/k 1",
            "/rooms/{room}/messages/{key} a k 1",
        ),
        (Post, "/messages", "/messages"),
        (Post, "/batch", "/batch"),
        (
            Delete,
            "/users/ada/connections",
            "/users/{user}/connections ada",
        ),
        (
            Put,
            "/users/ada/rooms/a",
            "/users/{user}/rooms/{room} ada a",
        ),
        (
            Delete,
            "/users/ada/rooms/a",
            "/users/{user}/rooms/{room} ada a",
        ),
        (Get, "/users/ada/rooms/a", "allow PUT, DELETE"),
        (Get, "/users//connections", "nothing"),
        (Delete, "/rooms/a/messages", "allow POST, GET, HEAD"),
        (Options, "/batch", "allow POST"),
        (Get, "/rooms/a/messages/k", "allow PUT"),
        (Get, "/metrics", "metrics"),
        (Head, "/metrics", "metrics"),
        (Post, "/metrics", "allow GET, HEAD"),
        (Get, "/", "nothing"),
        (Get, "/rooms", "nothing"),
        (Post, "/rooms//messages", "nothing"),
        (Put, "/rooms/a/messages/", "nothing"),
        (Post, "/rooms/a/messages/k/l", "nothing"),
        (Post, "//messages", "nothing"),
        (Post, "/batch/", "nothing"),
        (Post, "/Batch", "nothing"),
    ];
    for (method, path, wanted) in table {
        let found = match find(method, path) {
            Found::Route(route, held) => [vec![route.path], held].concat().join(" "),
            Found::Metrics => "metrics".into(),
            Found::Otherwise(allow) => format!("allow {allow}"),
            Found::Nothing => "nothing".into(),
        };
        assert_eq!(found, wanted, "{method:?} {path}");
    }
}

#[test]
fn a_publish_is_read_with_all_its_fields() {
    let commands = read(
        Method::Post,
        "/rooms/lobby/messages",
        None,
        r#"{"data": {"a": 1 }, "key":"k\u002b1","user":"ada","others":"00000000000000a1-7"}"#,
    )
    .unwrap();
    let publish = publishes(&commands)[0];
    assert_eq!(publish.room.as_str(), "lobby");
    assert_eq!(publish.key.as_deref(), Some("k+1"));
    assert!(!publish.ephemeral);
    let Publication {
        user,
        time,
        except,
        data,
    } = &*publish.publication;
    assert_eq!(user.as_ref().unwrap().as_str(), "ada");
    assert_eq!((*time, data.get()), (1_764_000_000_123, r#"{"a": 1 }"#));
    assert_eq!(except.unwrap().to_string(), "00000000000000a1-7");

    let commands = read(
        Method::Put,
        "/rooms/@ada/messages/n:1",
        None,
        r#"{"data":null}"#,
    )
    .unwrap();
    let publish = publishes(&commands)[0];
    assert_eq!(publish.room.as_str(), "@ada");
    assert_eq!(publish.key.as_deref(), Some("n:1"));

    let ephemeral = r#"{"data":1,"ephemeral":true}"#;
    let commands = read(Method::Post, "/rooms/a/messages", None, ephemeral).unwrap();
    assert!(publishes(&commands)[0].ephemeral);
}

#[test]
fn many_rooms_share_one_datum_and_a_batch_keeps_its_order() {
    let many = r#"{"rooms":["a","b"],"data":[1],"key":"k"}"#;
    let commands = read(Method::Post, "/messages", None, many).unwrap();
    let [a, b] = publishes(&commands)[..] else {
        panic!("{commands:?}")
    };
    assert_eq!((a.room.as_str(), b.room.as_str()), ("a", "b"));
    assert!(Arc::ptr_eq(&a.publication, &b.publication));
    assert_eq!((a.key.as_deref(), b.key.as_deref()), (Some("k"), Some("k")));

    let batch = r#"{"publishes":[{"room":"b","data":1},{"room":"a","data":2,"key":"k"},{"room":"b","data":3}]}"#;
    let commands = read(Method::Post, "/batch", None, batch).unwrap();
    let said: Vec<_> = publishes(&commands)
        .iter()
        .map(|publish| (publish.room.as_str(), publish.publication.data.get()))
        .collect();
    assert_eq!(said, [("b", "1"), ("a", "2"), ("b", "3")]);
}

#[test]
fn history_is_read_from_its_parameters() {
    let table = [
        (None, (None, 50)),
        (Some(""), (None, 50)),
        (Some("limit=100"), (None, 100)),
        (Some("before=44&limit=1"), (Some(44), 1)),
        (Some("%62efore=44"), (Some(44), 50)),
    ];
    for (query, wanted) in table {
        let commands = read(Method::Get, "/rooms/a/messages", query, "").unwrap();
        let [Command::History { before, limit, .. }] = commands[..] else {
            panic!("{commands:?}")
        };
        assert_eq!((before, limit), wanted, "{query:?}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_a_sentence() {
    use Method::{Get, Post, Put};
    let rooms = |count: usize| {
        let rooms: Vec<String> = (0..count).map(|n| format!("r{n}")).collect();
        json!({"rooms": rooms, "data": 1}).to_string()
    };
    let batch = |count: usize| {
        json!({"publishes": vec![json!({"room": "a", "data": 1}); count]}).to_string()
    };
    assert_eq!(
        read(Post, "/messages", None, &rooms(100)).unwrap().len(),
        100
    );
    assert_eq!(read(Post, "/batch", None, &batch(100)).unwrap().len(), 100);
    let (many, much) = (rooms(101), batch(101));
    let deep =
        |levels: usize| format!(r#"{{"data":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(read(Post, "/rooms/a/messages", None, &deep(63)).is_ok());
    let deep = deep(64);
    let long_key = format!("/rooms/a/messages/{}", "k".repeat(65));
    let (one, a, key) = ("/rooms/a/messages", "/messages", "/rooms/a/messages/k");
    let (ended, brought) = ("/users/ada/connections", "/users/ada/rooms/a");
    #[rustfmt::skip]
    let table: &[(Method, &str, Option<&str>, &str, &str)] = &[
        (Post, one, None, "", "one JSON object"),
        (Post, one, None, "[]", "one JSON object"),
        (Post, one, None, &deep, "at most 64 deep"),
        (Post, one, None, r#"{"data":1} x"#, "trailing"),
        (Post, one, None, "{}", "send `data`"),
        (Post, one, None, r#"{"data":1,"dta":2}"#, "unknown field `dta`"),
        (Post, one, None, r#"{"data":1,"data":2}"#, "duplicate field `data`"),
        (Post, one, None, r#"{"data":1,"user":null}"#, "null"),
        (Post, one, None, r#"{"data":1,"user":"a b"}"#, "user name"),
        (Post, one, None, r#"{"data":1,"key":""}"#, "1 to 64 of"),
        (Post, one, None, r#"{"data":1,"ephemeral":1}"#, "boolean"),
        (Post, one, None, r#"{"data":1,"ephemeral":true,"key":"k"}"#, "takes no key"),
        (Post, one, None, r#"{"data":1,"others":true}"#, "string"),
        (Post, one, None, r#"{"data":1,"others":"ada"}"#, "name a session"),
        (Post, one, None, r#"{"data":1,"room":"a"}"#, "in the path"),
        (Post, one, None, r#"{"data":1,"rooms":["a"]}"#, "in the path"),
        (Post, one, Some("a=b"), r#"{"data":1}"#, "no parameters"),
        (Post, "/rooms/a b/messages", None, r#"{"data":1}"#, "room name"),
        (Put, key, None, r#"{"data":1,"key":"k"}"#, "in the path"),
        (Put, key, None, r#"{"data":1,"ephemeral":true}"#, "leave `ephemeral` out"),
        (Put, "/rooms/a/messages/k l", None, r#"{"data":1}"#, "1 to 64 of"),
        (Get, one, Some("before=9007199254740993"), "", "2^53"),
        (Put, &long_key, None, r#"{"data":1}"#, "1 to 64 of"),
        (Post, a, None, r#"{"data":1}"#, "send `rooms`"),
        (Post, a, None, r#"{"data":1,"room":"a"}"#, "instead of `room`"),
        (Post, a, None, r#"{"data":1,"rooms":[]}"#, "1 to 100"),
        (Post, a, None, r#"{"data":1,"rooms":["a","b","a"]}"#, "once"),
        (Post, a, None, r#"{"data":1,"rooms":["a","b c"]}"#, "room name"),
        (Post, a, None, r#"{"rooms":["a"]}"#, "send `data`"),
        (Post, a, None, &many, "1 to 100"),
        (Post, "/batch", None, r#"{"publishes":[]}"#, "1 to 100"),
        (Post, "/batch", None, &much, "1 to 100"),
        (Post, "/batch", None, r#"{"publishes":[{"room":"a","data":1},{"data":1}]}"#, "publishes[1]: send a `room`"),
        (Post, "/batch", None, r#"{"publishes":[["a"]]}"#, "publishes[0]: send one JSON object"),
        (Post, "/batch", None, r#"["a"]"#, "one JSON object"),
        (Post, "/batch", None, r#"{"publishes":[{"rooms":["a"],"data":1}]}"#, "publishes[0]: "),
        (Method::Delete, ended, Some("forbid_return"), "", "true or false"),
        (Method::Delete, ended, Some("forbid_return=1"), "", "true or false"),
        (Method::Delete, ended, Some("forbid_return=true&forbid_return=true"), "", "once"),
        (Method::Delete, "/users/@ada/connections", None, "", "user name"),
        (Put, brought, None, r#"{"room":"a"}"#, "unknown field"),
        (Put, brought, None, "[]", "one JSON object"),
        (Put, brought, Some("a=b"), "", "no parameters"),
        (Method::Delete, brought, Some("a=b"), "", "no parameters"),
        (Get, one, Some("limit=0"), "", "between 1 and 100"),
        (Get, one, Some("limit=101"), "", "between 1 and 100"),
        (Get, one, Some("limit=99999999999999999999"), "", "whole number"),
        (Get, one, Some("limit=-1"), "", "whole number"),
        (Get, one, Some("limit"), "", "whole number"),
        (Get, one, Some("before=+1"), "", "whole number"),
        (Get, one, Some("limit=1&limit=2"), "", "once"),
        (Get, one, Some("since=1"), "", "`before` and `limit`"),
    ];
    for (method, path, query, body, part) in table {
        let error = read(*method, path, *query, body).expect_err(part);
        assert_eq!(error.code, Code::BadRequest, "{path} {body}");
        assert!(
            error.reason.contains(part),
            "{path} {body}: {}",
            error.reason
        );
    }
    let error = read(Post, "/rooms/$nodes/messages", None, r#"{"data":1}"#).unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    for room in ["$control", "@ada", "@bob"] {
        let error = read(Put, &format!("/users/ada/rooms/{room}"), None, "").unwrap_err();
        assert_eq!(error.code, Code::Forbidden, "{room}");
    }
}

#[test]
fn what_is_to_be_done_with_a_user_is_read_from_path_and_query() {
    use Method::{Delete, Put};
    let lobby = || RoomName::new("lobby").unwrap();
    let table = [
        (Delete, "connections", None, Deed::Disconnect),
        (
            Delete,
            "connections",
            Some("forbid_return=false"),
            Deed::Disconnect,
        ),
        (
            Delete,
            "connections",
            Some("forbid_return=true"),
            Deed::Revoke,
        ),
        (Put, "rooms/lobby", None, Deed::Join(lobby())),
        (Delete, "rooms/lobby", None, Deed::Leave(lobby())),
    ];
    for (method, path, query, wanted) in table {
        let commands = read(method, &format!("/users/ada/{path}"), query, "").unwrap();
        let [Command::Order(order)] = &commands[..] else {
            panic!("{commands:?}");
        };
        assert_eq!((order.user.as_str(), &order.deed), ("ada", &wanted));
    }
    assert!(read(Put, "/users/ada/rooms/lobby", None, "{}").is_ok());
}

#[test]
fn each_code_has_its_status_and_only_unavailable_says_when_to_return() {
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
        assert_eq!(response.status.code(), wanted);
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
    let Found::Route(route, held) = find(method, path) else {
        panic!("{path}")
    };
    let (commands, mut waiting) = route.read(&asked(&held, None, body)).unwrap().into_parts();
    assert_eq!(commands.len(), answers.len());
    for (place, answer) in answers.iter().enumerate() {
        waiting.asked(place);
        if let Some(answer) = answer {
            waiting.put(place, answer.clone());
        }
    }
    waiting.response()
}

#[test]
fn silence_is_unknown_for_what_changes_and_unavailable_for_what_only_reads() {
    let published = answered(Method::Post, "/rooms/a/messages", r#"{"data":1}"#, &[None]);
    assert_eq!(published.status.code(), 504);
    let read = answered(Method::Get, "/rooms/a/messages", "", &[None]);
    assert_eq!(read.status.code(), 503);
    let batch = r#"{"publishes":[{"room":"a","data":1},{"room":"b","data":1}]}"#;
    let call = publishes_waiting(batch);
    assert_eq!(
        body(&call)["results"][0]["code"],
        "unavailable",
        "never asked"
    );
}

fn publishes_waiting(batch: &str) -> Response {
    let Found::Route(route, held) = find(Method::Post, "/batch") else {
        panic!()
    };
    let (_, mut waiting) = route.read(&asked(&held, None, batch)).unwrap().into_parts();
    waiting.asked(0);
    waiting.not_asked(0);
    waiting.response()
}

#[test]
fn results_stand_in_order_and_fail_as_a_whole_only_when_all_have_failed() {
    let ok = || {
        Some(Ok(Bytes::from_static(
            br#"{"room":"a","epoch":"e","offset":1}"#,
        )))
    };
    let full = || Some(Err(CommandError::from(crate::publication::Refused::Full)));
    let batch = r#"{"publishes":[{"room":"a","data":1},{"room":"b","data":1}]}"#;
    let some = answered(Method::Post, "/batch", batch, &[ok(), full()]);
    assert_eq!(some.status.code(), 200);
    let results = body(&some);
    assert_eq!(results["results"][0]["offset"], 1);
    assert_eq!(results["results"][1]["room"], "b");
    assert_eq!(results["results"][1]["code"], "full");
    let none = answered(Method::Post, "/batch", batch, &[full(), None]);
    assert_eq!(none.status.code(), 507);
    assert_eq!(body(&none)["results"][1]["code"], "unknown");
}

#[test]
fn an_answer_finds_its_place_and_one_too_late_is_dropped() {
    let (telling, answers) = flume::bounded(2);
    let room = RoomName::new("a").unwrap();
    let position = Some(Position {
        epoch: Epoch::new(1),
        offset: 3,
    });
    let reply = Reply::Published {
        room: &room,
        position,
    };
    let caller = Caller::new(1, telling);
    caller.tell(&reply);
    let (place, answer) = answers.try_recv().unwrap();
    let answer: Value = serde_json::from_slice(&answer.unwrap()).unwrap();
    assert_eq!(place, 1);
    assert_eq!(
        answer,
        json!({"room": "a", "epoch": "0000000000000001", "offset": 3})
    );
    drop(answers);
    caller.tell(&reply);
}

fn request(fields: &str) -> Request {
    let head = format!("POST /batch HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n");
    match parse_head(head.as_bytes(), &HeadLimits::default()) {
        Ok(Parsed::Complete { request, .. }) => request,
        other => panic!("{other:?} for {fields}"),
    }
}

fn status_of(admitted: Result<&str, Refusal>) -> u16 {
    admitted.err().map_or(200, |refusal| refusal.status.code())
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn whoever_shows_a_key_is_let_in_and_nobody_else() {
    let gate = Gate::Keys(Keys::parse(&format!("shop:{KEY}\n{}", "x".repeat(32))).unwrap());
    let bearer = |key: &str| format!("Host: a\r\nAuthorization: {key}\r\n{JSON}");
    let admit = |fields: &str| gate.admit(&request(fields)).map(str::to_owned);
    assert_eq!(admit(&bearer(&format!("Bearer {KEY}"))).unwrap(), "shop");
    assert_eq!(admit(&bearer(&format!("bearer  {KEY}"))).unwrap(), "shop");
    assert_eq!(
        admit(&bearer(&format!("Bearer {}", "x".repeat(32)))).unwrap(),
        "line-2"
    );
    for wrong in [
        format!("Bearer {KEY}0"),
        format!("Bearer {}", &KEY[1..]),
        format!("Bearer {}", KEY.to_uppercase()),
        format!("Basic {KEY}"),
        format!("Bearer{KEY}"),
        "Bearer ".into(),
        "Bearer".into(),
        KEY.into(),
    ] {
        let refusal = admit(&bearer(&wrong)).unwrap_err();
        assert_eq!(refusal.status.code(), 401, "{wrong}");
        let field = Response::from(refusal);
        let field = field.header("WWW-Authenticate").unwrap();
        assert!(field.contains("invalid_token"), "{wrong}: {field}");
    }
    let none = admit(&format!("Host: a\r\n{JSON}")).unwrap_err();
    let field = Response::from(none);
    assert_eq!(
        field.header("WWW-Authenticate"),
        Some("Bearer realm=\"switchboard\"")
    );
    let twice = format!("Authorization: Bearer {KEY}\r\n").repeat(2);
    assert_eq!(
        admit(&format!("Host: a\r\n{twice}{JSON}"))
            .unwrap_err()
            .status
            .code(),
        401
    );
}

#[test]
fn a_body_that_is_not_said_to_be_json_is_refused() {
    for (fields, wanted) in [
        ("Content-Type: application/json\r\n", 200),
        ("Content-Type: Application/JSON; charset=utf-8\r\n", 200),
        ("", 415),
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/x-www-form-urlencoded\r\n", 415),
        ("Content-Type: application/jsonp\r\n", 415),
        ("Content-Type: text/plain, application/json\r\n", 415),
        (
            "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
            415,
        ),
    ] {
        let request = request(&format!("Host: localhost\r\n{fields}"));
        let checked = check_type(&request).map(|()| "");
        assert_eq!(status_of(checked), wanted, "{fields}");
    }
}

#[test]
fn without_keys_only_programs_of_this_machine_are_let_in() {
    for (fields, wanted) in [
        ("Host: localhost:9090\r\n", 200),
        ("Host: 127.0.0.1:9090\r\n", 200),
        ("Host: [::1]:9090\r\n", 200),
        ("Host: 127.0.0.1\r\nSec-Fetch-Site: none\r\n", 200),
        ("Host: 10.0.0.1:9090\r\n", 403),
        ("Host: rebound.example:9090\r\n", 403),
        ("Host: localhost.example\r\n", 403),
        ("Host: localhost\r\nOrigin: http://localhost\r\n", 403),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403),
        ("Host: localhost\r\nSec-Fetch-Site: same-origin\r\n", 403),
        ("Host: localhost\r\nX-Forwarded-For: 127.0.0.1\r\n", 403),
        ("Host: localhost\r\nX-Real-IP: 127.0.0.1\r\n", 403),
        ("Host: localhost\r\nForwarded: for=127.0.0.1\r\n", 403),
        ("Host: localhost\r\nVia: 1.1 proxy\r\n", 403),
    ] {
        let request = request(&format!("{fields}{JSON}"));
        assert_eq!(status_of(Gate::Desk.admit(&request)), wanted, "{fields}");
        assert_eq!(status_of(Gate::Closed.admit(&request)), 404, "{fields}");
    }
}

#[test]
fn a_file_of_keys_is_read_or_refused_by_its_line() {
    let good = format!("# ours\n\n{KEY}\r\n shop : {KEY}= \n");
    let keys = Keys::parse(&good).unwrap();
    assert_eq!(keys.name_of(KEY), Some("line-3"));
    assert_eq!(keys.name_of(&format!("{KEY}=")), Some("shop"));
    assert_eq!(format!("{keys:?}"), r#"["line-3", "shop"]"#);
    for (text, wanted) in [
        (String::new(), KeysError::None),
        ("# nothing\n".into(), KeysError::None),
        (KEY[1..].into(), KeysError::Key(1)),
        (format!("{KEY}\na b:{KEY}"), KeysError::Name(2)),
        (format!(":{KEY}"), KeysError::Name(1)),
        (format!("a:{KEY}\na:{KEY}"), KeysError::Name(2)),
        (format!("a:{KEY}!"), KeysError::Key(1)),
        (format!("a:b:{KEY}"), KeysError::Key(1)),
        ("k".repeat(1025), KeysError::Key(1)),
    ] {
        let error = Keys::parse(&text).unwrap_err();
        assert_eq!(error, wanted, "{text}");
        assert!(!error.to_string().contains(&KEY[..8]));
    }
}

#[test]
fn every_route_stands_in_the_description_and_nothing_else_does() {
    let description = include_str!("../../docs/openapi.yaml");
    let (_, paths) = description.split_once("\npaths:\n").unwrap();
    let (paths, _) = paths.split_once("\ncomponents:\n").unwrap();
    let (mut described, mut path) = (Vec::new(), "");
    for line in paths.lines().filter_map(|line| line.strip_suffix(':')) {
        match line.strip_prefix("    ").unwrap_or(line) {
            _ if line.starts_with("  /") => path = line.trim(),
            method @ ("get" | "post" | "put" | "delete" | "options" | "head") => {
                described.push(format!("{} {path}", method.to_uppercase()));
            }
            _ => {}
        }
    }
    let routes = ROUTES.iter().map(|route| (route.method, route.path));
    let offered = routes.chain([(Method::Get, METRICS_PATH)]);
    let mut offered: Vec<_> = offered
        .map(|(method, path)| format!("{} {path}", method.as_str()))
        .collect();
    described.sort();
    offered.sort();
    assert_eq!(described, offered);
}
