//! The only files that use `jsonwebtoken`: keys from files, signatures checked and made (RFC 7515,
//! 7518). `jwk` reads sets of keys. Each key is for one algorithm, which the operator chose with
//! it; the algorithm that a token names must be the same.

mod jwk;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, crypto, encode};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{TOKEN_BYTES, TokenError};
use crate::config::TokenKey;
use crate::model::secret::Secret;

/// An RSA key of 2048 bits, the least that is verified with, has a modulus of so many bytes.
const RSA_BYTES: usize = 256;

/// A point of P-256, uncompressed (SEC 1 section 2.3.3): a 4 and two coordinates.
const P256_POINT: usize = 65;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--token-key {file}: {problem}")]
pub struct KeyError {
    file: String,
    pub problem: KeyProblem,
}

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    #[error(
        "is a private key; a node needs the public one only, and this one must stay with the issuer"
    )]
    Private,
    #[error("is no public key: give a PEM file that begins with BEGIN PUBLIC KEY, or a JWK set")]
    NoKey,
    #[error("holds a symmetric key; give that with --token-secret-file")]
    Symmetric,
    #[error("has an RSA key of less than 2048 bits; make a longer one")]
    Short,
    #[error("has a key of another kind than RSA, P-256 and Ed25519")]
    Kind,
    #[error("has a key for another algorithm than RS256, ES256 and EdDSA (Ed25519)")]
    Algorithm,
    #[error("has a key for another use than signatures (`use` is not `sig`)")]
    Use,
    #[error("has a key for other operations than verifying (`key_ops` lacks `verify`)")]
    Operations,
    #[error("has a key that is malformed or lacks a member that its kind requires")]
    Malformed,
    #[error("has a key whose `kid` another key for its algorithm has too; every key needs its own")]
    SameKid,
    #[error("is a JWK set, which names its keys itself; give it without KID=")]
    Named,
    #[error("is the second key for its algorithm without a `kid`; name each with KID=FILE")]
    NoKid,
}

/// A token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign the token: {0}")]
pub struct SignError(#[from] jsonwebtoken::errors::Error);

/// The keys whose signatures are accepted.
#[derive(Debug)]
pub(super) struct VerifyingKeys(Vec<VerifyingKey>);

struct VerifyingKey {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VerifyingKey({:?}, {:?})", self.kid, self.algorithm)
    }
}

impl VerifyingKeys {
    /// The secret, if there is one, has no `kid`.
    pub(super) fn new(
        secret: Option<&Secret<Vec<u8>>>,
        files: &[TokenKey],
    ) -> Result<Self, KeyError> {
        let mut keys: Vec<VerifyingKey> = Vec::new();
        keys.extend(secret.map(|secret| VerifyingKey {
            kid: None,
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret.expose()),
        }));
        for file in files {
            add(file, &mut keys).map_err(|problem| KeyError {
                file: file.path.display().to_string(),
                problem,
            })?;
        }
        Ok(Self(keys))
    }

    /// The claims of a token with a valid signature, not yet checked.
    pub(super) fn open(&self, token: &Secret<String>) -> Result<Box<RawValue>, TokenError> {
        let token = token.expose();
        if token.len() > TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
        if claims.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header = TokenHeader::read(header).ok_or(TokenError::Algorithm)?;
        let algorithm = algorithm(&header.alg).ok_or(TokenError::Algorithm)?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let key = self.find(header.kid.as_deref(), algorithm)?;
        match crypto::verify(signature, message.as_bytes(), &key.key, key.algorithm) {
            Ok(true) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Base64(_)) => {
                return Err(TokenError::Malformed);
            }
            Ok(false) | Err(_) => return Err(TokenError::Signature),
        }
        decode_claims(claims)
    }

    /// The key that a token names; else the one without a name; else, for a token that names none,
    /// the only one.
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&VerifyingKey, TokenError> {
        let mut fitting = self.0.iter().filter(|key| key.algorithm == algorithm);
        let named = |key: &VerifyingKey| kid.is_some() && key.kid.as_deref() == kid;
        // Keys of several kinds may share a name (RFC 7517 section 4.5).
        if self.0.iter().any(named) {
            return fitting.find(|key| named(key)).ok_or(TokenError::Algorithm);
        }
        if let Some(nameless) = fitting.clone().find(|key| key.kid.is_none()) {
            return Ok(nameless);
        }
        match (fitting.next(), fitting.next(), kid) {
            (None, _, None) => Err(TokenError::Algorithm),
            (Some(only), None, None) => Ok(only),
            _ => Err(TokenError::UnknownKey),
        }
    }
}

/// The claims of a token, without a look at its signature.
pub(super) fn payload(token: &Secret<String>) -> Result<Box<RawValue>, TokenError> {
    let mut parts = token.expose().split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    decode_claims(payload)
}

fn decode_claims(payload: &str) -> Result<Box<RawValue>, TokenError> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(payload);
    let json = json.map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Claims)
}

/// The members of a token's header (RFC 7515 section 4.1) that are used.
#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl TokenHeader {
    fn read(part: &str) -> Option<Self> {
        let json = BASE64_URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice(&json).ok()
    }
}

/// The algorithm of this name, if it is one that is verified: never `none`.
fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "HS256" => Some(Algorithm::HS256),
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        // RFC 9864 names EdDSA over Ed25519 by its curve.
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

fn add(file: &TokenKey, keys: &mut Vec<VerifyingKey>) -> Result<(), KeyProblem> {
    let text = file.text.trim_start();
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyProblem::Private);
    }
    if text.starts_with('{') {
        return match file.kid {
            None => jwk::add_set(file, keys),
            Some(_) => Err(KeyProblem::Named),
        };
    }
    let (algorithm, key) = from_pem(text)?;
    let kid = file.kid.clone();
    let key = VerifyingKey {
        kid,
        algorithm,
        key,
    };
    check_name(&key, keys)?;
    keys.push(key);
    Ok(())
}

/// Whether a token could name this key and no other.
fn check_name(new: &VerifyingKey, keys: &[VerifyingKey]) -> Result<(), KeyProblem> {
    let mut others = keys.iter().filter(|key| key.algorithm == new.algorithm);
    if others.all(|key| key.kid != new.kid) {
        return Ok(());
    }
    Err(match new.kid {
        Some(_) => KeyProblem::SameKid,
        None => KeyProblem::NoKid,
    })
}

fn from_pem(text: &str) -> Result<(Algorithm, DecodingKey), KeyProblem> {
    let pem = text.as_bytes();
    let is_public = text.contains("BEGIN PUBLIC KEY") || text.contains("BEGIN RSA PUBLIC KEY");
    if !is_public {
        return Err(KeyProblem::NoKey);
    }
    let bytes = |key: &DecodingKey| key.try_get_as_bytes().map_or(0, <[u8]>::len);
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        // The modulus and a few bytes around it.
        let long = bytes(&key) >= RSA_BYTES;
        return long
            .then_some((Algorithm::RS256, key))
            .ok_or(KeyProblem::Short);
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        let fits = bytes(&key) == P256_POINT;
        return fits
            .then_some((Algorithm::ES256, key))
            .ok_or(KeyProblem::Kind);
    }
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return Ok((Algorithm::EdDSA, key));
    }
    Err(KeyProblem::Kind)
}

/// Signs claims with HS256.
pub(super) fn sign(
    secret: &Secret<Vec<u8>>,
    claims: &impl Serialize,
) -> Result<Secret<String>, SignError> {
    let key = EncodingKey::from_secret(secret.expose());
    Ok(Secret::new(encode(
        &Header::new(Algorithm::HS256),
        claims,
        &key,
    )?))
}
