//! When each session is due a ping, and which sessions are due a liveness check. This module has no
//! I/O; the dispatcher sends the pings and closes the connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::id::SessionId;

/// A timing wheel of slots that turns once per heartbeat, so that ten thousand sessions need no
/// timer of their own. It returns the sessions to ping and the sessions to check.
///
/// A session is pinged once per turn of the wheel, at its slot, and is checked `pong_timeout`
/// later.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    slots: Vec<Vec<SessionId>>,
    /// The slot that is pinged next, and when.
    next: usize,
    due: Instant,
    step: Duration,
    /// Slots that were pinged and are to be checked, oldest first.
    pinged_slots: VecDeque<(Instant, usize)>,
    pong_timeout: Duration,
    /// The slot of the next new session: sessions are assigned round robin.
    next_add: usize,
}

/// An action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    Ping(SessionId),
    /// A ping was sent `pong_timeout` ago: a session that sent nothing since is disconnected.
    Check(SessionId),
}

impl Heartbeats {
    /// Slots of the wheel: with a heartbeat of 25 s, one a second.
    const SLOTS: usize = 25;

    pub(crate) fn new(now: Instant, heartbeat: Duration, pong_timeout: Duration) -> Self {
        let step = (heartbeat / Self::SLOTS as u32).max(Duration::from_millis(1));
        Self {
            slots: vec![Vec::new(); Self::SLOTS],
            next: 0,
            due: now + step,
            step,
            pinged_slots: VecDeque::new(),
            pong_timeout,
            next_add: 0,
        }
    }

    /// Adds a session; its first ping is due within one heartbeat. Returns the slot, which is
    /// needed to remove it.
    pub(crate) fn add(&mut self, session: SessionId) -> usize {
        let slot = self.next_add;
        self.next_add = (self.next_add + 1) % Self::SLOTS;
        self.slots[slot].push(session);
        slot
    }

    pub(crate) fn remove(&mut self, session: SessionId, slot: usize) {
        let sessions = &mut self.slots[slot];
        if let Some(index) = sessions.iter().position(|other| *other == session) {
            sessions.swap_remove(index);
            if sessions.capacity() > 4 * sessions.len() + 16 {
                sessions.shrink_to(2 * sessions.len());
            }
        }
    }

    /// Adds the actions that are due at `now`. Each ping is checked before its session is pinged
    /// again.
    pub(crate) fn advance(&mut self, now: Instant, beats: &mut Vec<Beat>) {
        while self
            .pinged_slots
            .front()
            .is_some_and(|(when, _)| *when <= now)
        {
            self.check_oldest(beats);
        }
        // After the whole process was paused, late pings are made up only so far that each session
        // still has the pong timeout, or half a turn of the wheel, until its next ping.
        let turn = self.step * Self::SLOTS as u32;
        let most = turn.saturating_sub(self.pong_timeout).max(turn / 2);
        self.due = self.due.max(now.checked_sub(most).unwrap_or(now));
        while self.due <= now {
            let slot = self.next;
            if self
                .pinged_slots
                .front()
                .is_some_and(|(_, other)| *other == slot)
            {
                self.check_oldest(beats);
            }
            beats.extend(self.slots[slot].iter().map(|session| Beat::Ping(*session)));
            self.pinged_slots.push_back((now + self.pong_timeout, slot));
            self.next = (slot + 1) % Self::SLOTS;
            self.due += self.step;
        }
    }

    /// Checks the slot that was pinged the longest ago.
    fn check_oldest(&mut self, beats: &mut Vec<Beat>) {
        if let Some((_, slot)) = self.pinged_slots.pop_front() {
            beats.extend(self.slots[slot].iter().map(|session| Beat::Check(*session)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_is_pinged_once_per_heartbeat_and_checked_after_the_pong_timeout() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut wheel = Heartbeats::new(start, 25 * second, 10 * second);
        let slots: Vec<usize> = (0..50).map(|n| wheel.add(SessionId(n))).collect();
        wheel.remove(SessionId(0), slots[0]);
        let mut pinged = vec![Vec::new(); 50];
        let mut checked = vec![Vec::new(); 50];
        for tick in 1..=100 {
            let mut beats = Vec::new();
            wheel.advance(start + tick * second, &mut beats);
            for beat in beats {
                match beat {
                    Beat::Ping(session) => pinged[session.0 as usize].push(tick),
                    Beat::Check(session) => checked[session.0 as usize].push(tick),
                }
            }
        }
        assert!(pinged[0].is_empty() && checked[0].is_empty());
        for session in 1..50 {
            assert_eq!(pinged[session].len(), 4);
            assert!(
                pinged[session]
                    .windows(2)
                    .all(|pair| pair[1] - pair[0] == 25)
            );
            assert!(
                checked[session]
                    .iter()
                    .zip(&pinged[session])
                    .all(|(check, ping)| check - ping == 10)
            );
        }
    }

    #[test]
    fn ping_is_checked_before_the_next_however_long_the_process_was_frozen() {
        let tick = Duration::from_millis(250);
        let settings = [(25_000, 10_000), (500, 250), (25_000, 24_900), (1_000, 900)];
        for (heartbeat, pong_timeout) in settings {
            let [heartbeat, pong_timeout] = [heartbeat, pong_timeout].map(Duration::from_millis);
            let mut now = Instant::now();
            let mut wheel = Heartbeats::new(now, heartbeat, pong_timeout);
            for n in 0..50 {
                wheel.add(SessionId(n));
            }
            let mut pinged = [None; 50];
            let mut pass = |time| {
                now += time;
                let (mut beats, mut pings) = (Vec::new(), 0);
                wheel.advance(now, &mut beats);
                for beat in beats {
                    match beat {
                        Beat::Ping(session) => {
                            let before = pinged[session.0 as usize].replace(now);
                            assert_eq!(before, None, "{session:?} is pinged twice");
                            pings += 1;
                        }
                        Beat::Check(session) => {
                            let since = pinged[session.0 as usize].take().expect("a ping was sent");
                            assert!(now - since >= pong_timeout.min(heartbeat / 2));
                        }
                    }
                }
                pings
            };
            let mut random = fastrand::Rng::with_seed(7);
            for _ in 0..10_000 {
                // Mostly a tick, sometimes up to three turns of the wheel.
                pass(match random.u8(0..20) {
                    0 => heartbeat.mul_f64(3.0 * random.f64()),
                    _ => tick,
                });
            }
            let ticks = heartbeat.as_millis() / tick.as_millis();
            let pings: usize = (0..ticks).map(|_| pass(tick)).sum();
            assert_eq!(pings, 50, "each session once per heartbeat");
        }
    }
}
