//! The HTTP API held against its descriptions. By schemathesis against `docs/openapi.yaml`: what
//! that allows is carried out, what it forbids is refused, and every answer is one that it names.
//! And the examples of `docs/api.md` are run as they stand there.

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
        // It installs itself under target/ when it is not there yet.
        let asked = Command::new(root.join(".ci/schemathesis"))
            .arg(format!("http://{}", node.address))
            .args([KEY.as_ref(), report.path().as_os_str()])
            .stdin(Stdio::null())
            .output()
            .expect("bash is there");
        let said = String::from_utf8_lossy(&asked.stdout);
        let complaint = String::from_utf8_lossy(&asked.stderr);
        assert!(asked.status.success(), "{said}\n{complaint}");
        assert!(said.contains("No issues found"), "{said}");
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
        // Whom the guide finds in the lobby.
        let mut ada = node.client().await;
        let auth = json!({"type": "auth", "user": "ada", "info": {"name": "Ada"}});
        ada.call(auth).await;
        ada.join("lobby").await;
        ada.push("joined").await;
        let guide = include_str!("../docs/api.md");
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
        let said = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .output()
            .expect("bash is there");
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(
            said.status.success(),
            "{text} {}",
            String::from_utf8_lossy(&said.stderr)
        );
        let heard: Vec<&str> = text.lines().collect();
        assert!(wanted.len() >= 7, "{wanted:?}");
        for (wanted, heard) in wanted.iter().zip(&heard) {
            assert_eq!(shape(heard), shape(wanted), "{heard}");
        }
        assert!(heard.contains(&"# TYPE switchboard_ready gauge"), "{text}");
    });
}

/// An answer without what differs each time: epochs, sessions, times and versions, and what the
/// guide leaves out.
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
