//! Hostile requests on their way through nginx, with the configuration that is shipped, to a node.
//! Whether nginx or the node refuses, a client gets one response to one request and never a tunnel,
//! and the node reads exactly the requests that nginx forwards. `http` tests the responses of
//! the node alone to the same bytes.

use std::collections::BTreeSet;

use futures::AsyncWriteExt;

use crate::support::backend::{KEY, keys};
use crate::support::handshakes::HANDSHAKES;
use crate::support::http::{Answer, HttpClient, chunked_call, exchange};
use crate::support::nginx::Nginx;
use crate::support::recording_proxy::{Exchange, RecordingProxy};
use crate::support::refusals::{chunk_refusals, refusals};
use crate::support::{TestNode, eventually, run};

/// Sent after each request on its connection. Its response shows that no other came in between.
const LAST: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A request hidden in another: a server that answers it separately was deceived.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

/// Requests of the table that the node would refuse, but that nginx normalizes before it forwards
/// them: it writes the lines, the version and the length itself.
const MENDED: &[&str] = &[
    "leading CR LF",
    "leading LF",
    "two spaces before the target",
    "two spaces before the version",
    "space after the version",
    "bare LF after the request line",
    "bare LF after a field",
    "bare LF for the blank line",
    "CR CR LF",
    "HTTP/1.2",
    "long version",
    "HTTP/1.0 OPTIONS of a page",
    "HTTP/1.0 for a page",
    "HTTP/1.0 POST to a health check",
    "absolute-form",
    "unknown expectation",
    "two expectations",
    // nginx drops fields with invalid names.
    "no colon",
    "name beyond ASCII",
    "name with a bracket",
    "name with an at sign",
    "coding with an underscore",
    "both lengths",
    // Bodies are read whole and sent with their length.
    "chunked",
    "chunked GET",
    "capital coding",
    "coding without a space",
    "coding behind a bare LF",
    "length of eleven digits",
];

struct Wire {
    nginx: Nginx,
    proxy: RecordingProxy,
    _node: TestNode,
}

impl Wire {
    async fn start() -> Self {
        let node = TestNode::with(|config| config.api_key_file = Some(keys())).await;
        let proxy = RecordingProxy::before(node.address);
        let nginx = Nginx::before(&[proxy.address]).await;
        Self {
            nginx,
            proxy,
            _node: node,
        }
    }

    /// Sends bytes that hold one request, and returns its only response.
    async fn answer_to(&self, name: &str, bytes: &[u8]) -> Answer {
        let mut caller = HttpClient::connect(self.nginx.address).await;
        caller.send(bytes).await;
        // The response to HEAD has the length of a body that is not sent.
        let is_head = bytes.starts_with(b"HEAD");
        let answer = loop {
            let answer = if is_head {
                caller.head().await
            } else {
                caller.answer().await
            };
            // nginx reads the body before it connects to a node.
            if answer.status != 100 {
                break answer;
            }
        };
        assert!(
            answer.status == 200 || (400..=505).contains(&answer.status),
            "{name}: {answer:?}"
        );
        if answer.field("Connection") != Some("close") {
            caller.send(LAST).await;
            let last = caller.answer().await;
            // nginx may parse the bytes after the request as another one, which is invalid.
            let well = (last.status, last.body.as_str()) == (200, "ok\n");
            assert!(well || last.status == 400, "{name}: {last:?}");
        }
        // nginx waits for the rest of a body that it refused; it may also have closed.
        let _ = caller.socket().close().await;
        caller.expect_end().await;
        answer
    }

    /// Ends nginx, and returns the traffic between it and the node.
    async fn end(self) -> Vec<Exchange> {
        drop(self.nginx);
        let over = || self.proxy.exchanges().iter().all(|exchange| exchange.over);
        eventually("all connections to the node have ended", over).await;
        self.proxy.exchanges()
    }
}

/// The field with the key of the HTTP API.
fn authorization() -> String {
    format!("Authorization: Bearer {KEY}\r\n")
}

/// The same deception in a call of the HTTP API, whose body may be chunked.
fn as_call(request: &str) -> String {
    let fields = "Host: localhost\r\nContent-Type: application/json\r\n";
    let request = request.replace(" /a ", " /rooms/lobby/messages ");
    request.replacen("Host: a\r\n", &format!("{fields}{}", authorization()), 1)
}

/// Checks that the node answered exactly the requests of nginx, and never with a tunnel.
fn expect_no_deceit(exchanges: &[Exchange]) {
    for exchange in exchanges {
        let (requests, answers) = (exchange.requests(), exchange.answers());
        let both = (
            String::from_utf8_lossy(&exchange.to_node),
            String::from_utf8_lossy(&exchange.from_node),
        );
        assert!(answers <= requests, "{answers} to {requests}: {both:#?}");
        assert!(!both.1.contains("HTTP/1.1 101"), "{both:#?}");
    }
    assert!(exchanges.iter().any(|exchange| exchange.answers() > 0));
}

