//! A connection while it speaks HTTP: heads under a limit and a deadline, bodies by their length,
//! answers in order, and the upgrade, before which everything is checked and after which nothing is
//! HTTP any more.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::AsyncWriteExt;

use super::{
    Entrance, NATIVE_PATH, Node, SUBPROTOCOL, Socket, Speaks, Upgraded, calls, finish, timed_out,
};
use crate::dispatcher::Now;
use crate::http::{
    CONTINUE, HeadReader, LIVE_PATH, Method, Parsed, READY_PATH, Refusal, Request, Response,
    Status, client_address,
};
use crate::metrics::Refused;
use crate::model::identity::Identity;
use crate::model::readiness::State;
use crate::protocol::Protocol;
use crate::runtime;
use crate::transport::handshake::{self, Rules};
use crate::transport::pages::{self, Health};

/// Bytes asked of the socket at once; a usual head fits.
const CHUNK: usize = 2048;

/// How long a full node waits for the head of what may be a health check, and for the end of it.
const FULL_TIMEOUT: Duration = Duration::from_secs(1);

/// How soon a client that was refused for the moment may come back, in seconds.
const RETRY_AFTER: u32 = 1;

/// The same, in seconds, for a client whose address has too many connections: others have to go
/// first.
const ADDRESS_RETRY_AFTER: &str = "5";

/// Answers requests until one upgrades (`Some`) or the connection is over (`None`).
pub async fn serve<S: Socket>(
    node: &Node,
    socket: S,
    peer: SocketAddr,
    entrance: Entrance,
) -> io::Result<Option<Upgraded>> {
    let mut door = Door {
        node,
        socket,
        entrance,
        buffer: Vec::new(),
    };
    let mut first = true;
    loop {
        let request = match door.head(first).await? {
            Head::Request(request) => request,
            Head::Refused(refusal) => return door.refuse(refusal, false).await,
            Head::Closed => return Ok(None),
        };
        first = false;
        if let Some(speaks) = door.endpoint(&request) {
            return door.upgrade(&request, peer, speaks).await;
        }
        let found = calls::find(node, entrance, &request);
        if let Err(refusal) = calls::admit(node, entrance, &request, &found) {
            return door.refuse(refusal, request.method == Method::Head).await;
        }
        let Ok(body) = door.body(&request).await? else {
            let refusal = Refusal::new(Status::RequestTimeout, "Send the body without pausing.");
            return door.refuse(refusal, false).await;
        };
        let under_way = calls::under_way(node, &found);
        let response = match calls::answer(node, &request, found, &body).await {
            Some(response) => response,
            None => door.page(&request),
        };
        let keep_alive = request.keep_alive && node.readiness.state() != State::Draining;
        door.answer(&request, &response, keep_alive).await?;
        drop(under_way);
        // Requests that come without a pause need not wait for the socket: the others have their
        // turn all the same.
        runtime::yield_now().await;
        if !keep_alive {
            finish(door.socket, node.limits.close_timeout).await;
            return Ok(None);
        }
    }
}

struct Door<'a, S> {
    node: &'a Node,
    socket: S,
    entrance: Entrance,
    /// Read and not yet used.
    buffer: Vec<u8>,
}

enum Head {
    Request(Box<Request>),
    Refused(Refusal),
    /// The client ended between two requests, or never began.
    Closed,
}

/// The body did not come in time.
struct Expired;

