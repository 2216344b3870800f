//! The frames a server writes (RFC 6455 section 5.2): never masked, never fragmented. The payload
//! is written in place behind space for the header, so that a message is encoded once and never
//! copied.

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::disconnect::Disconnect;

const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

/// The header length for payloads of 126 to 65,535 bytes, the size of most messages.
const USUAL_HEADER: usize = 4;

/// A ping without a payload; every session may be offered the same bytes.
pub(crate) const EMPTY_PING: Bytes = Bytes::from_static(&[FIN | PING, 0]);

/// Appends one text frame whose payload is what `payload` writes.
pub(crate) fn text(frames: &mut BytesMut, payload: impl FnOnce(&mut BytesMut)) {
    append(frames, TEXT, payload);
}

/// A close frame with the code and the reason of `disconnect`.
pub(crate) fn close(disconnect: Disconnect) -> Bytes {
    let mut frame = BytesMut::with_capacity(128);
    append(&mut frame, CLOSE, |out| {
        out.put_u16(disconnect.code());
        out.put_slice(disconnect.reason().as_bytes());
    });
    frame.freeze()
}

fn append(frames: &mut BytesMut, opcode: u8, payload: impl FnOnce(&mut BytesMut)) {
    let start = frames.len();
    frames.put_slice(&[FIN | opcode, 0, 0, 0]);
    payload(frames);
    let length = frames.len() - start - USUAL_HEADER;
    let header = &mut frames[start..];
    if let Ok(length) = u16::try_from(length) {
        if length < 126 {
            header[1] = length as u8;
            header.copy_within(USUAL_HEADER.., 2);
            frames.truncate(frames.len() - 2);
        } else {
            header[1] = 126;
            header[2..4].copy_from_slice(&length.to_be_bytes());
        }
    } else {
        frames.put_bytes(0, 6);
        let header = &mut frames[start..];
        header.copy_within(USUAL_HEADER..USUAL_HEADER + length, 10);
        header[1] = 127;
        header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
    use std::io::Cursor;

    #[test]
    fn length_forms_read_back_as_one_frame() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let payload: Vec<u8> = (0..length).map(|n| b'a' + (n % 26) as u8).collect();
            let mut frames = BytesMut::from(&b"before"[..]);
            text(&mut frames, |out| out.put_slice(&payload));
            let mut cursor = Cursor::new(&frames[6..]);
            let (header, read) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert!(header.is_final && header.mask.is_none());
            assert_eq!(read, length as u64);
            assert_eq!(
                &frames[6 + cursor.position() as usize..],
                payload,
                "{length}"
            );
        }
    }

    #[test]
    fn close_frames_carry_code_and_reason() {
        let frame = close(Disconnect::Slow);
        assert_eq!(&frame[2..4], &3002u16.to_be_bytes());
        assert_eq!(&frame[4..], Disconnect::Slow.reason().as_bytes());
    }
}
