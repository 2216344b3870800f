//! The reading half of a session: tungstenite turns bytes into messages, the protocol's codec turns
//! messages into commands, and these go into the dispatcher's inbox. When the inbox is full the
//! reader waits, and so does its client: that is the backpressure.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use async_tungstenite::tungstenite::{Error, Message};

use super::codec::Codec;
use super::throttled_reader::ThrottledReader;
use super::{Node, READ_BUFFER, Socket, linger};
use crate::dispatcher::outbox::Outbox;
use crate::dispatcher::{Event, Now};
use crate::model::id::SessionId;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::{Asked, CommandError, Incoming, Protocol, Reply, RequestId};

/// Reads to the end of the connection. The last thing it does, whatever happened, is to tell the
/// dispatcher.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, for as long as the connection lives"
)]
pub fn run<S: Socket>(
    node: Arc<Node>,
    session: SessionId,
    protocol: Protocol,
    socket: S,
    rest: Vec<u8>,
    outbox: Outbox,
) -> impl Future<Output = ()> + Send {
    async move {
        let reader = Reader {
            node: &node,
            session,
            protocol,
            outbox: &outbox,
        };
        let reading = reader.read(socket.clone(), rest);
        let read = node.guarded(reading).await;
        if let Some(why) = read.unwrap_or(Some(Disconnect::Internal)) {
            let farewell = Some(why);
            node.tell(Event::Closed { session, farewell }).await;
            // Its buffer is not to be a part of every reader.
            Box::pin(linger(socket, node.limits.close_timeout)).await;
        }
        let farewell = None;
        node.tell(Event::Closed { session, farewell }).await;
    }
}

pub(super) struct Reader<'a> {
    pub(super) node: &'a Node,
    session: SessionId,
    protocol: Protocol,
    pub(super) outbox: &'a Outbox,
}

/// What one look has brought: commands, and then perhaps the end.
#[derive(Default)]
struct Found {
    commands: Vec<Incoming>,
    /// The client closes (`None`) or must be disconnected.
    end: Option<Option<Disconnect>>,
}

impl Found {
    fn end(why: Option<Disconnect>) -> Self {
        Self {
            commands: Vec::new(),
            end: Some(why),
        }
    }
}

impl Reader<'_> {
    /// Reads until the client closes (`None`) or must be disconnected.
    fn read<S: Socket>(
        &self,
        socket: S,
        rest: Vec<u8>,
    ) -> impl Future<Output = Option<Disconnect>> {
        let mut tap = ThrottledReader::new(self, socket, &rest);
        let mut codec = Codec::new(rest, self.node.websocket_config());
        async move {
            let mut found = self.digest(&mut tap, &mut codec, &[]);
            loop {
                self.pass_on(found.commands).await;
                if let Some(end) = found.end {
                    return end;
                }
                found = poll_fn(|cx| self.look(cx, &mut tap, &mut codec)).await;
            }
        }
    }

    fn look<S: Socket>(
        &self,
        cx: &mut Context<'_>,
        tap: &mut ThrottledReader<'_, S>,
        codec: &mut Codec,
    ) -> Poll<Found> {
        // On the stack, during the look only: never in the task.
        let mut buffer = [0; READ_BUFFER];
        Poll::Ready(match ready!(tap.poll_read(cx, &mut buffer)) {
            Ok(read @ 1..) => self.digest(tap, codec, &buffer[..read]),
            Ok(0) | Err(_) => Found::end(tap.verdict()),
        })
    }

    /// Makes commands of what was read.
    fn digest<S: Socket>(
        &self,
        tap: &mut ThrottledReader<'_, S>,
        codec: &mut Codec,
        bytes: &[u8],
    ) -> Found {
        let mut found = Found::default();
        let mut controls = 0;
        let (answer, outcome) = codec.feed(bytes, self.node.websocket_config(), |message| {
            match message {
                Message::Text(text) => {
                    let depth = self.node.limits.depth;
                    self.protocol.decode(&text, depth, &mut found.commands);
                }
                Message::Binary(_) => return ControlFlow::Break(Disconnect::Binary),
                // Tungstenite writes the answer when it is asked for the next message.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => controls += 1,
                Message::Close(_) => {}
            }
            ControlFlow::Continue(())
        });
        if !answer.is_empty() {
            // What does not fit is for a client that reads too slowly; the dispatcher finds that
            // out by itself.
            self.outbox.offer(answer);
        }
        tap.charge(cost(&found.commands).saturating_add(controls));
        found.end = match outcome {
            Ok(None) => None,
            Ok(Some(why)) => Some(Some(why)),
            Err(error) => Some(tap.verdict().or(blame(&error))),
        };
        if !tap.is_under_way() {
            codec.rest();
        }
        found
    }

    async fn pass_on(&self, commands: Vec<Incoming>) {
        for Incoming { id, asked } in commands {
            match asked.and_then(|asked| self.event(id, asked)) {
                Ok(event) => self.node.tell(event).await,
                Err(error) => {
                    self.node.metrics.errors_total.count(error.code);
                    // What does not fit is for a client that reads too slowly; the dispatcher finds
                    // that out by itself.
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
}

/// What a message counts as against the rate of its session. One that is not understood counts too.
fn cost(commands: &[Incoming]) -> u32 {
    let cost = |incoming: &Incoming| incoming.asked.as_ref().map_or(1, Asked::cost);
    commands.iter().map(cost).sum()
}

/// Who is to blame for the end of the stream, and how the client is told. `None`: there is nobody
/// to tell.
pub(super) fn blame(error: &Error) -> Option<Disconnect> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(Disconnect::TooBig),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) | Error::Capacity(_) => Some(Disconnect::BadFrame),
        Error::Utf8(_) => Some(Disconnect::NotUtf8),
        _ => None,
    }
}
