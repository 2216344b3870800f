//! At the end of a run, when no fault is left: on every node, a member of each room reads the
//! room's whole history. The judge compares it with what was acknowledged and not lost.

use std::time::{Duration, Instant};

use switchboard::runtime;

use crate::client::{ControlCommand, Handle};
use crate::history::{Event, Recorder};
use crate::presence::one_of_each_node;

/// Between two checks of the replies.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a reply may take before the request is repeated: the node may have refused it.
const REPEAT: Duration = Duration::from_secs(2);

/// Requests the histories until `timeout`, and records the replies.
pub async fn ask(clients: &[Handle], recorder: &Recorder, timeout: Duration) {
    let start = Instant::now();
    let mut unanswered = one_of_each_node(clients);
    let requested = unanswered.len();
    let mut ask_at = start;
    while !unanswered.is_empty() && start.elapsed() < timeout {
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
    let found = format!("{} of {requested} unanswered", unanswered.len());
    recorder.check(what, unanswered.is_empty(), found);
}

/// Records a reply if it has arrived.
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
