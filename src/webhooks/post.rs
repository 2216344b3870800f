//! One request to the receiver. Each has a connection of its own,
//! over the runtime's socket or TLS, and one deadline for everything; redirects are not followed.

use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncWrite};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::http::header;
use hyper::{Request, StatusCode};

use super::signature;
use crate::config::WebhookUrl;
use crate::runtime::hyper_io::HyperIo;
use crate::runtime::tls::{self, TlsConnector};
use crate::runtime::{self, Elapsed, Socket};

/// How long a request may take, from resolving the name to the status.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// How long one address of a name may take to accept: within [`TIMEOUT`] two can be tried.
const CONNECT: Duration = Duration::from_secs(2);

/// How many bytes of an answer are read and discarded: closing with unread bytes would reset the
/// connection.
const ANSWER_BYTES: usize = 64 << 10;

/// The largest head of an answer, in bytes (hyper's least is 8 KiB).
const HEAD_BYTES: usize = 16 << 10;

/// Why a receiver did not accept a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    #[error("the name is not resolved: {0}")]
    Resolve(io::Error),
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Silent,
    #[error("no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("this cannot be sent: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("it answered {0}; redirects are not followed: configure the address it leads to")]
    Redirect(StatusCode),
    #[error("it answered {0}; only 2xx counts as accepted")]
    Status(StatusCode),
}

/// Where webhook events are sent.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub url: WebhookUrl,
    /// For `https`.
    pub tls: Option<TlsConnector>,
}

impl Receiver {
    /// Sends a signed JSON body. `Ok` means that the receiver answered 2xx.
    pub(crate) async fn post(&self, body: String, signature: String) -> Result<(), PostError> {
        let request = Request::post(self.url.target())
            .header(header::HOST, self.url.authority())
            .header(
                header::USER_AGENT,
                concat!("switchboard/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .header(signature::HEADER, signature)
            .body(body)?;
        let status = runtime::timeout(TIMEOUT, self.exchange(request))
            .await
            .map_err(|Elapsed| PostError::Silent)??;
        match status {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(PostError::Redirect(status)),
            status => Err(PostError::Status(status)),
        }
    }

    async fn exchange(&self, request: Request<String>) -> Result<StatusCode, PostError> {
        let socket = self.connect().await?;
        match &self.tls {
            None => send(socket, request).await,
            Some(tls) => {
                let stream = tls::handshake(tls, self.url.host(), socket).await;
                send(stream.map_err(PostError::Tls)?, request).await
            }
        }
    }

    async fn connect(&self) -> Result<Socket, PostError> {
        let addresses = runtime::resolve(self.url.host(), self.url.port())
            .await
            .map_err(PostError::Resolve)?;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match runtime::connect(address, CONNECT).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(PostError::Connect(last))
    }
}

async fn send<S>(stream: S, request: Request<String>) -> Result<StatusCode, PostError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(HyperIo(stream))
        .await?;
    let exchange = pin!(async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        read_on(response.into_body()).await;
        Ok(status)
    });
    // The connection is what moves the bytes; how it ended shows in the exchange.
    match select(exchange, pin!(connection)).await {
        Either::Left((status, _)) => status,
        Either::Right((_, exchange)) => exchange.await,
    }
}

/// Reads the answer to its end or to a bound. Errors are ignored: the status is already known.
async fn read_on(mut body: Incoming) {
    let mut left = ANSWER_BYTES;
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
    {
        let length = frame.data_ref().map_or(0, |data| data.len());
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
