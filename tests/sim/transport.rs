//! What lies between a node and its clients: frames as they are on the wire, and a switch that
//! drops, doubles or swaps one of them, to see whether the oracle notices.

use std::collections::VecDeque;

use bytes::Bytes;

/// What is done to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    Drop,
    Double,
    /// It arrives after the next one of its room.
    Swap,
    /// It is no message, but a `joined` or `left`, and dropped.
    Hide,
}

#[derive(Debug)]
pub enum Frame {
    Ping,
    Text(String),
}

#[derive(Debug, Default)]
pub struct Transport {
    /// What to do, and how many messages pass before.
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

    /// Whether something was done that a client could see. A message that still waits for the next
    /// one is as good as dropped.
    pub fn was_tampered(&self) -> bool {
        self.tampered || self.held.is_some()
    }

    /// Cuts what a writer wrote into frames.
    pub fn frames(&mut self, client: usize, conn: u32, chunks: &[Bytes]) -> VecDeque<Frame> {
        let mut frames = VecDeque::new();
        for chunk in chunks {
            let mut rest = &chunk[..];
            while let [first, second, ..] = *rest {
                let (head, length) = match second {
                    126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                    127 => panic!("no message of a schedule is so long"),
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
        let is_placed = |text: &str| match hides {
            true => {
                let kinds = ["{\"type\":\"joined\"", "{\"type\":\"left\""];
                // Of the personal rooms clients keep no list.
                kinds.iter().any(|kind| text.starts_with(kind)) && !text.contains("\"@")
            }
            false => text.starts_with("{\"type\":\"message\"") && text.contains("\"offset\""),
        };
        let room = |text: &str| {
            is_placed(text)
                .then(|| text.split('"').nth(7).map(str::to_owned))
                .flatten()
        };
        let Some(this) = room(&text) else {
            return frames.push_back(Frame::Text(text));
        };
        if let Some((_, _, held)) = self.held.take_if(|(who, which, held)| {
            *who == client && *which == conn && room(held).as_ref() == Some(&this)
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
            Some((Tampering::Double, _)) => {
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
