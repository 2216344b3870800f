//! Measures by how much each hostile case delays others. `make isolation` runs it in an optimized
//! build on a quiet machine.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::hostile::CASES;
use super::{Scene, phase};
use crate::support::run;

/// How often a case is measured, each time next to its own quiet phase. One round is too short
/// to separate the case from other load of the machine, so the medians are compared.
const ROUNDS: usize = 5;

/// What the phases of one kind took, the quickest first.
#[derive(Default)]
struct Rounds(Vec<Duration>);

impl Rounds {
    fn note(&mut self, took: Duration) {
        let place = self.0.partition_point(|other| *other <= took);
        self.0.insert(place, took);
    }

    fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }
}

impl Display for Rounds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ms = |took: &Duration| format!("{:6.2}", took.as_secs_f64() * 1000.0);
        f.write_str(&self.0.iter().map(ms).collect::<String>())
    }
}

#[test]
#[ignore = "it measures, on a machine that does nothing else: make isolation"]
fn no_hostile_case_doubles_the_delays_of_others() {
    println!(
        "99 of 100 deliveries took so many ms at most, in {ROUNDS} rounds, the quickest first"
    );
    let mut delayed = Vec::new();
    for case in CASES {
        let (mut quiet, mut loud) = (Rounds::default(), Rounds::default());
        run(async {
            let scene = Scene::start().await;
            for _ in 0..ROUNDS {
                quiet.note(phase(&scene, None).await);
                loud.note(phase(&scene, Some(case)).await);
            }
        });
        let ratio = loud.median().div_duration_f64(quiet.median());
        println!(
            "{:16} quiet{quiet}  beside it{loud}  {ratio:5.2}",
            case.name
        );
        if ratio >= 2.0 {
            delayed.push(case.name);
        }
    }
    assert!(delayed.is_empty(), "others are delayed by {delayed:?}");
}
