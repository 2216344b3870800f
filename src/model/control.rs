//! The commands about users that nodes publish for all nodes of a cluster, and the two logs that
//! carry them: rooms of the nodes, which no client and no backend can name. Each command is one
//! publication, and its moment is the publication's time.
//!
//! ```text
//! $control            {"do":"disconnect"|"join"|"leave","user":"ada","room":"lobby"}
//! $control.revoked    {"do":"revoke","user":"ada","moment":MS}
//!                     {"do":"revoke","user":"ada","issued_before":MS}
//! ```
//!
//! A new node reads the first log from its present end, and the second from its beginning. They are
//! two, so that no number of commands evicts a revocation. The second log only notifies:
//! revocations are kept in a set of the broker, beside the logs. The time of a revocation's
//! publication is the last time of issue that it covers, which is all that nodes of version 0.1
//! read; their publications have neither `moment` nor `issued_before`, and the time is the moment.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::id::{RoomName, UserName};
use crate::model::identity::LEEWAY;
use crate::model::publication::Publication;
use crate::model::retention::LogLimits;
use crate::model::revocations;
pub use crate::model::revocations::Cutoff;

/// The commands that are kept for nodes that were disconnected.
const COMMANDS: LogLimits = LogLimits {
    size: 10_000,
    age: Duration::from_secs(3600),
};

/// How much longer than the lifetime of a token its revocation is kept: clocks differ by some
/// seconds, at both ends.
pub(crate) const MARGIN: Duration = Duration::from_secs(60);

/// One of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ControlLog {
    Commands,
    Revocations,
}

impl ControlLog {
    pub const ALL: [ControlLog; 2] = [ControlLog::Commands, ControlLog::Revocations];

    pub fn name(self) -> &'static str {
        match self {
            ControlLog::Commands => "$control",
            ControlLog::Revocations => "$control.revoked",
        }
    }

    pub fn room(self) -> RoomName {
        RoomName::of_the_nodes(match self {
            ControlLog::Commands => "",
            ControlLog::Revocations => ".revoked",
        })
    }

    /// The log of a room, if it is one.
    pub fn of(room: &RoomName) -> Option<Self> {
        // Called for each message: the first letter rules out nearly all rooms.
        let mut all = Self::ALL.into_iter();
        all.find(|log| room.is_the_servers() && log.name() == room.as_str())
    }

    /// The limits of the log, for tokens with this lifetime.
    pub fn limits(self, token_lifetime: Duration) -> LogLimits {
        match self {
            ControlLog::Commands => COMMANDS,
            ControlLog::Revocations => LogLimits {
                size: revocations::MOST,
                age: token_lifetime + MARGIN,
            },
        }
    }
}

/// A command about a user, for every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlCommand {
    pub user: UserName,
    pub action: ControlAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAction {
    /// Ends its connections.
    Disconnect,
    /// Refuses the tokens that the cutoff covers, and ends the connections that have one.
    Revoke(Cutoff),
    /// Makes its connections members of a room.
    Join(RoomName),
    Leave(RoomName),
}

#[derive(Deserialize, Serialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Wire<'a> {
    Disconnect {
        #[serde(borrow)]
        user: Cow<'a, str>,
    },
    Revoke {
        #[serde(borrow)]
        user: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        moment: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        issued_before: Option<u64>,
    },
    Join {
        #[serde(borrow)]
        user: Cow<'a, str>,
        #[serde(borrow)]
        room: Cow<'a, str>,
    },
    Leave {
        #[serde(borrow)]
        user: Cow<'a, str>,
        #[serde(borrow)]
        room: Cow<'a, str>,
    },
}

impl ControlCommand {
    /// The log that carries it.
    pub fn log(&self) -> ControlLog {
        match self.action {
            ControlAction::Revoke(_) => ControlLog::Revocations,
            _ => ControlLog::Commands,
        }
    }

    /// The room to join or leave, if it names one.
    pub fn room(&self) -> Option<&RoomName> {
        match &self.action {
            ControlAction::Join(room) | ControlAction::Leave(room) => Some(room),
            ControlAction::Disconnect | ControlAction::Revoke(_) => None,
        }
    }

    /// The publication of this command at a moment, in milliseconds since 1970. A revocation has
    /// its own time.
    pub fn to_publication(&self, moment: u64) -> Publication {
        let user = Cow::Borrowed(self.user.as_str());
        let mut time = moment;
        let wire = match &self.action {
            ControlAction::Disconnect => Wire::Disconnect { user },
            ControlAction::Revoke(cutoff) => {
                time = cutoff.through();
                let (moment, before) = (time.saturating_sub(LEEWAY), time.saturating_add(1));
                Wire::Revoke {
                    user,
                    moment: (!cutoff.is_exact()).then_some(moment),
                    issued_before: cutoff.is_exact().then_some(before),
                }
            }
            ControlAction::Join(room) => Wire::Join {
                user,
                room: room.as_str().into(),
            },
            ControlAction::Leave(room) => Wire::Leave {
                user,
                room: room.as_str().into(),
            },
        };
        Publication {
            user: None,
            time,
            except: None,
            event: None,
            // Serializing texts to memory cannot fail.
            data: serde_json::value::to_raw_value(&wire)
                .unwrap_or_default()
                .into(),
        }
    }

