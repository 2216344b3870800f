//! The HTTP API as plain logic: its requests, its authorization and its responses. `routes` is the
//! table of endpoints, `decode` turns a request into a [`Call`], `answer` turns the answers into a
//! response (`cluster_queries` encodes the results of cluster queries), `gate` authorizes requests.
//! The JSON objects and the error codes are those of the native protocol.
//!
//! A call is one command or several. The HTTP connection sends each to the dispatcher with an
//! [`ApiCaller`], on which the answer comes back; if the caller has hung up, the answer is dropped.

mod answer;
mod cluster_queries;
mod decode;
mod gate;
mod routes;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::dispatcher::ReplySink;
use crate::model::source::CallerId;
use crate::protocol::{Command, CommandError, Reply, json};

pub use answer::PendingAnswers;

pub(crate) use answer::refused;
pub use decode::ApiRequest;
pub use gate::Gate;
pub(crate) use gate::check_type;
pub use routes::{RouteMatch, find, takes_body};

/// The path of the node's metrics, in the text format of Prometheus.
pub(crate) const METRICS_PATH: &str = "/metrics";

/// The most commands of one call, which bounds the memory that a call may take.
pub const COMMANDS_PER_CALL: usize = 100;

/// A decoded request.
#[derive(Debug)]
pub struct Call {
    commands: Vec<Command>,
    form: Form,
}

/// How the answers are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The one answer is the body.
    One,
    /// `{"results":[…]}`, in the order of the commands.
    Results,
}

impl Call {
    /// The commands in order, and the collector of their answers.
    pub fn into_parts(self) -> (Vec<Command>, PendingAnswers) {
        let waiting = PendingAnswers::new(&self.commands, self.form);
        (self.commands, waiting)
    }
}

/// The answer to one command: a JSON object, or an error.
pub(crate) type Answer = Result<Bytes, CommandError>;

/// Receives the answer to one command of a call.
#[derive(Debug)]
pub(crate) struct ApiCaller {
    /// Whose call it is.
    caller: CallerId,
    /// The index of the command in its call.
    index: usize,
    answers: flume::Sender<(usize, Answer)>,
}

impl ApiCaller {
    /// For one command of a call; the other end of `answers` must hold as many as the call has
    /// commands.
    pub(crate) fn new(
        caller: CallerId,
        index: usize,
        answers: flume::Sender<(usize, Answer)>,
    ) -> Self {
        Self {
            caller,
            index,
            answers,
        }
    }
}

impl ReplySink for ApiCaller {
    fn caller(&self) -> CallerId {
        self.caller
    }

    fn reply(&self, reply: &Reply<'_>) {
        let answer = match reply {
            Reply::Error(error) => Err((*error).clone()),
            Reply::QueryResult(result) => Ok(cluster_queries::encode(result)),
            reply => Ok(json::object(reply)),
        };
        // A caller that hung up, or whose call has timed out, needs no answer.
        let _ = self.answers.try_send((self.index, answer));
    }
}
