//! `switchboard drain`: asks a node of this machine to drain, and waits until its process is gone.
//!
//! The means is SIGTERM, which a supervisor sends too: it needs no listener and no key, works while
//! Redis is away, and only who may stop the process can send it. A call of the HTTP API could stop
//! nodes from other machines, where a supervisor would start them again.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::client::{CommandFailure, exit_code, note};
use crate::config::DrainRequest;

/// How often the process is looked for: nothing wakes another process than the parent.
const GLANCE: Duration = Duration::from_millis(50);

pub(super) fn run(request: &DrainRequest) -> ExitCode {
    exit_code(drain(request))
}

fn drain(request: &DrainRequest) -> Result<(), CommandFailure> {
    let id = request.pid;
    let refused = |reason: String| CommandFailure::Refused(format!("process {id}: {reason}"));
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| refused("this is no process id".into()))?;
    if name(id).is_some_and(|name| name != env!("CARGO_PKG_NAME")) {
        return Err(refused("it is not a switchboard; nothing was sent".into()));
    }
    kill_process(pid, Signal::TERM).map_err(|error| {
        refused(match error {
            Errno::SRCH => "there is none".into(),
            error => error.to_string(),
        })
    })?;
    note(format_args!("process {id} drains"));
    let began = Instant::now();
    while runs(pid) {
        if began.elapsed() >= request.timeout {
            return Err(CommandFailure::NoAnswer(format!(
                "process {id} still runs after {} s; it goes on draining, and a second signal ends \
                 it at once",
                request.timeout.as_secs()
            )));
        }
        thread::sleep(GLANCE);
    }
    note(format_args!("process {id} is gone"));
    Ok(())
}

/// The name of a process, where the system has `/proc` and the process exists.
fn name(id: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// Whether a process runs. One that has ended and was not waited for has an id, but does not run.
fn runs(pid: Pid) -> bool {
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return false;
    }
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // Behind the name in brackets is the state (proc(5)).
    let is_zombie = |stat: &str| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|state| state.starts_with(['Z', 'X']))
    };
    !stat.is_ok_and(|stat| is_zombie(&stat))
}
