//! Requests as they are understood, or refused with a sentence.

use serde_json::json;

use std::sync::Arc;

use super::{DELETE, GET, POST, PUT, publishes, read};
use crate::api::*;
use crate::http::Method;
use crate::model::cluster_query::{ClusterQuery, RoomKind};
use crate::model::control::{ControlAction, Cutoff};
use crate::model::id::{RoomName, RoomPrefix, UserName};
use crate::model::member::MembersQuery;
use crate::model::publication::{Publication, Publish, Sender};
use crate::protocol::Code;

fn key_of(publish: &Publish) -> Option<&str> {
    publish.key.as_ref().map(|key| &*key.key)
}

#[test]
fn publishes_are_read_with_all_fields() {
    let commands = read(
        POST,
        "/rooms/lobby/messages",
        None,
        r#"{"data": {"a": 1 }, "key":"k\u002b1","user":"ada","others":"00000000000000a1-7"}"#,
    )
    .unwrap();
    let publish = publishes(&commands)[0];
    assert_eq!(publish.room.as_str(), "lobby");
    assert_eq!(key_of(publish), Some("k+1"));
    assert!(!publish.ephemeral);
    let Publication {
        user,
        time,
        except,
        data,
        ..
    } = &*publish.publication;
    assert_eq!(user.as_ref().unwrap().as_str(), "ada");
    assert_eq!(
        (*time, data.json()),
        (1_764_000_000_123, Some(r#"{"a": 1 }"#))
    );
    assert_eq!(except.unwrap().to_string(), "00000000000000a1-7");

    let commands = read(PUT, "/rooms/@ada/messages/n:1", None, r#"{"data":null}"#).unwrap();
    let publish = publishes(&commands)[0];
    assert_eq!(publish.room.as_str(), "@ada");
    assert_eq!(key_of(publish), Some("n:1"));

    let ephemeral = r#"{"data":1,"ephemeral":true}"#;
    let commands = read(POST, "/rooms/a/messages", None, ephemeral).unwrap();
    assert!(publishes(&commands)[0].ephemeral);
}

#[test]
fn many_rooms_share_one_datum_and_a_batch_keeps_its_order() {
    let many = r#"{"rooms":["a","b"],"data":[1],"key":"k"}"#;
    let commands = read(POST, "/messages", None, many).unwrap();
    let [a, b] = publishes(&commands)[..] else {
        panic!("{commands:?}")
    };
    assert_eq!((a.room.as_str(), b.room.as_str()), ("a", "b"));
    assert!(Arc::ptr_eq(&a.publication, &b.publication));
    assert_eq!((key_of(a), key_of(b)), (Some("k"), Some("k")));

    let batch = concat!(
        r#"{"publishes":[{"room":"b","data":1},{"room":"a","data":2,"key":"k"},"#,
        r#"{"room":"b","data":3}]}"#
    );
    let commands = read(POST, "/batch", None, batch).unwrap();
    let published: Vec<_> = publishes(&commands)
        .iter()
        .map(|publish| {
            (
                publish.room.as_str(),
                publish.publication.data.json().unwrap(),
            )
        })
        .collect();
    assert_eq!(published, [("b", "1"), ("a", "2"), ("b", "3")]);
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
        let commands = read(GET, "/rooms/a/messages", query, "").unwrap();
        let [Command::History(history)] = &commands[..] else {
            panic!("{commands:?}")
        };
        assert_eq!((history.before, history.limit), wanted, "{query:?}");
    }
}

#[test]
fn questions_for_the_whole_cluster_are_read_from_path_and_parameters() {
    let room = |name: &str| RoomName::new(name).unwrap();
    let rooms = |kind, prefix: &str, after: &str, limit| ClusterQuery::Rooms {
        kind,
        prefix: (!prefix.is_empty()).then(|| RoomPrefix::new(prefix).unwrap()),
        after: (!after.is_empty()).then(|| room(after)),
        limit,
    };
    let connections = |after: &str, limit| ClusterQuery::Connections {
        user: UserName::new("ada").unwrap(),
        after: Sender::parse(after),
        limit,
    };
    let of_ada = "/users/ada/connections";
    let (session, behind) = ("00000000000000a1-7", "after=00000000000000a1-7&limit=1000");
    for (path, query, wanted) in [
        ("/rooms/a", None, ClusterQuery::Room(room("a"))),
        ("/rooms/@ada", None, ClusterQuery::Room(room("@ada"))),
        ("/rooms", None, rooms(RoomKind::Chosen, "", "", 100)),
        (
            "/rooms",
            Some("prefix=a.&after=a.b&limit=1"),
            rooms(RoomKind::Chosen, "a.", "a.b", 1),
        ),
        (
            "/rooms",
            Some("prefix=%40"),
            rooms(RoomKind::Personal, "@", "", 100),
        ),
        (of_ada, None, connections("", 100)),
        (of_ada, Some(behind), connections(session, 1000)),
    ] {
        let commands = read(GET, path, query, "").unwrap();
        let [Command::ClusterQuery(question)] = &commands[..] else {
            panic!("{commands:?}")
        };
        assert_eq!(**question, wanted, "{path} {query:?}");
    }
    let query = Some("after=ada&limit=7");
    let commands = read(GET, "/rooms/a/members", query, "").unwrap();
    let [Command::Members(MembersQuery { room, after, limit })] = &commands[..] else {
        panic!("{commands:?}")
    };
    let after = after.as_ref().map(UserName::as_str);
    assert_eq!((room.as_str(), after, *limit), ("a", Some("ada"), 7));
}

#[test]
fn names_stand_in_a_segment_or_in_the_query() {
    let members = |room: &str| match read(GET, "/rooms/-/members", Some(room), "") {
        Ok(commands) => format!("{commands:?}"),
        Err(error) => error.reason.into_owned(),
    };
    for (query, expected) in [
        ("room=team/1", r#"RoomName("team/1")"#),
        ("room=team%2F1&limit=3", r#"RoomName("team/1")"#),
        ("limit=3&room=a%3Db", r#"RoomName("a=b")"#),
        (
            "room=@ada%2540example.com",
            r#"RoomName("@ada%40example.com")"#,
        ),
        ("room=.", "room name"),
        ("room=", "room name"),
        ("room=a&room=b", "parameters are"),
    ] {
        let found = members(query);
        assert!(found.contains(expected), "{query}: {found}");
    }
    let both = read(
        PUT,
        "/users/-/rooms/-",
        Some("room=team/1&user=auth0%7C5f7c"),
        "",
    )
    .unwrap();
    let both = format!("{both:?}");
    assert!(
        both.contains("auth0|5f7c") && both.contains("team/1"),
        "{both}"
    );
    let twice = read(GET, "/rooms/a/members", Some("room=b"), "").unwrap_err();
    assert!(twice.reason.contains("in the path already"), "{twice:?}");
    let key = read(
        PUT,
        "/rooms/-/messages/k",
        Some("room=team/1"),
        r#"{"data":1}"#,
    )
    .unwrap();
    assert_eq!(publishes(&key)[0].room.as_str(), "team/1");
}

#[test]
fn invalid_requests_are_refused_with_a_sentence() {
    let rooms = |count: usize| {
        let rooms: Vec<String> = (0..count).map(|n| format!("r{n}")).collect();
        json!({"rooms": rooms, "data": 1}).to_string()
    };
    let batch = |count: usize| {
        json!({"publishes": vec![json!({"room": "a", "data": 1}); count]}).to_string()
    };
    assert_eq!(
        read(POST, "/messages", None, &rooms(100)).unwrap().len(),
        100
    );
    assert_eq!(read(POST, "/batch", None, &batch(100)).unwrap().len(), 100);
    let (many, much) = (rooms(101), batch(101));
    let deep =
        |levels: usize| format!(r#"{{"data":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(read(POST, "/rooms/a/messages", None, &deep(63)).is_ok());
    let deep = deep(64);
    let long_key = format!("/rooms/a/messages/{}", "k".repeat(65));
    let (one, a, key) = ("/rooms/a/messages", "/messages", "/rooms/a/messages/k");
    let (ended, brought) = ("/users/ada/connections", "/users/ada/rooms/a");
    let members = "/rooms/a/members";
    #[rustfmt::skip]
    let table: &[(Method, &str, Option<&str>, &str, &str)] = &[
        (POST, one, None, "", "one JSON object"),
        (POST, one, None, "[]", "one JSON object"),
        (POST, one, None, &deep, "at most 64 deep"),
        (POST, one, None, r#"{"data":1} x"#, "trailing"),
        (POST, one, None, "{}", "send `data`"),
        (POST, one, None, r#"{"data":1,"dta":2}"#, "unknown field `dta`"),
        (POST, one, None, r#"{"data":1,"data":2}"#, "duplicate field `data`"),
        (POST, one, None, r#"{"data":"\ud83d"}"#, "half of a character"),
        (POST, a, None, r#"{"rooms":["a"],"data":[1e400]}"#, "range of a double"),
        (POST, "/batch", None, r#"{"publishes":[{"room":"a","data":-1e999}]}"#, "of a double"),
        (PUT, key, None, r#"{"data":{"\udc00":1}}"#, "half of a character"),
        (POST, one, None, r#"{"data":1,"user":null}"#, "null"),
        (POST, one, None, r#"{"data":1,"user":"a\u0001"}"#, "user name"),
        (POST, one, None, r#"{"data":1,"key":""}"#, "1 to 64 of"),
        (POST, one, None, r#"{"data":1,"ephemeral":1}"#, "boolean"),
        (POST, one, None, r#"{"data":1,"ephemeral":true,"key":"k"}"#, "takes no key"),
        (POST, one, None, r#"{"data":1,"others":true}"#, "string"),
        (POST, one, None, r#"{"data":1,"others":"ada"}"#, "name a session"),
        (POST, one, None, r#"{"data":1,"room":"a"}"#, "in the path"),
        (POST, one, None, r#"{"data":1,"rooms":["a"]}"#, "in the path"),
        (POST, one, Some("a=b"), r#"{"data":1}"#, "no parameters"),
        (POST, "/rooms/a b/messages", None, r#"{"data":1}"#, "room name"),
        (PUT, key, None, r#"{"data":1,"key":"k"}"#, "in the path"),
        (PUT, key, None, r#"{"data":1,"ephemeral":true}"#, "leave `ephemeral` out"),
        (PUT, "/rooms/a/messages/k l", None, r#"{"data":1}"#, "1 to 64 of"),
        (GET, one, Some("before=9007199254740993"), "", "2^53"),
        (PUT, &long_key, None, r#"{"data":1}"#, "1 to 64 of"),
        (POST, a, None, r#"{"data":1}"#, "send `rooms`"),
        (POST, a, None, r#"{"data":1,"room":"a"}"#, "instead of `room`"),
        (POST, a, None, r#"{"data":1,"rooms":[]}"#, "1 to 100"),
        (POST, a, None, r#"{"data":1,"rooms":["a","b","a"]}"#, "once"),
        (POST, a, None, r#"{"data":1,"rooms":["a","b c"]}"#, "room name"),
        (POST, a, None, r#"{"rooms":["a"]}"#, "send `data`"),
        (POST, a, None, &many, "1 to 100"),
        (POST, "/batch", None, r#"{"publishes":[]}"#, "1 to 100"),
        (POST, "/batch", None, &much, "1 to 100"),
        (POST, "/batch", None, r#"{"publishes":[{"room":"a","data":1},{"data":1}]}"#,
         "publishes[1]: send a `room`"),
        (POST, "/batch", None, r#"{"publishes":[["a"]]}"#, "publishes[0]: send one JSON object"),
        (POST, "/batch", None, r#"["a"]"#, "one JSON object"),
        (POST, "/batch", None, r#"{"publishes":[{"rooms":["a"],"data":1}]}"#, "publishes[0]: "),
        (DELETE, ended, Some("forbid_return"), "", "true or false"),
        (DELETE, ended, Some("forbid_return=1"), "", "true or false"),
        (DELETE, ended, Some("forbid_return=true&forbid_return=true"), "", "once"),
        (DELETE, ended, Some("issued_before=1"), "", "with `forbid_return=true` only"),
        (DELETE, ended, Some("forbid_return=true&issued_before="), "", "seconds since 1970"),
        (DELETE, ended, Some("forbid_return=true&issued_before=0"), "", "seconds since 1970"),
        (DELETE, ended, Some("forbid_return=true&issued_before=-1"), "", "seconds since 1970"),
        (DELETE, ended, Some("forbid_return=true&issued_before=1e3"), "", "seconds since 1970"),
        (DELETE, ended, Some("forbid_return=true&issued_before=inf"), "", "seconds since 1970"),
        (DELETE, ended, Some("forbid_return=true&issued_before=1.2.3"), "", "seconds since 1970"),
        // In milliseconds by mistake.
        (DELETE, ended, Some("forbid_return=true&issued_before=1764000000000"), "",
         "ahead of this server's clock"),
        (DELETE, "/users/a\u{85}/connections", None, "", "user name"),
        (PUT, brought, None, r#"{"room":"a"}"#, "unknown field"),
        (PUT, brought, None, "[]", "one JSON object"),
        (PUT, brought, Some("a=b"), "", "no parameters"),
        (DELETE, brought, Some("a=b"), "", "no parameters"),
        (GET, one, Some("limit=0"), "", "between 1 and 100"),
        (GET, one, Some("limit=101"), "", "between 1 and 100"),
        (GET, one, Some("limit=99999999999999999999"), "", "whole number"),
        (GET, one, Some("limit=-1"), "", "whole number"),
        (GET, one, Some("limit"), "", "whole number"),
        (GET, one, Some("before=+1"), "", "whole number"),
        (GET, one, Some("limit=1&limit=2"), "", "once"),
        (GET, one, Some("since=1"), "", "`before` and `limit`"),
        (GET, "/rooms/a b", None, "", "room name"),
        (GET, "/rooms/a", Some("limit=1"), "", "no parameters"),
        (GET, members, Some("limit=1001"), "", "between 1 and 1000"),
        (GET, members, Some("after=a%00"), "", "user name"),
        (GET, members, Some("after="), "", "user name"),
        (GET, members, Some("prefix=a"), "", "`after` and `limit`"),
        (GET, "/rooms", Some("limit=0"), "", "between 1 and 1000"),
        (GET, "/rooms", Some("limit=x"), "", "whole number"),
        (GET, "/rooms", Some("prefix="), "", "room name"),
        (GET, "/rooms", Some("prefix=a*"), "", "room name"),
        (GET, "/rooms", Some("after=a&after=b"), "", "once"),
        (GET, "/rooms", Some("before=a"), "", "`prefix`, `after` and `limit`"),
        (GET, ended, Some("after=ada"), "", "`after` must name a session"),
        (GET, ended, Some("limit=1001"), "", "between 1 and 1000"),
        (GET, ended, Some("forbid_return=true"), "", "`after` and `limit`"),
        (GET, "/users/a\u{85}/connections", None, "", "user name"),
    ];
    for (method, path, query, body, part) in table {
        let error = read(method.clone(), path, *query, body).expect_err(part);
        assert_eq!(error.code, Code::BadRequest, "{path} {body}");
        assert!(
            error.reason.contains(part),
            "{path} {body}: {}",
            error.reason
        );
    }
    let error = read(POST, "/rooms/$nodes/messages", None, r#"{"data":1}"#).unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    for (path, query) in [
        ("/rooms/$nodes", None),
        ("/rooms/$nodes/members", None),
        ("/rooms", Some("prefix=$")),
        ("/rooms", Some("prefix=%24control.")),
    ] {
        let error = read(GET, path, query, "").unwrap_err();
        assert_eq!(error.code, Code::Forbidden, "{path} {query:?}");
    }
    for room in ["$control", "@ada", "@bob"] {
        let error = read(PUT, &format!("/users/ada/rooms/{room}"), None, "").unwrap_err();
        assert_eq!(error.code, Code::Forbidden, "{room}");
    }
}

#[test]
fn control_commands_are_read_from_path_and_query() {
    let lobby = || RoomName::new("lobby").unwrap();
    let table = [
        (DELETE, "connections", None, ControlAction::Disconnect),
        (
            DELETE,
            "connections",
            Some("forbid_return=false"),
            ControlAction::Disconnect,
        ),
        (
            DELETE,
            "connections",
            Some("forbid_return=true"),
            ControlAction::Revoke(Cutoff::at(1_764_000_000_123)),
        ),
        (
            DELETE,
            "connections",
            Some("issued_before=1763999999&forbid_return=true"),
            ControlAction::Revoke(Cutoff::issued_before(1_763_999_999_000)),
        ),
        // The issuer's clock may be a little ahead.
        (
            DELETE,
            "connections",
            Some("forbid_return=true&issued_before=1764000005.123"),
            ControlAction::Revoke(Cutoff::issued_before(1_764_000_005_123)),
        ),
        (PUT, "rooms/lobby", None, ControlAction::Join(lobby())),
        (DELETE, "rooms/lobby", None, ControlAction::Leave(lobby())),
    ];
    for (method, path, query, wanted) in table {
        let commands = read(method, &format!("/users/ada/{path}"), query, "").unwrap();
        let [Command::Control(command)] = &commands[..] else {
            panic!("{commands:?}");
        };
        assert_eq!((command.user.as_str(), &command.action), ("ada", &wanted));
    }
    assert!(read(PUT, "/users/ada/rooms/lobby", None, "{}").is_ok());
}
