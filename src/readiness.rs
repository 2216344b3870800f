//! Whether this node should be given new connections: two facts, shared by whoever finds them out (the broker, the
//! drain) and whoever is asked (`/readyz`, the handshake).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A cheap handle to the node's readiness; all clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Facts>);

#[derive(Debug, Default)]
struct Facts {
    broker: AtomicBool,
    draining: AtomicBool,
}

/// What `/readyz` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Redis does not answer, or what is published does not come back by the subscription.
    NoBroker,
    /// The node is stopping.
    Draining,
}

impl State {
    pub fn sentence(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::NoBroker => "this node cannot reach Redis; use another node or try again",
            State::Draining => "this node is stopping; use another node",
        }
    }
}

impl Readiness {
    /// The broker reaches everyone, or no longer does. Tells whether that is news.
    pub fn set_broker(&self, up: bool) -> bool {
        self.0.broker.swap(up, Ordering::Relaxed) != up
    }

    /// The node begins to drain; there is no way back.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    pub fn state(&self) -> State {
        if self.0.draining.load(Ordering::Relaxed) {
            State::Draining
        } else if self.0.broker.load(Ordering::Relaxed) {
            State::Ready
        } else {
            State::NoBroker
        }
    }
}
