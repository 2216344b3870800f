//! The command line of the checker.

use std::path::{Path, PathBuf};

use crate::scenarios::{self, Scenario};
use crate::world::Load;

pub const USAGE: &str = "\
Usage: chaos                       the short run, as a test; a substring selects by name
       chaos run [SETTING…]        scenarios in turn, a report of each, a table of all
       chaos judge HISTORY…        judge histories again
       chaos list                  the scenarios

Settings: SEED=number  SCENARIO=A1,B3 (default: all)  LOAD=small|standard
          ONE_IN=10000 (of so many messages the M scenarios break one)";

/// The M scenarios mutate one message in so many.
const ONE_IN: u32 = 10_000;

pub enum Asked {
    Help,
    List,
    Judge(Vec<PathBuf>),
    Short { filter: Option<String>, seed: u64 },
    Run(Run),
}

/// The options of `run`.
pub struct Run {
    pub seed: u64,
    pub load: Load,
    pub scenarios: Vec<Scenario>,
    pub one_in: u32,
}

/// Reads the arguments after the program's name.
pub fn read(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let arguments: Vec<String> = arguments.collect();
    let (first, rest) = match arguments.split_first() {
        Some((first, rest)) => (first.as_str(), rest),
        None => ("", &[][..]),
    };
    match first {
        "help" | "--help" | "-h" => Ok(Asked::Help),
        "list" => Ok(Asked::List),
        "judge" => Ok(Asked::Judge(rest.iter().map(PathBuf::from).collect())),
        "run" => Ok(Asked::Run(read_run(rest)?)),
        // Options of the test runner are ignored.
        _ => Ok(Asked::Short {
            filter: arguments
                .into_iter()
                .find(|argument| !argument.starts_with('-')),
            seed: fastrand::u64(..1_000_000),
        }),
    }
}

fn read_run(settings: &[String]) -> Result<Run, String> {
    let mut run = Run {
        seed: fastrand::u64(..1_000_000),
        load: Load::SMALL,
        scenarios: scenarios::all(),
        one_in: ONE_IN,
    };
    for setting in settings {
        match setting.split_once('=') {
            // `make` passes a missing value as an empty string.
            Some((_, "")) => {}
            Some(("SEED", seed)) => run.seed = number(seed)?,
            Some(("ONE_IN", count)) => run.one_in = number(count)?,
            Some(("LOAD", "small")) => run.load = Load::SMALL,
            Some(("LOAD", "standard")) => run.load = Load::STANDARD,
            Some(("SCENARIO", names)) => run.scenarios = select(names)?,
            _ => return Err(format!("`{setting}` is no setting")),
        }
    }
    Ok(run)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a number"))
}

fn select(names: &str) -> Result<Vec<Scenario>, String> {
    let find = |name: &str| {
        scenarios::find(name)
            .ok_or_else(|| format!("there is no scenario `{name}`; `list` prints them"))
    };
    names.split(',').map(find).collect()
}

/// The directory of histories and logs.
pub fn artifacts() -> PathBuf {
    // The binary is in `target/<profile>/deps`.
    let target = std::env::current_exe().ok();
    let target = target
        .as_deref()
        .and_then(|program| program.ancestors().nth(3));
    target.unwrap_or(Path::new("target")).join("chaos")
}
