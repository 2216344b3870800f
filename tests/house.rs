//! What the house promises about its own source: which foreign world each file may name, and which floors a file may know.
//! Comments and the unit tests at the foot of a file may name what they like.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Each floor's modules, from the ground up. A module may use the floors below its own. A file belongs to the longest name
/// that its path begins with.
const FLOORS: [&[&str]; 5] = [
    &[
        "id",
        "pattern",
        "secret",
        "identity",
        "rights",
        "epochs",
        "publication",
        "member",
        "census",
        "notice",
        "retention",
        "disconnect",
        "metrics",
        "readiness",
        "process",
        "keys",
        "config",
        "runtime",
        "tls",
        "logger",
        "protocol",
    ],
    &[
        "broker",
        "broker/list",
        "broker/ledger",
        "broker/notices",
        "broker/topics",
        "broker/wire",
        "http",
        "handshake",
        "auth",
        "pages",
        "api",
        "exposition",
        "report",
        "rooms",
        "history",
        "track",
        "control",
        "revocations",
        "presence",
        "session",
        "limits",
        "webhooks/backoff",
        "webhooks/body",
        "webhooks/plan",
        "webhooks/signature",
    ],
    &[
        "broker/memory",
        "broker/redis",
        "dispatcher",
        "connection",
        "webhooks",
    ],
    &["server", "shutdown"],
    &["main", "lib"],
];

/// Who may use a neighbour on its own floor: the words of the one are what the other is about.
const NEIGHBOURS: &[(&str, &str)] = &[
    ("protocol", "disconnect"),
    ("metrics", "disconnect"),
    ("metrics", "protocol"),
    ("protocol", "id"),
    ("protocol", "publication"),
    ("publication", "id"),
    ("epochs", "id"),
    ("publication", "epochs"),
    ("member", "id"),
    ("protocol", "member"),
    ("census", "id"),
    ("census", "member"),
    ("census", "publication"),
    ("notice", "id"),
    ("notice", "pattern"),
    ("pattern", "id"),
    ("retention", "id"),
    ("retention", "pattern"),
    ("config", "retention"),
    ("config", "pattern"),
    ("tls", "runtime"),
    ("config", "keys"),
    ("config", "rights"),
    ("config", "secret"),
    ("config", "id"),
    ("identity", "id"),
    ("identity", "member"),
    ("identity", "pattern"),
    ("identity", "secret"),
    ("rights", "id"),
    ("rights", "identity"),
    ("rights", "pattern"),
    ("protocol", "identity"),
    ("protocol", "rights"),
    ("protocol", "secret"),
    ("api", "control"),
    ("control", "revocations"),
    ("broker", "revocations"),
    ("handshake", "http"),
    ("auth", "http"),
    ("pages", "http"),
    ("api", "http"),
    ("exposition", "http"),
    ("presence", "broker"),
    // Only the event that reaches the dispatcher's inbox.
    ("connection", "dispatcher"),
    ("shutdown", "server"),
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

    /// Whether the code has this path or word, and not merely as the end of a longer word.
    fn names(&self, word: &str) -> bool {
        let of_a_word = |c: char| c.is_alphanumeric() || c == '_';
        self.code
            .match_indices(word)
            .any(|(at, _)| !self.code[..at].ends_with(of_a_word))
    }

    fn expect_only_in(&self, places: &[&str], words: &[&str]) {
        let allowed = places.iter().any(|place| self.is_in(place));
        for word in words {
            assert!(
                allowed || !self.names(word),
                "src/{}.rs names {word}",
                self.path
            );
        }
    }

    /// The modules of ours that the code names, as `broker/wire`.
    fn uses(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, start) in self.code.match_indices("crate::") {
            let rest = &self.code[at + start.len()..];
            let word = |text: &str| -> String {
                let letters = text.trim_start().chars();
                letters
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect()
            };
            let first = word(rest);
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
                    .map(|part| format!("{first}/{}", word(part))),
            );
        }
        found
    }
}

