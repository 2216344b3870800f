//! The pages a node serves by itself: the chat page and its scripts, and the two health checks.
//! Files are embedded in the binary or read from a directory at the start; browsers cache them and
//! revalidate them with If-None-Match.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;

use crate::http::{LIVE_PATH, Method, READY_PATH, RequestHead, Response, StatusCode, Version};

/// Only the node's own scripts run; WebSockets may connect anywhere, since the page can use another
/// node.
const CONTENT_SECURITY_POLICY: &str = concat!(
    "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; ",
    "base-uri 'none'; form-action 'self'"
);

/// Whether this node accepts clients. That it is alive follows from any answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    Ready,
    /// It accepts clients, but something does not work: a sentence.
    Limited(String),
    /// A sentence on what is missing, and the seconds after which asking again makes sense.
    NotReady {
        reason: Cow<'static, str>,
        retry_after: u32,
    },
}

/// The files of the site, by path.
#[derive(Debug, Clone, Default)]
pub struct Assets {
    files: HashMap<String, Asset>,
}

#[derive(Debug, Clone)]
struct Asset {
    content_type: &'static str,
    /// A strong validator, quotes included.
    etag: String,
    body: Bytes,
}

impl Assets {
    /// The files that are part of the binary.
    pub fn embedded() -> Self {
        let files: [(&str, &'static [u8]); 25] = [
            ("index.html", include_bytes!("../../www/index.html")),
            ("board.css", include_bytes!("../../www/board.css")),
            ("chat.css", include_bytes!("../../www/chat.css")),
            ("chat.js", include_bytes!("../../www/chat.js")),
            (
                "chat/conversation.js",
                include_bytes!("../../www/chat/conversation.js"),
            ),
            ("chat/app.js", include_bytes!("../../www/chat/app.js")),
            ("chat/direct.js", include_bytes!("../../www/chat/direct.js")),
            (
                "chat/identity.js",
                include_bytes!("../../www/chat/identity.js"),
            ),
            ("chat/log.js", include_bytes!("../../www/chat/log.js")),
            ("chat/people.js", include_bytes!("../../www/chat/people.js")),
            ("chat/room.js", include_bytes!("../../www/chat/room.js")),
            ("chat/typing.js", include_bytes!("../../www/chat/typing.js")),
            ("chat/view.js", include_bytes!("../../www/chat/view.js")),
            ("chat/text.js", include_bytes!("../../www/chat/text.js")),
            (
                "client/members.js",
                include_bytes!("../../www/client/members.js"),
            ),
            ("client/pace.js", include_bytes!("../../www/client/pace.js")),
            ("client/room.js", include_bytes!("../../www/client/room.js")),
            (
                "client/limits.js",
                include_bytes!("../../www/client/limits.js"),
            ),
            (
                "client/words.js",
                include_bytes!("../../www/client/words.js"),
            ),
            ("status.html", include_bytes!("../../www/status.html")),
            ("status.css", include_bytes!("../../www/status.css")),
            ("status.js", include_bytes!("../../www/status.js")),
            ("nodes.js", include_bytes!("../../www/nodes.js")),
            ("switchboard.js", include_bytes!("../../www/switchboard.js")),
            ("icon.svg", include_bytes!("../../www/icon.svg")),
        ];
        Self::from_files(files)
    }

    /// Files by their name relative to the site, as in `index.html` or `img/logo.png`. `index.html`
    /// is also the page `/`.
    pub fn from_files<N, B>(files: impl IntoIterator<Item = (N, B)>) -> Self
    where
        N: AsRef<str>,
        B: Into<Bytes>,
    {
        let files = files.into_iter().map(|(name, body)| {
            let (name, body) = (name.as_ref(), body.into());
            let asset = Asset {
                content_type: content_type(name),
                etag: etag(&body),
                body,
            };
            (format!("/{name}"), asset)
        });
        Self {
            files: files.collect(),
        }
    }

    fn find(&self, path: &str) -> Option<&Asset> {
        let path = if path == "/" { "/index.html" } else { path };
        self.files.get(path)
    }
}

enum PageMatch<'a> {
    Live,
    Ready,
    File(&'a Asset),
}

/// Whether a request is a health check, which even a full node answers.
pub(crate) fn is_health_check(request: &RequestHead) -> bool {
    matches!(request.path.as_str(), LIVE_PATH | READY_PATH) || is_default_check(request)
}

/// Whether a request is the check that HAProxy makes unless its configuration names another:
/// `OPTIONS / HTTP/1.0`.
fn is_default_check(request: &RequestHead) -> bool {
    let is_old = request.version == Version::HTTP_10;
    is_old && request.method == Method::OPTIONS && request.path == "/"
}

/// Answers a request that is neither a WebSocket nor a call. The body of the answer to a HEAD is
/// left out where the response is encoded.
pub(crate) fn answer(request: &RequestHead, assets: &Assets, health: &Health) -> Response {
    if is_default_check(request) {
        return readiness(health);
    }
    let page = match request.path.as_str() {
        LIVE_PATH => Some(PageMatch::Live),
        READY_PATH => Some(PageMatch::Ready),
        path => assets.find(path).map(PageMatch::File),
    };
    let is_read = matches!(request.method, Method::GET | Method::HEAD);
    match (page, is_read) {
        (None, _) => Response::error(
            StatusCode::NOT_FOUND,
            "Nothing is here: the chat page is at / .",
        ),
        (Some(PageMatch::Live), true) => check_passed(),
        (Some(PageMatch::Ready), true) => readiness(health),
        (Some(PageMatch::File(asset)), true) => file(request, asset),
        _ => Response::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "Read this page with GET or HEAD.",
        )
        .with("Allow", "GET, HEAD"),
    }
}

fn file(request: &RequestHead, asset: &Asset) -> Response {
    let response = if is_current(request, &asset.etag) {
        Response::empty(StatusCode::NOT_MODIFIED)
    } else {
        Response::new(StatusCode::OK, asset.content_type, asset.body.clone())
    };
    response
        .with("ETag", asset.etag.clone())
        .with("Cache-Control", "no-cache")
        .with("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        .with("Referrer-Policy", "no-referrer")
}

fn readiness(health: &Health) -> Response {
    match health {
        Health::Ready => check_passed(),
        Health::Limited(limitation) => {
            let body = format!("ok, but {limitation}\n");
            Response::new(StatusCode::OK, "text/plain; charset=utf-8", body)
                .with("Cache-Control", "no-store")
        }
        Health::NotReady {
            reason,
            retry_after,
        } => Response::error(StatusCode::SERVICE_UNAVAILABLE, reason)
            .with("Retry-After", retry_after.to_string())
            .with("Cache-Control", "no-store"),
    }
}

fn check_passed() -> Response {
    Response::new(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")
        .with("Cache-Control", "no-store")
}

/// If-None-Match compares weakly (RFC 9110 section 13.1.2). Our tags hold no comma, so cutting at
/// commas finds them.
fn is_current(request: &RequestHead, etag: &str) -> bool {
    request
        .elements("if-none-match")
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Length and FNV-1a hash. The files are the operator's own, so a hash that an adversary could
/// collide will do, and it is the same on every node, so a browser moved to another node need not
/// load the page again.
fn etag(body: &[u8]) -> String {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = body.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    format!("\"{:x}-{hash:016x}\"", body.len())
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}
