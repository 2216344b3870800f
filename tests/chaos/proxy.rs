//! A TCP proxy that injects a scenario's network faults: it cuts, delays, holds one direction or
//! both (a black hole, as far as TCP shows one), and ends a connection in the middle of a message.
//! Between nginx and a node it can also drop, duplicate or swap whole WebSocket frames.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use switchboard::runtime::{self, Listener, Socket};

use crate::mutation::{Mutant, Mutator};

/// How often a held direction is checked again.
const GLANCE: Duration = Duration::from_millis(10);

/// How long the proxy itself tries to connect, or to bind its port again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the proxy does to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    #[default]
    Pass,
    /// Nothing passes, not even the end of a connection; it passes later, once this is over.
    Hold,
    /// Each read is delayed by this much.
    Delay(Duration),
    /// Half of the next read passes, then all connections end.
    Half,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

#[derive(Default)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    flows: Mutex<[Flow; 2]>,
    connections: Mutex<HashMap<u64, [Socket; 2]>>,
    last: AtomicU64,
    mutant: Option<Mutant>,
}

/// A proxy on a port of its own; ends with all its connections when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    /// Its drop ends accepting.
    accepting: Option<flume::Sender<()>>,
}

impl Proxy {
    /// A proxy before `target`; `mutant` changes WebSocket frames that come from there.
    pub fn start(target: SocketAddr, mutant: Option<Mutant>) -> Self {
        let shared = Arc::new(Shared {
            target: Mutex::new(Some(target)),
            mutant,
            ..Shared::default()
        });
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::bind(free).expect("a free port");
        let address = listener.local_addr();
        let accepting = Some(accept(listener, shared.clone()));
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Stops listening; open connections stay.
    pub fn down(&mut self) {
        self.accepting = None;
    }

    /// Listens again, for a server that may have another address now.
    pub async fn up(&mut self, target: SocketAddr) {
        *lock(&self.shared.target) = Some(target);
        if self.accepting.is_some() {
            return;
        }
        let binding = async {
            loop {
                match Listener::bind(self.address) {
                    Ok(listener) => return listener,
                    Err(_) => runtime::sleep(GLANCE).await,
                }
            }
        };
        let listener = runtime::timeout(CONNECT_TIMEOUT, binding).await;
        let listener = listener.expect("the proxy has its port back");
        self.accepting = Some(accept(listener, self.shared.clone()));
    }

    pub fn set(&self, way: Way, flow: Flow) {
        lock(&self.shared.flows)[way as usize] = flow;
    }

    pub fn set_both(&self, flow: Flow) {
        self.set(Way::ToServer, flow);
        self.set(Way::ToClient, flow);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for sockets in lock(&self.shared.connections).values() {
            sockets.iter().for_each(Socket::shutdown);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set_both(Flow::Pass);
        self.cut();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: Listener, shared: Arc<Shared>) -> flume::Sender<()> {
    let (accepting, stop) = flume::bounded(1);
    runtime::spawn(async move {
        loop {
            match select(listener.accept().boxed(), stop.recv_async()).await {
                Either::Left((Ok((socket, _)), _)) => {
                    runtime::spawn(serve(socket, shared.clone()));
                }
                Either::Left((Err(_), _)) => runtime::sleep(GLANCE).await,
                Either::Right(_) => return,
            }
        }
    });
    accepting
}

async fn serve(client: Socket, shared: Arc<Shared>) {
    let Some(target) = *lock(&shared.target) else {
        return;
    };
    let Ok(server) = runtime::connect(target, CONNECT_TIMEOUT).await else {
        return;
    };
    let id = shared.last.fetch_add(1, Ordering::Relaxed);
    lock(&shared.connections).insert(id, [client.clone(), server.clone()]);
    let mutator = shared.mutant.as_ref().map(|mutant| mutant.mutator(id));
    let there = pump(&shared, client.clone(), server.clone(), Way::ToServer, None);
    let back = pump(&shared, server, client, Way::ToClient, mutator);
    futures::join!(there, back);
    lock(&shared.connections).remove(&id);
}

async fn pump(
    shared: &Shared,
    mut from: Socket,
    mut to: Socket,
    way: Way,
    mut mutator: Option<Mutator>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await;
        let flow = passes(shared, way).await;
        let bytes = match read {
            Ok(0) => break,
            Ok(count) => &buffer[..count],
            Err(_) => return from.shutdown_both(&to),
        };
        if flow == Flow::Half {
            let _ = to.write_all(&bytes[..bytes.len() / 2]).await;
            return from.shutdown_both(&to);
        }
        let written = match &mut mutator {
            None => to.write_all(bytes).await,
            Some(mutator) => to.write_all(&mutator.pass(bytes)).await,
        };
        if written.is_err() {
            return from.shutdown_both(&to);
        }
    }
    // The other direction may still have data.
    let _ = to.close().await;
}

/// Waits until bytes may pass.
async fn passes(shared: &Shared, way: Way) -> Flow {
    loop {
        let flow = lock(&shared.flows)[way as usize];
        match flow {
            Flow::Hold => runtime::sleep(GLANCE).await,
            Flow::Delay(time) => {
                runtime::sleep(time).await;
                return flow;
            }
            Flow::Pass | Flow::Half => return flow,
        }
    }
}

trait ShutdownBoth {
    fn shutdown_both(&self, other: &Socket);
}

impl ShutdownBoth for Socket {
    fn shutdown_both(&self, other: &Socket) {
        self.shutdown();
        other.shutdown();
    }
}
