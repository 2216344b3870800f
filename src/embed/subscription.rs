//! Subscriptions of the embedding program. A subscription is a session in this process: the
//! dispatcher treats it like a client's, so order, recovery, gaps and bounds are the same.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::Stream;

use super::Handle;
use super::frames::Received;
use super::session::EmbeddedSession;
use crate::model::id::{Position, RoomName};
use crate::model::publication::Refused;
use crate::model::room_event::RoomEvent;
use crate::protocol::{Code, Command, CommandError};
use crate::runtime;

/// Why a subscription has ended. The program may subscribe again from
/// [`Subscription::position`], and then receives what it missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// The program reads more slowly than the room publishes: more than `outbox_bytes` or
    /// `outbox_frames` waited for it.
    #[error("the subscription was read too slowly")]
    Slow,
    /// The node is drained.
    #[error("the node is stopping")]
    Draining,
    /// A node of a later version published a message that this node cannot read.
    #[error("a message of the room is in a newer format than this node reads")]
    Unreadable,
    /// The node has ended.
    #[error("the node has ended")]
    Ended,
}

/// The messages of a room, from [`Handle::subscribe`]. Dropping it ends it.
///
/// It is a bounded queue: what is not read waits, up to the `outbox_bytes` and `outbox_frames` of
/// the node; beyond them the subscription ends with [`SubscriptionError::Slow`], and nothing else
/// waits for it. It is no member of the room: it is neither listed nor counted.
pub struct Subscription {
    session: EmbeddedSession,
    position: Position,
    /// The first event, if the room could not be recovered from the position that was named.
    gap: Option<Position>,
}

impl Handle {
    /// Subscribes to the messages of a room and to the changes of its members, wherever they
    /// happen. With `since` it continues behind that position, as a client does that comes back:
    /// first come the stored messages behind it, then the new ones. If the room no longer has all
    /// of them, the first event is a [`RoomEvent::Gap`]. Without `since` it begins now.
    ///
    /// Messages come in the order of their offsets, each once, without a hole that a gap does not
    /// report.
    ///
    /// # Errors
    /// Those of [`Handle`].
    ///
    /// ```no_run
    /// # async fn example(server: &switchboard::Server) -> Result<(), switchboard::Error> {
    /// use switchboard::RoomEvent;
    ///
    /// let mut lobby = server.subscribe("lobby", None).await?;
    /// while let Some(Ok(event)) = lobby.next().await {
    ///     if let RoomEvent::Message(message) = event {
    ///         println!("{}", message.data);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe(
        &self,
        room: &str,
        since: Option<Position>,
    ) -> Result<Subscription, CommandError> {
        let room = RoomName::new(room)?;
        if room.is_the_nodes() {
            let reason = "this room belongs to the nodes";
            return Err(CommandError::new(Code::Forbidden, reason));
        }
        let joined = runtime::timeout(self.join_timeout, self.join(room, since)).await;
        joined.unwrap_or_else(|_| Err(Refused::Unavailable.into()))
    }

    async fn join(
        &self,
        room: RoomName,
        since: Option<Position>,
    ) -> Result<Subscription, CommandError> {
        let mut session = EmbeddedSession::open(self.node.clone()).await?;
        session
            .command(Command::Join {
                room,
                since,
                identity: None,
            })
            .await?;
        loop {
            match poll_fn(|cx| session.poll_next(cx)).await {
                Some(Received::Joined(position, recovered)) => {
                    return Ok(Subscription {
                        session,
                        position,
                        gap: (!recovered).then_some(position),
                    });
                }
                Some(Received::Refused(error)) => return Err(error),
                Some(Received::Event(_) | Received::Other) => {}
                Some(Received::End(_)) | None => return Err(Refused::Unavailable.into()),
            }
        }
    }
}

impl Subscription {
    /// Waits for the next event of the room, for as long as none happens. An error is the last
    /// item, and `None` follows it. It may be dropped while it waits, and nothing is lost.
    pub async fn next(&mut self) -> Option<Result<RoomEvent, SubscriptionError>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The position behind the events that were returned so far: a later subscription that begins
    /// there receives what this one has not. Ephemeral messages have none.
    pub fn position(&self) -> Position {
        self.position
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<RoomEvent, SubscriptionError>>> {
        if let Some(gap) = self.gap.take() {
            return Poll::Ready(Some(Ok(RoomEvent::Gap(gap))));
        }
        loop {
            match ready!(self.session.poll_next(cx)) {
                Some(Received::Event(event)) => {
                    self.follow(&event);
                    return Poll::Ready(Some(Ok(event)));
                }
                Some(Received::End(error)) => return Poll::Ready(Some(Err(error))),
                Some(Received::Joined(..) | Received::Refused(_) | Received::Other) => {}
                None => return Poll::Ready(None),
            }
        }
    }

    fn follow(&mut self, event: &RoomEvent) {
        match event {
            RoomEvent::Message(message) => {
                self.position.offset = message.offset.unwrap_or(self.position.offset);
            }
            RoomEvent::Gap(position) => self.position = *position,
            _ => {}
        }
    }
}

impl Stream for Subscription {
    type Item = Result<RoomEvent, SubscriptionError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(cx)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
