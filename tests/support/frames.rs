//! A client made of frames (RFC 6455 section 5.2), for what a WebSocket library would not send or
//! not show.

use std::net::SocketAddr;

use super::http::HttpClient;

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The handshake of RFC 6455 section 1.3, with more fields if need be; each ends in CR LF.
pub fn upgrade(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

/// A whole message in one masked frame.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked(FIN | opcode, payload)
}

/// A masked frame that another one will follow.
pub fn fragment(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked(opcode, payload)
}

/// The header of a masked final frame with this length.
pub fn header(opcode: u8, length: u64) -> Vec<u8> {
    head(FIN | opcode, MASKED, length)
}

/// A final frame as no client may send it.
pub fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(FIN | opcode, 0, payload.len() as u64);
    bytes.truncate(bytes.len() - MASK.len());
    bytes.extend(payload);
    bytes
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, MASKED, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
    bytes
}

fn head(first: u8, mask: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(mask | length as u8),
        126..65_536 => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// A client after its handshake.
pub struct FrameClient {
    caller: HttpClient,
}

impl FrameClient {
    /// Connects and upgrades on this path.
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        let mut caller = HttpClient::connect(address).await;
        caller.send(upgrade(path, "")).await;
        let answer = caller.head().await;
        assert_eq!(answer.status, 101, "{answer:?}");
        Self { caller }
    }

    /// The same on the path of the native protocol; reads the welcome too.
    pub async fn welcomed(address: SocketAddr) -> Self {
        let mut client = Self::open(address, "/ws").await;
        let welcome = client.text().await;
        assert!(welcome.contains("\"welcome\""), "{welcome}");
        client
    }

    /// A client whose handshake the test has done itself.
    pub fn of(caller: HttpClient) -> Self {
        Self { caller }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.caller.send(bytes).await;
    }

    /// The next frame, which must be whole and unmasked: its opcode and payload.
    pub async fn next(&mut self) -> (u8, Vec<u8>) {
        let start = self.caller.take(2).await;
        assert_eq!(start[0] & 0xf0, FIN, "a fragment or a reserved bit");
        assert_eq!(start[1] & MASKED, 0, "servers do not mask");
        let length = match start[1] {
            126 => u64::from(u16::from_be_bytes(self.bytes().await)),
            127 => u64::from_be_bytes(self.bytes().await),
            length => u64::from(length),
        };
        let payload = self.caller.take(length as usize).await;
        (start[0] & 0x0f, payload)
    }

    async fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.caller.take(N).await;
        bytes.try_into().expect("as many as were asked for")
    }

    /// The next frame, which must be text.
    pub async fn text(&mut self) -> String {
        let (opcode, payload) = self.next().await;
        assert_eq!(opcode, TEXT, "{payload:?}");
        String::from_utf8(payload).expect("UTF-8")
    }

    /// The next frame, which must be a close: its code, if it has one. Then the connection ends.
    pub async fn closed(&mut self) -> Option<u16> {
        let (opcode, payload) = self.next().await;
        let text = String::from_utf8_lossy(&payload);
        assert_eq!(opcode, CLOSE, "{text}");
        self.caller.expect_end().await;
        let code = payload.first_chunk::<2>()?;
        Some(u16::from_be_bytes(*code))
    }

    /// Checks that the node answers a command: the session continues.
    pub async fn expect_pong(&mut self) {
        self.send(frame(TEXT, br#"{"type":"ping","id":99}"#)).await;
        assert_eq!(self.text().await, r#"{"type":"pong","id":99}"#);
    }
}
