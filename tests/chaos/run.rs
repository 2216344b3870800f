//! Runs one scenario from the first process to the verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use switchboard::runtime;

use crate::bars::Mutation;
use crate::cluster::Cluster;
use crate::history::{self, Event, Recorder};
use crate::judge::{self, Verdict};
use crate::mutation::Mutant;
use crate::scenarios::Scenario;
use crate::world::{Load, World};

/// A run that takes longer is stuck.
const LIMIT: Duration = Duration::from_secs(300);

/// How long clients may take to connect before the first fault.
const COME_IN: Duration = Duration::from_secs(60);

/// How long the run may take to settle at the end: the SDK waits up to twenty seconds between two
/// attempts.
const REST: Duration = Duration::from_secs(45);

/// The same if the last frame of a room may have been dropped, so that it never settles.
const BROKEN_REST: Duration = Duration::from_secs(2);

/// The options that all scenarios of a call share.
#[derive(Clone)]
pub struct Setting {
    pub seed: u64,
    pub load: Load,
    /// Every threshold is multiplied by this.
    pub slack: u32,
    /// One message in so many is mutated.
    pub one_in: u32,
    pub dir: PathBuf,
    /// Disconnected when the user interrupts the run.
    pub interrupted: flume::Receiver<()>,
}

/// The outcome of a run.
pub enum Outcome {
    Judged(Box<Verdict>, PathBuf),
    /// The harness itself failed.
    Broken(String),
    Interrupted,
}

/// Runs a scenario; all its processes have ended when this returns.
pub fn run(scenario: &Scenario, setting: &Setting) -> Outcome {
    let dir = setting
        .dir
        .join(format!("{}-{}", scenario.name, setting.seed));
    match catch_unwind(AssertUnwindSafe(|| run_in(&dir, scenario, setting))) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Outcome::Broken(text.unwrap_or_else(|| "a panic".into()))
        }
    }
}

fn run_in(dir: &Path, scenario: &Scenario, setting: &Setting) -> Outcome {
    // The logs of an earlier run with this seed.
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).expect("a directory for the run");
    let path = dir.join("history.jsonl");
    let (recorder, file) = history::record(&path).expect("a file for the history");
    let playing = play(dir, scenario, setting, recorder);
    let ended = runtime::block_on(async {
        let interrupted = setting.interrupted.recv_async();
        match select(Box::pin(runtime::timeout(LIMIT, playing)), interrupted).await {
            Either::Left((ended, _)) => Some(ended.map(|mutated| (mutated, ()))),
            Either::Right(_) => None,
        }
    });
    let mutated = match ended {
        None => return Outcome::Interrupted,
        Some(Err(_)) => return Outcome::Broken(format!("not finished within {LIMIT:?}")),
        Some(Ok((mutated, ()))) => mutated,
    };
    let judged = file.finish().and_then(|path| judge::judge(&path));
    match judged {
        Ok(verdict) if verdict.bars.mutation.is_some() && mutated == 0 => Outcome::Broken(format!(
            "no frame was changed in {} deliveries; raise the rate",
            verdict.before.count
        )),
        Ok(verdict) => Outcome::Judged(Box::new(verdict), path),
        Err(error) => Outcome::Broken(format!("{}: {error}", path.display())),
    }
}

/// Returns how many frames the harness itself has mutated.
async fn play(dir: &Path, scenario: &Scenario, setting: &Setting, recorder: Recorder) -> u64 {
    let bars = (scenario.bars)(&setting.load).with_slack(setting.slack);
    let changed = Arc::new(AtomicU64::new(0));
    let mutant = |kind: Mutation| Mutant {
        kind,
        one_in: setting.one_in,
        seed: setting.seed,
        done: changed.clone(),
    };
    let mutant = bars.mutation.map(mutant);
    let rest = mutant.as_ref().map_or(REST, |_| BROKEN_REST);
    recorder.note(Event::Run {
        scenario: scenario.name.to_owned(),
        seed: setting.seed,
        load: setting.load.name.to_owned(),
        clients: setting.load.clients,
        rooms: setting.load.rooms,
        bars,
    });
    let cluster = Cluster::start(dir, scenario.plan, mutant).await;
    let mut world = World::new(cluster, setting, recorder, changed.clone());
    world.start_clients();
    (scenario.before)(&mut world).await;
    let all = 0..world.clients.len();
    let joined = world.until_joined(all, COME_IN).await;
    world.within("all clients are in their rooms", joined, COME_IN);
    if !scenario.no_load {
        world.publish();
        runtime::sleep(setting.load.quiet).await;
    }
    (scenario.act)(&mut world).await;
    if !scenario.no_load {
        runtime::sleep(setting.load.after).await;
    }
    world.end(rest).await;
    changed.load(Ordering::Relaxed)
}
