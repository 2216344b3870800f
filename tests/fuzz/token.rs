//! Tokens: any text where one belongs, and any claims under a good signature, since an issuer's
//! library may be odd. An accepted token has a user and its times; no reason of a refusal
//! contains a part of the token.

use std::sync::OnceLock;

use jsonwebtoken::{Algorithm, EncodingKey};
use switchboard::auth::Auth;
use switchboard::config::{Config, SecretFile};
use switchboard::model::identity::Credentials;
use switchboard::model::secret::Secret;

use crate::base64url::base64url;

/// The time at which all tokens are checked, in milliseconds since 1970.
const NOW: u64 = 1_764_000_000_000;

/// An even first byte: the rest is a token; an odd one: it is the claims of a signed one.
pub fn any_token(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let token = match kind % 2 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        _ => signed(rest),
    };
    let shown = Credentials::Token(Secret::new(token));
    match auth().identify(&shown, NOW) {
        Ok(identity) => {
            assert!(kind % 2 == 1, "a signature cannot be guessed");
            let times = identity.times.expect("it expires");
            assert!(times.ends >= times.expires && times.ends.saturating_add(1_000) >= NOW);
            assert!(identity.info.is_none_or(|info| info.get().len() <= 512));
        }
        Err(error) => assert!(!error.reason.is_empty()),
    }
}

fn secret() -> Secret<Vec<u8>> {
    Secret::new(vec![7; 32])
}

fn auth() -> &'static Auth {
    static AUTH: OnceLock<Auth> = OnceLock::new();
    AUTH.get_or_init(|| {
        let config = Config {
            token_secret_file: Some(SecretFile {
                path: "secret".into(),
                secret: secret(),
            }),
            ..Config::default()
        };
        Auth::new(&config).expect("the secret is long enough")
    })
}

fn signed(claims: &[u8]) -> String {
    let message = format!("{}.{}", base64url(br#"{"alg":"HS256"}"#), base64url(claims));
    let key = EncodingKey::from_secret(secret().expose());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.expect("HMAC cannot fail"))
}
