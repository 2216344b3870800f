//! Mutations: one in `every` messages of a node is dropped, duplicated or swapped with the next of
//! its room, as a whole WebSocket frame (RFC 6455 section 5.2). The judge must detect each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bars::Mutation;

/// How every message of the native protocol begins, up to the name of its room.
const MESSAGE: &[u8] = br#"{"type":"message","room":""#;

/// The mutation of all connections of a proxy.
#[derive(Clone)]
pub struct Mutant {
    pub kind: Mutation,
    /// One message in so many.
    pub one_in: u32,
    pub seed: u64,
    /// How many frames were mutated.
    pub done: Arc<AtomicU64>,
}

impl Mutant {
    pub fn mutator(&self, connection: u64) -> Mutator {
        Mutator {
            mutant: self.clone(),
            random: fastrand::Rng::with_seed(self.seed ^ connection.wrapping_mul(0x9e37_79b9)),
            upgraded: false,
            pending: Vec::new(),
            held: None,
        }
    }
}

/// The same for one connection.
pub struct Mutator {
    mutant: Mutant,
    random: fastrand::Rng,
    upgraded: bool,
    /// An incomplete head or frame.
    pending: Vec<u8>,
    /// A frame that is held back for a swap, and the part of it that names its room.
    held: Option<(Vec<u8>, Vec<u8>)>,
}

impl Mutator {
    /// Returns the bytes to forward instead of these.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        if !self.upgraded && self.pending.is_empty() && !bytes.starts_with(b"HTTP/1.1 101") {
            return bytes.to_vec();
        }
        self.pending.extend_from_slice(bytes);
        if !self.upgraded {
            let end = self.pending.windows(4).position(|end| end == b"\r\n\r\n");
            let Some(end) = end else { return out };
            out.extend(self.pending.drain(..end + 4));
            self.upgraded = true;
        }
        while let Some((payload, end)) = frame(&self.pending) {
            let frame: Vec<u8> = self.pending.drain(..end).collect();
            self.one(&frame, payload, &mut out);
        }
        out
    }

    fn one(&mut self, frame: &[u8], payload: usize, out: &mut Vec<u8>) {
        let Some(room) = room(&frame[payload..]) else {
            out.extend_from_slice(frame);
            return;
        };
        if self.held.as_ref().is_some_and(|(held, _)| held == room) {
            out.extend_from_slice(frame);
            out.extend(self.held.take().map(|(_, frame)| frame).unwrap_or_default());
            return;
        }
        if self.held.is_some() || self.random.u32(..self.mutant.one_in) != 0 {
            out.extend_from_slice(frame);
            return;
        }
        self.mutant.done.fetch_add(1, Ordering::Relaxed);
        match self.mutant.kind {
            Mutation::Drop => {}
            Mutation::Double => {
                out.extend_from_slice(frame);
                out.extend_from_slice(frame);
            }
            Mutation::Swap => self.held = Some((room.to_vec(), frame.to_vec())),
        }
    }
}

/// The range of the first frame's payload, if it is complete. Servers do not mask.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let (start, length) = match *bytes.get(1)? & 0x7f {
        126 => (
            4,
            u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into(),
        ),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        length => (2, u64::from(length)),
    };
    let end = start + length as usize;
    (bytes.len() >= end).then_some((start, end))
}

/// The room's name, if the payload is a message.
fn room(payload: &[u8]) -> Option<&[u8]> {
    let rest = payload.strip_prefix(MESSAGE)?;
    rest.split(|byte| *byte == b'"').next()
}
