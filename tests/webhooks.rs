//! What a backend is told of rooms and users: batches, signatures, repetition, and that no node's death, no cut and no
//! receiver that is away loses or disorders anything. The events are put into the stream as the presence scripts do it.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use switchboard::config::{Config, SecretFile};
use switchboard::notice::{BATCH, CLAIM};
use switchboard::runtime;
use switchboard::secret::Secret;

use crate::support::receiver::{Answer, Receiver, SECRET};
use crate::support::redis_server::{Options, RedisServer, free_port};
use crate::support::{NodeProcess, TestNode, eventually, run, within};

const STREAM: &str = "switchboard:hooks";
const LOST: &str = "switchboard:hooks:lost";

/// What the scripts of presence include.
const NOTICE: &str = include_str!("../src/broker/redis/notice.lua");

/// Makes changes known as a script would, in one go; the stream keeps `limit` of them.
fn append(redis: &RedisServer, limit: usize, changes: &[String]) {
    let script = format!(
        "{NOTICE}\nfor i = 2, #ARGV do\n\
         notice(KEYS[1], KEYS[2], ARGV[1], string.match(ARGV[i], '^(%S+) (.*)$')) end"
    );
    let limit = limit.to_string();
    let mut words = vec!["EVAL", &script, "2", STREAM, LOST, &limit];
    words.extend(changes.iter().map(String::as_str));
    redis.query::<()>(&words);
}

/// `count` rooms `NAME0`, `NAME1` … are occupied.
fn occupied(redis: &RedisServer, name: &str, count: usize) -> Vec<String> {
    let rooms: Vec<String> = (0..count).map(|n| format!("{name}{n}")).collect();
    let changes: Vec<String> = rooms
        .iter()
        .map(|room| format!("occupied {room}"))
        .collect();
    append(redis, 100_000, &changes);
    rooms
}

/// The names in events, in order.
fn names(events: &[String]) -> Vec<&str> {
    let name = |event: &'_ String| event.rsplit(' ').next().map(str::len);
    let tail = |event: &String| event.len() - name(event).unwrap_or_default();
    events.iter().map(|event| &event[tail(event)..]).collect()
}

fn configured(config: &mut Config, redis: &RedisServer, receiver: &Receiver) {
    config.redis = vec![redis.url().parse().expect("an address")];
    told(config, receiver);
}

fn told(config: &mut Config, receiver: &Receiver) {
    config.webhook_url = Some(receiver.url().parse().expect("an address"));
    config.webhook_secret_file = Some(SecretFile {
        path: receiver.secret().to_owned(),
        secret: Secret::new(SECRET.into()),
    });
}

async fn node(redis: &RedisServer, receiver: &Receiver) -> TestNode {
    TestNode::with(|config| configured(config, redis, receiver)).await
}

/// Waits until nothing is left to be told, and nothing is held.
fn until_empty(redis: &RedisServer) {
    redis.until(&["XLEN", STREAM], 0);
    assert_eq!(held(redis), 0);
}

/// How many events the nodes hold.
fn held(redis: &RedisServer) -> usize {
    let consumers: Vec<redis::Value> = redis.query(&["XINFO", "GROUPS", STREAM]);
    let groups = format!("{consumers:?}");
    let (_, rest) = groups.split_once("pending").expect("there is a group");
    let digits = rest.chars().skip_while(|c| !c.is_ascii_digit());
    let digits: String = digits.take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[test]
fn a_backend_is_told_in_signed_batches_of_rooms_and_users() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let node = node(&redis, &receiver).await;
        let changes = [
            "occupied lobby",
            "occupied @ada",
            "vacated lobby",
            "vacated @ada",
        ];
        append(&redis, 1000, &changes.map(str::to_owned));
        let told = receiver.requests(1).await.remove(0);
        assert!(
            told.head
                .starts_with("POST /hooks?token=swordfish HTTP/1.1\r\n"),
            "{}",
            told.head
        );
        assert_eq!(told.header("content-type"), "application/json");
        assert_eq!(told.header("host"), receiver.address.to_string());
        assert_eq!(told.json()["node"], "test");
        let events = told.events();
        let ends = [
            "room_occupied lobby",
            "user_online ada",
            "room_vacated lobby",
            "user_offline ada",
        ];
        assert_eq!(events.len(), ends.len(), "one batch");
        for (event, end) in events.iter().zip(ends) {
            assert!(event.ends_with(&format!(" {end}")), "{event}");
        }
        until_empty(&redis);
        let metrics = node.server().metrics();
        assert_eq!(metrics.webhooks_sent_total.get(), 4);
        assert_eq!(metrics.webhooks_failed_total.get(), 0);
    });
}

