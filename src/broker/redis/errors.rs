//! What an error of Redis means for a request: the only place that reads the codes.

use redis::ServerError;

use super::request::RedisRequest;
use crate::broker::Refused;

/// Why Redis has not done a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Redis does not have the script; not done.
    ScriptMissing,
    /// Redis is loading its data or busy; not done, and a retry soon will succeed.
    NotYet,
    /// This server is not a master; not done, and another connection is needed.
    NotMaster,
    /// A retry would fail too.
    Refused(Refused),
}

/// Reads the codes with which Redis refuses a command before it runs. A script that raises an error
/// may have done a part of its work, except when its first lines raise it.
pub(super) fn classify(request: &RedisRequest, error: &ServerError) -> Failure {
    let raised_by_script = error.details().is_some_and(|it| it.contains("script:"));
    let why = match error.code() {
        "NOSCRIPT" => return Failure::ScriptMissing,
        "LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN" | "CLUSTERDOWN" => return Failure::NotYet,
        "READONLY" => return Failure::NotMaster,
        "OOM" => Refused::Full,
        // Raised by our scripts before they change a log.
        "NEWER" => Refused::Newer,
        "CONFLICT" => Refused::Conflict,
        "KEYREUSED" => Refused::KeyReused,
        "MISCONF" | "NOREPLICAS" | "NOAUTH" | "NOPERM" if !raised_by_script => Refused::Unavailable,
        _ if request.may_fail_in_part() => Refused::Unknown,
        _ => Refused::Unavailable,
    };
    Failure::Refused(why)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use redis::Value;

    use super::*;
    use crate::broker::redis::presence::agent::PresenceCommand;
    use crate::broker::redis::presence::reaper::ReapStep;
    use crate::broker::redis::wire;
    use crate::broker::{Publish, PublishRequest, Range, Read, Source};
    use crate::model::id::{RoomName, Ticket};

    fn failure(request: &RedisRequest, line: &str) -> String {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap() {
            Value::ServerError(error) => match classify(request, &error) {
                Failure::Refused(why) => format!("{why:?}"),
                other => format!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusals_of_redis_are_classified_by_whether_the_command_may_have_run() {
        let room = RoomName::new("r").unwrap();
        let publish = RedisRequest::Publish(PublishRequest {
            ticket: Ticket(1),
            source: Source::Node,
            publish: Publish {
                room: room.clone(),
                key: None,
                condition: None,
                ephemeral: false,
                others: false,
                publication: Arc::new(wire::unreadable()),
            },
        });
        let read = RedisRequest::Read(Read {
            ticket: Ticket(2),
            source: Source::Node,
            room,
            range: Range::Top,
            limit: 10,
        });
        let lease = "2a.1".to_owned();
        let presence = RedisRequest::Presence(PresenceCommand::Reap(ReapStep::Rooms { lease }));
        // The line, what it means for a publish, and for a request whose effect does not matter.
        for (line, expected, repeated) in [
            (
                "NOSCRIPT No matching script.",
                "ScriptMissing",
                "ScriptMissing",
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                "NotYet",
                "NotYet",
            ),
            ("BUSY Redis is busy running a script.", "NotYet", "NotYet"),
            (
                "READONLY You can't write against a read only replica.",
                "NotMaster",
                "NotMaster",
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "Full",
                "Full",
            ),
            (
                "MISCONF Errors writing to the AOF file",
                "Unavailable",
                "Unavailable",
            ),
            (
                "NOPERM this user has no permissions to run 'evalsha'",
                "Unavailable",
                "Unavailable",
            ),
            (
                "NOPERM no permissions script: 3f, on @user_script:40.",
                "Unknown",
                "Unavailable",
            ),
            (
                "ERR something script: 3f, on @user_script:40.",
                "Unknown",
                "Unavailable",
            ),
        ] {
            assert_eq!(failure(&publish, line), expected, "{line}");
            assert_eq!(failure(&read, line), repeated, "{line}");
            assert_eq!(failure(&presence, line), repeated, "{line}");
        }
    }
}
