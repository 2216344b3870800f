//! The HTTP API on running nodes. Unit tests in `src/api` test paths, fields and codes.

mod access;
mod cluster_queries;
mod outages;
mod publishing;

use switchboard::config::Config;

use crate::support::backend::keys;

/// Configures a node with the key of the tests.
fn keyed(config: &mut Config) {
    config.api_key_file = Some(keys());
}
