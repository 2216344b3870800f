//! The reader with a decoder that keeps state, answers by itself and accepts binary messages; and
//! the memory of an idle connection.

use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use futures::AsyncWriteExt;
use futures::io::{AsyncRead, AsyncWrite};

use super::*;
use crate::http::HeadLimits;
use crate::outbox::{Chunk, OutboxLimits, OutboxReader, outbox};
use crate::protocol::native::NativeDecoder;
use crate::protocol::{Code, Command, Protocol};
use crate::runtime;
use crate::transport::Limits;
use crate::transport::limits::{IngressLimits, Rate};

const TEXT: u8 = 1;
const BINARY: u8 = 2;

/// Commands are lines, wherever messages are cut.
#[derive(Default)]
struct LineDecoder {
    partial: String,
}

impl Decoder for LineDecoder {
    const PROTOCOL: Protocol = Protocol::Native;

    fn decode(
        &mut self,
        payload: FramePayload<'_>,
        _: usize,
        decoded: &mut Decoded,
    ) -> Result<(), Disconnect> {
        self.partial.push_str(match payload {
            FramePayload::Text(text) => text,
            FramePayload::Binary(bytes) => std::str::from_utf8(bytes).unwrap(),
        });
        while let Some((line, rest)) = self.partial.split_once('\n') {
            let request = match line {
                "hello" => {
                    decoded.answers.extend_from_slice(b"hello, client\n");
                    None
                }
                "ping" => Some(Ok(ClientRequest::Command(Command::Ping))),
                "end" => return Err(Disconnect::Ended),
                _ => Some(Err(CommandError::new(Code::BadRequest, "no such line"))),
            };
            let requests = request.map(|request| DecodedRequest { id: None, request });
            decoded.requests.extend(requests);
            self.partial = rest.to_owned();
        }
        Ok(())
    }
}

/// A socket that has nothing to read.
#[derive(Clone)]
struct Silent;

impl AsyncRead for Silent {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }
}

