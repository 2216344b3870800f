//! The only module that names a runtime: tasks, time, TCP and signals, with the same interface over
//! async-std (feature `rt-async-std`, the default), smol (`rt-smol`) and tokio (`rt-tokio`). With
//! several features on, the first of this list is used.
//!
//! async-std and smol share one reactor thread for sockets and timers and differ in the executor;
//! tokio has a reactor of its own. The environment chooses the number of the executor's threads:
//! `ASYNC_STD_THREAD_COUNT` (default: one per processor), `SMOL_THREADS` (default: 1) or
//! `TOKIO_WORKER_THREADS` (default: one per processor), which an embedding program's own tokio
//! runtime may override.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncWrite};
use futures::stream::Stream;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};

pub(crate) mod hyper_io;
pub mod tls;

#[cfg(not(any(feature = "rt-async-std", feature = "rt-smol", feature = "rt-tokio")))]
compile_error!(
    "a runtime is needed: enable the feature `rt-async-std` (the default), `rt-smol` or `rt-tokio`"
);

#[cfg(feature = "rt-async-std")]
#[path = "async_std.rs"]
mod platform;

#[cfg(all(feature = "rt-smol", not(feature = "rt-async-std")))]
#[path = "smol.rs"]
mod platform;

#[cfg(all(
    feature = "rt-tokio",
    not(any(feature = "rt-async-std", feature = "rt-smol"))
))]
#[path = "tokio.rs"]
mod platform;

#[cfg(any(feature = "rt-async-std", feature = "rt-smol"))]
mod signal_pipe;

/// How many connections the kernel may hold ready for `accept`: many clients that reconnect at once
/// must not receive resets. The kernel lowers it to `net.core.somaxconn`, which is 4,096 by
/// default.
const BACKLOG: i32 = 4096;

/// An outgoing connection that is silent for 15 s is probed every 5 s and given up after three
/// probes: the last resort below the pings of its user, so that even a forgotten socket ends within
/// half a minute.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// The runtime in use, for the log: `async-std`, `smol` or `tokio`.
pub fn name() -> &'static str {
    platform::NAME
}

/// Runs a future to its end on this thread; the program's entry. A program that runs inside tokio
/// already awaits instead: tokio panics if it is entered twice.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    platform::block_on(future)
}

/// Starts a detached task. If it panics, only this task ends: the threads of the executor go on.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    platform::spawn(future);
}

/// Ready after `duration`, never earlier.
pub async fn sleep(duration: Duration) {
    platform::sleep(duration).await;
}

/// Lets the other tasks that are ready run first.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The time given to [`timeout`] passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not finished within the time given")]
pub struct Elapsed;

/// The future's output, unless `duration` passes first; then the future is dropped. A future that
/// is ready at once wins even over a duration of zero.
pub async fn timeout<T>(duration: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    match select(pin!(future), pin!(platform::sleep(duration))).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(((), _)) => Err(Elapsed),
    }
}

/// A TCP stream. Clones are handles of the same stream, and cheap: one may read in one task while
/// another writes in a second. Two tasks must not wait in the same direction, because only the last
/// one is woken.
#[derive(Clone, Debug)]
pub struct Socket {
    stream: platform::RawStream,
}

impl Socket {
    /// Ends both directions now, for all clones: pending reads see the end, pending writes an
    /// error, and what the kernel has already taken is still sent. A socket that has ended already
    /// stays as it is.
    pub fn shutdown(&self) {
        // The only failure is `ENOTCONN`, the state asked for.
        let _ = self.options().shutdown(Shutdown::Both);
    }

