//! Connections that are cut, and a Redis that freezes, restarts or comes back empty.

use std::time::Duration;

use switchboard::broker::redis::wire::Format;
use switchboard::broker::{BrokerEvent, Range, Refused};
use switchboard::model::id::{Position, Ticket};

use super::node::{BrokerNode, Form, entries, settings};
use crate::support::redis_server::{Options, RedisServer};

#[test]
fn cut_subscription_is_restored_without_missing_messages() {
    let server = RedisServer::start();
    let (mut node, mut other) = (BrokerNode::on(&server), BrokerNode::on(&server));
    for room in ["lobby", "quiet"] {
        node.follow(room);
    }
    let stands = node.publish("lobby", "one");
    node.message("lobby");
    for round in 0..3 {
        server.query::<()>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        other.publish("lobby", &format!("while {round}"));
        node.following("lobby");
        node.following("quiet");
        let page = node.read("lobby", Range::After(stands), 100);
        assert_eq!(page.messages.len(), 2 * round + 1);
        other.publish("lobby", &format!("then {round}"));
        let (_, (offset, text)) = node.wait_for_text("lobby", &format!("then {round}"));
        assert_eq!(
            (offset, text),
            (2 * round as u64 + 3, format!("then {round}"))
        );
    }
    assert!(node.metrics.redis_reconnects_total.get() >= 3);
}

#[test]
fn publishes_and_reads_survive_their_connections() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    let mut last = node.publish("lobby", "first");
    for round in 0..3 {
        server.query::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
        let text = format!("{round}");
        let answer = node.try_publish("lobby", &text, Form::keyed("ada", &text));
        last.offset += 1;
        assert_eq!(answer, Ok(last));
        assert_eq!(node.top("lobby"), last);
    }
}

#[test]
fn emptied_redis_begins_a_new_epoch_and_is_used_again() {
    let mut server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    let mut stands = node.publish("lobby", "one");
    stands.offset += node.publish("lobby", "two").offset - 1;

    server.kill();
    node.until_ready(false);
    server.run();
    let position = node.publish("lobby", "three");
    assert_eq!(position.offset, 1);
    assert_ne!(position.epoch, stands.epoch);
    let page = node.read("lobby", Range::After(stands), 10);
    assert_eq!(page.top, position);
    assert_eq!(entries(&page), [(1, "three".into())]);
    node.until_ready(true);
}

#[test]
fn evicted_position_takes_its_keys_with_it_and_a_retry_follows_a_gap() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    let form = Form::keyed("ada", "k");
    let first = node.try_publish("lobby", "once", form).expect("stored");
    // What a former version reads may go at any time.
    server.query::<()>(&["DEL", "sb:{lobby}:key:ada:6b"]);
    assert_eq!(node.try_publish("lobby", "once", form), Ok(first));
    server.query::<()>(&["DEL", "sb:{lobby}:meta"]);
    let again = node.try_publish("lobby", "once", form).expect("stored");
    assert_eq!(again.offset, 2);
    assert_ne!(again.epoch, first.epoch, "members see a gap");
}

#[test]
fn key_of_a_former_version_is_found_and_one_of_ours_is_found_by_it() {
    let server = RedisServer::start();
    let mut old = BrokerNode::on_with(&server, |settings| settings.newest_format = Format::FIRST);
    let form = Form::keyed("ada", "k");
    let first = old.try_publish("lobby", "once", form).expect("stored");
    let record: String = server.query(&["GET", "sb:{lobby}:key:ada:6b"]);
    assert_eq!(record, format!("{} 1", first.epoch));
    // It has no digest, so any data is taken for the same.
    server.query::<()>(&["HDEL", "sb:{lobby}:meta", "#ada:6b"]);
    assert_eq!(old.try_publish("lobby", "other", form), Ok(first));
}

#[test]
fn expired_keys_are_removed_by_the_publishes_that_follow() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    let first = node.publish("lobby", "one");
    for count in 0..100 {
        let (field, value) = (format!("#ada:{count:x}"), format!("{} 1 00 1", first.epoch));
        server.query::<()>(&["HSET", "sb:{lobby}:meta", &field, &value]);
    }
    for count in 0..100 {
        let key = count.to_string();
        let form = Form::keyed("bob", &key);
        node.try_publish("lobby", "more", form).expect("stored");
    }
    let fields: usize = server.query(&["HLEN", "sb:{lobby}:meta"]);
    assert!((104..150).contains(&fields), "{fields}");
}

