//! The real binary as an operator meets it: what it prints, which values it refuses and how, where values come from, signals
//! and exit codes, what happens when stdout or the files run out, and that no secret is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard::runtime;

use crate::support::frames::FrameClient;
use crate::support::process::{BINARY, Ended, command, run_to_end, without_variables};
use crate::support::{NodeProcess, TestClient, http, run, within};

/// Nobody listens there: port 1 is reserved, and nothing on a machine of ours uses it.
const NOTHING: &str = "redis://127.0.0.1:1";

const PASSWORD: &str = "correct-horse-battery";

/// `--check-config` with these; the TOML it prints.
async fn checked(arguments: &[&str], variables: &[(&str, &str)]) -> toml::Table {
    let mut all = vec!["serve", "--check-config"];
    all.extend(arguments);
    let ended = run_to_end(&all, variables).await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);
    toml::from_str(&ended.stdout).expect("TOML")
}

/// A command line that must be refused: exit code 2, nothing on stdout; what is said.
async fn refused(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let Ended {
        status,
        stdout,
        stderr,
    } = run_to_end(arguments, variables).await;
    assert_eq!(status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(stdout.is_empty(), "{arguments:?}: {stdout}");
    stderr
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("it is written");
    file
}

#[test]
fn help_names_every_option_with_its_variable_and_its_default() {
    run(async {
        let ended = run_to_end(&["serve", "--help"], &[]).await;
        assert_eq!(ended.status.code(), Some(0));
        // Lines are wrapped to the width of the terminal.
        let help = ended
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let defaults = checked(&[], &[]).await;
        assert!(defaults.len() > 20, "{defaults:?}");
        for (option, value) in defaults {
            let variable = option.to_uppercase().replace('-', "_");
            assert!(help.contains(&format!("--{option}")), "{option}");
            let of = help.find(&format!("[env: SWITCHBOARD_{variable}]"));
            let rest = &help[of.unwrap_or_else(|| panic!("{variable} is not named"))..];
            let default = match value {
                toml::Value::String(text) if option != "node" => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                // Lists are empty, and the label is made of the machine's name.
                _ => continue,
            };
            let (_, rest) = rest.split_once("] ").expect("more follows");
            assert!(
                rest.starts_with(&format!("[default: {default}]")),
                "{option}"
            );
        }
    });
}

#[test]
fn the_version_is_told_and_nothing_else() {
    run(async {
        let ended = run_to_end(&["--version"], &[]).await;
        assert_eq!(ended.status.code(), Some(0));
        let version = concat!("switchboard ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(ended.stdout, version);
    });
}

#[test]
fn without_a_command_the_usage_is_told() {
    run(async {
        assert!(refused(&[], &[]).await.contains("Usage: switchboard"));
        assert!(refused(&["dance"], &[]).await.contains("dance"));
    });
}

#[test]
fn a_checked_configuration_hides_passwords_and_can_be_used_as_a_file() {
    run(async {
        let secret = format!("redis://ada:{PASSWORD}@127.0.0.1:6380/3");
        let all = ["serve", "--check-config"];
        let ended = run_to_end(&all, &[("SWITCHBOARD_REDIS", &secret)]).await;
        assert!(!ended.stdout.contains(PASSWORD), "{}", ended.stdout);
        assert!(ended.stdout.contains("redis://ada:***@127.0.0.1:6380/3"));

        let once = run_to_end(&[&all[..], &["--inbox", "99", "--open"]].concat(), &[]).await;
        let file = file(&once.stdout);
        let path = file.path().to_str().expect("UTF-8");
        let again = run_to_end(&[&all[..], &["--config", path]].concat(), &[]).await;
        assert_eq!(again.stdout, once.stdout);
    });
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    run(async {
        let file = file("inbox = 101\nmax-rooms = 102\noutbox-frames = 103\n");
        let path = file.path().to_str().expect("UTF-8");
        let variables = [
            ("SWITCHBOARD_CONFIG", path),
            ("SWITCHBOARD_INBOX", "201"),
            ("SWITCHBOARD_MAX_ROOMS", "202"),
        ];
        let config = checked(&["--inbox", "301"], &variables).await;
        let number = |key: &str| config[key].as_integer();
        assert_eq!(number("inbox"), Some(301));
        assert_eq!(number("max-rooms"), Some(202));
        assert_eq!(number("outbox-frames"), Some(103));
        assert_eq!(number("history-size"), Some(1000));
    });
}

#[test]
fn a_value_that_is_refused_is_named_with_its_option_and_what_it_must_be() {
    let rows: &[(&str, &str, &[&str])] = &[
        ("listen", "nowhere", &["127.0.0.1:9090"]),
        ("listen", "127.0.0.1:65536", &["127.0.0.1:9090"]),
        ("heartbeat", "1ms", &["1s", "1h"]),
        ("heartbeat", "5", &["500ms", "25s"]),
        ("head-timeout", "6m", &["100ms", "5m"]),
        ("max-message", "1GiB", &["1KiB", "16MiB"]),
        ("max-head", "many", &["65536", "64KiB"]),
        ("outbox-frames", "2", &["16", "1000000"]),
        ("inbox", "-1", &["whole number"]),
        ("rooms-per-session", "0", &["1", "100000"]),
        ("log-level", "loud", &["error", "trace"]),
        ("open", "perhaps", &["true or false"]),
        ("redis", "http://a", &["redis://", "rediss://"]),
        ("redis", "redis://a:0", &["1", "65535"]),
        ("redis-ca", "/does/not/exist", &["file"]),
        ("www", "/does/not/exist", &["directory"]),
        ("prefix", "a{b}", &["1 to 64"]),
        ("trusted-proxy", "proxy.example", &["IP address"]),
        ("allow-origin", "chat.example", &["https://chat.example"]),
        ("echo-path", "echo", &["begin with /"]),
    ];
    run(async move {
        for (option, value, needs) in rows {
            let flag = format!("--{option}={value}");
            let said = refused(&["serve", &flag], &[]).await;
            let variable = format!("SWITCHBOARD_{}", option.to_uppercase().replace('-', "_"));
            let by_variable = refused(&["serve"], &[(&variable, value)]).await;
            let file = file(&format!("{option} = \"{value}\"\n"));
            let path = file.path().to_str().expect("UTF-8");
            let by_file = refused(&["serve", "--config", path], &[]).await;
            for (said, source) in [
                (said, "the command line"),
                (by_variable, &variable),
                (by_file, path),
            ] {
                let expected = [&format!("--{option}"), *value, source];
                for part in expected.iter().chain(*needs) {
                    assert!(said.contains(part), "{part:?} is not in {said:?}");
                }
                assert_eq!(said.lines().count(), 1, "{said:?}");
            }
        }
    });
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    run(async {
        let arguments = ["serve", "--inbox=0", "--heartbeat=1ms", "--prefix=*"];
        let said = refused(&arguments, &[]).await;
        assert_eq!(said.lines().count(), 3, "{said}");
    });
}

#[test]
fn options_that_do_not_fit_each_other_are_refused() {
    run(async {
        let rows: [(&[&str], &[&str]); 3] = [
            (&["--pong-timeout=30s"], &["--pong-timeout", "30s", "25s"]),
            (
                &["--listen=0.0.0.0:0"],
                &["--listen", "0.0.0.0:0", "--open"],
            ),
            (&["--listen=[::]:0"], &["--listen", "[::]:0", "--open"]),
        ];
        for (flags, parts) in rows {
            let said = refused(&[&["serve"], flags].concat(), &[]).await;
            for part in parts {
                assert!(said.contains(part), "{part:?} is not in {said:?}");
            }
        }
    });
}

#[test]
fn a_file_of_api_keys_is_judged_before_the_start_and_no_key_is_told() {
    run(async {
        let short = "0123456789abcdef0123456789abcde";
        let poor = file(&format!("shop:{short}\n"));
        let path = poor.path().to_str().expect("UTF-8");
        let arguments = ["serve", "--check-config", "--api-key-file", path];
        let said = refused(&arguments, &[]).await;
        for part in ["--api-key-file", path, "line 1", "32"] {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
        assert!(!said.contains(short), "{said}");
        let good = file(&format!("shop:{short}f\n"));
        let path = good.path().to_str().expect("UTF-8");
        let listen = ["--api-listen", "0.0.0.0:0"];
        let arguments = ["serve", "--check-config", "--api-key-file", path];
        let ended = run_to_end(&[&arguments[..], &listen].concat(), &[]).await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert!(ended.stdout.contains(path) && !ended.stdout.contains(short));
    });
}

#[test]
fn a_file_with_unknown_keys_or_that_is_no_file_is_refused() {
    run(async {
        let misspelt = file("inbox = 100\nheartbaet = \"25s\"\nredis_url = \"a\"\n");
        let path = misspelt.path().to_str().expect("UTF-8");
        let said = refused(&["serve", "--config", path], &[]).await;
        for part in [path, "heartbaet", "redis_url"] {
            assert!(said.contains(part), "{said}");
        }

        let broken = file(&format!("inbox = 100\nredis = \"redis://:{PASSWORD}@a\n"));
        let path = broken.path().to_str().expect("UTF-8");
        let said = refused(&["serve", "--config", path], &[]).await;
        assert!(
            said.contains("line 2") && !said.contains(PASSWORD),
            "{said}"
        );

        let said = refused(&["serve", "--config", "/does/not/exist"], &[]).await;
        assert!(said.contains("/does/not/exist"), "{said}");
    });
}

#[test]
fn a_taken_port_is_told_with_the_option_that_chooses_another() {
    run(async {
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = taken.local_addr().expect("it is bound").to_string();
        let ended = run_to_end(&["serve", "--listen", &address], &[]).await;
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.contains(&address), "{}", ended.stderr);
        assert!(ended.stderr.contains("--listen"), "{}", ended.stderr);
    });
}

#[test]
fn the_exit_code_is_the_same_when_nobody_listens() {
    for (argument, code) in [("--inbox=0", 2), ("--help", 0)] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let stdout = writer.try_clone().expect("a descriptor");
        let mut deaf = command(&["serve", argument]);
        let status = deaf.stdout(stdout).stderr(writer).status();
        assert_eq!(status.expect("it starts").code(), Some(code), "{argument}");
    }
}

#[test]
fn sigterm_and_sigint_say_farewell_and_exit_with_zero() {
    run(async {
        for stop in [NodeProcess::terminate, NodeProcess::interrupt] {
            let mut node = NodeProcess::start(&[]).await;
            let mut clients = [node.client().await, node.client().await];
            stop(&node);
            for client in &mut clients {
                let bye = client.push("bye").await;
                assert_eq!(bye["reason"], "draining");
                assert!(bye["retry"].is_u64(), "{bye}");
                let (code, _) = client.closed().await.expect("a close frame");
                assert_eq!(code, 3001);
            }
            assert_eq!(node.exit().await.code(), Some(0));
            let last = node.log().pop().expect("a log");
            let last: Value = serde_json::from_str(&last).expect("JSON");
            assert_eq!(last["msg"], "stopped");
            assert_eq!(node.errors(), "");
        }
    });
}

#[test]
fn a_second_signal_does_not_wait_for_the_drain() {
    run(async {
        let mut node = NodeProcess::start(&["--close-timeout", "60s"]).await;
        // It is told to go, but does not.
        let _stays = FrameClient::welcomed(node.address).await;
        node.terminate();
        node.logged("draining").await;
        node.terminate();
        assert_eq!(node.exit().await.code(), Some(0));
    });
}

#[test]
fn a_killed_node_can_be_started_again_on_its_port_at_once() {
    run(async {
        let mut node = NodeProcess::start(&[]).await;
        let mut client = node.client().await;
        node.kill();
        assert_eq!(client.closed().await, None);
        assert_eq!(node.exit().await.signal(), Some(9));
        let address = node.address.to_string();
        let next = NodeProcess::spawn(command(&["serve", "--listen", &address])).await;
        assert_eq!(next.address, node.address);
        next.client().await.expect_silence().await;
    });
}

#[test]
fn a_node_without_its_redis_ends_at_once_when_told_to() {
    run(async {
        let mut node = NodeProcess::start(&["--redis", NOTHING]).await;
        let began = Instant::now();
        node.terminate();
        assert_eq!(node.exit().await.code(), Some(0));
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
}

#[test]
fn the_log_is_one_json_object_per_line() {
    run(async {
        let mut node = NodeProcess::start(&["--log-level", "trace"]).await;
        let mut client = node.client().await;
        let name = "a\nb\u{1b}[31m\u{2028}\"";
        client.call(json!({"type": "auth", "user": name})).await;
        client.call(json!({"type": "join", "room": name})).await;
        client.join("lobby").await;
        http::exchange(node.address, b"junk \x1b[31m\r\n").await;
        drop(client);
        node.terminate();
        node.exit().await;
        let log = node.log();
        assert!(log.len() > 3, "{log:?}");
        for line in log {
            let fact: Value = serde_json::from_str(&line).expect("JSON");
            assert!(fact["level"].is_u64(), "{line}");
            assert!(fact["time"].is_u64(), "{line}");
            assert!(fact["msg"].is_string(), "{line}");
            assert!(!line.contains('\u{1b}'), "{line:?}");
        }
    });
}

/// Makes a node log a line or two, at the level debug.
async fn be_refused(address: SocketAddr) {
    let answer = http::exchange(address, b"junk").await;
    assert_eq!(http::status(&answer), Some(400));
}

#[test]
fn a_node_serves_on_when_its_stdout_is_closed() {
    run(async {
        let mut node = NodeProcess::start(&["--log-level", "trace"]).await;
        let mut client = node.client().await;
        let address = node.address;
        node.close_log(async || be_refused(address).await).await;
        for _ in 0..10 {
            be_refused(address).await;
        }
        client.expect_silence().await;
        drop(client);
        node.client().await.expect_silence().await;
        node.terminate();
        assert_eq!(node.exit().await.code(), Some(0));
    });
}

#[test]
fn a_node_starts_without_a_stdout() {
    run(async {
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = taken.local_addr().expect("it is bound");
        drop(taken);
        let mut shell = Command::new("sh");
        without_variables(&mut shell);
        shell.args(["-c", "exec \"$0\" serve --listen \"$1\" >&-", BINARY]);
        shell.arg(address.to_string());
        let mut node = NodeProcess::unheard(shell, address);
        let connecting = async {
            loop {
                if let Ok(client) = TestClient::try_connect(address).await {
                    return client;
                }
                runtime::sleep(Duration::from_millis(10)).await;
            }
        };
        let mut client = within("the node listens", connecting).await;
        client.expect_silence().await;
        drop(client);
        node.terminate();
        assert_eq!(node.exit().await.code(), Some(0), "{}", node.errors());
    });
}

#[test]
fn a_node_serves_on_when_nobody_reads_its_stdout() {
    run(async {
        let mut node = NodeProcess::start(&["--log-level", "trace"]).await;
        let mut client = node.client().await;
        node.stall_log();
        // Twice what a pipe holds (64 KiB).
        for _ in 0..1000 {
            be_refused(node.address).await;
        }
        client.expect_silence().await;
        drop(client);
        node.client().await.expect_silence().await;
        node.terminate();
        assert_eq!(node.exit().await.code(), Some(0));
    });
}

/// What Redis 5 says to a client of today: it repeats what it did not understand.
fn old_redis() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let answer = format!(
        "-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `ada`, `{PASSWORD}`, \r\n"
    );
    // It ends with the process of the tests.
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut scrap = [0; 4096];
                while matches!(socket.read(&mut scrap), Ok(1..)) {
                    if socket.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn a_password_of_redis_is_told_nowhere() {
    run(async {
        let ports = [1, old_redis()];
        for port in ports {
            let url = format!("redis://ada:{PASSWORD}@127.0.0.1:{port}/2");
            let mut node = NodeProcess::with(&["--log-level", "trace"], |command| {
                command.env("SWITCHBOARD_REDIS", &url);
            })
            .await;
            let tried = async {
                while !node.log().iter().any(|line| line.contains("edis")) {
                    runtime::sleep(Duration::from_millis(10)).await;
                }
            };
            within("Redis is spoken of", tried).await;
            let ready = http::get(node.address, "/readyz").await;
            assert_eq!(http::status(&ready), Some(503));
            let arguments = std::fs::read(format!("/proc/{}/cmdline", node.id()));
            let arguments = String::from_utf8(arguments.expect("it runs")).expect("UTF-8");
            node.terminate();
            assert_eq!(node.exit().await.code(), Some(0));
            let told = [node.log().join("\n"), node.errors(), ready, arguments];
            for text in told {
                assert!(!text.contains(PASSWORD), "{text}");
            }
        }
    });
}

#[test]
fn a_node_out_of_files_serves_those_it_has_and_takes_new_ones_when_it_can() {
    run(async {
        let mut shell = Command::new("sh");
        without_variables(&mut shell);
        shell.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", BINARY, "serve"]);
        shell.args(["--listen", "127.0.0.1:0", "--max-connections", "1000"]);
        shell.args(["--head-timeout", "60s"]);
        let mut node = NodeProcess::spawn(shell).await;
        let mut client = node.client().await;
        let mut many = Vec::new();
        for _ in 0..100 {
            many.push(http::connect(node.address).await);
        }
        node.logged("cannot take connections in").await;

        let (before, began) = (node.cpu_time(), Instant::now());
        while began.elapsed() < Duration::from_secs(1) {
            client.expect_silence().await;
            runtime::sleep(Duration::from_millis(100)).await;
        }
        let used = node.cpu_time() - before;
        assert!(used < Duration::from_millis(300), "{used:?} in a second");

        drop(many);
        node.client().await.expect_silence().await;
        client.expect_silence().await;
        let told = node
            .log()
            .iter()
            .filter(|line| line.contains("cannot take connections in"))
            .count();
        assert!(told <= 1 + began.elapsed().as_secs() as usize + 1, "{told}");
    });
}
