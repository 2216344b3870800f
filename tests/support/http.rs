//! Raw HTTP: sends bytes that an HTTP library would not send. One exchange that ends with the
//! connection, or an [`HttpClient`] with several requests on one connection.

use std::net::SocketAddr;

use futures::{AsyncReadExt, AsyncWriteExt};
use switchboard::runtime::{self, Socket};

use super::{DEADLINE, within};

pub async fn connect(address: SocketAddr) -> Socket {
    runtime::connect(address, DEADLINE)
        .await
        .expect("the port is open")
}

/// Sends bytes, reads until the server closes, and returns everything it sent.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = connect(address).await;
    // A node that refuses early may close while we still write.
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

/// One answer of a server.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    /// The value of a field, by its name as the server spells it.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.split("\r\n").skip(1);
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The body, which must be JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// A publish by the HTTP API with its body in chunks; each field ends in CR LF.
pub fn chunked_call(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /rooms/lobby/messages HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n{fields}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A connection on which answers are read one by one.
pub struct HttpClient {
    socket: Socket,
    /// Read and not yet used.
    buffer: Vec<u8>,
}

impl HttpClient {
    pub async fn connect(address: SocketAddr) -> Self {
        Self {
            socket: connect(address).await,
            buffer: Vec::new(),
        }
    }

    /// Another handle of the connection.
    pub fn socket(&self) -> Socket {
        self.socket.clone()
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("the bytes are sent", self.socket.write_all(bytes.as_ref()))
            .await
            .expect("the server takes them");
    }

    /// Sends byte by byte, each in its own packet; the server may close before the end.
    pub async fn dribble(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.socket.write_all(&[*byte]).await.is_err() {
                return;
            }
            runtime::yield_now().await;
        }
    }

    /// Closes this side of the connection.
    pub async fn finish(&mut self) {
        self.socket.close().await.expect("the socket is open");
    }

    /// The next answer, with its body.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer.field("Content-Length").unwrap_or("0");
        let length = length.parse().expect("a number");
        let body = self.take(length).await;
        answer.body = String::from_utf8_lossy(&body).into_owned();
        answer
    }

    /// The next head, for an answer that has no body.
    pub async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let read = self.read().await;
            assert!(read > 0, "ended within a head: {:?}", self.rest());
        };
        let head = String::from_utf8(self.take(end).await).expect("ASCII");
        Answer {
            status: status(&head).unwrap_or_else(|| panic!("no answer: {head}")),
            head,
            body: String::new(),
        }
    }

    /// The statuses of all answers until the server closes or resets the connection.
    pub async fn statuses(&mut self) -> Vec<u16> {
        let mut piece = [0; 4096];
        let mut received = std::mem::take(&mut self.buffer);
        // A server that ends while we still write may reset the connection.
        while let Ok(read @ 1..) =
            within("the server answers or ends", self.socket.read(&mut piece)).await
        {
            received.extend_from_slice(&piece[..read]);
        }
        let received = String::from_utf8_lossy(&received).into_owned();
        let answers = received.match_indices("HTTP/1.1 ");
        let statuses = answers.filter_map(|(at, _)| status(&received[at..]));
        statuses.filter(|status| *status != 100).collect()
    }

    /// Takes exactly `count` bytes.
    pub async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let read = self.read().await;
            assert!(read > 0, "ended too early: {:?}", self.rest());
        }
        self.buffer.drain(..count).collect()
    }

    /// Checks that the server closes without an error and sends nothing more.
    pub async fn expect_end(&mut self) {
        while self.read().await > 0 {}
        assert!(self.buffer.is_empty(), "also received: {:?}", self.rest());
    }

    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    async fn read(&mut self) -> usize {
        let mut piece = [0; 4096];
        let reading = self.socket.read(&mut piece);
        let read = within("the server answers or ends", reading).await;
        let read = read.expect("the connection is not reset");
        self.buffer.extend_from_slice(&piece[..read]);
        read
    }
}
