//! The output: a report of each run, and a table of all.

use std::path::Path;

use crate::judge::{Percentiles, Verdict};

/// Whether a run has the expected verdict: green, or red because of the harness's own mutation.
pub fn is_expected(verdict: &Verdict) -> bool {
    match verdict.bars.mutation {
        None => verdict.is_green(),
        Some(mutation) => verdict.detected(mutation),
    }
}

/// The verdict as text.
fn outcome(verdict: &Verdict) -> &'static str {
    match (verdict.bars.mutation, is_expected(verdict)) {
        (None, true) => "GREEN",
        (None, false) => "RED",
        (Some(_), true) => "RED, as it must",
        (Some(_), false) => "NOT DETECTED",
    }
}

fn latency(percentiles: &Percentiles) -> String {
    match percentiles.count {
        0 => "-".into(),
        _ => format!("{:.1}/{:.1}", percentiles.p50, percentiles.p99),
    }
}

fn reconnects(percentiles: &Percentiles) -> String {
    match percentiles.count {
        0 => "-".into(),
        _ => {
            let [p50, p99] = [percentiles.p50, percentiles.p99].map(|ms| ms / 1000.0);
            format!("{p50:.2}/{p99:.2}")
        }
    }
}

/// Prints the report of one run.
pub fn one(verdict: &Verdict, history: &Path) {
    for (at, what) in &verdict.timeline {
        println!("   {at:7.2} s  {what}");
    }
    println!(
        "   attempted {}, acknowledged {}, refused {}, unknown {} (seen {})",
        verdict.attempted,
        verdict.acknowledged,
        verdict.refused,
        verdict.unknown,
        verdict.recovered
    );
    println!(
        "   lost {}, duplicated {}, disordered {}, unexpected {}; \
         gaps {} in {} memberships, false alarms {}",
        verdict.lost,
        verdict.duplicated,
        verdict.disordered,
        verdict.unexpected,
        verdict.gaps,
        verdict.memberships,
        verdict.false_alarms
    );
    println!(
        "   lists of members {}, wrong {}; presence events {}, out of order {}",
        verdict.lists, verdict.wrong_lists, verdict.changes, verdict.changes_out_of_order
    );
    println!(
        "   histories of rooms {}, wrong {}",
        verdict.histories, verdict.wrong_histories
    );
    println!(
        "   closes {}, back {} s (p50/p99, max {:.2}); longest silence of a room {:.2} s; \
         received everywhere after {}",
        verdict.closes,
        reconnects(&verdict.reconnects),
        verdict.reconnects.max / 1000.0,
        verdict.silence,
        verdict
            .works_again
            .map_or("-".into(), |seconds| format!("{seconds:.2} s")),
    );
    println!(
        "   latency in ms (p50/p99): before {}, during {}, after {}",
        latency(&verdict.before),
        latency(&verdict.during),
        latency(&verdict.after)
    );
    for (what, found) in &verdict.figures {
        println!("   {what}: {found}");
    }
    for reason in &verdict.reasons {
        println!("   - {reason}");
    }
    println!("   {}; history: {}", outcome(verdict), history.display());
    if !is_expected(verdict) {
        println!("   again: {}", replay(verdict));
    }
}

/// The command that repeats the run.
pub fn replay(verdict: &Verdict) -> String {
    format!(
        "make test-chaos SEED={} SCENARIO={} LOAD={}",
        verdict.seed, verdict.scenario, verdict.load
    )
}

/// Prints one line for each run.
pub fn table(verdicts: &[Verdict]) {
    println!(
        "\n| scenario | load | acknowledged | lost/dup/disorder | gaps | closes | back p50/p99 s \
         | silence s | p99 ms before/during/after | verdict |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for verdict in verdicts {
        let gaps = match verdict.gaps {
            0 => "0".to_owned(),
            gaps => format!("{gaps}/{}", verdict.memberships),
        };
        println!(
            "| {} | {} × {} rooms | {} | {}/{}/{} | {} | {} | {} | {:.2} \
             | {:.0}/{:.0}/{:.0} | {} |",
            verdict.scenario,
            verdict.clients,
            verdict.rooms,
            verdict.acknowledged,
            verdict.lost,
            verdict.duplicated,
            verdict.disordered,
            gaps,
            verdict.closes,
            reconnects(&verdict.reconnects),
            verdict.silence,
            verdict.before.p99,
            verdict.during.p99,
            verdict.after.p99,
            outcome(verdict),
        );
    }
}
