//! Receivers of webhooks: batches, failures, slow responses, TLS, and the documented signature
//! check.

use super::*;

#[test]
fn batches_are_bounded_and_follow_one_another_in_order() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let rooms = occupied(&redis, "r", 2 * BATCH + 50);
        let _nodes = futures::join!(node(&redis, &receiver), node(&redis, &receiver));
        assert_eq!(names(&receiver.taken(rooms.len()).await), rooms);
        let sizes: Vec<usize> = receiver
            .received()
            .iter()
            .map(|received| received.events().len())
            .collect();
        assert_eq!(sizes, [BATCH, BATCH, 50]);
        assert_eq!(receiver.most_at_once(), 1);
        until_empty(&redis);
    });
}

#[test]
fn events_not_accepted_are_repeated_with_the_same_ids() {
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
        let received = receiver.received();
        let batches: Vec<Vec<String>> = received.iter().map(|received| received.events()).collect();
        assert_eq!(batches.len(), 4, "{received:?}");
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
        assert!(
            elsewhere.received().is_empty(),
            "redirects are not followed"
        );
        until_empty(&redis);
    });
}

#[test]
fn silent_or_unreachable_receiver_is_tried_again() {
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
        receiver.requests(2).await;
        receiver.taken(1).await;
        until_empty(&redis);
        assert_eq!(node.server().metrics().webhooks_failed_total.get(), 2);
        assert_eq!(receiver.received().len(), 3);
    });
}

#[test]
fn receiver_back_from_an_outage_receives_everything_once() {
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
        assert!(receiver.received().is_empty());
        let _node = TestNode::with(|config| {
            configured(config, &redis, &receiver);
            config.webhook_ca = Some(authority);
        })
        .await;
        receiver.taken(1).await;
    });
}

/// The functions in the shell's language that the documentation shows, and then this script.
fn shell(script: &str, arguments: &[&str]) -> std::process::Output {
    let page = include_str!("../../docs/webhooks.md");
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
fn documented_check_accepts_our_requests_only() {
    run(async {
        let (redis, receiver) = (RedisServer::start(), Receiver::start());
        let _node = node(&redis, &receiver).await;
        occupied(&redis, "r", 2);
        let received = receiver.requests(1).await.remove(0);
        let secret = receiver.secret().to_str().expect("UTF-8");
        let check = |signature: &str, body: &str| {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), body).expect("written");
            let file = file.path().to_str().expect("UTF-8");
            let checked = shell("check \"$@\"", &[secret, signature, file]);
            checked.status.success()
        };
        let signature = received.header("switchboard-signature");
        assert!(check(signature, &received.body));
        assert!(!check(signature, &format!("{} ", received.body)));
        assert!(!check(&signature.replace("t=1", "t=2"), &received.body));
        assert!(!check(&format!("{signature}0"), &received.body));
    });
}

#[test]
fn documented_trial_request_is_accepted() {
    run(async {
        let receiver = Receiver::start();
        let secret = receiver.secret().to_str().expect("UTF-8").to_owned();
        let url = receiver.url();
        let (done, ended) = flume::bounded(1);
        std::thread::spawn(move || done.send(shell("send \"$@\"", &[&secret, &url])));
        let output = within("it is sent", ended.recv_async())
            .await
            .expect("it ends");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(receiver.events(), ["1-0 room_occupied lobby"]);
    });
}