/// Two clients in a room, on these nodes, who come and go.
async fn come_and_go(first: &TestNode, second: &TestNode, receiver: &Receiver) {
    let (mut ada, mut guest) = (first.client().await, second.client().await);
    ada.auth("ada").await;
    receiver.taken(1).await;
    ada.join("lobby").await;
    receiver.taken(2).await;
    guest.join("lobby").await;
    guest.join("chat").await;
    receiver.taken(3).await;
    drop(ada);
    drop(guest);
    let mut types: Vec<String> = receiver.taken(6).await;
    for event in &mut types {
        event.replace_range(..=event.find(' ').expect("an id"), "");
    }
    types[3..].sort();
    let expected = [
        "user_online ada",
        "room_occupied lobby",
        "room_occupied chat",
        "room_vacated chat",
        "room_vacated lobby",
        "user_offline ada",
    ];
    assert_eq!(types, expected);
}

#[test]
fn clients_that_come_and_go_are_told_of_over_all_nodes() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let start = || {
            TestNode::with(|config| {
                configured(config, &redis, &receiver);
                config.presence_grace = Duration::ZERO;
            })
        };
        let (first, second) = futures::join!(start(), start());
        come_and_go(&first, &second, &receiver).await;
        until_empty(&redis);
    });
}

#[test]
fn a_node_without_redis_tells_from_its_memory() {
    run(async {
        let receiver = Receiver::start();
        receiver.answers([Answer::Status(500)]);
        let node = TestNode::with(|config| {
            told(config, &receiver);
            config.presence_grace = Duration::ZERO;
        })
        .await;
        come_and_go(&node, &node, &receiver).await;
        let first = &receiver.told()[0];
        assert_eq!(
            first.events()[0],
            receiver.events()[0],
            "it was repeated under its id"
        );
    });
}

#[test]
fn batches_are_bounded_and_follow_one_another_in_order() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let rooms = occupied(&redis, "r", 2 * BATCH + 50);
        let _nodes = futures::join!(node(&redis, &receiver), node(&redis, &receiver));
        assert_eq!(names(&receiver.taken(rooms.len()).await), rooms);
        let sizes: Vec<usize> = receiver
            .told()
            .iter()
            .map(|told| told.events().len())
            .collect();
        assert_eq!(sizes, [BATCH, BATCH, 50]);
        assert_eq!(receiver.most_at_once(), 1);
        until_empty(&redis);
    });
}

#[test]
fn what_is_not_taken_is_repeated_under_the_same_ids() {
    run(async {
        let (redis, receiver, elsewhere) =
            (RedisServer::start(), Receiver::start(), Receiver::start());
        receiver.answers([
            Answer::Status(500),
            Answer::Close,
            Answer::Redirect(elsewhere.url()),
            Answer::Endless,
        ]);
        let node = node(&redis, &receiver).await;
        occupied(&redis, "r", 3);
        receiver.taken(3).await;
        let told = receiver.told();
        let batches: Vec<Vec<String>> = told.iter().map(|told| told.events()).collect();
        assert_eq!(batches.len(), 4, "{told:?}");
        assert!(
            batches.iter().all(|batch| *batch == batches[0]),
            "{batches:?}"
        );
        let metrics = node.server().metrics();
        eventually("they are counted", || {
            metrics.webhooks_sent_total.get() == 3
        })
        .await;
        assert_eq!(metrics.webhooks_failed_total.get(), 3);
        assert!(elsewhere.told().is_empty(), "redirects are not followed");
        until_empty(&redis);
    });
}

