//! API keys, and which requests are admitted.

use super::KEY;
use crate::api::{Gate, check_type};
use crate::config::api_keys::{ApiKeys, ApiKeysError};
use crate::http::{HeadLimits, ParsedHead, Refusal, RequestHead, Response, parse_head};

fn request(fields: &str) -> RequestHead {
    let head = format!("POST /batch HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n");
    match parse_head(head.as_bytes(), &HeadLimits::default()) {
        Ok(ParsedHead::Complete { request, .. }) => request,
        other => panic!("{other:?} for {fields}"),
    }
}

fn status_of(admitted: Result<&str, Refusal>) -> u16 {
    admitted
        .err()
        .map_or(200, |refusal| refusal.status.as_u16())
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn requests_without_a_valid_key_are_refused() {
    let gate = Gate::Keys(ApiKeys::parse(&format!("shop:{KEY}\n{}", "x".repeat(32))).unwrap());
    let bearer = |key: &str| format!("Host: a\r\nAuthorization: {key}\r\n{JSON}");
    let admit = |fields: &str| gate.admit(&request(fields)).map(str::to_owned);
    assert_eq!(admit(&bearer(&format!("Bearer {KEY}"))).unwrap(), "shop");
    assert_eq!(admit(&bearer(&format!("bearer  {KEY}"))).unwrap(), "shop");
    assert_eq!(
        admit(&bearer(&format!("Bearer {}", "x".repeat(32)))).unwrap(),
        "line-2"
    );
    for wrong in [
        format!("Bearer {KEY}0"),
        format!("Bearer {}", &KEY[1..]),
        format!("Bearer {}", KEY.to_uppercase()),
        format!("Basic {KEY}"),
        format!("Bearer{KEY}"),
        "Bearer ".into(),
        "Bearer".into(),
        KEY.into(),
    ] {
        let refusal = admit(&bearer(&wrong)).unwrap_err();
        assert_eq!(refusal.status.as_u16(), 401, "{wrong}");
        let field = Response::from(refusal);
        let field = field.header("WWW-Authenticate").unwrap();
        assert!(field.contains("invalid_token"), "{wrong}: {field}");
    }
    let none = admit(&format!("Host: a\r\n{JSON}")).unwrap_err();
    let field = Response::from(none);
    assert_eq!(
        field.header("WWW-Authenticate"),
        Some("Bearer realm=\"switchboard\"")
    );
    let twice = format!("Authorization: Bearer {KEY}\r\n").repeat(2);
    assert_eq!(
        admit(&format!("Host: a\r\n{twice}{JSON}"))
            .unwrap_err()
            .status
            .as_u16(),
        401
    );
}

#[test]
fn body_without_a_json_content_type_is_refused() {
    for (fields, wanted) in [
        ("Content-Type: application/json\r\n", 200),
        ("Content-Type: Application/JSON; charset=utf-8\r\n", 200),
        ("", 415),
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/x-www-form-urlencoded\r\n", 415),
        ("Content-Type: application/jsonp\r\n", 415),
        ("Content-Type: text/plain, application/json\r\n", 415),
        (
            "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
            415,
        ),
    ] {
        let request = request(&format!("Host: localhost\r\n{fields}"));
        let checked = check_type(&request).map(|()| "");
        assert_eq!(status_of(checked), wanted, "{fields}");
    }
}

#[test]
fn only_programs_of_this_machine_are_admitted_without_keys() {
    for (fields, wanted) in [
        ("Host: localhost:9090\r\n", 200),
        ("Host: 127.0.0.1:9090\r\n", 200),
        ("Host: [::1]:9090\r\n", 200),
        ("Host: 127.0.0.1\r\nSec-Fetch-Site: none\r\n", 200),
        ("Host: 10.0.0.1:9090\r\n", 403),
        ("Host: rebound.example:9090\r\n", 403),
        ("Host: localhost.example\r\n", 403),
        ("Host: localhost\r\nOrigin: http://localhost\r\n", 403),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403),
        ("Host: localhost\r\nSec-Fetch-Site: same-origin\r\n", 403),
        ("Host: localhost\r\nX-Forwarded-For: 127.0.0.1\r\n", 403),
        ("Host: localhost\r\nX-Real-IP: 127.0.0.1\r\n", 403),
        ("Host: localhost\r\nForwarded: for=127.0.0.1\r\n", 403),
        ("Host: localhost\r\nVia: 1.1 proxy\r\n", 403),
    ] {
        let request = request(&format!("{fields}{JSON}"));
        assert_eq!(status_of(Gate::Local.admit(&request)), wanted, "{fields}");
        assert_eq!(status_of(Gate::Closed.admit(&request)), 404, "{fields}");
    }
}

#[test]
fn key_files_are_read_or_refused_by_line() {
    let good = format!("\u{feff}# ours\n\n{KEY}\r\n shop : {KEY}= \n");
    let keys = ApiKeys::parse(&good).unwrap();
    assert_eq!(keys.name_of(KEY), Some("line-3"));
    assert_eq!(keys.name_of(&format!("{KEY}=")), Some("shop"));
    assert_eq!(format!("{keys:?}"), r#"["line-3", "shop"]"#);
    for (text, wanted) in [
        (String::new(), ApiKeysError::None),
        ("# nothing\n".into(), ApiKeysError::None),
        (KEY[1..].into(), ApiKeysError::Key(1)),
        (format!("{KEY}\na b:{KEY}"), ApiKeysError::Name(2)),
        (format!(":{KEY}"), ApiKeysError::Name(1)),
        (format!("a:{KEY}\na:{KEY}"), ApiKeysError::Name(2)),
        (format!("a:{KEY}!"), ApiKeysError::Key(1)),
        (format!("a:b:{KEY}"), ApiKeysError::Key(1)),
        ("k".repeat(1025), ApiKeysError::Key(1)),
    ] {
        let error = ApiKeys::parse(&text).unwrap_err();
        assert_eq!(error, wanted, "{text}");
        assert!(!error.to_string().contains(&KEY[..8]));
    }
}
