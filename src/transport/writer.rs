//! The writing half of a session: drains the outbox into the socket, many buffers to one vectored
//! write.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::AsyncWriteExt;

use super::{Node, Socket};
use crate::dispatcher::Event;
use crate::dispatcher::outbox::{BATCH, Batch, Next, OutboxReader};
use crate::model::id::SessionId;

/// Writes to the end of the outbox: a close frame, or nothing any more.
pub fn run<S: Socket>(
    node: Arc<Node>,
    session: SessionId,
    socket: S,
    outbox: OutboxReader,
) -> impl Future<Output = ()> + Send {
    let mut writer = Writer {
        session,
        socket,
        outbox,
        batch: Batch::default(),
        done: 0,
        telling: None,
        ended: false,
    };
    async move {
        match node.guarded(poll_fn(|cx| writer.poll(cx, &node))).await {
            // Everything is said, and the client hears the end behind the last frame: it is the
            // server that closes first (RFC 6455 section 7.1.1). The reader goes on for the
            // client's own close.
            Some(Ok(())) => {
                let _ = writer.socket.close().await;
            }
            Some(Err(_)) | None => writer.outbox.hang_up(),
        }
    }
}

/// One small structure that is polled by hand, instead of `async fn`s in each other: every delivery
/// passes here, and the kernel's work on the one before has driven it out of the caches. Measured:
/// a fifth of the delivery's time outside of the kernel, and 280 bytes of each connection
/// (bench/README.md, flood).
struct Writer<S> {
    session: SessionId,
    socket: S,
    outbox: OutboxReader,
    batch: Batch,
    /// Chunks of the batch that are written.
    done: u16,
    /// The dispatcher hears that the outbox is drained.
    telling: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Behind the batch comes nothing.
    ended: bool,
}

impl<S: Socket> Writer<S> {
    fn poll(&mut self, cx: &mut Context<'_>, node: &Arc<Node>) -> Poll<io::Result<()>> {
        loop {
            while usize::from(self.done) < self.batch.chunks.len() {
                ready!(self.poll_write(cx))?;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if let Some(telling) = &mut self.telling {
                ready!(telling.as_mut().poll(cx));
                self.telling = None;
            }
            let next = ready!(self.outbox.poll_next(cx, &mut self.batch));
            self.done = 0;
            match next {
                Next::Write => {}
                Next::TellDrained => self.telling = Some(tell_drained(node.clone(), self.session)),
                Next::End(farewell) => {
                    self.batch.chunks.push(farewell);
                    self.ended = true;
                }
                Next::Gone => self.ended = true,
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let rest = &mut self.batch.chunks[usize::from(self.done)..];
        let written = if let [only] = rest {
            // The usual case when little is said; a plain `send` costs the kernel less than a
            // vectored write.
            ready!(Pin::new(&mut self.socket).poll_write(cx, only))?
        } else {
            // On the stack, during the call only: never in the task.
            let mut slices = [IoSlice::new(&[]); BATCH];
            for (slice, frames) in slices.iter_mut().zip(&*rest) {
                *slice = IoSlice::new(frames);
            }
            let slices = &slices[..rest.len().min(BATCH)];
            ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, slices))?
        };
        if written == 0 && rest.iter().any(|frames| !frames.is_empty()) {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.done += advance(rest, written) as u16;
        Poll::Ready(Ok(()))
    }
}

fn tell_drained(node: Arc<Node>, session: SessionId) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move { node.tell(Event::Drained(session)).await })
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
    use crate::runtime;

    #[test]
    fn a_writer_keeps_little_of_a_connection() {
        type Run<F> = fn(Arc<Node>, SessionId, runtime::Socket, OutboxReader) -> F;
        fn size<F>(_: Run<F>) -> usize {
            size_of::<F>()
        }
        let size = size(run);
        assert!(size <= 152, "{size}");
    }

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