/// The row as one complete request: nginx waits for the announced body before it forwards.
fn whole(bytes: &[u8]) -> Vec<u8> {
    let mut whole = bytes.to_vec();
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        whole.extend(b"\r\n\r\n");
        return whole;
    };
    if head.contains("\r\ntransfer-encoding") && !body.ends_with("0\r\n\r\n") {
        whole.extend(b"0\r\n\r\n");
    }
    let announced = head.lines().find_map(|line| {
        let length = line.strip_prefix("content-length: ")?;
        length.parse::<usize>().ok()
    });
    let missing = announced.unwrap_or(0).saturating_sub(body.len());
    if missing < 100_000 {
        whole.extend(vec![b'x'; missing]);
    }
    whole
}

#[test]
fn hostile_requests_through_nginx_get_one_answer_each_and_no_tunnel() {
    run(async {
        let wire = Wire::start().await;
        let mut passed = BTreeSet::new();
        let (headless, others): (Vec<_>, Vec<_>) = refusals()
            .into_iter()
            .partition(|row| row.name == "HTTP/0.9");
        for row in headless {
            // A response of HTTP/0.9 is only a body.
            let response = exchange(wire.nginx.address, &row.bytes).await;
            assert!(response.contains("\"bad_request\""), "{response}");
        }
        for row in others {
            let answer = wire.answer_to(&row.name, &whole(&row.bytes)).await;
            let by_nginx = answer.body.starts_with("<html>");
            if [200, 404, 405].contains(&answer.status) && !by_nginx {
                passed.insert(row.name);
            }
        }
        expect_no_deceit(&wire.end().await);
        let mended: BTreeSet<String> = MENDED.iter().map(|name| (*name).to_owned()).collect();
        // A later nginx may normalize less.
        let unknown: Vec<_> = passed.difference(&mended).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(passed.contains("absolute-form"), "{passed:?}");
    });
}

#[test]
fn hostile_chunks_through_nginx_get_one_answer_at_most() {
    run(async {
        let wire = Wire::start().await;
        // nginx reads chunks itself, and forwards a body that it accepts with its length.
        for row in chunk_refusals() {
            let mut caller = HttpClient::connect(wire.nginx.address).await;
            caller
                .send(chunked_call(&authorization(), &row.bytes))
                .await;
            // It waits for the rest of a body that has not ended.
            let _ = caller.socket().close().await;
            let statuses = caller.statuses().await;
            // What follows a body that has ended is an invalid request.
            let well = statuses.len() <= 1 || statuses[1..] == [400];
            assert!(
                well && !statuses.contains(&101),
                "{}: {statuses:?}",
                row.name
            );
        }
        let mut caller = HttpClient::connect(wire.nginx.address).await;
        let body = b"a\r\n{\"data\":1}\r\n0\r\n\r\n";
        caller.send(chunked_call(&authorization(), body)).await;
        assert_eq!(caller.answer().await.status, 200);
        drop(caller);
        expect_no_deceit(&wire.end().await);
    });
}

#[test]
fn a_wrong_handshake_through_nginx_never_opens_a_tunnel() {
    run(async {
        let wire = Wire::start().await;
        for row in HANDSHAKES {
            let bytes = [&row.bytes("/ws"), HIDDEN.as_bytes()].concat();
            let mut caller = HttpClient::connect(wire.nginx.address).await;
            caller.send(&bytes).await;
            let answer = match row.name {
                "HEAD" => caller.head().await,
                _ => caller.answer().await,
            };
            assert_eq!(answer.status, row.status, "{}: {answer:?}", row.name);
        }
        expect_no_deceit(&wire.end().await);
    });
}