impl<S: Socket> Door<'_, S> {
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
                Ok(Head::Refused(Refusal::new(Status::RequestTimeout, reason)))
            }
        }
    }

    async fn whole_head(&mut self) -> io::Result<Head> {
        let mut reader = HeadReader::default();
        loop {
            match reader.read(&self.buffer, &self.node.limits.head) {
                Ok(Parsed::Complete { request, length }) => {
                    self.buffer.drain(..length);
                    return Ok(Head::Request(Box::new(request)));
                }
                Ok(Parsed::Partial) => {}
                Err(refusal) => return Ok(Head::Refused(refusal)),
            }
            if self.read_some().await? == 0 {
                return Ok(Head::Closed);
            }
        }
    }

    /// The room for what comes is made and taken away within each look, so that a read that is
    /// given up leaves nothing behind.
    async fn read_some(&mut self) -> io::Result<usize> {
        poll_fn(|cx| {
            let start = self.buffer.len();
            self.buffer.resize(start + CHUNK, 0);
            let looked = Pin::new(&mut self.socket).poll_read(cx, &mut self.buffer[start..]);
            let read = match &looked {
                Poll::Ready(Ok(read)) => *read,
                _ => 0,
            };
            self.buffer.truncate(start + read);
            looked
        })
        .await
    }

    /// Reads the body. What takes none has one all the same, because the next request begins behind
    /// it.
    async fn body(&mut self, request: &Request) -> io::Result<Result<Vec<u8>, Expired>> {
        let length = request.content_length as usize;
        let time = self.node.limits.head_timeout;
        let reading = async {
            if length > self.buffer.len() && request.expects_continue {
                self.socket.write_all(CONTINUE).await?;
            }
            while self.buffer.len() < length {
                if self.read_some().await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(self.buffer.drain(..length).collect())
        };
        match runtime::timeout(time, reading).await {
            Ok(Ok(body)) => Ok(Ok(body)),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(Err(Expired)),
        }
    }

    /// What is no call and no WebSocket.
    fn page(&self, request: &Request) -> Response {
        let is_check = [LIVE_PATH, READY_PATH].contains(&request.path.as_str());
        if self.entrance == Entrance::Backends && !is_check {
            let reason = "Nothing is here: this is the listener of the HTTP API.";
            return Response::error(Status::NotFound, reason);
        }
        pages::answer(request, &self.node.assets, &health(self.node))
    }

    /// What is spoken at the path, if it is one where a WebSocket begins.
    fn endpoint(&self, request: &Request) -> Option<Speaks> {
        if self.entrance == Entrance::Backends {
            return None;
        }
        if request.path == NATIVE_PATH {
            return Some(Speaks::Protocol(Protocol::Native));
        }
        let echo = self.node.echo_path.as_ref() == Some(&request.path);
        echo.then_some(Speaks::Echo)
    }

    async fn upgrade(
        mut self,
        request: &Request,
        peer: SocketAddr,
        speaks: Speaks,
    ) -> io::Result<Option<Upgraded>> {
        let rules = Rules {
            origins: &self.node.origins,
            own_hosts: self.node.own_hosts,
            protocols: &[SUBPROTOCOL],
        };
        let judged = handshake::judge(request, &rules);
        let judged = judged.and_then(|accepted| Ok((accepted, self.identify(request, speaks)?)));
        let (accepted, identity) = match judged {
            Ok(judged) => judged,
            Err(refusal) => return self.refuse(refusal, request.method == Method::Head).await,
        };
        let state = self.node.readiness.state();
        if state != State::Ready {
            return self
                .refuse(Refusal::unavailable(state.sentence(), RETRY_AFTER), false)
                .await;
        }
        let client = client_address(peer.ip(), request, &self.node.trusted_proxies);
        let claim = match self.node.is_proxy(peer.ip()) {
            true => self.node.claim(client),
            false => Ok(None),
        };
        let Ok(claim) = claim else {
            return self.refuse(one_of_many(), false).await;
        };
        // The WebSocket reads on into this buffer for as long as it lives: it need not be as large
        // as a head.
        self.buffer.shrink_to_fit();
        Ok(Some(Upgraded {
            speaks,
            answer: accepted.response(),
            rest: self.buffer,
            client,
            identity,
            claim,
        }))
    }

    /// Who the client is, if the handshake says so. The conformance endpoint knows nobody.
    fn identify(
        &self,
        request: &Request,
        speaks: Speaks,
    ) -> Result<Option<Arc<Identity>>, Refusal> {
        match speaks {
            Speaks::Echo => Ok(None),
            Speaks::Protocol(_) => {
                let identity = self.node.auth.of_handshake(request, Now::read().unix_ms)?;
                Ok(identity.map(Arc::new))
            }
        }
    }

    async fn answer(
        &mut self,
        request: &Request,
        response: &Response,
        keep_alive: bool,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        response.encode(&mut bytes, keep_alive, request.method == Method::Head);
        self.write(&bytes).await
    }

    /// Says no and ends the connection.
    async fn refuse(mut self, refusal: Refusal, head_only: bool) -> io::Result<Option<Upgraded>> {
        log::debug!(status = refusal.status.code(), reason = refusal.reason; "refused");
        self.node.metrics.refused_total.count(reason(&refusal));
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
        State::Ready => Health::Ready,
        state => Health::NotReady {
            reason: state.sentence().into(),
            retry_after: RETRY_AFTER,
        },
    }
}

/// Answers a health check on a node that is full, so that it is not taken for a dead one, and turns
/// everything else away.
pub async fn serve_full<S: Socket>(node: &Node, socket: S) -> io::Result<()> {
    let mut door = Door {
        node,
        socket,
        entrance: Entrance::Public,
        buffer: Vec::new(),
    };
    match runtime::timeout(FULL_TIMEOUT, door.whole_head()).await {
        Ok(Ok(Head::Request(request))) if pages::is_health_check(&request) => {
            let response = pages::answer(&request, &node.assets, &health(node));
            door.answer(&request, &response, false).await?;
            finish(door.socket, FULL_TIMEOUT).await;
        }
        Ok(Ok(Head::Request(_) | Head::Refused(_))) | Err(_) => {
            node.metrics.refused_total.count(Refused::Connections);
            turn_away(door.socket, FULL_TIMEOUT).await;
        }
        Ok(Ok(Head::Closed)) => {}
        Ok(Err(error)) => return Err(error),
    }
    Ok(())
}

/// How a refusal is counted.
fn reason(refusal: &Refusal) -> Refused {
    match refusal.status {
        Status::ServiceUnavailable => Refused::NotReady,
        Status::TooManyRequests => Refused::Address,
        Status::RequestHeaderFieldsTooLarge | Status::UriTooLong => Refused::Head,
        Status::RequestTimeout => Refused::Timeout,
        Status::ContentTooLarge => Refused::Body,
        Status::Forbidden => Refused::Origin,
        Status::Unauthorized => Refused::Token,
        _ => Refused::Request,
    }
}

fn one_of_many() -> Refusal {
    let reason =
        "Your address has as many connections here as it may have: close one, or try again.";
    Refusal::new(Status::TooManyRequests, reason).with("Retry-After", ADDRESS_RETRY_AFTER)
}

/// Turns a connection away that is one too many of its address, before anything of it was read.
pub async fn turn_away_one_of_many<S: Socket>(node: &Node, socket: S) {
    node.metrics.refused_total.count(Refused::Address);
    say_no(socket, one_of_many(), node.limits.close_timeout).await;
}

/// Turns a connection away that is one too many, before anything of it was read.
pub async fn turn_away<S: Socket>(socket: S, time: Duration) {
    let sentence = "this node is full; use another node or try again";
    say_no(socket, Refusal::unavailable(sentence, RETRY_AFTER), time).await;
}

async fn say_no<S: Socket>(mut socket: S, refusal: Refusal, time: Duration) {
    let mut bytes = Vec::new();
    refusal.encode(&mut bytes, false);
    if let Ok(Ok(())) = runtime::timeout(time, socket.write_all(&bytes)).await {
        finish(socket, time).await;
    }
}
