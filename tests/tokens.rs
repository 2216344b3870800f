//! Authentication with tokens: the places of a token in a request, refusals before the upgrade,
//! connections that end with their token, the commands that create and read one, and that neither
//! tokens nor secrets are logged.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use async_tungstenite::tungstenite::Error;
use serde_json::{Value, json};
use switchboard::dispatcher::Now;

use crate::support::process::{NodeProcess, command, run_to_end};
use crate::support::redis_server::{Options, RedisServer};
use crate::support::tokens::SECRET;
use crate::support::{Issuer, TestClient, TestNode, http, run};

/// The status with which a handshake is refused.
fn refusal(outcome: Result<TestClient, Error>) -> Option<u16> {
    match outcome {
        Err(Error::Http(response)) => Some(response.status().as_u16()),
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    }
}

#[test]
fn token_is_read_from_header_subprotocol_and_first_message() {
    run(async {
        let issuer = Issuer::new();
        let node = TestNode::with(|config| issuer.secures(config)).await;
        let token = issuer.token("ada", &["lobby"]);
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let client = TestClient::with(node.address, "", &headers).await;
        let mut by_header = client.expect("it is good");
        assert_eq!(by_header.welcome["user"], "ada");
        assert_eq!(by_header.push("ok").await["room"], "@ada");
        by_header.join("lobby").await;

        let offers = format!("bearer.{token}, switchboard");
        let headers = [("sec-websocket-protocol", offers.as_str())];
        let client = TestClient::with(node.address, "", &headers).await;
        let mut by_subprotocol = client.expect("it is good");
        assert_eq!(by_subprotocol.subprotocol.as_deref(), Some("switchboard"));
        assert_eq!(by_subprotocol.welcome["user"], "ada");
        by_subprotocol.join("lobby").await;

        let mut by_message = node.client().await;
        assert_eq!(by_message.welcome["user"], Value::Null);
        let refused = by_message
            .call(json!({"type": "join", "room": "lobby"}))
            .await;
        assert_eq!(refused["code"], "forbidden");
        let answer = by_message.sign_in(&token).await;
        assert_eq!(
            (&answer["user"], &answer["room"]),
            (&json!("ada"), &json!("@ada"))
        );
        assert!(
            (3590..=3600).contains(&answer["expires"].as_u64().unwrap()),
            "{answer}"
        );
        by_message.join("lobby").await;
        by_message.publish("lobby", json!(1)).await;
        for client in [&mut by_header, &mut by_subprotocol] {
            assert_eq!(client.message("lobby").await["user"], "ada");
        }
    });
}

#[test]
fn a_bad_token_is_refused_before_the_upgrade_and_in_a_message_with_a_code() {
    run(async {
        let issuer = Issuer::new();
        let node = TestNode::with(|config| issuer.secures(config)).await;
        let good = issuer.token("ada", &["lobby"]);
        let expired = issuer.signed("ada", Duration::ZERO, [&["lobby"]; 4]);
        let forged = format!("{}x", &good[..good.len() - 1]);
        let bearer = format!("Bearer {forged}");
        let headers = [("authorization", bearer.as_str())];
        let refused = TestClient::with(node.address, "", &headers).await;
        assert_eq!(refusal(refused), Some(401));
        let offers = format!("switchboard, bearer.{forged}");
        let headers = [("sec-websocket-protocol", offers.as_str())];
        let refused = TestClient::with(node.address, "", &headers).await;
        assert_eq!(refusal(refused), Some(401));
        let refused = TestClient::with(node.address, &format!("?token={good}"), &[]).await;
        assert_eq!(refusal(refused), Some(401), "the query is off");

        let mut client = node.client().await;
        for (token, code) in [(forged.as_str(), "unauthorized"), ("", "unauthorized")] {
            assert_eq!(client.sign_in(token).await["code"], code);
        }
        let named = client.call(json!({"type": "auth", "user": "ada"})).await;
        assert_eq!(named["code"], "unauthorized", "{named}");
        let refused = client.call(json!({"type": "join", "room": "lobby"})).await;
        assert_eq!(
            refused["code"], "forbidden",
            "a refused token changes nothing"
        );
        // Within the leeway it is still accepted; the node ends the connection a moment later.
        assert_eq!(client.sign_in(&expired).await["expires"], 0);
        let other = client.sign_in(&issuer.token("bob", &["lobby"])).await;
        assert_eq!(other["code"], "forbidden", "{other}");
    });
}

