//! The queue between the driver of the subscribing connection and its task. The driver must never
//! wait, so the queue has a bound, and what does not fit is dropped; but the names of the topics
//! that lost something are kept, and whoever empties the queue learns them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redis::{PushInfo, PushKind, Value};

use super::liveness::Signal;

/// How many messages may wait.
const MAX_MESSAGES: usize = 65_536;

/// How many bytes they may hold: as many as Redis itself keeps for a slow subscriber by default.
const MAX_BYTES: usize = 32 << 20;

/// What Redis said without being asked.
#[derive(Debug)]
pub enum Push {
    Subscribed(Vec<u8>),
    Unsubscribed(Vec<u8>),
    Message { topic: Vec<u8>, message: Vec<u8> },
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    /// Topics of messages that were dropped. At most as many as there are subscriptions.
    lost: Mutex<HashSet<Vec<u8>>>,
}

/// The driver's end.
#[derive(Debug)]
pub struct PushSender {
    pushes: flume::Sender<Push>,
    shared: Arc<Shared>,
    /// The node's own topic: its messages end here, as a sign of life that no full queue delays.
    node_topic: Vec<u8>,
    signals: flume::Sender<Signal>,
}

/// The task's end.
#[derive(Debug)]
pub struct PushQueue {
    pushes: flume::Receiver<Push>,
    shared: Arc<Shared>,
}

/// A new queue, for a new connection.
pub fn queue(node_topic: String, signals: flume::Sender<Signal>) -> (PushSender, PushQueue) {
    // Only messages are counted against the bounds: confirmations are as few as our requests, and
    // none may be lost.
    let (sender, receiver) = flume::unbounded();
    let shared = Arc::new(Shared::default());
    let inlet = PushSender {
        pushes: sender,
        shared: shared.clone(),
        node_topic: node_topic.into_bytes(),
        signals,
    };
    let pushes = PushQueue {
        pushes: receiver,
        shared,
    };
    (inlet, pushes)
}

impl PushSender {
    /// Takes what came; never waits.
    pub fn take(&self, info: PushInfo) {
        let mut data = info.data.into_iter();
        let (Some(Value::BulkString(topic)), second) = (data.next(), data.next()) else {
            return;
        };
        let push = match (info.kind, second) {
            (PushKind::Message, _) if topic == self.node_topic => {
                // It fails when the broker has ended; then nobody wants to know.
                let _ = self.signals.send(Signal::Heard);
                return;
            }
            (PushKind::Message, Some(Value::BulkString(message))) => {
                if self.is_full(&message) {
                    self.shared.lost().insert(topic);
                    return;
                }
                Push::Message { topic, message }
            }
            (PushKind::Subscribe, _) => Push::Subscribed(topic),
            (PushKind::Unsubscribe, _) => Push::Unsubscribed(topic),
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
    /// What came next; never, once the connection is gone and the queue is empty.
    pub async fn next(&self) -> Push {
        match self.pushes.recv_async().await {
            Ok(push) => self.taken(push),
            Err(flume::RecvError::Disconnected) => std::future::pending().await,
        }
    }

    /// What is there already.
    pub fn try_next(&self) -> Option<Push> {
        self.pushes.try_recv().ok().map(|push| self.taken(push))
    }

    /// The topics that have lost messages since the last call, as soon as the queue has room again
    /// (before, they would only lose more). Everything they lost came before this call.
    pub fn lost(&self) -> HashSet<Vec<u8>> {
        let bytes = self.shared.bytes.load(Ordering::Relaxed);
        if self.pushes.len() > MAX_MESSAGES / 4 || bytes > MAX_BYTES / 4 {
            return HashSet::new();
        }
        std::mem::take(&mut *self.shared.lost())
    }

    fn taken(&self, push: Push) -> Push {
        self.shared
            .bytes
            .fetch_sub(weight(&push), Ordering::Relaxed);
        push
    }
}

impl Shared {
    fn lost(&self) -> std::sync::MutexGuard<'_, HashSet<Vec<u8>>> {
        // A set is whole at every moment, whoever panicked.
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(push: &Push) -> usize {
    match push {
        Push::Subscribed(topic) | Push::Unsubscribed(topic) => topic.len(),
        Push::Message { topic, message } => topic.len() + message.len(),
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
    fn what_does_not_fit_is_dropped_and_its_topic_named_once_there_is_room() {
        let (signals, _heard) = flume::unbounded();
        let (inlet, pushes) = queue("node".into(), signals);
        inlet.take(message("a", vec![0; MAX_BYTES - 10]));
        inlet.take(message("b", vec![0; 100]));
        inlet.take(message("b", vec![0; 100]));
        inlet.take(PushInfo {
            kind: PushKind::Subscribe,
            data: vec![Value::BulkString("c".into()), Value::Int(1)],
        });
        assert!(pushes.lost().is_empty(), "there is no room yet");
        assert!(matches!(pushes.try_next(), Some(Push::Message { .. })));
        assert!(matches!(pushes.try_next(), Some(Push::Subscribed(_))));
        assert!(pushes.try_next().is_none());
        assert_eq!(pushes.lost(), HashSet::from([b"b".to_vec()]));
        assert!(pushes.lost().is_empty());
    }

    #[test]
    fn the_nodes_own_topic_is_a_signal_even_when_the_queue_is_full() {
        let (signals, received_at) = flume::unbounded();
        let (inlet, pushes) = queue("node".into(), signals);
        inlet.take(message("a", vec![0; MAX_BYTES - 10]));
        inlet.take(message("node", b"1".to_vec()));
        assert!(matches!(received_at.try_recv(), Ok(Signal::Heard)));
        assert!(matches!(pushes.try_next(), Some(Push::Message { .. })));
        assert!(pushes.try_next().is_none());
    }
}
