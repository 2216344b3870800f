//! The writer of a session on a socket that accepts a few bytes at a time: frames are written once
//! and in order, the dispatcher is notified when the outbox is drained, and the close frame is
//! last.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};
use switchboard::dispatcher::Event;
use switchboard::outbox::Offer;
use switchboard::protocol::disconnect::Disconnect;
use switchboard::transport::{Counted, ListenerKind, SharedSocket, serve};

use crate::support::bare_node::node_of;
use crate::support::frames::upgrade;
use crate::support::{eventually, run, within};

/// The bytes that the socket accepts per write.
const SIP: usize = 7;

/// An in-memory socket that sends an upgrade and nothing else. Every other time it is not ready to
/// be written.
#[derive(Clone, Default)]
struct Trickle(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    asked: bool,
    ready: bool,
    taken: Vec<u8>,
    closed: bool,
}

impl Trickle {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().expect("no holder panics")
    }
}

impl AsyncRead for Trickle {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if std::mem::replace(&mut self.ends().asked, true) {
            return Poll::Pending;
        }
        let head = upgrade("/ws", "");
        buffer[..head.len()].copy_from_slice(head.as_bytes());
        Poll::Ready(Ok(head.len()))
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        chunks: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut ends = self.ends();
        ends.ready = !ends.ready;
        if !ends.ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = ends.taken.len();
        let sip = chunks.iter().flat_map(|chunk| chunk.iter()).take(SIP);
        ends.taken.extend(sip);
        Poll::Ready(Ok(ends.taken.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ends().closed = true;
        Poll::Ready(Ok(()))
    }
}

impl SharedSocket for Trickle {
    fn shutdown(&self) {}
}

#[test]
fn socket_that_accepts_few_bytes_receives_everything_once_in_order() {
    run(async {
        let (inbox, events) = flume::unbounded();
        let next = async || within("an event", events.recv_async()).await.expect("one");
        let node = node_of(inbox);
        let counted = Counted::new(node.metrics.clone());
        let (socket, peer) = (Trickle::default(), ([127, 0, 0, 1], 1).into());
        serve(node, socket.clone(), peer, ListenerKind::Public, counted).await;
        let Event::Opened {
            session,
            protocol,
            outbox,
            ..
        } = next().await
        else {
            panic!("the session is not opened")
        };

        let mut offered = Vec::new();
        for round in 0..3 {
            outbox.want_drained();
            for size in [1, 40, SIP, 0, 3, 2 * SIP, 90] {
                let chunk: Vec<u8> = (0..size).map(|at| (round * 100 + at) as u8).collect();
                offered.extend_from_slice(&chunk);
                assert_eq!(outbox.offer(Bytes::from(chunk)), Offer::Queued);
            }
            let event = next().await;
            assert!(
                matches!(event, Event::Drained(who) if who == session),
                "{event:?}"
            );
        }
        let close = protocol.encoder().close(Disconnect::Draining);
        offered.extend_from_slice(&close);
        outbox.end(close, false);
        eventually("the close", || socket.ends().closed).await;

        let taken = socket.ends().taken.clone();
        let head = taken.windows(4).position(|end| end == b"\r\n\r\n");
        assert_eq!(taken[head.expect("an answer") + 4..], offered);
    });
}
