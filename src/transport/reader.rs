//! The reading half of a session: tungstenite decodes bytes into messages, the protocol's decoder
//! decodes messages into requests, and these are sent to the dispatcher's inbox. When the inbox is
//! full the reader waits, and TCP flow control slows down its client: that is the backpressure.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use async_tungstenite::tungstenite::{Error, Message};
use futures::FutureExt;
use futures::future::OptionFuture;

use super::codec::Codec;
use super::throttled_reader::{ReadContext, ThrottledReader};
use super::{Node, READ_BUFFER, SharedSocket, linger};
use crate::dispatcher::{Event, Now, ReplyTo};
use crate::model::id::SessionId;
use crate::outbox::Outbox;
use crate::protocol::decoder::{Decoded, DecodedRequest, Decoder, FramePayload};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::{ClientRequest, Code, Command, CommandError, Reply, RequestId};
use crate::runtime;
use crate::transport::limits::{Charge, Quota};

/// Reads to the end of the connection. At the end it always sends [`Event::Closed`] to the
/// dispatcher.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` stores its arguments twice, for as long as the connection lives"
)]
pub(super) fn run<S: SharedSocket, D: Decoder>(
    node: Arc<Node>,
    session: SessionId,
    decoder: D,
    socket: S,
    rest: Vec<u8>,
    outbox: Outbox,
    quota: Arc<Quota>,
) -> impl Future<Output = ()> + Send {
    async move {
        let reader = Reader {
            context: ReadContext {
                node: &node,
                outbox: &outbox,
                quota: &quota,
            },
            session,
        };
        let reading = reader.read(decoder, socket.clone(), rest);
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
}

/// The way of the bytes from the socket to requests.
struct Input<'a, S, D> {
    stream: ThrottledReader<'a, S>,
    codec: Codec,
    decoder: D,
}

/// The result of one read: requests, and then perhaps the end of the connection.
#[derive(Default)]
struct ReadOutcome {
    requests: Vec<DecodedRequest>,
    /// The client closed (`None`) or must be disconnected.
    end: Option<Option<Disconnect>>,
}

impl ReadOutcome {
    fn end(why: Option<Disconnect>) -> Self {
        Self {
            requests: Vec::new(),
            end: Some(why),
        }
    }
}

