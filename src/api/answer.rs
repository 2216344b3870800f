//! Combines the dispatcher's answers to the commands of a call into one response; a command without
//! an answer in time gets an error. This file has the only table from error codes to statuses.

use bytes::Bytes;

use super::{Answer, Form};
use crate::http::{Response, StatusCode};
use crate::model::cluster_query::ClusterQuery;
use crate::model::id::RoomName;
use crate::model::publication::Refused;
use crate::protocol::{Code, Command, CommandError};

/// The `Retry-After` of an unavailable room, in seconds.
const RETRY_AFTER: &str = "1";

/// The status of each code.
pub(crate) fn status(code: Code) -> StatusCode {
    match code {
        Code::BadRequest => StatusCode::BAD_REQUEST,
        Code::Unauthorized | Code::Expired => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::Limit => StatusCode::TOO_MANY_REQUESTS,
        Code::Conflict | Code::KeyReused => StatusCode::CONFLICT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown => StatusCode::GATEWAY_TIMEOUT,
        Code::Full => StatusCode::INSUFFICIENT_STORAGE,
    }
}

/// The response to a call that was not executed.
pub(crate) fn refused(error: &CommandError) -> Response {
    let response = Response::coded(status(error.code), error.code.as_str(), &error.reason);
    uncached(error.code, response)
}

fn uncached(code: Code, response: Response) -> Response {
    let response = response.with("Cache-Control", "no-store");
    match code {
        Code::Unavailable => response.with("Retry-After", RETRY_AFTER),
        _ => response,
    }
}

/// Collects the answers to a call's commands.
#[derive(Debug)]
pub struct PendingAnswers {
    form: Form,
    commands: Vec<PendingCommand>,
}

#[derive(Debug)]
struct PendingCommand {
    /// The room of the command, if it has one.
    room: Option<RoomName>,
    /// Whether the command changes something, and so may have taken effect without an answer.
    changes: bool,
    sent: bool,
    answer: Option<Answer>,
}

impl PendingAnswers {
    pub(super) fn new(commands: &[Command], form: Form) -> Self {
        let pending = |command: &Command| {
            let (room, changes) = match command {
                Command::Publish(publish) => (Some(publish.room.clone()), true),
                Command::History(query) => (Some(query.room.clone()), false),
                Command::Members(query) => (Some(query.room.clone()), false),
                Command::ClusterQuery(query) => match &**query {
                    ClusterQuery::Room(room) => (Some(room.clone()), false),
                    _ => (None, false),
                },
                Command::Control(command) => (command.room().cloned(), true),
                // No route has these.
                Command::Join { room, .. } | Command::Leave { room } => (Some(room.clone()), true),
                Command::Ping => (None, false),
            };
            PendingCommand {
                room,
                changes,
                sent: false,
                answer: None,
            }
        };
        let commands = commands.iter().map(pending).collect();
        Self { form, commands }
    }

    /// Marks the command as sent: from now on, a missing answer does not mean that nothing
    /// happened.
    pub fn sent(&mut self, index: usize) {
        if let Some(pending) = self.commands.get_mut(index) {
            pending.sent = true;
        }
    }

    /// Marks the command as not sent after all.
    pub fn not_sent(&mut self, index: usize) {
        if let Some(pending) = self.commands.get_mut(index) {
            pending.sent = false;
        }
    }

    /// Stores the answer to the command at this index.
    pub fn put(&mut self, index: usize, answer: Answer) {
        if let Some(pending) = self.commands.get_mut(index) {
            pending.answer = Some(answer);
        }
    }

    /// The response, once all answers have arrived or the call has timed out. For several commands
    /// the status is 200 if at least one was executed, else that of the first.
    pub fn response(self) -> Response {
        let form = self.form;
        let mut answers: Vec<(Option<RoomName>, Answer)> = self
            .commands
            .into_iter()
            .map(PendingCommand::settle)
            .collect();
        match form {
            Form::One => match answers.pop() {
                Some((_, Ok(json))) => ok(json),
                Some((_, Err(error))) => refused(&error),
                // No call is empty.
                None => Response::empty(StatusCode::INTERNAL_SERVER_ERROR),
            },
            Form::Results => results(&answers),
        }
    }
}

impl PendingCommand {
    fn settle(self) -> (Option<RoomName>, Answer) {
        let missing = if self.sent && self.changes {
            Refused::Unknown
        } else {
            Refused::Unavailable
        };
        let answer = self.answer.unwrap_or_else(|| Err(missing.into()));
        (self.room, answer)
    }
}

fn ok(json: Bytes) -> Response {
    Response::new(StatusCode::OK, "application/json", json).with("Cache-Control", "no-store")
}

fn results(answers: &[(Option<RoomName>, Answer)]) -> Response {
    let mut json = Vec::from(&b"{\"results\":["[..]);
    for (index, (room, answer)) in answers.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        match answer {
            Ok(answer) => json.extend_from_slice(answer),
            Err(error) => {
                let failed = Failed {
                    room: room.as_ref().map(RoomName::as_str),
                    code: error.code.as_str(),
                    reason: &error.reason,
                };
                // Writing plain structs to memory cannot fail.
                json.extend(serde_json::to_vec(&failed).unwrap_or_default());
            }
        }
    }
    json.extend_from_slice(b"]}");
    let first = answers
        .first()
        .and_then(|(_, answer)| answer.as_ref().err());
    match first {
        Some(error) if answers.iter().all(|(_, answer)| answer.is_err()) => {
            let response = Response::new(status(error.code), "application/json", json);
            uncached(error.code, response)
        }
        _ => ok(json.into()),
    }
}

/// A failed command of a call with several.
#[derive(serde::Serialize)]
struct Failed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    code: &'a str,
    reason: &'a str,
}
