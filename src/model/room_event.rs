//! What happens in a room, as a member receives it: the events of the embedding API's subscriptions
//! and of the client.

use std::sync::Arc;

use crate::model::id::{Position, UserName};
use crate::model::member::Info;
use crate::model::publication::{Payload, Publication};

/// What happens in a room that a program has subscribed to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RoomEvent {
    Message(Delivery),
    /// Messages between the subscription's position and this one are lost to it: the room no longer
    /// stores them. The next message follows this position.
    Gap(Position),
    /// A user's first connection in the room, over all nodes.
    Joined {
        user: UserName,
        /// The version of the list of members after this change.
        version: u64,
        info: Option<Info>,
    },
    /// After a user's last connection in the room.
    Left {
        user: UserName,
        version: u64,
    },
    /// The members have changed in ways that are not reported one by one: a program that needs
    /// them queries the list of members.
    MembersChanged {
        version: u64,
    },
}

/// A message, as a subscription or a page of history delivers it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The number of the message in its room: 1, 2, 3 … `None` for an ephemeral one.
    pub offset: Option<u64>,
    /// The author; `None` for an anonymous one.
    pub user: Option<UserName>,
    /// When the publisher's node received it: milliseconds since 1970, by that node's clock.
    pub time: u64,
    /// The name of its event, if it has one.
    pub event: Option<Arc<str>>,
    /// The message itself, as it was published.
    pub data: Payload,
}

impl Delivery {
    /// A message from a room's log.
    pub(crate) fn stored(offset: u64, publication: &Publication) -> Self {
        Self {
            offset: Some(offset),
            user: publication.user.clone(),
            time: publication.time,
            event: publication.event.clone(),
            data: publication.data.clone(),
        }
    }
}
