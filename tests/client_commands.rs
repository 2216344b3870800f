//! The commands that are clients (`publish`, `tail`, `history`, `members`, `rooms`, `bench`), as
//! processes against a node: what they print, and their exit codes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use switchboard::model::pattern::Pattern;
use switchboard::model::rights::{Policy, Rule};

use crate::support::backend::{KEY, keys};
use crate::support::process::{Ended, command, run_to_end};
use crate::support::{TestNode, run, within};

/// Runs a command against a node to its end.
async fn ended(node: &TestNode, arguments: &[&str]) -> Ended {
    let url = format!("ws://{}", node.address);
    run_to_end(arguments, &[("SWITCHBOARD_URL", &url)]).await
}

/// A rule that lets no client publish.
fn read_only() -> Rule {
    Rule {
        rooms: Pattern::new("*").expect("a pattern"),
        policy: Policy::ReadOnly,
    }
}

/// The lines that a command prints which must succeed.
async fn lines(node: &TestNode, arguments: &[&str]) -> Vec<String> {
    let ended = ended(node, arguments).await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    ended.stdout.lines().map(str::to_owned).collect()
}

fn parsed(lines: &[String]) -> Vec<Value> {
    let parsed = lines.iter().map(|line| serde_json::from_str(line));
    parsed.collect::<Result<_, _>>().expect("lines of JSON")
}

/// A command that does not end by itself, and the lines that it prints.
struct Running {
    child: Child,
    lines: flume::Receiver<String>,
}

