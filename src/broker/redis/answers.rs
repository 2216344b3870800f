//! Reads the answers of Redis: each becomes an event for the dispatcher, or the reaction to a
//! failure.

use std::sync::Arc;
use std::time::Duration;

use redis::{ServerError, Value};

use super::request_queue::RedisRequest;
use super::{cluster_queries, member_pages, revoked};
use crate::broker::redis::wire::{self, Format, WireError};
use crate::broker::{BrokerEvent, Page, Publication, Range, Read, Refused};
use crate::model::id::{Epoch, Position};

/// What an answer to a request means.
#[derive(Debug)]
pub enum Outcome {
    /// It is done, with the event for the dispatcher. `junk`: how many entries of the page could
    /// not be read.
    Done {
        event: Option<BrokerEvent>,
        junk: usize,
    },
    /// Redis does not have the script; not done.
    ScriptMissing,
    /// Redis is loading its data or busy; not done, and a retry soon will succeed.
    NotYet,
    /// This server is not a master; not done, and another connection is needed.
    NotMaster,
    /// It failed, and a retry would fail too.
    Failed { why: Refused, error: String },
}

/// Reads the answer to a request, for a node that reads formats up to `newest`.
pub fn judge(request: &RedisRequest, answer: Value, newest: Format) -> Outcome {
    let answer = match answer {
        Value::ServerError(error) => return judge_error(request, &error),
        answer => answer,
    };
    let done = |event| Outcome::Done { event, junk: 0 };
    match request {
        RedisRequest::Probe => done(None),
        RedisRequest::Publish(publish) => {
            let position = if publish.publish.ephemeral {
                Some(Position {
                    epoch: Epoch::UNKNOWN,
                    offset: 0,
                })
            } else {
                read_position(answer)
            };
            match position {
                Some(position) => done(Some(BrokerEvent::Published {
                    ticket: publish.ticket,
                    result: Ok(position),
                })),
                None => foreign(Refused::Unknown),
            }
        }
        RedisRequest::Members(members) => match member_pages::read(answer) {
            Some((page, junk)) => Outcome::Done {
                event: Some(BrokerEvent::MemberPage {
                    ticket: members.ticket,
                    result: Ok(page),
                }),
                junk,
            },
            None => foreign(Refused::Unavailable),
        },
        RedisRequest::ClusterQuery(request) => {
            match cluster_queries::read(&request.query, answer) {
                Some((found, junk)) => Outcome::Done {
                    event: Some(BrokerEvent::QueryResult {
                        ticket: request.ticket,
                        result: Ok(found),
                    }),
                    junk,
                },
                None => foreign(Refused::Unavailable),
            }
        }
        RedisRequest::Revoke(revoke) => match revoked::read_written(answer) {
            Some(users) => done(Some(BrokerEvent::Revoked {
                ticket: revoke.ticket,
                result: Ok(users),
            })),
            None => foreign(Refused::Unknown),
        },
        RedisRequest::ReadRevocations(read) => match revoked::read_all(answer) {
            Some((stored, junk)) => Outcome::Done {
                event: Some(BrokerEvent::Revocations {
                    ticket: read.ticket,
                    result: Ok(stored),
                }),
                junk,
            },
            None => foreign(Refused::Unavailable),
        },
        RedisRequest::Read(read) => match read_page(read, answer, newest) {
            Ok((page, junk)) => Outcome::Done {
                event: Some(BrokerEvent::Page {
                    ticket: read.ticket,
                    result: Ok(page),
                }),
                junk,
            },
            Err(Refused::Newer) => Outcome::Failed {
                why: Refused::Newer,
                error: Refused::Newer.to_string(),
            },
            Err(why) => foreign(why),
        },
    }
}

fn foreign(why: Refused) -> Outcome {
    Outcome::Failed {
        why,
        error: "the answer is not from our scripts".to_owned(),
    }
}

/// Reads the codes with which Redis refuses a command before it runs. A script that raises an error
/// may have done a part of its work, except when its first lines raise it.
fn judge_error(request: &RedisRequest, error: &ServerError) -> Outcome {
    let details = error.details().unwrap_or_default();
    let why = match error.code() {
        "NOSCRIPT" => return Outcome::ScriptMissing,
        "LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN" | "CLUSTERDOWN" => return Outcome::NotYet,
        "READONLY" => return Outcome::NotMaster,
        "OOM" => Refused::Full,
        // Raised by our scripts before their first write.
        "NEWER" => Refused::Newer,
        "MISCONF" | "NOREPLICAS" | "NOAUTH" | "NOPERM" => Refused::Unavailable,
        _ if request.is_read() => Refused::Unavailable,
        _ => Refused::Unknown,
    };
    let why = match why {
        Refused::Unavailable if details.contains("script:") => Refused::Unknown,
        why => why,
    };
    Outcome::Failed {
        why,
        error: format!("{} {details}", error.code()),
    }
}

fn read_position(answer: Value) -> Option<Position> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [epoch, offset] = <[Value; 2]>::try_from(parts).ok()?;
    Some(Position {
        epoch: read_epoch(&epoch)?,
        offset: read_offset(&offset)?,
    })
}

