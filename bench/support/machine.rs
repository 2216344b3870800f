//! The machine: which core is whose, and how much of it others used while something was measured.

use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which process gets which core. With two cores, all servers share the first; the load and Redis
/// have the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    SecondServer,
    Redis,
    Load,
    /// A server that may use every core.
    Everywhere,
}

/// Runs `start` with this thread on the core of a role; a process started in there inherits it.
pub fn pinned<T>(role: Role, start: impl FnOnce() -> T) -> T {
    let Ok(before) = sched_getaffinity(None) else {
        return start();
    };
    // A machine that forbids it gives noisier figures, not none.
    let _ = sched_setaffinity(None, &cores_of(role));
    let started = start();
    let _ = sched_setaffinity(None, &before);
    started
}

/// Keeps this thread on the core of a role.
pub fn pin(role: Role) {
    let _ = sched_setaffinity(None, &cores_of(role));
}

fn cores_of(role: Role) -> CpuSet {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let many = cores_online().max(cores);
    let last = many - 1;
    let cores = match role {
        Role::Server => 0..1,
        Role::SecondServer if many > 3 => 1..2,
        Role::SecondServer => 0..1,
        Role::Redis if many > 2 => last - 1..last,
        Role::Redis | Role::Load => last..many,
        Role::Everywhere => 0..many,
    };
    let mut set = CpuSet::new();
    cores.for_each(|core| set.set(core));
    set
}

/// Also right while this thread is kept on one core.
fn cores_online() -> usize {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let core = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    stat.lines().filter(core).count().max(1)
}

/// One line about the machine, to quote with a figure.
pub fn describe() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("an unknown processor", |model| {
            model.trim_start_matches([' ', '\t', ':'])
        });
    let kernel = read("/proc/sys/kernel/osrelease");
    let cores = cores_online();
    format!(
        "{cores} × {model}, Linux {}, {}",
        kernel.trim(),
        super::size("small sizes", "full sizes")
    )
}

/// Processor time spent on the whole machine since it started, theft by other machines included.
pub fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.lines().next().map_or(0, |line| {
        let fields = line.split_whitespace().skip(1).take(8);
        let idle = |(index, _): &(usize, &str)| *index != 3 && *index != 4;
        fields
            .enumerate()
            .filter(idle)
            .filter_map(|(_, field)| field.parse::<u64>().ok())
            .sum()
    });
    // The unit of /proc is a hundredth of a second on every Linux.
    Duration::from_millis(10 * ticks)
}
