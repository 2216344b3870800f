//! The peers that come from npm, each a small server in `npm/`: uWebSockets.js and ws speak a
//! node's dialogue, socket.io its own.

use std::process::Command;

use super::contender::Peer;
use super::installed;
use crate::support::Outcome;
use crate::support::dialogue::Dialogue;

pub const UWEBSOCKETS: Peer = Peer {
    name: "uWebSockets.js",
    dialogue: Dialogue::Native,
    command: |port, redis| {
        node(
            "@trufflesuite/uws-js-unofficial",
            "uwebsockets",
            port,
            redis,
        )
    },
};

pub const WS: Peer = Peer {
    name: "ws",
    dialogue: Dialogue::Native,
    command: |port, redis| node("ws", "ws", port, redis),
};

pub const SOCKET_IO: Peer = Peer {
    name: "socket.io",
    dialogue: Dialogue::SocketIo,
    command: |port, redis| node("socket.io", "socketio", port, redis),
};

fn node(package: &str, script: &str, port: u16, redis: Option<u16>) -> Outcome<Command> {
    let modules = installed("npm/node_modules");
    if !modules.join(package).exists() {
        return Err(format!("{package} is not in {}", modules.display()).into());
    }
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/peers/npm");
    let mut command = Command::new("node");
    command.arg(format!("{scripts}/{script}.cjs"));
    command.arg(port.to_string());
    command.args(redis.map(|port| port.to_string()));
    command.env("NODE_PATH", modules);
    command.env("NODE_ENV", "production");
    Ok(command)
}