/// The page, and how many of its entries were junk.
fn read_page(read: &Read, answer: Value, newest: Format) -> Result<(Page, usize), Refused> {
    let (mut page, entries) = read_frame(answer).ok_or(Refused::Unavailable)?;
    let mut found = read_entries(entries, newest).ok_or(Refused::Unavailable)?;
    let backwards = matches!(read.range, Range::Before(_));
    // A page needs its first message, and a page of the newest ones must not have a hole.
    if found.newer && (backwards || found.entries.is_empty()) {
        return Err(Refused::Newer);
    }
    let entries = &mut found.entries;
    keep_contiguous(entries, backwards);
    if backwards {
        entries.reverse();
    }
    // A log with a hole reaches back only to the end of the hole, for a position before it.
    if let Range::After(delivered) = read.range
        && delivered.epoch != Epoch::UNKNOWN
        && read.limit > 0
    {
        let next = page.ends.page_begins_behind(delivered, page.top) + 1;
        let first = entries.first().map(|(offset, _)| *offset);
        let first = first.unwrap_or(page.top.offset + 1);
        if first > next && next <= page.top.offset {
            page.first = page.first.max(first);
        }
    }
    page.messages = found.entries;
    Ok((page, found.junk))
}

/// The page without its messages, and the entries as they are.
fn read_frame(answer: Value) -> Option<(Page, Vec<Value>)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [epoch, top, first, ends, expires_in, entries] = <[Value; 6]>::try_from(parts).ok()?;
    let Value::Array(entries) = entries else {
        return None;
    };
    let page = Page {
        top: Position {
            epoch: read_epoch(&epoch)?,
            offset: read_offset(&top)?,
        },
        first: read_offset(&first)?,
        ends: wire::decode_ends(bytes(&ends)?),
        expires_in: Duration::from_millis(read_offset(&expires_in)?),
        messages: Vec::new(),
    };
    Some((page, entries))
}

type Entries = Vec<(u64, Arc<Publication>)>;

/// The entries up to the first in a newer format.
struct Found {
    entries: Entries,
    junk: usize,
    newer: bool,
}

fn read_entries(values: Vec<Value>, newest: Format) -> Option<Found> {
    let mut found = Found {
        entries: Vec::with_capacity(values.len() / 2),
        junk: 0,
        newer: false,
    };
    let mut values = values.into_iter();
    while let (Some(id), Some(body)) = (values.next(), values.next()) {
        let id = bytes(&id)?;
        let offset = wire::decode_offset(id.split(|&byte| byte == b'-').next()?)?;
        let publication = match wire::decode_body(bytes(&body)?, newest) {
            Ok(publication) => publication,
            Err(WireError::Newer(_)) => {
                found.newer = true;
                break;
            }
            Err(_) => {
                found.junk += 1;
                wire::unreadable()
            }
        };
        found.entries.push((offset, Arc::new(publication)));
    }
    Some(found)
}

/// Ends the page before the first hole.
fn keep_contiguous(entries: &mut Entries, backwards: bool) {
    let follows = |pair: &[(u64, Arc<Publication>)]| {
        if backwards {
            pair[0].0 == pair[1].0 + 1
        } else {
            pair[1].0 == pair[0].0 + 1
        }
    };
    if let Some(hole) = entries.windows(2).position(|pair| !follows(pair)) {
        entries.truncate(hole + 1);
    }
}

fn read_epoch(value: &Value) -> Option<Epoch> {
    Some(wire::decode_epoch(bytes(value)?)).filter(|epoch| *epoch != Epoch::UNKNOWN)
}

/// Reads a whole number as a script writes it.
pub fn read_offset(value: &Value) -> Option<u64> {
    wire::decode_offset(bytes(value)?)
}

