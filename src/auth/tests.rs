//! Tokens good and bad, one row each, with keys made for the occasion by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use base64url::base64url;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::auth::jwt::KeyProblem;
use crate::config::TokenKey;
use crate::model::id::{RoomName, UserName};
use crate::model::identity::Action;

#[path = "../../tests/support/base64url.rs"]
mod base64url;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
/// The time of these tests, in seconds since 1970.
const NOW: u64 = 1_764_000_000;

/// A directory with a pair of each kind of key: `KIND.pem` private, `KIND.pub` public.
fn keys() -> &'static Path {
    static KEYS: OnceLock<PathBuf> = OnceLock::new();
    KEYS.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap().keep();
        let kinds: [(&str, &[&str]); 5] = [
            ("rsa", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
            ("short", &["RSA", "-pkeyopt", "rsa_keygen_bits:1024"]),
            ("ec", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
            ("p384", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
            ("ed", &["ED25519"]),
        ];
        for (name, kind) in kinds {
            let (private, public) = (format!("{name}.pem"), format!("{name}.pub"));
            let openssl = |arguments: &[&str]| {
                let mut command = Command::new("openssl");
                let output = command.args(arguments).current_dir(&directory).output();
                assert!(
                    output.expect("openssl is installed").status.success(),
                    "{arguments:?}"
                );
            };
            openssl(&[&["genpkey", "-out", &private, "-algorithm"], kind].concat());
            openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
        }
        directory
    })
}

fn text(file: &str) -> String {
    std::fs::read_to_string(keys().join(file)).unwrap()
}

fn file(kid: Option<&str>, text: String) -> TokenKey {
    TokenKey {
        kid: kid.map(str::to_owned),
        path: "keys".into(),
        text,
    }
}

fn verifier(secret: bool, files: &[TokenKey]) -> Result<Verifier, KeyError> {
    let secret = secret.then(|| Secret::new(SECRET.to_vec()));
    Ok(Verifier {
        keys: jwt::VerifyingKeys::new(secret.as_ref(), files)?,
        required: ClaimRequirements {
            audiences: vec![],
            issuers: vec![],
            lifetime: 3_600_000,
        },
        in_query: false,
    })
}

fn claims() -> Value {
    json!({"sub": "ada", "exp": NOW + 60})
}

fn signed(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    encode(header, claims, key).unwrap()
}

/// Signed with the secret.
fn token(claims: &Value) -> String {
    signed(
        &Header::default(),
        claims,
        &EncodingKey::from_secret(SECRET),
    )
}

fn verify(verifier: &Verifier, token: String) -> Result<Identity, TokenError> {
    verifier.verify(&Secret::new(token), NOW * 1000)
}

