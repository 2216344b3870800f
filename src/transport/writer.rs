//! The writing half of a session: drains the outbox into the socket, many buffers to one vectored
//! write.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::AsyncWriteExt;

use super::{Node, SharedSocket};
use crate::dispatcher::Event;
use crate::model::id::SessionId;
use crate::outbox::{BATCH, Batch, Next, OutboxReader};

/// Writes until the outbox ends, with or without last bytes.
pub(super) fn run<S: SharedSocket>(
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
        notifying: None,
        ended: false,
    };
    async move {
        match node.guarded(poll_fn(|cx| writer.poll(cx, &node))).await {
            // Everything is written, and the client receives the end of the stream behind it. For a
            // WebSocket, the server closes first (RFC 6455 section 7.1.1), and the reader goes on
            // to read the client's own close.
            Some(Ok(())) => {
                let _ = writer.socket.close().await;
            }
            Some(Err(_)) | None => writer.outbox.hang_up(),
        }
    }
}

/// One small structure that is polled by hand, instead of nested `async fn`s: every delivery passes
/// here, and the kernel's work on the previous one has evicted it from the caches. Measured:
/// a fifth of the delivery's time outside of the kernel, and 280 bytes of each connection
/// (bench/README.md, flood).
struct Writer<S> {
    session: SessionId,
    socket: S,
    outbox: OutboxReader,
    batch: Batch,
    /// Chunks of the batch that are written.
    done: u16,
    /// Sends [`Event::Drained`] to the dispatcher.
    notifying: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Whether this is the last batch.
    ended: bool,
}

impl<S: SharedSocket> Writer<S> {
    fn poll(&mut self, cx: &mut Context<'_>, node: &Arc<Node>) -> Poll<io::Result<()>> {
        loop {
            while usize::from(self.done) < self.batch.chunks.len() {
                ready!(self.poll_write(cx))?;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if let Some(notifying) = &mut self.notifying {
                ready!(notifying.as_mut().poll(cx));
                self.notifying = None;
            }
            let next = ready!(self.outbox.poll_next(cx, &mut self.batch));
            self.done = 0;
            match next {
                Next::Write => {}
                Next::NotifyDrained => {
                    self.notifying = Some(send_drained(node.clone(), self.session))
                }
                Next::End(last) => {
                    self.batch.chunks.push(last);
                    self.ended = true;
                }
                Next::Gone => self.ended = true,
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let rest = &mut self.batch.chunks[usize::from(self.done)..];
        let written = if let [only] = rest {
            // The usual case under low load; a plain `send` costs the kernel less than a
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

fn send_drained(node: Arc<Node>, session: SessionId) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move { node.send(Event::Drained(session)).await })
}

/// Advances by the bytes written. Returns the number of buffers that are done.
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
    fn writer_takes_little_memory_per_connection() {
        type Run<F> = fn(Arc<Node>, SessionId, runtime::Socket, OutboxReader) -> F;
        fn size<F>(_: Run<F>) -> usize {
            size_of::<F>()
        }
        let size = size(run);
        assert!(size <= 152, "{size}");
    }

    #[test]
    fn partial_write_continues_in_the_middle_of_a_buffer() {
        let mut batch = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"de")];
        assert_eq!(advance(&mut batch, 2), 0);
        assert_eq!(batch[0], "c");
        assert_eq!(advance(&mut batch, 2), 1);
        assert_eq!(batch[1], "e");
        assert_eq!(advance(&mut batch[1..], 1), 1);
    }
}
