//! Reads the answers to cluster queries: counts, pages of rooms, pages of a user's connections.

use redis::Value;

use super::member_pages::read_list;
use crate::broker::redis::values::{bytes, read_offset};
use crate::broker::redis::wire;
use crate::model::cluster_query::{ClusterQuery, ConnectionPage, QueryResult, RoomCount, RoomPage};
use crate::model::id::{Epoch, Position, RoomName};

/// Reads the answer to a query, and how many of its entries were junk.
pub(crate) fn read(query: &ClusterQuery, answer: Value) -> Option<(QueryResult, usize)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    match query {
        ClusterQuery::Room(room) => Some((read_room(room, &parts)?, 0)),
        ClusterQuery::Rooms { .. } => read_rooms(&parts),
        ClusterQuery::Connections { user, .. } => {
            let (list, junk) = read_list(parts, |field, _, json| {
                wire::connection::decode(field, json).ok()
            })?;
            let page = ConnectionPage {
                user: user.clone(),
                connections: list.entries,
                count: list.count,
                more: list.more,
            };
            Some((QueryResult::Connections(page), junk))
        }
    }
}

fn read_room(room: &RoomName, parts: &[Value]) -> Option<QueryResult> {
    let [numbers @ .., epoch, offset] = parts else {
        return None;
    };
    let count = read_count(room.clone(), numbers)?;
    let epoch = wire::decode_epoch(bytes(epoch)?);
    let position = match (epoch, read_offset(offset)) {
        (Epoch::UNKNOWN, _) | (_, None) => None,
        (epoch, Some(offset)) => Some(Position { epoch, offset }),
    };
    Some(QueryResult::Room(count, position))
}

fn read_rooms(parts: &[Value]) -> Option<(QueryResult, usize)> {
    let [more, Value::Array(page)] = parts else {
        return None;
    };
    let (mut rooms, mut junk) = (Vec::with_capacity(page.len() / 4), 0);
    for values in page.chunks_exact(4) {
        let name = std::str::from_utf8(bytes(&values[0])?).map(RoomName::new);
        match name {
            Ok(Ok(room)) => rooms.push(read_count(room, &values[1..])?),
            _ => junk += 1,
        }
    }
    let more = read_offset(more)? > 0;
    Some((QueryResult::Rooms(RoomPage { rooms, more }), junk))
}

fn read_count(room: RoomName, numbers: &[Value]) -> Option<RoomCount> {
    let [connections, users, anonymous] = numbers else {
        return None;
    };
    Some(RoomCount {
        room,
        connections: read_offset(connections)?,
        users: read_offset(users)?,
        anonymous: read_offset(anonymous)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cluster_query::RoomKind;
    use crate::model::id::UserName;

    fn bulks(texts: &[&str]) -> Vec<Value> {
        let bulk = |text: &&str| Value::BulkString((*text).into());
        texts.iter().map(bulk).collect()
    }

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    #[test]
    fn a_room_has_a_position_or_none() {
        let query = ClusterQuery::Room(room("lobby"));
        for (epoch, offset, wanted) in [
            ("000000000000002a", "9", Some(9)),
            ("000000000000002a", "0", Some(0)),
            ("", "", None),
            ("000000000000002a", "x", None),
            ("0000000000000000", "9", None),
        ] {
            let answer = Value::Array(bulks(&["3", "2", "1", epoch, offset]));
            let Some((QueryResult::Room(count, position), 0)) = read(&query, answer) else {
                panic!("{epoch} {offset}");
            };
            assert_eq!((count.connections, count.users, count.anonymous), (3, 2, 1));
            assert_eq!(position.map(|it| it.offset), wanted, "{epoch} {offset}");
        }
    }

    #[test]
    fn rooms_with_malformed_names_are_left_out_and_counted() {
        let query = ClusterQuery::Rooms {
            kind: RoomKind::Chosen,
            prefix: None,
            after: None,
            limit: 9,
        };
        let page = bulks(&["a", "2", "1", "1", "b b", "0", "0", "0", "c", "1", "1", "0"]);
        let mut parts = bulks(&["1"]);
        parts.push(Value::Array(page));
        let Some((QueryResult::Rooms(page), 1)) = read(&query, Value::Array(parts)) else {
            panic!("it is a page");
        };
        let names: Vec<_> = page.rooms.iter().map(|it| it.room.as_str()).collect();
        assert_eq!((names, page.more), (vec!["a", "c"], true));
    }

    #[test]
    fn connections_that_cannot_be_read_are_left_out_and_counted() {
        let user = UserName::new("ada").unwrap();
        let query = ClusterQuery::Connections {
            user,
            after: None,
            limit: 9,
        };
        let mut parts = bulks(&["7", "3", "0", "0", "0"]);
        let session = "@000000000000002a-1";
        let page = bulks(&[
            session,
            "1",
            r#"{"node":"a"}"#,
            "ada",
            "1",
            "",
            session,
            "1",
            "",
        ]);
        parts.push(Value::Array(page));
        let Some((QueryResult::Connections(page), 2)) = read(&query, Value::Array(parts)) else {
            panic!("it is a page");
        };
        assert_eq!(
            (page.connections.len(), page.count, page.more),
            (1, 1, false)
        );
        assert_eq!(page.connections[0].session.to_string(), session[1..]);
    }

    #[test]
    fn answers_that_are_not_from_our_scripts_are_none() {
        let query = ClusterQuery::Room(room("lobby"));
        for parts in [
            bulks(&[]),
            bulks(&["1"; 4]),
            bulks(&["1"; 6]),
            bulks(&["x"; 5]),
        ] {
            assert!(read(&query, Value::Array(parts)).is_none());
        }
        assert!(read(&query, Value::Nil).is_none());
    }
}
