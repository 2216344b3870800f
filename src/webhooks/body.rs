//! The body of a webhook request: events as JSON.
//!
//! ```text
//! {"node":"a","sent":1764000000210,"events":[
//!   {"id":"1764000000000-0","type":"room_occupied","room":"lobby","time":1764000000000},
//!   {"id":"1764000000105-0","type":"user_online","user":"ada","time":1764000000105}]}
//! ```

use serde::Serialize;

use crate::model::id::UserName;
use crate::model::webhook_event::{RoomChange, WebhookEvent};

#[derive(Serialize)]
struct BatchBody<'a> {
    node: &'a str,
    sent: u64,
    events: Vec<EventBody<'a>>,
}

#[derive(Serialize)]
struct EventBody<'a> {
    id: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    time: u64,
}

/// The body with these events; `node` is the sender's label, `sent` the time in milliseconds since
/// 1970.
pub(crate) fn encode(node: &str, sent: u64, events: &[WebhookEvent]) -> String {
    let body = BatchBody {
        node,
        sent,
        events: events.iter().map(json).collect(),
    };
    // Serialising texts and numbers cannot fail.
    serde_json::to_string(&body).unwrap_or_default()
}

fn json(event: &WebhookEvent) -> EventBody<'_> {
    let room = event.room.as_str();
    let user = room.strip_prefix('@');
    let user = user.filter(|name| UserName::new(name).is_ok());
    let r#type = match (event.change, user) {
        (RoomChange::Occupied, None) => "room_occupied",
        (RoomChange::Vacated, None) => "room_vacated",
        (RoomChange::Occupied, Some(_)) => "user_online",
        (RoomChange::Vacated, Some(_)) => "user_offline",
    };
    EventBody {
        id: event.id.to_string(),
        r#type,
        room: Some(room).filter(|_| user.is_none()),
        user,
        time: event.id.time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{ROOM_NAME_BYTES, RoomName};
    use crate::model::webhook_event::{BATCH, WebhookEventId};

    fn event(change: RoomChange, room: &str) -> WebhookEvent {
        WebhookEvent {
            id: WebhookEventId {
                time: 1_764_000_000_000,
                number: 3,
            },
            change,
            room: RoomName::new(room).unwrap(),
        }
    }

    #[test]
    fn rooms_and_users_have_their_own_types() {
        let events = [
            event(RoomChange::Occupied, "lobby"),
            event(RoomChange::Vacated, "lobby"),
            event(RoomChange::Occupied, "@ada"),
            event(RoomChange::Vacated, "@ada"),
        ];
        let expected = [
            r#"{"node":"a","sent":5,"events":["#,
            r#"{"id":"ID","type":"room_occupied","room":"lobby","time":1764000000000},"#,
            r#"{"id":"ID","type":"room_vacated","room":"lobby","time":1764000000000},"#,
            r#"{"id":"ID","type":"user_online","user":"ada","time":1764000000000},"#,
            r#"{"id":"ID","type":"user_offline","user":"ada","time":1764000000000}]}"#,
        ];
        let expected = expected.concat().replace("ID", "1764000000000-3");
        assert_eq!(encode("a", 5, &events), expected);
    }

    #[test]
    fn the_largest_batch_is_less_than_32_kib() {
        let room = "r".repeat(ROOM_NAME_BYTES);
        let mut longest = event(RoomChange::Occupied, &room);
        longest.id = WebhookEventId {
            time: u64::MAX,
            number: u64::MAX,
        };
        let body = encode(&"n".repeat(64), u64::MAX, &vec![longest; BATCH]);
        assert!(body.len() < 32 << 10, "{}", body.len());
    }
}
