//! How a receiver authenticates a request: HMAC-SHA256 (RFC 2104) over the time of sending, a full
//! stop and the body, under a shared secret. The time lets the receiver refuse a replayed request.

use std::fmt::Write as _;

use aws_lc_rs::hmac::{self, HMAC_SHA256};

use crate::model::secret::Secret;

/// The name of the header.
pub(crate) const HEADER: &str = "switchboard-signature";

/// The secret, ready for use. `Debug` does not show it.
#[derive(Clone, Debug)]
pub(crate) struct SigningKey(hmac::Key);

impl SigningKey {
    pub(crate) fn new(secret: &Secret<Vec<u8>>) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, secret.expose()))
    }

    /// The header's value, `t=SECONDS,v1=HEX`, for a body that is sent at `time`, in seconds since
    /// 1970.
    pub(crate) fn sign(&self, time: u64, body: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{time}.").as_bytes());
        context.update(body.as_bytes());
        let mut value = format!("t={time},v1=");
        for byte in context.sign().as_ref() {
            // Writing into a String cannot fail.
            let _ = write!(value, "{byte:02x}");
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_equals_the_one_of_openssl() {
        // printf '1764000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let expected = "020c626f1ccd9fdc1fb78034d6735bdca794ce2de3efea76942a018a08ac78bc";
        let key = SigningKey::new(&Secret::new(b"0123456789abcdef0123456789abcdef".to_vec()));
        let signed = key.sign(1_764_000_000, r#"{"a":1}"#);
        assert_eq!(signed, format!("t=1764000000,v1={expected}"));
        assert!(!format!("{key:?}").contains("0123"));
    }
}
