//! The events of webhooks (a room is occupied or vacated), and the interface between the broker,
//! which keeps them, and the deliverer, which posts them: a [`WebhookPoll`] and its
//! [`ClaimedEvents`], over a queue.

use std::fmt;
use std::time::Duration;

use crate::model::id::RoomName;
use crate::model::pattern::Pattern;

/// The most events in one request. With the longest names they take less than 64 KiB.
pub const BATCH: usize = 100;

/// The most events that are kept for a receiver that does not answer; of more, the oldest are
/// dropped. In Redis they take about 10 MB: enough for an outage of an hour at 25 events a second.
pub(crate) const LENGTH: usize = 100_000;

/// The same for the memory broker.
pub(crate) const MEMORY_LENGTH: usize = 10_000;

/// How long an event is kept. Older events about presence would mislead more than help.
pub(crate) const AGE: Duration = Duration::from_secs(24 * 3600);

/// A node that holds events and does not ask for this long is dead or stopped: another one claims
/// them. A live one polls several times a second. This is longer than most stalls, because a wrong
/// guess delivers an event twice.
pub const CLAIM: Duration = Duration::from_secs(10);

/// The id of an event, the same on every attempt and every node. Ids ascend in the order of events.
///
/// Shown as `1764000000000-0`: the time of the event, in milliseconds since 1970 by the broker's
/// clock, and a number among those of that millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookEventId {
    pub time: u64,
    pub number: u64,
}

impl WebhookEventId {
    /// Parses the text that `Display` shows; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, number) = text.split_once('-')?;
        Some(Self {
            time: time.parse().ok()?,
            number: number.parse().ok()?,
        })
    }

    /// The next id, for an event at `time`: ascending even if the clock goes back.
    pub fn following(self, time: u64) -> Self {
        if time > self.time {
            Self { time, number: 0 }
        } else {
            Self {
                number: self.number + 1,
                ..self
            }
        }
    }
}

impl fmt::Display for WebhookEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.number)
    }
}

/// The change of a room, over all nodes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomChange {
    /// It was empty and has its first member.
    Occupied,
    /// Its last member has left.
    Vacated,
}

impl RoomChange {
    /// The name that the broker writes.
    pub fn name(self) -> &'static str {
        match self {
            RoomChange::Occupied => "occupied",
            RoomChange::Vacated => "vacated",
        }
    }
}

/// An event. A user comes online when the personal room `@user` is occupied, and goes
/// offline when it is vacated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEvent {
    pub id: WebhookEventId,
    pub change: RoomChange,
    pub room: RoomName,
}

/// The events that a broker keeps, and the queue of its deliverer.
#[derive(Clone, Debug)]
pub struct WebhookSubscription {
    /// Events of rooms that fit one of these; if empty, of all rooms.
    pub rooms: Vec<Pattern>,
    /// Its disconnection means that this node has no deliverer any more.
    pub polls: flume::Receiver<WebhookPoll>,
}

impl WebhookSubscription {
    /// Whether the events of this room are kept.
    pub fn watches(&self, room: &RoomName) -> bool {
        let mut rooms = self.rooms.iter();
        self.rooms.is_empty() || rooms.any(|pattern| pattern.fits(room.as_str()))
    }
}

/// A request of the deliverer to the broker, several times a second: what it has delivered, and as
/// a sign of life.
#[derive(Debug)]
pub struct WebhookPoll {
    /// These were delivered, and are to be removed.
    pub done: Vec<WebhookEventId>,
    pub mode: ClaimMode,
    /// Receives the answer. It is dropped without one if the broker could not be reached.
    pub answer: flume::Sender<ClaimedEvents>,
}

/// Whether a deliverer polls for more events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimMode {
    /// The next events, if it holds none yet.
    Take,
    /// No more events than it holds.
    Keep,
    /// None: another node may claim those it holds at once.
    Leave,
}

/// The answer to a [`WebhookPoll`]: the events to deliver now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClaimedEvents {
    /// Ascending, at most [`BATCH`]. This node holds them until it reports them as done, and the
    /// answers repeat them until then.
    pub events: Vec<WebhookEvent>,
    /// The number of events dropped since the last turn, by length or age.
    pub dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_ascend_even_if_the_clock_goes_back() {
        let id = WebhookEventId::parse("1764000000000-7").unwrap();
        assert_eq!(id.to_string(), "1764000000000-7");
        let ids = [id.following(1), id.following(id.time)];
        assert_eq!(ids.map(|next| next.to_string()), ["1764000000000-8"; 2]);
        let later = id.following(1_764_000_000_001);
        assert_eq!(later.to_string(), "1764000000001-0");
        assert!(id < ids[0] && ids[0] < later);
        for text in [
            "",
            "1",
            "1-",
            "-1",
            "a-1",
            "1-1-1",
            "18446744073709551616-0",
        ] {
            assert_eq!(WebhookEventId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn no_patterns_watch_every_room() {
        let wanted = |patterns: &[&str]| WebhookSubscription {
            rooms: patterns
                .iter()
                .filter_map(|text| Pattern::new(text))
                .collect(),
            polls: flume::bounded(1).1,
        };
        let room = |name: &str| RoomName::new(name).unwrap();
        assert!(wanted(&[]).watches(&room("@ada")));
        let some = wanted(&["chat.*", "@*"]);
        assert!(some.watches(&room("chat.x")) && some.watches(&room("@ada")));
        assert!(!some.watches(&room("lobby")));
    }
}
