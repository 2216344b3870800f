//! Test support: nodes in this process or as processes, clients, a Redis, nginx and browsers per
//! test, and waiting with a deadline.

pub mod backend;
pub mod bare_node;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod frames;
pub mod gate;
pub mod handshakes;
pub mod http;
pub mod nginx;
pub mod node;
pub mod process;
pub mod receiver;
pub mod recording_proxy;
pub mod redis_server;
pub mod refusals;
pub mod replica_pair;
pub mod returning;
pub mod slow_link;
pub mod tokens;

use std::future::Future;
use std::time::Duration;

pub use backend::Backend;
pub use client::TestClient;
pub use cluster::Cluster;
pub use node::TestNode;
pub use process::NodeProcess;
pub use returning::ReturningClient;
use switchboard::runtime;
pub use tokens::Issuer;

/// The deadline of everything that must happen. Long enough for a machine with ten times as much to
/// do; no test waits for it to pass.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The deadline of a whole test, in which several things must happen.
const TEST_DEADLINE: Duration = Duration::from_secs(300);

/// The polling interval for state that cannot be awaited.
pub const GLANCE: Duration = Duration::from_millis(5);

/// Runs a test's future on the runtime under test.
pub fn run(test: impl Future<Output = ()>) {
    let _ = runtime::raise_file_limit();
    let finished = runtime::block_on(runtime::timeout(TEST_DEADLINE, Box::pin(test)));
    assert!(
        finished.is_ok(),
        "the test did not end within {TEST_DEADLINE:?}"
    );
}

/// Returns the output of a future that must end in time; otherwise panics with `what`.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    // Boxed, because each function that takes a future by value doubles its size, and tests nest
    // deeply.
    match runtime::timeout(DEADLINE, Box::pin(future)).await {
        Ok(output) => output,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Polls until the condition holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let asking = async {
        while !holds() {
            runtime::sleep(GLANCE).await;
        }
    };
    within(what, asking).await;
}
