//! The queue between the driver of the subscribing connection and its task. The driver must never
//! wait, so the queue is bounded and drops messages that do not fit; it keeps the names of their
//! topics, and the task reads them from [`PushQueue::lost`].

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redis::{PushInfo, PushKind, Value};

use super::liveness::LivenessSignal;

/// The most waiting messages.
const MAX_MESSAGES: usize = 65_536;

/// The most bytes in them: as many as Redis itself keeps for a slow subscriber by default.
const MAX_BYTES: usize = 32 << 20;

/// A push of Redis: a message, or the confirmation of a request.
#[derive(Debug)]
pub(super) enum RedisPush {
    Subscribed(Vec<u8>),
    Unsubscribed(Vec<u8>),
    Message { topic: Vec<u8>, message: Vec<u8> },
}

#[derive(Debug, Default)]
struct PushBacklog {
    bytes: AtomicUsize,
    /// Topics of messages that were dropped. At most as many as there are subscriptions.
    lost: Mutex<HashSet<Vec<u8>>>,
}

/// The driver's end.
#[derive(Debug)]
pub(super) struct PushSender {
    pushes: flume::Sender<RedisPush>,
    shared: Arc<PushBacklog>,
    /// The node's own topic. Its messages become signals here, so that a full queue does not delay
    /// probes.
    node_topic: Vec<u8>,
    signals: flume::Sender<LivenessSignal>,
}

/// The task's end.
#[derive(Debug)]
pub(super) struct PushQueue {
    pushes: flume::Receiver<RedisPush>,
    shared: Arc<PushBacklog>,
}

/// Makes the queue of a new connection.
pub(super) fn queue(
    node_topic: String,
    signals: flume::Sender<LivenessSignal>,
) -> (PushSender, PushQueue) {
    // Only messages count against the bounds: confirmations are as few as our requests, and none
    // may be lost.
    let (sender, receiver) = flume::unbounded();
    let shared = Arc::new(PushBacklog::default());
    let push_sender = PushSender {
        pushes: sender,
        shared: shared.clone(),
        node_topic: node_topic.into_bytes(),
        signals,
    };
    let pushes = PushQueue {
        pushes: receiver,
        shared,
    };
    (push_sender, pushes)
}

impl PushSender {
    /// Adds a push; never waits.
    pub(super) fn push(&self, info: PushInfo) {
        let mut data = info.data.into_iter();
        let (Some(Value::BulkString(topic)), second) = (data.next(), data.next()) else {
            return;
        };
        let push = match (info.kind, second) {
            (PushKind::Message, _) if topic == self.node_topic => {
                // An error means that the broker has ended.
                let _ = self.signals.send(LivenessSignal::ProbeReceived);
                return;
            }
            (PushKind::Message, Some(Value::BulkString(message))) => {
                if self.is_full(&message) {
                    self.shared.lost().insert(topic);
                    return;
                }
                RedisPush::Message { topic, message }
            }
            (PushKind::Subscribe, _) => RedisPush::Subscribed(topic),
            (PushKind::Unsubscribe, _) => RedisPush::Unsubscribed(topic),
            _ => return,
        };
        self.shared
            .bytes
            .fetch_add(weight(&push), Ordering::Relaxed);
        let _ = self.pushes.send(push);
    }

    fn is_full(&self, message: &[u8]) -> bool {
        self.pushes.len() >= MAX_MESSAGES
            || self.shared.bytes.load(Ordering::Relaxed) + message.len() > MAX_BYTES
    }
}

impl PushQueue {
    /// The next push. Pending for ever once the connection is gone and the queue is empty.
    pub(super) async fn next(&self) -> RedisPush {
        match self.pushes.recv_async().await {
            Ok(push) => self.taken(push),
            Err(flume::RecvError::Disconnected) => std::future::pending().await,
        }
    }

    /// The next push, if there is one.
    pub(super) fn try_next(&self) -> Option<RedisPush> {
        self.pushes.try_recv().ok().map(|push| self.taken(push))
    }

    /// The topics that have lost messages since the last call. Empty until the queue has room
    /// again, because they would only lose more. All lost messages arrived before this call.
    pub(super) fn lost(&self) -> HashSet<Vec<u8>> {
        let bytes = self.shared.bytes.load(Ordering::Relaxed);
        if self.pushes.len() > MAX_MESSAGES / 4 || bytes > MAX_BYTES / 4 {
            return HashSet::new();
        }
        std::mem::take(&mut *self.shared.lost())
    }

    fn taken(&self, push: RedisPush) -> RedisPush {
        self.shared
            .bytes
            .fetch_sub(weight(&push), Ordering::Relaxed);
        push
    }
}

impl PushBacklog {
    fn lost(&self) -> std::sync::MutexGuard<'_, HashSet<Vec<u8>>> {
        // No panic can leave the set inconsistent.
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(push: &RedisPush) -> usize {
    match push {
        RedisPush::Subscribed(topic) | RedisPush::Unsubscribed(topic) => topic.len(),
        RedisPush::Message { topic, message } => topic.len() + message.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, message: Vec<u8>) -> PushInfo {
        PushInfo {
            kind: PushKind::Message,
            data: vec![Value::BulkString(topic.into()), Value::BulkString(message)],
        }
    }

    #[test]
    fn message_that_does_not_fit_is_dropped_and_its_topic_reported_once_there_is_room() {
        let (signals, _received) = flume::unbounded();
        let (sender, pushes) = queue("node".into(), signals);
        sender.push(message("a", vec![0; MAX_BYTES - 10]));
        sender.push(message("b", vec![0; 100]));
        sender.push(message("b", vec![0; 100]));
        sender.push(PushInfo {
            kind: PushKind::Subscribe,
            data: vec![Value::BulkString("c".into()), Value::Int(1)],
        });
        assert!(pushes.lost().is_empty(), "there is no room yet");
        assert!(matches!(pushes.try_next(), Some(RedisPush::Message { .. })));
        assert!(matches!(pushes.try_next(), Some(RedisPush::Subscribed(_))));
        assert!(pushes.try_next().is_none());
        assert_eq!(pushes.lost(), HashSet::from([b"b".to_vec()]));
        assert!(pushes.lost().is_empty());
    }

    #[test]
    fn message_on_the_nodes_own_topic_is_a_signal_even_when_the_queue_is_full() {
        let (signals, received) = flume::unbounded();
        let (sender, pushes) = queue("node".into(), signals);
        sender.push(message("a", vec![0; MAX_BYTES - 10]));
        sender.push(message("node", b"1".to_vec()));
        assert!(matches!(
            received.try_recv(),
            Ok(LivenessSignal::ProbeReceived)
        ));
        assert!(matches!(pushes.try_next(), Some(RedisPush::Message { .. })));
        assert!(pushes.try_next().is_none());
    }
}
