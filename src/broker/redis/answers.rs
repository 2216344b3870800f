//! Reads the answers of Redis: each becomes the result of its request.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::presence::{cluster_queries, member_pages, replies};
use super::request::{Completion, RedisRequest};
use super::values::{bytes, read_offset};
use super::{revoked, webhook_calls};
use crate::broker::redis::wire::{self, Format, WireError};
use crate::broker::{BrokerEvent, Page, Publication, PublishRequest, Range, Read, Refused};
use crate::model::id::{Epoch, Position};

/// The result of a request that Redis has done, if it has one, and how many entries of a page could
/// not be read.
type DecodedAnswer = (Option<Completion>, usize);

/// Reads the answer to a request, for a node that reads formats up to `newest`.
///
/// # Errors
/// The answer is not from our scripts, or the page begins with a newer format.
pub fn decode(
    request: &RedisRequest,
    answer: Value,
    newest: Format,
) -> Result<DecodedAnswer, Refused> {
    match request {
        RedisRequest::Probe => Ok((None, 0)),
        RedisRequest::Publish(request) if request.publish.ephemeral => {
            Ok(published(request, NO_POSITION))
        }
        RedisRequest::Publish(request) => {
            let position = read_position(answer).ok_or(Refused::Unknown)?;
            Ok(published(request, position))
        }
        RedisRequest::Read(read) => {
            let (page, junk) = read_page(read, answer, newest)?;
            let (ticket, result) = (read.ticket, Ok(page));
            Ok(event(BrokerEvent::Page { ticket, result }, junk))
        }
        RedisRequest::Members(members) => {
            let (page, junk) = member_pages::read(answer).ok_or(Refused::Unavailable)?;
            let (ticket, result) = (members.ticket, Ok(page));
            Ok(event(BrokerEvent::MemberPage { ticket, result }, junk))
        }
        RedisRequest::ClusterQuery(request) => {
            let read = cluster_queries::read(&request.query, answer);
            let (found, junk) = read.ok_or(Refused::Unavailable)?;
            let (ticket, result) = (request.ticket, Ok(found));
            Ok(event(BrokerEvent::QueryResult { ticket, result }, junk))
        }
        RedisRequest::Revoke(revoke) => {
            let users = revoked::read_written(answer).ok_or(Refused::Unknown)?;
            let (ticket, result) = (revoke.ticket, Ok(users));
            Ok(event(BrokerEvent::Revoked { ticket, result }, 0))
        }
        RedisRequest::ReadRevocations(read) => {
            let (stored, junk) = revoked::read_all(answer).ok_or(Refused::Unavailable)?;
            let (ticket, result) = (read.ticket, Ok(stored));
            Ok(event(BrokerEvent::Revocations { ticket, result }, junk))
        }
        RedisRequest::Presence(command) => {
            let reply = replies::read(command, answer).ok_or(Refused::Unavailable)?;
            Ok((Some(Completion::Presence(command.clone(), reply)), 0))
        }
        RedisRequest::Webhooks(_) => {
            let entries = webhook_calls::decode_answer(answer).ok_or(Refused::Unavailable)?;
            Ok((Some(Completion::Webhooks(Ok(entries))), 0))
        }
    }
}

/// An ephemeral publication is in no log.
const NO_POSITION: Position = Position {
    epoch: Epoch::UNKNOWN,
    offset: 0,
};

fn published(request: &PublishRequest, position: Position) -> DecodedAnswer {
    let (ticket, result) = (request.ticket, Ok(position));
    event(BrokerEvent::Published { ticket, result }, 0)
}

fn event(event: BrokerEvent, junk: usize) -> DecodedAnswer {
    (Some(Completion::Event(event)), junk)
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
struct LogEntries {
    entries: Entries,
    junk: usize,
    newer: bool,
}

fn read_entries(values: Vec<Value>, newest: Format) -> Option<LogEntries> {
    let mut found = LogEntries {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Publish, Source};
    use crate::model::id::{RoomName, Ticket};

    fn publish() -> RedisRequest {
        RedisRequest::Publish(PublishRequest {
            ticket: Ticket(1),
            source: Source::Node,
            publish: Publish {
                room: RoomName::new("r").unwrap(),
                key: None,
                condition: None,
                ephemeral: false,
                others: false,
                publication: Arc::new(wire::unreadable()),
            },
        })
    }

    fn read(range: Range) -> RedisRequest {
        RedisRequest::Read(Read {
            ticket: Ticket(2),
            source: Source::Node,
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
        match decode(&read(range), page(entries), Format::FIRST) {
            Ok((
                Some(Completion::Event(BrokerEvent::Page {
                    result: Ok(page), ..
                })),
                _,
            )) => (
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
            let got = match decode(&read(range), page(&bodies), format) {
                Ok((
                    Some(Completion::Event(BrokerEvent::Page {
                        result: Ok(page), ..
                    })),
                    junk,
                )) => Ok((page.messages.len(), junk)),
                Err(why) => Err(why),
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
            for (request, expected) in [
                (publish(), Refused::Unknown),
                (read(Range::Top), Refused::Unavailable),
            ] {
                let refused = decode(&request, answer.clone(), Format::FIRST).unwrap_err();
                assert_eq!(refused, expected, "{answer:?}");
            }
        }
    }
}
