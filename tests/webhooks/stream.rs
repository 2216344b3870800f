//! The webhook stream in Redis: cut off, emptied, full, with foreign data, or unused.

use super::*;

#[test]
fn cut_connection_to_redis_repeats_and_loses_no_event() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        receiver.answers([Answer::Slow(Duration::from_secs(1))]);
        let _nodes = futures::join!(node(&redis, &receiver), node(&redis, &receiver));
        let mut rooms = occupied(&redis, "a", 3);
        eventually("a request is open", || receiver.most_at_once() == 1).await;
        redis.query::<usize>(&["CLIENT", "KILL", "TYPE", "normal"]);
        rooms.extend(occupied(&redis, "b", 3));
        receiver.taken(6).await;
        redis.pause();
        runtime::sleep(Duration::from_secs(3)).await;
        redis.resume();
        rooms.extend(occupied(&redis, "c", 3));
        assert_eq!(names(&receiver.taken(9).await), rooms);
        until_empty(&redis);
        assert_eq!(receiver.events().len(), 9);
    });
}

#[test]
fn emptied_redis_is_used_again() {
    run(async {
        let (mut redis, receiver) = (RedisServer::start(), Receiver::start());
        let _node = node(&redis, &receiver).await;
        occupied(&redis, "a", 1);
        receiver.taken(1).await;
        redis.query::<String>(&["FLUSHALL"]);
        redis.query::<String>(&["SCRIPT", "FLUSH"]);
        occupied(&redis, "b", 1);
        receiver.taken(2).await;
        redis.restart();
        occupied(&redis, "c", 1);
        assert_eq!(names(&receiver.taken(3).await), ["a0", "b0", "c0"]);
        until_empty(&redis);
    });
}

#[test]
fn redis_without_memory_is_freed_of_events() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        occupied(&redis, "r", 3);
        redis.query::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
        let _node = node(&redis, &receiver).await;
        receiver.taken(3).await;
        redis.until(&["XLEN", STREAM], 0);
    });
}

#[test]
fn junk_in_the_stream_is_counted_and_removed() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let junk: [&[&str]; 4] = [
            &["b", "0 occupied lobby"],
            &["b", "1 occupied two words"],
            &["x", "y"],
            &["b", "1 burned lobby"],
        ];
        for fields in junk {
            redis.query::<String>(&[&["XADD", STREAM, "*"], fields].concat());
        }
        occupied(&redis, "r", 1);
        let node = node(&redis, &receiver).await;
        assert_eq!(names(&receiver.taken(1).await), ["r0"]);
        until_empty(&redis);
        let metrics = node.server().metrics();
        assert_eq!(metrics.junk_total.get(), junk.len() as u64);
    });
}

#[test]
fn events_too_old_or_too_many_are_dropped_and_counted() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        redis.query::<String>(&["XADD", STREAM, "1-0", "b", "1 occupied old"]);
        let changes: Vec<String> = (0..999).map(|n| format!("occupied r{n}")).collect();
        append(&redis, 300, &changes);
        let kept: usize = redis.query(&["XLEN", STREAM]);
        assert!((300..=400).contains(&kept), "{kept}");
        let node = node(&redis, &receiver).await;
        let events = receiver.taken(kept).await;
        assert_eq!(names(&events)[kept - 1], "r998");
        until_empty(&redis);
        let metrics = node.server().metrics();
        assert_eq!(metrics.webhooks_dropped_total.get(), 1000 - kept as u64);
        let old: String = redis.query(&["XADD", STREAM, "*", "b", "1 occupied now"]);
        receiver.taken(kept + 1).await;
        assert!(receiver.events()[kept].starts_with(&old));
        append(&redis, 1000, &[]);
    });
}

#[test]
fn spoilt_stream_is_replaced_and_loses_no_later_event() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        redis.query::<String>(&["SET", STREAM, "x"]);
        occupied(&redis, "r", 2);
        let _node = node(&redis, &receiver).await;
        assert_eq!(names(&receiver.taken(2).await), ["r0", "r1"]);
        redis.query::<String>(&["SET", STREAM, "x"]);
        occupied(&redis, "s", 1);
        receiver.taken(3).await;
        redis.query::<String>(&["SET", LOST, "x"]);
        occupied(&redis, "t", 1);
        receiver.taken(4).await;
        redis.query::<usize>(&["DEL", LOST]);
        redis.query::<usize>(&["LPUSH", LOST, "x"]);
        occupied(&redis, "u", 1);
        receiver.taken(5).await;
    });
}

#[test]
fn nodes_without_webhooks_keep_no_events_and_do_not_connect() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let count = || {
            let list: String = redis.query(&["CLIENT", "LIST"]);
            list.lines().filter(|line| line.contains("resp=3")).count()
        };
        let plain = TestNode::with(|config| {
            config.redis = vec![redis.url().parse().expect("an address")];
        })
        .await;
        plain.client().await.join("lobby").await;
        assert_eq!(redis.query::<usize>(&["EXISTS", STREAM]), 0);
        let without = count();
        let _hooked = node(&redis, &receiver).await;
        eventually("a connection more", || count() == 2 * without + 1).await;
        assert_eq!(redis.query::<usize>(&["EXISTS", STREAM]), 0);
    });
}
