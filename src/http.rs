//! HTTP/1.1 as pure logic: requests under limits, and responses (RFC 9110, RFC 9112). `head` finds
//! the end of a head, `rules` turns it into a [`RequestHead`] or a [`Refusal`], `target` parses
//! paths and hosts, `forwarded` finds the client behind proxies, `chunks` decodes bodies in chunks,
//! `answer` encodes responses. The rules are
//! stricter than the RFCs where leniency allows request smuggling through a proxy: no bare line
//! feeds, one Host, one length, chunks only where a request needs them and without extensions; and
//! every refusal closes the connection.

mod answer;
mod chunks;
mod forwarded;
mod head;
mod rules;
mod target;
#[cfg(test)]
mod tests;

pub use ::http::{Method, StatusCode, Version};
pub(crate) use answer::CONTINUE;
pub use answer::{Refusal, Response};
pub use chunks::{ChunkReader, ParsedBody};
pub use forwarded::client_address;
pub(crate) use forwarded::{canonical, contain};
pub use head::{HeadReader, ParsedHead, parse_head};
pub(crate) use target::Authority;

/// The path that answers as long as the process lives.
pub(crate) const LIVE_PATH: &str = "/healthz";
/// The path by which a load balancer checks whether this node accepts clients.
pub(crate) const READY_PATH: &str = "/readyz";

/// The limits of a request; one above them is refused.
#[derive(Debug, Clone)]
pub struct HeadLimits {
    /// Bytes of a head, request line and blank line included; above it 431. Browsers with full
    /// cookie jars send about 8 KiB, hence 16 KiB.
    pub bytes: usize,
    /// Header fields of a head; above it 431. Browsers behind two proxies send about 30, hence 64.
    pub fields: usize,
    /// Bytes of the request target; above it 414. RFC 9112 section 3 recommends 8,000 at least.
    pub target: usize,
    /// Bytes of a body, decoded; above it 413. The same 64 KiB that a message may have.
    pub body: u64,
    /// Whether a request of this method and path may have its body in chunks; elsewhere 501. Only
    /// clients of the HTTP API send such bodies.
    pub chunked: fn(&Method, &[String]) -> bool,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            bytes: 16 * 1024,
            fields: 64,
            target: 8 * 1024,
            body: 64 * 1024,
            chunked: |_, _| false,
        }
    }
}

/// The supported methods; any other is refused with 501 before its target is read. Methods are
/// case-sensitive (RFC 9110 section 9.1).
const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::OPTIONS,
];

/// The supported method of a request line.
fn supported_method(token: &[u8]) -> Option<Method> {
    METHODS
        .into_iter()
        .find(|method| method.as_str().as_bytes() == token)
}

/// How a body announces its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// By its number of bytes, at most [`HeadLimits::body`].
    Length(u64),
    /// By its chunks: see [`ChunkReader`].
    Chunked,
}

impl BodyFraming {
    /// Whether the head alone shows that there is no body.
    pub fn is_empty(self) -> bool {
        self == BodyFraming::Length(0)
    }
}

/// A head that passed every check. It owns what it holds, so the read buffer is free for what comes
/// next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    pub method: Method,
    /// HTTP/1.1; HTTP/1.0 only for the health checks of old load balancers.
    pub version: Version,
    /// The request target as sent: visible ASCII, origin-form.
    pub target: String,
    /// The path, percent-decoded once: UTF-8, begins with `/`, without control characters,
    /// backslashes and dot segments. Its segments are those a proxy saw: the path is empty, and so
    /// is no resource, if a segment contains an escaped slash or backslash.
    pub path: String,
    /// The segments of the path, split at its slashes and then decoded; in them a name may have a
    /// slash.
    pub segments: Vec<String>,
    /// What follows the first `?`, as sent; its escapes are valid and none stands for a control
    /// character.
    pub query: Option<String>,
    /// Host and port as the client named them, in lower case; empty only for HTTP/1.0 without a
    /// Host field.
    pub host: String,
    /// The body behind the head; an empty one for methods without a body.
    pub body: BodyFraming,
    /// Whether the connection may carry another request: HTTP/1.1, no `Connection: close`, and no
    /// `Upgrade`, because a proxy in between may take what follows a failed upgrade for a tunnel.
    pub keep_alive: bool,
    /// The client waits for [`CONTINUE`] before it sends the body, and there is one.
    pub expects_continue: bool,
    fields: Vec<(String, String)>,
}

impl RequestHead {
    /// The first value of a field, by its lower-case name. Bytes that are not UTF-8 were replaced
    /// by U+FFFD: such a value is present, and equals no expected value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// All values of a field, by its lower-case name, in the order sent.
    pub fn headers(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        self.fields
            .iter()
            .filter(move |(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// The elements of a list field (RFC 9110 section 5.6.1) over all its lines, without empty
    /// ones.
    pub fn elements(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        self.headers(name)
            .flat_map(|value| value.split(','))
            .map(|element| element.trim_matches([' ', '\t']))
            .filter(|element| !element.is_empty())
    }

    /// Whether a list field has this element, in any case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.elements(name)
            .any(|element| element.eq_ignore_ascii_case(token))
    }
}
