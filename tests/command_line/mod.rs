//! The real binary: its output, the values it refuses, the sources of values, signals and exit
//! codes, the commands without a server, a closed stdout, a lack of file descriptors, and that no
//! secret is printed.

mod logs;
mod process;
mod tools;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::runtime;

use crate::support::frames::{FrameClient, upgrade};
use crate::support::process::{BINARY, Ended, command, run_to_end, without_variables};
use crate::support::{NodeProcess, TestClient, eventually, http, run, within};

/// No process listens there: port 1 is reserved, and nothing on our machines uses it.
const NOTHING: &str = "redis://127.0.0.1:1";

const PASSWORD: &str = "correct-horse-battery";

/// Runs `--check-config` with these arguments and returns the TOML it prints.
async fn checked(arguments: &[&str], variables: &[(&str, &str)]) -> toml::Table {
    let mut all = vec!["serve", "--check-config"];
    all.extend(arguments);
    let ended = run_to_end(&all, variables).await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);
    toml::from_str(&ended.stdout).expect("TOML")
}

/// Runs a command line that must be refused: exit code 2, nothing on stdout. Returns stderr.
async fn refused(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let Ended {
        status,
        stdout,
        stderr,
    } = run_to_end(arguments, variables).await;
    assert_eq!(status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(stdout.is_empty(), "{arguments:?}: {stdout}");
    stderr
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("it is written");
    file
}

#[test]
fn help_names_every_option_with_its_variable_and_its_default() {
    run(async {
        let ended = run_to_end(&["serve", "--help"], &[]).await;
        assert_eq!(ended.status.code(), Some(0));
        // Lines are wrapped to the width of the terminal.
        let help = ended
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let defaults = checked(&[], &[]).await;
        assert!(defaults.len() > 20, "{defaults:?}");
        for (option, value) in defaults {
            let variable = option.to_uppercase().replace('-', "_");
            assert!(help.contains(&format!("--{option}")), "{option}");
            let of = help.find(&format!("[env: SWITCHBOARD_{variable}]"));
            let rest = &help[of.unwrap_or_else(|| panic!("{variable} is not named"))..];
            let default = match value {
                toml::Value::String(text) if option != "node" => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                // Lists are empty, and the label is derived from the host name.
                _ => continue,
            };
            let (_, rest) = rest.split_once("] ").expect("more follows");
            assert!(
                rest.starts_with(&format!("[default: {default}]")),
                "{option}"
            );
        }
    });
}

#[test]
fn version_is_printed_and_nothing_else() {
    run(async {
        let ended = run_to_end(&["--version"], &[]).await;
        assert_eq!(ended.status.code(), Some(0));
        let version = concat!("switchboard ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(ended.stdout, version);
    });
}

#[test]
fn usage_is_printed_without_a_command() {
    run(async {
        assert!(refused(&[], &[]).await.contains("Usage: switchboard"));
        assert!(refused(&["dance"], &[]).await.contains("dance"));
    });
}

#[test]
fn checked_configuration_hides_passwords_and_is_a_valid_file() {
    run(async {
        let secret = format!("redis://ada:{PASSWORD}@127.0.0.1:6380/3");
        let all = ["serve", "--check-config"];
        let ended = run_to_end(&all, &[("SWITCHBOARD_REDIS", &secret)]).await;
        assert!(!ended.stdout.contains(PASSWORD), "{}", ended.stdout);
        assert!(ended.stdout.contains("redis://ada:***@127.0.0.1:6380/3"));

        let once = run_to_end(&[&all[..], &["--inbox", "99", "--open"]].concat(), &[]).await;
        let file = file(&once.stdout);
        let path = file.path().to_str().expect("UTF-8");
        let again = run_to_end(&[&all[..], &["--config", path]].concat(), &[]).await;
        assert_eq!(again.stdout, once.stdout);
    });
}

#[test]
fn flag_overrides_variable_overrides_file_overrides_default() {
    run(async {
        let file = file("inbox = 101\nmax-rooms = 102\noutbox-frames = 103\n");
        let path = file.path().to_str().expect("UTF-8");
        let variables = [
            ("SWITCHBOARD_CONFIG", path),
            ("SWITCHBOARD_INBOX", "201"),
            ("SWITCHBOARD_MAX_ROOMS", "202"),
        ];
        let config = checked(&["--inbox", "301"], &variables).await;
        let number = |key: &str| config[key].as_integer();
        assert_eq!(number("inbox"), Some(301));
        assert_eq!(number("max-rooms"), Some(202));
        assert_eq!(number("outbox-frames"), Some(103));
        assert_eq!(number("history-size"), Some(1000));
    });
}

#[test]
fn refused_value_is_reported_with_its_option_and_constraint() {
    let rows: &[(&str, &str, &[&str])] = &[
        ("listen", "nowhere", &["127.0.0.1:9090"]),
        ("listen", "127.0.0.1:65536", &["127.0.0.1:9090"]),
        ("heartbeat", "1ms", &["1s", "1h"]),
        ("heartbeat", "5", &["500ms", "25s"]),
        ("head-timeout", "6m", &["100ms", "5m"]),
        ("max-message", "1GiB", &["1KiB", "16MiB"]),
        ("max-head", "many", &["65536", "64KiB"]),
        ("outbox-frames", "2", &["16", "1000000"]),
        ("inbox", "-1", &["whole number"]),
        ("rooms-per-session", "0", &["1", "100000"]),
        ("log-level", "loud", &["error", "trace"]),
        ("open", "perhaps", &["true or false"]),
        ("redis", "http://a", &["redis://", "rediss://"]),
        ("redis", "redis://a:0", &["1", "65535"]),
        ("redis-ca", "/does/not/exist", &["file"]),
        ("www", "/does/not/exist", &["directory"]),
        ("prefix", "a{b}", &["1 to 64"]),
        ("trusted-proxy", "proxy.example", &["IP address"]),
        ("allow-origin", "chat.example", &["https://chat.example"]),
        ("echo-path", "echo", &["begin with /"]),
    ];
    run(async move {
        for (option, value, needs) in rows {
            let flag = format!("--{option}={value}");
            let errors = refused(&["serve", &flag], &[]).await;
            let variable = format!("SWITCHBOARD_{}", option.to_uppercase().replace('-', "_"));
            let by_variable = refused(&["serve"], &[(&variable, value)]).await;
            let file = file(&format!("{option} = \"{value}\"\n"));
            let path = file.path().to_str().expect("UTF-8");
            let by_file = refused(&["serve", "--config", path], &[]).await;
            for (errors, source) in [
                (errors, "the command line"),
                (by_variable, &variable),
                (by_file, path),
            ] {
                let expected = [&format!("--{option}"), *value, source];
                for part in expected.iter().chain(*needs) {
                    assert!(errors.contains(part), "{part:?} is not in {errors:?}");
                }
                assert_eq!(errors.lines().count(), 1, "{errors:?}");
            }
        }
    });
}

#[test]
fn all_errors_are_reported_at_once() {
    run(async {
        let arguments = ["serve", "--inbox=0", "--heartbeat=1ms", "--prefix=*"];
        let errors = refused(&arguments, &[]).await;
        assert_eq!(errors.lines().count(), 3, "{errors}");
    });
}

#[test]
fn conflicting_options_are_refused() {
    run(async {
        let rows: [(&[&str], &[&str]); 3] = [
            (&["--pong-timeout=30s"], &["--pong-timeout", "30s", "25s"]),
            (
                &["--listen=0.0.0.0:0"],
                &["--listen", "0.0.0.0:0", "--open"],
            ),
            (&["--listen=[::]:0"], &["--listen", "[::]:0", "--open"]),
        ];
        for (flags, parts) in rows {
            let errors = refused(&[&["serve"], flags].concat(), &[]).await;
            for part in parts {
                assert!(errors.contains(part), "{part:?} is not in {errors:?}");
            }
        }
    });
}

#[test]
fn file_of_api_keys_is_checked_before_the_start_without_printing_keys() {
    run(async {
        let short = "0123456789abcdef0123456789abcde";
        let poor = file(&format!("shop:{short}\n"));
        let path = poor.path().to_str().expect("UTF-8");
        let arguments = ["serve", "--check-config", "--api-key-file", path];
        let errors = refused(&arguments, &[]).await;
        for part in ["--api-key-file", path, "line 1", "32"] {
            assert!(errors.contains(part), "{part:?} is not in {errors:?}");
        }
        assert!(!errors.contains(short), "{errors}");
        let good = file(&format!("shop:{short}f\n"));
        let path = good.path().to_str().expect("UTF-8");
        let listen = ["--api-listen", "0.0.0.0:0"];
        let arguments = ["serve", "--check-config", "--api-key-file", path];
        let ended = run_to_end(&[&arguments[..], &listen].concat(), &[]).await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert!(ended.stdout.contains(path) && !ended.stdout.contains(short));
    });
}

#[test]
fn invalid_or_missing_configuration_file_is_refused() {
    run(async {
        let misspelt = file("inbox = 100\nheartbaet = \"25s\"\nredis_url = \"a\"\n");
        let path = misspelt.path().to_str().expect("UTF-8");
        let errors = refused(&["serve", "--config", path], &[]).await;
        for part in [path, "heartbaet", "redis_url"] {
            assert!(errors.contains(part), "{errors}");
        }

        let broken = file(&format!("inbox = 100\nredis = \"redis://:{PASSWORD}@a\n"));
        let path = broken.path().to_str().expect("UTF-8");
        let errors = refused(&["serve", "--config", path], &[]).await;
        assert!(
            errors.contains("line 2") && !errors.contains(PASSWORD),
            "{errors}"
        );

        let errors = refused(&["serve", "--config", "/does/not/exist"], &[]).await;
        assert!(errors.contains("/does/not/exist"), "{errors}");
    });
}

/// Makes a node log a line or two, at the level debug.
async fn be_refused(address: SocketAddr) {
    let answer = http::exchange(address, b"junk").await;
    assert_eq!(http::status(&answer), Some(400));
}
