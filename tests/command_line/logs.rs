//! The log: one JSON object per line, no secrets, and the node does not depend on a reader.

use super::*;

#[test]
fn log_has_one_json_object_per_line() {
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

#[test]
fn refused_handshakes_are_logged_with_who_why_and_the_option_that_decides() {
    run(async {
        let arguments = ["--trusted-proxy", "127.0.0.0/8"];
        let mut node = NodeProcess::start(&arguments).await;
        let fields =
            "Origin: https://evil.test/\u{202e}\r\nX-Forwarded-For: \"[2001:db8::7]:1\"\r\n";
        let handshake = upgrade("/ws", fields);
        for _ in 0..20 {
            let answer = http::exchange(node.address, handshake.as_bytes()).await;
            assert_eq!(http::status(&answer), Some(403));
        }
        let line = node.logged("a handshake was refused").await;
        assert_eq!(line["status"], 403);
        assert_eq!(line["origin"], "https://evil.test/\\u{202e}");
        assert_eq!(line["host"], "a");
        assert_eq!(line["address"], "2001:db8::7");
        let hint = line["hint"].as_str().expect("a hint");
        assert!(hint.contains("--allow-origin"), "{hint}");

        // Another kind has a line of its own.
        let answer = http::exchange(node.address, b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(http::status(&answer), Some(426));
        eventually("it is logged", || {
            let log = node.log();
            log.iter().any(|line| line.contains("pass on Upgrade"))
        })
        .await;
        node.terminate();
        node.exit().await;
        let log = node.log();
        let lines = log
            .iter()
            .filter(|line| line.contains("handshake was refused"));
        // Unless the handshakes took longer than the 10 seconds for which a line holds.
        assert!((2..=4).contains(&lines.count()), "{log:#?}");
    });
}

#[test]
fn node_keeps_serving_when_its_stdout_is_closed() {
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
fn node_keeps_serving_when_its_stdout_is_not_read() {
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

/// The error of Redis 5 for an unknown command: it repeats the arguments.
fn old_redis() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let answer = format!(
        "-ERR unknown command `HELLO`, with args beginning with: \
         `3`, `AUTH`, `ada`, `{PASSWORD}`, \r\n"
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
fn redis_password_is_never_printed() {
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
            let outputs = [node.log().join("\n"), node.errors(), ready, arguments];
            for text in outputs {
                assert!(!text.contains(PASSWORD), "{text}");
            }
        }
    });
}
