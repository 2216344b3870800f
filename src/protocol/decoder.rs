//! What a protocol receives: the interface between the messages of one connection and the requests
//! in them.

use bytes::BytesMut;

use crate::protocol::disconnect::Disconnect;
use crate::protocol::{ClientRequest, CommandError, Protocol, RequestId};

/// The payload of one whole WebSocket message, whatever its number of frames.
#[derive(Clone, Copy, Debug)]
pub enum FramePayload<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

/// Decodes what one client sends. Each connection has its own, so it may keep state from one
/// payload to the next: a partial command, the name of the connection in signatures. It lives as
/// long as the connection, which is idle most of the time, so large state belongs into a box.
pub(crate) trait Decoder: Send + 'static {
    /// The protocol that it decodes, whose encoder answers.
    const PROTOCOL: Protocol;

    /// Decodes one payload. It may hold several requests, or none yet. A text nested more than
    /// `depth` deep is an error of that request, because other clients must be able to read what
    /// this one publishes.
    ///
    /// # Errors
    /// The connection must end. What was decoded before still counts.
    fn decode(
        &mut self,
        payload: FramePayload<'_>,
        depth: usize,
        decoded: &mut Decoded,
    ) -> Result<(), Disconnect>;
}

/// What was decoded from the payloads of one read.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    /// In the order in which the client sent them.
    pub requests: Vec<DecodedRequest>,
    /// Whole frames for the client, which need no dispatcher. They are sent before any reply to the
    /// requests.
    pub answers: BytesMut,
}

/// One request, or the error that refuses it.
#[derive(Debug)]
pub struct DecodedRequest {
    pub id: Option<RequestId>,
    pub request: Result<ClientRequest, CommandError>,
}

impl DecodedRequest {
    /// The cost against the rate of the session, in commands. An invalid request counts too.
    pub fn cost(&self) -> u32 {
        self.request.as_ref().map_or(1, ClientRequest::cost)
    }
}
