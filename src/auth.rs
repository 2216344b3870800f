//! Authentication: from a client's credentials to its identity. In open mode names are accepted
//! unverified; otherwise tokens are verified. This happens in the tasks of the client's own
//! connection; the dispatcher receives only the identity.

mod claims;
mod hooks;
mod inspect;
mod jwt;
mod request;

use crate::config::{Config, TokenRequest};
use crate::model::identity::{Credentials, Identity};
use crate::model::secret::Secret;
use crate::protocol::{Code, CommandError};

use claims::ClaimRequirements;
pub use hooks::{ConnectAttempt, Hooks, JoinAttempt, PublishAttempt, Reason};
pub(crate) use inspect::{TokenReport, TokenVerdict, inspect};
pub use jwt::{KeyError, SignError};

/// The longest token, in bytes. One with a hundred patterns of rooms has half of it.
pub(crate) const TOKEN_BYTES: usize = 4096;

/// How clients of this node authenticate.
#[derive(Debug)]
pub enum Auth {
    /// No key is configured: names are accepted unverified.
    Open,
    Tokens(Verifier),
}

/// Verifies tokens: their signature with the node's keys, then what they claim.
#[derive(Debug)]
pub struct Verifier {
    keys: jwt::VerifyingKeys,
    required: ClaimRequirements,
    in_query: bool,
}

/// Why a token is refused, in a sentence that quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub enum TokenError {
    TooLong,
    Malformed,
    /// RFC 7515 section 4.1.11: what must be understood and is not.
    Critical,
    /// Not the one algorithm that the key is for; `none` above all.
    Algorithm,
    UnknownKey,
    Signature,
    Claims,
    /// A claim that has another type than it must have; with the sentence.
    ClaimType(&'static str),
    User,
    Rooms,
    Info,
    NoExpiry,
    Expired,
    Early,
    /// Issued later than the clocks of the issuer and this node can explain.
    Future,
    Lasting,
    Audience,
    Issuer,
}

impl TokenError {
    /// The sentence for the issuer or the client.
    pub fn sentence(self) -> &'static str {
        match self {
            TokenError::TooLong => "the token is longer than 4096 bytes; give it fewer claims",
            TokenError::Malformed => {
                "this is no signed token: three parts of base64url with dots between"
            }
            TokenError::Critical => {
                "the token has `crit` extensions, of which this server supports none"
            }
            TokenError::Algorithm => "the token is not signed with the algorithm of its key",
            TokenError::UnknownKey => {
                "the token is signed with a key that this server does not have"
            }
            TokenError::Signature => {
                "the token's signature does not fit; it is forged or of another issuer"
            }
            TokenError::Claims => {
                "the token's claims are not one JSON object in which each claim stands once"
            }
            TokenError::ClaimType(sentence) => sentence,
            TokenError::User => {
                "the token's `sub` must be a user name: 1 to 255 bytes without control characters"
            }
            TokenError::Rooms => {
                "the token's `rooms` must be a list of patterns, or an object with lists `join`, \
                 `publish`, `history`, `members`"
            }
            TokenError::Info => {
                "the token's `info` may have 512 bytes, and neither half a surrogate pair nor a \
                 number beyond a double"
            }
            TokenError::NoExpiry => "the token needs `exp`, when it expires",
            TokenError::Expired => "the token has expired; get a new one",
            TokenError::Early => "the token is not valid yet",
            TokenError::Future => {
                "the token's `iat` is more than 5 seconds ahead of this server's clock; \
                 `iat` is in seconds since 1970"
            }
            TokenError::Lasting => {
                "the token lives longer than this server allows; give it an earlier `exp`"
            }
            TokenError::Audience => "the token is for another audience",
            TokenError::Issuer => "the token is of an issuer that this server does not accept",
        }
    }
}

impl From<TokenError> for CommandError {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Expired => Code::Expired,
            _ => Code::Unauthorized,
        };
        Self::new(code, error.sentence())
    }
}

impl Auth {
    /// Open mode if the configuration has no key.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn new(config: &Config) -> Result<Self, KeyError> {
        if config.is_open() {
            return Ok(Auth::Open);
        }
        let secret = config.token_secret_file.as_ref();
        let keys = jwt::VerifyingKeys::new(secret.map(|file| &file.secret), &config.token_key)?;
        Ok(Auth::Tokens(Verifier {
            keys,
            required: ClaimRequirements {
                audiences: config.token_audience.clone(),
                issuers: config.token_issuer.clone(),
                lifetime: config.token_lifetime.as_millis() as u64,
            },
            in_query: config.token_in_query,
        }))
    }

    /// The identity behind these credentials, at a time in milliseconds since 1970.
    ///
    /// # Errors
    /// A refused token, a name where a token is needed, or a token where none can be verified.
    pub fn identify(&self, shown: &Credentials, now: u64) -> Result<Identity, CommandError> {
        match (self, shown) {
            (Auth::Open, Credentials::User { user, info }) => {
                Ok(Identity::unverified(user.clone(), info.clone()))
            }
            (Auth::Open, Credentials::Token(_)) => Err(CommandError::new(
                Code::Unauthorized,
                "this server is open and verifies no tokens; name yourself with `user`",
            )),
            (Auth::Tokens(_), Credentials::User { .. }) => Err(CommandError::new(
                Code::Unauthorized,
                "this server accepts tokens only; send `token` instead of `user`",
            )),
            (Auth::Tokens(verifier), Credentials::Token(token)) => Ok(verifier.verify(token, now)?),
        }
    }
}

impl Verifier {
    /// The user and its rights, if the token is valid at this time (milliseconds since 1970).
    pub fn verify(&self, token: &Secret<String>, now: u64) -> Result<Identity, TokenError> {
        let claims = self.keys.open(token)?;
        claims::read(&claims, &self.required, now)
    }
}

/// Signs a token, at a time in milliseconds since 1970.
///
/// # Errors
/// When the cryptography fails.
pub fn sign(request: &TokenRequest, now: u64) -> Result<Secret<String>, SignError> {
    jwt::sign(
        &request.token_secret_file.secret,
        &claims::NewClaims::new(request, now),
    )
}

#[cfg(test)]
mod tests;
