//! Valid and hostile heads, the arrival of bytes in pieces, and the bytes of responses.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};

use super::*;

#[path = "../../tests/support/refusals.rs"]
mod refusals;

/// The default limits, with chunks for the calls of [`refusals::refusals`].
fn limits() -> HeadLimits {
    HeadLimits {
        chunked: |_, path| {
            let calls = [
                "/rooms/a/messages",
                "/rooms/a/messages/k",
                "/batch",
                "/messages",
            ];
            calls.contains(&&*format!("/{}", path.join("/")))
        },
        ..HeadLimits::default()
    }
}

fn verdict(bytes: &[u8]) -> Result<ParsedHead, Refusal> {
    parse_head(bytes, &limits())
}

fn request(bytes: &[u8]) -> RequestHead {
    match verdict(bytes) {
        Ok(ParsedHead::Complete { request, .. }) => request,
        other => panic!("{other:?} for {:?}", bytes.escape_ascii().to_string()),
    }
}

fn body_length(request: &RequestHead) -> u64 {
    match request.body {
        BodyFraming::Length(length) => length,
        BodyFraming::Chunked => panic!("the body of {} is chunked", request.path),
    }
}

fn with_field(field: &str) -> RequestHead {
    request(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n").as_bytes())
}

/// Feeds a reader pieces that end at `cuts` and at the end, as a connection would.
fn verdict_in_pieces(
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<ParsedHead, Refusal> {
    let limits = limits();
    let mut reader = HeadReader::default();
    for cut in cuts {
        match reader.read(&bytes[..cut], &limits)? {
            ParsedHead::Partial => {}
            complete => return Ok(complete),
        }
    }
    reader.read(bytes, &limits)
}

#[test]
fn hostile_heads_are_refused_with_their_status() {
    let mut wrong = Vec::new();
    for row in refusals::refusals() {
        match verdict(&row.bytes) {
            Err(refusal) if refusal.status.as_u16() == row.status => {}
            other => wrong.push(format!(
                "{}: wanted {}, got {other:?}",
                row.name, row.status
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn good_heads_are_read() {
    type Fields<'a> = (Method, &'a str, Option<&'a str>, &'a str, u64, bool);
    const DELETE: Method = Method::DELETE;
    const GET: Method = Method::GET;
    const HEAD: Method = Method::HEAD;
    const OPTIONS: Method = Method::OPTIONS;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    #[rustfmt::skip]
    let table: &[(&[u8], Fields)] = &[
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", (GET, "/", None, "a", 0, true)),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", (HEAD, "/", None, "a", 0, true)),
        (b"OPTIONS /x HTTP/1.1\r\nHost: a\r\n\r\n", (OPTIONS, "/x", None, "a", 0, true)),
        (b"DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n", (DELETE, "/x", None, "a", 0, true)),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", (GET, "/", None, "a", 0, true)),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
         (POST, "/", None, "a", 0, true)),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
         (POST, "/", None, "a", 5, true)),
        (b"PUT /x HTTP/1.1\r\nHost: a\r\ncontent-length:65536\r\n\r\n",
         (PUT, "/x", None, "a", 65536, true)),
        (b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: \t 0000000005 \t\r\n\r\n",
         (PUT, "/x", None, "a", 5, true)),
        (b"GET /ws?token=a.b&x HTTP/1.1\r\nHost: a\r\n\r\n",
         (GET, "/ws", Some("token=a.b&x"), "a", 0, true)),
        (b"GET /? HTTP/1.1\r\nHost: a\r\n\r\n", (GET, "/", Some(""), "a", 0, true)),
        (b"GET /?a=/../?b%5c HTTP/1.1\r\nHost: a\r\n\r\n",
         (GET, "/", Some("a=/../?b%5c"), "a", 0, true)),
        (b"GET /%61%C3%a9%20b HTTP/1.1\r\nHost: a\r\n\r\n",
         (GET, "/a\u{e9} b", None, "a", 0, true)),
        (b"GET /%252e%252e/a HTTP/1.1\r\nHost: a\r\n\r\n", (GET, "/%2e%2e/a", None, "a", 0, true)),
        (b"GET /%23%3f HTTP/1.1\r\nHost: a\r\n\r\n", (GET, "/#?", None, "a", 0, true)),
        (b"GET //a/ HTTP/1.1\r\nHost: a\r\n\r\n", (GET, "//a/", None, "a", 0, true)),
        (b"GET /..a/.b/... HTTP/1.1\r\nHost: a\r\n\r\n", (GET, "/..a/.b/...", None, "a", 0, true)),
        (b"GET /rooms/@ada:b HTTP/1.1\r\nHost: a\r\n\r\n",
         (GET, "/rooms/@ada:b", None, "a", 0, true)),
        (b"GET / HTTP/1.1\r\nHOST: Chat.Example:8080\r\n\r\n",
         (GET, "/", None, "chat.example:8080", 0, true)),
        (b"GET / HTTP/1.1\r\nHost: my_service.local\r\n\r\n",
         (GET, "/", None, "my_service.local", 0, true)),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:9090\r\n\r\n",
         (GET, "/", None, "127.0.0.1:9090", 0, true)),
        (b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", (GET, "/", None, "[::1]", 0, true)),
        (b"GET / HTTP/1.1\r\nHost: [2001:DB8::1]:443\r\n\r\n",
         (GET, "/", None, "[2001:db8::1]:443", 0, true)),
        (b"GET / HTTP/1.1\r\nHost:a\r\n\r\n", (GET, "/", None, "a", 0, true)),
        (b"GET / HTTP/1.1\r\nHost: \t a \t\r\n\r\n", (GET, "/", None, "a", 0, true)),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
         (GET, "/", None, "a", 0, false)),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
         (GET, "/", None, "a", 0, false)),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
         (GET, "/", None, "a", 0, true)),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n", (GET, "/", None, "a", 0, false)),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\xe9\tb\r\n\r\n",
         (GET, "/", None, "a", 0, true)),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\nX_Y: b\r\n\r\n", (GET, "/", None, "a", 0, true)),
        (b"GET /healthz HTTP/1.0\r\n\r\n", (GET, "/healthz", None, "", 0, false)),
        (b"HEAD /readyz HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
         (HEAD, "/readyz", None, "a", 0, false)),
    ];
    for (bytes, expected) in table {
        let read = request(bytes);
        let (path, query, host) = (
            read.path.as_str(),
            read.query.as_deref(),
            read.host.as_str(),
        );
        let body_length = body_length(&read);
        let fields = (read.method, path, query, host, body_length, read.keep_alive);
        assert_eq!(fields, *expected, "{}", bytes.escape_ascii());
        assert_eq!(
            read.version == Version::HTTP_10,
            bytes.windows(8).any(|window| window == b"HTTP/1.0")
        );
    }
}

