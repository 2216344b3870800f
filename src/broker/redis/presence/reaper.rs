//! Removes the members written under leases that are over, a few rooms at a time. Plain logic.
//! Several nodes may do it at once: each takes rooms chosen at random and removes their records
//! when they are done, so that the nodes share the work. The work on a room is idempotent.

use std::collections::VecDeque;

use crate::model::id::RoomName;

/// The most rooms of a lease that are read at once.
pub(crate) const ROOMS: usize = 64;

/// The number of fields of a room that one step scans.
pub(crate) const FIELDS: usize = 256;

/// A command to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReapStep {
    /// Reads some of the rooms that have a record of the lease.
    Rooms { lease: String },
    /// Removes the lease's members from a room, from this cursor on.
    Reap {
        lease: String,
        room: RoomName,
        cursor: String,
    },
    /// Removes the record of a room that is done (or is not the name of a room).
    RemoveRoom { lease: String, room: Vec<u8> },
    /// Removes the lease after its last room.
    RemoveLease { lease: String },
}

/// The lease whose members are being removed.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    lease: Option<String>,
    next: VecDeque<ReapStep>,
    /// The number of steps without a result.
    in_flight: usize,
}

impl Reaper {
    /// Starts with one of these leases, which are over, chosen by `random`. Does nothing if it
    /// works on a lease already.
    pub(crate) fn start(&mut self, mut leases: Vec<String>, random: usize) {
        if self.lease.is_none() && !leases.is_empty() {
            let lease = leases.swap_remove(random % leases.len());
            self.lease = Some(lease.clone());
            self.next.push_back(if is_ours(&lease) {
                ReapStep::Rooms { lease }
            } else {
                ReapStep::RemoveLease { lease }
            });
        }
    }

    /// The next steps, at most `max`.
    pub(crate) fn take(&mut self, max: usize) -> Vec<ReapStep> {
        let count = max.min(self.next.len());
        self.in_flight += count;
        self.next.drain(..count).collect()
    }

    /// The answer to [`ReapStep::Rooms`]. No rooms means that all are done.
    pub(crate) fn rooms_found(&mut self, lease: String, rooms: Vec<Vec<u8>>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if rooms.is_empty() {
            self.next.push_back(ReapStep::RemoveLease { lease });
            return;
        }
        for room in rooms {
            let name = std::str::from_utf8(&room).map(RoomName::new);
            let lease = lease.clone();
            self.next.push_back(match name {
                Ok(Ok(room)) => ReapStep::Reap {
                    lease,
                    room,
                    cursor: "0".to_owned(),
                },
                _ => ReapStep::RemoveRoom { lease, room },
            });
        }
    }

    /// The answer to [`ReapStep::Reap`]: the next cursor, or `0` after the last.
    pub(crate) fn room_reaped(&mut self, lease: String, room: RoomName, cursor: String) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.next.push_back(match cursor.as_str() {
            "0" => ReapStep::RemoveRoom {
                lease,
                room: room.as_str().into(),
            },
            _ => ReapStep::Reap {
                lease,
                room,
                cursor,
            },
        });
    }

    /// The record of a room was removed. After the last, reads the next rooms.
    pub(crate) fn room_removed(&mut self, lease: String) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 && self.next.is_empty() {
            self.next.push_back(ReapStep::Rooms { lease });
        }
    }

    /// Stops: the lease is removed, or a step failed, or this node may no longer reap. The next
    /// node that finds the lease starts from the beginning.
    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }

    /// The lease that it works on.
    pub(crate) fn lease(&self) -> Option<&str> {
        self.lease.as_deref()
    }
}

/// Whether this is a name of a lease: `INCARNATION.COUNT`.
fn is_ours(lease: &str) -> bool {
    lease.split_once('.').is_some_and(|(run, count)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        run.len() == 16 && run.bytes().all(|it| it.is_ascii_hexdigit()) && digits(count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: &str = "000000000000002a.1";

    fn reap(room: &str, cursor: &str) -> ReapStep {
        ReapStep::Reap {
            lease: LEASE.into(),
            room: RoomName::new(room).unwrap(),
            cursor: cursor.into(),
        }
    }

    #[test]
    fn lease_is_removed_when_all_its_rooms_are_done() {
        let mut reaper = Reaper::default();
        let lease = || LEASE.to_owned();
        let remove = |room: &str| ReapStep::RemoveRoom {
            lease: lease(),
            room: room.into(),
        };
        reaper.start(vec![lease()], 7);
        assert_eq!(reaper.take(9), [ReapStep::Rooms { lease: lease() }]);
        reaper.rooms_found(lease(), vec![b"a".to_vec(), b"}".to_vec()]);
        assert_eq!(reaper.take(1), [reap("a", "0")]);
        reaper.room_reaped(lease(), RoomName::new("a").unwrap(), "17".into());
        assert_eq!(reaper.take(9), [remove("}"), reap("a", "17")]);
        reaper.room_removed(lease());
        reaper.room_reaped(lease(), RoomName::new("a").unwrap(), "0".into());
        assert_eq!(reaper.take(9), [remove("a")]);
        reaper.room_removed(lease());
        assert_eq!(reaper.take(9), [ReapStep::Rooms { lease: lease() }]);
        reaper.rooms_found(lease(), vec![]);
        assert_eq!(reaper.take(9), [ReapStep::RemoveLease { lease: lease() }]);
        reaper.stop();
        assert_eq!(reaper.lease(), None);
    }

    #[test]
    fn name_that_is_not_a_lease_is_removed_at_once() {
        let mut reaper = Reaper::default();
        reaper.start(vec!["x".into()], 0);
        assert_eq!(
            reaper.take(9),
            [ReapStep::RemoveLease { lease: "x".into() }]
        );
    }
}
