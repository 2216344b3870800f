//! What the dispatcher keeps of a connection: its outbox, the bounded queue of frames that its writer drains, and
//! the wheel that tells when each session is due a ping. No socket is known here; hanging up is a function that
//! the connection gives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::disconnect::Disconnect;
use crate::id::SessionId;
use crate::protocol::frame;

/// What became of frames offered to an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    Queued,
    /// The bound is or was reached: the session is to be disconnected as slow, once the present work is done. From now on
    /// nothing fits, so that no client sees what comes behind a hole.
    Full,
    /// The writer has ended; the session's `Closed` is on its way.
    Gone,
}

/// How much may wait in one outbox.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    pub bytes: usize,
    /// Queued buffers; each holds one frame or more.
    pub frames: usize,
}

/// The dispatcher's and the reader's end of a connection's queue to its writer.
///
/// Clones share the queue. It ends with [`end`](Outbox::end), or when all clones are dropped; either way the
/// writer first writes what was queued before.
#[derive(Clone)]
pub struct Outbox {
    queue: flume::Sender<Chunk>,
    gauge: Arc<Gauge>,
}

/// The writer's end.
pub struct OutboxReader {
    queue: flume::Receiver<Chunk>,
    gauge: Arc<Gauge>,
}

/// What a writer takes from its outbox.
#[derive(Debug)]
pub enum Chunk {
    /// Whole frames, to be written as they are.
    Frames(Bytes),
    /// The last frame of the connection: a close frame, or nothing when the client has closed.
    End(Bytes),
}

/// What both ends of an outbox and the connection's reader share.
struct Gauge {
    /// What is queued and not yet written: frames above bit 40, bytes below, so that one addition counts both.
    waiting: AtomicU64,
    limits: OutboxLimits,
    /// The dispatcher wants to hear when the queue has been written.
    drained_wanted: AtomicBool,
    /// Give up what is queued: only the close frame still matters.
    discard: AtomicBool,
    /// The reader got bytes since the last ping.
    heard: AtomicBool,
    /// The reader reads nothing at present, for reasons of its own.
    paused: AtomicBool,
    /// The writer wrote something since the last ping.
    progressed: AtomicBool,
    /// Ends the connection from outside, whatever its tasks wait for.
    hang_up: Box<dyn Fn() + Send + Sync>,
}

const FRAME: u64 = 1 << 40;

/// Added to what waits once the bound was reached: more than any bound.
const OVERFLOWN: u64 = 1 << 63;

