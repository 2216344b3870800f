use super::*;

use std::net::{Ipv4Addr, Ipv6Addr};

use futures::channel::oneshot;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures::stream::StreamExt;

const LONG: Duration = Duration::from_secs(10);

fn run(future: impl Future<Output = ()>) {
    block_on(timeout(LONG, future)).expect("the test ends in time");
}

fn loopback() -> Listener {
    Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port")
}

/// Both ends of one connection: the connecting one, the accepting one.
async fn pair() -> (Socket, Socket) {
    let listener = loopback();
    let (ours, theirs) = futures::join!(connect(listener.local_addr(), LONG), listener.accept());
    let (theirs, peer) = theirs.expect("accepted");
    let ours = ours.expect("connected");
    assert_eq!(
        peer,
        ours.options().local_addr().unwrap().as_socket().unwrap()
    );
    assert_eq!(ours.peer_addr().unwrap(), listener.local_addr());
    (ours, theirs)
}

#[test]
fn runtime_name_is_that_of_the_feature() {
    let first = if cfg!(feature = "rt-async-std") {
        "async-std"
    } else if cfg!(feature = "rt-smol") {
        "smol"
    } else {
        "tokio"
    };
    assert_eq!(name(), first);
}

#[test]
fn spawned_tasks_run_detached_and_panic_alone() {
    run(async {
        spawn(async { panic!("expected: this test panics in a task") });
        for n in 0..20 {
            let (done, ran) = oneshot::channel();
            spawn(async move { done.send(n).expect("someone waits") });
            assert_eq!(ran.await, Ok(n));
        }
    });
}

#[test]
fn timeouts_return_the_output_or_drop_the_future() {
    run(async {
        assert_eq!(timeout(Duration::ZERO, async { 7 }).await, Ok(7));
        assert_eq!(timeout(LONG, async { yield_now().await }).await, Ok(()));

        let (held, dropped) = oneshot::channel::<()>();
        let stuck = async move {
            let _held = held;
            std::future::pending::<()>().await
        };
        assert_eq!(
            timeout(Duration::from_millis(20), stuck).await,
            Err(Elapsed)
        );
        assert!(dropped.await.is_err());
    });
}

#[test]
fn one_task_reads_while_another_writes_the_same_socket() {
    run(async {
        let (ours, mut theirs) = pair().await;
        let (mut reader, mut writer) = (ours.clone(), ours);
        let (done, echoed) = oneshot::channel();
        spawn(async move {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.expect("the echo");
            done.send(all).expect("someone waits");
        });
        // More than the kernel's buffers hold, so that both directions have to wait for each other.
        let sent: Vec<u8> = (0..8 << 20).map(|n: u32| n as u8).collect();
        let expected = sent.clone();
        spawn(async move {
            writer.write_all(&sent).await.expect("written");
            writer.close().await.expect("closed");
        });
        let mut input = theirs.clone();
        futures::io::copy(&mut input, &mut theirs)
            .await
            .expect("echoes");
        theirs.close().await.expect("closed");
        assert!(echoed.await.expect("read to the end") == expected);
    });
}

#[test]
fn several_buffers_go_out_in_one_write() {
    run(async {
        let (mut ours, mut theirs) = pair().await;
        let parts = [
            IoSlice::new(b"one "),
            IoSlice::new(b"two "),
            IoSlice::new(b"three"),
        ];
        assert_eq!(ours.write_vectored(&parts).await.expect("written"), 13);
        let mut got = [0; 13];
        theirs.read_exact(&mut got).await.expect("read");
        assert_eq!(&got, b"one two three");
    });
}

#[test]
fn shutdown_wakes_a_reader_at_both_ends_and_may_be_repeated() {
    run(async {
        let (ours, mut theirs) = pair().await;
        let (mut reader, mut byte) = (ours.clone(), [0]);
        let waiting = reader.read(&mut byte);
        let (read, ()) = futures::join!(waiting, async {
            yield_now().await;
            ours.shutdown();
            ours.shutdown();
        });
        assert_eq!(read.expect("the end"), 0);
        assert_eq!(theirs.read(&mut [0]).await.expect("the end"), 0);
    });
}

