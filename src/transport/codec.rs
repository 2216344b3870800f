//! Tungstenite, fed with the received bytes. Its context has a read buffer, half a kilobyte of
//! state besides, and most connections are idle most of the time: so it lives from the first byte
//! of a message to the last, and an idle connection has none. Measured: 1,600 bytes less of each
//! idle connection. What tungstenite writes by itself (pongs, the answer to a close) is given to
//! the caller, to go through the outbox like everything else.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;

use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use async_tungstenite::tungstenite::{Error, Message};
use bytes::Bytes;

/// The frames of one connection, as far as received.
pub(super) struct Codec {
    context: Option<Box<WebSocketContext>>,
}

/// The stream that tungstenite reads the received bytes from.
struct Feed<'a> {
    bytes: &'a [u8],
    /// The last frame that it wrote.
    written: Bytes,
}

impl Codec {
    /// `rest` was read before, and is decoded with the first [`feed`](Codec::feed).
    pub(super) fn new(rest: Vec<u8>, config: WebSocketConfig) -> Self {
        let context = (!rest.is_empty())
            .then(|| WebSocketContext::from_partially_read(rest, Role::Server, Some(config)));
        Self {
            context: context.map(Box::new),
        }
    }

    /// Passes each complete message to `take`, until `take` or the stream breaks.
    ///
    /// Returns what tungstenite wrote: of pings that come together only the last is answered (RFC
    /// 6455 section 5.5.3), and behind a close nothing is.
    ///
    /// # Errors
    /// The bytes break RFC 6455 or a limit; or the client has closed, which is
    /// [`Error::ConnectionClosed`].
    pub(super) fn feed<T>(
        &mut self,
        bytes: &[u8],
        config: WebSocketConfig,
        mut take: impl FnMut(Message) -> ControlFlow<T>,
    ) -> (Bytes, Result<Option<T>, Error>) {
        let context = || Box::new(WebSocketContext::new(Role::Server, Some(config)));
        let context = self.context.get_or_insert_with(context);
        let written = Bytes::new();
        let mut feed = Feed { bytes, written };
        let outcome = loop {
            let message = match context.read(&mut feed) {
                Ok(message) => message,
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    break Ok(None);
                }
                Err(error) => break Err(error),
            };
            if let ControlFlow::Break(outcome) = take(message) {
                break Ok(Some(outcome));
            }
        };
        (feed.written, outcome)
    }

    /// No message is incomplete: drops the context.
    pub(super) fn rest(&mut self) {
        self.context = None;
    }
}

impl Read for Feed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.read(buffer)
    }
}

impl Write for Feed<'_> {
    /// Takes the place of what was written before. Tungstenite writes one whole frame at a time.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written = Bytes::copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