fn with(change: Value) -> Value {
    let mut claims = claims();
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

#[test]
fn claims_are_accepted_or_refused() {
    let verifier = verifier(true, &[]).unwrap();
    let long = "x".repeat(510);
    let rows = [
        (json!({}), Ok(())),
        (json!({"exp": null}), Err(TokenError::NoExpiry)),
        (json!({"exp": NOW - 4}), Ok(())),
        (json!({"exp": NOW - 6}), Err(TokenError::Expired)),
        (json!({"exp": NOW as f64 + 0.5}), Ok(())),
        (json!({"exp": -1}), Err(TokenError::Expired)),
        (json!({"exp": 1e300}), Err(TokenError::Lasting)),
        (json!({"exp": NOW + 3604}), Ok(())),
        (json!({"exp": NOW + 3606}), Err(TokenError::Lasting)),
        // It is over when its revocation is, though it was shown late.
        (json!({"iat": NOW - 3000, "exp": NOW + 604}), Ok(())),
        (
            json!({"iat": NOW - 3000, "exp": NOW + 606}),
            Err(TokenError::Lasting),
        ),
        (json!({"iat": NOW + 5}), Ok(())),
        (json!({"iat": NOW as f64 + 5.5}), Err(TokenError::Future)),
        (json!({"iat": NOW + 3600}), Err(TokenError::Future)),
        // In milliseconds by mistake.
        (json!({"iat": NOW * 1000}), Err(TokenError::Future)),
        (json!({"iat": 1e300}), Err(TokenError::Future)),
        (
            json!({"iat": NOW + 4, "exp": NOW + 3606}),
            Err(TokenError::Lasting),
        ),
        (json!({"nbf": NOW + 4}), Ok(())),
        (json!({"nbf": NOW + 6}), Err(TokenError::Early)),
        (json!({"nbf": 1e300}), Err(TokenError::Early)),
        (json!({"sub": null}), Err(TokenError::User)),
        (json!({"sub": ""}), Err(TokenError::User)),
        (json!({"sub": "auth0|5f7c8ec7"}), Ok(())),
        (json!({"sub": "ada@example.com"}), Ok(())),
        (json!({"sub": "a\u{202e}b"}), Err(TokenError::User)),
        (json!({"sub": "x".repeat(256)}), Err(TokenError::User)),
        (json!({"aud": "other"}), Err(TokenError::Audience)),
        (json!({"aud": []}), Ok(())),
        (json!({"iss": "anyone"}), Ok(())),
        (json!({"rooms": ["a", "b.*"]}), Ok(())),
        (json!({"rooms": {"join": ["a"], "publish": []}}), Ok(())),
        (json!({"rooms": {"jion": ["a"]}}), Err(TokenError::Rooms)),
        (json!({"rooms": {"join": "a"}}), Err(TokenError::Rooms)),
        (json!({"rooms": ["a b"]}), Err(TokenError::Rooms)),
        (json!({"rooms": [7]}), Err(TokenError::Rooms)),
        (json!({"rooms": "lobby"}), Err(TokenError::Rooms)),
        (json!({"info": long}), Ok(())),
        (json!({"info": format!("{long}x")}), Err(TokenError::Info)),
        (json!({"role": {"anything": 1}}), Ok(())),
    ];
    for (change, expected) in rows {
        let outcome = verify(&verifier, token(&with(change.clone())));
        assert_eq!(outcome.map(|_| ()), expected, "{change}");
    }
}

#[test]
fn claim_of_a_wrong_type_is_named() {
    let verifier = verifier(true, &[]).unwrap();
    for (claim, wrong, kind) in [
        ("sub", json!(7), "a string"),
        ("sub", json!(["ada"]), "a string"),
        ("exp", json!("1764003600"), "a number"),
        ("nbf", json!("soon"), "a number"),
        ("iat", json!({}), "a number"),
        ("iat", json!(true), "a number"),
        ("aud", json!(7), "a string or a list of strings"),
        ("aud", json!(["chat", 7]), "a string or a list of strings"),
        ("iss", json!(["me"]), "a string"),
        ("rooms", json!("lobby"), "a list of patterns"),
    ] {
        let error = verify(&verifier, token(&with(json!({claim: wrong})))).unwrap_err();
        let sentence = error.sentence();
        let expected = format!("the token's `{claim}` must be {kind}");
        assert!(
            sentence.starts_with(&expected),
            "{claim} {wrong}: {sentence}"
        );
    }
}

#[test]
fn info_that_strict_readers_refuse_is_refused() {
    let required = &verifier(true, &[]).unwrap().required;
    for (info, is_good) in [
        (r#"{"name":"\ud83d"}"#, false),
        (r#"{"n":1e400}"#, false),
        (r#"{"name":"\ud83d\ude00","n":1e300}"#, true),
    ] {
        let claims = format!(r#"{{"sub":"ada","exp":{},"info":{info}}}"#, NOW + 60);
        let claims = serde_json::value::RawValue::from_string(claims).unwrap();
        let outcome = claims::read(&claims, required, NOW * 1000);
        let expected = if is_good {
            Ok(())
        } else {
            Err(TokenError::Info)
        };
        assert_eq!(outcome.map(|_| ()), expected, "{info}");
    }
}

#[test]
fn audience_and_issuer_are_checked_if_configured() {
    let mut verifier = verifier(true, &[]).unwrap();
    verifier.required.audiences = vec!["chat".into(), "talk".into()];
    verifier.required.issuers = vec!["https://id.example".into()];
    let good = json!({"aud": "chat", "iss": "https://id.example"});
    let rows = [
        (good, Ok(())),
        (
            json!({"aud": ["x", "talk"], "iss": "https://id.example"}),
            Ok(()),
        ),
        (
            json!({"iss": "https://id.example"}),
            Err(TokenError::Audience),
        ),
        (
            json!({"aud": "Chat", "iss": "https://id.example"}),
            Err(TokenError::Audience),
        ),
        (json!({"aud": "chat"}), Err(TokenError::Issuer)),
        (
            json!({"aud": "chat", "iss": "https://id.example.evil"}),
            Err(TokenError::Issuer),
        ),
    ];
    for (change, expected) in rows {
        let outcome = verify(&verifier, token(&with(change.clone())));
        assert_eq!(outcome.map(|_| ()), expected, "{change}");
    }
}

#[test]
fn tokens_grant_the_rights_of_their_patterns() {
    let verifier = verifier(true, &[]).unwrap();
    let times = json!({"iat": NOW - 1, "info": {"name": "Ada"}});
    let identity = verify(&verifier, token(&with(times))).unwrap();
    let kept = identity.times.unwrap();
    assert_eq!(kept.issued, Some((NOW - 1) * 1000));
    assert_eq!(
        (kept.expires, kept.ends),
        ((NOW + 60) * 1000, (NOW + 64) * 1000)
    );
    assert_eq!(identity.info.unwrap().get(), r#"{"name":"Ada"}"#);
    let rooms = json!({"rooms": {"join": ["a.*"], "publish": ["a.1"]}});
    let some = verify(&verifier, token(&with(rooms))).unwrap();
    let all = verify(&verifier, token(&with(json!({"rooms": ["a.*"]})))).unwrap();
    let room = |name| RoomName::new(name).unwrap();
    for action in Action::ALL {
        assert!(all.grants.allow(action, &room("a.2")));
        let expected = action == Action::Join;
        assert_eq!(some.grants.allow(action, &room("a.2")), expected);
    }
    assert!(some.grants.allow(Action::Publish, &room("a.1")));
}

#[test]
fn only_the_algorithm_of_the_key_is_verified() {
    let public = text("rsa.pub");
    let verifier = verifier(false, &[file(None, public.clone())]).unwrap();
    let private = EncodingKey::from_rsa_pem(text("rsa.pem").as_bytes()).unwrap();
    let rs256 = Header::new(Algorithm::RS256);
    assert!(verify(&verifier, signed(&rs256, &claims(), &private)).is_ok());
    // The public key, misused as a secret.
    let confused = EncodingKey::from_secret(public.as_bytes());
    let token = signed(&Header::default(), &claims(), &confused);
    assert_eq!(verify(&verifier, token).unwrap_err(), TokenError::Algorithm);
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let token = signed(&Header::new(algorithm), &claims(), &private);
        assert_eq!(verify(&verifier, token).unwrap_err(), TokenError::Algorithm);
    }
}

#[test]
fn forged_headers_and_shapes_are_refused() {
    let verifier = verifier(true, &[]).unwrap();
    let good = token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, body, signature] = parts[..] else {
        panic!()
    };
    let head = |json: Value| base64url(json.to_string().as_bytes());
    let none = |alg: &str| format!("{}.{body}.", head(json!({"alg": alg, "typ": "JWT"})));
    let critical = Header {
        crit: Some(vec!["b64".into()]),
        ..Header::default()
    };
    let critical = signed(&critical, &claims(), &EncodingKey::from_secret(SECRET));
    let other = EncodingKey::from_secret(b"another secret of 32 bytes, or more");
    let forged = base64url(
        json!({"sub": "root", "exp": NOW + 60})
            .to_string()
            .as_bytes(),
    );
    let not_json = base64url(b"[]");
    let long = token(&with(json!({"pad": "x".repeat(TOKEN_BYTES)})));
    let rows = [
        ("", TokenError::Malformed),
        ("..", TokenError::Algorithm),
        ("a.b.c", TokenError::Algorithm),
        ("swordfish", TokenError::Malformed),
        (&none("none"), TokenError::Algorithm),
        (&none("None"), TokenError::Algorithm),
        (&none("HS256"), TokenError::Signature),
        (&none("HS512"), TokenError::Algorithm),
        (&format!("{header}.{body}"), TokenError::Malformed),
        (
            &format!("{header}.{body}.{signature}.x"),
            TokenError::Malformed,
        ),
        (
            &format!("{header}.{forged}.{signature}"),
            TokenError::Signature,
        ),
        (
            &format!("{header}.{body}.{}", &signature[1..]),
            TokenError::Malformed,
        ),
        (&format!("{header}.{body}.+/+/"), TokenError::Malformed),
        (&critical, TokenError::Critical),
        (
            &signed(&Header::default(), &claims(), &other),
            TokenError::Signature,
        ),
        (
            &format!("{header}.{not_json}.{signature}"),
            TokenError::Signature,
        ),
        (&token(&json!([])), TokenError::Claims),
        (&long, TokenError::TooLong),
    ];
    for (token, expected) in rows {
        let outcome = verify(&verifier, token.to_owned());
        assert_eq!(outcome.unwrap_err(), expected, "{token}");
    }
    let twice = r#"{"sub":"ada","sub":"root","exp":1864000000}"#;
    let header_and_body = format!("{header}.{}", base64url(twice.as_bytes()));
    let key = EncodingKey::from_secret(SECRET);
    let message = header_and_body.as_bytes();
    let signature = jsonwebtoken::crypto::sign(message, &key, Algorithm::HS256).unwrap();
    let outcome = verify(&verifier, format!("{header_and_body}.{signature}"));
    assert_eq!(outcome.unwrap_err(), TokenError::Claims);
}

#[test]
fn public_keys_verify_only_signatures_of_their_private_keys() {
    let files = ["rsa", "ec", "ed"].map(|name| file(Some(name), text(&format!("{name}.pub"))));
    let verifier = verifier(true, &files).unwrap();
    let private = |name: &str| text(&format!("{name}.pem")).into_bytes();
    let keys = [
        (
            "rsa",
            Algorithm::RS256,
            EncodingKey::from_rsa_pem(&private("rsa")).unwrap(),
        ),
        (
            "ec",
            Algorithm::ES256,
            EncodingKey::from_ec_pem(&private("ec")).unwrap(),
        ),
        (
            "ed",
            Algorithm::EdDSA,
            EncodingKey::from_ed_pem(&private("ed")).unwrap(),
        ),
    ];
    for (name, algorithm, key) in &keys {
        for kid in [
            None,
            Some("rsa"),
            Some("ec"),
            Some("ed"),
            Some("../etc/passwd"),
        ] {
            let mut header = Header::new(*algorithm);
            header.kid = kid.map(str::to_owned);
            let outcome = verify(&verifier, signed(&header, &claims(), key)).map(|_| ());
            let expected = match kid {
                None => Ok(()),
                Some(kid) if kid == *name => Ok(()),
                Some("../etc/passwd") => Err(TokenError::UnknownKey),
                Some(_) => Err(TokenError::Algorithm),
            };
            assert_eq!(outcome, expected, "{name} {kid:?}");
        }
    }
    // A kid that no key has falls back on the one key without a name: here the secret.
    let header = Header {
        kid: Some("2026".into()),
        ..Header::default()
    };
    let token = signed(&header, &claims(), &EncodingKey::from_secret(SECRET));
    assert!(verify(&verifier, token).is_ok());
}

/// The public key of `NAME.pem` as a JWK with the name as its `kid`, and the private one.
fn jwk(name: &str, algorithm: Algorithm) -> (Value, EncodingKey) {
    let pem = text(&format!("{name}.pem"));
    let key = match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
        _ => EncodingKey::from_ed_pem(pem.as_bytes()),
    };
    let key = key.unwrap();
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, algorithm).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk["kid"] = json!(name);
    (jwk, key)
}

/// The same object with other members.
fn changed(object: &Value, change: Value) -> Value {
    let mut object = object.clone();
    for (name, value) in change.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn verifier_of_set(keys: &[&Value]) -> Result<Verifier, KeyError> {
    verifier(false, &[file(None, json!({"keys": keys}).to_string())])
}

#[test]
fn key_sets_are_read_and_selected_by_kid() {
    let ((rsa_jwk, _), (ec_jwk, ec)) = (jwk("rsa", Algorithm::RS256), jwk("ec", Algorithm::ES256));
    let verifier = verifier_of_set(&[&rsa_jwk, &ec_jwk]).unwrap();
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("ec".into());
    assert!(verify(&verifier, signed(&header, &claims(), &ec)).is_ok());
    header.kid = Some("rsa".into());
    let token = signed(&header, &claims(), &ec);
    assert_eq!(verify(&verifier, token).unwrap_err(), TokenError::Algorithm);

    // Keys of two kinds may have one name.
    let same = changed(&ec_jwk, json!({"kid": "rsa"}));
    let verifier = verifier_of_set(&[&rsa_jwk, &same]).unwrap();
    assert!(verify(&verifier, signed(&header, &claims(), &ec)).is_ok());
}

#[test]
fn keys_of_a_set_that_cannot_verify_tokens_are_ignored() {
    let ((rsa, _), (ec, key)) = (jwk("rsa", Algorithm::RS256), jwk("ec", Algorithm::ES256));
    let (ed, _) = jwk("ed", Algorithm::EdDSA);
    let of_rsa = |change: Value| changed(&rsa, change);
    let rows = [
        (of_rsa(json!({"use": "enc"})), KeyProblem::Use),
        (of_rsa(json!({"use": "x"})), KeyProblem::Use),
        (
            of_rsa(json!({"key_ops": ["sign", "wrapKey"]})),
            KeyProblem::Operations,
        ),
        (of_rsa(json!({"key_ops": []})), KeyProblem::Operations),
        (of_rsa(json!({"alg": "RS512"})), KeyProblem::Algorithm),
        (
            of_rsa(json!({"alg": "RSA-OAEP-256"})),
            KeyProblem::Algorithm,
        ),
        (of_rsa(json!({"alg": "rs256"})), KeyProblem::Algorithm),
        (changed(&ed, json!({"alg": "Ed448"})), KeyProblem::Algorithm),
        (of_rsa(json!({"alg": 256})), KeyProblem::Malformed),
        (of_rsa(json!({"kid": 1})), KeyProblem::Malformed),
        (of_rsa(json!({"key_ops": "verify"})), KeyProblem::Malformed),
        (of_rsa(json!({"use": ["sig"]})), KeyProblem::Malformed),
        (of_rsa(json!({"n": "AQAB"})), KeyProblem::Short),
        (of_rsa(json!({"n": "A".repeat(400)})), KeyProblem::Short),
        (of_rsa(json!({"n": "not base64"})), KeyProblem::Malformed),
        (of_rsa(json!({"n": null})), KeyProblem::Malformed),
        (of_rsa(json!({"e": ""})), KeyProblem::Malformed),
        (
            changed(&ec, json!({"x": "AA", "y": "AA"})),
            KeyProblem::Malformed,
        ),
        (changed(&ec, json!({"y": null})), KeyProblem::Malformed),
        (changed(&ec, json!({"crv": null})), KeyProblem::Malformed),
        (
            changed(&ec, json!({"crv": "P-384", "alg": "ES384"})),
            KeyProblem::Kind,
        ),
        (changed(&ec, json!({"crv": "secp256k1"})), KeyProblem::Kind),
        (changed(&ed, json!({"crv": "X25519"})), KeyProblem::Kind),
        (changed(&ed, json!({"crv": "Ed448"})), KeyProblem::Kind),
        (changed(&ed, json!({"x": "AA"})), KeyProblem::Malformed),
        (
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}),
            KeyProblem::Kind,
        ),
        (
            json!({"kty": "oct", "k": base64url(SECRET)}),
            KeyProblem::Symmetric,
        ),
        (json!({"kty": 5}), KeyProblem::Malformed),
        (json!({}), KeyProblem::Malformed),
        (json!("key"), KeyProblem::Malformed),
        (json!(null), KeyProblem::Malformed),
    ];
    let good = Header {
        kid: Some("ec".into()),
        ..Header::new(Algorithm::ES256)
    };
    for (row, expected) in rows {
        // Alone, the set has no key.
        let error = verifier_of_set(&[&row]).unwrap_err();
        assert_eq!(error.problem, expected, "{row}");
        // Before or behind another one, it does not matter.
        for set in [[&row, &ec], [&ec, &row]] {
            let verifier = verifier_of_set(&set).expect("one key is good");
            let token = signed(&good, &claims(), &key);
            assert!(verify(&verifier, token).is_ok(), "{row}");
        }
    }
    // Members that are not used here are not looked at.
    for extra in [
        json!({"x5c": 1, "x5t": []}),
        json!({"key_ops": ["verify"], "use": "sig"}),
    ] {
        verifier_of_set(&[&changed(&ec, extra)]).expect("the key is good");
    }
    verifier_of_set(&[&rsa, &rsa]).expect("a repeated key is ignored");
    assert_eq!(verifier_of_set(&[]).unwrap_err().problem, KeyProblem::NoKey);
    let private = of_rsa(json!({"d": "AQ", "use": "enc"}));
    let error = verifier_of_set(&[&ec, &private]).unwrap_err();
    assert_eq!(error.problem, KeyProblem::Private);
}

#[test]
fn ed25519_is_accepted_by_both_names_of_its_algorithm() {
    let (ed, key) = jwk("ed", Algorithm::EdDSA);
    let keys = ["EdDSA", "Ed25519"].map(|alg| changed(&ed, json!({"alg": alg})));
    for jwk in &keys {
        let verifier = verifier_of_set(&[jwk]).unwrap();
        for (alg, expected) in [
            ("EdDSA", Ok(())),
            ("Ed25519", Ok(())),
            ("Ed448", Err(TokenError::Algorithm)),
            ("ed25519", Err(TokenError::Algorithm)),
        ] {
            let header = base64url(json!({"alg": alg, "kid": "ed"}).to_string().as_bytes());
            let message = format!("{header}.{}", base64url(claims().to_string().as_bytes()));
            let signature =
                jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA).unwrap();
            let outcome = verify(&verifier, format!("{message}.{signature}")).map(|_| ());
            assert_eq!(outcome, expected, "{jwk} {alg}");
        }
    }
}