#[test]
fn a_token_from_the_future_is_refused_before_the_upgrade_and_in_a_message() {
    run(async {
        let issuer = Issuer::new();
        let node = TestNode::with(|config| issuer.secures(config)).await;
        let now = Now::read().unix_ms;
        let hour = Duration::from_secs(3600);
        // The clock of the issuer may be ahead by five seconds; the token's is in whole seconds.
        let ahead = issuer.signed_at(now + 4_000, "ada", hour, [&["lobby"]; 4]);
        node.client().await.sign_in(&ahead).await;
        // By the test's deadline and more; and in milliseconds where seconds are meant.
        for issued in [now + 600_000, now * 1000] {
            let token = issuer.signed_at(issued, "ada", hour, [&["lobby"]; 4]);
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str())];
            let refused = TestClient::with(node.address, "", &headers).await;
            assert_eq!(refusal(refused), Some(401));
            let refused = node.client().await.sign_in(&token).await;
            assert_eq!(refused["code"], "unauthorized", "{refused}");
            let reason = refused["reason"].as_str().expect("a sentence");
            assert!(reason.contains("`iat` is in seconds"), "{reason}");
        }
    });
}

#[test]
fn token_in_the_query_is_read_where_configured() {
    run(async {
        let issuer = Issuer::new();
        let node = TestNode::with(|config| {
            issuer.secures(config);
            config.token_in_query = true;
        })
        .await;
        let query = format!("?token={}", issuer.token("ada", &[]));
        let client = TestClient::with(node.address, &query, &[]).await;
        assert_eq!(client.expect("it is good").welcome["user"], "ada");
    });
}

#[test]
fn a_connection_ends_with_its_token_unless_it_is_renewed() {
    run(async {
        let issuer = Issuer::new();
        let node = TestNode::with(|config| issuer.secures(config)).await;
        let second = Duration::from_secs(1);
        let brief = issuer.signed("ada", second, [&[]; 4]);
        let (mut one, mut other) = (node.client().await, node.client().await);
        one.sign_in(&brief).await;
        other.sign_in(&brief).await;
        assert_eq!(
            other.sign_in(&issuer.token("ada", &["lobby"])).await["type"],
            "ok"
        );
        let (code, reason) = one.closed().await.expect("a close frame");
        assert_eq!(code, 3006, "{reason}");
        other.join("lobby").await;
    });
}

#[test]
fn token_command_makes_a_token_that_a_node_accepts() {
    run(async {
        let issuer = Issuer::new();
        let secret = issuer.path();
        let node = NodeProcess::start(&["--token-secret-file", &secret]).await;
        crate::support::cluster::ready(node.address).await;
        let arguments = [
            "token",
            "--user",
            "ada",
            "--join",
            "news",
            "--rooms",
            "lobby,hall",
        ];
        let made = run_to_end(&arguments, &[("SWITCHBOARD_TOKEN_SECRET_FILE", &secret)]).await;
        assert!(
            made.status.success() && made.stderr.is_empty(),
            "{}",
            made.stderr
        );
        let token = made.stdout.strip_suffix('\n').expect("a line");
        assert!(!token.contains(char::is_whitespace), "{token}");
        let mut client = node.client().await;
        assert_eq!(client.sign_in(token).await["user"], "ada");
        client.join("news").await;
        client.join("lobby").await;
        client.publish("hall", json!(1)).await;
        let refused = client
            .call(json!({"type": "publish", "room": "news", "data": 1}))
            .await;
        assert_eq!(refused["code"], "forbidden");

        for (arguments, words) in [
            (
                &["token", "--user", "ada"][..],
                "--token-secret-file: is needed",
            ),
            (
                &[
                    "token",
                    "--token-secret-file",
                    &secret,
                    "--user",
                    "a\u{85}b",
                ][..],
                "--user a\u{85}b: a user name",
            ),
            (
                &[
                    "token",
                    "--token-secret-file",
                    &secret,
                    "--user",
                    "a",
                    "--expires",
                    "1x",
                ][..],
                "--expires 1x: is not a duration",
            ),
            (
                &[
                    "token",
                    "--token-secret-file",
                    &secret,
                    "--user",
                    "a",
                    "--join",
                    "{}",
                ][..],
                "--join {}: fits no room name",
            ),
        ] {
            let ended = run_to_end(arguments, &[]).await;
            assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
            assert!(ended.stderr.contains(words), "{}", ended.stderr);
        }
    });
}

