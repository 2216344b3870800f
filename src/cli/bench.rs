//! `switchboard bench`: opens connections to running nodes, publishes, and measures how long an
//! answer and a delivery take. Times count from the moment at which a message was due, so that a
//! server which makes the publishers wait does not look fast.

mod load;
mod meter;
mod progress;
mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::client::{CommandFailure, exit_code, note, print, print_json, settings};
use crate::client::{Client, RoomEvents};
use crate::config::BenchRequest;
use crate::model::id::{self, RoomName};
use crate::runtime;

use load::Publisher;
use meter::Meter;
use progress::Progress;
use report::Report;

/// How many connections are opened at once: more would only wait in the queue of the listener.
const OPENING: usize = 64;

/// How often the progress is drawn and the end is looked for.
const GLANCE: Duration = Duration::from_millis(200);

/// A connection that has joined its room.
struct Member {
    client: Client,
    /// The index of its room.
    room: usize,
}

pub(super) fn run(request: &BenchRequest) -> ExitCode {
    exit_code(runtime::block_on(execute(request)))
}

async fn execute(request: &BenchRequest) -> Result<(), CommandFailure> {
    // Where it cannot be raised, the connections say so.
    let _ = runtime::raise_file_limit();
    let load = &request.load;
    let names = room_names(request)?;
    let run = id::random().map_err(|error| CommandFailure::Refused(error.to_string()))?;
    let meter = Arc::new(Meter::new(run));
    let opened = Instant::now();
    let members: Vec<Member> = stream::iter(0..load.connections)
        .map(|number| join(request, &names, number, &meter))
        .buffer_unordered(OPENING)
        .try_collect()
        .await?;
    note(format_args!(
        "{} connections in {} rooms after {:.1} s",
        members.len(),
        names.len().min(members.len()),
        opened.elapsed().as_secs_f64()
    ));
    let mut sizes = vec![0_u64; names.len()];
    members.iter().for_each(|member| sizes[member.room] += 1);

    let began = Instant::now();
    let publishers = publishers(request, &members, &names, &sizes, &meter, began);
    let watch = watch(request.load.duration, began, &meter);
    futures::join!(join_all(publishers), watch);
    let took = began.elapsed();
    settle(request.connect.timeout, &meter).await;
    let report = Report::new(request, &meter, took);
    if request.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    drop(members);
    outcome(&meter)
}

fn room_names(request: &BenchRequest) -> Result<Vec<RoomName>, CommandFailure> {
    let prefix = &request.load.room;
    let names = (0..request.load.rooms).map(|number| RoomName::new(&format!("{prefix}.{number}")));
    let names: Result<_, _> = names.collect();
    names.map_err(|error| CommandFailure::Refused(format!("--room {prefix}: {error}")))
}

/// Opens a connection, joins its room, and counts what comes.
async fn join(
    request: &BenchRequest,
    names: &[RoomName],
    number: usize,
    meter: &Arc<Meter>,
) -> Result<Member, CommandFailure> {
    let (states, _) = flume::bounded(1);
    let client = Client::start(settings(&request.connect), states)
        .map_err(|error| CommandFailure::Refused(error.to_string()))?;
    let room = number % names.len();
    let joining = client.join(names[room].clone(), None);
    let joined = runtime::timeout(request.connect.timeout, joining).await;
    let (_, events) = joined.map_err(|runtime::Elapsed| {
        CommandFailure::NoAnswer(format!(
            "no answer from {} to connection {} within {} s",
            request.connect.url,
            number + 1,
            request.connect.timeout.as_secs()
        ))
    })??;
    runtime::spawn(receive(events, meter.clone()));
    Ok(Member { client, room })
}

async fn receive(events: RoomEvents, meter: Arc<Meter>) {
    while let Ok(Ok(event)) = events.recv_async().await {
        meter.received(&event);
    }
}

fn publishers<'a>(
    request: &'a BenchRequest,
    members: &'a [Member],
    names: &'a [RoomName],
    sizes: &'a [u64],
    meter: &'a Meter,
    began: Instant,
) -> Vec<impl Future<Output = ()> + 'a> {
    let load = &request.load;
    let count = load.publishers.min(members.len());
    let interval =
        (load.rate > 0).then(|| Duration::from_secs_f64(count as f64 / load.rate as f64));
    let publishers = members[..count].iter().enumerate();
    publishers
        .map(|(number, member)| {
            // Spread over the interval, so that not all publish at the same moment.
            let part = number as f64 / count as f64;
            let publisher = Publisher {
                client: &member.client,
                room: &names[member.room],
                receivers: sizes[member.room],
                meter,
                size: load.size,
                ephemeral: request.ephemeral,
                first: began + interval.unwrap_or_default().mul_f64(part),
                interval,
                end: began + load.duration,
                timeout: request.connect.timeout,
            };
            publisher.run()
        })
        .collect()
}

/// Draws the progress until the end of the load.
async fn watch(duration: Duration, began: Instant, meter: &Meter) {
    let mut progress = Progress::new();
    while began.elapsed() < duration {
        progress.draw(began.elapsed(), duration, meter);
        let left = duration.saturating_sub(began.elapsed());
        runtime::sleep(GLANCE.min(left)).await;
    }
    progress.clear();
}

/// Waits for the messages under way.
async fn settle(time: Duration, meter: &Meter) {
    let began = Instant::now();
    while meter.missing() > 0 && began.elapsed() < time {
        runtime::sleep(GLANCE).await;
    }
}

fn outcome(meter: &Meter) -> Result<(), CommandFailure> {
    if let Some(reason) = meter.refusal() {
        return Err(CommandFailure::Refused(reason));
    }
    let (unanswered, missing) = (meter.unanswered(), meter.missing());
    if unanswered + missing == 0 {
        return Ok(());
    }
    Err(CommandFailure::NoAnswer(format!(
        "publishes without an answer: {unanswered}, messages that did not come: {missing}"
    )))
}