impl Reader<'_> {
    /// Reads until the client closes (`None`) or must be disconnected.
    fn read<S: SharedSocket, D: Decoder>(
        &self,
        decoder: D,
        socket: S,
        rest: Vec<u8>,
    ) -> impl Future<Output = Option<Disconnect>> {
        let mut input = Input {
            stream: ThrottledReader::new(&self.context, socket, &rest),
            codec: Codec::new(rest, self.context.node.websocket_config()),
            decoder,
        };
        async move {
            // What came with the head waits too, while the user or address is in debt.
            poll_fn(|cx| input.stream.poll_allowed(cx)).await;
            let mut outcome = self.decode(&mut input, &[]);
            loop {
                self.forward::<D>(outcome.requests).await;
                if let Some(end) = outcome.end {
                    return end;
                }
                outcome = poll_fn(|cx| self.poll_read(cx, &mut input)).await;
            }
        }
    }

    fn poll_read<S: SharedSocket, D: Decoder>(
        &self,
        cx: &mut Context<'_>,
        input: &mut Input<'_, S, D>,
    ) -> Poll<ReadOutcome> {
        // On the stack, during the poll only: never in the task.
        let mut buffer = [0; READ_BUFFER];
        Poll::Ready(match ready!(input.stream.poll_read(cx, &mut buffer)) {
            Ok(read @ 1..) => self.decode(input, &buffer[..read]),
            Ok(0) | Err(_) => ReadOutcome::end(input.stream.verdict()),
        })
    }

    /// Decodes the bytes read into requests, and sends what needs no dispatcher.
    fn decode<S: SharedSocket, D: Decoder>(
        &self,
        input: &mut Input<'_, S, D>,
        bytes: &[u8],
    ) -> ReadOutcome {
        let Input {
            stream,
            codec,
            decoder,
        } = input;
        let mut decoded = Decoded::default();
        let mut cost = 0_u32;
        let node = self.context.node;
        let (pong, result) = codec.feed(bytes, node.websocket_config(), |message| {
            let before = decoded.requests.len();
            let result = match &message {
                Message::Text(text) => {
                    decoder.decode(FramePayload::Text(text), node.limits.depth, &mut decoded)
                }
                Message::Binary(data) => {
                    decoder.decode(FramePayload::Binary(data), node.limits.depth, &mut decoded)
                }
                // Tungstenite writes the answer when it is asked for the next message.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
                Message::Close(_) => return ControlFlow::Continue(()),
            };
            cost = cost.saturating_add(cost_of(&decoded.requests[before..]));
            result.map_or_else(ControlFlow::Break, ControlFlow::Continue)
        });
        for frames in [pong, decoded.answers.freeze()] {
            if !frames.is_empty() {
                // If it does not fit, the client reads too slowly, which the dispatcher detects by
                // itself.
                self.context.outbox.offer(frames);
            }
        }
        stream.charge(cost);
        let end = match result {
            Ok(None) => None,
            Ok(Some(why)) => Some(Some(why)),
            Err(error) => Some(stream.verdict().or(close_reason(&error))),
        };
        if !stream.is_under_way() {
            codec.rest();
        }
        ReadOutcome {
            requests: decoded.requests,
            end,
        }
    }

    async fn forward<D: Decoder>(&self, requests: Vec<DecodedRequest>) {
        let mut requests = requests.into_iter();
        while let Some(request) = requests.next() {
            let signs_in = matches!(request.request, Ok(ClientRequest::Auth(_)));
            self.forward_one::<D>(request).await;
            if signs_in && !requests.as_slice().is_empty() {
                self.charge_user(cost_of(requests.as_slice())).await;
            }
        }
    }

    /// Charges the user that has just signed in for the commands that came behind that, which were
    /// charged to its address, and waits until it may send them.
    fn charge_user(&self, commands: u32) -> impl Future<Output = ()> {
        let ReadContext {
            node,
            outbox,
            quota,
        } = self.context;
        let limits = &node.limits.ingress;
        let wait = move |commands| {
            let charge = Charge {
                commands,
                bytes: 0,
                now: node.now(),
            };
            quota.charge_shared(limits, charge)
        };
        let waiting = async move {
            let mut time = wait(0);
            while !time.is_zero() {
                node.metrics.paused_total.add(1);
                outbox.note_paused(true);
                runtime::sleep(time).await;
                outbox.note_paused(false);
                time = wait(0);
            }
            wait(commands);
        };
        // Boxed, because it is rare.
        Box::pin(waiting)
    }

    /// Sends a request to the dispatcher, or its error to the client. Not an `async fn`: that would
    /// store the event in the task while the inbox is full.
    fn forward_one<D: Decoder>(&self, request: DecodedRequest) -> impl Future<Output = ()> {
        let DecodedRequest { id, request } = request;
        let sending = match request.and_then(|request| self.event(id, request)) {
            Ok(event) => Some(self.context.node.send(event)),
            Err(error) => {
                self.context.node.metrics.errors_total.count(error.code);
                // As above: the dispatcher detects a slow reader by itself.
                let reply = D::PROTOCOL.encoder().reply(id, &Reply::Error(&error));
                self.context.outbox.offer(reply);
                None
            }
        };
        OptionFuture::from(sending).map(drop)
    }

    /// Verifies credentials here, because the dispatcher has no time for signatures.
    fn event(&self, id: Option<RequestId>, request: ClientRequest) -> Result<Event, CommandError> {
        let session = self.session;
        Ok(match request {
            ClientRequest::Command(command) => {
                self.check_room(&command)?;
                Event::Command {
                    reply_to: ReplyTo::Session { session, id },
                    command,
                }
            }
            ClientRequest::Auth(credentials) => {
                let identity = self
                    .context
                    .node
                    .auth
                    .identify(&credentials, Now::read().unix_ms)?;
                let node = self.context.node;
                if let Some(quotas) = &node.shared_quotas {
                    let shared = quotas.of_user(&identity.user, node.now());
                    self.context.quota.share(shared);
                }
                Event::Identified {
                    session,
                    id,
                    identity: Arc::new(identity),
                }
            }
        })
    }
}

impl Reader<'_> {
    /// Refuses a command for a room that is new to the user or address, if it has used too many.
    fn check_room(&self, command: &Command) -> Result<(), CommandError> {
        let (Some(room), Some(shared)) = (command.room(), self.context.quota.shared()) else {
            return Ok(());
        };
        if shared.use_room(room, self.context.node.now()) {
            return Ok(());
        }
        let reason = "you use too many different rooms; use fewer, or try again later";
        Err(CommandError::new(Code::Limit, reason))
    }
}

/// The cost of a message with these requests against the rate of its session. One without any
/// counts too.
fn cost_of(requests: &[DecodedRequest]) -> u32 {
    let cost = requests.iter().map(DecodedRequest::cost);
    cost.fold(0, u32::saturating_add).max(1)
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

#[cfg(test)]
mod tests;