/// Reads a text.
pub fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Publish, PublishRequest};
    use crate::model::id::{RoomName, Ticket};

    fn publish() -> RedisRequest {
        RedisRequest::Publish(PublishRequest {
            ticket: Ticket(1),
            source: None,
            publish: Publish {
                room: RoomName::new("r").unwrap(),
                key: None,
                ephemeral: false,
                others: false,
                publication: Arc::new(wire::unreadable()),
            },
        })
    }

    fn read(range: Range) -> RedisRequest {
        RedisRequest::Read(Read {
            ticket: Ticket(2),
            room: RoomName::new("r").unwrap(),
            range,
            limit: 10,
        })
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn page(entries: &[&str]) -> Value {
        let entries = entries
            .iter()
            .flat_map(|id| [text(id), text("1{\"t\":1,\"d\":1}")]);
        Value::Array(vec![
            text("000000000000002a"),
            text("9"),
            text("1"),
            text(" 0000000000000001 3"),
            text("5000"),
            Value::Array(entries.collect()),
        ])
    }

    fn read_back(range: Range, entries: &[&str]) -> (u64, Vec<u64>) {
        match judge(&read(range), page(entries), Format::FIRST) {
            Outcome::Done {
                event:
                    Some(BrokerEvent::Page {
                        result: Ok(page), ..
                    }),
                ..
            } => (
                page.first,
                page.messages.iter().map(|(offset, _)| *offset).collect(),
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn page_is_contiguous_and_ascending() {
        let after = Range::After(Position {
            epoch: Epoch::new(0x2a),
            offset: 4,
        });
        assert_eq!(read_back(after, &["5-0", "6-0", "8-0"]), (1, vec![5, 6]));
        assert_eq!(read_back(after, &["7-0", "8-0"]), (7, vec![7, 8]));
        assert_eq!(
            read_back(after, &[]),
            (10, vec![]),
            "up to the top all is missing"
        );
        let at_the_top = Range::After(Position {
            epoch: Epoch::new(0x2a),
            offset: 9,
        });
        assert_eq!(read_back(at_the_top, &[]), (1, vec![]));
        let ended = |offset| {
            Range::After(Position {
                epoch: Epoch::new(1),
                offset,
            })
        };
        assert_eq!(read_back(ended(2), &["3-0", "4-0"]), (1, vec![3, 4]));
        assert_eq!(read_back(ended(7), &["4-0", "5-0"]), (1, vec![4, 5]));
        assert_eq!(read_back(ended(2), &["5-0"]), (5, vec![5]));
        let newest = Range::Before(None);
        assert_eq!(read_back(newest, &["9-0", "8-0", "6-0"]), (1, vec![8, 9]));
    }

    #[test]
    fn page_ends_before_the_first_entry_in_a_newer_format() {
        let page = |bodies: &[&str]| {
            let ids = (5..).zip(bodies);
            let entries = ids.flat_map(|(id, body)| [text(&format!("{id}-0")), text(body)]);
            let frame = ["000000000000002a", "9", "1", "", "0"].map(text);
            let entries = Value::Array(entries.collect());
            Value::Array(frame.into_iter().chain([entries]).collect())
        };
        let [one, two, junk] = ["1{\"t\":1,\"d\":1}", "2{\"t\":1,\"d\":1}", "x"];
        let after = Range::After(Position {
            epoch: Epoch::new(0x2a),
            offset: 4,
        });
        let newest = Range::Before(None);
        let second = Format::new(2).unwrap();
        // What the page has: how many messages, how many of them junk; or a refusal.
        for (range, format, bodies, expected) in [
            (after, Format::FIRST, vec![one, junk, one], Ok((3, 1))),
            (after, Format::FIRST, vec![one, junk, two, one], Ok((2, 1))),
            (after, Format::FIRST, vec![two, one], Err(Refused::Newer)),
            (newest, Format::FIRST, vec![one, two], Err(Refused::Newer)),
            (after, second, vec![two, one, two], Ok((3, 0))),
        ] {
            let got = match judge(&read(range), page(&bodies), format) {
                Outcome::Done {
                    event:
                        Some(BrokerEvent::Page {
                            result: Ok(page), ..
                        }),
                    junk,
                } => Ok((page.messages.len(), junk)),
                Outcome::Failed { why, .. } => Err(why),
                other => panic!("{other:?}"),
            };
            assert_eq!(got, expected, "{range:?} {bodies:?}");
        }
    }

    #[test]
    fn answers_that_are_not_from_our_scripts_are_refused() {
        let half = Value::Array(vec![text("000000000000002a")]);
        let zeros = Value::Array(vec![text("0000000000000000"), text("1")]);
        for answer in [Value::Nil, Value::Okay, text("x"), half, zeros] {
            let outcome = judge(&publish(), answer.clone(), Format::FIRST);
            assert!(
                matches!(
                    outcome,
                    Outcome::Failed {
                        why: Refused::Unknown,
                        ..
                    }
                ),
                "{answer:?}: {outcome:?}"
            );
            let outcome = judge(&read(Range::Top), answer.clone(), Format::FIRST);
            assert!(
                matches!(
                    outcome,
                    Outcome::Failed {
                        why: Refused::Unavailable,
                        ..
                    }
                ),
                "{answer:?}: {outcome:?}"
            );
        }
    }

    #[test]
    fn refusals_of_redis_are_classified_by_whether_the_command_may_have_run() {
        let refusal = |line: &str| {
            let error = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
            match judge(&publish(), error, Format::FIRST) {
                Outcome::Failed { why, .. } => format!("{why:?}"),
                other => format!("{other:?}"),
            }
        };
        for (line, expected) in [
            ("NOSCRIPT No matching script.", "ScriptMissing"),
            ("LOADING Redis is loading the dataset in memory", "NotYet"),
            ("BUSY Redis is busy running a script.", "NotYet"),
            (
                "READONLY You can't write against a read only replica.",
                "NotMaster",
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "Full",
            ),
            ("MISCONF Errors writing to the AOF file", "Unavailable"),
            (
                "NOPERM this user has no permissions to run 'evalsha'",
                "Unavailable",
            ),
            (
                "NOPERM no permissions script: 3f, on @user_script:40.",
                "Unknown",
            ),
            ("ERR something script: 3f, on @user_script:40.", "Unknown"),
        ] {
            assert_eq!(refusal(line), expected, "{line}");
        }
    }
}
