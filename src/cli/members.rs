//! `switchboard members`: prints who is in a room, over all nodes, and with `--watch` who comes and
//! goes.

use serde::Serialize;
use serde_json::value::RawValue;

use super::client::{ClientSession, CommandFailure, note, print, print_json};
use super::printable;
use crate::client::RoomEvents;
use crate::model::id::RoomName;
use crate::model::member::{Member, MembersQuery};
use crate::model::room_event::RoomEvent;

/// The members of one page.
const PAGE: usize = 500;

/// A member, as one line.
#[derive(Serialize)]
struct MemberLine<'a> {
    user: &'a str,
    connections: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
}

/// A change, as clients receive it.
#[derive(Serialize)]
struct ChangeLine<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    room: &'a str,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
    version: u64,
}

/// With `watch` the client joins the room, because only members receive the changes; it joins
/// before it reads the list, so that no change falls between.
pub(super) async fn run(
    session: &ClientSession<'_>,
    room: &RoomName,
    watch: bool,
) -> Result<(), CommandFailure> {
    let changes = if watch {
        let joined = session.client.join(room.clone(), None);
        Some(session.answer(joined).await?.1)
    } else {
        None
    };
    list(session, room).await?;
    match changes {
        Some(changes) => follow(session, room, changes).await,
        None => Ok(()),
    }
}

/// Prints the whole list.
async fn list(session: &ClientSession<'_>, room: &RoomName) -> Result<(), CommandFailure> {
    let mut after = None;
    loop {
        let query = MembersQuery {
            room: room.clone(),
            after,
            limit: PAGE,
        };
        let page = session.answer(session.client.members(query)).await?;
        for member in &page.members {
            print_member(session, member)?;
        }
        after = page.members.last().map(|member| member.user.clone());
        if !page.more || after.is_none() {
            let (users, anonymous) = (page.count, page.anonymous);
            note(format_args!(
                "users: {users}, anonymous connections: {anonymous}"
            ));
            return Ok(());
        }
    }
}

fn print_member(session: &ClientSession<'_>, member: &Member) -> Result<(), CommandFailure> {
    let (user, info) = (member.user.as_str(), member.info.as_deref());
    let connections = member.connections;
    if session.json {
        return print_json(&MemberLine {
            user,
            connections,
            info,
        });
    }
    let info = printable(info.map_or("", RawValue::get));
    print(format!("{user}\t{connections}\t{info}").trim_end())
}

async fn follow(
    session: &ClientSession<'_>,
    room: &RoomName,
    changes: RoomEvents,
) -> Result<(), CommandFailure> {
    while let Ok(event) = changes.recv_async().await {
        let (kind, sign, user, info, version) = match event? {
            RoomEvent::Joined {
                user,
                version,
                info,
            } => ("joined", '+', user, info, version),
            RoomEvent::Left { user, version } => ("left", '-', user, None, version),
            RoomEvent::MembersChanged { .. } => {
                note("the list has changed as a whole");
                list(session, room).await?;
                continue;
            }
            _ => continue,
        };
        if session.json {
            print_json(&ChangeLine {
                kind,
                room: room.as_str(),
                user: user.as_str(),
                info: info.as_deref(),
                version,
            })?;
        } else {
            print(format_args!("{sign} {user}"))?;
        }
    }
    Ok(())
}
