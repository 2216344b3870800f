//! The buckets of one session. Two tasks charge them: the reader for what the client sends, and the
//! dispatcher for the pages that it sends the client.

use std::time::Duration;

use super::{Bucket, IngressLimits};

/// See the head of this file. Times are nanoseconds of one clock for all sessions.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    commands: Bucket,
    bytes: Bucket,
}

impl Quota {
    /// Charges commands and bytes, and returns how long the session must not be read: zero, unless
    /// a bucket is in debt.
    pub(crate) fn charge(
        &self,
        limits: &IngressLimits,
        commands: u32,
        bytes: u32,
        now: u64,
    ) -> Duration {
        let take = |bucket: &Bucket, rate: &Option<_>, units| match rate {
            Some(rate) => bucket.take(rate, units, now),
            None => Duration::ZERO,
        };
        let commands = take(&self.commands, &limits.commands, commands);
        commands.max(take(&self.bytes, &limits.bytes, bytes))
    }
}
