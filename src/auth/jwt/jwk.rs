//! JWK sets (RFC 7517): the public keys of an issuer, which lists in one file whatever it has. Keys
//! that cannot verify tokens are ignored (section 5), each with a line in the log.

use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{KeyProblem, P256_POINT, RSA_BYTES, VerifyingKey, algorithm, check_name};
use crate::config::TokenKey;

/// A key of Ed25519 (RFC 8032 section 5.1.5).
const ED25519_BYTES: usize = 32;

#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// What is read even of a key that is ignored: its name for the log, and its private part, which
/// must not be here whatever else is in the key.
#[derive(Default, Deserialize)]
struct Label {
    #[serde(default)]
    kid: serde_json::Value,
    d: Option<IgnoredAny>,
}

/// The members of a key that matter here (RFC 7517 section 4, RFC 7518 section 6).
#[derive(Deserialize)]
struct Jwk {
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kty: String,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Adds the keys of a set that can verify tokens.
///
/// # Errors
/// If the set has none, or has a private key.
pub(super) fn add_set(file: &TokenKey, keys: &mut Vec<VerifyingKey>) -> Result<(), KeyProblem> {
    let set: Set<'_> = serde_json::from_str(&file.text).map_err(|_| KeyProblem::NoKey)?;
    let (before, mut first_problem) = (keys.len(), None);
    for json in set.keys {
        let label: Label = serde_json::from_str(json.get()).unwrap_or_default();
        if label.d.is_some() {
            return Err(KeyProblem::Private);
        }
        let usable = read(json).and_then(|key| check_name(&key, keys).map(|()| key));
        match usable {
            Ok(key) => keys.push(key),
            Err(problem) => {
                log_ignored(file, &label, problem);
                first_problem.get_or_insert(problem);
            }
        }
    }
    if keys.len() == before {
        return Err(first_problem.unwrap_or(KeyProblem::NoKey));
    }
    Ok(())
}

fn log_ignored(file: &TokenKey, label: &Label, problem: KeyProblem) {
    log::warn!(
        file = file.path.display().to_string().as_str(),
        kid = label.kid.as_str().unwrap_or_default(),
        reason = problem.to_string().as_str();
        "a key of the JWK set is ignored"
    );
}

fn read(json: &RawValue) -> Result<VerifyingKey, KeyProblem> {
    let jwk: Jwk = serde_json::from_str(json.get()).map_err(|_| KeyProblem::Malformed)?;
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err(KeyProblem::Use);
    }
    let verifies = |operations: &Vec<String>| operations.iter().any(|name| name == "verify");
    if !jwk.key_ops.as_ref().is_none_or(verifies) {
        return Err(KeyProblem::Operations);
    }
    let (algorithm, key) = public_key(&jwk)?;
    Ok(VerifyingKey {
        kid: jwk.kid,
        algorithm,
        key,
    })
}

/// The key and the one algorithm of its kind, which must be the key's own if it names one.
fn public_key(jwk: &Jwk) -> Result<(Algorithm, DecodingKey), KeyProblem> {
    let kind = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => Algorithm::RS256,
        ("EC", Some("P-256")) => Algorithm::ES256,
        ("OKP", Some("Ed25519")) => Algorithm::EdDSA,
        ("oct", _) => return Err(KeyProblem::Symmetric),
        ("EC" | "OKP", None) => return Err(KeyProblem::Malformed),
        _ => return Err(KeyProblem::Kind),
    };
    let named = jwk.alg.as_deref();
    if named.is_some_and(|name| algorithm(name) != Some(kind)) {
        return Err(KeyProblem::Algorithm);
    }
    let member = |value: &'_ Option<String>| value.clone().ok_or(KeyProblem::Malformed);
    let key = match kind {
        Algorithm::RS256 => DecodingKey::from_rsa_components(&member(&jwk.n)?, &member(&jwk.e)?),
        Algorithm::ES256 => DecodingKey::from_ec_components(&member(&jwk.x)?, &member(&jwk.y)?),
        _ => DecodingKey::from_ed_components(&member(&jwk.x)?),
    };
    let key = key.map_err(|_| KeyProblem::Malformed)?;
    check_size(kind, &key)?;
    Ok((kind, key))
}

fn check_size(algorithm: Algorithm, key: &DecodingKey) -> Result<(), KeyProblem> {
    match (algorithm, key.kind()) {
        (_, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            let zeros = n.iter().take_while(|byte| **byte == 0).count();
            if e.iter().all(|byte| *byte == 0) {
                Err(KeyProblem::Malformed)
            } else if n.len() - zeros < RSA_BYTES {
                Err(KeyProblem::Short)
            } else {
                Ok(())
            }
        }
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) if point.len() != P256_POINT => {
            Err(KeyProblem::Malformed)
        }
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(key)) if key.len() != ED25519_BYTES => {
            Err(KeyProblem::Malformed)
        }
        _ => Ok(()),
    }
}
