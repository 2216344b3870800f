//! Decodes what a subscription receives. It is a session of the native protocol, so a message is
//! encoded once for it and for the WebSocket clients of its room; here the frames are read back.

use bytes::{Buf, Bytes};

use super::SubscriptionError;
use crate::model::id::Position;
use crate::model::room_event::RoomEvent;
use crate::protocol::CommandError;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::native::receive::{Content, receive};

/// Something that a subscription receives.
#[derive(Debug)]
pub(super) enum Received {
    /// The join was answered with this position. `false`: the room no longer has everything that
    /// follows the position that the join named.
    Joined(Position, bool),
    Refused(CommandError),
    Event(RoomEvent),
    End(SubscriptionError),
    /// A frame that needs no action, such as a ping.
    Other,
}

/// Takes one frame off the front of whole frames of a server (RFC 6455 section 5.2), which are
/// neither masked nor fragmented. `None` if there is none.
pub(super) fn take(frames: &mut Bytes) -> Option<Received> {
    let opcode = frames.try_get_u8().ok()? & 0x0f;
    let length = match frames.try_get_u8().ok()? {
        126 => u64::from(frames.try_get_u16().ok()?),
        127 => frames.try_get_u64().ok()?,
        length => u64::from(length),
    };
    let length = usize::try_from(length).ok()?;
    if length > frames.len() {
        return None;
    }
    let payload = frames.split_to(length);
    Some(match opcode {
        0x1 => text(&payload),
        0x8 => Received::End(close(payload)),
        _ => Received::Other,
    })
}

fn close(mut payload: Bytes) -> SubscriptionError {
    let code = payload.try_get_u16().ok();
    let is = |reason: Disconnect| code == Some(reason.code());
    match () {
        () if is(Disconnect::Slow) => SubscriptionError::Slow,
        () if is(Disconnect::Draining) => SubscriptionError::Draining,
        () if is(Disconnect::Unreadable) => SubscriptionError::Unreadable,
        () => SubscriptionError::Ended,
    }
}

fn text(json: &[u8]) -> Received {
    match receive(json).map(|received| received.content) {
        Some(Content::Ok(reply)) => match reply.position {
            Some(position) => Received::Joined(position, reply.recovered.unwrap_or(true)),
            None => Received::Other,
        },
        Some(Content::Error(error)) => Received::Refused(error),
        Some(Content::Event(event)) => Received::Event(event),
        _ => Received::Other,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use serde_json::value::RawValue;

    use super::*;
    use crate::model::id::{Epoch, RoomName, UserName};
    use crate::model::publication::Publication;
    use crate::protocol::{Code, Joined, Message, Protocol, Push, Reply};

    /// The debug text of everything in these frames.
    fn all(frames: impl Into<Bytes>) -> Vec<String> {
        let mut frames = frames.into();
        let received = std::iter::from_fn(|| take(&mut frames));
        received.map(|received| format!("{received:?}")).collect()
    }

    #[test]
    fn messages_of_every_length_read_back_from_one_buffer() {
        let (room, encoder) = (RoomName::new("r").unwrap(), Protocol::Native.encoder());
        let mut frames = BytesMut::new();
        let lengths = [0, 10, 100, 200, 70_000];
        for length in lengths {
            let mut publication = Publication::clone(&Publication::numbered(7));
            let text = format!("\"{}\"", "x".repeat(length));
            publication.data = RawValue::from_string(text).unwrap().into();
            let (room, offset) = (&room, Some(length as u64));
            let publication = &publication;
            let message = Message {
                room,
                offset,
                publication,
            };
            encoder.message(&message, &mut frames);
        }
        let mut frames = frames.freeze();
        for length in lengths {
            let Some(Received::Event(RoomEvent::Message(message))) = take(&mut frames) else {
                panic!("{length}");
            };
            assert_eq!(message.offset, Some(length as u64));
            assert_eq!(message.data.size(), length + 2);
        }
        assert!(take(&mut frames).is_none());
    }

    #[test]
    fn null_is_a_message_and_truncated_frames_are_nothing() {
        let (room, encoder) = (RoomName::new("r").unwrap(), Protocol::Native.encoder());
        let mut publication = Publication::clone(&Publication::numbered(7));
        publication.data = RawValue::NULL.to_owned().into();
        let message = Message {
            room: &room,
            offset: None,
            publication: &publication,
        };
        let mut frames = BytesMut::new();
        encoder.message(&message, &mut frames);
        for cut in 0..frames.len() {
            assert!(take(&mut Bytes::copy_from_slice(&frames[..cut])).is_none());
        }
        assert!(all(frames)[0].starts_with("Event(Message("));
    }

    #[test]
    fn replies_pushes_and_ends_read_back() {
        let (room, user) = (RoomName::new("r").unwrap(), UserName::new("ada").unwrap());
        let (room, user, encoder) = (&room, &user, Protocol::Native.encoder());
        let position = Position {
            epoch: Epoch::new(1),
            offset: 4,
        };
        let joined = |recovered| {
            let (top, recovered) = (9, Some(recovered));
            Reply::Joined(Joined {
                room,
                position,
                top,
                recovered,
            })
        };
        let error = CommandError::new(Code::Unavailable, "later");
        let left = Push::Left {
            room,
            user,
            version: 3,
        };
        let version = 4;
        let rows = [
            (
                encoder.reply(None, &joined(true)),
                format!("Joined({position:?}, true)"),
            ),
            (
                encoder.reply(None, &joined(false)),
                format!("Joined({position:?}, false)"),
            ),
            (
                encoder.reply(None, &Reply::Error(&error)),
                format!("Refused({error:?})"),
            ),
            (
                encoder.push(&Push::Gap { room, position }),
                format!("Event(Gap({position:?}))"),
            ),
            (
                encoder.push(&left),
                format!("Event(Left {{ user: {user:?}, version: 3 }})"),
            ),
            (
                encoder.push(&Push::Members { room, version }),
                "Event(MembersChanged { version: 4 })".to_owned(),
            ),
            (encoder.ping(), "Other".to_owned()),
            (encoder.close(Disconnect::Slow), "End(Slow)".to_owned()),
            (
                encoder.close(Disconnect::Draining),
                "End(Draining)".to_owned(),
            ),
            (
                encoder.close(Disconnect::Unreadable),
                "End(Unreadable)".to_owned(),
            ),
            (encoder.close(Disconnect::Internal), "End(Ended)".to_owned()),
        ];
        for (frames, expected) in rows {
            assert_eq!(all(frames), [expected]);
        }
    }
}