/// Requests in which two readers could see two. Each ends where a body by its one reading ends, so
/// that the hidden request is either the body or the next request of the connection.
fn deceptions() -> Vec<(String, String)> {
    let chunk = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let ended = format!("0\r\n\r\n{HIDDEN}");
    let length = HIDDEN.len();
    let both = |name: &str, coding: &str, body: &str, length: usize| {
        let request = format!(
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{coding}\r\n\r\n{body}"
        );
        (name.to_owned(), request)
    };
    let mut rows = Vec::new();
    for coding in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:\r\n chunked",
        "X: a\nTransfer-Encoding: chunked",
        "X: a\rTransfer-Encoding: chunked",
        "Transfer_Encoding: chunked",
        "Transfer-Encoding\0: chunked",
        "\u{a0}Transfer-Encoding: chunked",
    ] {
        rows.push(both(
            &format!("the length counts: {coding:?}"),
            coding,
            &ended,
            ended.len(),
        ));
        rows.push(both(
            &format!("the chunks count: {coding:?}"),
            coding,
            &chunk,
            4,
        ));
    }
    for lengths in [
        format!("Content-Length: 0\r\nContent-Length: {length}"),
        format!("Content-Length: {length}\r\nContent-Length: 0"),
        format!("Content-Length: 0, {length}"),
        format!("Content-Length: +{length}"),
        format!("Content-Length: 0x{length:x}"),
        format!("Content-Length: {length}\r\nContent_Length: 0"),
        format!("Content_Length: {length}"),
        format!("Content-Length : {length}"),
        format!("Content-Length: {length}\x0b"),
        format!("Content-Length: 0{length}"),
        format!("Content-Length:\r\n {length}"),
        format!("Expect: 100-continue\r\nContent-Length: {length}"),
    ] {
        rows.push((
            lengths.clone(),
            format!("POST /a HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n{HIDDEN}"),
        ));
    }
    for method in ["GET", "DELETE", "OPTIONS", "PUT", "POST"] {
        rows.push((
            format!("{method} with a body"),
            format!("{method} /a HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
        ));
    }
    for chunks in [
        format!("0;\n{HIDDEN}"),
        format!("0\n\n{HIDDEN}"),
        format!("0\r\r\n{HIDDEN}"),
        format!("+0\r\n\r\n{HIDDEN}"),
        format!("0x0\r\n\r\n{HIDDEN}"),
        format!("00000000000000000000\r\n\r\n{HIDDEN}"),
        format!("10000000000000000\r\n\r\n{HIDDEN}"),
        format!("-1\r\n{HIDDEN}"),
        format!("1\r\nab\r\n0\r\n\r\n{HIDDEN}"),
        format!("0\r\nContent-Length: {length}\r\nHost: b\r\n\r\n{HIDDEN}"),
    ] {
        let trailers = if chunks.starts_with("0\r\nContent") {
            "trailer fields"
        } else {
            ""
        };
        rows.push((
            format!("chunks {chunks:?} {trailers}"),
            format!("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
        ));
    }
    let fields =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (path, version) in [
        ("/ws", "8"),
        ("/echo", "13"),
        ("/healthz", "13"),
        ("/", "13"),
    ] {
        rows.push((
            format!("a tunnel to {path} of version {version} that never opens"),
            format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\
                 Sec-WebSocket-Version: {version}\r\n\r\n{HIDDEN}"
            ),
        ));
    }
    rows
}

#[test]
fn no_request_is_hidden_in_another_on_its_way_through_nginx() {
    run(async {
        let wire = Wire::start().await;
        let calls = deceptions()
            .into_iter()
            .map(|(name, request)| (name, as_call(&request)));
        for (name, request) in deceptions().into_iter().chain(calls) {
            let mut caller = HttpClient::connect(wire.nginx.address).await;
            caller.send(request + LAST).await;
            let statuses = caller.statuses().await;
            // The request, what may follow it on the connection, and the last.
            assert!((1..=3).contains(&statuses.len()), "{name}: {statuses:?}");
            assert!(!statuses.contains(&101), "{name}");
        }
        expect_no_deceit(&wire.end().await);
    });
}

#[test]
fn no_request_is_hidden_in_another_on_its_way_to_a_node() {
    run(async {
        let node = TestNode::start().await;
        for (name, request) in deceptions() {
            let mut caller = HttpClient::connect(node.address).await;
            caller.send(request + LAST).await;
            let statuses = caller.statuses().await;
            // Either it is refused and nothing behind it is answered, or all that follows its head
            // is its body.
            let alone = statuses.len() == 1;
            assert!(alone || statuses == [404, 200], "{name}: {statuses:?}");
            assert!(!statuses.contains(&101), "{name}");
        }
    });
}

#[test]
fn no_request_is_hidden_in_a_call_whose_body_may_be_chunked() {
    run(async {
        let node = TestNode::with(|config| config.api_key_file = Some(keys())).await;
        for (name, request) in deceptions() {
            let call = as_call(&request);
            let mut caller = HttpClient::connect(node.address).await;
            caller.send(call + LAST).await;
            let statuses = caller.statuses().await;
            // Either it is refused and nothing behind it is answered, or the other request is its
            // body, which is no JSON or not read, or follows chunks that end by every reading.
            let alone = statuses.len() == 1;
            let ended = name.contains("trailer fields") && statuses == [400, 404, 200];
            let is_body = matches!(statuses[..], [400 | 404 | 405, 200]);
            assert!(alone || ended || is_body, "{name}: {statuses:?}");
            assert!(!statuses.contains(&101), "{name}");
        }
    });
}
