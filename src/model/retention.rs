//! How much of a room's log is kept for returning clients: a number of messages and a time, by the
//! room's name.

use std::time::Duration;

use crate::model::id::RoomName;
use crate::model::pattern::Pattern;

/// The bounds of a room's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Messages; at least 1.
    pub size: usize,
    /// How long the log outlives its last message.
    pub age: Duration,
}

/// A rule for some rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    pub rooms: Pattern,
    pub limits: LogLimits,
}

/// The bounds of every room's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The limits of the nodes' own rooms, which no rule changes.
    pub nodes: Vec<(RoomName, LogLimits)>,
    /// The first that fits a room's name applies.
    pub rules: Vec<RetentionRule>,
    /// For rooms without a rule.
    pub otherwise: LogLimits,
}

impl Retention {
    /// The same for all rooms.
    pub fn uniform(size: usize, age: Duration) -> Self {
        Self {
            nodes: Vec::new(),
            rules: Vec::new(),
            otherwise: LogLimits { size, age },
        }
    }

    pub fn of(&self, room: &RoomName) -> LogLimits {
        if room.is_the_nodes() {
            let own = self.nodes.iter().find(|(name, _)| name == room);
            return own.map_or(self.otherwise, |(_, limits)| *limits);
        }
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.rooms.fits(room.as_str()));
        rule.map_or(self.otherwise, |rule| rule.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_rule_that_fits_applies() {
        let rule = |pattern: &str, size| RetentionRule {
            rooms: Pattern::new(pattern).unwrap(),
            limits: LogLimits {
                size,
                age: Duration::from_secs(size as u64),
            },
        };
        let mut retention = Retention::uniform(1, Duration::ZERO);
        retention.rules = vec![rule("chat.vip", 2), rule("chat.*", 3)];
        for (room, size) in [("chat.vip", 2), ("chat.x", 3), ("chat", 1)] {
            assert_eq!(
                retention.of(&RoomName::new(room).unwrap()).size,
                size,
                "{room}"
            );
        }
    }
}
