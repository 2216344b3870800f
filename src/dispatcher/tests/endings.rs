//! Connections that end, by themselves and in a drain.

use super::*;

#[test]
fn session_that_opens_during_the_drain_receives_bye() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.turn([Event::Drain(Duration::from_secs(10))]);
    let (outbox, reader) = outbox(
        OutboxLimits {
            bytes: OUTBOX,
            frames: 100,
        },
        || (),
    );
    bench.outboxes.insert(2, reader);
    let (session, protocol) = (SessionId(2), Protocol::Native);
    bench.turn([Event::Opened {
        session,
        protocol,
        identity: None,
        outbox,
    }]);
    let received: Vec<Value> = bench.received(2);
    assert_eq!(received[1]["type"], "bye", "{received:?}");
}

#[test]
fn connection_whose_writer_does_not_end_is_aborted() {
    let mut bench = Bench::new();
    let hung_up = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = hung_up.clone();
    let limits = OutboxLimits {
        bytes: OUTBOX,
        frames: 100,
    };
    let (outbox, _reader) = outbox(limits, move || {
        flag.store(true, std::sync::atomic::Ordering::Relaxed)
    });
    let (session, protocol) = (SessionId(1), Protocol::Native);
    bench.turn([Event::Opened {
        session,
        protocol,
        identity: None,
        outbox,
    }]);
    bench.turn([Event::Closed {
        session,
        close_reason: None,
    }]);
    bench.turn([Event::Tick]);
    assert!(!hung_up.load(std::sync::atomic::Ordering::Relaxed));
    bench.now.instant += Duration::from_secs(6);
    bench.turn([Event::Tick]);
    assert!(hung_up.load(std::sync::atomic::Ordering::Relaxed));
    assert!(bench.dispatcher.load().is_idle());
}