#[test]
fn a_receiver_that_is_silent_or_no_server_is_tried_again() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        receiver.answers([
            Answer::Silent,
            Answer::Nonsense,
            Answer::Slow(Duration::from_secs(2)),
        ]);
        let node = node(&redis, &receiver).await;
        occupied(&redis, "r", 1);
        receiver.requests(1).await;
        let asked = Instant::now();
        receiver.requests(2).await;
        assert!(
            asked.elapsed() > Duration::from_secs(4),
            "{:?}",
            asked.elapsed()
        );
        receiver.taken(1).await;
        until_empty(&redis);
        assert_eq!(node.server().metrics().webhooks_failed_total.get(), 2);
        assert_eq!(receiver.told().len(), 3);
    });
}

#[test]
fn a_receiver_that_was_away_hears_everything_once_when_it_is_back() {
    run(async {
        let redis = RedisServer::start();
        let address = ([127, 0, 0, 1], free_port()).into();
        let away = Receiver::start();
        let url = format!("http://{address}/");
        let node = TestNode::with(|config| {
            configured(config, &redis, &away);
            config.webhook_url = Some(url.parse().expect("an address"));
        })
        .await;
        let first = occupied(&redis, "a", 150);
        let metrics = node.server().metrics();
        let failed = || metrics.webhooks_failed_total.get() >= 2;
        eventually("it is tried again", failed).await;
        let second = occupied(&redis, "b", 150);
        let receiver = Receiver::at(address, None);
        let events = receiver.taken(300).await;
        assert_eq!(names(&events), [first, second].concat());
        until_empty(&redis);
        assert_eq!(receiver.events().len(), 300);
    });
}

/// A node process with these webhooks.
async fn process(label: &str, redis: &RedisServer, receiver: &Receiver) -> NodeProcess {
    let (secret, url, hook) = (receiver.secret().to_str(), redis.url(), receiver.url());
    let secret = secret.expect("UTF-8");
    let arguments = ["--node", label, "--redis", &url, "--webhook-url", &hook];
    let all = [&arguments[..], &["--webhook-secret-file", secret]].concat();
    NodeProcess::start(&all).await
}

#[test]
fn what_a_killed_node_held_is_told_by_another() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        receiver.answers([Answer::Silent]);
        let mut nodes = [
            process("n1", &redis, &receiver).await,
            process("n2", &redis, &receiver).await,
        ];
        let rooms = occupied(&redis, "r", 3);
        let first = receiver.requests(1).await.remove(0);
        let dead = usize::from(first.json()["node"] == "n2");
        nodes[dead].kill();
        let later = occupied(&redis, "s", 1);
        let killed = Instant::now();
        let events = receiver.taken(4).await;
        assert!(
            killed.elapsed() < CLAIM + Duration::from_secs(3),
            "{:?}",
            killed.elapsed()
        );
        assert_eq!(events[..3], first.events(), "the same ids");
        assert_eq!(names(&events), [rooms, later].concat());
        until_empty(&redis);
        nodes[dead].exit().await;
    });
}

#[test]
fn what_a_node_tries_to_tell_is_its_own_however_long_it_takes() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        receiver.answers([Answer::Silent, Answer::Silent]);
        let label = |label: &'static str| {
            let (redis, receiver) = (&redis, &receiver);
            TestNode::with(move |config| {
                configured(config, redis, receiver);
                config.node = label.into();
            })
        };
        let _nodes = futures::join!(label("n1"), label("n2"));
        occupied(&redis, "r", 1);
        let start = Instant::now();
        receiver.taken(1).await;
        assert!(start.elapsed() > CLAIM, "{:?}", start.elapsed());
        let told = receiver.told();
        let by = told.iter().map(|told| told.json()["node"].to_string());
        let by: HashSet<String> = by.collect();
        assert_eq!((told.len(), by.len(), receiver.most_at_once()), (3, 1, 1));
        until_empty(&redis);
    });
}

