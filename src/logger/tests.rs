use super::*;

use std::env;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

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
        assert!(logger.flush(LAST_LINES));
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

#[test]
fn lost_lines_are_only_those_of_the_log() {
    let table: [(&[u8], usize, bool, bool, u64); 7] = [
        (b"a\nb\n", 4, false, false, 0),
        (b"a\nb\n", 3, false, false, 1),
        (b"a\nb\n", 0, false, false, 2),
        (b"\na\n", 0, true, false, 1),
        (b"\na\n", 1, true, false, 1),
        (b"\na\nnotice\n", 0, true, true, 1),
        (b"a\nnotice\n", 9, false, true, 0),
    ];
    for (batch, written, torn, report, lost) in table {
        let text = String::from_utf8_lossy(batch);
        assert_eq!(
            lost_lines(batch, written, torn, report),
            lost,
            "{text:?} {written}"
        );
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
        assert!(logger.flush(Duration::from_secs(10)));
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
        assert!(logger.flush(Duration::from_secs(10)));
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
        let begun = Instant::now();
        drop(logger);
        assert!(begun.elapsed() < 2 * LAST_LINES, "{:?}", begun.elapsed());
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
            assert!(!logger.flush(Duration::from_millis(10)));

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
