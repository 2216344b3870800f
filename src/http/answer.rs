//! Statuses, refusals and responses, and their bytes on the wire (RFC 9112 section 4). A response
//! always states its length and whether the connection closes. A refusal always closes it, because
//! after an invalid head the start of the next one is unknown.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::StatusCode;

/// The interim answer to `Expect: 100-continue`, sent before the body is read.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

type HeaderFields = Vec<(&'static str, Cow<'static, str>)>;

/// The reason phrase of the status line. RFC 9110 renamed 413, which the `http` crate still calls
/// by its former phrase; error bodies contain the new one.
fn phrase(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Content Too Large",
        status => status.canonical_reason().unwrap_or_default(),
    }
}

/// The stable `code` of an error body: the phrase in lower case with underscores, as in
/// `bad_request`.
fn error_code(status: StatusCode) -> String {
    phrase(status).to_ascii_lowercase().replace(' ', "_")
}

/// These end with the blank line whatever their fields are (RFC 9112 section 6.3), and are sent
/// without a length.
fn is_bodiless(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    )
}

/// A refused request. The connection always closes after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {}: {reason}", status.as_str(), phrase(*status))]
pub struct Refusal {
    pub status: StatusCode,
    /// A sentence for the developer of the client: what to do instead.
    pub reason: Cow<'static, str>,
    fields: HeaderFields,
}

impl Refusal {
    /// A refusal without fields of its own.
    pub const fn new(status: StatusCode, reason: &'static str) -> Self {
        Self {
            status,
            reason: Cow::Borrowed(reason),
            fields: Vec::new(),
        }
    }

    /// 403, with a reason that was made for this client.
    pub fn forbidden(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            reason: reason.into(),
            fields: Vec::new(),
        }
    }

    /// 400, the client's own fault.
    pub const fn bad_request(reason: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    /// The same with one more header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// 503 with `Retry-After` in seconds; a load balancer may use another node instead.
    pub fn unavailable(reason: &'static str, retry_after: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason)
            .with("Retry-After", retry_after.to_string())
    }

    pub(super) const fn bad_request_line() -> Self {
        Self::bad_request(
            "The request line must be METHOD SP TARGET SP HTTP/1.1, in visible ASCII.",
        )
    }

    pub(super) const fn too_large(reason: &'static str) -> Self {
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason)
    }

    pub(super) const fn unknown_method() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "Use GET, HEAD, POST, PUT, DELETE or OPTIONS.",
        )
    }

    /// Appends the closing response. `head_only` if the request was a HEAD.
    pub fn encode(self, out: &mut Vec<u8>, head_only: bool) {
        Response::from(self).encode(out, false, head_only);
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let mut response = Self::error(refusal.status, &refusal.reason);
        response.fields.extend(refusal.fields);
        response
    }
}

/// A response to a valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: StatusCode,
    pub body: Bytes,
    fields: HeaderFields,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    reason: &'a str,
}

impl Response {
    /// A response without a body and without fields of its own.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            body: Bytes::new(),
            fields: Vec::new(),
        }
    }

    /// A response with a body of the given media type.
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Self::empty(status).with("Content-Type", content_type);
        response.body = body.into();
        response
    }

    /// An error as `{"code":"bad_request","reason":"…"}`.
    pub fn error(status: StatusCode, reason: &str) -> Self {
        Self::coded(status, &error_code(status), reason)
    }

    /// The same with a given code.
    pub fn coded(status: StatusCode, code: &str, reason: &str) -> Self {
        let body = serde_json::to_vec(&ErrorBody { code, reason }).unwrap_or_default();
        Self::new(status, "application/json", body)
    }

    /// The same with one more header field. A value with a control character is never written: its
    /// author could end the line and inject another field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The value of a field set by [`Response::with`], by the name as given there.
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(field, _)| *field == name);
        field.map(|(_, value)| value.as_ref())
    }

    /// Appends the response to `out`. With `head_only` (the request was a HEAD) the length is
    /// written but the body is left out.
    pub fn encode(&self, out: &mut Vec<u8>, keep_alive: bool, head_only: bool) {
        let (code, phrase) = (self.status.as_str(), phrase(self.status));
        out.extend_from_slice(format!("HTTP/1.1 {code} {phrase}\r\n").as_bytes());
        for (name, value) in &self.fields {
            field(out, name, value);
        }
        field(out, "X-Content-Type-Options", "nosniff");
        if !is_bodiless(self.status) {
            field(out, "Content-Length", &self.body.len().to_string());
        }
        // RFC 9110 section 7.8: a sender of Upgrade also lists it in Connection.
        match (keep_alive, self.header("Upgrade").is_some()) {
            (true, false) => {}
            (true, true) => field(out, "Connection", "upgrade"),
            (false, false) => field(out, "Connection", "close"),
            (false, true) => field(out, "Connection", "close, upgrade"),
        }
        out.extend_from_slice(b"\r\n");
        if !head_only && !is_bodiless(self.status) {
            out.extend_from_slice(&self.body);
        }
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    if value.chars().any(char::is_control) {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}
