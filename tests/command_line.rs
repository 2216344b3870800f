//! The binary as an operator meets it.

use crate::support::{NodeProcess, run};

#[test]
fn sigterm_drains_and_exits_with_zero() {
    run(async {
        let mut node = NodeProcess::start(&[]).await;
        node.terminate();
        assert_eq!(node.exit().await.code(), Some(0), "{:?}", node.log());
    });
}
