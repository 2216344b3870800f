//! Answers put together: what the dispatcher said to each command of a call, or that it said
//! nothing in time, becomes one response. The one table of which code is which status stands here.

use bytes::Bytes;

use super::{Answer, Command, Form};
use crate::http::{Response, Status};
use crate::model::cluster_query::ClusterQuery;
use crate::model::id::RoomName;
use crate::model::publication::Refused;
use crate::protocol::{Code, CommandError};

/// How soon asking again makes sense when a room cannot be reached, in seconds.
const RETRY_AFTER: &str = "1";

/// The status of each code.
pub fn status(code: Code) -> Status {
    match code {
        Code::BadRequest => Status::BadRequest,
        Code::Unauthorized | Code::Expired => Status::Unauthorized,
        Code::Forbidden => Status::Forbidden,
        Code::Limit => Status::TooManyRequests,
        Code::Unavailable => Status::ServiceUnavailable,
        Code::Unknown => Status::GatewayTimeout,
        Code::Full => Status::InsufficientStorage,
    }
}

/// The response to a call that was not carried out.
pub fn refused(error: &CommandError) -> Response {
    let response = Response::coded(status(error.code), error.code.as_str(), &error.reason);
    never_kept(error.code, response)
}

fn never_kept(code: Code, response: Response) -> Response {
    let response = response.with("Cache-Control", "no-store");
    match code {
        Code::Unavailable => response.with("Retry-After", RETRY_AFTER),
        _ => response,
    }
}

/// What is known of a call's commands while their answers come.
#[derive(Debug)]
pub struct Waiting {
    form: Form,
    commands: Vec<One>,
}

#[derive(Debug)]
struct One {
    /// The room that it is about, if it is about one.
    room: Option<RoomName>,
    /// Whether it may have happened although nobody said so.
    changes: bool,
    asked: bool,
    answer: Option<Answer>,
}

impl Waiting {
    pub(super) fn new(commands: &[Command], form: Form) -> Self {
        let one = |command: &Command| {
            let (room, changes) = match command {
                Command::Publish(publish) => (Some(publish.room.clone()), true),
                Command::History { room, .. } | Command::Members { room, .. } => {
                    (Some(room.clone()), false)
                }
                Command::Census(ClusterQuery::Room(room)) => (Some(room.clone()), false),
                Command::Census(_) => (None, false),
                Command::ControlCommand(order) => (order.room().cloned(), true),
            };
            One {
                room,
                changes,
                asked: false,
                answer: None,
            }
        };
        let commands = commands.iter().map(one).collect();
        Self { form, commands }
    }

    /// The command is on its way: from here on, silence does not mean that nothing happened.
    pub fn asked(&mut self, place: usize) {
        if let Some(one) = self.commands.get_mut(place) {
            one.asked = true;
        }
    }

    /// The command did not get on its way after all.
    pub fn not_asked(&mut self, place: usize) {
        if let Some(one) = self.commands.get_mut(place) {
            one.asked = false;
        }
    }

    /// The answer to the command at this place.
    pub fn put(&mut self, place: usize, answer: Answer) {
        if let Some(one) = self.commands.get_mut(place) {
            one.answer = Some(answer);
        }
    }

    /// The response, now that all answers are there or the time is over. Of several commands the
    /// status is 200 if one was carried out, else that of the first.
    pub fn response(self) -> Response {
        let form = self.form;
        let mut answers: Vec<(Option<RoomName>, Answer)> =
            self.commands.into_iter().map(One::settle).collect();
        match form {
            Form::One => match answers.pop() {
                Some((_, Ok(json))) => found(json),
                Some((_, Err(error))) => refused(&error),
                // No call is empty.
                None => Response::empty(Status::InternalServerError),
            },
            Form::Results => results(&answers),
        }
    }
}

impl One {
    fn settle(self) -> (Option<RoomName>, Answer) {
        let silence = match self.asked && self.changes {
            true => Refused::Unknown,
            false => Refused::Unavailable,
        };
        let answer = self.answer.unwrap_or_else(|| Err(silence.into()));
        (self.room, answer)
    }
}

fn found(json: Bytes) -> Response {
    Response::new(Status::Ok, "application/json", json).with("Cache-Control", "no-store")
}

fn results(answers: &[(Option<RoomName>, Answer)]) -> Response {
    let mut json = Vec::from(&b"{\"results\":["[..]);
    for (place, (room, answer)) in answers.iter().enumerate() {
        if place > 0 {
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
                // Writing to memory what we composed ourselves cannot fail.
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
            never_kept(error.code, response)
        }
        _ => found(json.into()),
    }
}

/// A command of several that was not carried out.
#[derive(serde::Serialize)]
struct Failed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    code: &'a str,
    reason: &'a str,
}
