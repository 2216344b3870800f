//! Whether this node accepts new connections: flags and problems that the broker, the dispatcher
//! and the drain set, and that `/readyz` and the handshake read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A cheap handle to the node's readiness; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    broker: AtomicBool,
    stalled: AtomicBool,
    behind: AtomicBool,
    unreadable: AtomicBool,
    draining: AtomicBool,
    /// What an operator must change before the node can use its Redis: sentences by who found
    /// them.
    problems: Mutex<BTreeMap<&'static str, String>>,
    /// What does not work although the node is ready.
    limitation: Mutex<Option<String>>,
}

/// The answer of `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadinessState {
    Ready,
    /// Redis does not answer, or probes do not come back by the subscription.
    NoBroker,
    /// Redis answers no reads, so no join of a new room can be answered.
    Stalled,
    /// The node has not read the revocations yet.
    Behind,
    /// A room's log or list is in a newer format than this node reads.
    Unreadable,
    /// Redis answers, but the node cannot use it: an operator must change something.
    Unusable,
    /// The node is stopping.
    Draining,
}

impl ReadinessState {
    pub fn sentence(self) -> &'static str {
        match self {
            ReadinessState::Ready => "ready",
            ReadinessState::NoBroker => {
                "this node cannot reach Redis; use another node or try again"
            }
            ReadinessState::Stalled => {
                "this node gets no answers to its reads from Redis; use another node or try again"
            }
            ReadinessState::Behind => {
                "this node has not read yet whose tokens were revoked; \
                 use another node or try again"
            }
            ReadinessState::Unreadable => {
                "a message in a room is in a newer format than this node reads; upgrade this node"
            }
            ReadinessState::Unusable => {
                "this node cannot use its Redis; use another node or try again"
            }
            ReadinessState::Draining => "this node is stopping; use another node",
        }
    }
}

impl Readiness {
    /// Sets whether the broker reaches the cluster. Returns whether that has changed.
    pub fn set_broker(&self, up: bool) -> bool {
        self.0.broker.swap(up, Ordering::Relaxed) != up
    }

    /// Sets whether the broker's reads do not move. Returns whether that has changed.
    pub fn set_stalled(&self, stalled: bool) -> bool {
        self.0.stalled.swap(stalled, Ordering::Relaxed) != stalled
    }

    /// Sets whether the node must still read the revocations.
    pub fn set_behind(&self, behind: bool) {
        self.0.behind.store(behind, Ordering::Relaxed);
    }

    /// Sets whether a needed message is in a newer format. Returns whether that has changed.
    pub fn set_unreadable(&self, unreadable: bool) -> bool {
        self.0.unreadable.swap(unreadable, Ordering::Relaxed) != unreadable
    }

    /// Sets what `source` has found that an operator must change; `None`: nothing. Returns whether
    /// that has changed.
    pub fn set_problem(&self, source: &'static str, problem: Option<String>) -> bool {
        let mut problems = self.problems();
        let former = match problem.clone() {
            Some(problem) => problems.insert(source, problem),
            None => problems.remove(source),
        };
        former != problem
    }

    /// Sets what does not work although the node is ready. Returns whether that has changed.
    pub fn set_limitation(&self, limitation: Option<String>) -> bool {
        let mut present = self.limited();
        let is_new = *present != limitation;
        *present = limitation;
        is_new
    }

    /// What does not work although the node is ready.
    pub fn limitation(&self) -> Option<String> {
        self.limited().clone()
    }

    fn limited(&self) -> MutexGuard<'_, Option<String>> {
        let limitation = self.0.limitation.lock();
        limitation.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `source` has found a problem.
    pub fn has_problem(&self, source: &str) -> bool {
        self.problems().contains_key(source)
    }

    fn problems(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        let problems = self.0.problems.lock();
        problems.unwrap_or_else(PoisonError::into_inner)
    }

    /// The reason for operators why the node is not ready. Clients receive only
    /// [`ReadinessState::sentence`].
    pub fn reason(&self) -> Cow<'static, str> {
        let state = self.state();
        if state != ReadinessState::Unusable {
            return state.sentence().into();
        }
        let mut sentences: Vec<String> = self.problems().values().cloned().collect();
        // Several connections find the same.
        sentences.sort_unstable();
        sentences.dedup();
        sentences.join("; ").into()
    }

    /// The node begins to drain; this is final.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    pub fn state(&self) -> ReadinessState {
        if self.0.draining.load(Ordering::Relaxed) {
            ReadinessState::Draining
        } else if !self.problems().is_empty() {
            ReadinessState::Unusable
        } else if !self.0.broker.load(Ordering::Relaxed) {
            ReadinessState::NoBroker
        } else if self.0.stalled.load(Ordering::Relaxed) {
            ReadinessState::Stalled
        } else if self.0.behind.load(Ordering::Relaxed) {
            ReadinessState::Behind
        } else if self.0.unreadable.load(Ordering::Relaxed) {
            ReadinessState::Unreadable
        } else {
            ReadinessState::Ready
        }
    }
}