#[test]
fn keys_that_cannot_be_used_are_refused_at_start_and_when_the_configuration_is_checked() {
    run(async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("it can be written");
            path.to_str().expect("UTF-8").to_owned()
        };
        let short = path("short", "only thirty-one bytes are in it\n");
        let long = path("long", SECRET);
        let nothing = path("nothing", "");
        let private = path(
            "private",
            "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\n",
        );
        let check = "--check-config";
        for (arguments, code, words) in [
            (&["--token-secret-file", &short][..], 2, "holds 31 bytes"),
            (
                &["--token-secret-file", "/no/such"][..],
                2,
                "cannot be read",
            ),
            (&["--token-key", &nothing][..], 1, "is no public key"),
            (&["--token-key", &private, check][..], 2, "is a private key"),
            (
                &["--token-secret-file", &long, "--open"][..],
                2,
                "contradicts",
            ),
            (
                &["--token-audience", "chat"][..],
                2,
                "needs --token-secret-file",
            ),
            (
                &["--room", "lobby=everyone"][..],
                2,
                "is not PATTERN=POLICY",
            ),
        ] {
            let all = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
            let ended = run_to_end(&all, &[]).await;
            assert_eq!(
                ended.status.code(),
                Some(code),
                "{arguments:?} {}",
                ended.stderr
            );
            assert!(ended.stderr.contains(words), "{}", ended.stderr);
        }
        let all = [
            "serve",
            "--listen",
            "0.0.0.0:0",
            "--token-secret-file",
            &long,
            check,
        ];
        let checked = run_to_end(&all, &[]).await;
        assert!(checked.status.success(), "{}", checked.stderr);
        assert!(
            checked
                .stdout
                .contains(&format!("token-secret-file = {long:?}"))
        );
        assert!(!checked.stdout.contains(SECRET));
    });
}

