//! The HTTP API as plain logic: what a backend may ask, who is let in, and how the answers look.
//! `routes` is the table of what there is, `decode` makes a [`Call`] of a request, `answer` makes a
//! response of what came back (`census` writes what only backends ask for), `gate` judges who asks.
//! The shapes and the codes of errors are those of the native protocol.
//!
//! A call is one command or several. The door gives each to the dispatcher with a [`ApiCaller`], on
//! which the answer comes back; a caller that has gone costs nothing but the answer.

mod answer;
mod cluster_queries;
mod decode;
mod gate;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::model::cluster_query::{ClusterQuery, QueryResult};
use crate::model::control::ControlCommand;
use crate::model::id::{RoomName, UserName};
use crate::model::publication::Publication;
use crate::protocol::{CommandError, Reply, native};

pub use answer::{Waiting, refused, status};
pub use decode::Asked;
pub use gate::{Gate, check_type};
pub use routes::{Found, ROUTES, Route, find};

/// Where the figures of the node are read, in the text format of Prometheus.
pub const METRICS_PATH: &str = "/metrics";

/// Commands of one call at most: what a call may make the node remember.
pub const COMMANDS_PER_CALL: usize = 100;

/// One thing that a backend asks.
#[derive(Debug)]
pub enum Command {
    Publish(Publish),
    /// The newest messages below `before` (none: the newest of all).
    History {
        room: RoomName,
        before: Option<u64>,
        limit: usize,
    },
    /// Who is in the room, by name, behind `after` (none: from the first).
    Members {
        room: RoomName,
        after: Option<UserName>,
        limit: usize,
    },
    /// What the whole cluster has to say together.
    Census(ClusterQuery),
    /// Do something with a user, on every node.
    ControlCommand(ControlCommand),
}

/// Something to be said in a room.
#[derive(Debug)]
pub struct Publish {
    pub room: RoomName,
    /// Makes a retry harmless; 1 to 64 bytes.
    pub key: Option<Arc<str>>,
    /// Not kept in the log: no offset, at most once.
    pub ephemeral: bool,
    /// Shared by all rooms that one call says it in.
    pub publication: Arc<Publication>,
}

/// A request that was understood.
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
    /// The commands in order, and what is to be known of them when their answers come.
    pub fn into_parts(self) -> (Vec<Command>, Waiting) {
        let waiting = Waiting::new(&self.commands, self.form);
        (self.commands, waiting)
    }
}

/// The answer to one command: a JSON object, or why not.
pub type Answer = Result<Bytes, CommandError>;

/// Where the answer to one command of a call goes.
#[derive(Clone, Debug)]
pub struct ApiCaller {
    /// Which command of the call it is.
    place: usize,
    answers: flume::Sender<(usize, Answer)>,
}

impl ApiCaller {
    /// For one command of a call; the other end of `answers` must hold as many as the call has
    /// commands.
    pub fn new(place: usize, answers: flume::Sender<(usize, Answer)>) -> Self {
        Self { place, answers }
    }

    /// Answers, if anyone still listens.
    pub fn tell(&self, reply: &Reply<'_>) {
        let answer = match reply {
            Reply::Error(error) => Err((*error).clone()),
            reply => Ok(native::bare(reply)),
        };
        self.answer(answer);
    }

    /// Answers a question for the whole cluster.
    pub fn tell_found(&self, finding: &QueryResult) {
        self.answer(Ok(cluster_queries::encode(finding)));
    }

    fn answer(&self, answer: Answer) {
        // A caller that hung up, or whose time is over, needs none.
        let _ = self.answers.try_send((self.place, answer));
    }
}
