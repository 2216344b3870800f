//! Durations: from publish call to callback, from a lost connection to the return, and the silence
//! in the rooms.

use std::collections::HashMap;

use super::{Percentiles, Verdict};
use crate::history::{Event, Fate};

/// A message published this soon after the last fault still belongs to it.
const SETTLING: u64 = 2_000_000;

/// How long a reply from before Redis went down may still be under way to a client.
const UNDER_WAY: u64 = 500_000;

#[derive(Default)]
pub struct Times {
    invoked: HashMap<(usize, u64), u64>,
    /// When it was published, and how long it took.
    latencies: Vec<(u64, u64)>,
    fault: Option<u64>,
    healed: Option<u64>,
    /// By room: the time of the last message, and of the first after the last fault.
    received: HashMap<String, u64>,
    again: HashMap<String, u64>,
    silence: u64,
    closed: HashMap<usize, u64>,
    closes: usize,
    back: Vec<u64>,
    loaded: bool,
    absent: Option<u64>,
    acknowledged_in_absence: usize,
}

impl Times {
    pub fn take(&mut self, at: u64, event: &Event) {
        match event {
            Event::Load { on } => self.loaded = *on,
            Event::Fault { .. } => {
                self.fault.get_or_insert(at);
            }
            Event::Absent { on } => self.absent = on.then_some(at + UNDER_WAY),
            Event::Ok { .. } => {
                let absent = self.absent.is_some_and(|since| at > since);
                self.acknowledged_in_absence += usize::from(absent);
            }
            Event::Healed => {
                self.healed = Some(at);
                self.again.clear();
            }
            Event::Invoke { client, seq, .. } => {
                self.invoked.insert((*client, *seq), at);
            }
            Event::Receive {
                room,
                publisher,
                seq,
                fate: Fate::Taken,
                ..
            } => {
                if let Some(invoked) = self.invoked.get(&(*publisher, *seq)) {
                    self.latencies.push((*invoked, at - invoked));
                }
                self.received_in(room, at);
            }
            // The harness closed it.
            Event::Closed {
                code: 1000,
                meant: true,
                ..
            } => {}
            Event::Closed { client, meant, .. } => {
                self.closes += usize::from(!meant);
                self.closed.entry(*client).or_insert(at);
            }
            Event::Back { client } => {
                if let Some(closed) = self.closed.remove(client) {
                    self.back.push(at - closed);
                }
            }
            _ => {}
        }
    }

    fn received_in(&mut self, room: &str, at: u64) {
        if !self.again.contains_key(room) && self.healed.is_some() {
            self.again.insert(room.to_owned(), at);
        }
        let received = self.received.entry(room.to_owned()).or_insert(at);
        // Lines of two clients may be in another order than their times.
        if self.loaded {
            self.silence = self.silence.max(at.saturating_sub(*received));
        }
        *received = at.max(*received);
    }

    pub fn finish(self, verdict: &mut Verdict) {
        let fault = self.fault.unwrap_or(u64::MAX);
        // A message under way at the start of the fault counts for neither.
        let quiet = fault.saturating_sub(UNDER_WAY);
        let healed = self.healed.map_or(u64::MAX, |healed| healed + SETTLING);
        let (mut before, mut during, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for (invoked, latency) in self.latencies {
            match invoked {
                _ if invoked < quiet => before.push(latency),
                _ if invoked < fault => {}
                _ if invoked < healed => during.push(latency),
                _ => after.push(latency),
            }
        }
        verdict.before = Percentiles::of(before);
        verdict.during = Percentiles::of(during);
        verdict.after = Percentiles::of(after);
        verdict.reconnects = Percentiles::of(self.back);
        verdict.away = self.closed.len();
        verdict.acknowledged_in_absence = self.acknowledged_in_absence;
        verdict.closes = self.closes;
        verdict.silence = self.silence as f64 / 1e6;
        let whole = self.again.len() == self.received.len();
        let last = self.again.values().max().filter(|_| whole);
        verdict.works_again = last
            .zip(self.healed)
            .map(|(last, healed)| last.saturating_sub(healed) as f64 / 1e6);
    }
}
