//! Whether the lists of members in Redis are complete. After Redis has lost data, and until the
//! nodes have sent it again, they are partial; a comparison with an earlier list would report that
//! users have left who have not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that the shard sets and its task for reads reads; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PresenceSynced(Arc<AtomicBool>);

impl PresenceSynced {
    pub(crate) fn set(&self, is_synced: bool) {
        self.0.store(is_synced, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
