//! The reading half of a session: tungstenite decodes bytes into messages, the protocol's codec
//! decodes messages into commands, and these are sent to the dispatcher's inbox. When the inbox is
//! full the reader waits, and TCP flow control slows down its client: that is the backpressure.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use async_tungstenite::tungstenite::{Error, Message};

use super::codec::Codec;
use super::throttled_reader::{ReadContext, ThrottledReader};
use super::{Node, READ_BUFFER, Socket, linger};
use crate::dispatcher::outbox::Outbox;
use crate::dispatcher::{Event, Now, ReplyTo};
use crate::model::id::SessionId;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::{ClientRequest, CommandError, Decoded, Protocol, Reply, RequestId};

/// Reads to the end of the connection. At the end it always sends [`Event::Closed`] to the
/// dispatcher.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` stores its arguments twice, for as long as the connection lives"
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
            context: ReadContext {
                node: &node,
                outbox: &outbox,
            },
            session,
            protocol,
        };
        let reading = reader.read(socket.clone(), rest);
        let read = node.guarded(reading).await;
        if let Some(why) = read.unwrap_or(Some(Disconnect::Internal)) {
            let close_reason = Some(why);
            node.send(Event::Closed {
                session,
                close_reason,
            })
            .await;
            // Boxed so that its buffer is not part of every reader.
            Box::pin(linger(socket, node.limits.close_timeout)).await;
        }
        let close_reason = None;
        node.send(Event::Closed {
            session,
            close_reason,
        })
        .await;
    }
}

struct Reader<'a> {
    context: ReadContext<'a>,
    session: SessionId,
    protocol: Protocol,
}

/// The result of one read: commands, and then perhaps the end of the connection.
#[derive(Default)]
struct ReadOutcome {
    commands: Vec<Decoded>,
    /// The client closed (`None`) or must be disconnected.
    end: Option<Option<Disconnect>>,
}

impl ReadOutcome {
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
        let mut stream = ThrottledReader::new(&self.context, socket, &rest);
        let mut codec = Codec::new(rest, self.context.node.websocket_config());
        async move {
            let mut outcome = self.decode(&mut stream, &mut codec, &[]);
            loop {
                self.forward(outcome.commands).await;
                if let Some(end) = outcome.end {
                    return end;
                }
                outcome = poll_fn(|cx| self.poll_read(cx, &mut stream, &mut codec)).await;
            }
        }
    }

    fn poll_read<S: Socket>(
        &self,
        cx: &mut Context<'_>,
        stream: &mut ThrottledReader<'_, S>,
        codec: &mut Codec,
    ) -> Poll<ReadOutcome> {
        // On the stack, during the poll only: never in the task.
        let mut buffer = [0; READ_BUFFER];
        Poll::Ready(match ready!(stream.poll_read(cx, &mut buffer)) {
            Ok(read @ 1..) => self.decode(stream, codec, &buffer[..read]),
            Ok(0) | Err(_) => ReadOutcome::end(stream.verdict()),
        })
    }

    /// Decodes the bytes read into commands.
    fn decode<S: Socket>(
        &self,
        stream: &mut ThrottledReader<'_, S>,
        codec: &mut Codec,
        bytes: &[u8],
    ) -> ReadOutcome {
        let mut outcome = ReadOutcome::default();
        let mut controls = 0;
        let (answer, result) = codec.feed(bytes, self.context.node.websocket_config(), |message| {
            match message {
                Message::Text(text) => {
                    let depth = self.context.node.limits.depth;
                    self.protocol.decode(&text, depth, &mut outcome.commands);
                }
                Message::Binary(_) => return ControlFlow::Break(Disconnect::Binary),
                // Tungstenite writes the answer when it is asked for the next message.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => controls += 1,
                Message::Close(_) => {}
            }
            ControlFlow::Continue(())
        });
        if !answer.is_empty() {
            // If it does not fit, the client reads too slowly, which the dispatcher detects by
            // itself.
            self.context.outbox.offer(answer);
        }
        stream.charge(cost(&outcome.commands).saturating_add(controls));
        outcome.end = match result {
            Ok(None) => None,
            Ok(Some(why)) => Some(Some(why)),
            Err(error) => Some(stream.verdict().or(close_reason(&error))),
        };
        if !stream.is_under_way() {
            codec.rest();
        }
        outcome
    }

    async fn forward(&self, commands: Vec<Decoded>) {
        for Decoded { id, request } in commands {
            match request.and_then(|request| self.event(id, request)) {
                Ok(event) => self.context.node.send(event).await,
                Err(error) => {
                    self.context.node.metrics.errors_total.count(error.code);
                    // As above: the dispatcher detects a slow reader by itself.
                    let reply = self.protocol.encoder().reply(id, &Reply::Error(&error));
                    self.context.outbox.offer(reply);
                }
            }
        }
    }

    /// Verifies credentials here, because the dispatcher has no time for signatures.
    fn event(&self, id: Option<RequestId>, request: ClientRequest) -> Result<Event, CommandError> {
        let session = self.session;
        Ok(match request {
            ClientRequest::Command(command) => Event::Command {
                reply_to: ReplyTo::Session { session, id },
                command,
            },
            ClientRequest::Auth(credentials) => {
                let identity = self
                    .context
                    .node
                    .auth
                    .identify(&credentials, Now::read().unix_ms)?;
                Event::Identified {
                    session,
                    id,
                    identity: Arc::new(identity),
                }
            }
        })
    }
}

/// The cost of a message against the rate of its session. An invalid one counts too.
fn cost(commands: &[Decoded]) -> u32 {
    let cost = |decoded: &Decoded| decoded.request.as_ref().map_or(1, ClientRequest::cost);
    commands.iter().map(cost).sum()
}

/// The close code for an error of the stream. `None` if the connection is lost, so that no close
/// frame can be sent.
pub(super) fn close_reason(error: &Error) -> Option<Disconnect> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(Disconnect::TooBig),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) | Error::Capacity(_) => Some(Disconnect::BadFrame),
        Error::Utf8(_) => Some(Disconnect::NotUtf8),
        _ => None,
    }
}
