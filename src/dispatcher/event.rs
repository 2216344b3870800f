//! What reaches the dispatcher, and the time at which it is dealt with.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::api;
use crate::broker::BrokerEvent;
use crate::dispatcher::outbox::Outbox;
use crate::model::id::SessionId;
use crate::model::identity::Identity;
use crate::model::publication::Publication;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::{Command, Protocol, RequestId};

/// How often the server sends [`Event::Tick`]; deadlines are kept to this precision.
pub const TICK: Duration = Duration::from_millis(250);

/// What reaches the dispatcher.
#[derive(Debug)]
pub enum Event {
    /// A connection has shaken hands; its writer drains the other end of `outbox`.
    Opened {
        session: SessionId,
        protocol: Protocol,
        /// Who the client is, if it said so in the handshake.
        identity: Option<Arc<Identity>>,
        outbox: Outbox,
    },
    /// The client has shown who it is, or that it still is.
    Identified {
        session: SessionId,
        id: Option<RequestId>,
        identity: Arc<Identity>,
    },
    Command {
        session: SessionId,
        id: Option<RequestId>,
        command: Command,
    },
    /// A backend asks one thing of its call.
    Call {
        caller: api::ApiCaller,
        command: api::Command,
    },
    /// The writer has written everything, as was asked by [`Outbox::want_drained`].
    Drained(SessionId),
    /// The reader has ended. `farewell`: the reason to be told, when it was not the client's wish.
    Closed {
        session: SessionId,
        farewell: Option<Disconnect>,
    },
    Broker(BrokerEvent),
    /// What the node tells of itself in `$nodes`.
    Report(Arc<Publication>),
    /// [`TICK`] has passed.
    Tick,
    /// The node stops: say farewell to everyone within about this time, and end.
    Drain(Duration),
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
