//! The judge: reads a history, and nothing else, and says what was lost, doubled or disordered, and
//! which bars were missed. The terms are those of Jepsen's `set` and `total-queue` checkers:
//! attempted, acknowledged, lost (acknowledged and not seen by one who had to see it), duplicated,
//! unexpected (seen and never attempted), recovered (unknown outcome, seen).

pub mod cases;
mod epochs;
mod histories;
mod members;
mod places;
mod streams;
mod times;

use std::io;
use std::path::Path;

use crate::bars::{Bars, Mutation, NOISE_MS, Told};
use crate::history::{self, Event, Line};
use histories::Histories;
use members::LocalPresence;
use places::Places;
use streams::Streams;
use times::Times;

/// What a run came to.
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
    pub told: usize,
    /// How many there are of a client in a room.
    pub memberships: usize,
    pub false_alarms: usize,
    /// Lists of members that were asked for at the end, and those that were wrong.
    pub lists: usize,
    pub wrong_lists: usize,
    /// Comings and leavings that clients heard of, and those that were not in turn.
    pub changes: usize,
    pub changes_out_of_turn: usize,
    /// Histories of rooms that were read at the end, and those that are not what survived.
    pub histories: usize,
    pub wrong_histories: usize,
    /// Connections that ended and were not meant to.
    pub closes: usize,
    pub reconnects: Percentiles,
    /// Clients that did not come back.
    pub away: usize,
    /// Acknowledged although Redis was away.
    pub acknowledged_in_absence: usize,
    /// Seconds.
    pub silence: f64,
    /// From the last fault's end until something was heard in every room, in seconds; none if that
    /// never was.
    pub works_again: Option<f64>,
    pub before: Percentiles,
    pub during: Percentiles,
    pub after: Percentiles,
    /// What was done to the cluster, and when, in seconds.
    pub timeline: Vec<(f64, String)>,
    pub figures: Vec<(String, String)>,
    /// Why the run is red; nothing if it is green.
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
    members: LocalPresence,
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
            Event::Strange { client, said } => {
                verdict.unexpected += 1;
                verdict.reasons.push(format!(
                    "client {client} was told what it did not ask: {said}"
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
        verdict.told = streams.told;
        verdict.false_alarms = streams.false_alarms;
        verdict
            .reasons
            .extend(places.notes.iter().chain(&streams.notes).cloned());
        verdict.lists = members.lists;
        verdict.wrong_lists = members.wrong;
        verdict.changes = members.told;
        verdict.changes_out_of_turn = members.out_of_turn;
        verdict.reasons.extend(members.notes);
        let histories = histories.finish(&places);
        verdict.histories = histories.read;
        verdict.wrong_histories = histories.wrong;
        verdict.reasons.extend(histories.notes);
        times.finish(&mut verdict);
        verdict.missed_bars(streams.told_members);
        verdict
    }
}

impl Verdict {
    pub fn is_green(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Whether the judge noticed what the harness itself broke.
    pub fn noticed(&self, mutation: Mutation) -> bool {
        match mutation {
            Mutation::Drop => self.lost > 0,
            Mutation::Double => self.duplicated > 0,
            Mutation::Swap => self.disordered > 0,
        }
    }

    fn missed_bars(&mut self, told_members: usize) {
        let mut missed = Vec::new();
        let faults = [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("disordered", self.disordered),
            ("unexpected", self.unexpected),
            ("false alarms", self.false_alarms),
            ("lists of members that are wrong", self.wrong_lists),
            ("histories that are wrong", self.wrong_histories),
            ("comings and leavings out of turn", self.changes_out_of_turn),
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
            missed.push(format!("{} clients are not back", self.away));
        }
        if self.bars.told == Told::Everyone && told_members < self.memberships {
            let members = self.memberships;
            missed.push(format!(
                "{told_members} of {members} members were told of the gap"
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