#[test]
fn a_node_that_was_frozen_repeats_nothing_when_it_wakes() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        receiver.answers([Answer::Silent]);
        let nodes = [
            process("n1", &redis, &receiver).await,
            process("n2", &redis, &receiver).await,
        ];
        let mut rooms = occupied(&redis, "r", 3);
        let first = receiver.requests(1).await.remove(0);
        let frozen = &nodes[usize::from(first.json()["node"] == "n2")];
        frozen.signal(Signal::STOP);
        receiver.taken(3).await;
        until_empty(&redis);
        frozen.signal(Signal::CONT);
        // It takes part again: the other one is gone.
        let other = &nodes[usize::from(first.json()["node"] == "n1")];
        other.kill();
        rooms.extend(occupied(&redis, "s", 1));
        assert_eq!(names(&receiver.taken(4).await), rooms);
        let last = receiver.told().pop().expect("requests");
        assert_eq!(last.json()["node"], first.json()["node"]);
        until_empty(&redis);
    });
}

#[test]
fn a_node_that_cannot_reach_the_receiver_lets_another_try() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let lame = TestNode::with(|config| {
            configured(config, &redis, &receiver);
            let nowhere = format!("http://127.0.0.1:{}/", free_port());
            config.webhook_url = Some(nowhere.parse().expect("an address"));
        })
        .await;
        let rooms = occupied(&redis, "r", 2);
        let metrics = lame.server().metrics();
        eventually("it has tried", || metrics.webhooks_failed_total.get() > 0).await;
        let _sound = node(&redis, &receiver).await;
        assert_eq!(names(&receiver.taken(2).await), rooms);
        assert!(metrics.webhooks_failed_total.get() >= 3);
        until_empty(&redis);
    });
}

#[test]
fn a_node_that_stops_tells_what_is_left_and_hands_over_what_is_not_taken() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let stopping = node(&redis, &receiver).await;
        let rooms = occupied(&redis, "r", BATCH + 1);
        stopping.drain().await;
        assert_eq!(names(&receiver.events()), rooms);
        until_empty(&redis);
        let consumers: Vec<redis::Value> = redis.query(&["XINFO", "CONSUMERS", STREAM, "nodes"]);
        assert!(consumers.is_empty(), "it has left the group: {consumers:?}");

        let failing = node(&redis, &receiver).await;
        receiver.answers(vec![Answer::Status(503); 2]);
        occupied(&redis, "s", 1);
        receiver.requests(3).await;
        failing.drain().await;
        assert_eq!(held(&redis), 1, "it is nobody's, and still there");
        let _next = node(&redis, &receiver).await;
        let started = Instant::now();
        receiver.taken(BATCH + 2).await;
        assert!(started.elapsed() < CLAIM / 2, "{:?}", started.elapsed());
    });
}

