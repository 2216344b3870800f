//! At the end of a run, when no fault is left: on every node, a member of each room requests its
//! members, repeatedly, until the replies are those that the harness expects. Only the last replies
//! go into the history; the judge counts on its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use switchboard::runtime;

use crate::client::{ControlCommand, Handle, Members};
use crate::history::{Event, Recorder};

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(250);

/// Requests the members until `timeout`, then records the replies.
pub async fn ask(clients: &[Handle], recorder: &Recorder, timeout: Duration) {
    let took = until_listed(clients, timeout).await;
    let took = took.map_or("never".into(), |took| {
        format!("{:.1} s", took.as_secs_f64())
    });
    recorder.figure("every node lists its members, after", took);
    for (client, room) in survey(clients).1 {
        note(client, &room, recorder);
    }
}

/// Waits until every node lists the expected members; returns how long that took.
pub async fn until_listed(clients: &[Handle], timeout: Duration) -> Option<Duration> {
    let start = Instant::now();
    loop {
        let (expected, requests) = survey(clients);
        for (client, room) in &requests {
            client.glance().members.remove(room);
            client.order(ControlCommand::Members { room: room.clone() });
        }
        runtime::sleep(PAUSE).await;
        let is_right = |(client, room): &(&Handle, String)| {
            let glance = client.glance();
            let (users, anonymous) = &expected[room];
            let answer = glance.members.get(room);
            answer.is_some_and(|answer| answer.users == *users && answer.anonymous == *anonymous)
        };
        let all_right = requests.iter().all(is_right);
        if all_right || start.elapsed() > timeout {
            return all_right.then(|| start.elapsed());
        }
    }
}

fn note(client: &Handle, room: &str, recorder: &Recorder) {
    let answer = client.glance().members.remove(room);
    let Members {
        version,
        users,
        anonymous,
    } = answer.unwrap_or_default();
    recorder.note(Event::Members {
        client: client.number,
        room: room.to_owned(),
        version,
        users,
        anonymous,
    });
}

type Expected = BTreeMap<String, (BTreeMap<String, u32>, u32)>;

/// One client of each node in each room.
pub fn one_of_each_node(clients: &[Handle]) -> Vec<(&Handle, String)> {
    survey(clients).1
}

/// The expected members of each room, and one client of each node in it.
fn survey(clients: &[Handle]) -> (Expected, Vec<(&Handle, String)>) {
    let mut expected = Expected::new();
    let mut requests = BTreeMap::new();
    for client in clients {
        let glance = client.glance();
        let Some(node) = glance.node.clone() else {
            continue;
        };
        for room in glance.positions.keys() {
            let (users, anonymous) = expected.entry(room.clone()).or_default();
            match &client.user {
                Some(user) => *users.entry(user.clone()).or_default() += 1,
                None => *anonymous += 1,
            }
            requests
                .entry((room.clone(), node.clone()))
                .or_insert(client);
        }
    }
    let requests = requests
        .into_iter()
        .map(|((room, _), client)| (client, room));
    (expected, requests.collect())
}
