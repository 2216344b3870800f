//! The session of a subscription: where a client has a connection with a reader and a writer, the
//! subscription takes the frames out of its outbox itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::frames::{self, Received};
use super::{SubscriptionError, ended};
use crate::dispatcher::{Event, ReplyTo};
use crate::model::id::SessionId;
use crate::outbox::{Batch, Next, OutboxReader, outbox};
use crate::protocol::{Command, CommandError, Protocol};
use crate::runtime;
use crate::transport::Node;

/// See the head of this file.
pub(super) struct EmbeddedSession {
    node: Arc<Node>,
    session: SessionId,
    /// `None` once the session has ended. Dropping it lets a drain complete.
    outbox: Option<OutboxReader>,
    batch: Batch,
    /// Chunks of the batch that are read.
    done: usize,
    /// Sends [`Event::Drained`] to the dispatcher.
    notifying: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Dropping it sends [`Event::Closed`] to the dispatcher.
    _open: flume::Sender<()>,
}

impl EmbeddedSession {
    /// Opens a session.
    ///
    /// # Errors
    /// The node has ended.
    pub(super) async fn open(node: Arc<Node>) -> Result<Self, CommandError> {
        let session = node.next_session();
        // Without a connection there is nothing to hang up.
        let (outbox, reader) = outbox(node.limits.outbox, || ());
        let (open, opened) = flume::bounded(1);
        // Started before the event is sent, because the caller may be dropped while it waits.
        runtime::spawn(report_end(node.clone(), session, opened));
        let subscribed = Event::Subscribed {
            session,
            protocol: Protocol::Native,
            outbox,
        };
        let opening = Self {
            node,
            session,
            outbox: Some(reader),
            batch: Batch::default(),
            done: 0,
            notifying: None,
            _open: open,
        };
        opening.send(subscribed).await?;
        Ok(opening)
    }

    /// Sends a command, whose reply is among what [`poll_next`](Self::poll_next) returns.
    pub(super) async fn command(&self, command: Command) -> Result<(), CommandError> {
        let reply_to = ReplyTo::Session {
            session: self.session,
            id: None,
        };
        self.send(Event::Command { reply_to, command }).await
    }

    async fn send(&self, event: Event) -> Result<(), CommandError> {
        let sent = self.node.inbox.send_async(event).await;
        sent.map_err(|_| ended())
    }

    /// Waits for the next thing that the session receives. `None` after its end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        loop {
            if let Some(received) = self.take() {
                return Poll::Ready(Some(received));
            }
            let Some(outbox) = &self.outbox else {
                return Poll::Ready(None);
            };
            if let Some(notifying) = &mut self.notifying {
                ready!(notifying.as_mut().poll(cx));
                self.notifying = None;
            }
            let next = ready!(outbox.poll_next(cx, &mut self.batch));
            self.done = 0;
            match next {
                Next::Write => {}
                Next::NotifyDrained => {
                    self.notifying = Some(report_drained(self.node.clone(), self.session));
                }
                Next::End(last) => {
                    self.batch.chunks.push(last);
                    self.outbox = None;
                }
                Next::Gone => {
                    self.outbox = None;
                    return Poll::Ready(Some(Received::End(SubscriptionError::Ended)));
                }
            }
        }
    }

    /// Takes the next frame of the batch.
    fn take(&mut self) -> Option<Received> {
        while let Some(frames) = self.batch.chunks.get_mut(self.done) {
            if let Some(received) = frames::take(frames) {
                return Some(received);
            }
            self.done += 1;
        }
        None
    }
}

/// Reports the end of a session when its [`EmbeddedSession`] is dropped.
async fn report_end(node: Arc<Node>, session: SessionId, opened: flume::Receiver<()>) {
    // Nothing is ever sent: this is the drop of the other end.
    let _ = opened.recv_async().await;
    let close_reason = None;
    let closed = Event::Closed {
        session,
        close_reason,
    };
    // Without a dispatcher the session has ended too.
    let _ = node.inbox.send_async(closed).await;
}

fn report_drained(node: Arc<Node>, session: SessionId) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        // As above.
        let _ = node.inbox.send_async(Event::Drained(session)).await;
    })
}
