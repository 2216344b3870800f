//! The client module, `www/switchboard.js`, in Node.js against a node with default limits: a client
//! of many rooms keeps all their lists without being disconnected for its rate. Skipped without
//! Node.js, as the tests of `www/` are.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Issuer, NodeProcess, run};

/// Whether there is a Node.js that has `WebSocket`, which needs a flag before version 22.
fn has_node() -> bool {
    let script = "process.exit(typeof WebSocket === 'function' ? 0 : 1)";
    let status = Command::new("node")
        .args(["--experimental-websocket", "--eval", script])
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// What `many_rooms.mjs` reports of two clients in this number of rooms.
async fn report(rooms: usize, history: usize) -> Value {
    let issuer = Issuer::new();
    let node = NodeProcess::start(&["--token-secret-file", &issuer.path()]).await;
    let mut command = Command::new("node");
    command
        .args(["--experimental-websocket", "--no-warnings"])
        .arg("tests/www/many_rooms.mjs")
        .arg(format!("ws://{}/ws", node.address))
        .args([rooms.to_string(), history.to_string()])
        .args(["ada", "bob"].map(|user| issuer.token(user, &["*"])))
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("Node.js runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("no report: {text}{errors}"))
}

/// Everything is read, and the node neither ended a connection nor refused anything.
fn expect_whole(report: &Value) {
    let [ended, errors] = [&report["ended"], &report["errors"]];
    assert_eq!((ended, errors), (&json!([]), &json!([])), "{report}");
    assert_eq!(report["whole"], true, "{report}");
}

#[test]
fn lists_of_128_rooms_are_read_without_a_disconnect() {
    if has_node() {
        run(async { expect_whole(&report(128, 0).await) });
    }
}

#[test]
fn logs_and_lists_of_60_rooms_are_read_without_a_disconnect() {
    if has_node() {
        run(async { expect_whole(&report(60, 100).await) });
    }
}
