//! Centrifugo on one processor, as `install` has built it or as it is on the PATH, by
//! `centrifugo/config.json.in`: with history and positions, like a node.

use std::path::PathBuf;
use std::process::Command;

use super::contender::Peer;
use super::installed;
use crate::support::Outcome;
use crate::support::dialogue::Dialogue;

pub const CENTRIFUGO: Peer = Peer {
    name: "Centrifugo",
    dialogue: Dialogue::Centrifugo,
    command,
};

const CONFIG: &str = include_str!("centrifugo/config.json.in");

fn command(port: u16, redis: Option<u16>) -> Outcome<Command> {
    let program = program().ok_or("there is no centrifugo, neither built nor on the PATH")?;
    let engine = redis.map_or(r#"{ "type": "memory" }"#.to_string(), |port| {
        format!(r#"{{ "type": "redis", "redis": {{ "address": "redis://127.0.0.1:{port}" }} }}"#)
    });
    let config = CONFIG
        .replace("@PORT@", &port.to_string())
        .replace("@ENGINE@", &engine);
    let file = installed(&format!("centrifugo/{port}.json"));
    std::fs::create_dir_all(installed("centrifugo"))?;
    std::fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(file);
    Ok(command)
}

fn program() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&on_path).chain([installed("centrifugo")]);
    folders
        .map(|folder| folder.join("centrifugo"))
        .find(|program| program.is_file())
}
