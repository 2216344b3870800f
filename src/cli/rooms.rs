//! `switchboard rooms`: lists the occupied rooms of the cluster, with their counts.

use std::process::ExitCode;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::api::Api;
use super::client::{CommandFailure, exit_code, note, print, print_json};
use super::printable;
use crate::config::{ApiCommand, ApiInvocation};
use crate::model::cluster_query::PAGE_LIMIT;
use crate::model::id::RoomPrefix;
use crate::runtime;

/// A page, as the API sends it.
#[derive(Deserialize)]
struct Page {
    rooms: Vec<RoomLine>,
    more: bool,
}

/// A room, as the API has it and as one line.
#[derive(Deserialize, Serialize)]
struct RoomLine {
    room: String,
    connections: u64,
    users: u64,
    anonymous: u64,
}

/// Runs the command to its end.
pub(super) fn run(invocation: &ApiInvocation) -> ExitCode {
    let ApiCommand::Rooms { prefix } = &invocation.command;
    exit_code(runtime::block_on(async {
        let api = Api::of(invocation)?;
        list(&api, prefix.as_ref(), invocation.json).await
    }))
}

async fn list(api: &Api, prefix: Option<&RoomPrefix>, json: bool) -> Result<(), CommandFailure> {
    let mut after = None;
    let mut count = 0;
    loop {
        let page: Page = api.get(&target(prefix, after.as_deref())).await?;
        for room in &page.rooms {
            if json {
                print_json(room)?;
                continue;
            }
            let (connections, users, anonymous) = (room.connections, room.users, room.anonymous);
            let room = printable(&room.room);
            print(format_args!("{room}\t{connections}\t{users}\t{anonymous}"))?;
        }
        count += page.rooms.len();
        after = page.rooms.into_iter().next_back().map(|last| last.room);
        if !page.more || after.is_none() {
            note(format_args!(
                "rooms: {count}, each with its connections, users, anonymous connections"
            ));
            return Ok(());
        }
    }
}

/// The target of the request for the page after a room.
fn target(prefix: Option<&RoomPrefix>, after: Option<&str>) -> String {
    let mut target = format!("/rooms?limit={PAGE_LIMIT}");
    let parameters = [("prefix", prefix.map(RoomPrefix::as_str)), ("after", after)];
    for (name, value) in parameters {
        if let Some(value) = value {
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            target += &format!("&{name}={value}");
        }
    }
    target
}
