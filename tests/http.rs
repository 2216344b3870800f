//! HTTP/1.1 over real sockets: refusals and how the connection ends, several requests on one
//! connection, bodies, deadlines, limits, pages and health checks. Unit tests in `src/http` test
//! the parser; `handshake` tests the WebSocket upgrade.

use std::net::{Ipv4Addr, TcpListener};
use std::pin::pin;
use std::time::Duration;

use futures::AsyncWriteExt;
use futures::future::{Either, select};
use switchboard::config::Config;
use switchboard::metrics::RefusalCause;
use switchboard::runtime;

use crate::support::http::{HttpClient, chunked_call, get, status};
use crate::support::refusals::{chunk_refusals, refusals};
use crate::support::{TestNode, eventually, run};

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

/// Longer than a test waits: a connection of such a node ends because of its bytes, not because of
/// a timeout.
fn patient(config: &mut Config) {
    let long = Duration::from_secs(60);
    config.head_timeout = long;
    config.idle_timeout = long;
    config.close_timeout = long;
}

fn impatient(config: &mut Config) {
    config.head_timeout = Duration::from_millis(300);
    config.idle_timeout = Duration::from_millis(300);
}

#[test]
fn pages_are_served_from_a_directory_without_following_links() {
    run(async {
        let pages = tempfile::tempdir().expect("a directory");
        let at = |name: &str| pages.path().join(name);
        std::fs::create_dir_all(at("chat/parts")).expect("directories");
        std::fs::write(at("index.html"), "<!doctype html>").expect("a file");
        std::fs::write(at("chat/parts/log.js"), "export {}").expect("a file");
        std::os::unix::fs::symlink(pages.path(), at("chat/again")).expect("a link");
        std::os::unix::fs::symlink("/etc/hostname", at("secret.txt")).expect("a link");
        let node = TestNode::with(|config| config.www = Some(pages.path().into())).await;
        for (path, expected) in [
            ("/", 200),
            ("/chat/parts/log.js", 200),
            ("/chat.js", 404),
            ("/chat/again/index.html", 404),
            ("/secret.txt", 404),
        ] {
            let answer = get(node.address, path).await;
            assert_eq!(status(&answer), Some(expected), "{path}");
        }
    });
}

