//! WebSocket frames (RFC 6455 section 5.2), and how they begin, as plainly as they can be made and
//! read: no fragments, no extensions. Both the load and the limit use it, so that neither measures
//! a library.

pub const PONG: u8 = 0xA;
const TEXT: u8 = 1;
const PING: u8 = 9;
const CLOSE: u8 = 8;

/// The nonce of section 1.3 and the answer to it.
const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A client must mask; any key is valid.
const MASK: [u8; 4] = [0x5A, 0xC3, 0x3C, 0xA5];

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Ping,
    Pong,
    Close,
    Other(u8),
}

/// Where the first frame of some bytes lies.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub kind: Kind,
    /// The payload begins behind the head and its masking key.
    pub start: usize,
    pub end: usize,
    pub mask: Option<[u8; 4]>,
}

/// A client's upgrade request (section 4.1).
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {NONCE}\r\n\r\n"
    )
}

/// Finds the first frame, if it is whole.
pub fn first(bytes: &[u8]) -> Option<Frame> {
    let (&[opcode, second], rest) = bytes.split_first_chunk::<2>()?;
    let (length, mut start) = match second & 0x7F {
        126 => (
            u64::from(u16::from_be_bytes(*rest.first_chunk::<2>()?)),
            4usize,
        ),
        127 => (u64::from_be_bytes(*rest.first_chunk::<8>()?), 10),
        short => (u64::from(short), 2),
    };
    let mut mask = None;
    if second & 0x80 != 0 {
        mask = Some(*bytes.get(start..)?.first_chunk::<4>()?);
        start += 4;
    }
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    let kind = match opcode & 0x0F {
        TEXT => Kind::Text,
        PING => Kind::Ping,
        PONG => Kind::Pong,
        CLOSE => Kind::Close,
        other => Kind::Other(other),
    };
    (bytes.len() >= end).then_some(Frame {
        kind,
        start,
        end,
        mask,
    })
}

/// Takes the mask off a payload.
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends a server's text frame.
pub fn text(payload: &[u8], out: &mut Vec<u8>) {
    head(TEXT, 0, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a client's text frame.
pub fn masked_text(payload: &[u8], out: &mut Vec<u8>) {
    masked(TEXT, payload, out);
}

/// Appends a client's frame of any kind.
pub fn masked(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    head(opcode, 0x80, payload.len(), out);
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], MASK);
}

fn head(opcode: u8, masked: u8, length: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match length {
        0..126 => out.push(masked | length as u8),
        126..65_536 => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}
