//! What a protocol sends: the interface between the dispatcher and the bytes of a connection.

use bytes::{Bytes, BytesMut};

use crate::model::id::RoomName;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::{Message, Push, Reply, RequestId};

/// Encodes everything that the sessions of one protocol receive. It has no state: all sessions of
/// the protocol share it, and a message is encoded once for all members of a room that use it.
///
/// Each method returns or appends whole frames, as they are written to the socket: the caller
/// queues them unchanged. They may be empty, if the protocol has no form for the value. It is
/// the only place that reads the payload of a publication.
pub trait Encoder: Sync {
    /// The reply to the command with this id.
    fn reply(&self, id: Option<RequestId>, reply: &Reply<'_>) -> Bytes;

    fn push(&self, push: &Push<'_>) -> Bytes;

    /// Appends a message. This is the hot path.
    fn message(&self, message: &Message<'_>, frames: &mut BytesMut);

    /// Appends the sender's form of its own message with `others`: its position, without the
    /// payload.
    fn own_message(&self, room: &RoomName, offset: Option<u64>, frames: &mut BytesMut);

    /// What a live client must answer, or at least acknowledge, within the pong timeout.
    fn ping(&self) -> Bytes;

    /// The last bytes of a connection that the server ends.
    fn close(&self, disconnect: Disconnect) -> Bytes;
}
