//! The structure of the source: which modules a module may use, which files may name an external
//! library, and which files contain no I/O. Comments and unit tests at the end of a file are not
//! checked.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The modules of the crate: each uses only those listed before it. `api` stands before
/// `dispatcher` because the dispatcher accepts the commands of the API unchanged.
const ORDER: &[&str] = &[
    "model",
    "runtime",
    "http",
    "logger",
    "outbox",
    "protocol",
    "config",
    "metrics",
    "auth",
    "broker",
    "presence",
    "dispatcher",
    "api",
    "webhooks",
    "transport",
    "embed",
    "client",
    "server",
    "cli",
    "lib",
    "main",
];

/// Logic without I/O: no file of these waits or reads a clock (`now` is an argument).
const PURE: &[&str] = &[
    "api",
    "auth",
    "broker/memory/list",
    "broker/memory/webhook_queue",
    "broker/redis/presence",
    "broker/redis/topics",
    "broker/redis/wire",
    "client/backoff",
    "client/state",
    "dispatcher/session/heartbeats",
    "dispatcher/rooms",
    "dispatcher/delivery/sequencer",
    "http",
    "metrics/exposition",
    "metrics/report",
    "model",
    "outbox",
    "presence",
    "protocol",
    "transport/handshake",
    "transport/limits",
    "transport/pages",
    "webhooks/backoff",
    "webhooks/body",
    "webhooks/plan",
    "webhooks/signature",
];

struct SourceFile {
    /// Relative to `src`, without the ending.
    path: String,
    /// Without comments and unit tests.
    code: String,
}

fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 40, "only {} files in src", found.len());
    found
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<SourceFile>) {
    for entry in fs::read_dir(directory).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && path.file_name().is_none_or(|name| name != "tests.rs")
        {
            let name = path
                .strip_prefix(root)
                .expect("it is below")
                .with_extension("");
            let text = fs::read_to_string(&path).expect("it is text");
            found.push(SourceFile {
                path: name.to_str().expect("UTF-8").to_owned(),
                code: code(&text),
            });
        }
    }
}

