//! What browsers and balancers ask of the pages, and what they get.

use std::path::Path;

use super::*;
use crate::http::{HeadLimits, ParsedHead, parse_head};

fn assets() -> Assets {
    Assets::from_files([
        ("index.html", "<!doctype html>"),
        ("chat.js", "export {}"),
        ("img/icon.svg", "<svg/>"),
        ("data.bin", "\0"),
    ])
}

/// Asks with one more field, if not empty.
fn ask_with(method: &str, path: &str, field: &str, health: &Health) -> Response {
    let length = if method == "POST" {
        "Content-Length: 0\r\n"
    } else {
        ""
    };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{length}{field}\r\n");
    match parse_head(head.as_bytes(), &HeadLimits::default()) {
        Ok(ParsedHead::Complete { request, .. }) => answer(&request, &assets(), health),
        other => panic!("{other:?} for {head}"),
    }
}

fn ask(method: &str, path: &str) -> Response {
    ask_with(method, path, "", &Health::Ready)
}

fn not_ready() -> Health {
    Health::NotReady {
        reason: "Redis does not answer.".into(),
        retry_after: 3,
    }
}

#[test]
fn files_are_served_with_type_and_security_fields() {
    #[rustfmt::skip]
    let table = [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/?room=lobby", "text/html; charset=utf-8", "<!doctype html>"),
        ("/index.html", "text/html; charset=utf-8", "<!doctype html>"),
        ("/chat.js", "text/javascript; charset=utf-8", "export {}"),
        ("/img/icon.svg", "image/svg+xml", "<svg/>"),
        ("/data.bin", "application/octet-stream", "\0"),
    ];
    for (path, content_type, body) in table {
        let response = ask("GET", path);
        assert_eq!(response.status, StatusCode::OK, "{path}");
        assert_eq!(
            response.header("Content-Type"),
            Some(content_type),
            "{path}"
        );
        assert_eq!(response.body, body, "{path}");
        assert_eq!(response.header("Cache-Control"), Some("no-cache"));
        assert_eq!(response.header("Referrer-Policy"), Some("no-referrer"));
        let policy = response.header("Content-Security-Policy").unwrap();
        assert!(
            policy.contains(
                "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'"
            )
        );
    }
}

#[test]
fn unknown_paths_are_not_found_whatever_the_method() {
    for path in [
        "/nothing",
        "/chat.js/",
        "//chat.js",
        "/CHAT.JS",
        "/img",
        "/www/index.html",
        "/healthz/",
    ] {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            assert_eq!(
                ask(method, path).status,
                StatusCode::NOT_FOUND,
                "{method} {path}"
            );
        }
    }
}

#[test]
fn known_paths_take_get_and_head_only() {
    for path in ["/", "/chat.js", "/healthz", "/readyz"] {
        for method in ["POST", "DELETE", "OPTIONS"] {
            let response = ask(method, path);
            assert_eq!(
                response.status,
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
            assert_eq!(response.header("Allow"), Some("GET, HEAD"));
        }
    }
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    for path in ["/", "/healthz", "/readyz", "/nothing"] {
        let (get, head) = (ask("GET", path), ask("HEAD", path));
        assert_eq!(get, head, "{path}");
        let (mut with, mut without) = (Vec::new(), Vec::new());
        get.encode(&mut with, true, false);
        head.encode(&mut without, true, true);
        assert_eq!(with, [without, get.body.to_vec()].concat(), "{path}");
    }
}

#[test]
fn current_copies_are_not_sent_again() {
    let etag = ask("GET", "/").header("ETag").unwrap().to_owned();
    let current = [
        etag.clone(),
        format!("W/{etag}"),
        format!("\"other\", {etag}"),
        format!("{etag} ,W/\"x\""),
        "*".to_owned(),
    ];
    for tags in current {
        let response = ask_with(
            "GET",
            "/",
            &format!("If-None-Match: {tags}\r\n"),
            &Health::Ready,
        );
        assert_eq!(response.status, StatusCode::NOT_MODIFIED, "{tags}");
        assert_eq!(response.header("ETag"), Some(etag.as_str()));
        assert!(response.body.is_empty());
    }
    let bare = etag.trim_matches('"').to_owned();
    for tags in ["\"other\"", &bare, "W/", "w/*", &format!("w/{etag}")] {
        let response = ask_with(
            "GET",
            "/",
            &format!("If-None-Match: {tags}\r\n"),
            &Health::Ready,
        );
        assert_eq!(response.status, StatusCode::OK, "{tags}");
    }
}

#[test]
fn tags_follow_the_content() {
    let tag = |body: &'static str| {
        let assets = Assets::from_files([("index.html", body)]);
        assets.find("/").map(|asset| asset.etag.clone())
    };
    assert_eq!(tag("a"), tag("a"));
    assert_ne!(tag("a"), tag("b"));
    // The published FNV-1a value of "a": the tag must stay the same over builds and nodes.
    assert_eq!(tag("a").as_deref(), Some("\"1-af63dc4c8601ec8c\""));
}

#[test]
fn healthz_always_succeeds_and_readyz_only_when_ready() {
    assert_eq!(ask("GET", "/healthz").status, StatusCode::OK);
    assert_eq!(ask("GET", "/readyz").status, StatusCode::OK);
    assert_eq!(
        ask_with("GET", "/healthz", "", &not_ready()).status,
        StatusCode::OK
    );
    let response = ask_with("GET", "/readyz", "", &not_ready());
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.header("Retry-After"), Some("3"));
    let body = r#"{"code":"service_unavailable","reason":"Redis does not answer."}"#;
    assert_eq!(response.body, body);
}

#[test]
fn embedded_site_has_its_page_and_scripts() {
    let assets = Assets::embedded();
    for path in ["/", "/chat.css", "/chat.js", "/switchboard.js", "/icon.svg"] {
        assert!(
            assets
                .find(path)
                .is_some_and(|asset| !asset.body.is_empty()),
            "{path}"
        );
    }
}

#[test]
fn site_files_are_all_part_of_the_binary() {
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("www");
    let embedded = Assets::embedded();
    let mut left = vec![site.clone()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).unwrap();
            left.extend(entries.map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.strip_prefix(&site).unwrap().to_str().unwrap();
        let found = embedded.find(&format!("/{name}"));
        assert!(found.is_some_and(|asset| !asset.body.is_empty()), "{name}");
    }
}

#[test]
fn readiness_of_a_limited_node_is_200_and_says_what_does_not_work() {
    let health = Health::Limited("Redis is full".to_owned());
    let response = ask_with("GET", "/readyz", "", &health);
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(&response.body[..], b"ok, but Redis is full\n");
}
