//! The socket as a session reads it: what comes is counted against the limits of the session, and a
//! session that is over its rate is not read until it has waited.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::reader::Reader;
use super::{READS_IN_A_ROW, Socket};
use crate::protocol::disconnect::Disconnect;
use crate::runtime;
use crate::transport::limits::{IngressMeter, Verdict};

/// Bytes that one read counts as at least: many small pieces cost the node more than a few large
/// ones.
const LEAST_READ: u16 = 64;

pub(super) struct ThrottledReader<'a, S> {
    /// Its outbox is told of every byte: a long message may take longer than a ping.
    reader: &'a Reader<'a>,
    socket: S,
    intake: IngressMeter,
    /// Read, and found in it, since the session was last charged. One read brings a kilobyte.
    bytes: u16,
    commands: u16,
    /// The session is over its rate; this is when it is read again. Boxed, because it is rare.
    pause: Option<Box<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    verdict: Option<Disconnect>,
    reads: u8,
}

impl<'a, S: Socket> ThrottledReader<'a, S> {
    /// `rest` was read before, and is not seen here otherwise.
    pub(super) fn new(reader: &'a Reader<'a>, socket: S, rest: &[u8]) -> Self {
        let mut tap = Self {
            reader,
            socket,
            intake: IngressMeter::default(),
            bytes: 0,
            commands: 0,
            pause: None,
            verdict: None,
            reads: 0,
        };
        if !rest.is_empty() {
            tap.follow(rest);
        }
        tap
    }

    /// What was just read holds so many commands more. They are paid for before the next read.
    pub(super) fn charge(&mut self, commands: u32) {
        let commands = u16::try_from(commands).unwrap_or(u16::MAX);
        self.commands = self.commands.saturating_add(commands);
    }

    /// The limit that ended the stream, if one did.
    pub(super) fn verdict(&self) -> Option<Disconnect> {
        self.verdict
    }

    /// Whether a message or a control frame has begun and not ended.
    pub(super) fn is_under_way(&self) -> bool {
        self.intake.is_under_way()
    }

    fn follow(&mut self, bytes: &[u8]) {
        let read = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.bytes = self.bytes.saturating_add(read.max(LEAST_READ));
        let limits = &self.reader.node.limits.intake;
        let found = self.intake.follow(limits, bytes);
        self.verdict = self.verdict.or(found);
    }

    /// Charges what was read, if anything was, and sets the pause that follows from it.
    fn settle(&mut self) {
        if self.bytes == 0 && self.commands == 0 {
            return;
        }
        let (commands, bytes) = (
            std::mem::take(&mut self.commands),
            std::mem::take(&mut self.bytes),
        );
        let node = self.reader.node;
        let now = node.started.elapsed().as_nanos() as u64;
        let limits = &node.limits.intake;
        match self
            .intake
            .charge(limits, commands.into(), bytes.into(), now)
        {
            Verdict::Go => {}
            Verdict::Pause(time) => self.pause(time),
            Verdict::End(why) => self.verdict = self.verdict.or(Some(why)),
        }
    }

    fn pause(&mut self, time: Duration) {
        self.reader.node.metrics.paused_total.add(1);
        self.reader.outbox.note_paused(true);
        self.pause = Some(Box::new(Box::pin(runtime::sleep(time))));
    }

    /// Ready when the session may be read.
    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().as_mut().poll(cx));
            self.pause = None;
            self.reader.outbox.note_paused(false);
        }
        if self.reads == READS_IN_A_ROW {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Reads what has come, when the session may be read. An error tells that a limit or the
    /// connection has ended it.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.settle();
        if self.verdict.is_some() {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        ready!(self.poll_allowed(cx));
        let looked = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if let Poll::Ready(Ok(read @ 1..)) = looked {
            self.reader.outbox.note_heard();
            self.reads += 1;
            self.follow(&buffer[..read]);
        }
        // What fills less than the buffer was all there was.
        if !matches!(looked, Poll::Ready(Ok(read)) if read == buffer.len()) {
            self.reads = 0;
            self.intake.caught_up();
        }
        looked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_connection_has_for_its_limits_is_small() {
        // Without limits it was a socket, a vector and the outbox.
        let before = size_of::<(runtime::Socket, Vec<u8>, &())>();
        let now = size_of::<ThrottledReader<'_, runtime::Socket>>();
        assert!(now <= before + 48, "{before} bytes became {now}");
    }
}
