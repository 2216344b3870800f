//! The only file that uses `jsonwebtoken`: keys from files, signatures checked and made (RFC 7515,
//! 7517, 7518). Each key is for one algorithm, which the operator chose with it; the algorithm
//! that a token names must be the same.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::verify;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, decode_header, encode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{TOKEN_BYTES, TokenError};
use crate::config::TokenKey;
use crate::model::secret::Secret;

/// An RSA key of 2048 bits, the least that is verified with, has a modulus of so many bytes.
const RSA_BYTES: usize = 256;

/// A point of P-256, uncompressed (SEC 1 section 2.3.3): a 4 and two coordinates.
const P256_POINT: usize = 65;

/// A key of Ed25519 (RFC 8032 section 5.1.5).
const ED25519_BYTES: usize = 32;

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
    #[error("has a key for another algorithm than RS256, ES256 and EdDSA")]
    Algorithm,
    #[error("has a key whose `kid` another key has too; every key needs its own")]
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
        let header = decode_header(token).map_err(|_| unreadable(token))?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let key = self.find(header.kid.as_deref(), header.alg)?;
        // The library's `decode` would read some claims itself, and not say which has a wrong type.
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let is_valid = verify(signature, message.as_bytes(), &key.key, key.algorithm);
        match is_valid.map_err(|error| error.into_kind()) {
            Ok(true) => {}
            Err(jsonwebtoken::errors::ErrorKind::Base64(_)) => return Err(TokenError::Malformed),
            Ok(false) | Err(_) => return Err(TokenError::Signature),
        }
        let (_, claims) = message.rsplit_once('.').ok_or(TokenError::Malformed)?;
        decode_claims(claims)
    }

    /// The key that a token names; else the one without a name; else, for a token that names none,
    /// the only one.
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&VerifyingKey, TokenError> {
        let named = |key: &&VerifyingKey| kid.is_some() && key.kid.as_deref() == kid;
        if let Some(key) = self.0.iter().find(named) {
            let agrees = key.algorithm == algorithm;
            return agrees.then_some(key).ok_or(TokenError::Algorithm);
        }
        let mut fitting = self.0.iter().filter(|key| key.algorithm == algorithm);
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

/// The error for an unreadable header. Three parts mean an algorithm that is never verified, like
/// `none`.
fn unreadable(token: &str) -> TokenError {
    match token.bytes().filter(|byte| *byte == b'.').count() {
        2 => TokenError::Algorithm,
        _ => TokenError::Malformed,
    }
}

fn add(file: &TokenKey, keys: &mut Vec<VerifyingKey>) -> Result<(), KeyProblem> {
    for key in read(file)? {
        check_name(&key, keys)?;
        keys.push(key);
    }
    Ok(())
}

fn check_name(new: &VerifyingKey, keys: &[VerifyingKey]) -> Result<(), KeyProblem> {
    match &new.kid {
        Some(_) if keys.iter().any(|key| key.kid == new.kid) => Err(KeyProblem::SameKid),
        None if keys
            .iter()
            .any(|key| key.kid.is_none() && key.algorithm == new.algorithm) =>
        {
            Err(KeyProblem::NoKid)
        }
        _ => Ok(()),
    }
}

fn read(file: &TokenKey) -> Result<Vec<VerifyingKey>, KeyProblem> {
    let text = file.text.trim_start();
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyProblem::Private);
    }
    if text.starts_with('{') {
        return match file.kid {
            None => from_jwks(text),
            Some(_) => Err(KeyProblem::Named),
        };
    }
    let (algorithm, key) = from_pem(text)?;
    let kid = file.kid.clone();
    Ok(vec![VerifyingKey {
        kid,
        algorithm,
        key,
    }])
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

/// A JWK set (RFC 7517 section 5). Keys for encryption are skipped; every other key must
/// be usable.
fn from_jwks(text: &str) -> Result<Vec<VerifyingKey>, KeyProblem> {
    #[derive(Deserialize)]
    struct Set<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }
    /// Whether the private part is there too.
    #[derive(Deserialize)]
    struct Parts {
        d: Option<serde::de::IgnoredAny>,
    }
    let set: Set<'_> = serde_json::from_str(text).map_err(|_| KeyProblem::NoKey)?;
    let mut keys = Vec::new();
    for json in set.keys {
        let parts: Parts = serde_json::from_str(json.get()).map_err(|_| KeyProblem::NoKey)?;
        if parts.d.is_some() {
            return Err(KeyProblem::Private);
        }
        let jwk: Jwk = serde_json::from_str(json.get()).map_err(|_| KeyProblem::NoKey)?;
        if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
            continue;
        }
        let algorithm = algorithm_of(&jwk)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| KeyProblem::NoKey)?;
        check_size(algorithm, &key)?;
        let kid = jwk.common.key_id;
        keys.push(VerifyingKey {
            kid,
            algorithm,
            key,
        });
    }
    if keys.is_empty() {
        return Err(KeyProblem::NoKey);
    }
    Ok(keys)
}

/// The one algorithm of a key's kind, which must be the key's own if it names one.
fn algorithm_of(jwk: &Jwk) -> Result<Algorithm, KeyProblem> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        AlgorithmParameters::OctetKey(_) => return Err(KeyProblem::Symmetric),
        _ => return Err(KeyProblem::Kind),
    };
    match jwk.common.key_algorithm {
        Some(named) if named != algorithm.into() => Err(KeyProblem::Algorithm),
        _ => Ok(algorithm),
    }
}

fn check_size(algorithm: Algorithm, key: &DecodingKey) -> Result<(), KeyProblem> {
    use jsonwebtoken::DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
    match (algorithm, key.kind()) {
        (Algorithm::RS256, RsaModulusExponent { n, .. }) if n.len() < RSA_BYTES => {
            Err(KeyProblem::Short)
        }
        (Algorithm::ES256, SecretOrDer(point)) if point.len() != P256_POINT => {
            Err(KeyProblem::NoKey)
        }
        (Algorithm::EdDSA, SecretOrDer(key)) if key.len() != ED25519_BYTES => {
            Err(KeyProblem::NoKey)
        }
        _ => Ok(()),
    }
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
