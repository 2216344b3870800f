//! Reads a token for people: what it claims, and whether a node with the given keys accepts it. The
//! claims of a token whose signature was not verified are shown, and marked so.

use serde_json::value::RawValue;

use super::claims::{self, ClaimRequirements, TokenClaims};
use super::jwt::{self, KeyError, VerifyingKeys};
use super::{TOKEN_BYTES, TokenError};
use crate::config::TokenReadRequest;
use crate::model::secret::Secret;

/// The content of a token.
#[derive(Debug)]
pub(crate) struct TokenReport {
    pub(crate) claims: TokenClaims,
    pub(crate) verdict: TokenVerdict,
}

/// Whether nodes accept a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenVerdict {
    /// Nodes with these keys and requirements do.
    Accepted,
    /// There is no key to verify the signature with; the claims are in order.
    Unverified,
    /// No node does.
    Refused(TokenError),
}

/// Reads a token, at a time in milliseconds since 1970.
///
/// # Errors
/// A key that cannot be used; or, as the inner error, a text that is no token.
pub(crate) fn inspect(
    request: &TokenReadRequest,
    token: &Secret<String>,
    now: u64,
) -> Result<Result<TokenReport, TokenError>, KeyError> {
    let secret = request.token_secret_file.as_ref();
    let keys = VerifyingKeys::new(secret.map(|file| &file.secret), &request.token_key)?;
    let has_keys = secret.is_some() || !request.token_key.is_empty();
    let signature = has_keys.then(|| keys.open(token).map(|_| ()));
    Ok(jwt::payload(token).and_then(|payload| report(request, token, &payload, signature, now)))
}

/// `signature` is `None` if there is no key.
fn report(
    request: &TokenReadRequest,
    token: &Secret<String>,
    payload: &RawValue,
    signature: Option<Result<(), TokenError>>,
    now: u64,
) -> Result<TokenReport, TokenError> {
    let claims = claims::describe(payload)?;
    let required = ClaimRequirements {
        audiences: match &request.token_audience {
            // Without the nodes' audiences the token's own are not judged.
            none if none.is_empty() => claims.audiences.clone(),
            some => some.clone(),
        },
        issuers: request.token_issuer.clone(),
        lifetime: request.token_lifetime.as_millis() as u64,
    };
    let fits = if token.expose().len() > TOKEN_BYTES {
        Err(TokenError::TooLong)
    } else {
        claims::read(payload, &required, now)
    };
    let verdict = match (signature, fits) {
        (Some(Err(error)), _) | (_, Err(error)) => TokenVerdict::Refused(error),
        (Some(Ok(())), Ok(_)) => TokenVerdict::Accepted,
        (None, Ok(_)) => TokenVerdict::Unverified,
    };
    Ok(TokenReport { claims, verdict })
}
