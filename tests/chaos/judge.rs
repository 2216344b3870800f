//! The judge: reads a history, and nothing else, and reports what was lost, duplicated or
//! disordered, and which thresholds were missed. The terms are those of Jepsen's `set` and
//! `total-queue` checkers: attempted, acknowledged, lost (acknowledged and not received by a client
//! that had to), duplicated, unexpected (received and never attempted), recovered (unknown outcome,
//! received).

pub mod cases;
mod epochs;
mod histories;
mod members;
mod places;
mod streams;
mod times;

use std::io;
use std::path::Path;

use crate::bars::{Bars, ExpectedGaps, Mutation, NOISE_MS};
use crate::history::{self, Event, Line};
use histories::Histories;
use members::ExpectedMembers;
use places::Places;
use streams::Streams;
use times::Times;

/// The verdict on a run.
#[derive(Debug, Default)]
pub struct Verdict {
    pub scenario: String,
    pub seed: u64,
    pub load: String,
    pub clients: usize,
    pub rooms: usize,
    pub bars: Bars,
    pub attempted: usize,
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
    pub recovered: usize,
    pub lost: usize,
    pub duplicated: usize,
    pub disordered: usize,
    pub unexpected: usize,
    pub gaps: usize,
    /// Pairs of a client and a room that it joined.
    pub memberships: usize,
    pub false_alarms: usize,
    /// Lists of members that were requested at the end, and how many were wrong.
    pub lists: usize,
    pub wrong_lists: usize,
    /// `joined` and `left` events that clients received, and how many were out of order.
    pub changes: usize,
    pub changes_out_of_order: usize,
    /// Histories of rooms that were read at the end, and how many differ from what survived.
    pub histories: usize,
    pub wrong_histories: usize,
    /// Connections that ended unexpectedly.
    pub closes: usize,
    pub reconnects: Percentiles,
    /// Clients that did not return.
    pub away: usize,
    /// Publications acknowledged while Redis was down.
    pub acknowledged_in_absence: usize,
    /// Seconds.
    pub silence: f64,
    /// From the last fault's end until a message was received in every room, in seconds; `None` if
    /// that never happened.
    pub works_again: Option<f64>,
    pub before: Percentiles,
    pub during: Percentiles,
    pub after: Percentiles,
    /// The injected faults, with their times in seconds.
    pub timeline: Vec<(f64, String)>,
    pub figures: Vec<(String, String)>,
    /// Why the run is red; empty if it is green.
    pub reasons: Vec<String>,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Percentiles {
    pub count: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |part: f64| {
            let index = (part * micros.len() as f64).ceil() as usize;
            micros
                .get(index.saturating_sub(1))
                .map_or(0.0, |micros| *micros as f64 / 1000.0)
        };
        Self {
            count: micros.len(),
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// Judges a history.
pub fn judge(path: &Path) -> io::Result<Verdict> {
    judge_lines(history::read(path)?)
}

/// Judges the lines of a history.
pub fn judge_lines(lines: impl Iterator<Item = io::Result<Line>>) -> io::Result<Verdict> {
    let mut judge = Judge::default();
    for line in lines {
        judge.take(line?);
    }
    Ok(judge.verdict())
}

#[derive(Default)]
struct Judge {
    verdict: Verdict,
    places: Places,
    streams: Streams,
    members: ExpectedMembers,
    histories: Histories,
    times: Times,
}

impl Judge {
    fn take(&mut self, Line { at, event }: Line) {
        self.places.take(&event);
        self.streams.take(&event, &self.places);
        self.members.take(&event);
        self.histories.take(&event);
        self.times.take(at, &event);
        let verdict = &mut self.verdict;
        match event {
            Event::Run {
                scenario,
                seed,
                load,
                clients,
                rooms,
                bars,
            } => {
                verdict.scenario = scenario;
                verdict.seed = seed;
                verdict.load = load;
                verdict.clients = clients;
                verdict.rooms = rooms;
                verdict.bars = bars;
            }
            Event::Fault { what, .. } => verdict.timeline.push((at as f64 / 1e6, what)),
            Event::Healed => verdict.timeline.push((at as f64 / 1e6, "healed".into())),
            Event::Figure { what, value } => verdict.figures.push((what, value)),
            Event::Check {
                what,
                held: true,
                found,
            } => verdict.figures.push((what, found)),
            Event::Check { what, found, .. } => {
                verdict
                    .reasons
                    .push(format!("expected: {what}; found: {found}"));
            }
            Event::Unexpected { client, text } => {
                verdict.unexpected += 1;
                verdict.reasons.push(format!(
                    "client {client} received an unexpected frame: {text}"
                ));
            }
            _ => {}
        }
    }

    fn verdict(self) -> Verdict {
        let Judge {
            mut verdict,
            mut places,
            streams,
            members,
            histories,
            times,
        } = self;
        places.finish();
        verdict.attempted = places.attempted();
        verdict.acknowledged = places.acknowledged().count();
        verdict.refused = places.refused();
        verdict.recovered = places.recovered();
        verdict.unknown = verdict.attempted - verdict.acknowledged - verdict.refused;
        let streams = streams.finish(&places);
        verdict.memberships = streams.memberships;
        verdict.lost = streams.lost + places.lost();
        verdict.duplicated = streams.duplicated + places.duplicated();
        verdict.disordered = streams.disordered + places.disordered();
        verdict.unexpected += streams.unexpected + places.unexpected();
        verdict.gaps = streams.gaps;
        verdict.false_alarms = streams.false_alarms;
        verdict
            .reasons
            .extend(places.notes.iter().chain(&streams.notes).cloned());
        verdict.lists = members.lists;
        verdict.wrong_lists = members.wrong;
        verdict.changes = members.events;
        verdict.changes_out_of_order = members.out_of_order;
        verdict.reasons.extend(members.notes);
        let histories = histories.finish(&places);
        verdict.histories = histories.read;
        verdict.wrong_histories = histories.wrong;
        verdict.reasons.extend(histories.notes);
        times.finish(&mut verdict);
        verdict.missed_bars(streams.notified_members);
        verdict
    }
}

impl Verdict {
    pub fn is_green(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Whether the judge detected the harness's own mutation.
    pub fn detected(&self, mutation: Mutation) -> bool {
        match mutation {
            Mutation::Drop => self.lost > 0,
            Mutation::Double => self.duplicated > 0,
            Mutation::Swap => self.disordered > 0,
        }
    }

    fn missed_bars(&mut self, notified_members: usize) {
        let mut missed = Vec::new();
        let faults = [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("disordered", self.disordered),
            ("unexpected", self.unexpected),
            ("false alarms", self.false_alarms),
            ("lists of members that are wrong", self.wrong_lists),
            ("histories that are wrong", self.wrong_histories),
            ("presence events out of order", self.changes_out_of_order),
            (
                "acknowledged while Redis was away",
                self.acknowledged_in_absence,
            ),
        ];
        for (name, count) in faults {
            if count > 0 {
                missed.push(format!("{name}: {count}"));
            }
        }
        if self.acknowledged == 0 {
            missed.push("nothing was acknowledged".into());
        }
        if self.away > 0 {
            missed.push(format!("{} clients have not returned", self.away));
        }
        if self.bars.gaps == ExpectedGaps::Everywhere && notified_members < self.memberships {
            let members = self.memberships;
            missed.push(format!(
                "{notified_members} of {members} members received the gap"
            ));
        }
        if self.bars.sockets_stay && self.closes > 0 {
            missed.push(format!("{} clients lost their connection", self.closes));
        }
        let figures = [
            ("back (p99)", self.reconnects.p99, self.bars.back_p99),
            ("back (all)", self.reconnects.max, self.bars.back_all),
            (
                "p99 during the fault",
                self.during.p99,
                self.bars.during_p99,
            ),
            (
                "works again",
                self.works_again
                    .map_or(f64::INFINITY, |seconds| seconds * 1000.0),
                self.bars.works_again,
            ),
        ];
        for (name, found, bar) in figures {
            if let Some(bar) = bar.filter(|bar| found > *bar as f64) {
                missed.push(format!("{name}: {found:.0} ms, the bar is {bar} ms"));
            }
        }
        if let Some(ratio) = self.bars.after_ratio {
            let bar = (self.before.p99 * ratio).max(NOISE_MS);
            if self.after.p99 > bar {
                let found = self.after.p99;
                missed.push(format!(
                    "p99 afterwards: {found:.1} ms, the bar is {bar:.1} ms"
                ));
            }
        }
        self.reasons.extend(missed);
    }
}