/// Makes the two ends of an outbox. `hang_up` must end both directions of the socket without waiting.
pub fn outbox(
    limits: OutboxLimits,
    hang_up: impl Fn() + Send + Sync + 'static,
) -> (Outbox, OutboxReader) {
    // The queue's bound is kept by the gauge, in bytes and in frames, so that the close frame always fits.
    let (sender, receiver) = flume::unbounded();
    let gauge = Arc::new(Gauge {
        waiting: AtomicU64::new(0),
        limits,
        drained_wanted: AtomicBool::new(false),
        discard: AtomicBool::new(false),
        heard: AtomicBool::new(false),
        paused: AtomicBool::new(false),
        progressed: AtomicBool::new(false),
        hang_up: Box::new(hang_up),
    });
    (
        Outbox {
            queue: sender,
            gauge: gauge.clone(),
        },
        OutboxReader {
            queue: receiver,
            gauge,
        },
    )
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// Queues whole frames, without waiting.
    pub fn offer(&self, frames: Bytes) -> Offer {
        let size = FRAME + frames.len() as u64;
        let waiting = self.gauge.waiting.fetch_add(size, Ordering::Relaxed) + size;
        if waiting % FRAME > self.gauge.limits.bytes as u64
            || waiting / FRAME > self.gauge.limits.frames as u64
        {
            self.gauge.waiting.fetch_sub(size, Ordering::Relaxed);
            self.gauge.waiting.fetch_or(OVERFLOWN, Ordering::Relaxed);
            return Offer::Full;
        }
        match self.queue.send(Chunk::Frames(frames)) {
            Ok(()) => Offer::Queued,
            Err(_) => Offer::Gone,
        }
    }

    /// Queues the close frame behind everything else, or instead of it, and ends the queue.
    pub fn end(&self, why: Disconnect) {
        self.gauge
            .discard
            .store(why.discards_outbox(), Ordering::Release);
        // A writer that has ended already needs no farewell.
        let _ = self.queue.send(Chunk::End(frame::close(why)));
    }

    /// Ends the queue behind what waits, without a farewell: the client has closed.
    pub fn finish(&self) {
        // A writer that has ended already is what is wanted.
        let _ = self.queue.send(Chunk::End(Bytes::new()));
    }

    /// Whether the connection has ended: its reader and its writer hold the outbox no more, and this is the last handle.
    pub fn is_last(&self) -> bool {
        Arc::strong_count(&self.gauge) == 1
    }

    /// Asks the writer to tell when all that is queued from now on has been written.
    pub fn want_drained(&self) {
        // Whoever asks looks at `waiting` next, while the writer counts down first and then looks here: one of the two must
        // see the other.
        self.gauge.drained_wanted.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Bytes that are queued and not yet written.
    pub fn waiting(&self) -> u64 {
        self.gauge.waiting.load(Ordering::Relaxed) % FRAME
    }

    /// The reader got something from the client.
    pub fn note_heard(&self) {
        self.gauge.heard.store(true, Ordering::Relaxed);
    }

    /// The reader does not listen for a while, or listens again: until then nobody can tell whether the client is silent.
    pub fn note_paused(&self, paused: bool) {
        self.gauge.paused.store(paused, Ordering::Relaxed);
        self.note_heard();
    }

    /// Begins to look for signs of life: a ping is on its way.
    pub fn expect_life(&self) {
        self.gauge.heard.store(false, Ordering::Relaxed);
        self.gauge.progressed.store(false, Ordering::Relaxed);
    }

    /// Whether the client was heard since, or was not listened to, or may not have got the ping yet, because it stands behind what the client is
    /// taking bit by bit.
    pub fn shows_life(&self) -> bool {
        let reads = || self.waiting() > 0 && self.gauge.progressed.load(Ordering::Relaxed);
        let paused = || self.gauge.paused.load(Ordering::Relaxed);
        self.gauge.heard.load(Ordering::Relaxed) || reads() || paused()
    }

    /// Ends the connection at once, without a close frame.
    pub fn hang_up(&self) {
        (self.gauge.hang_up)();
    }
}

impl OutboxReader {
    /// Waits for the next chunk; `None` when the outbox was dropped without a farewell.
    pub async fn recv(&self) -> Option<Chunk> {
        self.queue.recv_async().await.ok()
    }

    /// The next chunk, if there is one already.
    pub fn try_recv(&self) -> Option<Chunk> {
        self.queue.try_recv().ok()
    }

    /// These bytes in so many chunks are written.
    pub fn written(&self, bytes: usize, chunks: usize) {
        let size = FRAME * chunks as u64 + bytes as u64;
        self.gauge.waiting.fetch_sub(size, Ordering::Relaxed);
        self.gauge.progressed.store(true, Ordering::Relaxed);
    }

    /// Whether the dispatcher waits to hear that the queue is written; asked when it is.
    pub fn take_drained_wanted(&self) -> bool {
        std::sync::atomic::fence(Ordering::SeqCst);
        // The plain look spares the usual case a write to shared memory.
        self.gauge.drained_wanted.load(Ordering::Acquire)
            && self.gauge.drained_wanted.swap(false, Ordering::AcqRel)
    }

    pub fn discards(&self) -> bool {
        self.gauge.discard.load(Ordering::Acquire)
    }

    pub fn hang_up(&self) {
        (self.gauge.hang_up)();
    }
}

/// Says which sessions are due a ping and which have let one pass: a wheel of slots that turns once per heartbeat,
/// so that ten thousand sessions need no timer of their own.
///
/// A session is pinged once per turn, at its slot, and must have been heard `pong_timeout` later.
#[derive(Debug)]
pub struct Heartbeats {
    slots: Vec<Vec<SessionId>>,
    /// The slot that is pinged next, and when.
    next: usize,
    due: Instant,
    step: Duration,
    /// Slots that were pinged and are to be judged, oldest first.
    judged: VecDeque<(Instant, usize)>,
    pong_timeout: Duration,
    /// Where the next newcomer is put: sessions are dealt evenly.
    deal: usize,
}

/// What is due at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    Ping(SessionId),
    /// A ping was sent `pong_timeout` ago: whoever was not heard since is gone.
    Judge(SessionId),
}

