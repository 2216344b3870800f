//! The writing half of a session: drains the outbox into the socket, many buffers to one vectored write.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::AsyncWriteExt;

use super::{Node, Socket};
use crate::dispatcher::Event;
use crate::id::SessionId;
use crate::session::{BATCH, Batch, Next, OutboxReader};

/// Writes to the end of the outbox: a close frame, or nothing any more.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, for as long as the connection lives"
)]
pub fn run<S: Socket>(
    node: Arc<Node>,
    session: SessionId,
    mut socket: S,
    outbox: OutboxReader,
) -> impl Future<Output = ()> + Send {
    async move {
        let writing = drain(&node, session, &mut socket, &outbox);
        match node.guarded(writing).await {
            // Everything is said, and the client hears the end behind the last frame: it is the server that closes first (RFC
            // 6455 section 7.1.1). The reader goes on for the client's own close.
            Some(Ok(())) => {
                let _ = socket.close().await;
            }
            Some(Err(_)) | None => outbox.hang_up(),
        }
    }
}

async fn drain<S: Socket>(
    node: &Node,
    session: SessionId,
    socket: &mut S,
    outbox: &OutboxReader,
) -> io::Result<()> {
    let mut batch = Batch::default();
    loop {
        match outbox.next(&mut batch).await {
            Next::Write => write_all(socket, &mut batch.chunks).await?,
            Next::TellDrained => node.tell(Event::Drained(session)).await,
            Next::End(farewell) => return write_all(socket, &mut [farewell]).await,
            Next::Gone => return Ok(()),
        }
    }
}

async fn write_all<S: Socket>(socket: &mut S, batch: &mut [Bytes]) -> io::Result<()> {
    let mut done = 0;
    while done < batch.len() {
        let written = poll_fn(|cx| {
            let rest = &batch[done..];
            // The usual case when little is said; a plain `send` costs the kernel less than a vectored write.
            if let [only] = rest {
                return Pin::new(&mut *socket).poll_write(cx, only);
            }
            // On the stack, during the call only: never in the task.
            let mut slices = [IoSlice::new(&[]); BATCH];
            for (slice, frames) in slices.iter_mut().zip(rest) {
                *slice = IoSlice::new(frames);
            }
            Pin::new(&mut *socket).poll_write_vectored(cx, &slices[..rest.len().min(BATCH)])
        })
        .await?;
        if written == 0 && batch[done..].iter().any(|frames| !frames.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        done += advance(&mut batch[done..], written);
    }
    Ok(())
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
