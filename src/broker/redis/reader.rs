//! The broker's task for reads: pages of logs, of members and of rooms, on a connection of their
//! own.

use futures::{FutureExt, select_biased};

use super::pipeline::Pipeline;
use super::request_queue::RedisRequest;
use super::{TICK, emit};
use crate::broker::BrokerEvent;
use crate::runtime;

/// How many reads are taken before they are sent.
const TURN: usize = 256;

/// Serves until `reads` or the dispatcher's inbox ends.
pub async fn run(
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
                    reads.try_iter().take(TURN - 1).for_each(|read| pipeline.push(read));
                }
                Err(flume::RecvError::Disconnected) => return,
            },
        }
        pipeline.send();
        if emit(&events, std::mem::take(&mut pipeline.events))
            .await
            .is_err()
        {
            return;
        }
    }
}
