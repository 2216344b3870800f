//! The results, kept in `target/peers/results`: a file for each measure, which the next
//! taking of it replaces. It begins with the machine; what was measured on another, or in another
//! size, is nothing to compare with. Then a line for each contender: its name, and its figures or
//! why there are none, with tabs between.

use std::fs;

use super::{Answer, Answers, Figure, installed};
use crate::support::Outcome;

const FAILED: &str = "failed";

pub fn write(measure: &str, machine: &str, answers: &Answers) -> Outcome {
    let lines = answers.iter().map(|(name, answer)| match answer {
        Ok(figures) => {
            let figures = figures.iter().map(|figure| {
                let mark = if figure.noisy { "~" } else { "" };
                format!("\t{mark}{}", figure.value)
            });
            format!("{name}{}\n", figures.collect::<String>())
        }
        // A reason of several lines would be several contenders.
        Err(why) => format!("{name}\t{FAILED}\t{}\n", why.replace(['\n', '\t'], " ")),
    });
    fs::create_dir_all(installed("results"))?;
    let text = format!("{machine}\n{}", lines.collect::<String>());
    Ok(fs::write(installed("results").join(measure), text)?)
}

/// Nothing, if it was not measured yet or on another machine.
pub fn read(measure: &str, machine: &str) -> Answers {
    let text = fs::read_to_string(installed("results").join(measure)).unwrap_or_default();
    match text.split_once('\n') {
        Some((measured_on, answers)) if measured_on == machine => {
            answers.lines().filter_map(answer).collect()
        }
        _ => Answers::new(),
    }
}

fn answer(line: &str) -> Option<(String, Answer)> {
    let mut fields = line.split('\t');
    let name = fields.next()?.to_string();
    let fields: Vec<&str> = fields.collect();
    let answer = match fields[..] {
        [FAILED, why] => Err(why.to_string()),
        _ => Ok(fields.into_iter().filter_map(figure).collect()),
    };
    Some((name, answer))
}

fn figure(field: &str) -> Option<Figure> {
    let value = field.trim_start_matches('~');
    Some(Figure {
        value: value.parse().ok()?,
        noisy: value != field,
    })
}
