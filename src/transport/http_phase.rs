//! A connection in its HTTP phase: it reads heads and bodies under limits and deadlines, and
//! answers in order. The phase ends with the upgrade, before which everything is checked.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::AsyncWriteExt;

use super::{
    Endpoint, ListenerKind, Node, SharedSocket, Upgraded, calls, finish, routes, timed_out,
};
use crate::auth::{ConnectAttempt, Reason};
use crate::dispatcher::Now;
use crate::http::{
    BodyFraming, CONTINUE, ChunkReader, HeadLimits, HeadReader, Method, ParsedBody, ParsedHead,
    Refusal, RequestHead, Response, StatusCode, client_address,
};
use crate::metrics::RefusalCause;
use crate::model::identity::Identity;
use crate::model::readiness::ReadinessState;
use crate::runtime;
use crate::transport::handshake::{self, Rules};
use crate::transport::pages::{self, Health};

/// Bytes of one read; a usual head fits.
const CHUNK: usize = 2048;

/// How long a full node waits for the head of a possible health check, and for its end.
const FULL_TIMEOUT: Duration = Duration::from_secs(1);

/// The `Retry-After` of a temporary refusal, in seconds.
const RETRY_AFTER: u32 = 1;

/// The same, in seconds, for a client whose address has too many connections: others must close
/// first.
const ADDRESS_RETRY_AFTER: &str = "5";

/// Answers requests until one upgrades (`Some`) or the connection ends (`None`).
pub(crate) async fn serve<S: SharedSocket>(
    node: &Node,
    socket: S,
    peer: SocketAddr,
    listener_kind: ListenerKind,
) -> io::Result<Option<Upgraded>> {
    let mut connection = HttpConnection {
        node,
        socket,
        listener_kind,
        limits: node.head_limits(listener_kind),
        buffer: Vec::new(),
    };
    let mut first = true;
    loop {
        let request = match connection.head(first).await? {
            Head::Request(request) => request,
            Head::Refused(refusal) => return connection.refuse(refusal, false).await,
            Head::Closed => return Ok(None),
        };
        first = false;
        if let Some(endpoint) = connection.endpoint_of(&request) {
            return connection.upgrade(&request, peer, endpoint).await;
        }
        let found = calls::find(node, listener_kind, &request);
        let caller = match calls::admit(node, listener_kind, &request, &found) {
            Ok(caller) => caller,
            Err(refusal) => {
                let is_head = request.method == Method::HEAD;
                return connection.refuse(refusal, is_head).await;
            }
        };
        // A client that asks before it sends its body gets the response instead of 100 if the body
        // is of no use. Whether it then sends the body is unknown, so the connection closes.
        let is_unwanted = request.expects_continue && !calls::reads_body(&found);
        let body = if is_unwanted {
            Ok(Vec::new())
        } else {
            connection.body(&request).await?
        };
        let body = match body {
            Ok(body) => body,
            Err(refusal) => return connection.refuse(refusal, false).await,
        };
        let in_flight = calls::in_flight(node, &found);
        let response = match calls::answer(node, caller, &request, found, &body).await {
            Some(response) => response,
            None => connection.page(&request),
        };
        let keep_alive = request.keep_alive
            && !is_unwanted
            && node.readiness.state() != ReadinessState::Draining;
        connection.answer(&request, &response, keep_alive).await?;
        drop(in_flight);
        // Pipelined requests never wait for the socket: yield, so that other tasks run.
        runtime::yield_now().await;
        if !keep_alive {
            finish(connection.socket, node.limits.close_timeout).await;
            return Ok(None);
        }
    }
}

struct HttpConnection<'a, S> {
    node: &'a Node,
    socket: S,
    listener_kind: ListenerKind,
    limits: HeadLimits,
    /// Bytes read and not yet consumed.
    buffer: Vec<u8>,
}

enum Head {
    Request(Box<RequestHead>),
    Refused(Refusal),
    /// The client closed between two requests, or never sent one.
    Closed,
}

