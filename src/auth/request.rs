//! Tokens in a WebSocket handshake: in `Authorization`, as an offered subprotocol `bearer.TOKEN`
//! (browsers can set no header), or in the query where that is allowed. An invalid token is
//! refused with 401 before the upgrade.

use percent_encoding::percent_decode_str;

use super::Auth;
use crate::http::{Refusal, RequestHead, StatusCode};
use crate::model::identity::Identity;
use crate::model::secret::Secret;

/// What an offered subprotocol begins with when the rest of it is a token.
const OFFERED: &str = "bearer.";

impl Auth {
    /// The identity in this handshake, at a time in milliseconds since 1970; `None` for a client
    /// without credentials, which may send them in its first message.
    ///
    /// # Errors
    /// 401 for a refused token, and for one where none can be verified; 400 for more than one.
    pub fn of_handshake(
        &self,
        request: &RequestHead,
        now: u64,
    ) -> Result<Option<Identity>, Refusal> {
        let mut found = tokens(request);
        let Some((place, token)) = found.pop() else {
            return Ok(None);
        };
        if !found.is_empty() {
            return Err(Refusal::bad_request("Send one token, in one place."));
        }
        let verifier = match self {
            Auth::Tokens(verifier) => verifier,
            // Without `--token-in-query` a parameter `token` has no meaning to this server.
            Auth::Open if place == TokenPlace::Query => return Ok(None),
            Auth::Open => {
                return Err(refused(
                    "This server is open and verifies no tokens: send none.",
                ));
            }
        };
        if place == TokenPlace::Query && !verifier.in_query {
            return Err(refused(
                "This server takes no token from the query: send it in a header or the first \
                 message.",
            ));
        }
        match verifier.verify(&token, now) {
            Ok(identity) => Ok(Some(identity)),
            Err(error) => Err(refused(error.sentence())),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenPlace {
    Header,
    Subprotocol,
    Query,
}

/// Everything that is meant to be a token, also what is none.
fn tokens(request: &RequestHead) -> Vec<(TokenPlace, Secret<String>)> {
    let secret = |place, text: &str| (place, Secret::new(text.to_owned()));
    let headers = request.headers("authorization").filter_map(bearer);
    let headers = headers.map(|token| secret(TokenPlace::Header, token));
    let offers = request.elements("sec-websocket-protocol");
    let offers = offers.filter_map(|offer| offer.strip_prefix(OFFERED));
    let offers = offers.map(|token| secret(TokenPlace::Subprotocol, token));
    let query = request.query.as_deref().unwrap_or_default().split('&');
    let query = query.filter_map(|pair| pair.strip_prefix("token="));
    let query = query.map(|token| {
        let token = percent_decode_str(token).decode_utf8_lossy();
        secret(TokenPlace::Query, &token)
    });
    headers.chain(offers).chain(query).collect()
}

/// RFC 6750 section 2.1; the scheme's case does not matter (RFC 9110 section 11.1). Other schemes
/// are for a proxy in front.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// RFC 9110 section 15.5.2: the refusal names the scheme.
fn refused(reason: &'static str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, reason).with("WWW-Authenticate", "Bearer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, SecretFile};
    use crate::http::{HeadLimits, ParsedHead, parse_head};
    use crate::model::identity::Credentials;

    const NOW: u64 = 1_764_000_000_000;

    fn config(in_query: bool) -> Config {
        Config {
            token_secret_file: Some(SecretFile {
                path: "secret".into(),
                secret: Secret::new(vec![7; 32]),
            }),
            token_in_query: in_query,
            ..Config::default()
        }
    }

    fn token() -> String {
        let request = crate::config::TokenRequest {
            token_secret_file: config(false).token_secret_file.unwrap(),
            user: crate::model::id::UserName::new("ada").unwrap(),
            expires: std::time::Duration::from_secs(60),
            audience: None,
            issuer: None,
            rooms: vec![],
            join: vec![],
            publish: vec![],
            history: vec![],
            members: vec![],
        };
        crate::auth::sign(&request, NOW).unwrap().expose().clone()
    }

    fn request(query: &str, fields: &str) -> RequestHead {
        let head = format!("GET /ws{query} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        match parse_head(head.as_bytes(), &HeadLimits::default()) {
            Ok(ParsedHead::Complete { request, .. }) => request,
            other => panic!("{other:?}"),
        }
    }

    /// The user's name, or the status of the refusal.
    fn outcome(auth: &Auth, query: &str, fields: &str) -> Result<Option<String>, u16> {
        match auth.of_handshake(&request(query, fields), NOW) {
            Ok(identity) => Ok(identity.map(|identity| identity.user.to_string())),
            Err(refusal) => {
                assert!(!refusal.to_string().contains("eyJ"), "{refusal}");
                Err(refusal.status.as_u16())
            }
        }
    }

    #[test]
    fn tokens_are_read_from_each_allowed_place_and_refused_in_others() {
        let secured = Auth::new(&config(false)).unwrap();
        let with_query = Auth::new(&config(true)).unwrap();
        let (open, good) = (Auth::Open, token());
        let bad = format!("{good}x");
        let header = |token: &str| format!("Authorization: Bearer {token}\r\n");
        let offer =
            |token: &str| format!("Sec-WebSocket-Protocol: bearer.{token}, switchboard\r\n");
        let query = |token: &str| format!("?a=b&token={token}");
        let basic = "Authorization: Basic YTpi\r\n".to_owned();
        let ada = || Ok(Some("ada".to_owned()));
        let both = header(&good) + &offer(&good);
        let (nothing, none) = (String::new(), Ok(None));
        let rows = [
            (&secured, &nothing, &nothing, none.clone()),
            (&secured, &nothing, &basic, none.clone()),
            (&secured, &nothing, &header(&good), ada()),
            (
                &secured,
                &nothing,
                &header(&good).replace("Bearer", "bEARER"),
                ada(),
            ),
            (&secured, &nothing, &header(&bad), Err(401)),
            (&secured, &nothing, &header(""), Err(401)),
            (&secured, &nothing, &offer(&good), ada()),
            (&secured, &nothing, &offer(&bad), Err(401)),
            (&secured, &nothing, &offer(""), Err(401)),
            (&secured, &query(&good), &nothing, Err(401)),
            (&with_query, &query(&good), &nothing, ada()),
            (
                &with_query,
                &query(&good.replace('.', "%2E")),
                &nothing,
                ada(),
            ),
            (&with_query, &query(&bad), &nothing, Err(401)),
            (&with_query, &query(""), &nothing, Err(401)),
            (&secured, &nothing, &both, Err(400)),
            (&with_query, &query(&good), &header(&good), Err(400)),
            (
                &secured,
                &nothing,
                &(header(&good) + &header(&bad)),
                Err(400),
            ),
            (&open, &nothing, &nothing, none.clone()),
            (&open, &nothing, &basic, none.clone()),
            (&open, &nothing, &header(&good), Err(401)),
            (&open, &nothing, &offer(&good), Err(401)),
            (&open, &query(&good), &nothing, none.clone()),
        ];
        for (auth, query, fields, expected) in rows {
            assert_eq!(outcome(auth, query, fields), expected, "{query} {fields}");
        }
    }

    #[test]
    fn debug_output_hides_tokens_and_secrets() {
        let config = config(true);
        let auth = Auth::new(&config).unwrap();
        let token = token();
        let shown = format!(
            "{config:?} {auth:?} {:?} {:?} {}",
            tokens(&request(&format!("?token={token}"), "")),
            Credentials::Token(Secret::new(token)),
            config.to_toml(),
        );
        assert!(!shown.contains("eyJ") && !shown.contains("7, 7"), "{shown}");
    }
}
