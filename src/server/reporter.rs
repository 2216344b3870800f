//! Sends the node's report to the dispatcher once a second, which publishes it in `$nodes`.

use std::sync::Arc;

use crate::dispatcher::{Event, Now};
use crate::metrics::process;
use crate::metrics::report::{INTERVAL, Reporter};
use crate::runtime;
use crate::transport::Node;

/// Reports until the dispatcher has ended.
pub(super) async fn run(node: Arc<Node>, mut reporter: Reporter) {
    loop {
        runtime::sleep(INTERVAL).await;
        let (now, state) = (Now::read(), node.readiness.state());
        let memory = process::resident_bytes();
        let report = reporter.report(now.instant, now.unix_ms, &node.metrics, state, memory);
        let report = Event::Report(Arc::new(report));
        if node.inbox.send_async(report).await.is_err() {
            return;
        }
    }
}
