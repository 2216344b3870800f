//! Couriers: the few tasks that carry what outboxes hold to their sockets, one outbox after the other, as long as no socket makes
//! them wait. A task for each connection would have to be woken for each delivery, and would take memory while nothing is said.
//!
//! Nobody can lag behind for it: whoever offers is followed by the couriers in the executor's line, so the dispatcher has
//! its next turn when they are done with the last, on as many threads as there are.

use crate::runtime;
use crate::session::OutboxReader;

/// Outboxes that wait for a courier, each once at most.
pub struct Couriers {
    line: flume::Sender<OutboxReader>,
}

impl Couriers {
    /// Starts one for each thread that runs tasks. They end when this is dropped.
    pub fn start() -> Self {
        let (line, waiting) = flume::unbounded();
        for _ in 0..runtime::threads() {
            runtime::spawn(carry(waiting.clone()));
        }
        Self { line }
    }

    pub(super) fn call(&self, outbox: OutboxReader) {
        // Without couriers the process is ending.
        let _ = self.line.send(outbox);
    }
}

async fn carry(line: flume::Receiver<OutboxReader>) {
    while let Ok(outbox) = line.recv_async().await {
        outbox.write();
    }
}