fn code(text: &str) -> String {
    let (code, _tests) = text
        .split_once("#[cfg(test)]\nmod tests {")
        .unwrap_or((text, ""));
    let lines = code.lines().map(|line| match line.find("//") {
        // Not the slashes of an address.
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

impl SourceFile {
    fn is_in(&self, place: &str) -> bool {
        is_below(&self.path, place)
    }

    /// Whether the code has this path or identifier, and not only as the end of a longer one.
    fn names(&self, token: &str) -> bool {
        let is_identifier = |c: char| c.is_alphanumeric() || c == '_';
        self.code
            .match_indices(token)
            .any(|(at, _)| !self.code[..at].ends_with(is_identifier))
    }

    fn expect_only_in(&self, places: &[&str], tokens: &[&str]) {
        let allowed = places.iter().any(|place| self.is_in(place));
        for token in tokens {
            assert!(
                allowed || !self.names(token),
                "src/{}.rs names {token}",
                self.path
            );
        }
    }

    /// The modules of ours that the code names, as `broker/wire`.
    fn uses(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, start) in self.code.match_indices("crate::") {
            let rest = &self.code[at + start.len()..];
            let identifier = |text: &str| -> String {
                let letters = text.trim_start().chars();
                letters
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect()
            };
            let first = identifier(rest);
            found.insert(first.clone());
            let Some(behind) = rest[first.len()..].strip_prefix("::") else {
                continue;
            };
            let several = behind
                .strip_prefix('{')
                .and_then(|list| list.split_once('}'));
            let next: Vec<&str> =
                several.map_or(vec![behind], |(list, _)| list.split(',').collect());
            found.extend(
                next.into_iter()
                    .map(|part| format!("{first}/{}", identifier(part))),
            );
        }
        found
    }
}

fn is_below(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The top-level module of a path, and its place in [`ORDER`].
fn place(path: &str) -> (&str, usize) {
    let module = path.split('/').next().unwrap_or(path);
    let place = ORDER.iter().position(|name| *name == module);
    (
        module,
        place.unwrap_or_else(|| panic!("{module} is not in ORDER")),
    )
}

#[test]
fn runtimes_are_named_in_one_module() {
    for file in sources() {
        file.expect_only_in(
            &["runtime"],
            &["async_std", "async_io", "async_global_executor"],
        );
        file.expect_only_in(&["runtime"], &["smol", "async_signal", "tokio::"]);
        // The driver of Redis uses tokio's traits of reading and writing, which need no runtime.
        file.expect_only_in(&["broker/redis/connection"], &["tokio_util"]);
    }
}

#[test]
fn foreign_libraries_are_named_in_few_files() {
    for file in sources() {
        file.expect_only_in(
            &["client", "transport"],
            &["tungstenite", "async_tungstenite"],
        );
        file.expect_only_in(
            &[
                "api",
                "auth",
                "broker",
                "cli",
                "client",
                "embed",
                "http/answer",
                "metrics/report",
                "model/control",
                "model/identity",
                "model/member",
                "model/publication",
                "protocol",
                "webhooks/body",
            ],
            &["serde_json"],
        );
        file.expect_only_in(&["auth/jwt"], &["jsonwebtoken"]);
        file.expect_only_in(
            &["client/http", "runtime/hyper_io", "webhooks/post"],
            &["hyper::"],
        );
        file.expect_only_in(
            &[
                "broker/redis/scripts",
                "config/api_keys",
                "model/publication",
                "runtime/tls",
                "webhooks/signature",
            ],
            &["aws_lc_rs"],
        );
        file.expect_only_in(&["runtime/tls"], &["rustls"]);
        file.expect_only_in(&["http/rules"], &["httparse"]);
        file.expect_only_in(&["config"], &["clap", "toml::"]);
        file.expect_only_in(&["logger"], &["femme"]);
        // A file that imports our own module of this name cannot mean the crate.
        let is_ours = file.uses().contains("broker/redis");
        let tokens: &[&str] = if is_ours {
            &["::redis::"]
        } else {
            &["redis::"]
        };
        file.expect_only_in(&["broker/redis"], tokens);
    }
}

#[test]
fn protocols_and_frames_are_named_only_at_the_connections() {
    let is_test = |file: &SourceFile| file.path.contains("/tests/");
    for file in sources().into_iter().filter(|file| !is_test(file)) {
        let used = file.uses();
        for module in ["protocol/frame", "protocol/native"] {
            let mut places = ["client", "embed/frames", "protocol", "transport"].iter();
            let allowed = places.any(|place| file.is_in(place));
            assert!(
                allowed || !used.contains(module),
                "src/{}.rs uses {module}",
                file.path
            );
        }
        file.expect_only_in(
            &["protocol", "transport/routes", "embed"],
            &["Protocol::Native"],
        );
    }
}

#[test]
fn pure_files_wait_for_nothing_and_read_no_clock() {
    let waiting = [".await", "async "];
    let clocks = ["Instant::now", "SystemTime::now"];
    let files = sources();
    for module in PURE {
        let exists = files.iter().any(|file| file.is_in(module));
        assert!(exists, "there is no src/{module}");
    }
    for file in files {
        if !PURE.iter().any(|module| file.is_in(module)) {
            continue;
        }
        // The writer's end of an outbox waits for its queue.
        let waiting = if file.path == "outbox" {
            &[]
        } else {
            &waiting[..]
        };
        for token in waiting.iter().chain(&clocks) {
            assert!(!file.code.contains(token), "src/{}.rs: {token}", file.path);
        }
    }
}

#[test]
fn modules_use_only_those_that_stand_before_them() {
    let mut wrong = BTreeSet::new();
    for file in sources() {
        let (module, own) = place(&file.path);
        for used in file.uses() {
            let used = used.split('/').next().unwrap_or_default();
            if used == module || !ORDER.contains(&used) {
                continue;
            }
            if place(used).1 >= own {
                wrong.insert(format!("src/{}.rs uses {used}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_code_is_unsafe() {
    for file in sources() {
        let forbids = "#![forbid(unsafe_code)]";
        let rest = file.code.replace(forbids, "");
        assert!(!rest.contains("unsafe"), "src/{}.rs", file.path);
        let is_root = ["lib", "main"].contains(&file.path.as_str());
        assert_eq!(file.code.contains(forbids), is_root, "src/{}.rs", file.path);
    }
}

/// Text files below a directory.
fn texts(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).expect("it can be read") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            texts(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push_str(&text);
        }
    }
}

#[test]
fn tests_named_in_security_md_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let promises = fs::read_to_string(root.join("SECURITY.md")).expect("it is there");
    let mut sources = String::new();
    texts(&root.join("src"), &mut sources);
    texts(&root.join("tests"), &mut sources);
    let quoted = promises.split('`').skip(1).step_by(2);
    let tests: Vec<&str> = quoted
        .filter(|token| token.matches('_').count() >= 3 && !token.contains([' ', '/']))
        .collect();
    assert!(tests.len() > 20, "only {tests:?}");
    for test in tests {
        assert!(sources.contains(&format!("fn {test}()")), "{test}");
    }
}

/// The modules of `.ci/every-runtime`, as paths: `src/runtime`, `tests/broker/cuts`.
fn modules_of_every_runtime() -> BTreeSet<String> {
    let list = include_str!("../.ci/every-runtime");
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let modules = lines.map(|line| line.replace(' ', "/").replace("::", "/"));
    modules.collect()
}

#[test]
fn modules_that_run_on_every_runtime_exist_and_are_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = modules_of_every_runtime();
    // A name that is wrong would select no test.
    for module in &modules {
        let file = root.join(format!("{module}.rs"));
        let exists = file.is_file() || root.join(module).is_dir();
        assert!(exists, "there is no {module}");
    }
    let table = include_str!("README.md");
    let rows = table.lines().filter(|line| line.ends_with("| all |"));
    let files = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let documented: BTreeSet<String> = files
        .map(|file| file.trim_end_matches(".rs").trim_end_matches('/'))
        .map(|file| match file.strip_prefix("src/") {
            Some(_) => file.to_owned(),
            None => format!("tests/{file}"),
        })
        .collect();
    assert_eq!(documented, modules);
}
