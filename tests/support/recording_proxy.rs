//! A proxy between nginx and a node that records the traffic: which requests nginx made of a
//! client's bytes, and how many responses the node gave.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join;
use futures::{AsyncReadExt, AsyncWriteExt};
use switchboard::runtime::{self, Listener, Socket};

use super::http::connect;

/// What passed on one connection.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    pub to_node: Vec<u8>,
    pub from_node: Vec<u8>,
    /// Both directions have ended.
    pub over: bool,
}

impl Exchange {
    /// How many requests nginx wrote: it adds this field to each, once.
    pub fn requests(&self) -> usize {
        count(&self.to_node, b"\r\nX-Real-IP: ")
    }

    /// How many answers the node gave.
    pub fn answers(&self) -> usize {
        (1..=5)
            .map(|class| count(&self.from_node, format!("HTTP/1.1 {class}").as_bytes()))
            .sum()
    }
}

fn count(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).filter(|w| *w == part).count()
}

/// Accepts for a node, until the test ends.
pub struct RecordingProxy {
    pub address: SocketAddr,
    exchanges: Arc<Mutex<Vec<Exchange>>>,
}

impl RecordingProxy {
    pub fn before(node: SocketAddr) -> Self {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr();
        let exchanges: Arc<Mutex<Vec<Exchange>>> = Arc::default();
        let kept = exchanges.clone();
        runtime::spawn(async move {
            while let Ok((proxy, _)) = listener.accept().await {
                let index = {
                    let mut kept = lock(&kept);
                    kept.push(Exchange::default());
                    kept.len() - 1
                };
                runtime::spawn(carry(proxy, node, kept.clone(), index));
            }
        });
        Self { address, exchanges }
    }

    /// What has passed so far, a connection each.
    pub fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.exchanges).clone()
    }
}

type Kept = Arc<Mutex<Vec<Exchange>>>;

fn lock(kept: &Mutex<Vec<Exchange>>) -> MutexGuard<'_, Vec<Exchange>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn carry(proxy: Socket, node: SocketAddr, kept: Kept, index: usize) {
    let node = connect(node).await;
    let there = copy(proxy.clone(), node.clone(), |bytes| {
        lock(&kept)[index].to_node.extend(bytes);
    });
    let back = copy(node.clone(), proxy.clone(), |bytes| {
        lock(&kept)[index].from_node.extend(bytes);
    });
    join(there, back).await;
    lock(&kept)[index].over = true;
}

/// Copies until one side ends, then closes the other.
async fn copy(mut from: Socket, mut to: Socket, note: impl Fn(&[u8])) {
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        note(&piece[..read]);
        if to.write_all(&piece[..read]).await.is_err() {
            break;
        }
    }
    // It may be gone already.
    let _ = to.close().await;
}
