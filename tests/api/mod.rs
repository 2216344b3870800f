//! The HTTP API on running nodes, by subject. Paths, fields and codes are tabled beside the code,
//! in `src/api`.

mod access;
mod census;
mod outages;
mod publishing;

use switchboard::config::Config;

use crate::support::backend::keys;

/// Gives a node the key of the tests.
fn keyed(config: &mut Config) {
    config.api_key_file = Some(keys());
}
