//! Raw bytes to a door and what comes back, for what no HTTP client would send.

use std::net::SocketAddr;

use futures::{AsyncReadExt, AsyncWriteExt};
use switchboard::runtime::{self, Socket};

use super::{DEADLINE, within};

pub async fn connect(address: SocketAddr) -> Socket {
    runtime::connect(address, DEADLINE)
        .await
        .expect("the door is open")
}

/// Sends bytes and reads until the server closes; everything it said.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = connect(address).await;
    // A door that refuses early may close while we still write.
    let _ = within("the bytes are sent", socket.write_all(bytes)).await;
    let mut answer = Vec::new();
    let _ = within("the server closes", socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer.
pub fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    exchange(address, request.as_bytes()).await
}
