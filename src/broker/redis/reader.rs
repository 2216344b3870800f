//! The broker's task for reads: pages of logs, of members and of rooms, by a pipeline of their own.
//! It reports when they do not move.

use std::sync::Arc;
use std::time::Instant;

use futures::{FutureExt, select_biased};

use super::pipeline::Pipeline;
use super::progress::Progress;
use super::request::{Completion, RedisRequest};
use super::{TICK, emit};
use crate::broker::BrokerEvent;
use crate::metrics::Metrics;
use crate::model::readiness::Readiness;
use crate::runtime;

/// How many reads are taken before they are sent.
const MAX_READS: usize = 256;

/// Where the task reports whether reads move.
pub(super) struct ReadsReport {
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    progress: Progress,
}

impl ReadsReport {
    pub(super) fn new(readiness: Readiness, metrics: Arc<Metrics>) -> Self {
        Self {
            readiness,
            metrics,
            progress: Progress::new(Instant::now()),
        }
    }

    fn update(&mut self, pipeline: &Pipeline) {
        let (state, now) = (pipeline.state(), Instant::now());
        self.progress.observe(state, now);
        let stalled = self.progress.stalled(now);
        let metrics = &self.metrics;
        metrics.redis_reads_waiting.set(state.unanswered as u64);
        metrics.redis_reads_parked.set(state.parked as u64);
        let seconds = stalled.map_or(0, |time| time.as_secs());
        metrics.redis_reads_stalled_seconds.set(seconds);
        if self.readiness.set_stalled(stalled.is_some()) {
            match stalled {
                Some(_) => log::warn!(
                    waiting = state.unanswered;
                    "Redis answers no reads; this node takes no new connections until it does"
                ),
                None => log::info!("Redis answers reads again"),
            }
        }
    }
}

/// Serves until `reads` or the dispatcher's inbox ends.
pub(super) async fn run(
    reads: flume::Receiver<RedisRequest>,
    mut pipeline: Pipeline,
    mut report: ReadsReport,
    events: flume::Sender<BrokerEvent>,
) {
    let mut tick = Box::pin(runtime::sleep(TICK).fuse());
    loop {
        select_biased! {
            _ = pipeline.turn().fuse() => {}
            () = tick => {
                tick = Box::pin(runtime::sleep(TICK).fuse());
                pipeline.expire();
            }
            read = reads.recv_async().fuse() => match read {
                Ok(read) => {
                    pipeline.push(read);
                    reads.try_iter().take(MAX_READS - 1).for_each(|read| pipeline.push(read));
                }
                Err(flume::RecvError::Disconnected) => return,
            },
        }
        pipeline.send();
        report.update(&pipeline);
        let completed = pipeline.take_completed().into_iter();
        let read = completed.filter_map(Completion::event).collect();
        if emit(&events, read).await.is_err() {
            return;
        }
    }
}
