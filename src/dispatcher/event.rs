//! The events that the dispatcher receives, and the time at which it handles them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::broker::BrokerEvent;
use crate::model::id::SessionId;
use crate::model::identity::Identity;
use crate::model::publication::Publication;
use crate::model::source::{CallerId, Source};
use crate::outbox::Outbox;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::{Command, Protocol, Reply, RequestId};

/// How often the server sends [`Event::Tick`]; deadlines are kept to this precision.
pub const TICK: Duration = Duration::from_millis(250);

/// An event for the dispatcher.
#[derive(Debug)]
pub enum Event {
    /// A handshake is complete; the connection's writer reads the other end of `outbox`.
    Opened {
        session: SessionId,
        protocol: Protocol,
        /// The client's identity, if the handshake carried one.
        identity: Option<Arc<Identity>>,
        outbox: Outbox,
    },
    /// The embedding program subscribes: a session without a connection, whose subscription reads
    /// the other end of `outbox`. It is allowed everything and does not count as present.
    Subscribed {
        session: SessionId,
        protocol: Protocol,
        outbox: Outbox,
    },
    /// The client has authenticated, or renewed its token.
    Identified {
        session: SessionId,
        id: Option<RequestId>,
        identity: Arc<Identity>,
    },
    /// A command of a client, of a backend, or of the embedding program.
    Command {
        reply_to: ReplyTo,
        command: Command,
    },
    /// The writer has written everything that was queued when [`Outbox::want_drained`] was called.
    Drained(SessionId),
    /// The reader has ended. `close_reason`: the reason to send, if the client did not close by
    /// itself.
    Closed {
        session: SessionId,
        close_reason: Option<Disconnect>,
    },
    Broker(BrokerEvent),
    /// The node's report for `$nodes`.
    Report(Arc<Publication>),
    /// [`TICK`] has passed.
    Tick,
    /// The node stops: disconnect all clients within about this time, and end.
    Drain(Duration),
}

/// The target of a reply.
#[derive(Clone, Debug)]
pub enum ReplyTo {
    /// A client, by the id of its request.
    Session {
        session: SessionId,
        id: Option<RequestId>,
    },
    /// A backend or the embedding program. It was authorized before, for everything.
    Caller(Arc<dyn ReplySink>),
}

impl ReplyTo {
    /// The session that sent the request, if one did.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            ReplyTo::Session { session, .. } => Some(*session),
            ReplyTo::Caller(_) => None,
        }
    }

    /// The source of the request.
    pub fn source(&self) -> Source {
        match self {
            ReplyTo::Session { session, .. } => Source::Session(*session),
            ReplyTo::Caller(sink) => Source::Caller(sink.caller()),
        }
    }
}

/// Receives the one reply to a request that no session has sent. It must not block.
pub trait ReplySink: fmt::Debug + Send + Sync {
    /// Who sent the request.
    fn caller(&self) -> CallerId;

    fn reply(&self, reply: &Reply<'_>);
}

/// The time of a turn.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub instant: Instant,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

impl Now {
    pub fn read() -> Self {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            instant: Instant::now(),
            unix_ms: since_1970.as_millis() as u64,
        }
    }
}
