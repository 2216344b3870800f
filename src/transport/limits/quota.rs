//! The buckets of one session. Two tasks charge them: the reader for what the client sends, and the
//! dispatcher for the pages that it sends the client. What is charged to a session is charged to
//! its user or address too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Bucket, IngressLimits, SharedQuota};

/// The buckets of commands and bytes. Times are nanoseconds of one clock for all sessions.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    commands: Bucket,
    bytes: Bucket,
}

impl Buckets {
    /// Charges commands and bytes at the rate of `sessions` sessions, and returns the time until
    /// no bucket is in debt.
    pub(super) fn charge(&self, limits: &IngressLimits, sessions: u32, what: Charge) -> Duration {
        let take = |bucket: &Bucket, rate: &Option<super::Rate>, units| match rate {
            Some(rate) => bucket.take(&rate.times(sessions), units, what.now),
            None => Duration::ZERO,
        };
        let commands = take(&self.commands, &limits.commands, what.commands);
        commands.max(take(&self.bytes, &limits.bytes, what.bytes))
    }

    /// When both will be full.
    pub(super) fn full_at(&self) -> u64 {
        self.commands.full_at().max(self.bytes.full_at())
    }
}

/// What a client has sent, or is sent, at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Charge {
    pub commands: u32,
    pub bytes: u32,
    pub now: u64,
}

/// How long a session must not be read: until no bucket is in debt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Debt {
    /// By its own buckets.
    pub own: Duration,
    /// By those of its user or address.
    pub shared: Duration,
}

impl Debt {
    pub(crate) fn wait(self) -> Duration {
        self.own.max(self.shared)
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    own: Buckets,
    /// That of the address until the client signs in, then that of the user; none in open mode. The
    /// lock is held for one access.
    shared: Mutex<Option<Arc<SharedQuota>>>,
}

impl Quota {
    pub(crate) fn new(shared: Option<Arc<SharedQuota>>) -> Self {
        Self {
            own: Buckets::default(),
            shared: Mutex::new(shared),
        }
    }

    /// Charges the session, and its user or address. Without commands and bytes it only returns the
    /// debt.
    pub(crate) fn charge(&self, limits: &IngressLimits, what: Charge) -> Debt {
        Debt {
            own: self.own.charge(limits, 1, what),
            shared: self.charge_shared(limits, what),
        }
    }

    /// Charges the user or address alone.
    pub(crate) fn charge_shared(&self, limits: &IngressLimits, what: Charge) -> Duration {
        let shared = self.shared();
        shared.map_or(Duration::ZERO, |shared| shared.charge(limits, what))
    }

    /// Sets the user or address.
    pub(crate) fn share(&self, shared: Arc<SharedQuota>) {
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(shared);
    }

    /// The buckets of the user or address.
    pub(crate) fn shared(&self) -> Option<Arc<SharedQuota>> {
        let shared = self.shared.lock();
        shared.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
