//! `switchboard tail`: prints the messages of rooms as they come, over reconnects.

use futures::StreamExt;
use futures::stream::select_all;

use super::client::{ClientSession, CommandFailure, note, print, print_json};
use super::line::{GapLine, MessageLine, readable};
use crate::client::ClientError;
use crate::config::Start;
use crate::model::id::{Position, RoomName};
use crate::model::publication::HistoryQuery;
use crate::model::room_event::RoomEvent;
use crate::protocol::HISTORY_LIMIT;

pub(super) async fn run(
    session: &ClientSession<'_>,
    rooms: &[RoomName],
    start: Start,
) -> Result<(), CommandFailure> {
    let mut streams = Vec::new();
    for room in rooms {
        let since = match start {
            Start::Now => None,
            Start::After(position) => Some(position),
            Start::Beginning => beginning(session, room).await?,
        };
        let (_, events) = session
            .answer(session.client.join(room.clone(), since))
            .await?;
        streams.push(events.into_stream().map(move |event| (room, event)));
    }
    let mut events = select_all(streams);
    while let Some((room, event)) = events.next().await {
        on_event(session, room, event, rooms.len() > 1)?;
    }
    Ok(())
}

/// The position in front of the oldest message that the room has. `None` if it has none.
async fn beginning(
    session: &ClientSession<'_>,
    room: &RoomName,
) -> Result<Option<Position>, CommandFailure> {
    let (mut before, mut oldest) = (None, None);
    loop {
        let query = HistoryQuery {
            room: room.clone(),
            before,
            limit: HISTORY_LIMIT,
        };
        let page = session.answer(session.client.history(query)).await?;
        let first = page.messages.first().and_then(|message| message.offset);
        if let (Some(epoch), Some(offset)) = (page.epoch, first) {
            before = Some(offset);
            let offset = offset - 1;
            oldest = Some(Position { epoch, offset });
        }
        if !page.more || first.is_none() {
            return Ok(oldest);
        }
    }
}

/// `named`: whether lines for people begin with the room, because there are several.
fn on_event(
    session: &ClientSession<'_>,
    room: &RoomName,
    event: Result<RoomEvent, ClientError>,
    named: bool,
) -> Result<(), CommandFailure> {
    match event? {
        RoomEvent::Message(message) if session.json => {
            print_json(&MessageLine::pushed(room, &message))
        }
        RoomEvent::Message(message) => print(readable(named.then_some(room), &message)),
        RoomEvent::Gap(position) => {
            let Position { epoch, offset } = position;
            note(format_args!(
                "messages of {room} are lost to this tail; it goes on behind {epoch}/{offset}"
            ));
            if session.json {
                print_json(&GapLine::new(room, position))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
