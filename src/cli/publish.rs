//! `switchboard publish`: publishes one message, or each line of standard input.

use std::io;
use std::thread;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::client::{ClientSession, CommandFailure, print, print_json};
use crate::client::ClientPublish;
use crate::model::id::{Epoch, Position, RoomName};

/// The line that is printed for each message.
#[derive(Serialize)]
struct Published<'a> {
    room: &'a str,
    epoch: Epoch,
    offset: u64,
}

pub(super) async fn run(
    session: &ClientSession<'_>,
    room: &RoomName,
    data: Option<&str>,
    options: ClientPublish,
) -> Result<(), CommandFailure> {
    if let Some(data) = data {
        return publish(session, room, data, options).await;
    }
    let lines = lines();
    let mut number = 0_u64;
    while let Ok(line) = lines.recv_async().await {
        let line = line.map_err(|error| {
            CommandFailure::Refused(format!("standard input cannot be read: {error}"))
        })?;
        number += 1;
        // One key for all lines would store only the first.
        let key = options.key.as_ref().map(|key| format!("{key}-{number}"));
        let options = ClientPublish {
            key,
            ephemeral: options.ephemeral,
        };
        match publish(session, room, &line, options).await {
            // A success would hide that the other lines are not published.
            Err(CommandFailure::OutputClosed) => {
                return Err(CommandFailure::Refused(format!(
                    "standard output is closed; the lines after line {number} are not published"
                )));
            }
            published => published?,
        }
    }
    Ok(())
}

async fn publish(
    session: &ClientSession<'_>,
    room: &RoomName,
    data: &str,
    options: ClientPublish,
) -> Result<(), CommandFailure> {
    let publish = session.client.publish(room.clone(), json(data), options);
    match session.answer(publish).await? {
        None => Ok(()),
        Some(Position { epoch, offset }) if session.json => print_json(&Published {
            room: room.as_str(),
            epoch,
            offset,
        }),
        Some(Position { epoch, offset }) => print(format_args!("{epoch}/{offset}")),
    }
}

/// The text itself if it is JSON, else the text as a JSON string.
fn json(text: &str) -> Box<RawValue> {
    let parsed = serde_json::from_str::<&RawValue>(text);
    parsed.map(RawValue::to_owned).unwrap_or_else(|_| {
        // A text becomes JSON without fail.
        to_raw_value(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
    })
}

/// The lines of standard input, read by a thread because a read of it blocks.
fn lines() -> flume::Receiver<io::Result<String>> {
    let (send, lines) = flume::bounded(16);
    thread::spawn(move || {
        for line in io::stdin().lines() {
            let is_last = line.is_err();
            if send.send(line).is_err() || is_last {
                return;
            }
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_json_if_it_parses() {
        let rows = [
            ("{\"a\": 1}", "{\"a\": 1}"),
            ("42", "42"),
            ("null", "null"),
            ("hello", "\"hello\""),
            ("{broken", "\"{broken\""),
            ("", "\"\""),
        ];
        for (text, expected) in rows {
            assert_eq!(json(text).get(), expected);
        }
    }
}