impl Running {
    fn start(node: &TestNode, arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.env("SWITCHBOARD_URL", format!("ws://{}", node.address));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("it is piped");
        let (send, lines) = flume::unbounded();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    async fn line(&self) -> String {
        let line = within("a line", self.lines.recv_async()).await;
        line.expect("the command goes on")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn publish_sends_json_as_it_is_and_other_texts_as_strings() {
    run(async {
        let node = TestNode::start().await;
        let position = lines(&node, &["publish", "r", "hello"]).await;
        assert!(position[0].ends_with("/1"), "{position:?}");
        let position = parsed(&lines(&node, &["publish", "r", "{\"a\": 1}", "--json"]).await);
        assert_eq!(
            (&position[0]["room"], &position[0]["offset"]),
            (&json!("r"), &json!(2))
        );
        lines(&node, &["publish", "r", "again", "--key", "k"]).await;
        lines(&node, &["publish", "r", "again", "--key", "k"]).await;
        assert!(
            lines(&node, &["publish", "r", "1", "--ephemeral"])
                .await
                .is_empty()
        );
        let history = lines(&node, &["history", "r"]).await;
        assert_eq!(
            history,
            ["1 - \"hello\"", "2 - {\"a\": 1}", "3 - \"again\""]
        );
        let history = parsed(&lines(&node, &["history", "r", "--limit", "1", "--json"]).await);
        assert_eq!(history.len(), 1);
        assert_eq!(
            (&history[0]["offset"], &history[0]["data"]),
            (&json!(3), &json!("again"))
        );
    });
}

#[test]
fn publish_sends_each_line_of_standard_input() {
    run(async {
        let node = TestNode::start().await;
        let mut command = command(&["publish", "r"]);
        command.env("SWITCHBOARD_URL", format!("ws://{}", node.address));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(b"one\n2\n\n").expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 3);
        let history = lines(&node, &["history", "r"]).await;
        assert_eq!(history, ["1 - \"one\"", "2 - 2", "3 - \"\""]);
    });
}

#[test]
fn tail_prints_stored_and_new_messages_of_several_rooms() {
    run(async {
        let node = TestNode::start().await;
        let position = lines(&node, &["publish", "r", "1"]).await;
        lines(&node, &["publish", "r", "2"]).await;
        let tail = Running::start(&node, &["tail", "r", "s", "--since", "beginning"]);
        assert_eq!(
            [tail.line().await, tail.line().await],
            ["r 1 - 1", "r 2 - 2"]
        );
        lines(&node, &["publish", "s", "3", "--user", "ada"]).await;
        assert_eq!(tail.line().await, "s 1 ada 3");

        let tail = Running::start(&node, &["tail", "r", "--json", "--since", &position[0]]);
        let message: Value = serde_json::from_str(&tail.line().await).expect("JSON");
        let fields = ["type", "room", "offset", "data"].map(|field| message[field].clone());
        assert_eq!(fields, [json!("message"), json!("r"), json!(2), json!(2)]);
    });
}

#[test]
fn members_prints_the_list_and_follows_its_changes() {
    run(async {
        let node = TestNode::with(|config| config.presence_grace = Default::default()).await;
        let watch = Running::start(&node, &["members", "r", "--user", "ada", "--watch"]);
        assert_eq!(watch.line().await, "ada\t1");
        let other = Running::start(&node, &["members", "r", "--user", "bob", "--watch"]);
        // Its own join may come before or behind the list.
        while watch.line().await != "+ bob" {}
        let members = parsed(&lines(&node, &["members", "r", "--json"]).await);
        let names: Vec<&Value> = members.iter().map(|member| &member["user"]).collect();
        assert_eq!(names, [&json!("ada"), &json!("bob")]);
        drop(other);
        assert_eq!(watch.line().await, "- bob");
    });
}

#[test]
fn rooms_lists_the_occupied_rooms_with_their_counts() {
    run(async {
        let node = TestNode::start().await;
        let ada = Running::start(&node, &["members", "chat.1", "--user", "ada", "--watch"]);
        assert_eq!(ada.line().await, "ada\t1");
        let bob = Running::start(&node, &["members", "other", "--user", "bob", "--watch"]);
        assert_eq!(bob.line().await, "bob\t1");
        let all = lines(&node, &["rooms"]).await;
        assert_eq!(all, ["chat.1\t1\t1\t0", "other\t1\t1\t0"]);
        let some = parsed(&lines(&node, &["rooms", "chat.", "--json"]).await);
        let counts = json!({"room": "chat.1", "connections": 1, "users": 1, "anonymous": 0});
        assert_eq!(some, [counts]);
        let online = lines(&node, &["rooms", "@"]).await;
        assert_eq!(online, ["@ada\t1\t1\t0", "@bob\t1\t1\t0"]);
    });
}

#[test]
fn rooms_pages_through_a_long_list() {
    run(async {
        let node = TestNode::with(|config| config.rooms_per_session = 2000).await;
        let mut client = node.client().await;
        for number in 0..1001 {
            client.join(&format!("r{number}")).await;
        }
        let all = lines(&node, &["rooms", "r"]).await;
        assert_eq!(all.len(), 1001);
    });
}

#[test]
fn rooms_needs_the_key_of_the_api() {
    run(async {
        let node = TestNode::with(|config| config.api_key_file = Some(keys())).await;
        let refused = ended(&node, &["rooms"]).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stderr.contains("401"), "{}", refused.stderr);
        let key = ["rooms", "--api-key", KEY];
        assert!(lines(&node, &key).await.is_empty());
        let nowhere = ["rooms", "--api-url", "http://127.0.0.1:1"];
        let ended = ended(&node, &nowhere).await;
        assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    });
}

#[test]
fn bench_counts_every_delivery_and_prints_percentiles() {
    run(async {
        let node = TestNode::start().await;
        let load = "bench --connections 6 --rooms 2 --publishers 2 --rate 40 --duration 1s --json";
        let load: Vec<&str> = load.split(' ').collect();
        let ended = ended(&node, &load).await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        // There is no progress where standard error is not a terminal.
        assert!(!ended.stderr.contains('\r'), "{}", ended.stderr);
        let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        let count = |field: &str| report[field].as_u64().expect("a number");
        assert_eq!((count("missing"), count("unanswered")), (0, 0), "{report}");
        assert!(count("publishes") > 0, "{report}");
        // Each room has three connections.
        assert_eq!(count("deliveries"), 3 * count("publishes"), "{report}");
        let quantile = |name| report["delivery_us"][name].as_u64().expect("a number");
        assert!(quantile("p50") > 0 && quantile("p50") <= quantile("max"));
    });
}

#[test]
fn bench_fails_if_its_publishes_are_refused() {
    run(async {
        let node = TestNode::with(|config| {
            config.room = vec![read_only()];
        })
        .await;
        let ended = ended(&node, &["bench", "--connections", "2", "--duration", "1s"]).await;
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("forbidden"), "{}", ended.stderr);
    });
}

#[test]
fn exit_codes_tell_refusals_wrong_usage_and_missing_answers_apart() {
    run(async {
        let node = TestNode::start().await;
        let refused = ended(&node, &["publish", "$nodes", "1"]).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stderr.contains("forbidden"), "{}", refused.stderr);
        let here = format!("ws://{}/elsewhere", node.address);
        let refused = ended(&node, &["history", "r", "--url", &here]).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stderr.contains("404"), "{}", refused.stderr);
        for wrong in [
            &["publish"][..],
            &["publish", "no blanks", "1"],
            &["publish", "r", "1", "--key", ""],
            &["tail", "r", "--since", "yesterday"],
            &["history", "r", "--limit", "0"],
            &["members", "r", "--url", "http://localhost"],
        ] {
            let ended = ended(&node, wrong).await;
            assert_eq!(ended.status.code(), Some(2), "{wrong:?}");
            assert!(ended.stdout.is_empty() && !ended.stderr.is_empty());
        }
        // No process listens on port 1.
        let nowhere = [
            "publish",
            "r",
            "1",
            "--url",
            "ws://127.0.0.1:1",
            "--timeout",
            "1s",
        ];
        let ended = ended(&node, &nowhere).await;
        assert_eq!(ended.status.code(), Some(3));
        assert!(ended.stderr.contains("no answer"), "{}", ended.stderr);
    });
}
