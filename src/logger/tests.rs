use super::*;

use std::env;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;

const ALONE: &str = "LOGGER_TEST_ALONE";
const MANY: u64 = 100_000;

/// Runs a test's body in a process of its own, because it takes over stdout; the process must
/// end well within 30 s.
fn alone(name: &str, body: fn()) {
    if env::var_os(ALONE).is_some() {
        body();
        return eprintln!("{name} came to its end");
    }
    let mut command = Command::new(env::current_exe().expect("this test"));
    command.args([&format!("logger::tests::{name}"), "--exact", "--nocapture"]);
    command
        .env(ALONE, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("started");
    let id = rustix::process::Pid::from_child(&child);
    let (done, ended) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(Duration::from_secs(30)) else {
        let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
        panic!("{name} does not end");
    };
    let output = output.expect("its output");
    let text = String::from_utf8_lossy(&output.stderr);
    let ended = text.contains("came to its end");
    assert!(output.status.success() && ended, "{text}");
}

fn replace_stdout(by: impl AsFd) {
    rustix::stdio::dup2_stdout(by).expect("replaced");
}

fn log_lines(lines: u64) {
    let text = "x".repeat(200);
    for n in 0..lines {
        log::info!(n = n, text = text.as_str(); "many");
    }
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

#[test]
fn lines_are_json_for_any_value() {
    alone("lines_are_json_for_any_value", || {
        let file = tempfile::NamedTempFile::new().expect("a file");
        replace_stdout(&file);
        let logger = start(LevelFilter::Info).expect("started");
        let evil = "\"}\n{\"msg\":\"forged\x1b[31m";
        log::info!(node = "a", text = evil; "text: {evil}");
        log::warn!(code = 3000, error:% = io::Error::other(evil); "second");
        log::debug!("not at this level");
        assert!(logger.close(LAST_LINES));
        let text = std::fs::read_to_string(file.path()).expect("the lines");
        let lines: Vec<Value> = text.lines().map(parsed).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(
            (&lines[0]["node"], &lines[0]["text"]),
            (&"a".into(), &evil.into())
        );
        assert_eq!(lines[0]["msg"], format!("text: {evil}"));
        assert_eq!(
            (&lines[1]["level"], &lines[1]["code"]),
            (&40.into(), &3000.into())
        );
        assert_eq!(lines[1]["error"], evil);
        assert_eq!(logger.dropped(), 0);
    });
}

/// A stdout with room for so many bytes: then it fails, as a full disk does.
struct Disk {
    written: Vec<u8>,
    room: usize,
}

impl Disk {
    fn with(room: usize) -> Self {
        let written = Vec::new();
        Self { written, room }
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        self.room -= count;
        self.written.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lost_lines_are_only_those_of_the_log() {
    let table = [
        (false, "a\nb\n", 4, "a\nb\n", 0, false),
        (false, "a\nb\n", 3, "a\nb", 1, true),
        (false, "a\nb\n", 2, "a\n", 1, false),
        (false, "a\nb\n", 0, "", 2, false),
        (true, "a\n", 0, "", 1, true),
        (true, "a\n", 1, "\n", 1, false),
        (true, "a\n", 2, "\na", 1, true),
        (true, "a\n", 3, "\na\n", 0, false),
    ];
    for (torn_before, lines, room, written, lost, torn_after) in table {
        let (mut torn, mut disk) = (torn_before, Disk::with(room));
        let found = write_lines(&mut disk, &mut torn, lines.as_bytes());
        let case = format!("{torn_before} {lines:?} {room}");
        assert_eq!(disk.written, written.as_bytes(), "{case}");
        assert_eq!((found, torn), (lost, torn_after), "{case}");
    }
}

#[test]
fn reports_of_dropped_lines_are_not_counted_when_they_are_lost() {
    let report = dropped_line(1).len();
    for (room, unreported) in [(2 + report, 0), (1 + report, 1), (2, 1)] {
        let queue = LineQueue::default();
        queue.push(b"a\n");
        queue.lock().count_dropped(1);
        queue.lock().ended = true;
        queue.print(Disk::with(room));
        let state = queue.lock();
        assert_eq!((state.dropped, state.unreported), (1, unreported), "{room}");
    }
}

#[test]
fn closed_stdout_drops_and_counts_all_lines() {
    alone("closed_stdout_drops_and_counts_all_lines", || {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        replace_stdout(&writer);
        let logger = start(LevelFilter::Info).expect("started");
        log_lines(MANY);
        assert!(logger.close(Duration::from_secs(10)));
        assert_eq!(logger.dropped(), MANY);
    });
}

#[test]
fn full_disk_drops_and_counts_all_lines() {
    alone("full_disk_drops_and_counts_all_lines", || {
        replace_stdout(
            File::options()
                .write(true)
                .open("/dev/full")
                .expect("opened"),
        );
        let logger = start(LevelFilter::Info).expect("started");
        log_lines(MANY);
        assert!(logger.close(Duration::from_secs(10)));
        assert_eq!(logger.dropped(), MANY);
    });
}

#[test]
fn stalled_stdout_blocks_neither_tasks_nor_shutdown() {
    alone("stalled_stdout_blocks_neither_tasks_nor_shutdown", || {
        let (_reader, writer) = io::pipe().expect("a pipe");
        replace_stdout(&writer);
        let logger = start(LevelFilter::Info).expect("started");
        log_lines(MANY);
        drop(logger);
        log_lines(1000);
    });
}

#[test]
fn dropped_lines_are_reported_when_stdout_is_read_again() {
    alone(
        "dropped_lines_are_reported_when_stdout_is_read_again",
        || {
            let (reader, writer) = io::pipe().expect("a pipe");
            replace_stdout(&writer);
            drop(writer);
            let logger = start(LevelFilter::Info).expect("started");
            log_lines(MANY);
            assert!(!logger.close(Duration::from_millis(10)));

            let (mut lines, mut dropped) = (0, 0);
            for line in BufReader::new(reader).lines() {
                let line = parsed(&line.expect("a whole line"));
                match line["dropped"].as_u64() {
                    Some(count) => dropped += count,
                    None => lines += 1,
                }
                if lines + dropped == MANY {
                    break;
                }
            }
            assert!(dropped > 0);
            assert_eq!(logger.dropped(), dropped);
        },
    );
}
