//! The runtime interface over async-std, the default. Its executor runs one thread per processor,
//! or `ASYNC_STD_THREAD_COUNT` threads.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use async_std::net::{TcpListener, TcpStream, ToSocketAddrs};
use async_std::task;

pub(super) use super::signal_pipe::signals;

pub(super) const NAME: &str = "async-std";

/// Shared by all clones of a socket; every operation works through a shared reference.
pub(super) type RawStream = TcpStream;
pub(super) type RawListener = TcpListener;

pub(super) use async_std::task::{block_on, sleep};

pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    // Dropping the handle detaches the task.
    drop(task::spawn(future));
}

pub(super) fn io(stream: &RawStream) -> &TcpStream {
    stream
}

pub(super) async fn connect(addr: SocketAddr) -> io::Result<RawStream> {
    TcpStream::connect(addr).await
}

pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs().await?.collect())
}

pub(super) fn listener(listener: std::net::TcpListener) -> io::Result<RawListener> {
    // Panics if the reactor cannot watch it, which a process that is only starting has no reason
    // for.
    Ok(listener.into())
}

pub(super) async fn accept(listener: &RawListener) -> io::Result<(RawStream, SocketAddr)> {
    listener.accept().await
}
