//! How frames get from an outbox to a socket that makes difficulties: one that takes a few bytes at a time, one that makes its writer wait,
//! one whose writing panics. The order of the bytes and the fate of the others is what counts.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};
use switchboard::connection::{Counted, Entrance, Node, Socket, serve};
use switchboard::disconnect::Disconnect;
use switchboard::dispatcher::Event;
use switchboard::id::SessionId;
use switchboard::protocol::frame;
use switchboard::session::{Offer, Outbox};

use crate::support::bare_node::node_of;
use crate::support::frames::upgrade;
use crate::support::{eventually, run, within};

/// Bytes that a balky socket takes at once.
const MOUTHFUL: usize = 7;

/// What writing to a [`Balky`] socket meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Temper {
    /// It takes everything.
    Easy,
    /// It takes a mouthful, and makes its writer wait before each.
    Waits,
    Panics,
}

struct Inside {
    temper: Temper,
    asked: bool,
    waited: bool,
    written: Vec<u8>,
    waits: usize,
    ended: bool,
}

/// A socket in memory that asks to upgrade and then says nothing, until it is shut down.
#[derive(Clone)]
struct Balky(Arc<Mutex<Inside>>);

impl Balky {
    fn new(temper: Temper) -> Self {
        Self(Arc::new(Mutex::new(Inside {
            temper,
            asked: false,
            waited: false,
            written: Vec::new(),
            waits: 0,
            ended: false,
        })))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Balky {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut inside = self.inside();
        if !inside.asked {
            inside.asked = true;
            return Poll::Ready(upgrade("/ws", "").as_bytes().read(buffer));
        }
        match inside.ended {
            true => Poll::Ready(Ok(0)),
            false => Poll::Pending,
        }
    }
}

impl AsyncWrite for Balky {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inside = self.inside();
        let temper = inside.temper;
        let taken = match temper {
            Temper::Easy => bytes.len(),
            Temper::Waits if !std::mem::replace(&mut inside.waited, true) => {
                inside.waits += 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Temper::Waits => {
                inside.waited = false;
                bytes.len().min(MOUTHFUL)
            }
            Temper::Panics => {
                drop(inside);
                panic!("writing panics, as the test wants")
            }
        };
        inside.written.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inside().ended = true;
        Poll::Ready(Ok(()))
    }
}

impl Socket for Balky {
    fn shutdown(&self) {
        self.inside().ended = true;
    }
}

/// Lets a socket become a session.
async fn open(node: &Arc<Node>, events: &flume::Receiver<Event>, socket: &Balky) -> Outbox {
    let counted = Counted::new(node.metrics.clone());
    let peer = ([127, 0, 0, 1], 1).into();
    serve(
        node.clone(),
        socket.clone(),
        peer,
        Entrance::Public,
        counted,
    )
    .await;
    match within("an event", events.recv_async()).await {
        Ok(Event::Opened { outbox, .. }) => outbox,
        other => panic!("{other:?}"),
    }
}

/// So many frames that a batch does not hold them, of several lengths.
fn frames() -> Vec<Bytes> {
    (0..200)
        .map(|number: usize| Bytes::from(vec![b'a' + (number % 26) as u8; number % 11]))
        .collect()
}

#[test]
fn a_socket_that_takes_a_mouthful_at_a_time_gets_everything_in_order_and_then_the_end() {
    run(async {
        let (inbox, events) = flume::unbounded();
        let node = node_of(inbox);
        for temper in [Temper::Easy, Temper::Waits] {
            let socket = Balky::new(temper);
            let outbox = open(&node, &events, &socket).await;
            let mut expected = Vec::new();
            for (number, frames) in frames().into_iter().enumerate() {
                // Sixteen may wait; sometimes nothing does, so that a writer begins anew.
                let few = if number % 40 == 0 { 0 } else { 30 };
                eventually("there is room", || outbox.waiting() <= few).await;
                expected.extend_from_slice(&frames);
                assert_eq!(outbox.offer(frames), Offer::Queued);
            }
            outbox.end(Disconnect::Draining);
            expected.extend_from_slice(&frame::close(Disconnect::Draining));
            eventually("the end is written", || socket.inside().ended).await;
            let inside = socket.inside();
            let head = inside.written.windows(4).position(|end| end == b"\r\n\r\n");
            let said = &inside.written[head.expect("the upgrade") + 4..];
            assert!(said == expected, "{temper:?}: {said:?}");
            assert_eq!(inside.waits > 0, temper == Temper::Waits);
        }
    });
}

#[test]
fn the_dispatcher_hears_that_an_outbox_has_drained_though_its_inbox_was_full() {
    run(async {
        let (inbox, events) = flume::bounded(1);
        let node = node_of(inbox.clone());
        let socket = Balky::new(Temper::Easy);
        let outbox = open(&node, &events, &socket).await;
        eventually("the upgrade is written", || outbox.waiting() == 0).await;
        inbox.send(Event::Tick).expect("it has room for one");
        outbox.want_drained();
        outbox.offer(Bytes::from_static(b"page"));
        eventually("it is written", || outbox.waiting() == 0).await;
        let next = async || within("an event", events.recv_async()).await.expect("one");
        assert!(matches!(next().await, Event::Tick));
        let heard = next().await;
        assert!(matches!(heard, Event::Drained(SessionId(1))), "{heard:?}");
    });
}

#[test]
fn a_panic_while_writing_ends_that_connection_alone() {
    run(async {
        let (inbox, events) = flume::unbounded();
        let node = node_of(inbox);
        let (good, bad) = (Balky::new(Temper::Easy), Balky::new(Temper::Easy));
        let outbox = open(&node, &events, &good).await;
        let doomed = open(&node, &events, &bad).await;
        for outbox in [&outbox, &doomed] {
            eventually("the upgrade is written", || outbox.waiting() == 0).await;
        }
        bad.inside().temper = Temper::Panics;
        // More than there are couriers.
        for round in 1..=20 {
            doomed.offer(Bytes::from_static(b"doomed"));
            eventually("it has ended", || bad.inside().ended).await;
            outbox.offer(Bytes::from_static(b"good"));
            eventually("the others hear", || {
                good.inside().written.ends_with(b"good") && outbox.waiting() == 0
            })
            .await;
            assert_eq!(node.metrics.panics_total.get(), 1, "in round {round}");
        }
    });
}
