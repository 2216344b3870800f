//! Decoding of commands, encoding of replies and messages, and errors.

use bytes::BytesMut;
use serde_json::value::RawValue;

use super::*;
use crate::model::id::{Epoch, Position, RoomName, UserName};
use crate::model::identity::Credentials;
use crate::model::member::{Info, Member, MemberPage, MembersQuery};
use crate::model::publication::{HistoryQuery, Publication};
use crate::protocol::encoder::Encoder;
use crate::protocol::{
    ClientLimits, ClientRequest, Code, Command, CommandError, HISTORY_DEFAULT, Joined, Message,
    Push, Reply, RequestId,
};
use proptest::prelude::*;

fn json(frame: &[u8]) -> serde_json::Value {
    let payload = if frame[1] < 126 {
        &frame[2..]
    } else {
        &frame[4..]
    };
    serde_json::from_slice(payload).unwrap()
}

#[test]
fn commands_decode_as_documented() {
    let join =
        decode(r#"{"type":"join","id":2,"room":"lobby","since":{"epoch":"x7Qd","offset":41}}"#);
    assert_eq!(join.id, Some(RequestId::from(2)));
    let Ok(ClientRequest::Command(Command::Join {
        room,
        since: Some(since),
        ..
    })) = join.request
    else {
        panic!("{join:?}")
    };
    assert_eq!(
        (room.as_str(), since.epoch, since.offset),
        ("lobby", Epoch::UNKNOWN, 41)
    );

    let publish = decode(r#"{"type":"publish","id":3,"room":"a","key":"k","data": [1, null]}"#);
    let Ok(ClientRequest::Command(Command::Publish(publish))) = publish.request else {
        panic!("{publish:?}")
    };
    let key = publish.key.map(|key| key.key);
    assert_eq!(
        (publish.publication.data.json(), key.as_deref()),
        (Some("[1, null]"), Some("k"))
    );
    assert!(matches!(
        decode(r#"{"type":"publish","room":"a","data":null}"#).request,
        Ok(ClientRequest::Command(Command::Publish(_)))
    ));
    assert!(matches!(
        decode(r#"{"type":"ping"}"#).request,
        Ok(ClientRequest::Command(Command::Ping))
    ));
    assert!(matches!(
        decode(r#"{"type":"history","room":"a"}"#).request,
        Ok(ClientRequest::Command(Command::History(HistoryQuery {
            before: None,
            limit: HISTORY_DEFAULT,
            ..
        })))
    ));
}

#[test]
fn errors_carry_the_id_and_a_sentence() {
    let long_key = format!(
        r#"{{"type":"publish","id":1,"room":"a","data":1,"key":"{}"}}"#,
        "k".repeat(65)
    );
    for (text, part) in [
        (r#"{"type":"join","id":1}"#, "needs a `room`"),
        (r#"{"type":"join","id":1,"room":"a b"}"#, "room name"),
        (
            r#"{"type":"join","id":1,"room":"a","data":1}"#,
            "no field `data`",
        ),
        (
            r#"{"type":"join","id":1,"room":"a","rom":"b"}"#,
            "unknown field `rom`",
        ),
        (
            r#"{"type":"join","id":1,"room":"a","room":"b"}"#,
            "duplicate field `room`",
        ),
        (r#"{"type":"shout","id":1}"#, "`type` must be"),
        (r#"{"type":"publish","id":1,"room":"a"}"#, "needs `data`"),
        (
            r#"{"type":"publish","id":1,"room":"a","data":1,"ephemeral":true,"key":"k"}"#,
            "no `key`",
        ),
        (
            r#"{"type":"history","id":1,"room":"a","limit":101}"#,
            "between 1 and 100",
        ),
        (r#"{"type":"auth","id":1,"user":"a\u202e"}"#, "user name"),
        (&long_key, "1 to 64 bytes"),
    ] {
        let incoming = decode(text);
        assert_eq!(incoming.id, Some(RequestId::from(1)), "{text}");
        let error = incoming.request.unwrap_err();
        assert_eq!(error.code, Code::BadRequest, "{text}");
        assert!(error.reason.contains(part), "{text}: {}", error.reason);
    }
    for text in [
        "",
        "[]",
        "null",
        "{",
        r#"{"type":7}"#,
        r#"["publish",1,"a",null,null,null,1,null,null,null,null]"#,
        r#"{"type":"ping","id":"7"}"#,
        r#"{"type":"ping","id":1e400}"#,
        r#"{"type":"ping","id":12345678901234567890123456}"#,
    ] {
        let incoming = decode(text);
        assert!(incoming.request.is_err() && incoming.id.is_none(), "{text}");
    }
    assert!(decode(&"[".repeat(200_000)).request.is_err());
}

#[test]
fn wrong_types_are_described_by_their_names_in_json() {
    for (fields, part) in [
        (r#""limit":-1"#, "expected a whole number from 0"),
        (r#""limit":"9""#, "expected a whole number from 0"),
        (r#""before":1.5"#, "expected a whole number from 0"),
        (r#""since":7"#, "expected an object"),
        (r#""ephemeral":1"#, "expected a boolean"),
        (r#""room":7"#, "expected a string"),
    ] {
        let text = format!(r#"{{"type":"join","id":1,{fields}}}"#);
        let error = decode(&text).request.unwrap_err();
        assert!(error.reason.contains(part), "{text}: {}", error.reason);
    }
}

#[test]
fn id_is_any_number_and_repeated_as_it_was_written() {
    for id in ["0", "-1", "1.5", "1e3", "1.0", "9007199254740993"] {
        let frames = [
            format!(r#"{{"type":"ping","id":{id}}}"#),
            format!(r#"{{"type":"join","id":{id},"room":"lobby"}}"#),
            format!(r#"{{"type":"shout","id":{id}}}"#),
            format!(r#"{{"type":"ping","id":{id},"unknown":1}}"#),
        ];
        let ids = frames.map(|text| decode(&text).id.unwrap());
        let room = RoomName::new("lobby").unwrap();
        let error = CommandError::new(Code::BadRequest, "no");
        for (reply, expected) in [
            (Reply::Pong, format!(r#"{{"type":"pong","id":{id}}}"#)),
            (
                Reply::Left { room: &room },
                format!(r#"{{"type":"ok","id":{id},"room":"lobby"}}"#),
            ),
            (
                Reply::Error(&error),
                format!(r#"{{"type":"error","id":{id},"code":"bad_request","reason":"no"}}"#),
            ),
        ] {
            for id in ids {
                let frame = NativeEncoder.reply(Some(id), &reply);
                assert!(frame.ends_with(expected.as_bytes()), "{frame:?}");
            }
        }
    }
}

#[test]
fn replies_and_pushes_are_flat_with_type_first() {
    let room = RoomName::new("lobby").unwrap();
    let position = Position {
        epoch: Epoch::new(1),
        offset: 41,
    };
    let joined = Joined {
        room: &room,
        position,
        top: 43,
        recovered: Some(true),
    };
    let frame = NativeEncoder.reply(Some(RequestId::from(2)), &Reply::Joined(joined));
    assert!(frame[2..].starts_with(br#"{"type":"ok","id":2,"#));
    assert_eq!(
        json(&frame),
        serde_json::json!({"type":"ok","id":2,"room":"lobby","epoch":"0000000000000001",
            "offset":41,"top":43,"recovered":true})
    );
    let error = CommandError::new(Code::Forbidden, "use \"quotes\"\n");
    assert_eq!(
        json(&NativeEncoder.reply(None, &Reply::Error(&error))),
        serde_json::json!({"type":"error","code":"forbidden","reason":"use \"quotes\"\n"})
    );
    let push_frame = NativeEncoder.push(&Push::Welcome {
        session: "s",
        node: "a",
        user: None,
        heartbeat: std::time::Duration::from_secs(25),
        limits: ClientLimits {
            message: 65_536,
            room: 128,
            user: 64,
            key: 64,
            token: 4096,
            info: 512,
            rooms: 128,
            rate: 100,
        },
    });
    assert_eq!(
        json(&push_frame),
        serde_json::json!({"type":"welcome","session":"s","node":"a","user":null,"heartbeat":25,
            "limits":{"message":65536,"room":128,"user":64,"key":64,"token":4096,"info":512,
                "rooms":128,"rate":100}})
    );
}

#[test]
fn messages_are_valid_json_with_the_data_verbatim() {
    let room = RoomName::new("lobby").unwrap();
    let publication = Publication {
        user: Some(UserName::new("ada").unwrap()),
        time: 1_764_000_000_123,
        except: None,
        event: None,
        data: RawValue::from_string(r#"{"text": "hi \u0000"}"#.into())
            .unwrap()
            .into(),
    };
    let mut frames = BytesMut::new();
    NativeEncoder.message(
        &Message {
            room: &room,
            offset: Some(42),
            publication: &publication,
        },
        &mut frames,
    );
    assert_eq!(
        &frames[2..],
        [
            br#"{"type":"message","room":"lobby","offset":42,"user":"ada","#.as_slice(),
            br#""time":1764000000123,"data":{"text": "hi \u0000"}}"#,
        ]
        .concat()
    );
    let mut frames = BytesMut::new();
    NativeEncoder.own_message(&room, Some(44), &mut frames);
    assert_eq!(
        json(&frames),
        serde_json::json!({"type":"message","room":"lobby","offset":44,"own":true})
    );
}

proptest! {
    #[test]
    fn arbitrary_text_is_decoded_or_refused(text in ".{0,200}") {
        let _ = decode(&text);
    }

    #[test]
    fn arbitrary_fields_are_decoded_or_refused(
        kind in "auth|join|leave|publish|history|ping|x",
        field in "room|user|since|key|data|ephemeral|others|before|limit|id",
        value in "null|1|-1|1e400|\"a\"|true|\\{\\}|\\[\\]|\\{\"epoch\":\"a\",\"offset\":1\\}",
    ) {
        let _ = decode(&format!(r#"{{"type":"{kind}","room":"r","{field}":{value}}}"#));
    }
}

#[test]
fn members_limits_and_info_are_bounded() {
    let ok = decode(r#"{"type":"members","room":"a","after":"ada","limit":1000}"#);
    let Ok(ClientRequest::Command(Command::Members(MembersQuery { after, limit, .. }))) =
        ok.request
    else {
        panic!("{ok:?}")
    };
    assert_eq!((after.unwrap().as_str(), limit), ("ada", 1000));
    let ok = decode(r#"{"type":"auth","user":"ada","info": {"name":"Ada"}}"#);
    let Ok(ClientRequest::Auth(Credentials::User {
        info: Some(info), ..
    })) = ok.request
    else {
        panic!("{ok:?}")
    };
    assert_eq!(info.get(), r#"{"name":"Ada"}"#);
    let long = format!(
        r#"{{"type":"auth","user":"ada","info":{{"a":"{}"}}}}"#,
        "x".repeat(512)
    );
    for (text, part) in [
        (
            r#"{"type":"members","room":"a","limit":1001}"#,
            "between 1 and 1000",
        ),
        (
            r#"{"type":"members","room":"a","limit":0}"#,
            "between 1 and 1000",
        ),
        (
            r#"{"type":"members","room":"a","after":"a\u0001"}"#,
            "user name",
        ),
        (
            r#"{"type":"join","room":"a","after":"b"}"#,
            "no field `after`",
        ),
        (r#"{"type":"auth","user":"ada","info":[]}"#, "JSON object"),
        (r#"{"type":"join","room":"a","info":{}}"#, "no field `info`"),
        (&long, "at most 512 bytes"),
    ] {
        let error = decode(text).request.unwrap_err();
        assert!(error.reason.contains(part), "{text}: {}", error.reason);
    }
}

#[test]
fn presence_pushes_are_flat() {
    let (room, user) = (
        RoomName::new("lobby").unwrap(),
        UserName::new("ada").unwrap(),
    );
    let info: Info = RawValue::from_string(r#"{"name":"Ada"}"#.into())
        .unwrap()
        .into();
    let joined = NativeEncoder.push(&Push::Joined {
        room: &room,
        user: &user,
        info: Some(&info),
        version: 9,
    });
    assert_eq!(
        json(&joined),
        serde_json::json!({"type":"joined","room":"lobby","user":"ada","info":{"name":"Ada"},
            "version":9})
    );
    let member = |user: &str, info| Member {
        user: UserName::new(user).unwrap(),
        connections: 2,
        info,
    };
    let page = MemberPage {
        version: 9,
        members: vec![member("ada", Some(info)), member("bob", None)],
        count: 5,
        anonymous: 3,
        more: true,
    };
    let room = &room;
    let reply = NativeEncoder.reply(
        Some(RequestId::from(6)),
        &Reply::Members { room, page: &page },
    );
    assert_eq!(
        json(&reply),
        serde_json::json!({"type":"ok","id":6,"room":"lobby","version":9,"count":5,"anonymous":3,
            "more":true,"members":[{"user":"ada","connections":2,"info":{"name":"Ada"}},
                {"user":"bob","connections":2}]})
    );
}

#[test]
fn page_commands_cost_the_same_whatever_their_limit() {
    let cost = |text: &str| decode(text).request.expect("a command").cost();
    assert_eq!(cost(r#"{"type":"ping"}"#), 1);
    assert_eq!(cost(r#"{"type":"history","room":"r","limit":15}"#), 4);
    assert_eq!(cost(r#"{"type":"history","room":"r","limit":100}"#), 4);
    assert_eq!(cost(r#"{"type":"members","room":"r","limit":1000}"#), 4);
}

#[test]
fn page_replies_cost_by_the_entries_that_they_return() {
    let room = &RoomName::new("r").unwrap();
    for (entries, cost) in [(0, 0), (15, 0), (16, 1), (1000, 62)] {
        let member = Member {
            user: UserName::new("ada").unwrap(),
            connections: 1,
            info: None,
        };
        let page = MemberPage {
            version: 9,
            members: vec![member; entries],
            count: 2000,
            anonymous: 0,
            more: true,
        };
        let members = Reply::Members { room, page: &page };
        assert_eq!(members.cost(), cost, "{entries}");
    }
}
