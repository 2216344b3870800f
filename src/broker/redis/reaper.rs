//! Takes out what the leases that are over have said, room by room, a few at a time. Plain logic.
//! Several nodes may do it at once: each begins with rooms chosen at random and strikes out what is
//! done, so that they share the work, and doing a room twice is doing it once.

use std::collections::VecDeque;

use crate::model::id::RoomName;

/// How many rooms of a lease are taken up at once.
pub const ROOMS: usize = 64;

/// How many fields of a room are looked at in one step.
pub const FIELDS: usize = 256;

/// What is to be asked of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Some of the rooms that the lease was in.
    Rooms { lease: String },
    /// Take it out of a room; the cursor says where to go on.
    Reap {
        lease: String,
        room: RoomName,
        cursor: String,
    },
    /// The room is done (or what stands there is no room).
    Strike { lease: String, room: Vec<u8> },
    /// All rooms are done.
    Bury { lease: String },
}

/// The lease under work.
#[derive(Debug, Default)]
pub struct Reaper {
    lease: Option<String>,
    next: VecDeque<Step>,
    /// Steps that were taken and have not ended.
    under_way: usize,
}

impl Reaper {
    /// These leases are over. It takes up one that is chosen by `random`, unless it has one.
    pub fn found(&mut self, mut leases: Vec<String>, random: usize) {
        if self.lease.is_none() && !leases.is_empty() {
            let lease = leases.swap_remove(random % leases.len());
            self.next.push_back(match is_ours(&lease) {
                true => Step::Rooms {
                    lease: lease.clone(),
                },
                false => Step::Bury {
                    lease: lease.clone(),
                },
            });
            self.lease = Some(lease);
        }
    }

    /// The next steps, at most so many.
    pub fn take(&mut self, max: usize) -> Vec<Step> {
        let count = max.min(self.next.len());
        self.under_way += count;
        self.next.drain(..count).collect()
    }

    /// Some rooms of the lease; none are left when there are none.
    pub fn rooms(&mut self, lease: String, rooms: Vec<Vec<u8>>) {
        self.under_way = self.under_way.saturating_sub(1);
        if rooms.is_empty() {
            self.next.push_back(Step::Bury { lease });
            return;
        }
        for room in rooms {
            let name = std::str::from_utf8(&room).map(RoomName::new);
            let lease = lease.clone();
            self.next.push_back(match name {
                Ok(Ok(room)) => Step::Reap {
                    lease,
                    room,
                    cursor: "0".to_owned(),
                },
                _ => Step::Strike { lease, room },
            });
        }
    }

    /// A room was worked on; `cursor` says where to go on, `0` that it is done.
    pub fn reaped(&mut self, lease: String, room: RoomName, cursor: String) {
        self.under_way = self.under_way.saturating_sub(1);
        self.next.push_back(match cursor.as_str() {
            "0" => Step::Strike {
                lease,
                room: room.as_str().into(),
            },
            _ => Step::Reap {
                lease,
                room,
                cursor,
            },
        });
    }

    /// A room was struck out. After the last, the next ones are asked for.
    pub fn struck(&mut self, lease: String) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 && self.next.is_empty() {
            self.next.push_back(Step::Rooms { lease });
        }
    }

    /// The lease is done with; or something went wrong, or this node may no longer do it. Whoever
    /// finds it again begins again.
    pub fn stop(&mut self) {
        *self = Self::default();
    }

    /// The lease under work, if any.
    pub fn lease(&self) -> Option<&str> {
        self.lease.as_deref()
    }
}

/// Whether this is what we call a lease: `INCARNATION.COUNT`.
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

    fn reap(room: &str, cursor: &str) -> Step {
        Step::Reap {
            lease: LEASE.into(),
            room: RoomName::new(room).unwrap(),
            cursor: cursor.into(),
        }
    }

    #[test]
    fn a_lease_is_buried_when_all_its_rooms_are_done() {
        let mut reaper = Reaper::default();
        let lease = || LEASE.to_owned();
        let strike = |room: &str| Step::Strike {
            lease: lease(),
            room: room.into(),
        };
        reaper.found(vec![lease()], 7);
        assert_eq!(reaper.take(9), [Step::Rooms { lease: lease() }]);
        reaper.rooms(lease(), vec![b"a".to_vec(), b"}".to_vec()]);
        assert_eq!(reaper.take(1), [reap("a", "0")]);
        reaper.reaped(lease(), RoomName::new("a").unwrap(), "17".into());
        assert_eq!(reaper.take(9), [strike("}"), reap("a", "17")]);
        reaper.struck(lease());
        reaper.reaped(lease(), RoomName::new("a").unwrap(), "0".into());
        assert_eq!(reaper.take(9), [strike("a")]);
        reaper.struck(lease());
        assert_eq!(reaper.take(9), [Step::Rooms { lease: lease() }]);
        reaper.rooms(lease(), vec![]);
        assert_eq!(reaper.take(9), [Step::Bury { lease: lease() }]);
        reaper.stop();
        assert_eq!(reaper.lease(), None);
    }

    #[test]
    fn what_is_no_lease_is_buried_at_once() {
        let mut reaper = Reaper::default();
        reaper.found(vec!["x".into()], 0);
        assert_eq!(reaper.take(9), [Step::Bury { lease: "x".into() }]);
    }
}
