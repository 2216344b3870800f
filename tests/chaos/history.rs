//! The history of a run: one JSON object per line, written during the run and read by the judge,
//! which has no other input. Times are microseconds since the start of the run, on the monotonic
//! clock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::bars::Bars;

/// A position as the server names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub epoch: String,
    pub offset: u64,
}

/// What a client did with a message that reached its socket, by the rules of the SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Delivered to the application.
    Taken,
    /// Not above the client's position: ignored.
    Double,
    /// After a hole: ignored, and the room is joined again.
    Beyond,
    /// Arrived while a join was pending: ignored, because the reply sets a new position.
    Stale,
}

/// An event. Clients are numbers; a publisher is the client that publishes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first line: the scenario and its thresholds.
    Run {
        scenario: String,
        seed: u64,
        load: String,
        clients: usize,
        rooms: usize,
        bars: Bars,
    },
    /// Publications begin (all clients are in their rooms), or end.
    Load {
        on: bool,
    },
    /// A fault was injected. `ends`: the epochs that it ends, if any.
    Fault {
        what: String,
        ends: Option<Ends>,
    },
    /// Everything acknowledged so far survives a fault that loses the tail: it is in the snapshot,
    /// or on the replica.
    Saved,
    /// The last fault is over: the recovery is timed from here.
    Healed,
    /// Redis is down, or up again: nothing may be acknowledged in between.
    Absent {
        on: bool,
    },
    /// A check of the scenario's own, and whether it held.
    Check {
        what: String,
        held: bool,
        found: String,
    },
    /// A figure of the scenario's own, for the report.
    Figure {
        what: String,
        value: String,
    },
    Invoke {
        client: usize,
        room: String,
        seq: u64,
        key: String,
    },
    Ok {
        client: usize,
        room: String,
        seq: u64,
        epoch: String,
        offset: u64,
    },
    /// Refused: no client may receive it.
    Fail {
        client: usize,
        room: String,
        seq: u64,
        code: String,
    },
    /// Without a reply: a client may receive it, once.
    Unknown {
        client: usize,
        room: String,
        seq: u64,
    },
    /// A message on a client's socket. The epoch is that of the client's position.
    Receive {
        client: usize,
        room: String,
        epoch: String,
        offset: u64,
        publisher: usize,
        seq: u64,
        fate: Fate,
    },
    Joined {
        client: usize,
        room: String,
        epoch: String,
        offset: u64,
        top: u64,
        since: Option<Position>,
        recovered: Option<bool>,
    },
    /// The client received a gap: this is its position now.
    Gap {
        client: usize,
        room: String,
        epoch: String,
        offset: u64,
    },
    /// A reply without a request, or a frame that clients do not understand.
    Unexpected {
        client: usize,
        text: String,
    },
    Open {
        client: usize,
        node: String,
    },
    /// On the present connection the client is this user.
    SignedIn {
        client: usize,
        user: String,
    },
    /// A client received a `joined` or `left`.
    PresenceChange {
        client: usize,
        room: String,
        user: String,
        here: bool,
        version: u64,
    },
    /// A client received a `members`: there were too many changes, so its list is void.
    MembersReset {
        client: usize,
        room: String,
    },
    /// At the quiet end of a run: the members of a room, as a client's node lists them.
    Members {
        client: usize,
        room: String,
        version: u64,
        /// Users and their connections.
        users: BTreeMap<String, u32>,
        anonymous: u32,
    },
    /// At the quiet end of a run: the whole history of a room, as a client's node returns it.
    History {
        client: usize,
        room: String,
        epoch: Option<String>,
        messages: Vec<Kept>,
    },
    /// An attempt to connect failed; the HTTP status, if there was one.
    Refused {
        client: usize,
        status: Option<u16>,
    },
    /// The client is in all its rooms again.
    Back {
        client: usize,
    },
    /// The connection ended. `meant`: the scenario or a `bye` asked for it.
    Closed {
        client: usize,
        code: u16,
        reason: String,
        meant: bool,
    },
    /// At the quiet end of a run: a client's position in a room.
    End {
        client: usize,
        room: String,
        position: Option<Position>,
    },
}

/// The epochs that a fault ends, and which part of their logs may be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    pub rooms: Rooms,
    pub loss: Loss,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rooms {
    Everywhere,
    In(String),
}

/// What may be lost of a log, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The new epoch continues where the former one ended, and everything acknowledged stays.
    Nothing,
    /// The end of the log. What is before it stays.
    Tail,
    /// The whole log, and the record of the former epochs: no position in them is recovered.
    Everything,
}

/// A message of a room's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub offset: u64,
    pub publisher: usize,
    pub seq: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub at: u64,
    #[serde(flatten)]
    pub event: Event,
}

/// Writes a run's history; clones are handles of the same file.
#[derive(Clone)]
pub struct Recorder {
    start: Instant,
    lines: flume::Sender<Line>,
}

/// The file being written; it is complete after [`HistoryFile::finish`].
pub struct HistoryFile {
    pub path: PathBuf,
    writing: JoinHandle<io::Result<()>>,
}

/// Begins a history. A thread of its own writes it, so that no client waits for the disk.
pub fn record(path: &Path) -> io::Result<(Recorder, HistoryFile)> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (lines, written) = flume::unbounded::<Line>();
    let writing = std::thread::spawn(move || {
        for line in written {
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    });
    let recorder = Recorder {
        start: Instant::now(),
        lines,
    };
    let file = HistoryFile {
        path: path.to_owned(),
        writing,
    };
    Ok((recorder, file))
}

impl Recorder {
    pub fn note(&self, event: Event) {
        let at = self.start.elapsed().as_micros() as u64;
        // The writer ends early only when the disk is full; `finish` returns that error.
        let _ = self.lines.send(Line { at, event });
    }

    pub fn check(&self, what: &str, held: bool, found: impl ToString) {
        let (what, found) = (what.to_owned(), found.to_string());
        self.note(Event::Check { what, held, found });
    }

    pub fn figure(&self, what: &str, value: impl ToString) {
        let (what, value) = (what.to_owned(), value.to_string());
        self.note(Event::Figure { what, value });
    }
}

impl HistoryFile {
    /// Waits for the last line. All recorders must be dropped before.
    pub fn finish(self) -> io::Result<PathBuf> {
        self.writing
            .join()
            .map_err(|_| io::Error::other("the writer of the history panicked"))??;
        Ok(self.path)
    }
}

/// Reads a history, line by line.
pub fn read(path: &Path) -> io::Result<impl Iterator<Item = io::Result<Line>> + use<>> {
    let lines = BufReader::with_capacity(1 << 20, File::open(path)?).lines();
    Ok(lines.map(|line| Ok(serde_json::from_str(&line?)?)))
}
