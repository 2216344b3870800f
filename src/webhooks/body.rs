//! The body of a webhook request: events as JSON.
//!
//! ```text
//! {"node":"a","sent":1764000000210,"events":[
//!   {"id":"1764000000000-0","type":"room_occupied","room":"lobby","time":1764000000000},
//!   {"id":"1764000000105-0","type":"user_online","user":"ada","time":1764000000105}]}
//! ```

use serde::Serialize;

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
    user: Option<String>,
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
    let user = event.room.owner();
    let r#type = match (event.change, &user) {
        (RoomChange::Occupied, None) => "room_occupied",
        (RoomChange::Vacated, None) => "room_vacated",
        (RoomChange::Occupied, Some(_)) => "user_online",
        (RoomChange::Vacated, Some(_)) => "user_offline",
    };
    EventBody {
        id: event.id.to_string(),
        r#type,
        room: user.is_none().then_some(event.room.as_str()),
        user: user.map(|user| user.to_string()),
        time: event.id.time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{RoomName, USER_NAME_BYTES, UserName};
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
            event(RoomChange::Occupied, "@auth0%7C%22"),
        ];
        let expected = [
            r#"{"node":"a","sent":5,"events":["#,
            r#"{"id":"ID","type":"room_occupied","room":"lobby","time":1764000000000},"#,
            r#"{"id":"ID","type":"room_vacated","room":"lobby","time":1764000000000},"#,
            r#"{"id":"ID","type":"user_online","user":"ada","time":1764000000000},"#,
            r#"{"id":"ID","type":"user_offline","user":"ada","time":1764000000000},"#,
            r#"{"id":"ID","type":"user_online","user":"auth0|\"","time":1764000000000}]}"#,
        ];
        let expected = expected.concat().replace("ID", "1764000000000-3");
        assert_eq!(encode("a", 5, &events), expected);
    }

    #[test]
    fn the_largest_batch_is_less_than_64_kib() {
        // JSON needs two bytes for each.
        let user = UserName::new(&"\"".repeat(USER_NAME_BYTES)).unwrap();
        let mut longest = event(RoomChange::Vacated, user.room().as_str());
        longest.id = WebhookEventId {
            time: u64::MAX,
            number: u64::MAX,
        };
        let body = encode(&"n".repeat(64), u64::MAX, &vec![longest; BATCH]);
        assert!(body.len() < 64 << 10, "{}", body.len());
    }
}
