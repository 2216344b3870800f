//! The WebSocket endpoints: their paths, and what a connection to each of them begins with.

use std::sync::Arc;

use super::{Counted, Node, SharedSocket, Upgraded, start_session};
use crate::protocol::Protocol;
use crate::protocol::native::NativeDecoder;

/// The path of the native protocol; the second is what some clients and proxies make of the first.
const NATIVE_PATHS: [&str; 2] = ["/ws", "/ws/"];

/// The subprotocols that the server selects if a client offers them: a browser that offers its
/// token as a subprotocol needs another one that the server can select.
pub(super) const SUBPROTOCOLS: &[&str] = &["switchboard"];

/// The kind of a WebSocket endpoint.
#[derive(Clone, Copy)]
pub(crate) enum Endpoint {
    Protocol(Protocol),
    Echo,
}

/// The endpoint of a path, if it has one.
pub(super) fn find(node: &Node, path: &str) -> Option<Endpoint> {
    if NATIVE_PATHS.contains(&path) {
        return Some(Endpoint::Protocol(Protocol::Native));
    }
    let echo = node.echo_path.as_deref() == Some(path);
    echo.then_some(Endpoint::Echo)
}

/// Starts a session with a new decoder of the protocol.
pub(super) async fn start<S: SharedSocket>(
    protocol: Protocol,
    node: &Arc<Node>,
    socket: S,
    upgraded: Upgraded,
    counted: Counted,
) {
    match protocol {
        Protocol::Native => start_session(NativeDecoder, node, socket, upgraded, counted).await,
    }
}