#[test]
fn restarted_redis_begins_a_new_epoch_and_keeps_its_data() {
    let options = Options::default().arg("--appendonly yes --appendfsync always");
    let mut server = RedisServer::with(options);
    let mut node = BrokerNode::on(&server);
    let keyed = |node: &mut BrokerNode| node.try_publish("lobby", "one", Form::keyed("ada", "k"));
    let first = keyed(&mut node).unwrap();

    server.restart();
    let page = node.read("lobby", Range::After(Position { offset: 0, ..first }), 10);
    assert_ne!(page.top.epoch, first.epoch, "its last second may be lost");
    assert_eq!(page.ends.end_of(first.epoch), Some(1));
    assert_eq!(entries(&page), [(1, "one".into())]);
    assert_eq!(keyed(&mut node), Ok(first), "the key is honoured");
    let next = node.publish("lobby", "two");
    assert_eq!((next.epoch, next.offset), (page.top.epoch, 2));
}

/// A restarted Redis, like a promoted replica, has none of the scripts.
#[test]
fn publishes_of_one_source_keep_their_order_over_a_restart() {
    let mut server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    node.publish("lobby", "before");
    server.kill();
    node.until_link_lost();
    let ephemeral = Form {
        ephemeral: true,
        ..Form::default()
    };
    let sent: Vec<Ticket> = [Form::default(), ephemeral]
        .into_iter()
        .cycle()
        .take(40)
        .map(|form| node.send_publish("lobby", "x", form))
        .collect();
    server.restart();
    let answered: Vec<Ticket> = sent
        .iter()
        .map(|_| {
            node.wait("an answer", |event| match event {
                BrokerEvent::Published { ticket, result } => {
                    result.unwrap();
                    Some(*ticket)
                }
                _ => None,
            })
        })
        .collect();
    assert_eq!(answered, sent);
}

#[test]
fn frozen_redis_is_detected_and_commands_in_doubt_run_at_most_once() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    node.follow("lobby");
    let first = node.publish("lobby", "one");
    server.pause();
    let keyed = node.send_publish("lobby", "keyed", Form::keyed("ada", "k"));
    let plain = node.send_publish("lobby", "plain", Form::default());
    assert_eq!(node.answer(plain), Err(Refused::Unknown));
    node.until_ready(false);
    server.resume();
    let position = node
        .answer(keyed)
        .expect("it is tried again until answered");
    node.until_ready(true);
    let page = node.read("lobby", Range::After(first), 10);
    let texts: Vec<_> = entries(&page).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts.iter().filter(|text| *text == "keyed").count(), 1);
    assert!(texts.iter().filter(|text| *text == "plain").count() <= 1);
    let at = page
        .messages
        .iter()
        .position(|(offset, _)| *offset == position.offset);
    assert_eq!(texts[at.unwrap()], "keyed");
}

#[test]
fn requests_to_a_frozen_redis_are_answered_in_time() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on_with(&server, |settings| {
        settings.publish_timeout = Duration::from_millis(500)
    });
    node.publish("lobby", "one");
    server.pause();
    let keyed = node.send_publish("lobby", "keyed", Form::keyed("ada", "k"));
    let plain = node.send_publish("lobby", "plain", Form::default());
    let page = node.try_read("lobby", Range::Top, 0);
    assert_eq!(page.unwrap_err(), Refused::Unavailable);
    assert_eq!(node.answer(keyed), Err(Refused::Unknown));
    assert_eq!(node.answer(plain), Err(Refused::Unknown));
    server.resume();
}

#[test]
fn publishes_during_a_redis_outage_wait_and_are_then_refused() {
    let mut server = RedisServer::start();
    let mut settings = settings();
    settings.publish_timeout = Duration::from_secs(1);
    let mut node = BrokerNode::redis(&[&server.url()], settings).ready();
    server.kill();
    node.until_link_lost();
    let answer = node.try_publish("lobby", "one", Form::default());
    assert_eq!(answer, Err(Refused::Unavailable), "it was never sent");
}

#[test]
fn subscriber_disconnected_for_its_backlog_recovers() {
    let server = RedisServer::start();
    let limit = [
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "pubsub 65536 32768 1",
    ];
    server.query::<()>(&limit);
    let (mut node, mut other) = (BrokerNode::on(&server), BrokerNode::on(&server));
    node.follow("lobby");
    let big = "x".repeat(60_000);
    let mut top = 0;
    for _ in 0..100 {
        top = other.publish("lobby", &big).offset;
    }
    other.publish("lobby", "end");
    // Either it was never cut and receives the end, or it receives `Following` and reads.
    let end = node.read("lobby", Range::Before(None), 1);
    assert_eq!(entries(&end), [(top + 1, "end".into())]);
    node.unfollow("lobby");
    node.follow("lobby");
    other.publish("lobby", "after");
    assert_eq!(node.wait_for_text("lobby", "after").1.0, top + 2);
}
