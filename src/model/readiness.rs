//! Whether this node should be given new connections: four facts, shared by whoever finds them out
//! (the broker, the dispatcher, the drain) and whoever is asked (`/readyz`, the handshake).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A cheap handle to the node's readiness; all clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Facts>);

#[derive(Debug, Default)]
struct Facts {
    broker: AtomicBool,
    behind: AtomicBool,
    unreadable: AtomicBool,
    draining: AtomicBool,
}

/// What `/readyz` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Redis does not answer, or what is published does not come back by the subscription.
    NoBroker,
    /// The node does not know yet whose tokens were revoked.
    Behind,
    /// A room's log or list is in a newer format than this node reads.
    Unreadable,
    /// The node is stopping.
    Draining,
}

impl State {
    pub fn sentence(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::NoBroker => "this node cannot reach Redis; use another node or try again",
            State::Behind => {
                "this node has not read yet whose tokens were revoked; use another node or try again"
            }
            State::Unreadable => {
                "a message in a room is in a newer format than this node reads; upgrade this node"
            }
            State::Draining => "this node is stopping; use another node",
        }
    }
}

impl Readiness {
    /// The broker reaches everyone, or no longer does. Tells whether that is news.
    pub fn set_broker(&self, up: bool) -> bool {
        self.0.broker.swap(up, Ordering::Relaxed) != up
    }

    /// The node must still read what the others know of tokens, or has read it.
    pub fn set_behind(&self, behind: bool) {
        self.0.behind.store(behind, Ordering::Relaxed);
    }

    /// Something that is needed is in a newer format, or nothing is any more. Returns whether that
    /// is news.
    pub fn set_unreadable(&self, unreadable: bool) -> bool {
        self.0.unreadable.swap(unreadable, Ordering::Relaxed) != unreadable
    }

    /// The node begins to drain; there is no way back.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    pub fn state(&self) -> State {
        if self.0.draining.load(Ordering::Relaxed) {
            State::Draining
        } else if !self.0.broker.load(Ordering::Relaxed) {
            State::NoBroker
        } else if self.0.behind.load(Ordering::Relaxed) {
            State::Behind
        } else if self.0.unreadable.load(Ordering::Relaxed) {
            State::Unreadable
        } else {
            State::Ready
        }
    }
}
