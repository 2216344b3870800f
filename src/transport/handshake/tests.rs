//! The handshake as tables: what is refused, which keys, origins and subprotocols pass, and the
//! bytes of the 101.

use super::*;
use crate::http::{HeadLimits, ParsedHead, parse_head};

#[path = "../../../tests/support/handshakes.rs"]
mod handshakes;

fn request(bytes: &[u8]) -> RequestHead {
    match parse_head(bytes, &HeadLimits::default()) {
        Ok(ParsedHead::Complete { request, .. }) => request,
        other => panic!("{other:?} for {:?}", bytes.escape_ascii().to_string()),
    }
}

/// A good handshake to `host` with more fields.
fn handshake(host: &str, fields: &str) -> RequestHead {
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    );
    request(head.as_bytes())
}

#[test]
fn wrong_handshakes_are_refused_with_their_status() {
    let mut wrong = Vec::new();
    for row in handshakes::HANDSHAKES {
        match check(&request(&row.bytes("/ws")), &Rules::default()) {
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
fn sample_key_of_the_rfc_gets_the_answer_of_the_rfc() {
    let accepted = check(&handshake("server.example.com", ""), &Rules::default()).unwrap();
    assert_eq!(accepted.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let expected = "HTTP/1.1 101 Switching Protocols\r\n\
                    Upgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(String::from_utf8(accepted.response()).unwrap(), expected);
}

#[test]
fn lists_cases_and_idle_key_bits_are_understood() {
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nUPGRADE: foo, WebSocket\r\n\
                Connection: keep-alive\r\nConnection: x ,UPGRADE\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAA/==\r\n\
                Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    let request = request(head.as_bytes());
    assert!(wants_upgrade(&request));
    let accepted = check(&request, &Rules::default()).unwrap();
    let response = String::from_utf8(accepted.response()).unwrap();
    assert!(!response.contains("Extensions"), "{response}");
}

#[test]
fn http_1_0_cannot_upgrade() {
    let request = request(
        b"GET /healthz HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert!(!wants_upgrade(&request));
    let refusal = check(&request, &Rules::default()).unwrap_err();
    assert_eq!(refusal.status, StatusCode::HTTP_VERSION_NOT_SUPPORTED);
}

#[test]
fn unsupported_versions_get_the_supported_one() {
    let request = request(b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut out = Vec::new();
    check(&request, &Rules::default())
        .unwrap_err()
        .encode(&mut out, false);
    let text = String::from_utf8(out).unwrap();
    for line in [
        "Sec-WebSocket-Version: 13",
        "Upgrade: websocket",
        "Connection: close, upgrade",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{text}");
    }
}

#[test]
fn only_pages_of_the_same_host_or_on_the_list_may_connect() {
    let origins = ["https://good.example".to_owned(), "app://chat".to_owned()];
    let rules = Rules {
        origins: &origins,
        ..Rules::default()
    };
    #[rustfmt::skip]
    let table = [
        // S1 to S7: none, null, the listed one as a prefix or as a pattern, upper case, another
        // port, a file.
        ("node.example", None, true),
        ("node.example", Some("null"), false),
        ("node.example", Some("NULL"), false),
        ("node.example", Some("https://good.example.evil.test"), false),
        ("node.example", Some("https://goodXexample"), false),
        ("node.example", Some("https://good.example"), true),
        ("node.example", Some("HTTPS://GOOD.EXAMPLE"), true),
        ("node.example", Some("https://good.example:8443"), false),
        ("node.example", Some("file://"), false),
        // The list is of whole origins.
        ("node.example", Some("http://good.example"), false),
        ("node.example", Some("https://good.example/"), false),
        ("node.example", Some("https://sub.good.example"), false),
        ("node.example", Some("https://evil.test/https://good.example"), false),
        ("node.example", Some("good.example"), false),
        ("node.example", Some("app://chat"), true),
        ("node.example", Some("app://chat2"), false),
        ("node.example", Some(""), false),
        // The same host, whatever the scheme that a proxy took away.
        ("node.example", Some("http://node.example"), true),
        ("node.example", Some("https://node.example"), true),
        ("node.example", Some("https://NODE.example:443"), true),
        ("Node.Example:443", Some("https://node.example"), true),
        ("node.example:80", Some("http://node.example"), true),
        ("node.example:80", Some("https://node.example"), false),
        ("node.example", Some("http://node.example:8080"), false),
        ("node.example:8080", Some("http://node.example:8080"), true),
        ("node.example:8080", Some("http://node.example:8081"), false),
        ("node.example:8080", Some("http://node.example"), false),
        ("node.example", Some("ws://node.example"), false),
        ("node.example", Some("chrome-extension://node.example"), false),
        ("node.example", Some("file://node.example"), false),
        ("node.example", Some("http://node.example.evil.test"), false),
        ("node.example", Some("http://evil-node.example"), false),
        ("node.example", Some("http://node.example@evil.test"), false),
        ("node.example", Some("http://evil.test/node.example"), false),
        ("node.example", Some("http://node.example/"), false),
        ("node.example", Some("http://node.example http://evil.test"), false),
        ("node.example", Some("node.example"), false),
        ("[::1]:9090", Some("http://[0:0::1]:9090"), true),
        ("[::1]:9090", Some("http://[::2]:9090"), false),
        ("127.0.0.1:9090", Some("http://localhost:9090"), false),
    ];
    for (host, origin, passes) in table {
        let field = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
        match check(&handshake(host, &field), &rules) {
            Ok(_) => assert!(passes, "{origin:?} must not reach {host}"),
            Err(refusal) => {
                assert_eq!(refusal.status, StatusCode::FORBIDDEN);
                assert!(!passes, "{origin:?} must reach {host}");
            }
        }
    }
}

#[test]
fn patterns_let_in_exactly_one_label() {
    let origins = ["https://*.chat.example", "http://*.a.b:81"].map(str::to_owned);
    let rules = Rules {
        origins: &origins,
        ..Rules::default()
    };
    for (origin, passes) in [
        ("https://a.chat.example", true),
        ("HTTPS://Team-1.CHAT.example", true),
        ("https://xn--bcher-kva.chat.example", true),
        ("http://c.a.b:81", true),
        ("https://chat.example", false),
        ("https://.chat.example", false),
        ("https://a.b.chat.example", false),
        ("https://achat.example", false),
        ("https://*.chat.example", false),
        ("https://a.chat.example:8443", false),
        ("http://a.chat.example", false),
        ("http://c.a.b", false),
        ("https://a.chat.example.evil.test", false),
        ("https://evil.test/.chat.example", false),
        ("https://evil@a.chat.example", false),
        ("https://evil.test#.chat.example", false),
        ("https://a:1.chat.example", false),
        ("a.chat.example", false),
        ("null", false),
    ] {
        let outcome = check(&handshake("b", &format!("Origin: {origin}\r\n")), &rules);
        assert_eq!(outcome.is_ok(), passes, "{origin}: {outcome:?}");
    }
}

#[test]
fn pages_that_are_files_may_connect_only_if_null_is_listed() {
    let origins = ["null".to_owned()];
    for (origin, passes) in [("null", true), ("file://", true), ("https://a.test", false)] {
        let request = handshake("b", &format!("Origin: {origin}\r\n"));
        let rules = Rules {
            origins: &origins,
            ..Rules::default()
        };
        assert_eq!(check(&request, &rules).is_ok(), passes, "{origin}");
        assert!(check(&request, &Rules::default()).is_err(), "{origin}");
    }
}

#[test]
fn rebound_pages_may_not_connect_to_an_open_node() {
    let origins = ["http://chat.example:9090".to_owned()];
    let rules = Rules {
        origins: &origins,
        own_hosts: Some("192.0.2.7".parse().unwrap()),
        ..Rules::default()
    };
    for (host, passes) in [
        ("localhost:9090", true),
        ("LOCALHOST:9090", true),
        ("chat.localhost:9090", true),
        ("127.0.0.1:9090", true),
        ("127.9.9.9:9090", true),
        ("[::1]:9090", true),
        ("[::ffff:127.0.0.1]:9090", true),
        ("192.0.2.7:9090", true),
        ("192.0.2.8:9090", false),
        ("evil.test:9090", false),
        ("localhost.evil.test:9090", false),
        ("127.0.0.1.evil.test:9090", false),
        ("notlocalhost:9090", false),
        ("0.0.0.0:9090", false),
        ("chat.example:9090", true),
    ] {
        let field = format!("Origin: http://{host}\r\n");
        let outcome = check(&handshake(host, &field), &rules);
        assert_eq!(outcome.is_ok(), passes, "{host}: {outcome:?}");
        // A program is no page.
        assert!(check(&handshake(host, ""), &rules).is_ok());
    }
}

#[test]
fn subprotocols_are_selected_only_if_offered_and_supported() {
    let known = ["switchboard.v1", "switchboard.v2"];
    let rules = Rules {
        protocols: &known,
        ..Rules::default()
    };
    #[rustfmt::skip]
    let table = [
        ("", None),
        ("Sec-WebSocket-Protocol: graphql-ws\r\n", None),
        ("Sec-WebSocket-Protocol: switchboard.v1\r\n", Some("switchboard.v1")),
        ("Sec-WebSocket-Protocol: SWITCHBOARD.V1\r\n", None),
        ("Sec-WebSocket-Protocol: x, switchboard.v2 ,switchboard.v1\r\n", Some("switchboard.v2")),
        ("Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: switchboard.v1\r\n",
         Some("switchboard.v1")),
        ("Sec-WebSocket-Protocol: ,,;,\"\r\n", None),
    ];
    for (fields, expected) in table {
        let accepted = check(&handshake("a", fields), &rules).unwrap();
        assert_eq!(accepted.protocol, expected, "{fields}");
        let response = String::from_utf8(accepted.response()).unwrap();
        let line = expected.map(|name| format!("\r\nSec-WebSocket-Protocol: {name}\r\n\r\n"));
        match line {
            Some(line) => assert!(response.ends_with(&line), "{response}"),
            None => assert!(!response.contains("Protocol:"), "{response}"),
        }
    }
}

#[test]
fn many_offers_are_read_to_the_last() {
    let offers = "a,".repeat(7000);
    let request = handshake(
        "a",
        &format!("Sec-WebSocket-Protocol: {offers}switchboard\r\n"),
    );
    let rules = Rules {
        protocols: &["switchboard"],
        ..Rules::default()
    };
    assert_eq!(
        check(&request, &rules).unwrap().protocol,
        Some("switchboard")
    );
}
