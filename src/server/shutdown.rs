//! From the first signal to the exit code: SIGTERM, SIGINT or SIGQUIT drains the node, a second one
//! ends it at once, and a node that ends by itself exits with a failure that its supervisor sees.
//! SIGHUP changes nothing.

use std::future::ready;
use std::io;
use std::pin::pin;
use std::process::ExitCode;

use futures::future::{Either, select};
use futures::stream::{Stream, StreamExt};

use crate::runtime::{self, Signal};
use crate::server::Server;

/// The exit code of a node that failed (`EX_SOFTWARE` of sysexits.h).
const FAILED: u8 = 70;

/// The signals that no longer end the process by themselves.
const HANDLED: [Signal; 4] = [
    Signal::Terminate,
    Signal::Interrupt,
    Signal::Quit,
    Signal::HangUp,
];

/// The signals that stop a node, SIGHUP left out. Call this before the node logs that it listens:
/// from then on a signal may arrive, and without a handler it ends the process without a drain.
pub(crate) fn signals() -> io::Result<impl Stream<Item = Signal> + Unpin> {
    let arriving = runtime::signals(&HANDLED)?;
    Ok(arriving.filter(|signal| ready(!is_ignored(*signal))))
}

/// Other servers reread their files at SIGHUP, and closing a terminal sends it too. This one reads
/// its files once, so it logs what to do instead.
fn is_ignored(signal: Signal) -> bool {
    let ignored = signal == Signal::HangUp;
    if ignored {
        log::warn!("SIGHUP is ignored: restart the node to read changed files");
    }
    ignored
}

/// Runs a started node to its end.
pub(crate) async fn run(
    server: Server,
    mut signals: impl Stream<Item = Signal> + Unpin,
) -> ExitCode {
    match select(signals.next(), pin!(server.ended())).await {
        Either::Left(_) => {}
        Either::Right(_) => {
            log::error!(
                "the listener, the dispatcher, the broker or the webhooks have failed; \
                 the node ends"
            );
            return ExitCode::from(FAILED);
        }
    }
    log::info!("draining");
    match select(pin!(server.drain()), signals.next()).await {
        Either::Left(_) => log::info!("stopped"),
        Either::Right(_) => log::warn!("stopped by a second signal before the drain was complete"),
    }
    ExitCode::SUCCESS
}
