//! The scenarios, by the numbers they have in the project's list of faults: A for nodes, B for
//! Redis, C for the network, D for herds and slow readers, M for the checker itself. Each does its
//! faults and says what it expects; all else is the runner's.

mod herds;
mod network;
mod nodes;
mod redis;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::bars::{Bars, Mutation, Told};
use crate::cluster::Plan;
use crate::world::{Load, World};

/// One scenario.
pub struct Scenario {
    pub name: &'static str,
    /// What it is, as the name of a test.
    pub title: &'static str,
    pub plan: Plan,
    pub bars: fn(&Load) -> Bars,
    /// What is done before the clients come.
    pub before: for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, ()>,
    /// What is done under load.
    pub act: for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, ()>,
    /// Its load by itself is enough, or more than enough.
    pub no_load: bool,
}

impl Scenario {
    const PLAIN: Scenario = Scenario {
        name: "Q",
        title: "nothing_happens_and_nothing_is_lost",
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

/// One frame is enough for the judge; with a few there is no luck in it.
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
        Scenario::mutant("MDROP", "a_dropped_frame_turns_the_judge_red", |_| {
            broken(Mutation::Drop)
        }),
        Scenario::mutant("MDOUBLE", "a_doubled_frame_turns_the_judge_red", |_| {
            broken(Mutation::Double)
        }),
        Scenario::mutant("MSWAP", "two_swapped_frames_turn_the_judge_red", |_| {
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

/// Nobody may lose anything, nor be told so.
fn whole() -> Bars {
    Bars::default()
}

/// The same, and nobody loses its connection.
fn unnoticed() -> Bars {
    Bars {
        sockets_stay: true,
        ..Bars::default()
    }
}

/// Redis forgot: all must be told, and keep their connections.
fn forgotten() -> Bars {
    Bars {
        told: Told::Everyone,
        sockets_stay: true,
        ..Bars::default()
    }
}