fn is_below(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The module of the plan that a path belongs to, and its floor.
fn place(path: &str) -> Option<(&'static str, usize)> {
    let floors = FLOORS.iter().enumerate();
    let modules =
        floors.flat_map(|(floor, modules)| modules.iter().map(move |name| (*name, floor)));
    modules
        .filter(|(name, _)| is_below(path, name))
        .max_by_key(|(name, _)| name.len())
}

#[test]
fn only_the_seam_names_a_runtime() {
    for file in sources() {
        file.expect_only_in(
            &["runtime"],
            &["async_std", "async_io", "async_global_executor"],
        );
        file.expect_only_in(&["runtime"], &["smol", "async_signal", "tokio::"]);
        // The driver of Redis wants tokio's traits of reading and writing, which need no runtime.
        file.expect_only_in(&["broker/redis/link"], &["tokio_util"]);
    }
}

#[test]
fn each_foreign_world_has_its_files() {
    for file in sources() {
        file.expect_only_in(
            &["connection", "handshake"],
            &["tungstenite", "async_tungstenite"],
        );
        file.expect_only_in(
            &[
                "api",
                "auth",
                "broker",
                "control",
                "http/answer",
                "identity",
                "member",
                "protocol",
                "publication",
                "report",
                "webhooks/body",
            ],
            &["serde_json"],
        );
        file.expect_only_in(&["auth/jwt"], &["jsonwebtoken"]);
        file.expect_only_in(&["webhooks/post"], &["hyper"]);
        file.expect_only_in(&["webhooks/signature", "keys", "tls"], &["aws_lc_rs"]);
        file.expect_only_in(&["tls"], &["rustls"]);
        file.expect_only_in(&["http/rules"], &["httparse"]);
        file.expect_only_in(&["config"], &["clap", "toml::"]);
        file.expect_only_in(&["logger"], &["femme"]);
        // Who imports our own module of this name cannot mean the crate.
        let is_ours = file.uses().contains("broker/redis");
        let words: &[&str] = if is_ours {
            &["::redis::"]
        } else {
            &["redis::"]
        };
        file.expect_only_in(&["broker/redis"], words);
    }
}

#[test]
fn the_words_and_the_logic_wait_for_nothing_and_read_no_clock() {
    let waiting = [".await", "async "];
    let clocks = ["Instant::now", "SystemTime::now"];
    for file in sources() {
        let (module, floor) = place(&file.path).expect("it has a floor");
        if floor != 1
            && ![
                "id",
                "pattern",
                "secret",
                "identity",
                "rights",
                "protocol",
                "publication",
                "notice",
                "retention",
                "disconnect",
            ]
            .contains(&module)
        {
            continue;
        }
        // The writer's end of an outbox waits for its queue.
        let waiting = if file.path == "session/outbox" {
            &[]
        } else {
            &waiting[..]
        };
        for word in waiting.iter().chain(&clocks) {
            assert!(!file.code.contains(word), "src/{}.rs: {word}", file.path);
        }
    }
}

#[test]
fn a_file_knows_only_the_floors_below_it() {
    let mut excused = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in sources() {
        let Some((module, floor)) = place(&file.path) else {
            wrong.push(format!("src/{}.rs has no place in the plan", file.path));
            continue;
        };
        for used in file.uses() {
            let Some((other, below)) = place(&used) else {
                continue;
            };
            let pair = (module, other);
            if below < floor || module == other {
                continue;
            }
            if NEIGHBOURS.contains(&pair) && below == floor {
                excused.insert(pair);
            } else {
                wrong.push(format!(
                    "src/{}.rs (floor {floor}) uses {other} (floor {below})",
                    file.path
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let listed: BTreeSet<_> = NEIGHBOURS.iter().copied().collect();
    let idle: Vec<_> = listed.difference(&excused).collect();
    assert!(idle.is_empty(), "no longer needed: {idle:?}");
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
fn the_tests_that_prove_what_is_promised_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let promises = fs::read_to_string(root.join("SECURITY.md")).expect("it is there");
    let mut sources = String::new();
    texts(&root.join("src"), &mut sources);
    texts(&root.join("tests"), &mut sources);
    let quoted = promises.split('`').skip(1).step_by(2);
    let tests: Vec<&str> = quoted
        .filter(|word| word.matches('_').count() >= 3 && !word.contains([' ', '/']))
        .collect();
    assert!(tests.len() > 20, "only {tests:?}");
    for test in tests {
        assert!(sources.contains(&format!("fn {test}()")), "{test}");
    }
}
