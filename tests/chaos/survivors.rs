//! At the end of a run, when no fault is left: on every node, a member of each room reads the
//! room's whole history. The judge compares it with what was acknowledged and not lost.

use std::time::{Duration, Instant};

use switchboard::runtime;

use crate::client::{ControlCommand, Handle};
use crate::history::{Event, Recorder};
use crate::presence::one_of_each_node;

/// Between two looks at the answers.
const PAUSE: Duration = Duration::from_millis(50);

/// How long an answer may take before the question is repeated: a node may have said "not now".
const REPEAT: Duration = Duration::from_secs(2);

/// Asks for as long as `patience`, and writes down what was answered.
pub async fn ask(clients: &[Handle], recorder: &Recorder, patience: Duration) {
    let start = Instant::now();
    let mut unanswered = one_of_each_node(clients);
    let asked = unanswered.len();
    let mut ask_at = start;
    while !unanswered.is_empty() && start.elapsed() < patience {
        if ask_at <= Instant::now() {
            for (client, room) in &unanswered {
                client.order(ControlCommand::History { room: room.clone() });
            }
            ask_at = Instant::now() + REPEAT;
        }
        runtime::sleep(PAUSE).await;
        unanswered.retain(|(client, room)| !note(client, room, recorder));
    }
    let what = "every node answers the history of each room";
    let found = format!("{} of {asked} unanswered", unanswered.len());
    recorder.check(what, unanswered.is_empty(), found);
}

/// Writes down an answer if it is there.
fn note(client: &Handle, room: &str, recorder: &Recorder) -> bool {
    let Some((epoch, messages)) = client.glance().histories.remove(room) else {
        return false;
    };
    recorder.note(Event::History {
        client: client.number,
        room: room.to_owned(),
        epoch,
        messages,
    });
    true
}
