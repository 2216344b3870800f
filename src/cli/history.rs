//! `switchboard history`: prints the newest messages that a room has stored, the oldest first.

use super::client::{ClientSession, CommandFailure, print, print_json};
use super::line::{MessageLine, readable};
use crate::model::id::RoomName;
use crate::model::publication::HistoryQuery;
use crate::protocol::HISTORY_LIMIT;

pub(super) async fn run(
    session: &ClientSession<'_>,
    room: &RoomName,
    mut before: Option<u64>,
    limit: usize,
) -> Result<(), CommandFailure> {
    // Pages come from the newest to the oldest, and are printed the other way round.
    let mut pages = Vec::new();
    let mut left = limit;
    while left > 0 {
        let query = HistoryQuery {
            room: room.clone(),
            before,
            limit: left.min(HISTORY_LIMIT),
        };
        let page = session.answer(session.client.history(query)).await?;
        left = left.saturating_sub(page.messages.len());
        before = page.messages.first().and_then(|message| message.offset);
        let is_last = !page.more || page.messages.is_empty();
        pages.push(page.messages);
        if is_last {
            break;
        }
    }
    for message in pages.iter().rev().flatten() {
        if session.json {
            print_json(&MessageLine::stored(message))?;
        } else {
            print(readable(None, message))?;
        }
    }
    Ok(())
}
