//! The writing half of a session: drains the outbox into the socket, many buffers to one vectored write. As long as the socket takes
//! what there is, it is a courier that writes; a task of its own is made only for a socket that takes no more, and ends
//! when the outbox rests again.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use futures::AsyncWriteExt;
use smallvec::SmallVec;

use super::{Counted, Node, Socket};
use crate::dispatcher::Event;
use crate::id::SessionId;
use crate::runtime;
use crate::session::{self, BATCH, Batch, Next, OutboxReader};

/// What is written with, kept by the outbox for as long as any part of the connection lives.
pub(super) struct Writer<S> {
    pub(super) node: Arc<Node>,
    pub(super) session: SessionId,
    pub(super) socket: S,
    /// The count lives in here because the last part of the connection drops it.
    pub(super) _counted: Counted,
}

impl<S: Socket> session::Writer for Writer<S> {
    fn call(&self, outbox: OutboxReader) {
        self.node.couriers.call(outbox);
    }

    fn write(&self, mut outbox: OutboxReader) {
        let mut batch = Batch::default();
        let looked = {
            let writing = write(
                &self.node,
                self.session,
                &self.socket,
                &mut outbox,
                &mut batch,
            );
            // Nobody is woken by it: if it has to wait, it is begun anew where it was.
            pin!(writing).poll(&mut Context::from_waker(Waker::noop()))
        };
        if looked.is_pending() {
            let (node, session, socket) = (self.node.clone(), self.session, self.socket.clone());
            runtime::spawn(async move {
                write(&node, session, &socket, &mut outbox, &mut batch).await;
            });
        }
    }

    fn hang_up(&self) {
        self.socket.shutdown();
    }
}

/// Writes until the outbox rests or is over. What is still to be done is in the outbox and the batch: it may be given up at any
/// await and begun anew.
async fn write<S: Socket>(
    node: &Node,
    session: SessionId,
    socket: &S,
    outbox: &mut OutboxReader,
    batch: &mut Batch,
) {
    let draining = drain(node, session, socket.clone(), outbox, batch);
    if !matches!(node.guarded(draining).await, Some(Ok(()))) {
        outbox.hang_up();
    }
}

async fn drain<S: Socket>(
    node: &Node,
    session: SessionId,
    mut socket: S,
    outbox: &mut OutboxReader,
    batch: &mut Batch,
) -> io::Result<()> {
    loop {
        if batch.drained {
            node.tell(Event::Drained(session)).await;
            batch.drained = false;
        }
        write_all(&mut socket, &mut batch.chunks).await?;
        match outbox.next(batch) {
            Next::Write => {}
            Next::Rest => return Ok(()),
            // Everything is said, and the client hears the end behind the last frame: it is the server that closes first (RFC
            // 6455 section 7.1.1). The reader goes on for the client's own close.
            Next::Over => return socket.close().await,
        }
    }
}

/// What is written is taken out of the batch at once.
async fn write_all<S: Socket>(socket: &mut S, batch: &mut SmallVec<[Bytes; 1]>) -> io::Result<()> {
    poll_fn(|cx| {
        while !batch.is_empty() {
            let written = match poll_write(socket, cx, batch) {
                Poll::Ready(Ok(0)) if batch.iter().any(|frames| !frames.is_empty()) => {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            let done = advance(batch, written);
            batch.drain(..done);
        }
        Poll::Ready(Ok(()))
    })
    .await
}

fn poll_write<S: Socket>(
    socket: &mut S,
    cx: &mut Context<'_>,
    batch: &[Bytes],
) -> Poll<io::Result<usize>> {
    let socket = Pin::new(socket);
    // The usual case when little is said; a plain `send` costs the kernel less than a vectored write.
    if let [only] = batch {
        return socket.poll_write(cx, only);
    }
    // On the stack, during the call only: never in the task.
    let mut slices = [IoSlice::new(&[]); BATCH];
    for (slice, frames) in slices.iter_mut().zip(batch) {
        *slice = IoSlice::new(frames);
    }
    socket.poll_write_vectored(cx, &slices[..batch.len().min(BATCH)])
}

/// Moves on by what was written; the number of buffers that are done.
fn advance(batch: &mut [Bytes], mut written: usize) -> usize {
    for (index, frames) in batch.iter_mut().enumerate() {
        if written < frames.len() {
            frames.advance(written);
            return index;
        }
        written -= frames.len();
    }
    batch.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_write_goes_on_in_the_middle_of_a_buffer() {
        let mut batch = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"de")];
        assert_eq!(advance(&mut batch, 2), 0);
        assert_eq!(batch[0], "c");
        assert_eq!(advance(&mut batch, 2), 1);
        assert_eq!(batch[1], "e");
        assert_eq!(advance(&mut batch[1..], 1), 1);
    }
}
