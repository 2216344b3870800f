//! The batch of a room: what is encoded for its members in one turn, to be offered to all of them
//! as one shared buffer.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::model::id::{NumberSet, SessionId};
use crate::protocol::Protocol;

/// A room's publications of this turn, encoded once per protocol and not offered yet.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub frames: [BytesMut; Protocol::COUNT],
    pub messages: u64,
    /// The presence events among the frames.
    pub events: [BytesMut; Protocol::COUNT],
    /// Parts that their senders excluded themselves from.
    pub except: Vec<Excluded>,
}

/// A part of the frames that its sender does not receive.
#[derive(Debug)]
pub(super) struct Excluded {
    pub session: SessionId,
    pub protocol: Protocol,
    /// The part of the protocol's frames, and its replacement for the sender.
    pub part: Range<usize>,
    pub own: Bytes,
}

impl Batch {
    pub(super) fn bytes(&self) -> usize {
        self.frames.iter().map(BytesMut::len).max().unwrap_or(0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0 && self.events.iter().all(BytesMut::is_empty)
    }

    /// The senders that excluded themselves from some of the publications.
    pub(super) fn excluded_senders(&self) -> NumberSet<SessionId> {
        self.except.iter().map(|except| except.session).collect()
    }

    /// The frames of a protocol for a sender that excluded itself.
    pub(super) fn without_own(&self, all: &[u8], session: SessionId, protocol: Protocol) -> Bytes {
        let mut frames = BytesMut::with_capacity(all.len());
        let mut copied = 0;
        for except in &self.except {
            if except.session == session && except.protocol == protocol {
                frames.extend_from_slice(&all[copied..except.part.start]);
                frames.extend_from_slice(&except.own);
                copied = except.part.end;
            }
        }
        frames.extend_from_slice(&all[copied..]);
        frames.freeze()
    }
}
