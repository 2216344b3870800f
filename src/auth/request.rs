//! Tokens in a WebSocket handshake: in `Authorization`, as an offered subprotocol `bearer.TOKEN` (browsers can set no header),
//! or in the query where that is allowed. What is wrong is refused with 401 before anything is upgraded.

use percent_encoding::percent_decode_str;

use super::Auth;
use crate::http::{Refusal, Request, Status};
use crate::identity::Identity;
use crate::secret::Secret;

/// What an offered subprotocol begins with when the rest of it is a token.
const OFFERED: &str = "bearer.";

impl Auth {
    /// Who sends this handshake, at a time in milliseconds since 1970; `None` for a client that does not say, and may do so
    /// in its first message.
    ///
    /// # Errors
    /// 401 for a refused token, and for one where none can be verified; 400 for more than one.
    pub fn of_handshake(&self, request: &Request, now: u64) -> Result<Option<Identity>, Refusal> {
        let mut found = tokens(request);
        let Some((place, token)) = found.pop() else {
            return Ok(None);
        };
        if !found.is_empty() {
            return Err(Refusal::bad_request("Send one token, in one place."));
        }
        let verifier = match self {
            Auth::Tokens(verifier) => verifier,
            // A query means what it says to whoever put it there; only here would it be a token.
            Auth::Open if place == Place::Query => return Ok(None),
            Auth::Open => {
                return Err(refused(
                    "This server is open and verifies no tokens: send none.",
                ));
            }
        };
        if place == Place::Query && !verifier.in_query {
            return Err(refused(
                "This server takes no token from the query: send it in a header or the first message.",
            ));
        }
        match verifier.verify(&token, now) {
            Ok(identity) => Ok(Some(identity)),
            Err(error) => Err(refused(error.sentence())),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Header,
    Subprotocol,
    Query,
}

/// Everything that is meant to be a token, also what is none.
fn tokens(request: &Request) -> Vec<(Place, Secret<String>)> {
    let secret = |place, text: &str| (place, Secret::new(text.to_owned()));
    let headers = request.headers("authorization").filter_map(bearer);
    let headers = headers.map(|token| secret(Place::Header, token));
    let offers = request.elements("sec-websocket-protocol");
    let offers = offers.filter_map(|offer| offer.strip_prefix(OFFERED));
    let offers = offers.map(|token| secret(Place::Subprotocol, token));
    let query = request.query.as_deref().unwrap_or_default().split('&');
    let query = query.filter_map(|pair| pair.strip_prefix("token="));
    let query = query.map(|token| {
        let token = percent_decode_str(token).decode_utf8_lossy();
        secret(Place::Query, &token)
    });
    headers.chain(offers).chain(query).collect()
}

/// RFC 6750 section 2.1; the scheme's case does not matter (RFC 9110 section 11.1). Other schemes are for a proxy in front.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// RFC 9110 section 15.5.2: the refusal names the scheme.
fn refused(reason: &'static str) -> Refusal {
    Refusal::new(Status::Unauthorized, reason).with("WWW-Authenticate", "Bearer")
}
