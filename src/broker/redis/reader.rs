//! The broker's task for reads: pages of logs, of members and of rooms, by a pipeline of their own.

use futures::{FutureExt, select_biased};

use super::pipeline::Pipeline;
use super::request::{Completion, RedisRequest};
use super::{TICK, emit};
use crate::broker::BrokerEvent;
use crate::runtime;

/// How many reads are taken before they are sent.
const MAX_READS: usize = 256;

/// Serves until `reads` or the dispatcher's inbox ends.
pub(super) async fn run(
    reads: flume::Receiver<RedisRequest>,
    mut pipeline: Pipeline,
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
        let completed = pipeline.take_completed().into_iter();
        let read = completed.filter_map(Completion::event).collect();
        if emit(&events, read).await.is_err() {
            return;
        }
    }
}