    /// The address at the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let addr = self.options().peer_addr()?;
        addr.as_socket()
            .ok_or_else(|| io::Error::other("the peer has no IP address"))
    }

    /// How many bytes the kernel has received that were not read yet.
    pub fn unread(&self) -> io::Result<usize> {
        let unread = rustix::io::ioctl_fionread(&*self.options())?;
        Ok(usize::try_from(unread).unwrap_or(usize::MAX))
    }

    /// The present size of the kernel's receive buffer, in bytes, with the kernel's overhead.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        self.options().recv_buffer_size()
    }

    fn options(&self) -> SockRef<'_> {
        SockRef::from(platform::io(&self.stream))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut platform::io(&self.stream)).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut platform::io(&self.stream)).poll_read_vectored(cx, bufs)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut platform::io(&self.stream)).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut platform::io(&self.stream)).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut platform::io(&self.stream)).poll_flush(cx)
    }

    /// Ends the writing direction, so that the peer reads the end while it may still answer.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.options().shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(()),
        })
    }
}

/// Connects within `limit` (else an error of kind `TimedOut`), with `TCP_NODELAY` and keepalive.
pub async fn connect(addr: SocketAddr, limit: Duration) -> io::Result<Socket> {
    let late = || {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no connection to {addr} within {limit:?}"),
        )
    };
    let stream = timeout(limit, platform::connect(addr))
        .await
        .map_err(|Elapsed| late())??;
    let socket = Socket { stream };
    socket.options().set_tcp_nodelay(true)?;
    socket.options().set_tcp_keepalive(&KEEPALIVE)?;
    Ok(socket)
}

/// The addresses of a host name or of an IP address (IPv6 also in brackets, as in a URL). The
/// system's resolver runs on a thread for blocking calls; it has its own timeouts, which can be
/// long.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    platform::resolve(bare, port).await
}

/// A listening TCP socket; after it is dropped, new connections are refused.
#[derive(Debug)]
pub struct Listener {
    raw: platform::RawListener,
    local: SocketAddr,
}

impl Listener {
    /// Listens with `SO_REUSEADDR` (a restarted node takes its port back at once) and a long
    /// backlog. Port 0 takes any free port.
    pub fn bind(addr: SocketAddr) -> io::Result<Listener> {
        let socket =
            socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit the option: one system call less for each.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let listener = std::net::TcpListener::from(socket);
        let local = listener.local_addr()?;
        Ok(Listener {
            raw: platform::listener(listener)?,
            local,
        })
    }

    /// The address bound, with the port chosen when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection, with `TCP_NODELAY`, and its peer. [`accept_failure`] classifies an
    /// error.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let (stream, peer) = platform::accept(&self.raw).await?;
        Ok((Socket { stream }, peer))
    }
}

/// The class of an error of [`Listener::accept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptFailure {
    /// The error concerns only this connection, which is closed: accept the next at once.
    Transient,
    /// Descriptors or memory are used up: wait a little, then go on. The connections wait in the
    /// backlog.
    Exhausted,
    /// The listener itself is broken: it will not accept again.
    Fatal,
}

/// Classifies an error of [`Listener::accept`] by accept(2), which on Linux also reports the
/// network errors that befell a connection while it waited in the backlog.
pub(crate) fn accept_failure(error: &io::Error) -> AcceptFailure {
    match Errno::from_io_error(error) {
        Some(
            Errno::AGAIN
            | Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::PERM
            | Errno::PROTO
            | Errno::TIMEDOUT,
        ) => AcceptFailure::Transient,
        // `NOSPC`: the reactor may not watch more descriptors (fs.epoll.max_user_watches).
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC) => {
            AcceptFailure::Exhausted
        }
        _ => AcceptFailure::Fatal,
    }
}

/// The signals a node listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, from a supervisor.
    Terminate,
    /// SIGINT, from a terminal.
    Interrupt,
    /// SIGQUIT, from a terminal or a supervisor.
    Quit,
    /// SIGHUP, when a terminal is closed or a supervisor asks for changed files to be read.
    HangUp,
}

/// The given signals as they come; from now on they no longer end the process by themselves. The
/// stream ends only if what is behind it breaks.
pub fn signals(
    wanted: &[Signal],
) -> io::Result<impl Stream<Item = Signal> + Send + Unpin + 'static> {
    platform::signals(wanted)
}

/// Raises the soft limit of open files to the hard limit; returns the soft limit now in force.
pub fn raise_file_limit() -> io::Result<u64> {
    rlimit::increase_nofile_limit(u64::MAX)
}

#[cfg(test)]
mod tests;
