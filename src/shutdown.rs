//! From the first signal to the exit code: SIGTERM or SIGINT drains the node, a second one does not wait for it, and
//! a node that ends by itself is a failure that whoever supervises it must see.

use std::pin::pin;
use std::process::ExitCode;

use futures::StreamExt;
use futures::future::{Either, select};

use crate::runtime::{self, Signal};
use crate::server::Server;

/// What a node that failed exits with (`EX_SOFTWARE` of sysexits.h).
const FAILED: u8 = 70;

/// Runs a started node to its end.
pub async fn run(server: Server) -> ExitCode {
    let mut signals = match runtime::signals(&[Signal::Terminate, Signal::Interrupt]) {
        Ok(signals) => signals,
        Err(error) => {
            log::error!(error = error.to_string().as_str(); "cannot listen for signals");
            return ExitCode::from(FAILED);
        }
    };
    match select(signals.next(), pin!(server.ended())).await {
        Either::Left(_) => {}
        Either::Right(_) => {
            log::error!("the dispatcher or the broker has failed; the node ends");
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
