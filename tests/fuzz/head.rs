//! Request heads: the result is the same wherever the bytes are cut, an accepted head obeys the
//! documented rules, and its users (the handshake, the client's address) do not panic.

use std::net::{IpAddr, Ipv4Addr};

use switchboard::api;
use switchboard::http::{
    BodyFraming, HeadLimits, HeadReader, Method, ParsedHead, RequestHead, client_address,
    parse_head,
};
use switchboard::transport::handshake::{self, Rules};

/// The first byte is the size of the pieces into which the rest is cut.
pub fn any_head_in_any_pieces(input: &[u8]) {
    let Some((&piece, bytes)) = input.split_first() else {
        return;
    };
    let limits = HeadLimits {
        bytes: 1024,
        fields: 16,
        target: 256,
        body: 4096,
        chunked: api::takes_body,
    };
    let whole = parse_head(bytes, &limits);
    let mut reader = HeadReader::default();
    let mut verdict = Ok(ParsedHead::Partial);
    let step = usize::from(piece).max(1);
    let mut ends = (0..bytes.len()).step_by(step).skip(1).chain([bytes.len()]);
    while let (Ok(ParsedHead::Partial), Some(end)) = (&verdict, ends.next()) {
        verdict = reader.read(&bytes[..end], &limits);
    }
    assert_eq!(verdict, whole);
    match whole {
        Ok(ParsedHead::Complete { request, length }) => {
            assert!(bytes[..length].ends_with(b"\r\n\r\n"));
            expect_plain(&request, &limits);
        }
        Ok(ParsedHead::Partial) => assert!(bytes.len() < limits.bytes),
        Err(refusal) => {
            let mut answer = Vec::new();
            refusal.encode(&mut answer, false);
            assert!(answer.starts_with(b"HTTP/1.1 ") && contains(&answer, b"Connection: close"));
        }
    }
}

fn expect_plain(request: &RequestHead, limits: &HeadLimits) {
    assert!(!request.path.contains(['\\', '\0', '\r', '\n']));
    // A name with a slash has no path.
    let has_slash = request
        .segments
        .iter()
        .any(|segment| segment.contains(['/', '\\']));
    assert_eq!(request.path.is_empty(), has_slash);
    assert!(has_slash || request.path.starts_with('/'));
    assert!(
        request
            .path
            .split('/')
            .all(|part| part != "." && part != "..")
    );
    assert!(request.target.is_ascii() && !request.target.contains([' ', '#']));
    let coding: Vec<&str> = request.headers("transfer-encoding").collect();
    match request.body {
        BodyFraming::Length(length) => assert!(length <= limits.body && coding.is_empty()),
        BodyFraming::Chunked => {
            assert!(api::takes_body(&request.method, &request.segments));
            assert!(coding == ["chunked"] && request.header("content-length").is_none());
        }
    }
    assert!(!request.host.contains(['/', '@', ',', ' ']));
    if let Ok(accepted) = handshake::check(request, &Rules::default()) {
        assert!(request.method == Method::GET && request.body.is_empty());
        let answer = accepted.response();
        assert!(answer.ends_with(b"\r\n\r\n") && answer.len() < 256);
    }
    let peer = IpAddr::from(Ipv4Addr::LOCALHOST);
    client_address(peer, request, &[peer.into()]);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
