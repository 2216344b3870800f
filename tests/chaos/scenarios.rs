//! The scenarios, by the numbers they have in the project's list of faults: A for nodes, B for
//! Redis, C for the network, D for herds and slow readers, M for the checker itself. Each
//! injects its faults and states its thresholds; the runner does everything else.

mod herds;
mod network;
mod nodes;
mod redis;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::bars::{Bars, ExpectedGaps, Mutation};
use crate::cluster::Plan;
use crate::world::{Load, World};

/// One scenario.
pub struct Scenario {
    pub name: &'static str,
    /// Its title, as the name of a test.
    pub title: &'static str,
    pub plan: Plan,
    pub bars: fn(&Load) -> Bars,
    /// Runs before the clients connect.
    pub before: for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, ()>,
    /// Runs under load.
    pub act: for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, ()>,
    /// Its own load is enough, or more than enough.
    pub no_load: bool,
}

impl Scenario {
    const PLAIN: Scenario = Scenario {
        name: "Q",
        title: "run_without_faults_loses_nothing",
        plan: Plan::PLAIN,
        bars: |_| Bars {
            sockets_stay: true,
            ..Bars::default()
        },
        before: |_| nothing().boxed_local(),
        act: |_| nothing().boxed_local(),
        no_load: false,
    };

    const fn mutant(name: &'static str, title: &'static str, bars: fn(&Load) -> Bars) -> Scenario {
        Scenario {
            name,
            title,
            bars,
            act: |world| until_broken(world).boxed_local(),
            ..Scenario::PLAIN
        }
    }
}

async fn nothing() {}

/// One frame is enough for the judge; a few make the test deterministic.
async fn until_broken(world: &mut World) {
    let start = Instant::now();
    while world.changed.load(Ordering::Relaxed) < 3 && start.elapsed() < Duration::from_secs(120) {
        world.sleep(0.1).await;
    }
}

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    let mut all = vec![Scenario::PLAIN];
    all.extend(nodes::scenarios());
    all.extend(redis::scenarios());
    all.extend(network::scenarios());
    all.extend(herds::scenarios());
    all.extend([
        Scenario::mutant("MDROP", "judge_detects_a_dropped_frame", |_| {
            broken(Mutation::Drop)
        }),
        Scenario::mutant("MDOUBLE", "judge_detects_a_duplicated_frame", |_| {
            broken(Mutation::Double)
        }),
        Scenario::mutant("MSWAP", "judge_detects_two_swapped_frames", |_| {
            broken(Mutation::Swap)
        }),
    ]);
    all
}

/// The scenario with this name.
pub fn find(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

fn broken(mutation: Mutation) -> Bars {
    Bars {
        mutation: Some(mutation),
        ..Bars::default()
    }
}

/// No client may lose a message or receive a gap.
fn whole() -> Bars {
    Bars::default()
}

/// The same, and no client may lose its connection.
fn unnoticed() -> Bars {
    Bars {
        sockets_stay: true,
        ..Bars::default()
    }
}

/// Redis lost its data: all members must receive a gap, and keep their connections.
fn forgotten() -> Bars {
    Bars {
        gaps: ExpectedGaps::Everywhere,
        sockets_stay: true,
        ..Bars::default()
    }
}
