//! Foreign data in Redis: values that others write to a room's topic, log, position or key are
//! counted and skipped, or end the log's epoch. They never end a room or a node.

use switchboard::broker::Range;
use switchboard::broker::redis::wire;
use switchboard::config::RedisUrl;
use switchboard::model::id::Position;

use super::node::{BrokerNode, Form, entries, offsets};
use crate::support::redis_server::RedisServer;
use crate::support::{TestNode, eventually, run};

/// A message in the format of our scripts.
fn message(position: Position, offset: &str, body: &str) -> Vec<u8> {
    format!("1 {} {offset} {body}", position.epoch).into_bytes()
}

const BODY: &str = "1{\"t\":1,\"d\":\"forged\"}";

/// Payloads that no node sends, and what is wrong with them.
fn junk(stands: Position) -> Vec<(&'static str, Vec<u8>)> {
    let body = |body: &str| message(stands, "2", body);
    let offset = |offset: &str| message(stands, offset, BODY);
    vec![
        (
            "a version of two digits",
            b"22 000000000000002a 1 1{}".to_vec(),
        ),
        ("version zero", body("0{\"t\":1,\"d\":1}")),
        ("no version", body("{\"t\":1,\"d\":1}")),
        ("zeros", vec![0; 100]),
        (
            "no UTF-8",
            body("1{\"t\":1,\"d\":\"")
                .iter()
                .chain(b"\xff\"}")
                .copied()
                .collect(),
        ),
        ("a megabyte of one letter", vec![b'x'; 1 << 20]),
        ("a megabyte of brackets", vec![b'['; 1 << 20]),
        (
            "a megabyte of brackets as data",
            body(&format!("1{{\"t\":1,\"d\":{}", "[".repeat(1 << 20))),
        ),
        (
            "a megabyte of names",
            body(&format!("1{{{}", "\"t\":1,".repeat(150_000))),
        ),
        (
            "longer than any publication",
            body(&format!(
                "1{{\"t\":1,\"d\":\"{}\"}}",
                "x".repeat(wire::MAX_BODY_BYTES)
            )),
        ),
        ("no epoch", b"1".to_vec()),
        ("no offset", format!("1 {}", stands.epoch).into_bytes()),
        ("no body", format!("1 {} 2", stands.epoch).into_bytes()),
        ("an empty body", body("")),
        ("half a body", body("1{\"t\":1,\"d\":")),
        ("more than a body", body("1{\"t\":1,\"d\":1}}")),
        (
            "a user with a control character",
            body("1{\"u\":\"a\\u0001\",\"t\":1,\"d\":1}"),
        ),
        ("a negative offset", offset("-1")),
        ("an offset of text", offset("two")),
        ("an offset with a point", offset("2.0")),
        (
            "the greatest offset of 64 bits",
            offset("18446744073709551615"),
        ),
        ("an offset beyond 64 bits", offset("18446744073709551617")),
        ("an offset no script can count", offset("9007199254740993")),
        (
            "an epoch that is none",
            b"1 zzzzzzzzzzzzzzzz 2 1{\"t\":1,\"d\":1}".to_vec(),
        ),
    ]
}

#[test]
fn junk_on_a_topic_of_any_kind_is_counted_and_dropped() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    node.follow("lobby");
    let stands = node.publish("lobby", "1");
    node.message("lobby");
    for (count, (what, payload)) in (1..).zip(junk(stands)) {
        server.publish("sb:{lobby}", &payload);
        // After the junk, our own message arrives, in order.
        let next = node.publish("lobby", what);
        assert_eq!(node.message("lobby").1, (next.offset, what.into()));
        assert_eq!(node.metrics.junk_total.get(), count, "{what}");
    }
    assert!(node.rest().is_empty());
}

#[test]
fn junk_in_a_log_is_counted_and_leaves_no_hole() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    let stands = node.publish("lobby", "1");
    let bodies: Vec<Vec<u8>> = [
        &b""[..],
        b"1",
        b"1{\"t\":1",
        b"0{\"t\":1,\"d\":1}",
        b"1{\"t\":-1,\"d\":1}",
        b"\xff\xfe",
        &[b'['; 1 << 20],
    ]
    .map(<[u8]>::to_vec)
    .into();
    for (offset, body) in (2..).zip(&bodies) {
        server.append("sb:{lobby}:log", offset, body);
        server.query::<()>(&["HSET", "sb:{lobby}:meta", "offset", &offset.to_string()]);
    }
    let last = node.publish("lobby", "9");
    assert_eq!((last.epoch, last.offset), (stands.epoch, 9));

    let (mut at, mut seen) = (stands, Vec::new());
    while at.offset < last.offset {
        let page = node.read("lobby", Range::After(at), 100);
        seen.extend(entries(&page));
        at.offset = *offsets(&page).last().expect("a page goes on");
    }
    let nothing = (2..9).map(|offset| (offset, "null".to_owned()));
    let expected: Vec<_> = nothing.chain([(9, "9".to_owned())]).collect();
    assert_eq!(seen, expected);
    assert_eq!(node.metrics.junk_total.get(), bodies.len() as u64);
}

