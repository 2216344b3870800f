//! WebSocket handshakes that must be refused on a path that speaks WebSocket, with the status the
//! node must return, for the unit tests of `handshake` and for tests that send them over a socket.
//! Each connection is closed after its refusal.

const CONNECTION: &str = "Connection: Upgrade";
const UPGRADE: &str = "Upgrade: websocket";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

/// One wrong handshake: what is wrong, its method, its fields after Host, and the status of the
/// refusal.
pub struct Handshake {
    pub name: &'static str,
    pub status: u16,
    method: &'static str,
    fields: &'static [&'static str],
}

impl Handshake {
    /// The bytes to send to `path` of a node that is called `a`.
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let (method, fields) = (self.method, self.fields.join("\r\n"));
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes()
    }
}

const fn row(
    name: &'static str,
    method: &'static str,
    fields: &'static [&'static str],
    status: u16,
) -> Handshake {
    Handshake {
        name,
        status,
        method,
        fields,
    }
}

#[rustfmt::skip]
pub const HANDSHAKES: &[Handshake] = &[
    row("no upgrade", "GET", &["Connection: keep-alive"], 426),
    row("h2c", "GET",
        &["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"], 426),
    row("upgrade that merely contains the word", "GET",
        &[CONNECTION, "Upgrade: websockets", VERSION, KEY], 426),
    row("no Connection", "GET", &[UPGRADE, VERSION, KEY], 400),
    row("Connection without the token", "GET",
        &["Connection: keep-alive, upgraded", UPGRADE, VERSION, KEY], 400),
    row("POST", "POST", &["Content-Length: 0", CONNECTION, UPGRADE, VERSION, KEY], 405),
    row("HEAD", "HEAD", &[CONNECTION, UPGRADE, VERSION, KEY], 405),
    row("no version", "GET", &[CONNECTION, UPGRADE, KEY], 426),
    row("version 8", "GET", &[CONNECTION, UPGRADE, "Sec-WebSocket-Version: 8", KEY], 426),
    row("version 013", "GET", &[CONNECTION, UPGRADE, "Sec-WebSocket-Version: 013", KEY], 426),
    row("list of versions", "GET",
        &[CONNECTION, UPGRADE, "Sec-WebSocket-Version: 13, 8", KEY], 426),
    row("two versions", "GET", &[CONNECTION, UPGRADE, VERSION, VERSION, KEY], 426),
    row("no key", "GET", &[CONNECTION, UPGRADE, VERSION], 400),
    row("empty key", "GET", &[CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key:"], 400),
    row("key of 15 bytes", "GET",
        &[CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"], 400),
    row("key of 17 bytes", "GET",
        &[CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQA="], 400),
    row("key without padding", "GET",
        &[CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"], 400),
    row("key in the other alphabet", "GET",
        &[CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub2-_ZQ=="], 400),
    row("key with early padding", "GET",
        &[CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j===="], 400),
    row("two keys", "GET", &[CONNECTION, UPGRADE, VERSION, KEY, KEY], 400),
    row("origin null", "GET", &["Origin: null", CONNECTION, UPGRADE, VERSION, KEY], 403),
    row("foreign origin", "GET", &["Origin: http://b", CONNECTION, UPGRADE, VERSION, KEY], 403),
    row("two origins", "GET",
        &["Origin: http://a", "Origin: http://a", CONNECTION, UPGRADE, VERSION, KEY], 400),
];
