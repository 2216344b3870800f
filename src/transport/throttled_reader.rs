//! The socket as a session reads it: bytes and commands are counted against the limits of the
//! session, and a session that is over its rate is not read until a pause is over.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::{Node, READS_IN_A_ROW, SharedSocket};
use crate::outbox::Outbox;
use crate::protocol::disconnect::Disconnect;
use crate::runtime;
use crate::transport::limits::{Charge, IngressAction, IngressMeter, Quota};

/// The least number of bytes that one read counts as: many small reads cost the node more than a
/// few large ones.
const MIN_READ: u16 = 64;

/// What reading a session needs of the connection.
pub(super) struct ReadContext<'a> {
    pub(super) node: &'a Node,
    /// Notes the time of every read: a long message may take longer than a ping, and its sender is
    /// not silent.
    pub(super) outbox: &'a Outbox,
    pub(super) quota: &'a Quota,
}

pub(super) struct ThrottledReader<'a, S> {
    context: &'a ReadContext<'a>,
    socket: S,
    meter: IngressMeter,
    /// Bytes read, and commands decoded from them, since the session was last charged. One read
    /// returns at most a kilobyte.
    bytes: u16,
    commands: u16,
    /// The pause of a session that is over its rate. Boxed, because it is rare.
    pause: Option<Box<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    verdict: Option<Disconnect>,
    reads: u8,
}

impl<'a, S: SharedSocket> ThrottledReader<'a, S> {
    /// `rest` was read before, behind the request head, and is counted here.
    pub(super) fn new(context: &'a ReadContext<'a>, socket: S, rest: &[u8]) -> Self {
        let mut stream = Self {
            context,
            socket,
            meter: IngressMeter::default(),
            bytes: 0,
            commands: 0,
            pause: None,
            verdict: None,
            reads: 0,
        };
        if !rest.is_empty() {
            stream.follow(rest);
        }
        stream
    }

    /// Charges the last read, and the commands decoded from it: before they are carried out, so
    /// that no other session of the user or address is read for the same tokens.
    pub(super) fn charge(&mut self, commands: u32) {
        let commands = u16::try_from(commands).unwrap_or(u16::MAX);
        self.commands = self.commands.saturating_add(commands);
        if self.pause.is_none() {
            self.settle();
        }
    }

    /// The limit that ended the stream, if one did.
    pub(super) fn verdict(&self) -> Option<Disconnect> {
        self.verdict
    }

    /// Whether a message or a control frame has begun and not ended.
    pub(super) fn is_under_way(&self) -> bool {
        self.meter.is_under_way()
    }

    fn follow(&mut self, bytes: &[u8]) {
        let read = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.bytes = self.bytes.saturating_add(read.max(MIN_READ));
        let limits = &self.context.node.limits.ingress;
        let found = self.meter.follow(limits, bytes);
        self.verdict = self.verdict.or(found);
    }

    /// Charges the bytes and commands since the last charge, and starts the pause that the debt
    /// requires, if any.
    fn settle(&mut self) {
        let ReadContext { node, quota, .. } = self.context;
        let charge = Charge {
            commands: std::mem::take(&mut self.commands).into(),
            bytes: std::mem::take(&mut self.bytes).into(),
            now: node.now(),
        };
        let (limits, socket) = (&node.limits.ingress, &self.socket);
        let debt = quota.charge(limits, charge);
        match (self.meter).step(limits, debt, charge.now, || socket.has_backlog()) {
            IngressAction::Go => {}
            IngressAction::Pause(time) => self.pause(time),
            IngressAction::End(why) => self.verdict = self.verdict.or(Some(why)),
        }
    }

    fn pause(&mut self, time: Duration) {
        self.context.node.metrics.paused_total.add(1);
        self.context.outbox.note_paused(true);
        self.pause = Some(Box::new(Box::pin(runtime::sleep(time))));
    }

    /// Ready when the session may be read: when nothing is in debt any more, or a limit has ended
    /// the stream. During a pause others may have charged the same user or address.
    pub(super) fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().as_mut().poll(cx));
                self.pause = None;
                self.context.outbox.note_paused(false);
            }
            self.settle();
            if self.pause.is_none() {
                return Poll::Ready(());
            }
        }
    }

    /// Reads, when the session may be read. An error means that a limit or the connection has ended
    /// the stream.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_allowed(cx));
        if self.verdict.is_some() {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        if self.reads == READS_IN_A_ROW {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if let Poll::Ready(Ok(read @ 1..)) = polled {
            self.context.outbox.note_received();
            self.reads += 1;
            self.follow(&buffer[..read]);
        }
        // A read that does not fill the buffer has emptied the socket.
        if !matches!(polled, Poll::Ready(Ok(read)) if read == buffer.len()) {
            self.reads = 0;
            self.meter.caught_up();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_take_little_memory_per_connection() {
        // Without limits it would be a socket, a vector and a reference to the outbox.
        let before = size_of::<(runtime::Socket, Vec<u8>, &())>();
        let now = size_of::<ThrottledReader<'_, runtime::Socket>>();
        assert!(now <= before + 48, "{before} bytes became {now}");
    }
}
