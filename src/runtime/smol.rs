//! The runtime interface over smol. Its executor runs one thread, or `SMOL_THREADS` threads;
//! `block_on` adds none.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use smol::{Async, Timer};

pub(super) use super::signal_pipe::signals;

pub(super) const NAME: &str = "smol";

/// Shared by all clones of a socket; every operation works through a shared reference.
pub(super) type RawStream = Arc<Async<TcpStream>>;
pub(super) type RawListener = Async<TcpListener>;

pub(super) use smol::block_on;

pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    smol::spawn(future).detach();
}

pub(super) async fn sleep(duration: Duration) {
    Timer::after(duration).await;
}

pub(super) fn io(stream: &RawStream) -> &Async<TcpStream> {
    stream
}

pub(super) async fn connect(addr: SocketAddr) -> io::Result<RawStream> {
    Async::<TcpStream>::connect(addr).await.map(Arc::new)
}

pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    smol::net::resolve((host, port)).await
}

pub(super) fn listener(listener: std::net::TcpListener) -> io::Result<RawListener> {
    Async::new(listener)
}

pub(super) async fn accept(listener: &RawListener) -> io::Result<(RawStream, SocketAddr)> {
    let (stream, addr) = listener.accept().await?;
    Ok((Arc::new(stream), addr))
}
