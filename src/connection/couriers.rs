//! Couriers: the few tasks that carry what outboxes hold to their sockets, one outbox after the other, as long as no socket makes
//! them wait. A task for each connection would have to be woken for each delivery, and would take memory while nothing is said.
//!
//! The dispatcher stands in their line too, between two turns: however fast it is, what it said is on its way before it says more.
//!
//! Both runtimes look for input when an executor has nothing to run, or after 200 tasks; who carries long enough is taken for one
//! that does not look, and the reactor goes to a thread of its own, which interrupts this one every 50 µs from then on. So couriers
//! pause for [`BREATH`], in which the executor looks. Measured on one core with 200 rooms of 10 members, changes
//! of context in a run of some seconds: 50,000 without a pause, 12,500 with one after 16 outboxes; 14,000 to 21,000 with a task each.

use std::future::Future;
use std::time::Duration;

use futures::channel::oneshot;

use crate::runtime;
use crate::session::OutboxReader;

/// Outboxes in a row after which a courier lets its executor look for input. With 64 the interruptions were there in most runs, with 32 in
/// the one that was made; a pause costs a few µs (an estimate), a few per cent of what 16 messages cost the kernel.
const ROUND: u32 = 16;

/// Long enough that the timer goes through the reactor, which is what matters.
const BREATH: Duration = Duration::from_micros(2);

/// The line of those who wait for a courier; each outbox stands in it once at most. Clones are the same.
#[derive(Clone)]
pub struct Couriers {
    line: flume::Sender<Errand>,
}

enum Errand {
    Write(OutboxReader),
    /// Everybody who stood before is served, or being served.
    Tell(oneshot::Sender<()>),
}

impl Couriers {
    /// Starts one for each thread that runs tasks. They end when the last clone is dropped.
    pub fn start() -> Self {
        let (line, waiting) = flume::unbounded();
        for _ in 0..runtime::threads() {
            runtime::spawn(carry(waiting.clone()));
        }
        Self { line }
    }

    pub(super) fn call(&self, outbox: OutboxReader) {
        // Without couriers the process is ending.
        let _ = self.line.send(Errand::Write(outbox));
    }

    /// Waits behind everybody who stands in the line, and in any case lets the tasks run that are ready.
    pub fn pass(&self) -> impl Future<Output = ()> + use<> {
        let waiting = (!self.line.is_empty()).then(|| {
            let (tell, told) = oneshot::channel();
            let _ = self.line.send(Errand::Tell(tell));
            told
        });
        async {
            match waiting {
                // Without couriers there is nothing to wait for.
                Some(told) => drop(told.await),
                None => runtime::yield_now().await,
            }
        }
    }
}

async fn carry(line: flume::Receiver<Errand>) {
    while let Ok(first) = line.recv_async().await {
        serve(first);
        let mut in_a_row = 1;
        while let Ok(next) = line.try_recv() {
            serve(next);
            in_a_row += 1;
            if in_a_row % ROUND == 0 {
                runtime::sleep(BREATH).await;
            }
        }
    }
}

fn serve(errand: Errand) {
    match errand {
        Errand::Write(outbox) => outbox.write(),
        // The dispatcher may have ended.
        Errand::Tell(tell) => drop(tell.send(())),
    }
}
