//! Values of every other type under every key of ours, as other software writes them. Each is
//! replaced or skipped alone: what stands under the other keys is as complete as before.

use std::thread;

use switchboard::broker::Range;
use switchboard::dispatcher::Now;
use switchboard::model::revocations::Cutoff;

use super::cluster_queries::session;
use super::node::{BrokerNode, Form};
use super::presence_table::list;
use super::webhooks::deliverer;
use crate::support::redis_server::RedisServer;

/// The types, and how a key gets a value of it.
const TYPES: [(&str, &[&str]); 6] = [
    ("string", &["SET", "KEY", "x"]),
    ("hash", &["HSET", "KEY", "x", "x"]),
    ("list", &["RPUSH", "KEY", "x"]),
    ("set", &["SADD", "KEY", "x"]),
    ("zset", &["ZADD", "KEY", "1", "x"]),
    ("stream", &["XADD", "KEY", "1-1", "x", "x"]),
];

/// The keys of presence and their types; `LEASE` is that of the node whose members leave.
const PRESENCE: [(&str, &str); 8] = [
    ("sb:{lobby}:here", "hash"),
    ("sb:{lobby}:names", "zset"),
    ("sb:{@ada}:live", "zset"),
    ("sb:rooms", "zset"),
    ("sb:rooms:@", "zset"),
    ("sb:nodes", "zset"),
    ("sb:nodes:formats", "hash"),
    ("sb:node:LEASE:rooms", "zset"),
];

/// The other keys.
const OTHERS: [(&str, &str); 7] = [
    ("sb:{lobby}:log", "stream"),
    ("sb:{lobby}:meta", "hash"),
    ("sb:{lobby}:key:ada:6b", "string"),
    ("sb:hooks", "stream"),
    ("sb:hooks:lost", "string"),
    ("sb:revoked", "zset"),
    ("sb:revoked:confirmed", "hash"),
];

fn replace(server: &RedisServer, key: &str, words: &[&str]) {
    server.query::<()>(&["DEL", key]);
    let words: Vec<_> = (words.iter().map(|it| if *it == "KEY" { key } else { it })).collect();
    server.query::<redis::Value>(&words);
}

/// The lease that was taken last.
fn newest_lease(server: &RedisServer, former: &[String]) -> String {
    let leases: Vec<String> = server.query(&["ZRANGE", "sb:nodes", "0", "-1"]);
    let new = leases.into_iter().find(|it| !former.contains(it));
    new.expect("the node has a lease")
}

#[test]
fn foreign_value_under_any_key_is_replaced_or_skipped_alone() {
    let server = RedisServer::start();
    let mut a = BrokerNode::on(&server);
    let lease = newest_lease(&server, &[]);
    let (deliverer, wanted) = deliverer(&["hooked*"]);
    let mut b = BrokerNode::on_with(&server, |settings| settings.webhooks = Some(wanted));
    for room in ["lobby", "tea", "@ada"] {
        a.follow(room);
        b.follow(room);
    }
    a.here("lobby", "ada", 1);
    b.here("lobby", "bob", 1);
    b.here("lobby", "", 1);
    b.here("tea", "cy", 1);
    a.connected("ada", session(0xa, 1), r#"{"n":1}"#, true);
    a.until_members("lobby", "ada:1 bob:1");
    a.until_members("tea", "cy:1");
    for (count, (key, (kind, words))) in (PRESENCE.iter().chain(&OTHERS))
        .flat_map(|(key, own)| TYPES.map(|it| (key.replace("LEASE", &lease), own, it)))
        .filter(|(_, own, (kind, _))| *own != kind)
        .map(|(key, _, it)| (key, it))
        .enumerate()
    {
        replace(&server, &key, words);
        let case = format!("{key} is a {kind}");
        eprintln!("{case}");
        // A publish reaches both nodes, and its key is new or known.
        let text = count.to_string();
        a.try_publish("lobby", "once", Form::keyed("ada", "k"))
            .expect(&case);
        a.publish("lobby", &text);
        b.wait_for_text("lobby", &text);
        b.try_read("lobby", Range::Before(None), 10).expect(&case);
        b.revoke(&format!("u{count}"), Cutoff::at(Now::read().unix_ms));
        // The room of an event becomes occupied and vacated.
        let room = format!("hooked{count}");
        b.here(&room, "dot", 1);
        b.until_members(&room, "dot:1");
        b.here(&room, "dot", 0);
        assert_eq!(
            deliverer.receive(2),
            [format!("occupied {room}"), format!("vacated {room}")],
            "{case}"
        );
        // The lists are whole again, and the other room never was otherwise.
        assert_eq!(list(&a.members("tea")), "cy:1", "{case}");
        b.until_members("lobby", "ada:1 bob:1");
        b.until_rooms("", "lobby 3=2+1, tea 1=1+0");
        b.until_rooms("@", "@ada 0=0+0");
        b.until_connections("ada", &session(0xa, 1).to_string());
    }
}

#[test]
fn members_of_a_dead_node_leave_despite_foreign_values() {
    thread::scope(|scope| {
        for (kind, words) in TYPES {
            scope.spawn(move || {
                let server = RedisServer::start();
                let mut a = BrokerNode::on(&server);
                a.follow("lobby");
                a.here("lobby", "ada", 1);
                a.here("tea", "cy", 1);
                a.until_members("tea", "cy:1");
                for (key, _) in PRESENCE.iter().filter(|(_, own)| *own != kind) {
                    let former: Vec<String> = server.query(&["ZRANGE", "sb:nodes", "0", "-1"]);
                    let dead = BrokerNode::on(&server);
                    let lease = newest_lease(&server, &former);
                    dead.connected("ada", session(0xa, 1), r#"{"n":1}"#, true);
                    for room in ["attic", "lobby", "tea"] {
                        dead.here(room, "gus", 1);
                    }
                    a.until_members("lobby", "ada:1 gus:1");
                    a.until_members("attic", "gus:1");
                    a.until_connections("ada", &session(0xa, 1).to_string());
                    a.until_members("tea", "cy:1 gus:1");
                    drop(dead);
                    let key = key.replace("LEASE", &lease);
                    replace(&server, &key, words);
                    eprintln!("{key} is a {kind}");
                    for (room, left) in [("lobby", "ada:1"), ("attic", ""), ("tea", "cy:1")] {
                        a.until_members(room, left);
                    }
                    a.until_connections("ada", "");
                    a.until_rooms("", "lobby 1=1+0, tea 1=1+0");
                }
            });
        }
    });
}
