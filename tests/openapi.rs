//! The HTTP API against its documentation. Schemathesis checks `docs/openapi.yaml`: valid requests
//! are carried out, invalid ones are refused, and every response is one that it lists. The examples
//! of `docs/api.md` are run, and their output is compared with the guide.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::backend::{KEY, keys};
use crate::support::{TestNode, run};

#[test]
fn api_matches_its_openapi_description() {
    run(async {
        let node = TestNode::with(|config| config.api_key_file = Some(keys())).await;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let report = tempfile::tempdir().expect("a directory for the report");
        // The script installs schemathesis under target/ if it is missing.
        let asked = Command::new(root.join(".ci/schemathesis"))
            .arg(format!("http://{}", node.address))
            .args([KEY.as_ref(), report.path().as_os_str()])
            .stdin(Stdio::null())
            .output()
            .expect("bash is there");
        let report = String::from_utf8_lossy(&asked.stdout);
        let complaint = String::from_utf8_lossy(&asked.stderr);
        assert!(asked.status.success(), "{report}\n{complaint}");
        assert!(report.contains("No issues found"), "{report}");
    });
}

#[test]
fn examples_of_the_api_guide_return_what_it_shows() {
    run(async {
        let node = TestNode::with(|config| {
            config.api_key_file = Some(keys());
            config.node = "a".into();
        })
        .await;
        // The member that the guide shows in the lobby.
        let mut ada = node.client().await;
        let auth = json!({"type": "auth", "user": "ada", "info": {"name": "Ada"}});
        ada.call(auth).await;
        ada.join("lobby").await;
        ada.push("joined").await;
        // A command goes on after a backslash, an answer in lines that begin with three spaces.
        let guide = include_str!("../docs/api.md");
        let guide = guide.replace("\\\n", "").replace("\n#   ", "");
        let blocks = guide.split("```sh\n").skip(1);
        let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines());
        let (mut script, mut wanted) = (String::from("set -euo pipefail\n"), Vec::new());
        for line in lines {
            match line.strip_prefix("# ") {
                Some(answer) => wanted.push(answer),
                None if line.starts_with("NODE=") => {
                    script += &format!("NODE=http://{}\n", node.address);
                }
                None if line.starts_with("KEY=") => script += &format!("KEY={KEY}\n"),
                None if line.starts_with("call ") => script += &format!("{line}\necho\n"),
                None => script += &format!("{line}\n"),
            }
        }
        let output = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .output()
            .expect("bash is there");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let answers: Vec<&str> = text.lines().collect();
        assert!(wanted.len() >= 7, "{wanted:?}");
        for (wanted, answer) in wanted.iter().zip(&answers) {
            assert_eq!(shape(answer), shape(wanted), "{answer}");
        }
        assert!(
            answers.contains(&"# TYPE switchboard_ready gauge"),
            "{text}"
        );
    });
}

/// An answer without the values that differ each time: epochs, sessions, times and versions, and
/// without the parts that the guide omits.
fn shape(answer: &str) -> String {
    let shown = answer.split('…').next().unwrap_or_default();
    let shown = shown.split("expected one of").next().unwrap_or_default();
    let mut shape = String::new();
    let mut rest = shown;
    let names = [
        "\"epoch\":\"",
        "\"session\":\"",
        "\"time\":",
        "\"version\":",
    ];
    while let Some(at) = names
        .iter()
        .filter_map(|name| Some(rest.find(name)? + name.len()))
        .min()
    {
        shape += &rest[..at];
        rest = rest[at..].trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '-');
    }
    shape + rest
}
