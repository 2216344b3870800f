//! Connects to a node: the name, TCP, TLS and the WebSocket handshake, each within one deadline.

use std::io;
use std::time::Duration;

use async_tungstenite::tungstenite::{self, Error};
use async_tungstenite::{WebSocketStream, client_async};
use futures::io::{AsyncRead, AsyncWrite};

use super::ClientError;
use crate::config::ServerUrl;
use crate::runtime::tls::{self, TlsConnector};
use crate::runtime::{self, Elapsed};

/// How long a connection may take, from the name to the end of the handshake.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long one address of a name may take to accept.
const CONNECT: Duration = Duration::from_secs(5);

/// A plain or encrypted stream.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

pub(super) type WebSocket = WebSocketStream<Box<dyn ByteStream>>;

/// Where to connect.
pub(super) struct DialTarget {
    pub(super) url: ServerUrl,
    /// For `wss`.
    pub(super) connector: Option<TlsConnector>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    /// Another attempt may succeed; the text is a part of a sentence.
    Retry(String),
    /// It will not.
    Final(ClientError),
}

impl DialTarget {
    /// Connects, within the deadline.
    pub(super) async fn connect(&self) -> Result<WebSocket, DialError> {
        match runtime::timeout(DEADLINE, self.open()).await {
            Ok(result) => result,
            Err(Elapsed) => Err(DialError::Retry(format!(
                "no connection to {} within {} s",
                self.url,
                DEADLINE.as_secs()
            ))),
        }
    }

    async fn open(&self) -> Result<WebSocket, DialError> {
        let (host, port) = (self.url.host(), self.url.port());
        let stream = open_stream(host, port, self.connector.as_ref()).await;
        let stream = stream
            .map_err(|error| DialError::Retry(format!("no connection to {}: {error}", self.url)))?;
        match client_async(self.url.as_str(), stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(error) => Err(refused(&error)),
        }
    }
}

/// Connects to the first address of a name that accepts, with TLS if there is a connector.
pub(super) async fn open_stream(
    host: &str,
    port: u16,
    connector: Option<&TlsConnector>,
) -> io::Result<Box<dyn ByteStream>> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in runtime::resolve(host, port).await? {
        match runtime::connect(address, CONNECT).await {
            Err(error) => last = error,
            Ok(socket) => {
                return Ok(match connector {
                    None => Box::new(socket),
                    Some(connector) => Box::new(tls::handshake(connector, host, socket).await?),
                });
            }
        }
    }
    Err(last)
}

/// A refusal of the handshake: a status for a wrong request is final.
fn refused(error: &tungstenite::Error) -> DialError {
    let Error::Http(response) = error else {
        return DialError::Retry(format!("the handshake failed: {error}"));
    };
    let status = response.status();
    let body = response.body().as_deref().unwrap_or_default();
    let reason = String::from_utf8_lossy(body);
    let sentence = match reason.trim() {
        "" => format!("the server refused the handshake: {status}"),
        reason => format!("the server refused the handshake: {status}: {reason}"),
    };
    let is_final = status.is_client_error() && status != http::StatusCode::TOO_MANY_REQUESTS;
    if is_final {
        DialError::Final(ClientError::Handshake(sentence))
    } else {
        DialError::Retry(sentence)
    }
}
