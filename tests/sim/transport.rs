//! The transport between a node and its clients: it decodes frames from the wire, and drops,
//! duplicates or swaps one of them on demand, to test that the oracle detects it.

use std::collections::VecDeque;

use bytes::Bytes;

/// What the transport does to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    Drop,
    Duplicate,
    /// Delivers it after the next message of its room.
    Swap,
    /// Drops a `joined` or `left` instead of a message.
    Hide,
}

#[derive(Debug)]
pub enum Frame {
    Ping,
    Text(String),
}

#[derive(Debug, Default)]
pub struct Transport {
    /// What to do, and how many messages pass first.
    tampering: Option<(Tampering, u64)>,
    held: Option<(usize, u32, String)>,
    tampered: bool,
}

impl Transport {
    pub fn tampering(what: Tampering, after: u64) -> Self {
        Self {
            tampering: Some((what, after)),
            ..Self::default()
        }
    }

    /// Whether a client could detect the tampering. A message that is still held back for a swap
    /// counts as dropped.
    pub fn was_tampered(&self) -> bool {
        self.tampered || self.held.is_some()
    }

    /// Splits the bytes that a writer wrote into frames.
    pub fn frames(&mut self, client: usize, conn: u32, chunks: &[Bytes]) -> VecDeque<Frame> {
        let mut frames = VecDeque::new();
        for chunk in chunks {
            let mut rest = &chunk[..];
            while let [first, second, ..] = *rest {
                let (head, length) = match second {
                    126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                    127 => panic!("messages of a schedule are shorter than 64 KiB"),
                    length => (2, usize::from(length)),
                };
                let payload = &rest[head..head + length];
                rest = &rest[head + length..];
                match first & 0x0f {
                    1 => {
                        let text = std::str::from_utf8(payload).expect("text frames are UTF-8");
                        self.pass(client, conn, text, &mut frames);
                    }
                    9 => frames.push_back(Frame::Ping),
                    other => panic!("a frame with the opcode {other}"),
                }
            }
        }
        frames
    }

    fn pass(&mut self, client: usize, conn: u32, text: &str, frames: &mut VecDeque<Frame>) {
        let text = text.to_owned();
        if self.tampering.is_none() && self.held.is_none() {
            return frames.push_back(Frame::Text(text));
        }
        let hides = matches!(self.tampering, Some((Tampering::Hide, _)));
        let is_candidate = |text: &str| {
            if hides {
                let kinds = ["{\"type\":\"joined\"", "{\"type\":\"left\""];
                // Clients keep no list of members of personal rooms.
                kinds.iter().any(|kind| text.starts_with(kind)) && !text.contains("\"@")
            } else {
                text.starts_with("{\"type\":\"message\"") && text.contains("\"offset\"")
            }
        };
        let room = |text: &str| {
            is_candidate(text)
                .then(|| text.split('"').nth(7).map(str::to_owned))
                .flatten()
        };
        let Some(this) = room(&text) else {
            return frames.push_back(Frame::Text(text));
        };
        if let Some((_, _, held)) = self.held.take_if(|(held_client, held_conn, held)| {
            *held_client == client && *held_conn == conn && room(held).as_ref() == Some(&this)
        }) {
            self.tampered = true;
            frames.push_back(Frame::Text(text));
            return frames.push_back(Frame::Text(held));
        }
        match &mut self.tampering {
            Some((_, after @ 1..)) => *after -= 1,
            Some((Tampering::Drop | Tampering::Hide, _)) => {
                (self.tampering, self.tampered) = (None, true);
                return;
            }
            Some((Tampering::Duplicate, _)) => {
                (self.tampering, self.tampered) = (None, true);
                frames.push_back(Frame::Text(text.clone()));
            }
            Some((Tampering::Swap, _)) => {
                self.tampering = None;
                self.held = Some((client, conn, text));
                return;
            }
            None => {}
        }
        frames.push_back(Frame::Text(text));
    }
}