/// Runs `token read` with a token in standard input.
fn read_token(token: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = command(&[&["token", "read"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(token.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn token_read_shows_the_claims_and_says_if_nothing_is_verified() {
    let issuer = Issuer::new();
    let secret = issuer.path();
    let hour = Duration::from_secs(3600);
    let token = issuer.signed("ada", hour, [&["lobby"], &["chat.*"], &[], &[]]);

    let (code, stdout, stderr) = read_token(&token, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    for words in ["unverified", "user     ada", "join     lobby", "chat.*"] {
        assert!(stdout.contains(words), "{words}: {stdout}");
    }
    assert!(stderr.contains("not verified"), "{stderr}");

    let (code, stdout, stderr) = read_token(&token, &["--token-secret-file", &secret, "--json"]);
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    let report: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(report["verdict"], "accepted");
    assert_eq!(report["rooms"]["publish"], json!(["chat.*"]));
    assert!(report["expires"].as_u64() > report["issued"].as_u64());
}

#[test]
fn token_read_fails_for_tokens_that_nodes_refuse() {
    let issuer = Issuer::new();
    let secret = issuer.path();
    let keys = ["--token-secret-file", &*secret];
    let hour = Duration::from_secs(3600);
    let token = issuer.signed("ada", hour, [&[]; 4]);
    let (before, _) = token.rsplit_once('.').expect("it has three parts");
    let forged = format!("{before}.{}", "A".repeat(43));
    let long_ago = Now::read().unix_ms - 7_200_000;
    let expired = issuer.signed_at(long_ago, "ada", hour, [&[]; 4]);
    for (token, arguments, words) in [
        (&*forged, &keys[..], "signature does not fit"),
        (&*expired, &keys, "has expired"),
        (&*expired, &[], "has expired"),
        ("no-token", &[], "no signed token"),
        (&*token, &["--token-issuer", "someone"], "issuer"),
    ] {
        let (code, _, stderr) = read_token(token, arguments);
        assert_eq!(code, Some(1), "{words}: {stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
    let (code, _, stderr) = read_token(&token, &["--token-key", "/nonexistent"]);
    assert_eq!(code, Some(2), "{stderr}");
}

#[test]
fn keys_of_a_set_that_cannot_verify_tokens_are_ignored_with_a_line() {
    run(async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.json");
        // The key of RFC 8037 appendix A.2.
        let key = json!({"kty": "OKP", "crv": "Ed25519", "alg": "Ed25519", "kid": "good",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let mut other = key.clone();
        (other["use"], other["kid"]) = (json!("enc"), json!("for \nletters"));
        let set = json!({"keys": [other, key]}).to_string();
        std::fs::write(&path, set).expect("it can be written");
        let path = path.to_str().expect("UTF-8");
        let mut node = NodeProcess::start(&["--token-key", path]).await;
        let line = node.logged("a key of the JWK set is ignored").await;
        assert_eq!(line["file"], path);
        assert_eq!(line["kid"], "for \nletters");
        let reason = line["reason"].as_str().expect("a sentence");
        assert!(reason.contains("`use`"), "{reason}");
        let ignored = node.log();
        let ignored = ignored.iter().filter(|line| line.contains("is ignored"));
        assert_eq!(ignored.count(), 1);
    });
}

#[test]
fn tokens_and_secrets_are_never_logged() {
    run(async {
        let issuer = Issuer::new();
        let secret = issuer.path();
        let options = Options {
            password: Some("swordfish".into()),
            ..Options::default()
        };
        let redis = RedisServer::with(options.arg("--requirepass swordfish"));
        let url = format!("redis://:swordfish@127.0.0.1:{}", redis.port());
        let options = [
            "--redis",
            &url,
            "--token-secret-file",
            &secret,
            "--token-in-query",
        ];
        let options = [&options[..], &["--log-level", "trace"]].concat();
        let mut node = NodeProcess::start(&options).await;
        crate::support::cluster::ready(node.address).await;
        let good = issuer.token("ada", &["lobby"]);
        let forged = format!("{}x", &good[..good.len() - 1]);
        let expired = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEiLCJleHAiOjF9.c2lnbmF0dXJl";
        for token in [good.as_str(), &forged, expired, "no-token-at-all"] {
            let bearer = format!("Bearer {token}");
            let offers = format!("bearer.{token}, switchboard");
            let query = format!("?token={token}");
            for (query, name, value) in [
                ("", "authorization", bearer.as_str()),
                ("", "sec-websocket-protocol", &offers),
                (&query, "x-nothing", "here"),
            ] {
                // Both accepted and refused tokens are tested.
                let _ = TestClient::with(node.address, query, &[(name, value)]).await;
            }
            let mut client = node.client().await;
            client.sign_in(token).await;
            client.call(json!({"type": "auth", "user": token})).await;
            client
                .call(json!({"type": "auth", "token": token, "room": "x"}))
                .await;
            client.call(json!({"type": token})).await;
            http::get(node.address, &format!("/?token={token}")).await;
            http::get(node.address, &format!("/nothing?token={token}#x")).await;
        }
        node.terminate();
        node.exit().await;
        let written = node.log().join("\n") + &node.errors();
        assert!(
            written.contains("connected") && written.contains("refused"),
            "{written}"
        );
        let signature = good.rsplit('.').next().expect("a part");
        for hidden in [
            &good,
            signature,
            &forged,
            expired,
            "no-token-at-all",
            SECRET,
            "swordfish",
        ] {
            assert!(
                !written.contains(hidden),
                "{hidden} is in the log: {written}"
            );
        }
    });
}
