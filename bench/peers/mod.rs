//! The peers, measured beside a node and the limit by the same load on the same cores: what their users would run, each with its own
//! rooms and its own way through Redis. `install` brings them; one that is missing is left out, with a sentence.

mod centrifugo;
mod chart;
mod measures;
mod nchan;
mod npm;

use std::path::PathBuf;
use std::process::Command;

use measures::{MEASURES, Measure};

use crate::support::dialogue::Dialogue;
use crate::support::machine::{self, Role};
use crate::support::server::{Kind, Server, free_port};
use crate::support::table::Table;
use crate::support::watch::Spent;
use crate::support::{Outcome, wanted};

/// Somebody else's server.
pub struct Peer {
    name: &'static str,
    dialogue: Dialogue,
    /// How it is started on a port, alone or with the Redis on another port; an error, if it is not installed.
    command: fn(u16, Option<u16>) -> Outcome<Command>,
}

/// Who is measured.
pub enum Contender {
    Ours,
    /// It has no Redis, and so is nothing but one node.
    Limit(Kind),
    Peer(Peer),
}

/// What was measured: less is better.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub value: f64,
    /// Neighbours used the machine meanwhile.
    pub noisy: bool,
}

/// One line of the table: a figure for each contender; none where one has no part in it or has failed.
pub struct Row {
    pub title: &'static str,
    pub figures: Vec<Option<Figure>>,
}

/// In turn, so that what the neighbours do meets all alike; the middling one counts.
const ROUNDS: usize = 3;

const CONTENDERS: [Contender; 8] = [
    Contender::Limit(Kind::Plain),
    Contender::Limit(Kind::Merging),
    Contender::Ours,
    Contender::Peer(npm::UWEBSOCKETS),
    Contender::Peer(nchan::NCHAN),
    Contender::Peer(centrifugo::CENTRIFUGO),
    Contender::Peer(npm::SOCKET_IO),
    Contender::Peer(npm::WS),
];

/// Where the picture goes; the README shows it.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/peers.svg");

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    switchboard::runtime::raise_file_limit()?;
    let (present, missing): (Vec<_>, Vec<_>) = CONTENDERS
        .iter()
        .map(|contender| (contender, contender.missing()))
        .partition(|(_, missing)| missing.is_none());
    let mut notes: Vec<String> = missing
        .into_iter()
        .filter_map(|(contender, why)| Some(format!("{}: left out, {}", contender.name(), why?)))
        .collect();
    let contenders: Vec<&Contender> = present
        .into_iter()
        .map(|(contender, _)| contender)
        .collect();

    let mut columns = vec!["less is better                              "];
    columns.extend(contenders.iter().map(|contender| contender.name()));
    let table = Table::begin(
        "Peers; ~ marks what neighbours may have disturbed",
        &columns,
    );
    let mut rows = Vec::new();
    for measure in MEASURES.iter().filter(|measure| wanted(measure.name)) {
        for row in rows_of(measure, &contenders, &mut notes) {
            table.row(&cells(&row));
            rows.push(row);
        }
    }
    for note in &notes {
        println!("{note}");
    }
    if MEASURES.iter().all(|measure| wanted(measure.name)) {
        let names: Vec<&str> = contenders
            .iter()
            .map(|contender| contender.name())
            .collect();
        std::fs::write(CHART, chart::draw(&names, &rows))?;
        println!("\nDrawn to {CHART}");
    }
    Ok(())
}

fn rows_of(measure: &Measure, contenders: &[&Contender], notes: &mut Vec<String>) -> Vec<Row> {
    let mut rounds: Vec<Vec<Vec<Figure>>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (contender, rounds) in contenders.iter().zip(&mut rounds) {
            match measure.take(contender) {
                Ok(figures) => rounds.push(figures),
                // One that fails must not take the others' figures with it.
                Err(error) => {
                    let name = contender.name();
                    notes.push(format!("{name}, {}: failed, {error}", measure.name));
                }
            }
        }
    }
    let row = |(place, title): (usize, &&'static str)| Row {
        title,
        figures: rounds
            .iter()
            .map(|rounds| Figure::middling(rounds.iter().filter_map(|round| round.get(place))))
            .collect(),
    };
    measure.titles.iter().enumerate().map(row).collect()
}

fn cells(row: &Row) -> Vec<String> {
    let figures = row.figures.iter().map(|figure| match figure {
        Some(figure) => figure.show(),
        None => "–".into(),
    });
    std::iter::once(row.title.to_string())
        .chain(figures)
        .collect()
}

impl Figure {
    fn of(value: f64, spent: &Spent) -> Self {
        Self {
            value,
            noisy: spent.is_noisy(),
        }
    }

    fn middling<'a>(rounds: impl Iterator<Item = &'a Figure>) -> Option<Self> {
        let mut rounds: Vec<Figure> = rounds.copied().collect();
        rounds.sort_by(|a, b| a.value.total_cmp(&b.value));
        rounds.get(rounds.len() / 2).copied()
    }

    /// Three digits at least, and a mark if it may have been disturbed.
    fn show(self) -> String {
        let digits = match self.value {
            100.0.. => 0,
            10.0.. => 1,
            1.0.. => 2,
            _ => 3,
        };
        let mark = if self.noisy { "~" } else { "" };
        format!("{mark}{:.digits$}", self.value)
    }
}

impl Contender {
    pub fn name(&self) -> &'static str {
        match self {
            Contender::Ours => Kind::Node.name(),
            Contender::Limit(kind) => kind.name(),
            Contender::Peer(peer) => peer.name,
        }
    }

    /// Whether it can be more than one node.
    pub fn has_redis(&self) -> bool {
        !matches!(self, Contender::Limit(_))
    }

    /// Why it cannot be started; nothing, if it can.
    fn missing(&self) -> Option<String> {
        match self {
            Contender::Peer(peer) => (peer.command)(0, None).err().map(|why| why.to_string()),
            _ => None,
        }
    }

    /// Starts a node of it.
    pub fn start(&self, redis: Option<&Server>, role: Role) -> Outcome<Server> {
        match (self, redis) {
            (Contender::Limit(kind), _) => Server::start(*kind),
            (Contender::Ours, Some(redis)) => Server::start_with_redis(redis, role),
            (Contender::Ours, None) => Server::start(Kind::Node),
            (Contender::Peer(peer), redis) => {
                let port = free_port()?;
                let redis = redis.map(|redis| redis.address.port());
                let command = (peer.command)(port, redis)?;
                Server::start_other(command, port, role, peer.dialogue)
            }
        }
    }
}

/// Where `install` puts things.
fn installed(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers")).join(path)
}