#[test]
fn bytes_behind_a_head_are_not_part_of_it() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
    let both = [head.as_slice(), b"\r\n\r\n\0\xff"].concat();
    assert!(
        matches!(verdict(&both), Ok(ParsedHead::Complete { length, .. }) if length == head.len())
    );
}

#[test]
fn reader_is_reset_after_a_complete_head() {
    let limits = HeadLimits::default();
    let heads = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut reader = HeadReader::default();
    let mut rest = heads.as_slice();
    for path in ["/a", "/b"] {
        let Ok(ParsedHead::Complete { request, length }) = reader.read(rest, &limits) else {
            panic!("{path} is a whole head");
        };
        assert_eq!(request.path, path);
        rest = &rest[length..];
    }
    assert_eq!(reader.read(rest, &limits), Ok(ParsedHead::Partial));
}

#[test]
fn heads_that_have_not_ended_are_partial() {
    let head = b"GET /a?b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    for cut in 0..head.len() {
        assert_eq!(
            verdict(&head[..cut]),
            Ok(ParsedHead::Partial),
            "cut at {cut}"
        );
    }
}

#[test]
fn verdicts_do_not_depend_on_the_pieces() {
    let rows = refusals::refusals()
        .into_iter()
        .map(|row| (row.name, row.bytes));
    let good: &[u8] = b"PUT /a%20b?c HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\n\r\nabc";
    for (name, bytes) in rows.chain([("good".to_owned(), good.to_vec())]) {
        let whole = verdict(&bytes);
        // For long rows a few cuts are as good as all.
        let stride = bytes.len() / 500 + 1;
        for cut in (0..=bytes.len()).step_by(stride) {
            assert_eq!(
                verdict_in_pieces(&bytes, [cut]),
                whole,
                "{name} cut at {cut}"
            );
        }
        assert_eq!(
            verdict_in_pieces(&bytes, 0..=bytes.len()),
            whole,
            "{name} byte by byte"
        );
    }
}