#[test]
fn values_of_another_type_end_the_epoch_and_nothing_else() {
    for key in ["meta", "log"] {
        for value in [&["SET"][..], &["RPUSH"], &["SADD"]] {
            let server = RedisServer::start();
            let mut node = BrokerNode::on(&server);
            let stands = node.publish("lobby", "1");
            let name = format!("sb:{{lobby}}:{key}");
            let replace = || {
                server.query::<()>(&["DEL", &name]);
                server.query::<()>(&[value, &[&*name, "junk"]].concat());
            };
            replace();
            let next = node.try_publish("lobby", "2", Form::default());
            let next = next.unwrap_or_else(|why| panic!("{key} {value:?}: {why}"));
            assert_ne!(next.epoch, stands.epoch, "{key} {value:?}");
            assert_eq!(next.offset, 2, "offsets go on");

            replace();
            let page = node.try_read("lobby", Range::After(next), 10);
            let page = page.unwrap_or_else(|why| panic!("{key} {value:?}: {why}"));
            assert_ne!(page.top.epoch, next.epoch, "{key} {value:?}");
            assert_eq!(node.publish("lobby", "3").epoch, page.top.epoch);
        }
    }
}

#[test]
fn publish_key_with_junk_is_unknown() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    for junk in [&["SET"][..], &["RPUSH"], &["SADD"]] {
        server.query::<()>(&["DEL", "sb:{lobby}:key:ada:6b"]);
        server.query::<()>(&[junk, &["sb:{lobby}:key:ada:6b", "junk"]].concat());
        server.query::<()>(&["HSET", "sb:{lobby}:meta", "#ada:6b", "junk"]);
        let form = Form::keyed("ada", "k");
        let first = node
            .try_publish("lobby", "once", form)
            .expect("it counts as new");
        assert_eq!(node.try_publish("lobby", "once", form), Ok(first));
    }
}

#[test]
fn positions_that_no_script_writes_begin_a_new_epoch() {
    let values = [
        "18446744073709551615",
        "18446744073709551616",
        "9007199254740992",
        "-1",
        "1e3",
        "two",
        "",
        "nan",
    ];
    for value in values {
        let server = RedisServer::start();
        let mut node = BrokerNode::on(&server);
        let stands = node.publish("lobby", "1");
        server.query::<()>(&["HSET", "sb:{lobby}:meta", "offset", value]);
        let next = node.publish("lobby", "2");
        assert_ne!(next.epoch, stands.epoch, "{value:?}");
        assert_eq!(next.offset, 2, "{value:?}");
    }
}

#[test]
fn room_with_forged_topic_log_and_position_still_serves_its_members() {
    run(async {
        let server = RedisServer::start();
        let url: RedisUrl = server.url().parse().expect("a URL");
        let node = TestNode::with(|config| {
            config.redis = vec![url];
            config.prefix = "sb".into();
        })
        .await;
        let (mut ada, mut bob) = (node.client().await, node.client().await);
        let joined = ada.join("lobby").await;
        bob.join("lobby").await;
        let epoch = joined["epoch"].as_str().expect("an epoch").to_owned();
        let forge = |text: String| server.publish("sb:{lobby}", text.as_bytes());

        // Offsets that the log does not have, in its epoch and in an unknown one.
        for offset in [1000, 1u64 << 40, 1 << 53] {
            forge(format!("1 {epoch} {offset} {BODY}"));
            forge(format!("1 00000000000000ff {offset} {BODY}"));
        }
        for n in 1..=20 {
            ada.publish("lobby", n.into()).await;
            assert_eq!(bob.message("lobby").await["data"], n);
        }
        // An end of the log that no longer exists.
        server.query::<()>(&["HSET", "sb:{lobby}:meta", "offset", "18446744073709551615"]);
        ada.publish("lobby", "after".into()).await;
        assert_eq!(bob.push("gap").await["room"], "lobby");
        ada.publish("lobby", "again".into()).await;
        let text = async |client: &mut crate::support::TestClient| loop {
            let data = client.message("lobby").await["data"].clone();
            if data == "again" {
                return;
            }
        };
        text(&mut bob).await;
        let metrics = node.server().metrics();
        eventually("nothing has failed", || metrics.panics_total.get() == 0).await;
    });
}