impl AsyncWrite for Silent {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl SharedSocket for Silent {
    fn shutdown(&self) {}
}

fn node(inbox: flume::Sender<Event>) -> Arc<Node> {
    let time = Duration::from_secs(20);
    let ingress = IngressLimits {
        commands: None,
        bytes: None,
        rate_timeout: time,
        fragments: 1024,
        message_timeout: time,
    };
    node_with(inbox, ingress)
}

fn node_with(inbox: flume::Sender<Event>, ingress: IngressLimits) -> Arc<Node> {
    let time = Duration::from_secs(20);
    let limits = Limits {
        head: HeadLimits::default(),
        head_timeout: time,
        idle_timeout: time,
        call_timeout: time,
        calls: 1,
        close_timeout: time,
        message: 1024,
        depth: 64,
        ingress,
        outbox: LIMITS,
    };
    Arc::new(Node {
        assets: crate::transport::pages::Assets::default(),
        readiness: Default::default(),
        metrics: Arc::default(),
        inbox,
        limits,
        auth: crate::auth::Auth::Open,
        hooks: Arc::default(),
        own_hosts: None,
        origins: Vec::new(),
        trusted_proxies: Vec::new(),
        addresses: None,
        shared_quotas: None,
        refusals: Default::default(),
        echo_path: None,
        gate: crate::api::Gate::Closed,
        api_separate: false,
        calls: flume::bounded(1).0.downgrade(),
        sessions: AtomicU64::new(1),
        started: Instant::now(),
    })
}

const LIMITS: OutboxLimits = OutboxLimits {
    bytes: 4096,
    frames: 64,
};

/// A whole message in one frame, masked with zeros.
fn frame(kind: u8, payload: &str) -> Vec<u8> {
    let mut frame = vec![0x80 | kind, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload.as_bytes());
    frame
}

/// The events of a connection that receives these frames, and the frames that it answers.
fn read(decoder: impl Decoder, frames: &[Vec<u8>]) -> (Vec<Event>, OutboxReader) {
    let (inbox, events) = flume::unbounded();
    let (sender, reader) = outbox(LIMITS, || ());
    let session = SessionId(1);
    let rest = frames.concat();
    let (node, quota) = (node(inbox), Arc::default());
    runtime::block_on(run(node, session, decoder, Silent, rest, sender, quota));
    (events.try_iter().collect(), reader)
}

fn is_ping(event: &Event) -> bool {
    let Event::Command { command, .. } = event else {
        return false;
    };
    matches!(command, Command::Ping)
}

fn end(event: &Event) -> Option<Option<Disconnect>> {
    match event {
        Event::Closed { close_reason, .. } => Some(*close_reason),
        _ => None,
    }
}

#[test]
fn decoder_may_keep_state_and_answer_by_itself() {
    let frames = [
        frame(TEXT, "pi"),
        frame(BINARY, "ng\nhello\nping\npi"),
        frame(TEXT, "ng\nshout\nend\nping\n"),
        frame(TEXT, "ping\n"),
    ];
    let (events, outbox) = read(LineDecoder::default(), &frames);
    assert!(events[..3].iter().all(is_ping), "{events:?}");
    let ends: Vec<_> = events[3..].iter().map(end).collect();
    assert_eq!(ends, [Some(Some(Disconnect::Ended)), Some(None)]);
    let Some(Chunk::Bytes(answer)) = outbox.try_recv() else {
        panic!("no answer")
    };
    assert_eq!(answer, "hello, client\n");
    let Some(Chunk::Bytes(error)) = outbox.try_recv() else {
        panic!("no error")
    };
    assert!(error.ends_with(br#""no such line"}"#), "{error:?}");
    assert!(outbox.try_recv().is_none());
}

#[test]
fn native_decoder_refuses_binary_messages() {
    let ping = r#"{"type":"ping"}"#;
    let frames = [frame(TEXT, ping), frame(BINARY, ping), frame(TEXT, ping)];
    let (events, _outbox) = read(NativeDecoder, &frames);
    assert!(is_ping(&events[0]), "{events:?}");
    let ends: Vec<_> = events[1..].iter().map(end).collect();
    assert_eq!(ends, [Some(Some(Disconnect::Binary)), Some(None)]);
}

/// A reader of a real socket under a rate of a thousand commands a second, and its client's end.
struct Throttled {
    client: runtime::Socket,
    events: flume::Receiver<Event>,
    quota: Arc<Quota>,
    _outbox: OutboxReader,
}

impl Throttled {
    async fn start() -> Self {
        let listener = runtime::Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let client = runtime::connect(listener.local_addr(), Duration::from_secs(20));
        let client = client.await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let ingress = IngressLimits {
            commands: Rate::new(1000, 1),
            bytes: None,
            rate_timeout: Duration::from_millis(300),
            fragments: 1024,
            message_timeout: Duration::from_secs(20),
        };
        let (inbox, events) = flume::unbounded();
        let (sender, outbox) = outbox(LIMITS, || ());
        let (node, quota) = (node_with(inbox, ingress), Arc::<Quota>::default());
        let (session, rest) = (SessionId(1), Vec::new());
        let decoder = LineDecoder::default();
        let reader = run(node, session, decoder, socket, rest, sender, quota.clone());
        runtime::spawn(reader);
        Self {
            client,
            events,
            quota,
            _outbox: outbox,
        }
    }

    async fn next(&self) -> Event {
        let next = runtime::timeout(Duration::from_secs(60), self.events.recv_async());
        next.await.expect("an event").unwrap()
    }
}

/// A command as long as a small publish, so that a dozen are more than one read.
fn command() -> Vec<u8> {
    frame(TEXT, &format!("{:>100}", "\nping\n"))
}

#[test]
fn client_with_a_dozen_commands_in_flight_is_slowed_down_and_never_closed() {
    runtime::block_on(async {
        let mut throttled = Throttled::start().await;
        let (command, mut commands) = (command(), 0);
        throttled
            .client
            .write_all(&command.repeat(12))
            .await
            .unwrap();
        // The burst, and then five times as long as a session may be over its rate.
        while commands < 2500 {
            let event = throttled.next().await;
            // The line of blanks before each ping is an error, which needs no dispatcher.
            assert!(is_ping(&event), "{event:?} after {commands}");
            commands += 1;
            throttled.client.write_all(&command).await.unwrap();
        }
    });
}

#[test]
fn client_whose_pages_cost_more_than_its_commands_is_never_closed() {
    runtime::block_on(async {
        let mut throttled = Throttled::start().await;
        let (command, started) = (command(), Instant::now());
        let limits = IngressLimits {
            commands: Rate::new(1000, 1),
            bytes: None,
            rate_timeout: Duration::from_millis(300),
            fragments: 1024,
            message_timeout: Duration::from_secs(20),
        };
        throttled
            .client
            .write_all(&command.repeat(60))
            .await
            .unwrap();
        for commands in 0..120 {
            let event = throttled.next().await;
            assert!(is_ping(&event), "{event:?} after {commands}");
            let now = started.elapsed().as_nanos() as u64;
            let charge = Charge {
                commands: 100,
                bytes: 0,
                now,
            };
            throttled.quota.charge(&limits, charge);
            throttled.client.write_all(&command).await.unwrap();
        }
    });
}

#[test]
fn client_that_does_not_adapt_is_closed_after_the_rate_timeout() {
    runtime::block_on(async {
        let throttled = Throttled::start().await;
        let (mut client, flood) = (throttled.client.clone(), command().repeat(100));
        // The reader ends it.
        runtime::spawn(async move { while client.write_all(&flood).await.is_ok() {} });
        let why = loop {
            if let Some(why) = end(&throttled.next().await) {
                break why;
            }
        };
        assert_eq!(why, Some(Disconnect::TooFast));
    });
}

#[test]
fn reader_takes_little_memory_per_connection() {
    type Run<F> =
        fn(Arc<Node>, SessionId, NativeDecoder, runtime::Socket, Vec<u8>, Outbox, Arc<Quota>) -> F;
    fn size<F>(_: Run<F>) -> usize {
        size_of::<F>()
    }
    let size = size(run);
    assert!(size <= 408, "{size}");
}