#[test]
fn sockets_do_not_delay_small_writes_and_outgoing_ones_are_kept_alive() {
    run(async {
        let (ours, theirs) = pair().await;
        assert!(ours.options().tcp_nodelay().unwrap() && theirs.options().tcp_nodelay().unwrap());
        assert!(ours.options().keepalive().unwrap());
    });
}

#[test]
fn connecting_is_refused_or_times_out_with_its_kind() {
    run(async {
        let closed = loopback().local_addr();
        assert_eq!(
            connect(closed, LONG).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );

        // One place in the backlog: once it is taken, the kernel leaves further SYNs unanswered.
        let full = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        full.listen(0).unwrap();
        let addr = full.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        let error = loop {
            match connect(addr, Duration::from_millis(100)).await {
                Ok(socket) => held.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!(
            error.kind(),
            io::ErrorKind::TimedOut,
            "after {} connections",
            held.len()
        );
        assert!(error.to_string().contains(&addr.to_string()));
    });
}

#[test]
fn hosts_resolve_by_name_and_by_address() {
    run(async {
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 6379));
        assert_eq!(resolve("[::1]", 6379).await.unwrap(), [v6]);
        assert_eq!(resolve("::1", 6379).await.unwrap(), [v6]);
        assert_eq!(
            resolve("127.0.0.1", 1).await.unwrap(),
            [(Ipv4Addr::LOCALHOST, 1).into()]
        );
        let local = resolve("localhost", 80).await.unwrap();
        assert!(!local.is_empty() && local.iter().all(|addr| addr.ip().is_loopback()));
        assert!(resolve("nowhere.invalid", 80).await.is_err());
    });
}

#[test]
fn ports_in_use_are_refused_and_freed_ones_reused_at_once() {
    run(async {
        let listener = loopback();
        let addr = listener.local_addr();
        assert_eq!(
            Listener::bind(addr).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        // The accepting end closes first and leaves its port in TIME_WAIT.
        let (ours, theirs) = futures::join!(connect(addr, LONG), listener.accept());
        drop((theirs.unwrap(), listener));
        assert_eq!(ours.unwrap().read(&mut [0]).await.unwrap(), 0);
        Listener::bind(addr).expect("taken back");
    });
}

#[test]
fn accept_failures_are_classified() {
    use AcceptFailure::*;
    let table = [
        (Errno::CONNABORTED, Transient),
        (Errno::INTR, Transient),
        (Errno::PROTO, Transient),
        (Errno::PERM, Transient),
        (Errno::NETUNREACH, Transient),
        (Errno::MFILE, Exhausted),
        (Errno::NFILE, Exhausted),
        (Errno::NOBUFS, Exhausted),
        (Errno::NOMEM, Exhausted),
        (Errno::BADF, Fatal),
        (Errno::INVAL, Fatal),
        (Errno::NOTSOCK, Fatal),
    ];
    for (errno, expected) in table {
        assert_eq!(accept_failure(&io::Error::from(errno)), expected, "{errno}");
    }
    assert_eq!(
        accept_failure(&io::Error::other("not from the system")),
        Fatal
    );
}

#[test]
fn signals_arrive_as_a_stream() {
    run(async {
        use rustix::process::{Signal as Raw, getpid, kill_process};

        let mut wanted = signals(&[Signal::HangUp, Signal::Quit]).expect("listening");
        for (raw, signal) in [(Raw::HUP, Signal::HangUp), (Raw::QUIT, Signal::Quit)] {
            kill_process(getpid(), raw).expect("sent");
            assert_eq!(wanted.next().await, Some(signal));
        }
    });
}

#[test]
fn file_limit_is_raised_to_the_hard_limit() {
    let soft = raise_file_limit().expect("raised");
    assert_eq!(rlimit::Resource::NOFILE.get().unwrap(), (soft, soft));
}
