//! What a token claims (RFC 7519 section 4.1): `sub` the user, `exp`, `nbf` and `iat` its times,
//! `aud` and `iss`, and the private claims `rooms` (what the user may do, by patterns of room
//! names) and `info` (what others may see of it).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::TokenError;
use crate::config::TokenRequest;
use crate::model::id::UserName;
use crate::model::identity::{Grants, Identity, LEEWAY, Times, milliseconds};
use crate::model::json_text;
use crate::model::member::INFO_BYTES;
use crate::model::pattern::Pattern;

/// How long a connection outlives its token, in milliseconds: a second less than [`LEEWAY`], so
/// that it is over within that.
const LINGER: u64 = 4_000;

/// The requirements for the claims, other than the times.
#[derive(Debug)]
pub(super) struct ClaimRequirements {
    /// One of these must be in `aud`. Without any, a token that names an audience is
    /// refused.
    pub audiences: Vec<String>,
    /// `iss` must be one of these. Without any it may be anything.
    pub issuers: Vec<String>,
    /// The longest that a token may live, in milliseconds.
    pub lifetime: u64,
}

#[derive(Deserialize)]
struct ClaimTexts<'a> {
    #[serde(borrow)]
    sub: Option<&'a RawValue>,
    #[serde(borrow)]
    exp: Option<&'a RawValue>,
    #[serde(borrow)]
    nbf: Option<&'a RawValue>,
    #[serde(borrow)]
    iat: Option<&'a RawValue>,
    #[serde(borrow)]
    aud: Option<&'a RawValue>,
    #[serde(borrow)]
    iss: Option<&'a RawValue>,
    #[serde(borrow)]
    rooms: Option<&'a RawValue>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
}

/// The claims of their types.
struct Claims<'a> {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    aud: Option<OneOrMany>,
    iss: Option<String>,
    rooms: Option<&'a RawValue>,
    info: Option<&'a RawValue>,
}

impl<'a> Claims<'a> {
    fn parse(json: &'a RawValue) -> Result<Self, TokenError> {
        // Of a list, serde would take the entries for the claims in order.
        let object = Some(json.get()).filter(|json| json.starts_with('{'));
        let texts = object.and_then(|json| serde_json::from_str(json).ok());
        let texts: ClaimTexts<'a> = texts.ok_or(TokenError::Claims)?;
        let exp = "the token's `exp` must be a number: seconds since 1970";
        let nbf = "the token's `nbf` must be a number: seconds since 1970";
        let iat = "the token's `iat` must be a number: seconds since 1970";
        Ok(Self {
            sub: typed(
                texts.sub,
                "the token's `sub` must be a string: the user's name",
            )?,
            exp: typed(texts.exp, exp)?,
            nbf: typed(texts.nbf, nbf)?,
            iat: typed(texts.iat, iat)?,
            aud: typed(
                texts.aud,
                "the token's `aud` must be a string or a list of strings",
            )?,
            iss: typed(texts.iss, "the token's `iss` must be a string")?,
            rooms: texts.rooms,
            info: texts.info,
        })
    }
}

/// A claim of its type; `wrong` is the error for one of another type.
fn typed<'a, T: Deserialize<'a>>(
    claim: Option<&'a RawValue>,
    wrong: &'static str,
) -> Result<Option<T>, TokenError> {
    let claim = claim.map(|json| serde_json::from_str(json.get()));
    claim.transpose().map_err(|_| TokenError::ClaimType(wrong))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The rights of a token that lists each action for itself. A misspelt one would silently be a
/// right less, so unknown ones are errors.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Lists {
    join: Vec<String>,
    publish: Vec<String>,
    history: Vec<String>,
    members: Vec<String>,
}

/// Reads the claims of a token whose signature fits.
pub(super) fn read(
    claims: &RawValue,
    required: &ClaimRequirements,
    now: u64,
) -> Result<Identity, TokenError> {
    let claims = Claims::parse(claims)?;
    let user = claims.sub.as_deref().map(UserName::new);
    let Some(Ok(user)) = user else {
        return Err(TokenError::User);
    };
    let times = times(&claims, required.lifetime, now)?;
    check_audience(claims.aud, &required.audiences)?;
    let issued_by = |issuer: &String| claims.iss.as_ref() == Some(issuer);
    if !required.issuers.is_empty() && !required.issuers.iter().any(issued_by) {
        return Err(TokenError::Issuer);
    }
    let info = match claims.info {
        Some(info) if info.get().len() > INFO_BYTES || json_text::check(info.get()).is_err() => {
            return Err(TokenError::Info);
        }
        info => info.map(|info| Arc::from(info.to_owned())),
    };
    Ok(Identity {
        user,
        grants: grants(claims.rooms)?,
        info,
        times: Some(times),
    })
}

