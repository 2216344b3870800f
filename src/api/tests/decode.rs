//! Requests as they are understood, or refused with a sentence.

use serde_json::json;

use std::sync::Arc;

use super::{publishes, read};
use crate::api::*;
use crate::http::Method;
use crate::model::cluster_query::{ClusterQuery, Kind};
use crate::model::control::{ControlAction, Cutoff};
use crate::model::id::{RoomName, UserName};
use crate::model::member::MembersQuery;
use crate::model::publication::{Publication, Publish, Sender};
use crate::protocol::Code;

fn key_of(publish: &Publish) -> Option<&str> {
    publish.key.as_ref().map(|key| &*key.key)
}

#[test]
fn publishes_are_read_with_all_fields() {
    let commands = read(
        Method::Post,
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
    assert_eq!(key_of(publish), Some("n:1"));

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
    assert_eq!((key_of(a), key_of(b)), (Some("k"), Some("k")));

    let batch = r#"{"publishes":[{"room":"b","data":1},{"room":"a","data":2,"key":"k"},{"room":"b","data":3}]}"#;
    let commands = read(Method::Post, "/batch", None, batch).unwrap();
    let published: Vec<_> = publishes(&commands)
        .iter()
        .map(|publish| (publish.room.as_str(), publish.publication.data.get()))
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
        let commands = read(Method::Get, "/rooms/a/messages", query, "").unwrap();
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
        prefix: (!prefix.is_empty()).then(|| room(prefix)),
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
        ("/rooms", None, rooms(Kind::Chosen, "", "", 100)),
        (
            "/rooms",
            Some("prefix=a.&after=a.b&limit=1"),
            rooms(Kind::Chosen, "a.", "a.b", 1),
        ),
        (
            "/rooms",
            Some("prefix=%40"),
            rooms(Kind::Personal, "@", "", 100),
        ),
        (of_ada, None, connections("", 100)),
        (of_ada, Some(behind), connections(session, 1000)),
    ] {
        let commands = read(Method::Get, path, query, "").unwrap();
        let [Command::ClusterQuery(question)] = &commands[..] else {
            panic!("{commands:?}")
        };
        assert_eq!(**question, wanted, "{path} {query:?}");
    }
    let query = Some("after=ada&limit=7");
    let commands = read(Method::Get, "/rooms/a/members", query, "").unwrap();
    let [Command::Members(MembersQuery { room, after, limit })] = &commands[..] else {
        panic!("{commands:?}")
    };
    let after = after.as_ref().map(UserName::as_str);
    assert_eq!((room.as_str(), after, *limit), ("a", Some("ada"), 7));
}

#[test]
fn invalid_requests_are_refused_with_a_sentence() {
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
    let members = "/rooms/a/members";
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
        (Method::Delete, ended, Some("issued_before=1"), "", "with `forbid_return=true` only"),
        (Method::Delete, ended, Some("forbid_return=true&issued_before="), "", "seconds since 1970"),
        (Method::Delete, ended, Some("forbid_return=true&issued_before=0"), "", "seconds since 1970"),
        (Method::Delete, ended, Some("forbid_return=true&issued_before=-1"), "", "seconds since 1970"),
        (Method::Delete, ended, Some("forbid_return=true&issued_before=1e3"), "", "seconds since 1970"),
        (Method::Delete, ended, Some("forbid_return=true&issued_before=inf"), "", "seconds since 1970"),
        (Method::Delete, ended, Some("forbid_return=true&issued_before=1.2.3"), "", "seconds since 1970"),
        // In milliseconds by mistake.
        (Method::Delete, ended, Some("forbid_return=true&issued_before=1764000000000"), "", "ahead of this server's clock"),
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
        (Get, "/rooms/a b", None, "", "room name"),
        (Get, "/rooms/a", Some("limit=1"), "", "no parameters"),
        (Get, members, Some("limit=1001"), "", "between 1 and 1000"),
        (Get, members, Some("after=@ada"), "", "user name"),
        (Get, members, Some("after="), "", "user name"),
        (Get, members, Some("prefix=a"), "", "`after` and `limit`"),
        (Get, "/rooms", Some("limit=0"), "", "between 1 and 1000"),
        (Get, "/rooms", Some("limit=x"), "", "whole number"),
        (Get, "/rooms", Some("prefix="), "", "room name"),
        (Get, "/rooms", Some("prefix=a*"), "", "room name"),
        (Get, "/rooms", Some("after=a&after=b"), "", "once"),
        (Get, "/rooms", Some("before=a"), "", "`prefix`, `after` and `limit`"),
        (Get, ended, Some("after=ada"), "", "`after` must name a session"),
        (Get, ended, Some("limit=1001"), "", "between 1 and 1000"),
        (Get, ended, Some("forbid_return=true"), "", "`after` and `limit`"),
        (Get, "/users/@ada/connections", None, "", "user name"),
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
    for (path, query) in [
        ("/rooms/$nodes", None),
        ("/rooms/$nodes/members", None),
        ("/rooms", Some("prefix=$")),
        ("/rooms", Some("prefix=%24control.")),
    ] {
        let error = read(Get, path, query, "").unwrap_err();
        assert_eq!(error.code, Code::Forbidden, "{path} {query:?}");
    }
    for room in ["$control", "@ada", "@bob"] {
        let error = read(Put, &format!("/users/ada/rooms/{room}"), None, "").unwrap_err();
        assert_eq!(error.code, Code::Forbidden, "{room}");
    }
}

#[test]
fn control_commands_are_read_from_path_and_query() {
    use Method::{Delete, Put};
    let lobby = || RoomName::new("lobby").unwrap();
    let table = [
        (Delete, "connections", None, ControlAction::Disconnect),
        (
            Delete,
            "connections",
            Some("forbid_return=false"),
            ControlAction::Disconnect,
        ),
        (
            Delete,
            "connections",
            Some("forbid_return=true"),
            ControlAction::Revoke(Cutoff::at(1_764_000_000_123)),
        ),
        (
            Delete,
            "connections",
            Some("issued_before=1763999999&forbid_return=true"),
            ControlAction::Revoke(Cutoff::issued_before(1_763_999_999_000)),
        ),
        // The issuer's clock may be a little ahead.
        (
            Delete,
            "connections",
            Some("forbid_return=true&issued_before=1764000005.123"),
            ControlAction::Revoke(Cutoff::issued_before(1_764_000_005_123)),
        ),
        (Put, "rooms/lobby", None, ControlAction::Join(lobby())),
        (Delete, "rooms/lobby", None, ControlAction::Leave(lobby())),
    ];
    for (method, path, query, wanted) in table {
        let commands = read(method, &format!("/users/ada/{path}"), query, "").unwrap();
        let [Command::Control(command)] = &commands[..] else {
            panic!("{commands:?}");
        };
        assert_eq!((command.user.as_str(), &command.action), ("ada", &wanted));
    }
    assert!(read(Put, "/users/ada/rooms/lobby", None, "{}").is_ok());
}
