//! The JSON of cluster queries, which only backends send: the member counts of rooms, the list of
//! rooms, the connections of a user.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::cluster_query::{Connection, QueryResult, RoomCount};
use crate::model::id::{Epoch, Position};

/// A result as one JSON object.
pub(super) fn encode(result: &QueryResult) -> Bytes {
    let json = match result {
        QueryResult::Room(count, position) => serde_json::to_vec(&Room {
            at: position.map(At::from),
            ..Room::from(count)
        }),
        QueryResult::Rooms(page) => serde_json::to_vec(&Rooms {
            rooms: page.rooms.iter().map(Room::from).collect(),
            more: page.more,
        }),
        QueryResult::Connections(page) => serde_json::to_vec(&Connections {
            user: page.user.as_str(),
            connections: page.connections.iter().map(Listed::from).collect(),
            count: page.count,
            more: page.more,
        }),
    };
    // Writing plain structs to memory cannot fail.
    json.unwrap_or_default().into()
}

#[derive(Serialize)]
struct Room<'a> {
    room: &'a str,
    connections: u64,
    users: u64,
    anonymous: u64,
    #[serde(flatten)]
    at: Option<At>,
}

#[derive(Serialize)]
struct At {
    epoch: Epoch,
    offset: u64,
}

#[derive(Serialize)]
struct Rooms<'a> {
    rooms: Vec<Room<'a>>,
    more: bool,
}

#[derive(Serialize)]
struct Connections<'a> {
    user: &'a str,
    connections: Vec<Listed<'a>>,
    count: u64,
    more: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    session: String,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
}

impl<'a> From<&'a RoomCount> for Room<'a> {
    fn from(count: &'a RoomCount) -> Self {
        Room {
            room: count.room.as_str(),
            connections: count.connections,
            users: count.users,
            anonymous: count.anonymous,
            at: None,
        }
    }
}

impl From<Position> for At {
    fn from(position: Position) -> Self {
        At {
            epoch: position.epoch,
            offset: position.offset,
        }
    }
}

impl<'a> From<&'a Connection> for Listed<'a> {
    fn from(connection: &'a Connection) -> Self {
        Listed {
            session: connection.session.to_string(),
            node: &connection.node,
            info: connection.info.as_deref(),
        }
    }
}
