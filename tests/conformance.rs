//! Conformance with RFC 6455 by the cases of the Autobahn suite: all 301 of groups 1 to 7, 9
//! and 10 against the echo endpoint, directly and through nginx with the configuration that is
//! shipped. `.ci/autobahn` plays them; its reports are left under `target/conformance`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::nginx::Nginx;
use crate::support::{TestNode, run};

/// Framing, pings, reserved bits and opcodes, fragmentation, UTF-8, close and auto-fragmentation
/// have 247 cases, limits and performance have 54.
const CASES: usize = 247 + 54;

async fn echo_node() -> TestNode {
    TestNode::with(|config| {
        config.echo_path = Some("/echo".into());
        // The largest message of group 9.
        config.max_message = 16 << 20;
        config.outbox_bytes = 64 << 20;
    })
    .await
}

/// Plays all cases against the endpoint behind this address.
fn play(address: SocketAddr, way: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let reports = reports(root, way);
    let output = Command::new(root.join(".ci/autobahn"))
        .arg(format!("ws://{address}/echo"))
        .arg(&reports)
        .output()
        .expect("the script starts");
    let report = [output.stdout, output.stderr].concat();
    let report = String::from_utf8_lossy(&report);
    assert!(output.status.success(), "{report}see {}", reports.display());
    let passed = format!("{CASES} cases passed");
    assert!(report.contains(&passed), "not all were played: {report}");
}

fn reports(root: &Path, way: &str) -> PathBuf {
    root.join(format!("target/conformance/{way}"))
}

#[test]
fn autobahn_finds_nothing_wrong_with_a_node() {
    run(async {
        let node = echo_node().await;
        play(node.address, "direct");
    });
}

#[test]
fn autobahn_finds_nothing_wrong_with_a_node_behind_nginx() {
    run(async {
        let node = echo_node().await;
        let nginx = Nginx::before(&[node.address]).await;
        play(nginx.address, "nginx");
    });
}
