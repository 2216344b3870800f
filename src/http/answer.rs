//! Statuses, refusals and responses, and their bytes on the wire (RFC 9112 section 4). A response
//! always states its length and whether the connection closes. A refusal always closes it, because
//! after an invalid head the start of the next one is unknown.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

/// The interim answer to `Expect: 100-continue`, sent before the body is read.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

type Fields = Vec<(&'static str, Cow<'static, str>)>;

/// The status codes in use, of RFC 9110 section 15, RFC 6585, and of RFC 4918 the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    SwitchingProtocols,
    Ok,
    NoContent,
    NotModified,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    LengthRequired,
    ContentTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    UpgradeRequired,
    TooManyRequests,
    RequestHeaderFieldsTooLarge,
    InternalServerError,
    NotImplemented,
    ServiceUnavailable,
    GatewayTimeout,
    HttpVersionNotSupported,
    InsufficientStorage,
}

impl Status {
    /// The three digits of the status line.
    pub fn code(self) -> u16 {
        self.row().0
    }

    /// The reason phrase of the status line.
    pub fn phrase(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (u16, &'static str) {
        match self {
            Self::SwitchingProtocols => (101, "Switching Protocols"),
            Self::Ok => (200, "OK"),
            Self::NoContent => (204, "No Content"),
            Self::NotModified => (304, "Not Modified"),
            Self::BadRequest => (400, "Bad Request"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "Not Found"),
            Self::MethodNotAllowed => (405, "Method Not Allowed"),
            Self::RequestTimeout => (408, "Request Timeout"),
            Self::LengthRequired => (411, "Length Required"),
            Self::ContentTooLarge => (413, "Content Too Large"),
            Self::UriTooLong => (414, "URI Too Long"),
            Self::UnsupportedMediaType => (415, "Unsupported Media Type"),
            Self::UpgradeRequired => (426, "Upgrade Required"),
            Self::TooManyRequests => (429, "Too Many Requests"),
            Self::RequestHeaderFieldsTooLarge => (431, "Request Header Fields Too Large"),
            Self::InternalServerError => (500, "Internal Server Error"),
            Self::NotImplemented => (501, "Not Implemented"),
            Self::ServiceUnavailable => (503, "Service Unavailable"),
            Self::GatewayTimeout => (504, "Gateway Timeout"),
            Self::HttpVersionNotSupported => (505, "HTTP Version Not Supported"),
            Self::InsufficientStorage => (507, "Insufficient Storage"),
        }
    }

    /// The stable `code` of an error body: the phrase in lower case with underscores, as in
    /// `bad_request`.
    fn error_code(self) -> String {
        self.phrase().to_ascii_lowercase().replace(' ', "_")
    }

    /// These end with the blank line whatever their fields are (RFC 9112 section 6.3), and are sent
    /// without a length.
    fn is_bodiless(self) -> bool {
        matches!(
            self,
            Self::SwitchingProtocols | Self::NoContent | Self::NotModified
        )
    }
}

/// A refused request. The connection always closes after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {}: {reason}", status.code(), status.phrase())]
pub struct Refusal {
    pub status: Status,
    /// A sentence for the developer of the client: what to do instead.
    pub reason: &'static str,
    fields: Fields,
}

impl Refusal {
    /// A refusal without fields of its own.
    pub const fn new(status: Status, reason: &'static str) -> Self {
        let fields = Vec::new();
        Self {
            status,
            reason,
            fields,
        }
    }

    /// 400, the client's own fault.
    pub const fn bad_request(reason: &'static str) -> Self {
        Self::new(Status::BadRequest, reason)
    }

    /// The same with one more header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// 503 with `Retry-After` in seconds; a load balancer may use another node instead.
    pub fn unavailable(reason: &'static str, retry_after: u32) -> Self {
        Self::new(Status::ServiceUnavailable, reason).with("Retry-After", retry_after.to_string())
    }

    pub(super) const fn bad_request_line() -> Self {
        Self::bad_request(
            "The request line must be METHOD SP TARGET SP HTTP/1.1, in visible ASCII.",
        )
    }

    pub(super) const fn too_large(reason: &'static str) -> Self {
        Self::new(Status::RequestHeaderFieldsTooLarge, reason)
    }

    pub(super) const fn unknown_method() -> Self {
        Self::new(
            Status::NotImplemented,
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
        let mut response = Self::error(refusal.status, refusal.reason);
        response.fields.extend(refusal.fields);
        response
    }
}

/// A response to a valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: Status,
    pub body: Bytes,
    fields: Fields,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    reason: &'a str,
}

impl Response {
    /// A response without a body and without fields of its own.
    pub fn empty(status: Status) -> Self {
        Self {
            status,
            body: Bytes::new(),
            fields: Vec::new(),
        }
    }

    /// A response with a body of the given media type.
    pub fn new(status: Status, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Self::empty(status).with("Content-Type", content_type);
        response.body = body.into();
        response
    }

    /// An error as `{"code":"bad_request","reason":"…"}`.
    pub fn error(status: Status, reason: &str) -> Self {
        Self::coded(status, &status.error_code(), reason)
    }

    /// The same with a given code.
    pub fn coded(status: Status, code: &str, reason: &str) -> Self {
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
        let (code, phrase) = self.status.row();
        out.extend_from_slice(format!("HTTP/1.1 {code} {phrase}\r\n").as_bytes());
        for (name, value) in &self.fields {
            field(out, name, value);
        }
        field(out, "X-Content-Type-Options", "nosniff");
        if !self.status.is_bodiless() {
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
        if !head_only && !self.status.is_bodiless() {
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