/// A request without a body; each field ends in CR LF.
fn request(method: &str, path: &str, fields: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn every_hostile_request_is_refused_with_its_status_and_the_connection_ends() {
    run(async {
        let node = TestNode::with(patient).await;
        for row in refusals() {
            let mut caller = HttpClient::connect(node.address).await;
            // Bytes after a refused request are never answered.
            caller.send([&row.bytes, HEALTH.as_bytes()].concat()).await;
            let answer = caller.answer().await;
            assert_eq!(answer.status, row.status, "{}: {answer:?}", row.name);
            assert_eq!(answer.field("Connection"), Some("close"), "{}", row.name);
            assert!(answer.body.contains("\"reason\""), "{answer:?}");
            caller.expect_end().await;
        }
    });
}

#[test]
fn refusals_are_the_same_when_the_bytes_come_one_by_one() {
    run(async {
        let node = TestNode::with(patient).await;
        let short = refusals().into_iter().filter(|row| row.bytes.len() < 200);
        for row in short {
            let mut caller = HttpClient::connect(node.address).await;
            caller.dribble(&row.bytes).await;
            let answer = caller.answer().await;
            assert_eq!(answer.status, row.status, "{}: {answer:?}", row.name);
            caller.expect_end().await;
        }
    });
}

#[test]
fn refused_client_that_stays_is_disconnected_after_the_close_timeout() {
    run(async {
        let short = |config: &mut Config| config.close_timeout = Duration::from_millis(100);
        let node = TestNode::with(short).await;
        let mut caller = HttpClient::connect(node.address).await;
        caller.send("no HTTP\r\n").await;
        assert_eq!(caller.answer().await.status, 400);
        let open = || node.server().metrics().connections_open.get();
        eventually("the node has let go", || open() == 0).await;
    });
}

#[test]
fn several_requests_on_one_connection_are_answered_in_order() {
    run(async {
        let node = TestNode::with(patient).await;
        let mut caller = HttpClient::connect(node.address).await;
        for _ in 0..3 {
            caller.send(HEALTH).await;
            let answer = caller.answer().await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
            assert_eq!(answer.field("Connection"), None);
        }

        let pipelined = [
            request("GET", "/healthz", ""),
            request("HEAD", "/healthz", ""),
            request("GET", "/nothing", ""),
            "POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".into(),
            request("GET", "/readyz", "Connection: close\r\n"),
            request("GET", "/healthz", ""),
        ];
        caller.send(pipelined.concat()).await;
        assert_eq!(caller.answer().await.status, 200);
        let head = caller.head().await;
        assert_eq!(
            (head.status, head.field("Content-Length")),
            (200, Some("3"))
        );
        assert_eq!(caller.answer().await.status, 404);
        assert_eq!(caller.answer().await.status, 404);
        let last = caller.answer().await;
        assert_eq!(
            (last.status, last.field("Connection")),
            (200, Some("close"))
        );
        // Bytes after a request with `Connection: close` are not answered.
        caller.expect_end().await;
    });
}

#[test]
fn valid_request_may_arrive_one_byte_at_a_time() {
    run(async {
        let node = TestNode::with(patient).await;
        let mut caller = HttpClient::connect(node.address).await;
        for _ in 0..2 {
            caller.dribble(HEALTH.as_bytes()).await;
            assert_eq!(caller.answer().await.status, 200);
        }
    });
}

#[test]
fn body_is_discarded_by_its_length_whatever_its_bytes() {
    run(async {
        let node = TestNode::with(patient).await;
        let mut caller = HttpClient::connect(node.address).await;
        for body in ["", HEALTH, "\r\n\r\n"] {
            let length = format!("Content-Length: {}\r\n", body.len());
            caller.send(request("POST", "/nothing", &length)).await;
            caller.dribble(body.as_bytes()).await;
            assert_eq!(caller.answer().await.status, 404);
        }
        let large = "x".repeat(64 * 1024);
        caller
            .send(request("PUT", "/nothing", "Content-Length: 65536\r\n") + &large + HEALTH)
            .await;
        assert_eq!(caller.answer().await.status, 404);
        assert_eq!(caller.answer().await.status, 200);
    });
}

/// A publish whose body is sent separately; each field ends in CR LF.
fn call(fields: &str) -> String {
    format!(
        "POST /rooms/lobby/messages HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\n{fields}\r\n"
    )
}

#[test]
fn client_that_expects_100_continue_receives_it_if_its_body_is_read() {
    let framings = [
        ("Content-Length: 10\r\n", "{\"data\":1}"),
        (
            "Transfer-Encoding: chunked\r\n",
            "4\r\n{\"da\r\n6\r\nta\":1}\r\n0\r\n\r\n",
        ),
    ];
    run(async move {
        let node = TestNode::with(patient).await;
        for (framing, body) in framings {
            let asking = format!("{framing}Expect: 100-continue\r\n");
            let mut caller = HttpClient::connect(node.address).await;
            caller.send(call(&asking)).await;
            assert_eq!(caller.head().await.status, 100);
            caller.send(body).await;
            assert_eq!(caller.answer().await.status, 200);

            // A client that sends the body at once gets no 100 response.
            caller.send(call(&asking) + body + HEALTH).await;
            assert_eq!(caller.answer().await.status, 200);
            assert_eq!(caller.answer().await.status, 200);

            let typeless = "POST /batch HTTP/1.1\r\nHost: localhost\r\n";
            let mut rows = vec![(format!("{typeless}{asking}\r\n"), 415)];
            if framing.starts_with("Content-Length") {
                rows.push((request("POST", "/nothing", &asking), 404));
                rows.push((request("PUT", "/healthz", &asking), 405));
            }
            for (unwanted, status) in rows {
                let mut caller = HttpClient::connect(node.address).await;
                caller.send(&unwanted).await;
                let answer = caller.answer().await;
                assert_eq!(answer.status, status, "{unwanted}");
                // It may send its body or not: what follows cannot be distinguished.
                assert_eq!(answer.field("Connection"), Some("close"), "{unwanted}");
                caller.send(body.to_owned() + HEALTH).await;
                caller.expect_end().await;
            }
        }
    });
}

#[test]
fn chunked_call_is_carried_out_wherever_its_bytes_are_cut() {
    run(async {
        let node = TestNode::with(patient).await;
        let mut caller = HttpClient::connect(node.address).await;
        let body = b"4\r\n{\"da\r\n6\r\nta\":7}\r\n0\r\nX-Digest: a\r\n\r\n";
        let call = chunked_call("", body);
        let both = [&call, HEALTH.as_bytes()].concat();
        for cut in 0..call.len() {
            let (start, end) = both.split_at(cut);
            caller.send(start).await;
            runtime::yield_now().await;
            caller.send(end).await;
            let answer = caller.answer().await;
            assert_eq!(answer.status, 200, "cut at {cut}: {answer:?}");
            assert_eq!(answer.json()["offset"], cut + 1);
            // What follows the body is the next request.
            assert_eq!(caller.answer().await.body, "ok\n", "cut at {cut}");
        }
        let page = "GET /rooms/lobby/messages?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        caller.send(page).await;
        assert_eq!(caller.answer().await.json()["messages"][0]["data"], 7);
    });
}

#[test]
fn hostile_chunks_are_refused_with_their_status_and_the_connection_ends() {
    run(async {
        let node = TestNode::with(patient).await;
        for row in chunk_refusals() {
            let mut caller = HttpClient::connect(node.address).await;
            let call = chunked_call("", &row.bytes);
            caller.send([&call, HEALTH.as_bytes()].concat()).await;
            let answer = caller.answer().await;
            assert_eq!(answer.status, row.status, "{}: {answer:?}", row.name);
            assert_eq!(answer.field("Connection"), Some("close"), "{}", row.name);
            caller.expect_end().await;
        }
    });
}

#[test]
fn chunks_are_read_on_the_listener_of_the_api_alone() {
    run(async {
        let node = TestNode::with(|config| {
            patient(config);
            config.api_listen = Some("127.0.0.1:0".parse().expect("an address"));
        })
        .await;
        let call = chunked_call("", b"a\r\n{\"data\":1}\r\n0\r\n\r\n");
        let apart = node.server().api_address().expect("it has its own");
        for (address, status) in [(node.address, 501), (apart, 200)] {
            let mut caller = HttpClient::connect(address).await;
            caller.send(&call).await;
            assert_eq!(caller.answer().await.status, status, "{address}");
        }
    });
}

#[test]
fn missing_head_or_body_is_answered_408() {
    run(async {
        let node = TestNode::with(impatient).await;
        let halves = [
            "GET /healthz HTTP/1.1\r\nHost: a\r\n".to_owned(),
            "G".to_owned(),
            request("POST", "/nothing", "Content-Length: 5\r\n") + "hell",
            call("Transfer-Encoding: chunked\r\n"),
            call("Transfer-Encoding: chunked\r\n") + "5\r\nhell",
            call("Transfer-Encoding: chunked\r\n") + "0\r\nX: a\r\n",
            HEALTH.to_owned() + "GET /healthz",
        ];
        for half in halves {
            let mut caller = HttpClient::connect(node.address).await;
            caller.send(&half).await;
            if half.starts_with(HEALTH) {
                assert_eq!(caller.answer().await.status, 200);
            }
            let answer = caller.answer().await;
            assert_eq!(answer.status, 408, "{half:?}");
            caller.expect_end().await;
        }
    });
}

#[test]
fn a_slow_head_has_one_deadline_that_its_bytes_do_not_move() {
    run(async {
        let node = TestNode::with(impatient).await;
        let mut caller = HttpClient::connect(node.address).await;
        caller.send("GET /healthz HTTP/1.1\r\nHost: a\r\nX: ").await;
        let mut socket = caller.socket();
        let dribbling = async {
            while socket.write_all(b"a").await.is_ok() {
                runtime::sleep(Duration::from_millis(20)).await;
            }
        };
        let answer = match select(pin!(caller.answer()), pin!(dribbling)).await {
            Either::Left((answer, _)) => answer,
            Either::Right((_, answer)) => answer.await,
        };
        assert_eq!(answer.status, 408);
    });
}

#[test]
fn silent_connection_is_closed_without_a_response() {
    run(async {
        let node = TestNode::with(impatient).await;
        HttpClient::connect(node.address).await.expect_end().await;

        let mut idle = HttpClient::connect(node.address).await;
        idle.send(HEALTH).await;
        assert_eq!(idle.answer().await.status, 200);
        idle.expect_end().await;

        let mut gone = HttpClient::connect(node.address).await;
        gone.send("GET /heal").await;
        gone.finish().await;
        gone.expect_end().await;
    });
}

#[test]
fn requests_at_the_bound_pass_and_requests_over_it_are_refused() {
    let head = |size: usize| {
        let start = "GET /healthz HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "a".repeat(size - start.len() - 4))
    };
    let target = |size: usize| request("GET", &format!("/{}", "a".repeat(size - 1)), "");
    let query = |size: usize| request("GET", &format!("/healthz?{}", "a".repeat(size - 9)), "");
    let fields = |count: usize| request("GET", "/healthz", &"X: a\r\n".repeat(count - 1));
    let rows = [
        ("head", head(16 * 1024), 200),
        ("head", head(16 * 1024 + 1), 431),
        ("target", target(8 * 1024), 404),
        ("target", target(8 * 1024 + 1), 414),
        ("query", query(8 * 1024), 200),
        ("query", query(8 * 1024 + 1), 414),
        ("fields", fields(64), 200),
        ("fields", fields(65), 431),
    ];
    run(async move {
        let node = TestNode::with(patient).await;
        for (what, bytes, status) in rows {
            let mut caller = HttpClient::connect(node.address).await;
            caller.send(&bytes).await;
            let answer = caller.answer().await;
            assert_eq!(answer.status, status, "{what} of {} bytes", bytes.len());
        }
    });
}

#[test]
fn pages_are_served_and_asked_for_again_by_their_tag() {
    run(async {
        let node = TestNode::with(patient).await;
        let mut caller = HttpClient::connect(node.address).await;
        for path in ["/", "/index.html", "/chat.js", "/switchboard.js", "/?a=b"] {
            caller.send(request("GET", path, "")).await;
            let page = caller.answer().await;
            assert_eq!(page.status, 200, "{path}");
            assert!(!page.body.is_empty(), "{path}");
            assert_eq!(page.field("Cache-Control"), Some("no-cache"));
            assert_eq!(page.field("X-Content-Type-Options"), Some("nosniff"));
            assert!(page.field("Content-Security-Policy").is_some());

            let tag = page.field("ETag").expect("a tag");
            let same = format!("If-None-Match: \"other\", W/{tag}\r\n");
            caller.send(request("GET", path, &same)).await;
            let current = caller.head().await;
            assert_eq!((current.status, current.field("ETag")), (304, Some(tag)));

            caller
                .send(request("GET", path, "If-None-Match: \"other\"\r\n"))
                .await;
            assert_eq!(caller.answer().await.body, page.body);
        }
    });
}

#[test]
fn unknown_paths_and_methods_are_distinguished_and_the_connection_goes_on() {
    run(async {
        let node = TestNode::with(patient).await;
        let mut caller = HttpClient::connect(node.address).await;
        let empty = "Content-Length: 0\r\n";
        let rows = [
            ("GET", "/nothing", "", 404),
            ("DELETE", "/nothing", "", 404),
            ("GET", "/chat.js/", "", 404),
            ("GET", "//", "", 404),
            ("GET", "/HEALTHZ", "", 404),
            ("DELETE", "/", "", 405),
            ("OPTIONS", "/healthz", "", 405),
            ("POST", "/readyz", empty, 405),
            ("PUT", "/chat.js", empty, 405),
        ];
        for (method, path, fields, status) in rows {
            caller.send(request(method, path, fields)).await;
            let answer = caller.answer().await;
            assert_eq!(answer.status, status, "{method} {path}");
            let allowed = (status == 405).then_some("GET, HEAD");
            assert_eq!(answer.field("Allow"), allowed, "{method} {path}");
        }
        caller.send(request("HEAD", "/nothing", "")).await;
        assert_eq!(caller.head().await.status, 404);
        caller.send(HEALTH).await;
        assert_eq!(caller.answer().await.status, 200);
    });
}

#[test]
fn health_checks_are_answered_in_http_1_0_too() {
    run(async {
        let node = TestNode::with(patient).await;
        // The last is HAProxy's, unless its configuration names another.
        for check in ["GET /healthz", "GET /readyz", "OPTIONS /"] {
            let mut caller = HttpClient::connect(node.address).await;
            caller.send(format!("{check} HTTP/1.0\r\n\r\n")).await;
            assert_eq!(caller.answer().await.status, 200, "{check}");
            caller.expect_end().await;
        }
    });
}

#[test]
fn node_without_redis_is_alive_but_unready_and_refuses_clients() {
    run(async {
        let nothing = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = nothing.local_addr().expect("it is bound").port();
        drop(nothing);
        let node = TestNode::unready(|config| {
            patient(config);
            config.redis = vec![format!("redis://127.0.0.1:{port}").parse().expect("a URL")];
        });
        let mut caller = HttpClient::connect(node.address).await;
        caller.send(HEALTH).await;
        assert_eq!(caller.answer().await.status, 200);
        caller.send(request("GET", "/", "")).await;
        assert_eq!(caller.answer().await.status, 200);
        caller.send(request("GET", "/readyz", "")).await;
        let ready = caller.answer().await;
        assert_eq!((ready.status, ready.field("Retry-After")), (503, Some("1")));
        assert!(ready.body.contains("Redis"), "{ready:?}");

        let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        caller.send(request("GET", "/ws", handshake)).await;
        let refused = caller.answer().await;
        assert_eq!(
            (refused.status, refused.field("Retry-After")),
            (503, Some("1"))
        );
        caller.expect_end().await;
    });
}

#[test]
fn a_page_asked_for_with_an_upgrade_is_the_last_answer_on_its_connection() {
    run(async {
        let node = TestNode::with(patient).await;
        let mut caller = HttpClient::connect(node.address).await;
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        caller
            .send(request("GET", "/healthz", upgrade) + HEALTH)
            .await;
        let answer = caller.answer().await;
        assert_eq!(
            (answer.status, answer.field("Connection")),
            (200, Some("close"))
        );
        caller.expect_end().await;
    });
}

#[test]
fn connection_over_the_limit_is_refused_and_the_others_go_on() {
    run(async {
        let full = |config: &mut Config| {
            patient(config);
            config.max_connections = 2;
        };
        let node = TestNode::with(full).await;
        let mut client = node.client().await;
        let mut caller = HttpClient::connect(node.address).await;
        caller.send(HEALTH).await;
        assert_eq!(caller.answer().await.status, 200);

        for refused in 1..=3 {
            let mut third = HttpClient::connect(node.address).await;
            let answer = third.answer().await;
            assert_eq!(
                (answer.status, answer.field("Retry-After")),
                (503, Some("1"))
            );
            third.expect_end().await;
            assert_eq!(
                node.server()
                    .metrics()
                    .refused_total
                    .get(RefusalCause::Connections),
                refused
            );
        }
        client.expect_silence().await;
        caller.send(HEALTH).await;
        assert_eq!(caller.answer().await.status, 200);

        drop(caller);
        let open = || node.server().metrics().connections_open.get();
        eventually("the place is free", || open() == 1).await;
        node.client().await.expect_silence().await;
    });
}