#[test]
fn limits_are_met_to_the_byte() {
    let start = "GET / HTTP/1.1\r\nHost: a\r\n";
    let longest = format!("{start}X: {}\r\n\r\n", "a".repeat(16_384 - start.len() - 7));
    assert_eq!(longest.len(), 16_384);
    assert!(matches!(
        verdict(longest.as_bytes()),
        Ok(ParsedHead::Complete { .. })
    ));
    assert_eq!(
        verdict(&longest.as_bytes()[..16_383]),
        Ok(ParsedHead::Partial)
    );
    let most = format!("{start}{}\r\n", "X: a\r\n".repeat(63));
    assert_eq!(request(most.as_bytes()).headers("x").count(), 63);
    let target = format!("/{}", "a".repeat(8191));
    let read = request(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    assert_eq!(read.target, target);
}

/// The time that a processor has spent on this thread: other programs do not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A head of so many bytes, one byte at a time: how long it takes, at best of five.
fn time_of_a_trickle(size: usize) -> Duration {
    let limits = HeadLimits {
        bytes: 2 * size,
        fields: size,
        ..HeadLimits::default()
    };
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    while head.len() < size {
        head.extend(b"X: a\r\n");
    }
    head.extend(b"\r\n");
    let trickle = || {
        let start = processor_time();
        let mut reader = HeadReader::default();
        for end in 1..head.len() {
            assert_eq!(reader.read(&head[..end], &limits), Ok(ParsedHead::Partial));
        }
        let whole = reader.read(&head, &limits);
        assert!(matches!(whole, Ok(ParsedHead::Complete { length, .. }) if length == head.len()));
        processor_time() - start
    };
    let times = (0..5).map(|_| trickle());
    times.min().expect("five times")
}

#[test]
fn slow_heads_cost_linear_time() {
    let (short, long) = (time_of_a_trickle(4 << 10), time_of_a_trickle(32 << 10));
    // Eight times as long. Were each byte to cost the whole head again, it would be 64 times the
    // time.
    assert!(long < short * 30, "{short:?} for 4 KiB, {long:?} for 32");
}

#[test]
fn garbage_is_refused_at_its_first_wrong_byte() {
    for bytes in [
        b"\x16".as_slice(),
        b"\0",
        b"g",
        b"\r",
        b"\n",
        b" ",
        b"GET x",
        b"GET /\r",
        b"GET / HTTP/1.1\n",
    ] {
        let refusal = verdict(bytes).unwrap_err();
        assert_eq!(
            refusal.status,
            StatusCode::BAD_REQUEST,
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn fields_are_found_by_lower_case_name_in_the_order_sent() {
    let read = with_field("X-A: one\r\nx-a: two, ,three ,\r\nOther: x");
    assert_eq!(read.header("x-a"), Some("one"));
    assert_eq!(
        read.headers("x-a").collect::<Vec<_>>(),
        ["one", "two, ,three ,"]
    );
    assert_eq!(
        read.elements("x-a").collect::<Vec<_>>(),
        ["one", "two", "three"]
    );
    assert!(read.lists("x-a", "THREE") && !read.lists("x-a", "thre"));
    assert_eq!(read.header("x-b"), None);
}

#[test]
fn values_that_are_not_utf8_stay_present_and_equal_nothing() {
    let read = request(b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: http://a\xe9\r\n\r\n");
    assert_eq!(read.header("origin"), Some("http://a\u{fffd}"));
}

#[test]
fn expectations_count_only_with_a_body() {
    let put =
        |fields: &str| request(format!("PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
    assert!(put("Content-Length: 1\r\nExpect: 100-Continue\r\n").expects_continue);
    assert!(!put("Content-Length: 0\r\nExpect: 100-continue\r\n").expects_continue);
    assert!(!put("Content-Length: 1\r\n").expects_continue);
}

#[test]
fn calls_may_have_their_bodies_in_chunks_and_other_requests_may_not() {
    let head = |method: &str, path: &str| {
        let fields = "Host: a\r\nTransfer-Encoding: \tchunked \r\nExpect: 100-continue\r\n";
        format!("{method} {path} HTTP/1.1\r\n{fields}\r\n")
    };
    for call in [
        head("POST", "/messages"),
        head("PUT", "/rooms/a/messages/k"),
    ] {
        let read = request(call.as_bytes());
        assert_eq!(read.body, BodyFraming::Chunked, "{call}");
        assert!(read.expects_continue && read.keep_alive && !read.body.is_empty());
    }
    for other in [
        head("GET", "/messages"),
        head("POST", "/"),
        head("POST", "/ws"),
    ] {
        let refusal = verdict(other.as_bytes()).unwrap_err();
        assert_eq!(refusal.status, StatusCode::NOT_IMPLEMENTED, "{other}");
    }
}

/// What a reader that is fed pieces returns at the end, with the body.
fn decoded(pieces: &[&[u8]]) -> Result<(ParsedBody, Vec<u8>), StatusCode> {
    let mut reader = ChunkReader::new(limits().body);
    let (mut before, mut outcome) = (0, ParsedBody::Partial);
    for piece in pieces {
        outcome = reader.read(piece).map_err(|refusal| refusal.status)?;
        if let ParsedBody::Complete { length } = outcome {
            outcome = ParsedBody::Complete {
                length: before + length,
            };
            break;
        }
        before += piece.len();
    }
    Ok((outcome, reader.into_body()))
}

/// Whole, cut in two at any place (of long bodies at some places), and byte by byte.
fn decoded_in_pieces(name: &str, bytes: &[u8]) -> Result<(ParsedBody, Vec<u8>), StatusCode> {
    let whole = decoded(&[bytes]);
    for cut in (0..=bytes.len()).step_by(bytes.len() / 100 + 1) {
        let (start, end) = bytes.split_at(cut);
        assert_eq!(decoded(&[start, end]), whole, "{name} cut at {cut}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(decoded(&single), whole, "{name} byte by byte");
    whole
}

#[test]
fn hostile_chunks_are_refused_with_their_status_however_they_are_cut() {
    for row in refusals::chunk_refusals() {
        let outcome = decoded_in_pieces(&row.name, &row.bytes);
        let status = StatusCode::from_u16(row.status).unwrap();
        assert_eq!(outcome, Err(status), "{}", row.name);
    }
}

#[test]
fn good_chunks_are_decoded_to_their_end_however_they_are_cut() {
    let eight = format!("0\r\n{}\r\n", "Content-Length: 5\r\n".repeat(8));
    let largest = format!("00010000\r\n{}\r\n0\r\n\r\n", "a".repeat(65_536));
    #[rustfmt::skip]
    let table: &[(&[u8], &[u8])] = &[
        (b"0\r\n\r\n", b""),
        (b"00000000\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"2\r\nhe\r\n03\r\nllo\r\n000\r\n\r\n", b"hello"),
        (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
        (b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
        (b"1\r\na\r\n0\r\nX-A: b\tc\xff\r\nY:\r\n\r\n", b"a"),
        (eight.as_bytes(), b""),
        (largest.as_bytes(), &largest.as_bytes()[10..65_546]),
    ];
    for (bytes, body) in table {
        let next = b"GET / HTTP/1.1\r\n";
        let name = bytes.escape_ascii().to_string();
        let outcome = decoded_in_pieces(&name, &[bytes, next.as_slice()].concat());
        let length = bytes.len();
        assert_eq!(
            outcome,
            Ok((ParsedBody::Complete { length }, body.to_vec())),
            "{name}"
        );
        let outcome = decoded(&[&bytes[..length - 1]]);
        assert_eq!(outcome, Ok((ParsedBody::Partial, body.to_vec())), "{name}");
    }
}

#[test]
fn forwarded_addresses_count_only_from_trusted_proxies() {
    let (proxy, inner, far) = ("127.0.0.1", "10.0.0.2", "203.0.113.9");
    #[rustfmt::skip]
    let table = [
        (far, "", far),
        (far, "X-Forwarded-For: 1.2.3.4", far),
        (proxy, "", proxy),
        (proxy, "X-Forwarded-For: 1.2.3.4", "1.2.3.4"),
        (proxy, "X-Forwarded-For: 9.9.9.9, 1.2.3.4", "1.2.3.4"),
        (proxy, "X-Forwarded-For: 9.9.9.9, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        (proxy,
         "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 10.0.0.2",
         "1.2.3.4"),
        (proxy, "X-Forwarded-For: junk, 1.2.3.4", "1.2.3.4"),
        (proxy, "X-Forwarded-For: 1.2.3.4, junk", proxy),
        (proxy, "X-Forwarded-For: 1.2.3.4, junk, 10.0.0.2", proxy),
        (proxy, "X-Forwarded-For: unknown", proxy),
        (proxy, "X-Forwarded-For: 10.0.0.2, 127.0.0.1", inner),
        (proxy, "X-Forwarded-For: 2001:db8::1", "2001:db8::1"),
        (proxy, "X-Forwarded-For: [2001:db8::1]:443", "2001:db8::1"),
        (proxy, "X-Forwarded-For: [2001:db8::1]", "2001:db8::1"),
        (proxy, "X-Forwarded-For: \"[2001:db8::1]:443\"", "2001:db8::1"),
        (proxy, "X-Forwarded-For: \"2001:db8::1\"", "2001:db8::1"),
        (proxy, "X-Forwarded-For: \"1.2.3.4\", \"10.0.0.2:80\"", "1.2.3.4"),
        (proxy, "X-Forwarded-For: 1.2.3.4:5678", "1.2.3.4"),
        (proxy, "X-Forwarded-For: [::ffff:1.2.3.4]:1", "1.2.3.4"),
        (proxy, "X-Forwarded-For: ::ffff:1.2.3.4", "1.2.3.4"),
        (proxy, "X-Forwarded-For: [1.2.3.4", proxy),
        (proxy, "X-Forwarded-For: [2001:db8::1]443", proxy),
        (proxy, "X-Forwarded-For: \"1.2.3.4", proxy),
        (proxy, "X-Forwarded-For: 1.2.3.4:port", proxy),
        (proxy, "X-Forwarded-For: 1.2.3.4:", proxy),
        ("::ffff:127.0.0.1", "X-Forwarded-For: 1.2.3.4", "1.2.3.4"),
        // The examples of RFC 7239 sections 4 and 6.
        (far, "Forwarded: for=1.2.3.4", far),
        (proxy, "Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        (proxy, "Forwarded: For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
        (proxy, "Forwarded: by=203.0.113.43 ; for = \"192.0.2.43:47011\"", "192.0.2.43"),
        (proxy, "Forwarded: for=9.9.9.9, for=198.51.100.17", "198.51.100.17"),
        (proxy, "Forwarded: for=198.51.100.17, for=10.0.0.2", "198.51.100.17"),
        (proxy, "Forwarded: for=\"[2001:db8::1]:_port\"", "2001:db8::1"),
        (proxy, "Forwarded: for=\"_gazonk\"", proxy),
        (proxy, "Forwarded: for=unknown", proxy),
        (proxy, "Forwarded: proto=http", proxy),
        (proxy, "Forwarded: for=\"1.2.3.4, for=5.6.7.8", "5.6.7.8"),
        // What a client itself sent, behind a proxy that writes the other field.
        (proxy, "Forwarded: for=9.9.9.9\r\nX-Forwarded-For: 1.2.3.4", "1.2.3.4"),
        // A network of proxies.
        ("172.16.9.9", "X-Forwarded-For: 1.2.3.4", "1.2.3.4"),
        ("172.31.255.255", "X-Forwarded-For: 1.2.3.4, 172.16.0.1", "1.2.3.4"),
        ("172.32.0.0", "X-Forwarded-For: 1.2.3.4", "172.32.0.0"),
        ("fd12::1", "X-Forwarded-For: 2001:db8::1", "2001:db8::1"),
        ("fe00::1", "X-Forwarded-For: 2001:db8::1", "fe00::1"),
        ("192.0.2.200", "X-Forwarded-For: 1.2.3.4", "1.2.3.4"),
        ("192.0.3.1", "X-Forwarded-For: 1.2.3.4", "192.0.3.1"),
    ];
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let networks = [
        "127.0.0.1/32",
        "::ffff:10.0.0.2/128",
        "172.16.0.0/12",
        "fd00::/8",
        "::ffff:192.0.2.0/120",
    ];
    let trusted = networks.map(|network| canonical(network.parse().unwrap()));
    for (peer, field, expected) in table {
        let field = if field.is_empty() { "X: a" } else { field };
        let client = client_address(address(peer), &with_field(field), &trusted);
        assert_eq!(client, address(expected), "{peer} {field}");
    }
}

fn written(response: &Response, keep_alive: bool, head_only: bool) -> String {
    let mut out = Vec::new();
    response.encode(&mut out, keep_alive, head_only);
    String::from_utf8(out).unwrap()
}

#[test]
fn responses_state_their_length_and_whether_the_connection_closes() {
    let response = Response::new(StatusCode::OK, "text/plain", "hello").with("X-A", "b");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-A: b\r\n\
                X-Content-Type-Options: nosniff\r\nContent-Length: 5\r\n";
    assert_eq!(written(&response, true, false), format!("{head}\r\nhello"));
    assert_eq!(written(&response, true, true), format!("{head}\r\n"));
    assert_eq!(
        written(&response, false, false),
        format!("{head}Connection: close\r\n\r\nhello")
    );
}

#[test]
fn status_lines_have_the_phrases_of_the_rfcs() {
    let table = [
        (101, "Switching Protocols"),
        (200, "OK"),
        (204, "No Content"),
        (304, "Not Modified"),
        (400, "Bad Request"),
        (401, "Unauthorized"),
        (403, "Forbidden"),
        (404, "Not Found"),
        (405, "Method Not Allowed"),
        (408, "Request Timeout"),
        (411, "Length Required"),
        (413, "Content Too Large"),
        (414, "URI Too Long"),
        (415, "Unsupported Media Type"),
        (426, "Upgrade Required"),
        (429, "Too Many Requests"),
        (431, "Request Header Fields Too Large"),
        (500, "Internal Server Error"),
        (501, "Not Implemented"),
        (503, "Service Unavailable"),
        (504, "Gateway Timeout"),
        (505, "HTTP Version Not Supported"),
        (507, "Insufficient Storage"),
    ];
    for (code, phrase) in table {
        let status = StatusCode::from_u16(code).unwrap();
        let line = format!("HTTP/1.1 {code} {phrase}\r\n");
        assert!(written(&Response::empty(status), true, false).starts_with(&line));
    }
}

#[test]
fn bodiless_statuses_are_sent_without_length_and_body() {
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
        let text = written(&Response::new(status, "text/plain", "hello"), true, false);
        assert!(
            text.ends_with("\r\n\r\n") && !text.contains("Content-Length"),
            "{text}"
        );
    }
}

#[test]
fn refusals_close_the_connection_and_name_the_remedy() {
    let mut out = Vec::new();
    Refusal::unavailable("Come \"back\" later.", 2).encode(&mut out, false);
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{text}"
    );
    assert!(
        text.contains("\r\nRetry-After: 2\r\n") && text.contains("\r\nConnection: close\r\n"),
        "{text}"
    );
    let body = r#"{"code":"service_unavailable","reason":"Come \"back\" later."}"#;
    assert!(
        text.ends_with(&format!(
            "\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )),
        "{text}"
    );
}

#[test]
fn values_with_a_line_end_are_never_written() {
    for value in ["a\r\nSet-Cookie: b", "a\nb", "a\0", "a\u{85}b"] {
        let text = written(
            &Response::empty(StatusCode::OK).with("X-A", value),
            true,
            false,
        );
        assert!(!text.contains("X-A") && !text.contains("Cookie"), "{text}");
    }
}

/// Fields of a head, some of which are wrong.
const FIELD: &str = "(Host|Content-Length|Transfer-Encoding|X):[ a0-9,:]{0,6}\r?\n";

proptest! {
    #[test]
    fn parser_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(ParsedHead::Complete { length, .. }) = verdict(&bytes) {
            prop_assert!(length <= bytes.len());
        }
    }

    #[test]
    fn near_misses_get_the_same_verdict_in_pieces(
        at in 0usize..69, byte in any::<u8>(), cut in 0usize..70,
    ) {
        let head = b"PUT /a%20b/c?d HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\nX-A: b\r\n\r\n";
        let mut bytes = [head.as_slice(), b"abc"].concat();
        bytes[at] = byte;
        let whole = verdict(&bytes);
        prop_assert_eq!(&verdict_in_pieces(&bytes, [cut]), &whole);
        if let Ok(ParsedHead::Complete { length, request }) = whole {
            prop_assert!(length <= bytes.len() && body_length(&request) <= 65_536);
            prop_assert!(!request.path.contains(char::is_control));
        }
    }

    #[test]
    fn chunks_of_any_sizes_are_decoded(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..9),
        piece in 1usize..50,
    ) {
        let encoded = chunks.iter().flat_map(|chunk| {
            [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
        });
        let encoded: Vec<u8> = encoded.chain(*b"0\r\n\r\n").collect();
        let length = encoded.len();
        let pieces: Vec<&[u8]> = encoded.chunks(piece).collect();
        prop_assert_eq!(
            decoded(&pieces),
            Ok((ParsedBody::Complete { length }, chunks.concat()))
        );
    }

    #[test]
    fn structured_noise_is_parsed_or_refused(
        target in "/[a-z%.\\\\/?#0-9]{0,12}",
        fields in proptest::collection::vec(FIELD, 0..5),
    ) {
        let bytes = format!("POST {target} HTTP/1.1\r\n{}\r\n", fields.concat()).into_bytes();
        match verdict(&bytes) {
            Ok(ParsedHead::Complete { length, request }) => {
                prop_assert_eq!(length, bytes.len());
                prop_assert!(request.path.split('/').all(|segment| segment != ".."));
            }
            other => prop_assert!(other.is_err(), "{:?}", other),
        }
    }
}
