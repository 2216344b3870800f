//! `switchboard token`: signs a token.

use std::process::ExitCode;

use crate::auth;
use crate::config::TokenRequest;
use crate::dispatcher::Now;

/// Prints the token and nothing else, for scripts.
pub(super) fn run(request: &TokenRequest) -> ExitCode {
    match auth::sign(request, Now::read().unix_ms) {
        Ok(token) => super::succeed(&format!("{}\n", token.expose())),
        Err(error) => super::fail(&error),
    }
}
