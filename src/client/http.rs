//! Requests to the HTTP API of a node, one connection for each, within one deadline. Redirects are
//! not followed: a key must not go to another address.

use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures::future::{Either, select};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::http::header;
use hyper::{Request, StatusCode};

use super::connection::{self, ByteStream};
use crate::config::ApiUrl;
use crate::model::secret::Secret;
use crate::runtime::hyper_io::HyperIo;
use crate::runtime::tls::{self, TlsConnector, TlsError};
use crate::runtime::{self, Elapsed};

/// The largest answer, in bytes: a page of a thousand rooms has a quarter of a megabyte.
const ANSWER_BYTES: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("no connection to {0}: {1}")]
    Connect(ApiUrl, io::Error),
    #[error("no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("this cannot be sent: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the answer has more than {} MiB", ANSWER_BYTES >> 20)]
    Large,
    #[error("no answer from {url} within {} s", .time.as_secs())]
    Silent { url: ApiUrl, time: Duration },
}

/// A status with its body.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

/// Sends requests to one address.
pub(crate) struct HttpClient {
    url: ApiUrl,
    /// For `https`.
    connector: Option<TlsConnector>,
    key: Option<Secret<String>>,
    timeout: Duration,
}

impl HttpClient {
    /// # Errors
    /// The file of authorities cannot be used.
    pub(crate) fn new(
        url: ApiUrl,
        key: Option<Secret<String>>,
        authorities: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, TlsError> {
        let connector = url.tls().then(|| tls::connector(authorities)).transpose()?;
        Ok(Self {
            url,
            connector,
            key,
            timeout,
        })
    }

    /// The answer to a GET of a target: a path, perhaps with a query.
    pub(crate) async fn get(&self, target: &str) -> Result<HttpAnswer, HttpError> {
        let mut request = Request::get(target)
            .header(header::HOST, self.url.authority())
            .header(header::CONNECTION, "close");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", key.expose()));
        }
        let request = request.body(String::new())?;
        match runtime::timeout(self.timeout, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(Elapsed) => Err(HttpError::Silent {
                url: self.url.clone(),
                time: self.timeout,
            }),
        }
    }

    async fn exchange(&self, request: Request<String>) -> Result<HttpAnswer, HttpError> {
        let (host, port) = (self.url.host(), self.url.port());
        let stream: Box<dyn ByteStream> =
            connection::open_stream(host, port, self.connector.as_ref())
                .await
                .map_err(|error| HttpError::Connect(self.url.clone(), error))?;
        let (mut sender, connection) = http1::Builder::new().handshake(HyperIo(stream)).await?;
        let exchange = pin!(async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = read(response.into_body()).await?;
            Ok(HttpAnswer { status, body })
        });
        // The connection is what moves the bytes; how it ended shows in the exchange.
        match select(exchange, pin!(connection)).await {
            Either::Left((answer, _)) => answer,
            Either::Right((_, exchange)) => exchange.await,
        }
    }
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Some(data) = frame?.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() > ANSWER_BYTES {
            return Err(HttpError::Large);
        }
    }
    Ok(bytes)
}