impl<S: SharedSocket> HttpConnection<'_, S> {
    async fn head(&mut self, first: bool) -> io::Result<Head> {
        let limits = &self.node.limits;
        if !first && self.buffer.is_empty() {
            match runtime::timeout(limits.idle_timeout, self.read_some()).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) | Err(_) => return Ok(Head::Closed),
                Ok(Err(error)) => return Err(error),
            }
        }
        let head = runtime::timeout(limits.head_timeout, self.whole_head()).await;
        match head {
            Ok(head) => head,
            Err(_) if self.buffer.is_empty() => Ok(Head::Closed),
            Err(_) => {
                let reason = "Send the head of the request without pausing.";
                Ok(Head::Refused(Refusal::new(
                    StatusCode::REQUEST_TIMEOUT,
                    reason,
                )))
            }
        }
    }

    async fn whole_head(&mut self) -> io::Result<Head> {
        let mut reader = HeadReader::default();
        loop {
            match reader.read(&self.buffer, &self.limits) {
                Ok(ParsedHead::Complete { request, length }) => {
                    self.buffer.drain(..length);
                    return Ok(Head::Request(Box::new(request)));
                }
                Ok(ParsedHead::Partial) => {}
                Err(refusal) => return Ok(Head::Refused(refusal)),
            }
            if self.read_some().await? == 0 {
                return Ok(Head::Closed);
            }
        }
    }

    /// The buffer grows and shrinks within each poll, so that a cancelled read leaves nothing
    /// behind.
    async fn read_some(&mut self) -> io::Result<usize> {
        poll_fn(|cx| {
            let start = self.buffer.len();
            self.buffer.resize(start + CHUNK, 0);
            let polled = Pin::new(&mut self.socket).poll_read(cx, &mut self.buffer[start..]);
            let read = match &polled {
                Poll::Ready(Ok(read)) => *read,
                _ => 0,
            };
            self.buffer.truncate(start + read);
            polled
        })
        .await
    }

    /// Reads the body, even of a request that needs none, because the next request begins behind
    /// it.
    async fn body(&mut self, request: &RequestHead) -> io::Result<Result<Vec<u8>, Refusal>> {
        let time = self.node.limits.head_timeout;
        let reading = async {
            match request.body {
                BodyFraming::Length(length) => {
                    let body = self.measured_body(length as usize, request.expects_continue);
                    body.await.map(Ok)
                }
                BodyFraming::Chunked => self.chunked_body(request.expects_continue).await,
            }
        };
        runtime::timeout(time, reading).await.unwrap_or_else(|_| {
            let reason = "Send the body without pausing.";
            Ok(Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, reason)))
        })
    }

    async fn measured_body(
        &mut self,
        length: usize,
        expects_continue: bool,
    ) -> io::Result<Vec<u8>> {
        if length > self.buffer.len() && expects_continue {
            self.socket.write_all(CONTINUE).await?;
        }
        while self.buffer.len() < length {
            self.read_more().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn chunked_body(
        &mut self,
        mut expects_continue: bool,
    ) -> io::Result<Result<Vec<u8>, Refusal>> {
        let mut reader = ChunkReader::new(self.limits.body);
        loop {
            match reader.read(&self.buffer) {
                Ok(ParsedBody::Partial) => self.buffer.clear(),
                Ok(ParsedBody::Complete { length }) => {
                    self.buffer.drain(..length);
                    return Ok(Ok(reader.into_body()));
                }
                Err(refusal) => return Ok(Err(refusal)),
            }
            if mem::take(&mut expects_continue) {
                self.socket.write_all(CONTINUE).await?;
            }
            self.read_more().await?;
        }
    }

    /// Reads within a body, which must not end here.
    async fn read_more(&mut self) -> io::Result<()> {
        match self.read_some().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The response to a request that is neither a call nor a WebSocket.
    fn page(&self, request: &RequestHead) -> Response {
        if request.path.is_empty() {
            let reason = "The path must not hold an escaped slash or backslash, except in the name \
                          of a room or user of the HTTP API.";
            return Response::error(StatusCode::BAD_REQUEST, reason);
        }
        let is_check = pages::is_health_check(request);
        if self.listener_kind == ListenerKind::Backends && !is_check {
            let reason = "Nothing is here: this is the listener of the HTTP API.";
            return Response::error(StatusCode::NOT_FOUND, reason);
        }
        pages::answer(request, &self.node.assets, &health(self.node))
    }

    /// The protocol of the path, if it is a WebSocket endpoint.
    fn endpoint_of(&self, request: &RequestHead) -> Option<Endpoint> {
        if self.listener_kind == ListenerKind::Backends {
            return None;
        }
        routes::find(self.node, &request.path)
    }

    async fn upgrade(
        mut self,
        request: &RequestHead,
        peer: SocketAddr,
        endpoint: Endpoint,
    ) -> io::Result<Option<Upgraded>> {
        let rules = Rules {
            origins: &self.node.origins,
            own_hosts: self.node.own_hosts,
            protocols: routes::SUBPROTOCOLS,
        };
        let checked = handshake::check(request, &rules);
        let checked =
            checked.and_then(|accepted| Ok((accepted, self.identify(request, endpoint)?)));
        let client = client_address(peer.ip(), request, &self.node.trusted_proxies);
        let (accepted, identity) = match checked {
            Ok(checked) => checked,
            Err(refusal) => {
                let cause = reason(&refusal);
                let head_only = request.method == Method::HEAD;
                self.node.refusals.note(cause, &refusal, request, client);
                return self.refuse_as(cause, refusal, head_only).await;
            }
        };
        let state = self.node.readiness.state();
        if state != ReadinessState::Ready {
            return self
                .refuse(Refusal::unavailable(state.sentence(), RETRY_AFTER), false)
                .await;
        }
        if let Err(reason) = self.ask_hook(request, client, identity.as_deref()) {
            let (cause, refusal) = (RefusalCause::Hook, Refusal::forbidden(reason));
            self.node.refusals.note(cause, &refusal, request, client);
            return self.refuse_as(cause, refusal, false).await;
        }
        let shared_quota = self.node.shared_quota(client, identity.as_deref());
        let anonymous = shared_quota.as_ref().filter(|_| identity.is_none());
        if anonymous.is_some_and(|address| !address.connect(self.node.now())) {
            return self.refuse(too_many_new_connections(), false).await;
        }
        let claim = if self.node.is_proxy(peer.ip()) {
            self.node.claim(client)
        } else {
            Ok(None)
        };
        let Ok(claim) = claim else {
            let (cause, refusal) = (RefusalCause::Address, too_many_connections());
            self.node.refusals.note(cause, &refusal, request, client);
            return self.refuse_as(cause, refusal, false).await;
        };
        // The WebSocket keeps this buffer for as long as it lives: release the space of the head.
        self.buffer.shrink_to_fit();
        Ok(Some(Upgraded {
            endpoint,
            answer: accepted.response(),
            rest: self.buffer,
            client,
            identity,
            claim,
            shared_quota,
        }))
    }

    /// Whether the embedding program lets this client connect.
    fn ask_hook(
        &self,
        request: &RequestHead,
        address: IpAddr,
        identity: Option<&Identity>,
    ) -> Result<(), Reason> {
        let attempt = ConnectAttempt {
            user: identity.map(|identity| &identity.user),
            address,
            request,
        };
        let panics = &self.node.metrics.panics_total;
        self.node.hooks.check_connect(&attempt, panics)
    }

    /// The client's identity, if the handshake has credentials. The conformance endpoint ignores
    /// them.
    fn identify(
        &self,
        request: &RequestHead,
        endpoint: Endpoint,
    ) -> Result<Option<Arc<Identity>>, Refusal> {
        match endpoint {
            Endpoint::Echo => Ok(None),
            Endpoint::Protocol(_) => {
                let identity = self.node.auth.of_handshake(request, Now::read().unix_ms)?;
                Ok(identity.map(Arc::new))
            }
        }
    }

    async fn answer(
        &mut self,
        request: &RequestHead,
        response: &Response,
        keep_alive: bool,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        response.encode(&mut bytes, keep_alive, request.method == Method::HEAD);
        self.write(&bytes).await
    }

    /// Sends the refusal and ends the connection.
    async fn refuse(self, refusal: Refusal, head_only: bool) -> io::Result<Option<Upgraded>> {
        let label = reason(&refusal);
        self.refuse_as(label, refusal, head_only).await
    }

    /// The same, counted under this label.
    async fn refuse_as(
        mut self,
        label: RefusalCause,
        refusal: Refusal,
        head_only: bool,
    ) -> io::Result<Option<Upgraded>> {
        log::debug!(status = refusal.status.as_u16(), reason = &*refusal.reason; "refused");
        self.node.metrics.refused_total.count(label);
        let mut bytes = Vec::new();
        refusal.encode(&mut bytes, head_only);
        self.write(&bytes).await?;
        finish(self.socket, self.node.limits.close_timeout).await;
        Ok(None)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let time = self.node.limits.idle_timeout;
        let writing = self.socket.write_all(bytes);
        runtime::timeout(time, writing)
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }
}

fn health(node: &Node) -> Health {
    match node.readiness.state() {
        ReadinessState::Ready => match node.readiness.limitation() {
            Some(limitation) => Health::Limited(limitation),
            None => Health::Ready,
        },
        _ => Health::NotReady {
            reason: node.readiness.reason(),
            retry_after: RETRY_AFTER,
        },
    }
}

/// Answers a health check on a full node, so that it is not taken for a dead one, and refuses any
/// other request.
pub(crate) async fn serve_full<S: SharedSocket>(node: &Node, socket: S) -> io::Result<()> {
    let mut connection = HttpConnection {
        node,
        socket,
        listener_kind: ListenerKind::Public,
        limits: node.head_limits(ListenerKind::Public),
        buffer: Vec::new(),
    };
    match runtime::timeout(FULL_TIMEOUT, connection.whole_head()).await {
        Ok(Ok(Head::Request(request))) if pages::is_health_check(&request) => {
            let response = pages::answer(&request, &node.assets, &health(node));
            connection.answer(&request, &response, false).await?;
            finish(connection.socket, FULL_TIMEOUT).await;
        }
        Ok(Ok(Head::Request(_) | Head::Refused(_))) | Err(_) => {
            node.metrics.refused_total.count(RefusalCause::Connections);
            refuse_full(connection.socket, FULL_TIMEOUT).await;
        }
        Ok(Ok(Head::Closed)) => {}
        Ok(Err(error)) => return Err(error),
    }
    Ok(())
}

/// The metric label of a refusal.
fn reason(refusal: &Refusal) -> RefusalCause {
    match refusal.status {
        StatusCode::SERVICE_UNAVAILABLE => RefusalCause::NotReady,
        StatusCode::TOO_MANY_REQUESTS => RefusalCause::Address,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => {
            RefusalCause::Head
        }
        StatusCode::REQUEST_TIMEOUT => RefusalCause::Timeout,
        StatusCode::PAYLOAD_TOO_LARGE => RefusalCause::Body,
        StatusCode::FORBIDDEN => RefusalCause::Origin,
        StatusCode::UNAUTHORIZED => RefusalCause::Token,
        _ => RefusalCause::Request,
    }
}

fn too_many_connections() -> Refusal {
    let reason = "Your address has reached its limit of connections here: close one, or try again.";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason).with("Retry-After", ADDRESS_RETRY_AFTER)
}

fn too_many_new_connections() -> Refusal {
    let reason = "Your address opens too many connections: sign in with a token, or try again.";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason).with("Retry-After", ADDRESS_RETRY_AFTER)
}

/// Refuses a connection above the limit of its address, before anything is read.
pub(crate) async fn refuse_address<S: SharedSocket>(node: &Node, socket: S) {
    node.metrics.refused_total.count(RefusalCause::Address);
    refuse_socket(socket, too_many_connections(), node.limits.close_timeout).await;
}

/// Refuses a connection above the limit of the node, before anything is read.
pub(crate) async fn refuse_full<S: SharedSocket>(socket: S, time: Duration) {
    let sentence = "this node is full; use another node or try again";
    refuse_socket(socket, Refusal::unavailable(sentence, RETRY_AFTER), time).await;
}

async fn refuse_socket<S: SharedSocket>(mut socket: S, refusal: Refusal, time: Duration) {
    let mut bytes = Vec::new();
    refusal.encode(&mut bytes, false);
    if let Ok(Ok(())) = runtime::timeout(time, socket.write_all(&bytes)).await {
        finish(socket, time).await;
    }
}