#[test]
fn files_without_a_public_key_are_refused() {
    let rows = [
        (text("rsa.pem"), KeyProblem::Private),
        (text("ed.pem"), KeyProblem::Private),
        (text("short.pub"), KeyProblem::Short),
        (text("p384.pub"), KeyProblem::Kind),
        (String::new(), KeyProblem::NoKey),
        ("{}".into(), KeyProblem::NoKey),
        (
            text("rsa.pub").replace("PUBLIC KEY", "CERTIFICATE"),
            KeyProblem::NoKey,
        ),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----".into(),
            KeyProblem::Kind,
        ),
    ];
    for (text, expected) in rows {
        let error = verifier(false, &[file(None, text)]).unwrap_err();
        assert_eq!(error.problem, expected);
        assert!(
            error.to_string().starts_with("--token-key keys: "),
            "{error}"
        );
    }
    let twice = [file(None, text("rsa.pub")), file(None, text("rsa.pub"))];
    assert_eq!(
        verifier(true, &twice).unwrap_err().problem,
        KeyProblem::NoKid
    );
    let named = [
        file(Some("a"), text("rsa.pub")),
        file(None, text("rsa.pub")),
    ];
    assert!(verifier(true, &named).is_ok());
    let set = [file(Some("a"), "{}".into())];
    assert_eq!(verifier(true, &set).unwrap_err().problem, KeyProblem::Named);
    let same = [
        file(Some("a"), text("rsa.pub")),
        file(Some("a"), text("rsa.pub")),
    ];
    assert_eq!(
        verifier(true, &same).unwrap_err().problem,
        KeyProblem::SameKid
    );
}

#[test]
fn names_are_accepted_in_open_mode_only_and_tokens_otherwise() {
    let secured = Auth::Tokens(verifier(true, &[]).unwrap());
    let name = Credentials::User {
        user: UserName::new("ada").unwrap(),
        info: None,
    };
    let token = Credentials::Token(Secret::new(token(&claims())));
    let now = NOW * 1000;
    assert_eq!(
        Auth::Open.identify(&name, now).unwrap().user.as_str(),
        "ada"
    );
    assert_eq!(
        Auth::Open.identify(&token, now).unwrap_err().code,
        Code::Unauthorized
    );
    assert_eq!(
        secured.identify(&name, now).unwrap_err().code,
        Code::Unauthorized
    );
    assert_eq!(secured.identify(&token, now).unwrap().user.as_str(), "ada");
    let later = secured.identify(&token, now + 66_000).unwrap_err();
    assert_eq!(later.code, Code::Expired);
}

proptest::proptest! {
    #[test]
    fn arbitrary_tokens_cause_no_panic(text in "\\PC{0,200}", parts in "[A-Za-z0-9_.-]{0,300}") {
        let verifier = verifier(true, &[]).unwrap();
        for token in [text, parts] {
            assert!(verify(&verifier, token).is_err());
        }
    }
}
