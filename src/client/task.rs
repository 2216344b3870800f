//! The task of a client: connects, moves frames between the connection and the session, and waits
//! between attempts.

use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::{self, Message};
use futures::future::{Either, select};
use futures::{FutureExt, SinkExt, StreamExt, select_biased};

use super::backoff::Backoff;
use super::connection::{DialError, DialTarget, WebSocket};
use super::state::{ClientCall, ClientState, ConnectionEnd};
use super::{ClientError, ConnectionState};
use crate::protocol::native::receive::receive;
use crate::runtime;

/// How often the session checks what is due.
const TICK: Duration = Duration::from_millis(250);

/// A connection that lasts so long resets the waits.
const STEADY: Duration = Duration::from_secs(5);

/// How long the last frames of a client that ends may take.
const FLUSH: Duration = Duration::from_secs(2);

/// See the head of this file. It ends when all handles of the client are dropped.
pub(super) async fn run(
    mut session: ClientState,
    target: DialTarget,
    inputs: flume::Receiver<ClientCall>,
    states: flume::Sender<ConnectionState>,
) {
    let mut backoff = Backoff::default();
    loop {
        let end = match target.connect().await {
            Ok(mut socket) => {
                let start = Instant::now();
                let end = converse(&mut session, &mut socket, &inputs, &states).await;
                if start.elapsed() > STEADY {
                    backoff.reset();
                }
                end
            }
            Err(DialError::Retry(reason)) => Conversation::Ended(ConnectionEnd::Reconnect {
                reason,
                after: None,
            }),
            Err(DialError::Final(error)) => Conversation::Ended(ConnectionEnd::Final(error)),
        };
        let (reason, after) = match end {
            Conversation::Ended(ConnectionEnd::Reconnect { reason, after }) => (reason, after),
            Conversation::Closed(frame) => match last(frame) {
                Ok((code, reason)) => {
                    backoff.closed(code);
                    (reason, None)
                }
                Err(error) => return fail(&mut session, &error, &inputs).await,
            },
            Conversation::Ended(ConnectionEnd::Final(error)) => {
                return fail(&mut session, &error, &inputs).await;
            }
            Conversation::NoCallers => return,
        };
        session.lost(reason);
        report(&mut session, &states);
        let wait = after.unwrap_or_else(|| backoff.next(fastrand::f64()));
        if !pause(&mut session, &inputs, wait).await {
            return;
        }
    }
}

/// How a connection ended.
enum Conversation {
    Ended(ConnectionEnd),
    /// The server closed it, with or without a close frame.
    Closed(Option<CloseFrame>),
    /// No handle of the client is left.
    NoCallers,
}

/// The code and the reason with which a connection was closed.
///
/// # Errors
/// A code that does not invite back (docs/protocol.md, "Close codes").
fn last(frame: Option<CloseFrame>) -> Result<(u16, String), ClientError> {
    let Some(frame) = frame else {
        return Ok((1006, "the connection was lost".into()));
    };
    let (code, reason) = (u16::from(frame.code), frame.reason.as_str().to_owned());
    match code {
        1002 | 1003 | 1007..=1010 | 3500..=3999 | 4500..=4999 => {
            Err(ClientError::Closed { code, reason })
        }
        _ => Ok((code, reason)),
    }
}

/// Moves frames until the connection ends.
async fn converse(
    session: &mut ClientState,
    socket: &mut WebSocket,
    inputs: &flume::Receiver<ClientCall>,
    states: &flume::Sender<ConnectionState>,
) -> Conversation {
    session.connected(Instant::now());
    loop {
        report(session, states);
        if let Err(error) = flush(session, socket).await {
            return Conversation::Ended(ConnectionEnd::Reconnect {
                reason: error.to_string(),
                after: None,
            });
        }
        let result = select_biased! {
            frame = socket.next().fuse() => match frame {
                Some(Ok(Message::Close(frame))) => return Conversation::Closed(frame),
                Some(Ok(Message::Text(text))) => match receive(text.as_bytes()) {
                    Some(received) => session.frame(Instant::now(), received),
                    None => Ok(()),
                },
                Some(Ok(_)) => {
                    session.alive(Instant::now());
                    Ok(())
                }
                Some(Err(error)) => Err(ConnectionEnd::Reconnect {
                    reason: error.to_string(),
                    after: None,
                }),
                None => return Conversation::Closed(None),
            },
            input = inputs.recv_async().fuse() => match input {
                Ok(input) => {
                    session.input(Instant::now(), input);
                    Ok(())
                }
                Err(_) => {
                    let _ = runtime::timeout(FLUSH, socket.close(None)).await;
                    return Conversation::NoCallers;
                }
            },
            () = runtime::sleep(TICK).fuse() => session.tick(Instant::now()),
        };
        if let Err(end) = result {
            deliver(session).await;
            let _ = runtime::timeout(FLUSH, socket.close(None)).await;
            return Conversation::Ended(end);
        }
        deliver(session).await;
    }
}

async fn flush(session: &mut ClientState, socket: &mut WebSocket) -> tungstenite::Result<()> {
    while let Some(text) = session.next_frame() {
        socket.send(Message::text(text)).await?;
    }
    // Sends the answers to pings too.
    socket.flush().await
}

/// Hands out the events. A receiver that does not read stops the client, and so the server, which
/// closes the connection in the end; the client then recovers.
async fn deliver(session: &mut ClientState) {
    while let Some((events, room, event)) = session.next_event() {
        if events.send_async(event).await.is_err() {
            session.leave(&room);
        }
    }
}

/// A receiver that is full or gone misses states.
fn report(session: &mut ClientState, states: &flume::Sender<ConnectionState>) {
    while let Some(state) = session.next_state() {
        let _ = states.try_send(state);
    }
}

/// The server refuses the client for good: so fails what waits, and every later request.
async fn fail(
    session: &mut ClientState,
    error: &ClientError,
    inputs: &flume::Receiver<ClientCall>,
) {
    loop {
        session.fail(error);
        deliver(session).await;
        match inputs.recv_async().await {
            Ok(input) => session.input(Instant::now(), input),
            Err(_) => return,
        }
    }
}

/// Waits before the next attempt, and accepts requests meanwhile. `false` if no handle is left of
/// the client any more.
async fn pause(
    session: &mut ClientState,
    inputs: &flume::Receiver<ClientCall>,
    time: Duration,
) -> bool {
    let until = Instant::now() + time;
    loop {
        let now = Instant::now();
        let Some(left) = until.checked_duration_since(now) else {
            return true;
        };
        // Without a connection a tick only gives up what has waited too long.
        let _ = session.tick(now);
        let input = inputs.recv_async();
        match select(input, Box::pin(runtime::sleep(left.min(TICK)))).await {
            Either::Left((Ok(input), _)) => session.input(now, input),
            Either::Left((Err(_), _)) => return false,
            Either::Right(_) => {}
        }
    }
}
