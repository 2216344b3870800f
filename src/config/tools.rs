//! The commands that need no server: `drain` (a process of this machine), `completions` and `man`,
//! which are made from the command line's own description.

use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::numbers::{HOUR, SECOND, time};
use super::values::ConfigError;

/// What to drain: the arguments of `switchboard drain`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainRequest {
    pub pid: u32,
    /// How long it may take.
    pub timeout: Duration,
}

pub(super) fn commands() -> [Command; 3] {
    let timeout = |text: &str| time(SECOND, 24 * HOUR).parse(text);
    let drain = Command::new("drain")
        .about("Drain a node of this machine, and wait until it is gone")
        .after_help(
            "Exit codes: 0 it is gone, 1 it cannot be drained, 2 wrong usage, 3 it still runs.",
        )
        .args([
            Arg::new("pid")
                .value_name("PID")
                .required(true)
                .value_parser(value_parser!(u32).range(1..))
                .help("The process id of the node; it gets the signal SIGTERM"),
            Arg::new("timeout")
                .long("timeout")
                .value_name("TIME")
                .value_parser(timeout)
                .default_value("5m")
                .help("How long to wait; longer than the node's --drain-time"),
        ]);
    let completions = Command::new("completions")
        .about("Print the completions of the command line for a shell")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(value_parser!(Shell)),
        );
    let man = Command::new("man")
        .about("Print a manual page in roff")
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .help("The command; without it the page of the program"),
        );
    [drain, completions, man]
}

impl DrainRequest {
    pub(super) fn read(mut flags: ArgMatches) -> Self {
        Self {
            pid: flags.remove_one("pid").expect("clap requires it"),
            timeout: flags.remove_one("timeout").expect("it has a default"),
        }
    }
}

/// The completions for the shell that was asked for.
pub(super) fn completions(mut flags: ArgMatches, mut program: Command) -> String {
    let shell: Shell = flags.remove_one("shell").expect("clap requires it");
    let (name, mut script) = (program.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, &mut program, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page of the command that was asked for.
///
/// # Errors
/// There is no such command.
pub(super) fn man(mut flags: ArgMatches, mut program: Command) -> Result<String, ConfigError> {
    program.build();
    let page = match flags.remove_one::<String>("command") {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(&name);
            let unknown = || ConfigError::Usage(format!("error: there is no command {name}\n"));
            let found = found.ok_or_else(unknown)?.clone();
            // The title of the page, by which `man` finds it.
            found.name(format!("switchboard-{name}"))
        }
    };
    let mut roff = Vec::new();
    // Writing to memory cannot fail.
    let _ = clap_mangen::Man::new(page).render(&mut roff);
    Ok(String::from_utf8_lossy(&roff).into_owned())
}
