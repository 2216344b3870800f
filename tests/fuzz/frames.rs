//! Frames, as a connection sees them from its handshake to its end: over a socket in memory, to the
//! native protocol's path and to the echo path. The result does not depend on how the bytes are
//! cut, and the output is bounded by the input.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncWrite};
use switchboard::dispatcher::Event;
use switchboard::runtime;
use switchboard::transport::{Counted, ListenerKind, SharedSocket, serve};

use crate::bare_node::node_of;

/// The first byte selects the path, the second the size of the pieces.
pub fn any_frames_in_any_pieces(input: &[u8]) {
    let [path, piece, frames @ ..] = input else {
        return;
    };
    let path = if path % 2 == 0 { "/ws" } else { "/echo" };
    let whole = outcome(path, frames, usize::MAX);
    let cut = outcome(path, frames, usize::from(*piece).max(1));
    assert_eq!(whole.0, cut.0, "{path}");
    // A pong is as long as its ping, an error a sentence, and an echo has a shorter header than
    // what it answers.
    let bound = 512 + 600 * frames.len();
    assert!(whole.1 <= bound && cut.1 <= bound, "{whole:?} {cut:?}");
}

/// Returns the events that the dispatcher receives, and the number of bytes sent to the client.
fn outcome(path: &str, frames: &[u8], piece: usize) -> (Vec<String>, usize) {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let wire = Wire(Arc::new(Mutex::new(Ends {
        to_come: [head.as_bytes(), frames].concat(),
        read: 0,
        piece,
        written: 0,
    })));
    let socket = wire.clone();
    let events_seen = runtime::block_on(async move {
        let end = runtime::timeout(Duration::from_secs(20), connection(wire));
        end.await.expect("the connection ends with its bytes")
    });
    (events_seen, socket.ends().written)
}

async fn connection(wire: Wire) -> Vec<String> {
    let (inbox, events) = flume::unbounded();
    let mut node = node_of(inbox);
    let limits = &mut Arc::get_mut(&mut node).expect("a node of its own").limits;
    // How long an ended connection is still read does not depend on its frames.
    limits.close_timeout = Duration::from_millis(1);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let counted = Counted::new(node.metrics.clone());
    serve(node.clone(), wire, peer, ListenerKind::Public, counted).await;
    // After this only the reader holds a sender.
    let metrics = node.metrics.clone();
    drop(node);
    let mut events_seen = Vec::new();
    let mut outboxes = Vec::new();
    while let Ok(event) = events.recv_async().await {
        match event {
            Event::Opened {
                protocol, outbox, ..
            } => outboxes.push((protocol, outbox)),
            Event::Closed {
                close_reason: Some(why),
                ..
            } => {
                events_seen.push(format!("{why:?}"));
                for (protocol, outbox) in &outboxes {
                    outbox.end(protocol.encoder().close(why), why.discards_outbox());
                }
            }
            Event::Closed {
                close_reason: None, ..
            } => {
                events_seen.push("closed".into());
                outboxes.clear();
            }
            Event::Command { reply_to, command } => {
                events_seen.push(format!("{reply_to:?} {command:?}"));
            }
            _ => events_seen.push("another event".into()),
        }
    }
    assert_eq!(metrics.panics_total.get(), 0, "{events_seen:?}");
    events_seen
}

struct Ends {
    to_come: Vec<u8>,
    read: usize,
    /// The most bytes that one read returns.
    piece: usize,
    written: usize,
}

#[derive(Clone)]
struct Wire(Arc<Mutex<Ends>>);

impl Wire {
    fn ends(&self) -> std::sync::MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut ends = self.ends();
        let left = &ends.to_come[ends.read..];
        let count = left.len().min(buffer.len()).min(ends.piece);
        buffer[..count].copy_from_slice(&left[..count]);
        ends.read += count;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.ends().written += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl SharedSocket for Wire {
    fn shutdown(&self) {}
}
