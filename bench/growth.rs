//! Whether a delivery costs the same in large rooms, beside many rooms, and on many nodes. Each
//! figure is divided by the plain limit's, for the kernel's own share grows too; the last column
//! is the growth of that ratio since the first row.

use crate::support::closed_loop::{self, Case, Measured};
use crate::support::load::Load;
use crate::support::machine::{self, Role};
use crate::support::server::{Kind, Server};
use crate::support::table::{Table, ratio};
use crate::support::talk::Talk;
use crate::support::{Outcome, median, size, wanted};

const MEMBERS: [usize; 5] = [100, 300, 1000, 3000, 10_000];
const OTHER_ROOMS: [usize; 4] = [1, 1000, 10_000, 100_000];
const NODES: usize = 4;

/// How many rooms one client may join.
const EACH: usize = 128;

/// A plain server and nodes measured in turn, several times.
#[derive(Default)]
struct Pair {
    plain: Vec<f64>,
    ours: Vec<f64>,
    noise: String,
}

pub fn run() -> Outcome {
    machine::pin(Role::Load);
    switchboard::runtime::raise_file_limit()?;
    if wanted("members") {
        members()?;
    }
    if wanted("rooms") {
        rooms()?;
    }
    if wanted("nodes") {
        nodes()?;
    }
    Ok(())
}

fn members() -> Outcome {
    let mut table = Growth::begin(
        "Growth: members of one room, one message in flight",
        "members",
    );
    for members in MEMBERS {
        let plain = Server::start(Kind::Plain)?;
        let node = Server::start(Kind::Node)?;
        let case = Case::of(1, members, 1);
        let mut pair = Pair::default();
        for _ in 0..size(3, 5) {
            pair.plain(closed_loop::measure(&[&plain], &[], case)?);
            pair.ours(closed_loop::measure(&[&node], &[], case)?);
        }
        table.row(members, &pair);
    }
    Ok(())
}

fn rooms() -> Outcome {
    let title =
        "Growth: a room of 10, one message in flight, beside other rooms with a member each";
    let mut table = Growth::begin(title, "rooms");
    for others in OTHER_ROOMS {
        let plain = Server::start(Kind::Plain)?;
        // The clients answer no pings while a figure is taken.
        let options = ["--max-rooms", "200000", "--heartbeat", "1h"];
        let node = Server::start_node(Role::Server, &options, None)?;
        let mut crowds = [Load::new()?, Load::new()?];
        for (server, crowd) in [&plain, &node].into_iter().zip(&mut crowds) {
            let clients = crowd.connect(server, others.div_ceil(EACH))?;
            for number in 0..EACH.min(others) {
                crowd.join(clients.clone(), |client| {
                    format!("other-{}", client * EACH + number)
                })?;
            }
        }
        let mut talks = [
            Talk::begin(&[&plain], 1, 10)?,
            Talk::begin(&[&node], 1, 10)?,
        ];
        let mut pair = Pair::default();
        for _ in 0..size(3, 5) {
            pair.plain(closed_loop::continued(&mut talks[0], &[&plain], &[], 1)?);
            pair.ours(closed_loop::continued(&mut talks[1], &[&node], &[], 1)?);
        }
        table.row(others, &pair);
    }
    Ok(())
}

fn nodes() -> Outcome {
    let title = "Growth: 1,000 members over several nodes and one Redis, one message in flight";
    let mut table = Growth::begin(title, "nodes");
    let case = Case::of(1, 1000, 1);
    for count in 1..=NODES {
        let plain = Server::start(Kind::Plain)?;
        let redis = Server::start_redis()?;
        let nodes: Outcome<Vec<Server>> = (0..count)
            .map(|_| Server::start_with_redis(&redis, Role::Server))
            .collect();
        let nodes = nodes?;
        let nodes: Vec<&Server> = nodes.iter().collect();
        let mut pair = Pair::default();
        for _ in 0..size(3, 5) {
            pair.plain(closed_loop::measure(&[&plain], &[], case)?);
            pair.ours(closed_loop::measure(&nodes, &[&redis], case)?);
        }
        table.row(count, &pair);
    }
    Ok(())
}

impl Pair {
    fn plain(&mut self, measured: Measured) {
        self.plain.push(measured.cost());
    }

    fn ours(&mut self, measured: Measured) {
        self.ours.push(measured.cost());
        self.noise = measured.spent.noise();
    }

    /// Of the middling rounds.
    fn ratio(&self) -> f64 {
        median(self.ours.clone()) / median(self.plain.clone())
    }
}

/// A table whose first row is what the others are compared with.
struct Growth {
    table: Table,
    first: Option<f64>,
}

impl Growth {
    fn begin(title: &str, what: &str) -> Self {
        let columns = [
            what,
            "plain, CPU µs each",
            "switchboard",
            "to plain",
            "to first row",
            "others' CPU",
        ];
        Self {
            table: Table::begin(title, &columns),
            first: None,
        }
    }

    fn row(&mut self, count: usize, pair: &Pair) {
        let first = *self.first.get_or_insert(pair.ratio());
        self.table.row(&[
            count.to_string(),
            format!("{:.2}", median(pair.plain.clone())),
            format!("{:.2}", median(pair.ours.clone())),
            format!("{:.2}×", pair.ratio()),
            ratio(pair.ratio(), Some(first)),
            pair.noise.clone(),
        ]);
    }
}
