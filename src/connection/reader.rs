//! The reading half of a session: tungstenite turns bytes into messages, the protocol's codec turns messages into commands, and
//! these go into the dispatcher's inbox. When the inbox is full the reader waits, and so does its client: that is
//! the backpressure.

use std::sync::Arc;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use async_tungstenite::tungstenite::protocol::Role;
use async_tungstenite::tungstenite::{Error, Message};
use futures::{SinkExt, StreamExt};

use super::tap::Tap;
use super::{Node, Socket, linger};
use crate::disconnect::Disconnect;
use crate::dispatcher::{Event, Now};
use crate::id::SessionId;
use crate::protocol::{Asked, CommandError, Incoming, Protocol, Reply, RequestId};
use crate::session::Outbox;

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

pub(super) struct Reader<'a> {
    pub(super) node: &'a Node,
    session: SessionId,
    protocol: Protocol,
    pub(super) outbox: &'a Outbox,
}

impl Reader<'_> {
    /// Reads until the client closes (`None`) or must be disconnected.
    async fn read<S: Socket>(&self, socket: S, rest: Vec<u8>) -> Option<Disconnect> {
        let tap = Tap::new(self, socket, &rest);
        let config = Some(self.node.websocket_config());
        let mut stream =
            WebSocketStream::from_partially_read(tap, rest, Role::Server, config).await;
        let mut commands = Vec::new();
        while let Some(message) = stream.next().await {
            match message {
                Ok(Message::Text(text)) => {
                    let depth = self.node.limits.depth;
                    self.protocol.decode(&text, depth, &mut commands);
                    stream.get_mut().charge(cost(&commands));
                    self.pass_on(&mut commands).await;
                }
                Ok(Message::Binary(_)) => return Some(Disconnect::Binary),
                // Tungstenite writes the pong when it is asked for the next message.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {
                    stream.get_mut().charge(1);
                }
                Ok(Message::Close(_)) => {
                    // Only a flush makes tungstenite answer. Its error would be that the connection ends, which is known.
                    let _ = stream.flush().await;
                    stream.get_mut().answer();
                }
                Err(error) => return stream.get_ref().verdict().or(blame(&error)),
            }
        }
        None
    }

    async fn pass_on(&self, commands: &mut Vec<Incoming>) {
        for Incoming { id, asked } in commands.drain(..) {
            match asked.and_then(|asked| self.event(id, asked)) {
                Ok(event) => self.tell(event).await,
                Err(error) => {
                    self.node.metrics.errors_total.count(error.code);
                    // What does not fit is for a client that reads too slowly; the dispatcher finds that out by itself.
                    let reply = self.protocol.reply(id, &Reply::Error(&error));
                    self.outbox.offer(reply);
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

    async fn tell(&self, event: Event) {
        // Without a dispatcher the process is ending.
        let _ = self.node.inbox.send_async(event).await;
    }
}

/// What a message counts as against the rate of its session. One that is not understood counts too.
fn cost(commands: &[Incoming]) -> u32 {
    let cost = |incoming: &Incoming| incoming.asked.as_ref().map_or(1, Asked::cost);
    commands.iter().map(cost).sum()
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
