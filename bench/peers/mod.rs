//! The peers, measured beside a node and the limit by the same load on the same cores: what their
//! users would run, each with its own rooms and its own way through Redis. `install` brings them;
//! one that is missing is left out, with a sentence. What is measured is kept, so that the measures
//! need not be taken in one go.

mod centrifugo;
mod chart;
mod contender;
mod kept;
mod measures;
mod nchan;
mod npm;

use std::path::PathBuf;

use contender::{CONTENDERS, Contender};
use measures::{MEASURES, Measure, Title};

use crate::support::machine::{self, Role};
use crate::support::table::Table;
use crate::support::watch::Spent;
use crate::support::{Outcome, wanted};

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    pub value: f64,
    /// Neighbours used the machine meanwhile.
    pub noisy: bool,
}

/// What came of a measure: a figure for each of its titles, or why there are none.
pub type Answer = Result<Vec<Figure>, String>;

/// A measure's answers, by the names of who gave them.
pub type Answers = Vec<(String, Answer)>;

/// One line of the table: a figure for each contender; none where one has failed or was not there.
pub struct Row {
    pub title: &'static Title,
    pub figures: Vec<Option<Figure>>,
}

/// In turn, so that what the neighbours do meets all alike; the middling one counts.
const ROUNDS: usize = 3;

/// Where the picture goes; the README shows it.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/peers.svg");

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    switchboard::runtime::raise_file_limit()?;
    let machine = machine::describe();
    let (contenders, missing): (Vec<_>, Vec<_>) = CONTENDERS
        .iter()
        .map(|contender| (contender, contender.missing()))
        .partition(|(_, missing)| missing.is_none());
    let contenders: Vec<&Contender> = contenders.into_iter().map(|(one, _)| one).collect();
    for measure in MEASURES.iter().filter(|measure| wanted(measure.name)) {
        // The table comes at the end: it has the widths of all.
        eprintln!("peers: {}", measure.name);
        kept::write(measure.name, &machine, &answers(measure, &contenders))?;
    }

    let all: Vec<Answers> = MEASURES
        .iter()
        .map(|measure| kept::read(measure.name, &machine))
        .collect();
    let names = CONTENDERS.iter().map(|contender| contender.name());
    let names: Vec<&str> = names
        .filter(|name| all.iter().flatten().any(|(other, _)| other == name))
        .collect();
    let rows: Vec<Row> = MEASURES
        .iter()
        .zip(&all)
        .filter(|(_, answers)| !answers.is_empty())
        .flat_map(|(measure, answers)| rows_of(measure, answers, &names))
        .collect();
    print(
        "Peers: less is better; ~: neighbours were busy",
        &names,
        &rows,
        true,
    );
    print(
        "Peers: more is better; ~: neighbours were busy",
        &names,
        &rows,
        false,
    );
    println!();
    for (contender, why) in missing {
        println!(
            "{}: left out, {}",
            contender.name(),
            why.unwrap_or_default()
        );
    }
    for (measure, answers) in MEASURES.iter().zip(&all) {
        for (name, answer) in answers {
            if let Err(why) = answer {
                println!("{name}, {}: failed, {why}", measure.name);
            }
        }
    }
    if all.iter().all(|answers| !answers.is_empty()) {
        let drawn: Vec<&Row> = rows.iter().filter(|row| row.title.less_is_better).collect();
        std::fs::write(CHART, chart::draw(&names, &drawn))?;
        println!("Drawn to {CHART}");
    }
    Ok(())
}

fn answers(measure: &Measure, contenders: &[&Contender]) -> Answers {
    let mut rounds: Vec<Result<Vec<Vec<Figure>>, String>> = vec![Ok(Vec::new()); contenders.len()];
    for _ in 0..ROUNDS {
        for (rounds, contender) in rounds.iter_mut().zip(contenders) {
            // One that fails must neither take the others' figures with it nor their time, and
            // shows no figure.
            let Ok(taken) = rounds else { continue };
            match measure.take(contender) {
                Ok(figures) => taken.push(figures),
                Err(error) => *rounds = Err(error.to_string()),
            }
        }
    }
    let middling = |rounds: Vec<Vec<Figure>>| {
        let places = 0..measure.titles.len();
        places
            .filter_map(|place| {
                Figure::middling(rounds.iter().filter_map(|round| round.get(place)))
            })
            .collect()
    };
    contenders
        .iter()
        .zip(rounds)
        .map(|(contender, rounds)| (contender.name().to_string(), rounds.map(middling)))
        .collect()
}

fn rows_of(measure: &'static Measure, answers: &Answers, names: &[&str]) -> Vec<Row> {
    let figure = |name: &&str, place: usize| {
        let (_, answer) = answers.iter().find(|(other, _)| other == name)?;
        answer.as_ref().ok()?.get(place).copied()
    };
    let row = |(place, title)| Row {
        title,
        figures: names.iter().map(|name| figure(name, place)).collect(),
    };
    measure.titles.iter().enumerate().map(row).collect()
}

fn print(title: &str, names: &[&str], rows: &[Row], less: bool) {
    let longest = rows.iter().map(|row| row.title.text.chars().count()).max();
    let first = " ".repeat(longest.unwrap_or(0));
    let columns: Vec<&str> = std::iter::once(first.as_str())
        .chain(names.iter().copied())
        .collect();
    let table = Table::begin(title, &columns);
    for row in rows.iter().filter(|row| row.title.less_is_better == less) {
        let figures = row.figures.iter().map(|figure| match figure {
            Some(figure) => figure.show(),
            None => "–".into(),
        });
        let cells = std::iter::once(row.title.text.to_string()).chain(figures);
        table.row(&cells.collect::<Vec<_>>());
    }
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

/// Where `install` puts things.
fn installed(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers")).join(path)
}
