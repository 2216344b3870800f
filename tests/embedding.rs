//! The public API for programs that have a node inside: publishes, queries, subscriptions, and the
//! example programs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use async_tungstenite::tungstenite::Error;
use serde_json::json;
use switchboard::metrics::RefusalCause;
use switchboard::runtime;
use switchboard::{
    Config, Delivery, ErrorCode, Hooks, Payload, Position, PublishOptions, RoomEvent, Server,
    StartError, Subscription, SubscriptionError,
};

use crate::support::node::config;
use crate::support::{Issuer, TestClient, TestNode, eventually, run, within};

async fn next(subscription: &mut Subscription) -> Result<RoomEvent, SubscriptionError> {
    let event = within("an event", subscription.next()).await;
    event.expect("the subscription goes on")
}

/// The next message, which must be the next event.
async fn message(subscription: &mut Subscription) -> Delivery {
    match next(subscription).await {
        Ok(RoomEvent::Message(message)) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

async fn publish(server: &Server, room: &str, number: u64) -> Position {
    let published = server.publish(room, number, PublishOptions::default());
    within("the publish", published)
        .await
        .expect("it is stored")
}

#[test]
fn publish_of_the_program_reaches_clients_and_is_idempotent_by_its_key() {
    run(async {
        let node = TestNode::start().await;
        let mut client = node.client().await;
        client.join("r").await;
        let options = || PublishOptions::default().key("k").user("ada");
        let data = json!({"text": "hi"});
        let first = node.server().publish("r", &data, options()).await.unwrap();
        let again = node.server().publish("r", &data, options()).await.unwrap();
        assert_eq!((first, first.offset), (again, 1));
        let ephemeral = node.server();
        let ephemeral = ephemeral.publish_ephemeral("r", "typing", PublishOptions::default());
        ephemeral.await.unwrap();
        let message = client.message("r").await;
        assert_eq!(message["offset"], 1);
        assert_eq!((&message["user"], &message["data"]), (&json!("ada"), &data));
        let message = client.message("r").await;
        assert_eq!(message["data"], "typing");
        assert!(message["offset"].is_null(), "{message}");
        client.expect_silence().await;
    });
}

#[test]
fn publish_with_a_condition_is_refused_if_the_room_has_moved_on() {
    run(async {
        let node = TestNode::start().await;
        let server = node.server();
        let first = publish(server, "r", 1).await;
        let behind = |position| PublishOptions::default().condition(position);
        let second = server.publish("r", 2, behind(first)).await.unwrap();
        assert_eq!(second.offset, 2);
        let conflict = server.publish("r", 3, behind(first)).await;
        assert_eq!(conflict.unwrap_err().code, ErrorCode::Conflict);
        let page = server.history("r", None, 10).await.unwrap();
        assert_eq!((page.position, page.messages.len()), (second, 2));
    });
}

#[test]
fn publish_of_bytes_and_the_name_of_an_event_reach_clients_and_programs() {
    run(async {
        let node = TestNode::start().await;
        let server = node.server();
        let mut room = server.subscribe("r", None).await.unwrap();
        let mut client = node.client().await;
        client.join("r").await;
        let options = PublishOptions::default().event("frame");
        server
            .publish_binary("r", vec![0, 255], options)
            .await
            .unwrap();
        let received = message(&mut room).await;
        assert_eq!(received.event.as_deref(), Some("frame"));
        assert!(matches!(received.data, Payload::Binary(bytes) if *bytes == [0, 255]));
        let received = client.message("r").await;
        assert_eq!(received["event"], "frame");
        assert_eq!(
            (&received["binary"], &received["data"]),
            (&json!("AP8="), &json!(null))
        );
    });
}

#[test]
fn calls_refuse_arguments_that_break_a_rule() {
    run(async {
        let node = TestNode::start().await;
        let server = node.server();
        let plain = PublishOptions::default;
        let behind = publish(server, "other", 1).await;
        let mut nested = json!(1);
        for _ in 0..65 {
            nested = json!([nested]);
        }
        let long = "x".repeat(65 << 10);
        let codes = [
            server.publish("no blanks", 1, plain()).await.map(drop),
            server.publish("r", 1, plain().key("")).await.map(drop),
            server
                .publish("r", 1, plain().user("a\u{202e}b"))
                .await
                .map(drop),
            server.publish("r", nested, plain()).await.map(drop),
            server.publish("r", long, plain()).await.map(drop),
            server.publish_ephemeral("r", 1, plain().key("k")).await,
            server
                .publish_ephemeral("r", 1, plain().condition(behind))
                .await,
            server.publish("r", 1, plain().event("")).await.map(drop),
            server
                .publish("r", 1, plain().event("x".repeat(201)))
                .await
                .map(drop),
            server
                .publish_binary("r", vec![0; 65 << 10], plain())
                .await
                .map(drop),
            server.history("r", None, 101).await.map(drop),
            server.members("r", None, 0).await.map(drop),
            server.rooms(None, None, 1001).await.map(drop),
        ]
        .map(|result| result.expect_err("it is refused").code);
        assert_eq!(codes, [ErrorCode::BadRequest; 13]);
        let codes = [
            server.publish("$nodes", 1, plain()).await.map(drop),
            server.subscribe("$control", None).await.map(drop),
            server.join_user("ada", "@bob").await,
        ]
        .map(|result| result.expect_err("it is forbidden").code);
        assert_eq!(codes, [ErrorCode::Forbidden; 3]);
    });
}

#[test]
fn start_refuses_a_configuration_that_contradicts_itself() {
    let config = Config {
        listen: ([0, 0, 0, 0], 0).into(),
        ..config()
    };
    let error = Server::start(&config).expect_err("it is open to other machines");
    assert!(matches!(error, StartError::Config(_)), "{error}");
}

#[test]
fn start_refuses_a_number_that_is_out_of_range() {
    let config = Config {
        heartbeat: Duration::ZERO,
        max_message: 0,
        ..config()
    };
    let error = Server::start(&config)
        .expect_err("it has no heartbeat")
        .to_string();
    assert!(
        error.contains("heartbeat") && error.contains("max-message"),
        "{error}"
    );
}

#[test]
fn subscription_receives_every_message_in_order_without_being_a_member() {
    run(async {
        let node = TestNode::start().await;
        let mut subscription = node.server().subscribe("r", None).await.unwrap();
        let mut client = node.client().await;
        for number in 1..=200 {
            client.publish("r", json!(number)).await;
            publish(node.server(), "r", number).await;
        }
        for offset in 1..=400 {
            let message = message(&mut subscription).await;
            assert_eq!(message.offset, Some(offset));
            assert_eq!(message.data.to_string(), offset.div_ceil(2).to_string());
        }
        assert_eq!(subscription.position().offset, 400);
        let count = node.server().count("r").await.unwrap();
        assert_eq!((count.connections, count.anonymous), (0, 0));
        client.auth("ada").await;
        client.join("r").await;
        let joined = next(&mut subscription).await;
        let Ok(RoomEvent::Joined { user, .. }) = joined else {
            panic!("expected ada's join, got {joined:?}");
        };
        assert_eq!(user.as_str(), "ada");
    });
}

#[test]
fn subscription_continues_behind_a_position_and_reports_a_gap_behind_a_lost_one() {
    run(async {
        let node = TestNode::with(|config| config.history_size = 3).await;
        let first = publish(node.server(), "r", 1).await;
        for number in 2..=4 {
            publish(node.server(), "r", number).await;
        }
        let server = node.server();
        let mut recovered = server.subscribe("r", Some(first)).await.unwrap();
        for offset in 2..=4 {
            assert_eq!(message(&mut recovered).await.offset, Some(offset));
        }
        publish(server, "r", 5).await;
        assert_eq!(message(&mut recovered).await.offset, Some(5));

        let mut lost = server.subscribe("r", Some(first)).await.unwrap();
        let gap = next(&mut lost).await;
        let Ok(RoomEvent::Gap(position)) = gap else {
            panic!("expected a gap, got {gap:?}");
        };
        assert_eq!(lost.position(), position);
        publish(server, "r", 6).await;
        for offset in position.offset + 1..=6 {
            assert_eq!(message(&mut lost).await.offset, Some(offset));
        }
    });
}

#[test]
fn long_recovery_of_a_subscription_is_paged_through_its_bounded_queue() {
    run(async {
        let node = TestNode::with(|config| {
            config.outbox_bytes = 64 << 10;
            config.max_message = 16 << 10;
        })
        .await;
        let text = "x".repeat(10_000);
        let publish = || (node.server()).publish("r", &text, PublishOptions::default());
        let first = publish().await.unwrap();
        for _ in 0..99 {
            publish().await.unwrap();
        }
        let subscribed = node.server().subscribe("r", Some(first));
        let mut subscription = subscribed.await.unwrap();
        for offset in 2..=100 {
            assert_eq!(message(&mut subscription).await.offset, Some(offset));
        }
    });
}

#[test]
fn slow_subscription_ends_with_an_error_and_delays_no_other() {
    run(async {
        let node = TestNode::with(|config| {
            config.outbox_bytes = 64 << 10;
            config.max_message = 16 << 10;
        })
        .await;
        let server = node.server();
        let mut slow = server.subscribe("r", None).await.unwrap();
        let mut other = server.subscribe("r", None).await.unwrap();
        let text = "x".repeat(10_000);
        for offset in 1..=20 {
            let published = server.publish("r", &text, PublishOptions::default());
            assert_eq!(published.await.unwrap().offset, offset);
            assert_eq!(message(&mut other).await.offset, Some(offset));
        }
        assert_eq!(next(&mut slow).await.unwrap_err(), SubscriptionError::Slow);
        assert!(within("the end", slow.next()).await.is_none());
        let mut again = server.subscribe("r", Some(slow.position())).await.unwrap();
        assert_eq!(message(&mut again).await.offset, Some(1));
    });
}

#[test]
fn dropped_subscription_ends_its_session() {
    run(async {
        let node = TestNode::start().await;
        let sessions = || node.server().metrics().sessions_open.get();
        let subscription = node.server().subscribe("r", None).await.unwrap();
        assert_eq!(sessions(), 1);
        drop(subscription);
        eventually("the session has ended", || sessions() == 0).await;
    });
}

/// A node with these hooks, which is ready, and its server.
async fn start_with(hooks: Hooks) -> Server {
    let server = Server::start_with(&config(), hooks).expect("the node starts");
    eventually("the node is ready", || server.is_ready()).await;
    server
}

#[test]
fn connect_hook_refuses_handshakes_with_403_and_its_reason() {
    run(async {
        let server = start_with(Hooks::default().connect(|attempt| {
            assert!(attempt.address.is_loopback() && attempt.user.is_none());
            match (attempt.query(), attempt.header("x-team")) {
                (Some("pass=1"), _) | (_, Some("blue")) => Ok(()),
                (_, team) => Err(format!("not for team {team:?}").into()),
            }
        }))
        .await;
        let refused = TestClient::with(server.address(), "", &[("x-team", "red")]).await;
        let Err(Error::Http(response)) = refused.map(|_| ()) else {
            panic!("expected a refusal");
        };
        assert_eq!(response.status(), 403);
        let body = response.into_body().expect("a body");
        let body = String::from_utf8(body).expect("text");
        assert!(body.contains(r#"not for team Some(\"red\")"#), "{body}");
        let refused_total = || server.metrics().refused_total.get(RefusalCause::Hook);
        assert_eq!(refused_total(), 1);
        let blue = TestClient::with(server.address(), "", &[("x-team", "blue")]).await;
        let pass = TestClient::with(server.address(), "?pass=1", &[]).await;
        assert!(blue.is_ok() && pass.is_ok());
        assert_eq!(refused_total(), 1);
    });
}

#[test]
fn join_hook_refuses_all_that_reads_a_room() {
    run(async {
        let server = start_with(Hooks::default().join(|attempt| {
            let user = attempt.user.map(|user| user.as_str());
            match (attempt.room.as_str(), user) {
                ("staff", Some("ada")) | ("lobby", _) => Ok(()),
                _ => Err("staff only".into()),
            }
        }))
        .await;
        let mut client = TestClient::connect(server.address()).await;
        client.join("lobby").await;
        for command in ["join", "history", "members"] {
            let reply = client.call(json!({"type": command, "room": "staff"})).await;
            let (code, reason) = (&reply["code"], &reply["reason"]);
            assert_eq!((code, reason), (&json!("forbidden"), &json!("staff only")));
        }
        client.publish("staff", json!(1)).await;
        client.auth("ada").await;
        client.join("staff").await;
        // The program's own subscriptions are not asked about.
        let subscription = server.subscribe("other", None).await;
        assert!(subscription.is_ok(), "{subscription:?}");
    });
}

#[test]
fn publish_hook_refuses_a_message_and_counts_its_panics() {
    run(async {
        let server = start_with(Hooks::default().publish(|attempt| {
            match (attempt.data.json().unwrap_or_default(), attempt.ephemeral) {
                ("\"spam\"", false) => Err("no advertisements".into()),
                ("\"bug\"", _) => panic!("a bug in a hook"),
                _ => Ok(()),
            }
        }))
        .await;
        let mut client = TestClient::connect(server.address()).await;
        client.join("r").await;
        let publish = |data: &str| json!({"type": "publish", "room": "r", "data": data});
        let reply = client.call(publish("spam")).await;
        assert_eq!(
            (&reply["code"], &reply["reason"]),
            (&json!("forbidden"), &json!("no advertisements"))
        );
        assert_eq!(server.metrics().panics_total.get(), 0);
        let reply = client.call(publish("bug")).await;
        assert_eq!(reply["code"], "forbidden", "{reply}");
        assert_eq!(server.metrics().panics_total.get(), 1);
        let published = server.publish("r", "spam", PublishOptions::default()).await;
        assert_eq!(published.expect("the program may").offset, 1);
        assert_eq!(client.message("r").await["data"], "spam");
        assert_eq!(client.publish("r", json!("ham")).await, 2);
    });
}

#[test]
fn subscription_needs_no_token_and_no_right() {
    run(async {
        let issuer = Issuer::new();
        let node = TestNode::with(|config| issuer.secures(config)).await;
        let server = node.server();
        for room in ["private", "@ada"] {
            let mut subscription = server.subscribe(room, None).await.unwrap();
            publish(server, room, 1).await;
            assert_eq!(message(&mut subscription).await.offset, Some(1));
        }
    });
}

#[test]
fn subscription_to_a_personal_room_is_no_connection_of_its_user() {
    run(async {
        let node = TestNode::start().await;
        let server = node.server();
        let mut direct = server.subscribe("@ada", None).await.unwrap();
        let mut client = node.client().await;
        client.auth("ada").await;
        server.join_user("ada", "lobby").await.unwrap();
        // The client has been added to the room, and the subscription has not.
        let added = async {
            while server.members("lobby", None, 10).await.unwrap().count == 0 {
                runtime::sleep(Duration::from_millis(10)).await;
            }
        };
        within("ada in the lobby", added).await;
        publish(server, "lobby", 7).await;
        server.disconnect_user("ada").await.unwrap();
        publish(server, "@ada", 1).await;
        assert_eq!(message(&mut direct).await.data.to_string(), "1");
    });
}

#[test]
fn queries_return_messages_members_rooms_and_connections() {
    run(async {
        let node = TestNode::start().await;
        let server = node.server();
        let mut client = node.client().await;
        client.auth("ada").await;
        client.join("r").await;
        for number in 1..=3 {
            publish(server, "r", number).await;
        }
        let page = server.history("r", Some(3), 1).await.unwrap();
        let offsets: Vec<_> = page.messages.iter().map(|message| message.offset).collect();
        assert_eq!((offsets, page.more), (vec![Some(2)], true));
        assert_eq!(page.position.offset, 3);
        let page = server.members("r", None, 10).await.unwrap();
        let users: Vec<_> = page
            .members
            .iter()
            .map(|member| member.user.as_str())
            .collect();
        assert_eq!((users, page.count), (vec!["ada"], 1));
        let page = server.rooms(Some("r"), None, 10).await.unwrap();
        let rooms: Vec<_> = page.rooms.iter().map(|count| count.room.as_str()).collect();
        assert_eq!((rooms, page.more), (vec!["r"], false));
        let page = server.connections("ada", None, 10).await.unwrap();
        let sessions = page.connections.iter();
        let sessions: Vec<_> = sessions.map(|it| it.session.to_string()).collect();
        assert_eq!(json!(sessions), json!([client.welcome["session"]]));
    });
}

#[test]
fn commands_about_a_user_change_its_rooms_and_end_its_connections() {
    run(async {
        let node = TestNode::start().await;
        let mut client = node.client().await;
        client.auth("ada").await;
        node.server().join_user("ada", "r").await.unwrap();
        client.push("ok").await;
        publish(node.server(), "r", 1).await;
        client.message("r").await;
        node.server().remove_user("ada", "r").await.unwrap();
        assert_eq!(client.push("removed").await["room"], "r");
        node.server().disconnect_user("ada").await.unwrap();
        let (code, _) = client.closed().await.expect("a close code");
        assert_eq!(code, 3007);
    });
}

#[test]
fn drain_ends_subscriptions_and_later_calls_fail_at_once() {
    run(async {
        let node = TestNode::start().await;
        let handle = node.server().handle();
        let mut subscription = handle.subscribe("r", None).await.unwrap();
        assert!(handle.is_ready());
        node.drain().await;
        let end = next(&mut subscription).await;
        assert_eq!(end.unwrap_err(), SubscriptionError::Draining);
        assert!(within("the end", subscription.next()).await.is_none());
        assert!(!handle.is_ready());
        let published = handle.publish("r", 1, PublishOptions::default());
        let error = within("the answer", published).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
        let error = handle.subscribe("r", None).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
    });
}

/// An example program as a process; killed when it is dropped.
struct Example {
    child: Child,
    output: flume::Receiver<String>,
}

impl Example {
    /// Builds and starts it with the features and the profile of this test, on a free port.
    fn start(name: &str) -> Self {
        let test = std::env::current_exe().expect("it has a path");
        let profile = test
            .parent()
            .and_then(Path::parent)
            .expect("target/debug/deps");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--no-default-features",
            "--example",
            name,
        ]);
        cargo
            .arg("--target-dir")
            .arg(profile.parent().expect("target"));
        let features = [
            ("default", cfg!(feature = "default")),
            ("rt-async-std", cfg!(feature = "rt-async-std")),
            ("rt-smol", cfg!(feature = "rt-smol")),
            ("rt-tokio", cfg!(feature = "rt-tokio")),
            ("jemalloc", cfg!(feature = "jemalloc")),
        ];
        let features = features.iter().filter(|(_, on)| *on);
        let features: Vec<&str> = features.map(|(name, _)| *name).collect();
        cargo.arg("--features").arg(features.join(","));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.status().expect("cargo runs");
        assert!(built.success(), "{cargo:?}");
        let mut program = Command::new(profile.join("examples").join(name));
        program
            .arg("127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = program.spawn().expect("the example starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (sender, output) = flume::unbounded();
        // Ends with the example.
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self { child, output }
    }

    async fn line(&mut self) -> String {
        let line = within("a line of the example", self.output.recv_async()).await;
        line.expect("the example goes on")
    }

    async fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the example ends", || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        })
        .await;
        status.expect("it has ended")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn example_publishes_and_prints_what_a_client_publishes() {
    let name = if cfg!(feature = "rt-async-std") {
        "embed_async_std"
    } else if cfg!(feature = "rt-smol") {
        "embed_smol"
    } else {
        "embed_tokio"
    };
    let mut example = Example::start(name);
    run(async {
        let line = example.line().await;
        let address = line.strip_prefix("clients connect to ws://");
        let address = address.and_then(|rest| rest.strip_suffix("/ws"));
        let address = address.unwrap_or_else(|| panic!("{line}"));
        let mut client = TestClient::connect(address.parse().unwrap()).await;
        client.join("lobby").await;
        assert!(client.message("lobby").await["data"].is_u64());
        client.publish("lobby", json!("stop")).await;
        let mut lines = Vec::new();
        while lines.last().is_none_or(|last| last != "\"stop\"") {
            lines.push(example.line().await);
        }
        assert_eq!(lines[0], "1", "{lines:?}");
        let (code, _) = client.closed().await.expect("a close code");
        assert_eq!(code, 3001);
        assert!(example.exit().await.success());
    });
}