#[test]
fn a_cut_from_redis_repeats_nothing_and_loses_nothing() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        receiver.answers([Answer::Slow(Duration::from_secs(1))]);
        let _nodes = futures::join!(node(&redis, &receiver), node(&redis, &receiver));
        let mut rooms = occupied(&redis, "a", 3);
        eventually("it is being told", || receiver.most_at_once() == 1).await;
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
fn a_redis_that_lost_everything_is_served_again() {
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
fn a_redis_without_memory_is_relieved() {
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
fn junk_in_the_stream_is_counted_and_taken_away() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let junk: [&[&str]; 4] = [
            &["b", "2 occupied lobby"],
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
fn what_is_too_old_or_too_much_is_dropped_and_counted() {
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
fn a_spoilt_stream_does_not_disturb_the_change_it_should_keep() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        redis.query::<String>(&["SET", STREAM, "x"]);
        occupied(&redis, "r", 2);
        assert_eq!(redis.query::<usize>(&["GET", LOST]), 2);
        let node = node(&redis, &receiver).await;
        redis.query::<usize>(&["DEL", STREAM]);
        occupied(&redis, "s", 1);
        assert_eq!(names(&receiver.taken(1).await), ["s0"]);
        let metrics = node.server().metrics();
        eventually("they are counted", || {
            metrics.webhooks_dropped_total.get() == 2
        })
        .await;
        redis.query::<String>(&["SET", LOST, "x"]);
        occupied(&redis, "t", 1);
        receiver.taken(2).await;
        redis.query::<usize>(&["LPUSH", LOST, "x"]);
        occupied(&redis, "u", 1);
        receiver.taken(3).await;
    });
}

#[test]
fn nothing_is_kept_and_nobody_connects_without_webhooks() {
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

#[test]
fn https_is_spoken_with_an_authority_from_a_file_and_no_other() {
    run(async {
        let redis = RedisServer::with(Options {
            tls: true,
            ..Options::default()
        });
        let authority = redis.authority();
        let receiver = Receiver::with_tls(authority.parent().unwrap_or(Path::new("")));
        let strict = node(&redis, &receiver).await;
        occupied(&redis, "r", 1);
        let metrics = strict.server().metrics();
        eventually("it is refused", || metrics.webhooks_failed_total.get() > 0).await;
        strict.drain().await;
        assert!(receiver.told().is_empty());
        let _node = TestNode::with(|config| {
            configured(config, &redis, &receiver);
            config.webhook_ca = Some(authority);
        })
        .await;
        receiver.taken(1).await;
    });
}

#[test]
fn a_user_of_an_access_list_needs_these_commands() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let acl = "ACL SETUSER ada on >pw ~switchboard:* &switchboard* -@all +hello +auth +select \
                   +info +script|load +eval +evalsha +publish +subscribe +unsubscribe \
                   +xinfo|consumers +xgroup|create +xgroup|delconsumer +xreadgroup +xclaim +xautoclaim \
                   +xack +xdel +xtrim +exists +getdel +time";
        redis.query::<String>(&acl.split_whitespace().collect::<Vec<_>>());
        occupied(&redis, "r", 1);
        let _node = TestNode::with(|config| {
            configured(config, &redis, &receiver);
            let url = format!("redis://ada:pw@127.0.0.1:{}", redis.port());
            config.redis = vec![url.parse().expect("an address")];
        })
        .await;
        receiver.taken(1).await;
        until_empty(&redis);
    });
}

/// The functions in the shell's language that the documentation shows, and then this script.
fn shell(script: &str, arguments: &[&str]) -> std::process::Output {
    let page = include_str!("../docs/webhooks.md");
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let functions: String = blocks.filter(|block| block.contains("() {")).collect();
    Command::new("bash")
        .args(["-euc", &format!("{functions}\n{script}"), "bash"])
        .args(arguments)
        .output()
        .expect("bash is there")
}

#[test]
fn the_documented_check_knows_our_requests_and_no_others() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let _node = node(&redis, &receiver).await;
        occupied(&redis, "r", 2);
        let told = receiver.requests(1).await.remove(0);
        let secret = receiver.secret().to_str().expect("UTF-8");
        let check = |signature: &str, body: &str| {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), body).expect("written");
            let file = file.path().to_str().expect("UTF-8");
            let checked = shell("check \"$@\"", &[secret, signature, file]);
            checked.status.success()
        };
        let signature = told.header("switchboard-signature");
        assert!(check(signature, &told.body));
        assert!(!check(signature, &format!("{} ", told.body)));
        assert!(!check(&signature.replace("t=1", "t=2"), &told.body));
        assert!(!check(&format!("{signature}0"), &told.body));
    });
}

#[test]
fn the_documented_trial_is_taken_by_a_backend() {
    run(async {
        let receiver = Receiver::start();
        let secret = receiver.secret().to_str().expect("UTF-8").to_owned();
        let url = receiver.url();
        let (done, ended) = flume::bounded(1);
        std::thread::spawn(move || done.send(shell("tell \"$@\"", &[&secret, &url])));
        let output = within("it is sent", ended.recv_async())
            .await
            .expect("it ends");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(receiver.events(), ["1-0 room_occupied lobby"]);
    });
}
