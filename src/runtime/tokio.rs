//! The runtime interface over tokio, with tokio's own reactor and timers. Within a tokio runtime,
//! as in a program that embeds the server, everything uses that one, which needs I/O and time
//! enabled. Elsewhere, as in our own binary before `block_on`, it is a runtime that is built at
//! first use, with one thread per processor, or `TOKIO_WORKER_THREADS` threads.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncWrite};
use futures::stream::{self, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::Signal;

pub(super) const NAME: &str = "tokio";

/// Shared by all clones of a socket; every operation works through a shared reference.
pub(super) type RawStream = Arc<SharedStream>;
pub(super) type RawListener = TcpListener;

/// The runtime for callers outside of one. Never dropped: its threads end with the process.
static OWN: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    // It fails only if no thread can be started, as in the other runtimes.
    builder
        .enable_all()
        .build()
        .expect("tokio can start threads")
});

/// Runs `create`, which registers something with the runtime in use: the caller's, else our own.
fn within_runtime<T>(create: impl FnOnce() -> T) -> T {
    let _entered = Handle::try_current().is_err().then(|| OWN.enter());
    create()
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    OWN.block_on(future)
}

pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    // Dropping the handle detaches the task.
    drop(within_runtime(|| tokio::spawn(future)));
}

pub(super) async fn sleep(duration: Duration) {
    within_runtime(|| tokio::time::sleep(duration)).await;
}

pub(super) fn io(stream: &RawStream) -> &SharedStream {
    stream
}

pub(super) async fn connect(addr: SocketAddr) -> io::Result<RawStream> {
    let stream = TcpStream::connect(addr).await?;
    Ok(Arc::new(SharedStream(stream)))
}

pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

pub(super) fn listener(listener: std::net::TcpListener) -> io::Result<RawListener> {
    within_runtime(|| TcpListener::from_std(listener))
}

pub(super) async fn accept(listener: &RawListener) -> io::Result<(RawStream, SocketAddr)> {
    let (stream, addr) = listener.accept().await?;
    Ok((Arc::new(SharedStream(stream)), addr))
}

/// Signals that arrive while one of the same kind waits to be read are merged with it.
pub(super) fn signals(
    wanted: &[Signal],
) -> io::Result<impl Stream<Item = Signal> + Send + Unpin + 'static> {
    let each: io::Result<Vec<_>> = wanted.iter().copied().map(listen).collect();
    Ok(stream::select_all(each?))
}

fn listen(wanted: Signal) -> io::Result<impl Stream<Item = Signal> + Send + Unpin> {
    let mut source = within_runtime(|| signal(wanted.kind()))?;
    Ok(stream::poll_fn(move |cx| {
        source.poll_recv(cx).map(|arrived| arrived.map(|()| wanted))
    }))
}

impl Signal {
    fn kind(self) -> SignalKind {
        match self {
            Signal::Terminate => SignalKind::terminate(),
            Signal::Interrupt => SignalKind::interrupt(),
            Signal::Quit => SignalKind::quit(),
            Signal::HangUp => SignalKind::hangup(),
        }
    }
}

/// tokio's own traits need exclusive access, so that clones in two tasks could not share a stream;
/// these work through a shared reference. Each direction wakes one task, the last that waited.
#[derive(Debug)]
pub(super) struct SharedStream(TcpStream);

/// Waits until the stream is ready and tries again, as long as the kernel would block.
fn poll_io<T>(
    mut poll_ready: impl FnMut() -> Poll<io::Result<()>>,
    mut transfer: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        ready!(poll_ready())?;
        match transfer() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            finished => return Poll::Ready(finished),
        }
    }
}

impl AsFd for SharedStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsyncRead for &SharedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        poll_io(|| self.0.poll_read_ready(cx), || self.0.try_read(buf))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_io(
            || self.0.poll_read_ready(cx),
            || self.0.try_read_vectored(bufs),
        )
    }
}

impl AsyncWrite for &SharedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        poll_io(|| self.0.poll_write_ready(cx), || self.0.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_io(
            || self.0.poll_write_ready(cx),
            || self.0.try_write_vectored(bufs),
        )
    }

    /// Nothing is buffered above the kernel.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The socket ends its directions by itself: see `Socket::poll_close`.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use futures::channel::oneshot;

    use super::*;

    #[test]
    fn tasks_and_sockets_use_the_tokio_runtime_of_their_caller() {
        let ambient = Builder::new_current_thread().enable_all().build().unwrap();
        let own = thread::current().id();
        let seen = ambient.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            let listener = super::listener(listener).unwrap();
            let (done, seen) = oneshot::channel();
            spawn(async move {
                connect(address).await.unwrap();
                sleep(Duration::from_millis(1)).await;
                done.send(thread::current().id()).unwrap();
            });
            accept(&listener).await.unwrap();
            seen.await
        });
        assert_eq!(seen, Ok(own));
    }
}
