//! The reading half of a session: tungstenite turns bytes into messages, the protocol's codec turns messages into commands, and
//! these go into the dispatcher's inbox. When the inbox is full the reader waits, and so does its client: that is
//! the backpressure.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use async_tungstenite::tungstenite::protocol::Role;
use async_tungstenite::tungstenite::{Error, Message};
use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};
use futures::{SinkExt, StreamExt};

use super::{Node, Socket, linger};
use crate::disconnect::Disconnect;
use crate::dispatcher::{Event, Now};
use crate::id::SessionId;
use crate::protocol::{Asked, CommandError, Incoming, Protocol, Reply, RequestId};
use crate::session::{Offer, Outbox};

/// Reads to the end of the connection. The last thing it does, whatever happened, is to tell the dispatcher.
pub async fn run<S: Socket>(
    node: Arc<Node>,
    session: SessionId,
    protocol: Protocol,
    socket: S,
    rest: Vec<u8>,
    outbox: Outbox,
) {
    let time = node.limits.close_timeout;
    let reader = Reader {
        node: &node,
        session,
        protocol,
        outbox: &outbox,
    };
    let reading = reader.read(socket.clone(), rest);
    if let Some(why) = node
        .guarded(reading)
        .await
        .unwrap_or(Some(Disconnect::Internal))
    {
        reader
            .tell(Event::Closed {
                session,
                farewell: Some(why),
            })
            .await;
        linger(socket, time).await;
    }
    reader
        .tell(Event::Closed {
            session,
            farewell: None,
        })
        .await;
}

struct Reader<'a> {
    node: &'a Node,
    session: SessionId,
    protocol: Protocol,
    outbox: &'a Outbox,
}

impl Reader<'_> {
    /// Reads until the client closes (`None`) or must be disconnected.
    async fn read<S: Socket>(&self, socket: S, rest: Vec<u8>) -> Option<Disconnect> {
        let tap = Tap {
            socket,
            written: Vec::new(),
            outbox: self.outbox,
        };
        let config = Some(self.node.websocket_config());
        let mut stream =
            WebSocketStream::from_partially_read(tap, rest, Role::Server, config).await;
        let mut commands = Vec::new();
        while let Some(message) = stream.next().await {
            match message {
                Ok(Message::Text(text)) => {
                    self.protocol.decode(&text, &mut commands);
                    self.pass_on(&mut commands).await;
                }
                Ok(Message::Binary(_)) => return Some(Disconnect::Binary),
                // Only a flush makes tungstenite answer.
                Ok(Message::Ping(_)) | Ok(Message::Close(_)) => {
                    let answered = stream.flush().await;
                    self.offer(std::mem::take(&mut stream.get_mut().written));
                    if answered.is_err() {
                        return None;
                    }
                }
                Ok(Message::Pong(_)) | Ok(Message::Frame(_)) => {}
                Err(error) => return blame(&error),
            }
        }
        None
    }

    async fn pass_on(&self, commands: &mut Vec<Incoming>) {
        for Incoming { id, asked } in commands.drain(..) {
            match asked.and_then(|asked| self.event(id, asked)) {
                Ok(event) => self.tell(event).await,
                Err(error) => {
                    let reply = self.protocol.reply(id, &Reply::Error(&error));
                    self.offer(reply);
                }
            }
        }
    }

    /// Who a client is, is found out here: the dispatcher has no time for signatures.
    fn event(&self, id: Option<RequestId>, asked: Asked) -> Result<Event, CommandError> {
        let session = self.session;
        Ok(match asked {
            Asked::Command(command) => Event::Command {
                session,
                id,
                command,
            },
            Asked::Auth(credentials) => {
                let identity = self.node.auth.identify(&credentials, Now::read().unix_ms)?;
                Event::Identified {
                    session,
                    id,
                    identity: Arc::new(identity),
                }
            }
        })
    }

    /// What does not fit is for a client that reads too slowly; the dispatcher finds that out by itself.
    fn offer(&self, frames: impl Into<Bytes>) -> Offer {
        self.outbox.offer(frames.into())
    }

    async fn tell(&self, event: Event) {
        // Without a dispatcher the process is ending.
        let _ = self.node.inbox.send_async(event).await;
    }
}

/// Who is to blame for the end of the stream, and how the client is told. `None`: there is nobody to tell.
pub(super) fn blame(error: &Error) -> Option<Disconnect> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(Disconnect::TooBig),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) | Error::Capacity(_) => Some(Disconnect::BadFrame),
        Error::Utf8(_) => Some(Disconnect::NotUtf8),
        _ => None,
    }
}

/// The socket as tungstenite sees it: what it reads is read, what it writes (pongs, the answer to a close) is kept, to go
/// through the outbox like everything else.
struct Tap<'a, S> {
    socket: S,
    written: Vec<u8>,
    /// Told of every byte: a long message may take longer than a ping.
    outbox: &'a Outbox,
}

impl<S: Socket> AsyncRead for Tap<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if let Poll::Ready(Ok(1..)) = read {
            self.outbox.note_heard();
        }
        read
    }
}

impl<S: Socket> AsyncWrite for Tap<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