impl Heartbeats {
    /// Slots of a turn: with a heartbeat of 25 s, one a second.
    const SLOTS: usize = 25;

    pub fn new(now: Instant, heartbeat: Duration, pong_timeout: Duration) -> Self {
        let step = (heartbeat / Self::SLOTS as u32).max(Duration::from_millis(1));
        Self {
            slots: vec![Vec::new(); Self::SLOTS],
            next: 0,
            due: now + step,
            step,
            judged: VecDeque::new(),
            pong_timeout,
            deal: 0,
        }
    }

    /// Takes a session in; its first ping comes within one heartbeat. The slot is needed to remove it.
    pub fn add(&mut self, session: SessionId) -> usize {
        let slot = self.deal;
        self.deal = (self.deal + 1) % Self::SLOTS;
        self.slots[slot].push(session);
        slot
    }

    pub fn remove(&mut self, session: SessionId, slot: usize) {
        let sessions = &mut self.slots[slot];
        if let Some(index) = sessions.iter().position(|other| *other == session) {
            sessions.swap_remove(index);
            if sessions.capacity() > 4 * sessions.len() + 16 {
                sessions.shrink_to(2 * sessions.len());
            }
        }
    }

    /// Puts out what has become due up to `now`.
    pub fn advance(&mut self, now: Instant, beats: &mut Vec<Beat>) {
        while let Some((when, slot)) = self.judged.front().copied()
            && when <= now
        {
            self.judged.pop_front();
            beats.extend(self.slots[slot].iter().map(|session| Beat::Judge(*session)));
        }
        // After a pause of the whole process no more than one turn is made up for.
        let turn = self.step * Self::SLOTS as u32;
        self.due = self.due.max(now.checked_sub(turn).unwrap_or(now));
        while self.due <= now {
            beats.extend(
                self.slots[self.next]
                    .iter()
                    .map(|session| Beat::Ping(*session)),
            );
            self.judged.push_back((now + self.pong_timeout, self.next));
            self.next = (self.next + 1) % Self::SLOTS;
            self.due += self.step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits {
        bytes: 100,
        frames: 3,
    };

    #[test]
    fn an_outbox_is_bounded_by_bytes_and_by_frames_and_the_farewell_still_fits() {
        let (by_bytes, reader) = outbox(LIMITS, || ());
        assert_eq!(by_bytes.offer(Bytes::from(vec![0; 100])), Offer::Queued);
        assert!(matches!(reader.try_recv(), Some(Chunk::Frames(_))));
        reader.written(100, 1);
        assert_eq!(by_bytes.offer(Bytes::from(vec![0; 100])), Offer::Queued);
        assert_eq!(by_bytes.offer(Bytes::from(vec![0; 1])), Offer::Full);
        let (by_frames, reader) = outbox(LIMITS, || ());
        for _ in 0..3 {
            assert_eq!(by_frames.offer(Bytes::from_static(b"x")), Offer::Queued);
        }
        assert_eq!(by_frames.offer(Bytes::from_static(b"x")), Offer::Full);
        assert_eq!(by_frames.waiting(), 3);
        by_frames.end(Disconnect::Slow);
        assert!(reader.discards());
        drop(reader);
        assert_eq!(by_frames.offer(Bytes::new()), Offer::Full);
    }

    #[test]
    fn nothing_fits_behind_what_did_not_fit() {
        let (outbox, reader) = outbox(LIMITS, || ());
        assert_eq!(outbox.offer(Bytes::from(vec![0; 90])), Offer::Queued);
        assert_eq!(outbox.offer(Bytes::from(vec![0; 90])), Offer::Full);
        reader.written(90, 1);
        assert_eq!(outbox.offer(Bytes::from_static(b"x")), Offer::Full);
        assert_eq!(outbox.waiting(), 0);
    }

    #[test]
    fn who_takes_what_lies_before_the_ping_is_alive_and_who_takes_nothing_is_not() {
        let (outbox, reader) = outbox(LIMITS, || ());
        outbox.expect_life();
        assert!(!outbox.shows_life());
        outbox.note_heard();
        assert!(outbox.shows_life());
        outbox.offer(Bytes::from_static(b"before"));
        outbox.expect_life();
        outbox.offer(Bytes::from_static(b"ping"));
        assert!(!outbox.shows_life(), "nothing was written");
        reader.written(6, 1);
        assert!(outbox.shows_life(), "it may not have got the ping yet");
        reader.written(4, 1);
        assert!(!outbox.shows_life(), "it got the ping and did not answer");
    }

    #[test]
    fn who_is_not_listened_to_is_not_silent() {
        let (outbox, _reader) = outbox(LIMITS, || ());
        outbox.note_paused(true);
        outbox.expect_life();
        assert!(outbox.shows_life());
        outbox.note_paused(false);
        assert!(outbox.shows_life(), "it may have answered meanwhile");
        outbox.expect_life();
        assert!(!outbox.shows_life());
    }

    #[test]
    fn offers_to_a_writer_that_has_ended_are_gone() {
        let (outbox, reader) = outbox(LIMITS, || ());
        drop(reader);
        assert_eq!(outbox.offer(Bytes::from_static(b"x")), Offer::Gone);
    }

    #[test]
    fn each_session_is_pinged_once_a_heartbeat_and_judged_after_the_pong_timeout() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut wheel = Heartbeats::new(start, 25 * second, 10 * second);
        let slots: Vec<usize> = (0..50).map(|n| wheel.add(SessionId(n))).collect();
        wheel.remove(SessionId(0), slots[0]);
        let mut pinged = vec![Vec::new(); 50];
        let mut judged = vec![Vec::new(); 50];
        for tick in 1..=100 {
            let mut beats = Vec::new();
            wheel.advance(start + tick * second, &mut beats);
            for beat in beats {
                match beat {
                    Beat::Ping(session) => pinged[session.0 as usize].push(tick),
                    Beat::Judge(session) => judged[session.0 as usize].push(tick),
                }
            }
        }
        assert!(pinged[0].is_empty() && judged[0].is_empty());
        for session in 1..50 {
            assert_eq!(pinged[session].len(), 4);
            assert!(
                pinged[session]
                    .windows(2)
                    .all(|pair| pair[1] - pair[0] == 25)
            );
            assert!(
                judged[session]
                    .iter()
                    .zip(&pinged[session])
                    .all(|(judge, ping)| judge - ping == 10)
            );
        }
    }

    #[test]
    fn a_frozen_process_does_not_make_up_for_every_missed_ping() {
        let start = Instant::now();
        let mut wheel = Heartbeats::new(start, Duration::from_secs(25), Duration::from_secs(10));
        wheel.add(SessionId(1));
        let mut beats = Vec::new();
        wheel.advance(start + Duration::from_secs(3600), &mut beats);
        assert!(
            beats
                .iter()
                .filter(|beat| matches!(beat, Beat::Ping(_)))
                .count()
                <= 2,
            "{beats:?}"
        );
    }
}
