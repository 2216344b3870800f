//! Calls of the program that embeds a node: publishes, queries, commands about users, and
//! subscriptions. Each is a command to the dispatcher like those of the HTTP API, without HTTP: a
//! [`ProgramCaller`] receives the reply.

mod control;
mod frames;
mod publish;
mod query;
mod session;
mod subscription;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::dispatcher::{Event, ReplySink, ReplyTo};
use crate::model::id::RoomName;
use crate::model::publication::Refused;
use crate::model::readiness::ReadinessState;
use crate::model::source::CallerId;
use crate::protocol::{Code, Command, CommandError, Reply};
use crate::runtime;
use crate::transport::Node;

pub use publish::PublishOptions;
pub use query::HistoryPage;
pub use subscription::{Subscription, SubscriptionError};

/// Calls a node from inside its program. Clones are handles of the same node, and cheap: give one
/// to each task that publishes or subscribes.
///
/// A call needs no token and is allowed everything that a backend with a key of the HTTP API is.
/// It has a deadline: the node's `publish_timeout` and two seconds, or its `join_timeout` and two
/// seconds for [`subscribe`](Self::subscribe). While the node cannot reach its Redis, calls wait
/// for it up to that deadline. A dropped call is not taken back: a publish may still happen.
///
/// # Errors
/// Every call returns an [`Error`](crate::Error) with a code for the program and a sentence for
/// people:
///
/// | code | meaning |
/// |---|---|
/// | `BadRequest` | an argument is invalid; the same call fails again |
/// | `Forbidden` | the room belongs to the nodes, or is the personal room of a user |
/// | `Conflict` | a publish with a condition: the room is at another position |
/// | `KeyReused` | the key of the publish was used for other data, and nothing has happened |
/// | `Limit` | a documented limit is reached |
/// | `Unavailable` | nothing has happened; try again. Also after the node has ended |
/// | `Unknown` | no answer in time: it happened or it did not. Retry a publish with the same key |
/// | `Full` | Redis is out of memory, and nothing has happened |
#[derive(Clone)]
pub struct Handle {
    node: Arc<Node>,
    /// How long a join may take, with the same slack as other calls.
    join_timeout: Duration,
}

impl Handle {
    /// `join_timeout` includes the time that the channels to the dispatcher may take.
    pub(crate) fn new(node: Arc<Node>, join_timeout: Duration) -> Self {
        Self { node, join_timeout }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Whether the node accepts clients now. It does not while it cannot reach its Redis, and when
    /// it is draining; a health check of the program may return it.
    pub fn is_ready(&self) -> bool {
        self.node.readiness.state() == ReadinessState::Ready
    }

    /// Sends a command to the dispatcher and waits for its reply, which `read` converts. Without a
    /// reply in time the result is `missing`.
    async fn call<T: Send + 'static>(
        &self,
        command: Command,
        missing: Refused,
        read: fn(&Reply<'_>) -> Option<T>,
    ) -> Result<T, CommandError> {
        let (answers, answer) = flume::bounded(1);
        let reply_to = ReplyTo::Caller(Arc::new(ProgramCaller { answers, read }));
        let exchange = async {
            let event = Event::Command { reply_to, command };
            if self.node.inbox.send_async(event).await.is_err() {
                return Err(ended());
            }
            let answer = answer.recv_async().await;
            answer.unwrap_or_else(|_| Err(missing.into()))
        };
        let answer = runtime::timeout(self.node.limits.call_timeout, exchange).await;
        answer.unwrap_or_else(|_| Err(missing.into()))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// Receives the reply to one call.
struct ProgramCaller<T> {
    answers: flume::Sender<Result<T, CommandError>>,
    /// The part of the reply that the call returns. `None` for a reply to another command, which
    /// the dispatcher never sends.
    read: fn(&Reply<'_>) -> Option<T>,
}

impl<T> fmt::Debug for ProgramCaller<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgramCaller").finish_non_exhaustive()
    }
}

impl<T: Send> ReplySink for ProgramCaller<T> {
    fn caller(&self) -> CallerId {
        CallerId::PROGRAM
    }

    fn reply(&self, reply: &Reply<'_>) {
        let answer = match reply {
            Reply::Error(error) => Some(Err((*error).clone())),
            reply => (self.read)(reply).map(Ok),
        };
        if let Some(answer) = answer {
            // A call that has timed out, or was dropped, needs no answer.
            let _ = self.answers.try_send(answer);
        }
    }
}

/// The node has been drained, or has failed.
fn ended() -> CommandError {
    CommandError::new(Code::Unavailable, "the node has ended")
}

fn bad_request(reason: impl Into<std::borrow::Cow<'static, str>>) -> CommandError {
    CommandError::new(Code::BadRequest, reason)
}

/// A room that the program may change or read like a backend: any but the server's own.
fn room_name(name: &str) -> Result<RoomName, CommandError> {
    let room = RoomName::new(name)?;
    if room.is_the_servers() {
        let reason = "rooms that begin with $ belong to the server";
        return Err(CommandError::new(Code::Forbidden, reason));
    }
    Ok(room)
}