    /// Reads a publication of one of the logs. `None`: it is not a command that this node supports,
    /// or not one for that log.
    pub fn read(log: ControlLog, publication: &Publication) -> Option<Self> {
        let wire: Wire<'_> = serde_json::from_str(publication.data.json()?).ok()?;
        let (user, action) = match wire {
            Wire::Disconnect { user } => (user, ControlAction::Disconnect),
            Wire::Revoke {
                user,
                moment,
                issued_before,
            } => {
                let cutoff = match issued_before {
                    Some(time) => Cutoff::issued_before(time),
                    None => Cutoff::at(moment.unwrap_or(publication.time)),
                };
                (user, ControlAction::Revoke(cutoff))
            }
            Wire::Join { user, room } => (user, ControlAction::Join(ordinary(&room)?)),
            Wire::Leave { user, room } => (user, ControlAction::Leave(ordinary(&room)?)),
        };
        let user = UserName::new(&user).ok()?;
        Some(Self { user, action }).filter(|command| command.log() == log)
    }
}

fn ordinary(name: &str) -> Option<RoomName> {
    let room = RoomName::new(name).ok()?;
    (!room.is_reserved()).then_some(room)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn command_reads_back_in_its_own_log_only() {
        let room = RoomName::new("lobby").unwrap();
        let actions = [
            ControlAction::Disconnect,
            ControlAction::Revoke(Cutoff::at(7)),
            ControlAction::Revoke(Cutoff::issued_before(7)),
            ControlAction::Join(room.clone()),
            ControlAction::Leave(room),
        ];
        for action in actions {
            let user = UserName::new("ada:1").unwrap();
            let command = ControlCommand { user, action };
            let publication = command.to_publication(7);
            for log in ControlLog::ALL {
                let expected = (log == command.log()).then(|| command.clone());
                assert_eq!(
                    ControlCommand::read(log, &publication),
                    expected,
                    "{publication:?}"
                );
            }
        }
    }

    #[test]
    fn revocation_of_version_0_1_is_read_and_its_nodes_read_ours() {
        let data = r#"{"do":"revoke","user":"ada"}"#;
        let mut publication = Publication {
            user: None,
            time: 10_000,
            except: None,
            event: None,
            data: RawValue::from_string(data.into()).unwrap().into(),
        };
        let read = |publication: &Publication| {
            ControlCommand::read(ControlLog::Revocations, publication)
                .unwrap()
                .action
        };
        assert_eq!(
            read(&publication),
            ControlAction::Revoke(Cutoff::at(10_000))
        );
        // Nodes of version 0.1 read `do` and `user`, and revoke what was issued up to the
        // publication's time.
        for (cutoff, time, data) in [
            (
                Cutoff::at(10_000),
                10_000 + LEEWAY,
                r#"{"do":"revoke","user":"ada","moment":10000}"#,
            ),
            (
                Cutoff::issued_before(10_000),
                9_999,
                r#"{"do":"revoke","user":"ada","issued_before":10000}"#,
            ),
        ] {
            let user = UserName::new("ada").unwrap();
            let action = ControlAction::Revoke(cutoff);
            publication = ControlCommand { user, action }.to_publication(1);
            assert_eq!(
                (publication.time, publication.data.json()),
                (time, Some(data))
            );
            assert_eq!(read(&publication), ControlAction::Revoke(cutoff));
        }
    }

    #[test]
    fn other_publications_are_not_commands() {
        for text in [
            "null",
            "[]",
            r#"{"do":"revoke"}"#,
            r#"{"do":"dance","user":"ada"}"#,
            r#"{"do":"disconnect","user":"a\u202e"}"#,
            r#"{"do":"join","user":"ada"}"#,
            r#"{"do":"join","user":"ada","room":"@bob"}"#,
            r#"{"do":"leave","user":"ada","room":"$nodes"}"#,
        ] {
            let data = RawValue::from_string(text.into()).unwrap();
            let publication = Publication {
                user: None,
                time: 1,
                except: None,
                event: None,
                data: data.into(),
            };
            for log in ControlLog::ALL {
                assert_eq!(ControlCommand::read(log, &publication), None, "{text}");
            }
        }
    }

    #[test]
    fn logs_are_found_by_their_names_and_by_no_other() {
        for log in ControlLog::ALL {
            let room = log.room();
            assert_eq!(room.as_str(), log.name());
            assert_eq!(ControlLog::of(&room), Some(log));
            assert!(room.is_the_nodes(), "{room}");
        }
        for name in ["control", "$nodes", "$controls", "$control.x"] {
            let room = RoomName::new(name).unwrap();
            assert_eq!(ControlLog::of(&room), None, "{name}");
        }
    }
}
