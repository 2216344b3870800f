//! Whether what Redis says of the members of rooms can be believed. After it has lost something,
//! and until the nodes have said it again, its lists are only a part; whoever compared them with
//! what they were would tell that users have left who have not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by the publishing task, asked by the reading one; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct PresenceSynced(Arc<AtomicBool>);

impl PresenceSynced {
    pub fn set(&self, trusted: bool) {
        self.0.store(trusted, Ordering::SeqCst);
    }

    pub fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