/// What a token claims, for people: nothing of it is checked but its form. Times are in
/// milliseconds since 1970.
#[derive(Debug)]
pub(crate) struct TokenClaims {
    pub(crate) user: Option<String>,
    pub(crate) issued: Option<u64>,
    pub(crate) begins: Option<u64>,
    pub(crate) expires: Option<u64>,
    pub(crate) audiences: Vec<String>,
    pub(crate) issuer: Option<String>,
    /// Empty if they cannot be read.
    pub(crate) grants: Grants,
    pub(crate) info: Option<Box<RawValue>>,
}

/// Reads the claims of a token whose signature may be wrong.
pub(super) fn describe(claims: &RawValue) -> Result<TokenClaims, TokenError> {
    let claims = Claims::parse(claims)?;
    Ok(TokenClaims {
        issued: claims.iat.map(milliseconds),
        begins: claims.nbf.map(milliseconds),
        expires: claims.exp.map(milliseconds),
        grants: grants(claims.rooms).unwrap_or_default(),
        info: claims.info.map(RawValue::to_owned),
        audiences: named_audiences(claims.aud),
        user: claims.sub,
        issuer: claims.iss,
    })
}

/// A revocation is remembered for as long as a token may live, so none may live longer.
fn times(claims: &Claims<'_>, lifetime: u64, now: u64) -> Result<Times, TokenError> {
    let expires = claims.exp.map(milliseconds).ok_or(TokenError::NoExpiry)?;
    if now > expires.saturating_add(LEEWAY) {
        return Err(TokenError::Expired);
    }
    if claims
        .nbf
        .map(milliseconds)
        .is_some_and(|start| start > now + LEEWAY)
    {
        return Err(TokenError::Early);
    }
    let issued = claims.iat.map(milliseconds);
    // A token from the future would outlive its revocation.
    if issued.is_some_and(|issued| issued > now.saturating_add(LEEWAY)) {
        return Err(TokenError::Future);
    }
    let begins = issued.unwrap_or(now).min(now);
    if expires > begins.saturating_add(lifetime).saturating_add(LEEWAY) {
        return Err(TokenError::Lasting);
    }
    Ok(Times {
        issued,
        expires,
        ends: expires.saturating_add(LINGER),
    })
}

/// RFC 7519 section 4.1.3: a recipient that is not listed in `aud` must refuse the token.
fn check_audience(named: Option<OneOrMany>, ours: &[String]) -> Result<(), TokenError> {
    let named = named_audiences(named);
    let nobodys = named.is_empty() && ours.is_empty();
    if nobodys || ours.iter().any(|name| named.contains(name)) {
        return Ok(());
    }
    Err(TokenError::Audience)
}

fn named_audiences(claim: Option<OneOrMany>) -> Vec<String> {
    match claim {
        None => vec![],
        Some(OneOrMany::One(one)) => vec![one],
        Some(OneOrMany::Many(many)) => many,
    }
}

/// A bare list means all actions: a user that may join a room usually may do everything there.
fn grants(rooms: Option<&RawValue>) -> Result<Grants, TokenError> {
    let Some(rooms) = rooms.map(RawValue::get) else {
        return Ok(Grants::default());
    };
    if rooms.starts_with('[') {
        let list: Vec<String> = serde_json::from_str(rooms).map_err(|_| TokenError::Rooms)?;
        let all = patterns(&list)?;
        return Ok(Grants::new([(); 4].map(|()| all.clone())));
    }
    let lists: Lists = serde_json::from_str(rooms).map_err(|_| TokenError::Rooms)?;
    Ok(Grants::new([
        patterns(&lists.join)?,
        patterns(&lists.publish)?,
        patterns(&lists.history)?,
        patterns(&lists.members)?,
    ]))
}

fn patterns(texts: &[String]) -> Result<Arc<[Pattern]>, TokenError> {
    let patterns = texts.iter().map(|text| Pattern::new(text));
    patterns.collect::<Option<_>>().ok_or(TokenError::Rooms)
}

/// The claims of a new token, as they are signed.
#[derive(Serialize)]
pub(super) struct NewClaims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    rooms: Lists,
}

impl<'a> NewClaims<'a> {
    pub(super) fn new(request: &'a TokenRequest, now: u64) -> Self {
        let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect();
        let iat = now / 1000;
        Self {
            sub: request.user.as_str(),
            iat,
            exp: iat + request.expires.as_secs(),
            aud: request.audience.as_deref(),
            iss: request.issuer.as_deref(),
            rooms: Lists {
                join: texts(&request.join),
                publish: texts(&request.publish),
                history: texts(&request.history),
                members: texts(&request.members),
            },
        }
    }
}
