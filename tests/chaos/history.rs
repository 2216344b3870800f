//! The history of a run: one JSON object per line, written while the run goes on and read again by
//! the judge, who sees nothing else. Times are microseconds since the run began, on the monotonic
//! clock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::bars::Bars;

/// A position as the server says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub epoch: String,
    pub offset: u64,
}

/// What a client did with a message that reached its socket, by the rules of the SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Given to the application.
    Taken,
    /// Not above the client's position: ignored.
    Double,
    /// Behind a hole: ignored, and the room joined anew.
    Beyond,
    /// Came while a join was on its way: ignored, because the answer begins anew.
    Stale,
}

/// What happened. Clients are numbers; a publisher is the client that publishes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first line: what was run and what is expected of it.
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
    /// Something was done to the cluster. `ends`: the epochs that it ends, if it ends any.
    Fault {
        what: String,
        ends: Option<Ends>,
    },
    /// What was acknowledged so far survives a fault that loses the tail: it is in the snapshot, or
    /// the replica has it.
    Saved,
    /// The last fault is over: from here on the recovery is timed.
    Healed,
    /// Redis is away, or back: in between nothing may be acknowledged.
    Absent {
        on: bool,
    },
    /// An expectation of the scenario's own, and whether it held.
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
    /// Refused: it must not be seen by anyone.
    Fail {
        client: usize,
        room: String,
        seq: u64,
        code: String,
    },
    /// Never answered: it may be seen, once.
    Unknown {
        client: usize,
        room: String,
        seq: u64,
    },
    /// A message on a client's socket. The epoch is the one the client stands in.
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
    /// The client was told that it missed something: it stands here now.
    Gap {
        client: usize,
        room: String,
        epoch: String,
        offset: u64,
    },
    /// An answer to nothing that was asked, or what no client understands.
    Strange {
        client: usize,
        said: String,
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
    /// A client was told that a user has come to a room, or has left it.
    Told {
        client: usize,
        room: String,
        user: String,
        here: bool,
        version: u64,
    },
    /// A client was told that too much has changed to tell: what it heard of the members is void.
    AskAnew {
        client: usize,
        room: String,
    },
    /// When all is quiet at the end: who is in a room, as a client's node says.
    Members {
        client: usize,
        room: String,
        version: u64,
        /// Users and their connections.
        users: BTreeMap<String, u32>,
        anonymous: u32,
    },
    /// When all is quiet at the end: the whole history of a room, as a client's node answers it.
    History {
        client: usize,
        room: String,
        epoch: Option<String>,
        messages: Vec<Kept>,
    },
    /// An attempt to connect came to nothing; the HTTP status, if there was one.
    Refused {
        client: usize,
        status: Option<u16>,
    },
    /// In all its rooms again.
    Back {
        client: usize,
    },
    /// The connection ended. `meant`: the scenario or a farewell asked for it.
    Closed {
        client: usize,
        code: u16,
        reason: String,
        meant: bool,
    },
    /// Where a client stands in a room when all is quiet at the end.
    End {
        client: usize,
        room: String,
        position: Option<Position>,
    },
}

/// The epochs that a fault ends, and what of their logs may be lost.
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
    /// The new epoch goes on where the former one ended, and all that was acknowledged stays.
    Nothing,
    /// The end of the log. What is before it stays.
    Tail,
    /// All of it, and the memory of the former epochs: nothing follows for who stood in them.
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

/// The file being written; it is whole after [`HistoryFile::finish`].
pub struct HistoryFile {
    pub path: PathBuf,
    writing: JoinHandle<io::Result<()>>,
}

/// Begins a history. It is written by a thread of its own, so that nobody waits for the disk.
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
        // The writer ends early only when the disk is full; `finish` says so.
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
    /// Waits for the last line. All recorders must be gone.
    pub fn finish(self) -> io::Result<PathBuf> {
        self.writing
            .join()
            .map_err(|_| io::Error::other("the writer of the history panicked"))??;
        Ok(self.path)
    }
}

/// Reads a history again, line by line.
pub fn read(path: &Path) -> io::Result<impl Iterator<Item = io::Result<Line>> + use<>> {
    let lines = BufReader::with_capacity(1 << 20, File::open(path)?).lines();
    Ok(lines.map(|line| Ok(serde_json::from_str(&line?)?)))
}
