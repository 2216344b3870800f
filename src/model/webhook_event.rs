//! What webhooks tell, that a room is occupied or vacated, and the seam between whoever keeps these
//! notices (the broker) and whoever delivers them: an [`Ask`] and its [`Turn`], over a queue.

use std::fmt;
use std::time::Duration;

use crate::model::id::RoomName;
use crate::model::pattern::Pattern;

/// How many notices are told in one request at most. With the longest names they make less than 32
/// KiB.
pub const BATCH: usize = 100;

/// How many notices are kept for a receiver that does not answer; of more, the oldest are dropped.
/// In Redis they take about 10 MB, and a backend that is away for an hour may miss 25 a second.
pub const LENGTH: usize = 100_000;

/// The same where the node's own memory keeps them.
pub const MEMORY_LENGTH: usize = 10_000;

/// How long a notice is kept. Older news of who is online would mislead more than help.
pub const AGE: Duration = Duration::from_secs(24 * 3600);

/// A node that has taken notices and asks for nothing so long is dead or frozen: another one takes
/// them. A live one asks several times a second; this is long enough for most stalls, since a wrong
/// guess tells a notice twice.
pub const CLAIM: Duration = Duration::from_secs(10);

/// What a notice is known by, on every attempt and by every node. Ids ascend in the order in which
/// things happened.
///
/// Shown as `1764000000000-0`: when it happened, in milliseconds since 1970 by the broker's clock,
/// and a number among those of that millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookEventId {
    pub time: u64,
    pub number: u64,
}

impl WebhookEventId {
    /// Reads what `Display` shows; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, number) = text.split_once('-')?;
        Some(Self {
            time: time.parse().ok()?,
            number: number.parse().ok()?,
        })
    }

    /// The next id, for something that happens at `time`: ascending even when the clock goes back.
    pub fn following(self, time: u64) -> Self {
        match time > self.time {
            true => Self { time, number: 0 },
            false => Self {
                number: self.number + 1,
                ..self
            },
        }
    }
}

impl fmt::Display for WebhookEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.number)
    }
}

/// What has happened to a room, over all nodes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was empty, and somebody is in it.
    Occupied,
    /// The last one has left.
    Vacated,
}

impl Change {
    /// As the broker writes it.
    pub fn word(self) -> &'static str {
        match self {
            Change::Occupied => "occupied",
            Change::Vacated => "vacated",
        }
    }
}

/// One thing that is told. A user comes online when the personal room `@user` is occupied, and goes
/// offline when it is vacated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEvent {
    pub id: WebhookEventId,
    pub change: Change,
    pub room: RoomName,
}

/// Which notices a broker is to keep, and who asks for them.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of rooms that fit one of these; none: of all rooms.
    pub rooms: Vec<Pattern>,
    /// Its end means that nobody will deliver any more on this node.
    pub asks: flume::Receiver<Ask>,
}

impl Wanted {
    /// Whether anybody wants to know of this room.
    pub fn watches(&self, room: &RoomName) -> bool {
        let mut rooms = self.rooms.iter();
        self.rooms.is_empty() || rooms.any(|pattern| pattern.fits(room.as_str()))
    }
}

/// What the deliverer says to the broker, several times a second: what it has delivered, and that
/// it lives.
#[derive(Debug)]
pub struct Ask {
    /// These were told, and are to be forgotten.
    pub done: Vec<WebhookEventId>,
    pub word: ClaimMode,
    /// Where the answer goes. It is dropped when there is none: the broker could not be reached.
    pub answer: flume::Sender<Turn>,
}

/// What a deliverer wants beside saying what it has delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimMode {
    /// What there is to tell, if it holds nothing yet.
    Take,
    /// No more than it holds.
    Keep,
    /// To stop: what it holds may be taken by another at once.
    Leave,
}

/// What the deliverer is to tell now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Ascending, at most [`BATCH`]. It is this node's until it says that they are done, and is
    /// repeated until then.
    pub held: Vec<WebhookEvent>,
    /// WebhookQueue that were given up since the last turn, by length or age.
    pub dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_as_they_are_shown_and_ascend_whatever_the_clock_does() {
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
    fn without_patterns_every_room_is_watched() {
        let wanted = |patterns: &[&str]| Wanted {
            rooms: patterns
                .iter()
                .filter_map(|text| Pattern::new(text))
                .collect(),
            asks: flume::bounded(1).1,
        };
        let room = |name: &str| RoomName::new(name).unwrap();
        assert!(wanted(&[]).watches(&room("@ada")));
        let some = wanted(&["chat.*", "@*"]);
        assert!(some.watches(&room("chat.x")) && some.watches(&room("@ada")));
        assert!(!some.watches(&room("lobby")));
    }
}
